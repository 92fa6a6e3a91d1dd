import { expect, it } from 'vitest';

import { ago, bytes, duration, many, percent, took } from './format.ts';

it('writes durations as people say them', () => {
  expect([0.25, 4.2, 42, 185, 7620, 280_000, Number.NaN].map(duration)).toEqual(['250 ms', '4.2 s', '42 s', '3 m 05 s', '2 h 07 m', '3 d 5 h', '–']);
});

it('never shows a negative duration or age', () => {
  expect(took('2026-03-01T12:00:10Z', '2026-03-01T12:00:00Z', 0)).toBe(0);
  expect(ago('2026-03-01T12:00:10Z', Date.parse('2026-03-01T12:00:00Z'))).toBe('just now');
});

it('counts a running thing up to now', () => {
  expect(took('2026-03-01T12:00:00Z', null, Date.parse('2026-03-01T12:01:30Z'))).toBe(90);
  expect(took(null, null, 0)).toBeNull();
});

it('gives a share the decimals that it deserves', () => {
  expect([0, 0.082, 0.1, 0.0004, 1].map(percent)).toEqual(['0\u00a0%', '8.2\u00a0%', '10\u00a0%', '0.04\u00a0%', '100\u00a0%']);
});

it('counts and measures', () => {
  expect([bytes(999), bytes(1_482_112), many(1, 'job'), many(3, 'job')]).toEqual(['999 B', '1.5 MB', '1 job', '3 jobs']);
});
