import { describe, expect, it } from 'vitest';

import { LIMIT, Rows, scale, sections, Sums } from './rows.ts';

describe('prefix sums', () => {
  it('agree with adding up, while they grow', () => {
    const sums = new Sums();
    const values: number[] = Array.from({ length: 5000 }, () => 0);
    let seed = 7;
    for (let k = 0; k < 3000; k += 1) {
      seed = (seed * 1103515245 + 12345) % 2147483648;
      const i = seed % Math.min(5000, 10 + k * 2);
      values[i] = seed % 50;
      sums.set(i, values[i] ?? 0);
      if (k % 97 === 0) {
        const at = seed % 5000;
        expect(sums.upTo(at)).toBe(values.slice(0, at).reduce((a, b) => a + b, 0));
      }
    }
    expect(sums.upTo(5000)).toBe(values.reduce((a, b) => a + b, 0));
    sums.clear();
    expect(sums.upTo(5000)).toBe(0);
  });
});

describe('rows of a log', () => {
  const cuts = [{ step: 1, first: 4 }, { step: 2, first: 11 }];

  it('put each step under its header and the rest before them', () => {
    expect(sections(cuts, 20, new Set())).toEqual([
      { step: 0, from: 1, to: 3, folded: false },
      { step: 1, from: 4, to: 10, folded: false },
      { step: 2, from: 11, to: 20, folded: false },
    ]);
  });

  it('find a line by its position and the other way round', () => {
    const rows = new Rows(20, 30);
    rows.setSections(sections(cuts, 20, new Set()));
    rows.measured(5, 60);
    rows.measured(12, 40);
    expect(rows.total()).toBe(20 * 20 + 2 * 30 + 40 + 20);
    for (let line = 1; line <= 20; line += 1) {
      expect(rows.at(rows.top(line))).toMatchObject({ line, offset: 0 });
      expect(rows.at(rows.top(line) + 19)).toMatchObject({ line, offset: 19 });
    }
    expect(rows.at(60)).toMatchObject({ section: 1, line: null });
    expect(rows.at(1e9)?.line).toBe(20);
  });

  it('leave out the lines of a folded step', () => {
    const rows = new Rows(20, 30);
    rows.setSections(sections(cuts, 20, new Set([1])));
    expect(rows.total()).toBe(3 * 20 + 30 + 30 + 10 * 20);
    expect(rows.top(7)).toBe(60);
    expect(rows.at(95)).toMatchObject({ section: 2, line: null });
    expect(rows.at(120)).toMatchObject({ section: 2, line: 11 });
  });

  it('place a million lines without walking over them', () => {
    const rows = new Rows(20, 30);
    rows.setSections(sections([], 1_000_000, new Set()));
    const start = performance.now();
    for (let k = 0; k < 1000; k += 1) expect(rows.at(rows.top(k * 997 + 1))?.line).toBe(k * 997 + 1);
    expect(performance.now() - start).toBeLessThan(1000);
  });

  it('fit any height into what a browser can scroll', () => {
    expect(scale(1000, 500)).toBe(1);
    const virtual = 200_000_000;
    const k = scale(virtual, 500);
    expect((LIMIT - 500) * k).toBeCloseTo(virtual - 500);
  });
});
