import { describe, expect, it } from 'vitest';

import type { Cut } from './rows.ts';
import { HEAD, LogWindow, ROW, type Frame } from './window.svelte.ts';

interface Made {
  log: LogWindow;
  frame: Frame & { content: number };
  lines: { total: number; complete: boolean };
  shown: () => number[];
}

/** A window of 400 pixels on a log. */
function made(total: number, cuts: Cut[] = [], complete = true): Made {
  const lines = { total, complete, show: () => undefined };
  const log = new LogWindow(lines, () => cuts);
  const frame = { height: 400, top: 0, content: 0, grow(height: number) { frame.content = height; } };
  log.attach(frame);
  const shown = (): number[] => log.drawn().items.flatMap((i) => (i.kind === 'line' ? [i.n] : []));
  return { log, frame, lines, shown };
}

describe('the window on a log', () => {
  it('draws what is near the screen and nothing else', () => {
    const { log, shown } = made(100_000);
    log.begin();
    expect(shown()[0]).toBe(1);
    expect(shown().length).toBe((400 + 600) / ROW);
    log.reveal(50_000);
    expect(shown()).toContain(50_000);
    expect(shown().length).toBeLessThan(100);
  });

  it('keeps the line on top in its place while lines arrive', () => {
    const { log, lines, frame } = made(1000, [], false);
    log.begin();
    frame.top = 4000;
    log.scrolled();
    lines.total = 5000;
    log.layout();
    expect([log.top, frame.top, log.following]).toEqual([4000, 4000, false]);
    expect(frame.content).toBe(5000 * ROW);
  });

  it('follows the end until the person scrolls up, and again at the bottom', () => {
    const { log, lines, frame } = made(1000, [], false);
    log.follow();
    expect(log.top).toBe(1000 * ROW - 400);
    lines.total = 1100;
    log.layout();
    expect(log.top).toBe(1100 * ROW - 400);
    frame.top -= 100;
    log.scrolled();
    expect(log.following).toBe(false);
    log.toEnd();
    expect(log.following).toBe(true);
  });

  it('doesn’t follow what is over', () => {
    const { log } = made(1000);
    log.toEnd();
    expect(log.following).toBe(false);
  });

  it('leaves out folded steps and opens the one that a link leads into', () => {
    const { log, shown } = made(100, [{ step: 1, first: 1 }, { step: 2, first: 51 }]);
    log.begin();
    log.foldAll();
    expect(shown()).toEqual([]);
    expect(log.rows.total()).toBe(2 * HEAD);
    log.reveal(60);
    expect(shown()).toContain(60);
    expect(shown()).not.toContain(10);
  });

  it('holds the line that it was opened at while lines are measured', () => {
    const { log } = made(1000);
    log.reveal(500);
    const place = (): number => log.rows.top(500) - log.top;
    const before = place();
    log.measured(Array.from({ length: 60 }, (_, i) => [470 + i, 60]));
    expect(place()).toBe(before);
  });

  it('names the step above the screen', () => {
    const { log } = made(1000, [{ step: 1, first: 1 }]);
    log.begin();
    expect(log.above()).toBeNull();
    log.reveal(500);
    expect(log.above()?.step).toBe(1);
  });

  it('reaches every line of a log that is taller than a browser can scroll', () => {
    const { log, frame, shown } = made(2_000_000);
    log.begin();
    expect(frame.content).toBeLessThan(2_000_000 * ROW);
    log.toEnd();
    expect(shown()).toContain(2_000_000);
    expect(log.wheel(-100, 'pixel')).toBe(true);
    expect(log.top).toBe(2_000_000 * ROW - 400 - 100);
  });

  it('moves nothing once it is taken down', () => {
    const { log, frame } = made(1000);
    log.begin();
    log.detach();
    log.toEnd();
    expect(frame.top).toBe(0);
  });
});
