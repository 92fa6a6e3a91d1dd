import { expect, it, vi } from 'vitest';

import type { LogLine, LogPage } from '../lib/types.ts';
import { LogData, type Source } from './data.ts';

const line = (n: number, text = `line ${n}`): LogLine => ({ n, at: '2026-03-01T12:00:00Z', step: 1, stream: 'stdout', text });

/** A log of `total` lines whose server sends at most `most` of them at a time. */
function source(total: number, most: number): Source & { asked: [number, number][] } {
  const asked: [number, number][] = [];
  return {
    asked,
    page: (from, count) => {
      asked.push([from, count]);
      const lines = Array.from({ length: Math.max(0, Math.min(count, most, total - from + 1)) }, (_, i) => line(from + i));
      return Promise.resolve({ attempt: 1, lines, total, complete: true } satisfies LogPage);
    },
    followUrl: () => '',
  };
}

it('goes on where a short answer ended, and asks for nothing twice', async () => {
  const from = source(1000, 120);
  const data = new LogData(from, () => undefined);
  await data.open(1);
  data.show(1, 500);
  await vi.waitFor(() => expect(data.line(500)?.text).toBe('line 500'));
  expect(from.asked.map(([n]) => n)).toEqual([1, 121, 241, 361, 481]);
});

it('keeps a bounded number of lines of a long log', async () => {
  const from = source(1_000_000, 500);
  const data = new LogData(from, () => undefined);
  await data.open(1);
  for (let n = 1; n < 200_000; n += 1000) {
    data.show(n, n + 50);
    await vi.waitFor(() => expect(data.line(n)).toBeDefined(), { interval: 1 });
  }
  const kept = Array.from({ length: 200_000 }, (_, i) => data.line(i + 1)).filter(Boolean).length;
  expect(kept).toBeLessThanOrEqual(81 * 500);
  expect(data.line(1)).toBeUndefined();
});

it('carries a colour from one window into the next', async () => {
  const esc = '\u001b';
  const from = source(2000, 500);
  const plain = from.page;
  from.page = async (a, b, signal) => {
    const page = await plain(a, b, signal);
    return { ...page, lines: page.lines.map((l) => (l.n === 490 ? line(490, `${esc}[31mred`) : l)) };
  };
  const data = new LogData(from, () => undefined);
  await data.open(501);
  expect(data.styleAt(510).fg).toBeNull();
  data.show(480, 520);
  await vi.waitFor(() => expect(data.line(490)).toBeDefined());
  expect(data.styleAt(510).fg).toBe('var(--ansi-1)');
});
