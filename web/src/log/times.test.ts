import { expect, it } from 'vitest';

import { timeOf } from './times.ts';

const start = Date.parse('2026-03-01T12:00:00Z');

it('counts from the start, with hours once there are some', () => {
  expect(timeOf('2026-03-01T12:00:05.340Z', 'relative', start)).toBe('0:05.3');
  expect(timeOf('2026-03-01T12:01:05Z', 'relative', start)).toBe('1:05.0');
  expect(timeOf('2026-03-01T13:02:03.9Z', 'relative', start)).toBe('1:02:03');
  expect(timeOf('2026-03-01T11:59:00Z', 'relative', start)).toBe('0:00.0');
});

it('shows the clock to the millisecond', () => {
  expect(timeOf('2026-03-01T12:00:05.340123Z', 'clock', start)).toMatch(/:00:05\.340$/);
  expect(timeOf('2026-03-01T12:00:05Z', 'clock', start)).toMatch(/:00:05\.000$/);
});
