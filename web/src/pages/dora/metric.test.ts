import { expect, it } from 'vitest';

import type { Metric } from '../../lib/types.ts';
import { basis, change, frequency, valueText } from './metric.ts';

const metric = (more: Partial<Metric>): Metric => ({
  name: 'change_fail_rate', title: '', value: 0.25, unit: 'ratio', n: 8, numerator: 2, previous: 0.5, previous_n: 4, percentiles: {}, buckets: [], rows: [], rows_total: 0, ...more,
});

it('writes a frequency in the unit that people would say', () => {
  expect([3.2, 1, 0.5, 1 / 15, 0].map(frequency)).toEqual(['3.2 a day', '1 a day', '3.5 a week', '2 in 30 days', '0 a day']);
});

it('never writes a missing value as zero', () => {
  expect(valueText('seconds', null)).toBe('no data');
  expect(valueText('ratio', 0)).toBe('0\u00a0%');
});

it('says what a ratio rests on', () => {
  expect(basis(metric({}))).toBe('2 of 8 deployments');
  expect(basis(metric({ name: 'change_lead_time', n: 1, numerator: null }))).toBe('1 commit');
});

it('knows that fewer failures are better and fewer deployments worse', () => {
  expect(change(metric({})).sense).toBe('better');
  expect(change(metric({ unit: 'per_day', value: 1, previous: 2 })).sense).toBe('worse');
  expect(change(metric({ previous: null }))).toEqual({ text: 'nothing to compare with', sense: null });
});
