// The time beside a line. Pure.

import { clock } from '../lib/format.ts';
import type { Times } from '../lib/settings.svelte.ts';

/** What a change of the times goes to. */
export const nextTimes: Record<Times, Times> = { off: 'relative', relative: 'clock', clock: 'off' };

const pad = (n: number): string => String(Math.floor(n)).padStart(2, '0');

/** `14:03:09.120` by the clock, `1:05.3` or `1:02:03` since `start`. */
export function timeOf(at: string, times: Times, start: number): string {
  if (times === 'clock') return `${clock(at)}.${at.slice(20, 23).padEnd(3, '0').replace(/[^0-9]/g, '0')}`;
  const s = Math.max(0, (Date.parse(at) - start) / 1000);
  if (s < 3600) return `${Math.floor(s / 60)}:${(s % 60).toFixed(1).padStart(4, '0')}`;
  return `${Math.floor(s / 3600)}:${pad((s % 3600) / 60)}:${pad(s % 60)}`;
}
