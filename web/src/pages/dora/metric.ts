// How a metric's value is written and compared. Pure.

import { duration, percent } from '../../lib/format.ts';
import type { Metric } from '../../lib/types.ts';

/** `1.4 a day`, `3 a week`; a frequency below one a day reads better by the week. */
export function frequency(perDay: number): string {
  if (perDay === 0) return '0 a day';
  if (perDay >= 1) return `${trim(perDay)} a day`;
  if (perDay * 7 >= 1) return `${trim(perDay * 7)} a week`;
  return `${trim(perDay * 30)} in 30 days`;
}

const trim = (v: number): string => (v >= 10 ? String(Math.round(v)) : v.toFixed(1).replace(/\.0$/, ''));

export function valueText(unit: string, v: number | null): string {
  if (v === null) return 'no data';
  if (unit === 'per_day') return frequency(v);
  if (unit === 'seconds') return v < 1 ? 'under 1 s' : duration(v);
  return percent(v);
}

/** What the number rests on, with its denominator. */
export function basis(m: Metric): string {
  const what =
    m.name === 'change_lead_time' ? ['commit', 'commits']
    : m.name === 'time_to_restore' ? ['incident', 'incidents']
    : m.name === 'failed_deployment_recovery_time' ? ['recovery', 'recoveries']
    : ['deployment', 'deployments'];
  const n = `${m.n.toLocaleString('en-US')} ${m.n === 1 ? what[0] : what[1]}`;
  return m.numerator === null ? n : `${m.numerator.toLocaleString('en-US')} of ${n}`;
}

export interface Change {
  text: string;
  /** `better`, `worse`, or null when it is the same or can't be told. */
  sense: 'better' | 'worse' | null;
}

export function change(m: Metric): Change {
  if (m.value === null) return { text: m.previous === null ? '' : `was ${valueText(m.unit, m.previous)}`, sense: null };
  if (m.n === 0 && m.previous_n === 0) return { text: '', sense: null };
  if (m.previous === null) return { text: 'nothing to compare with', sense: null };
  const more = m.value - m.previous;
  if (Math.abs(more) < 1e-9) return { text: 'as before', sense: null };
  const upIsGood = m.unit === 'per_day';
  const sense = more > 0 === upIsGood ? 'better' : 'worse';
  return { text: `${more > 0 ? '▲' : '▼'} was ${valueText(m.unit, m.previous)}`, sense };
}
