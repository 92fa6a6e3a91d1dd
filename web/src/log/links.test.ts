import { expect, it } from 'vitest';

import { linesHash, parseLines } from './links.ts';

it('reads one line, a range in any order, and nothing else', () => {
  expect(parseLines('#L12')).toEqual([12, 12]);
  expect(parseLines('#L12-L20')).toEqual([12, 20]);
  expect(parseLines('#L20-12')).toEqual([12, 20]);
  for (const hash of ['', '#', '#12', '#L', '#L1x', '#L-3', '#L1234567890123', '#main']) expect(parseLines(hash)).toBeNull();
});

it('writes what it reads', () => {
  expect(linesHash(7, 7)).toBe('#L7');
  expect(parseLines(linesHash(20, 12))).toEqual([12, 20]);
});
