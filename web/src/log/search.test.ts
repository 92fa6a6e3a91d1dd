import { expect, it } from 'vitest';

import type { LogMatches } from '../lib/types.ts';
import { Search } from './search.svelte.ts';

function made(answers: Record<string, LogMatches>, here = 1): { search: Search; shown: number[]; asked: string[] } {
  const shown: number[] = [];
  const asked: string[] = [];
  const search = new Search({
    ask: (words) => {
      asked.push(words);
      const found = answers[words];
      return found ? Promise.resolve(found) : Promise.reject(new Error('away'));
    },
    here: () => here,
    show: (line) => shown.push(line),
  });
  return { search, shown, asked };
}

it('begins at the screen and goes around both ends', async () => {
  const { search, shown, asked } = made({ oops: { lines: [10, 20, 30], total: 3 } }, 15);
  search.query = 'oops';
  await search.run();
  expect([search.at, search.line]).toEqual([1, 20]);
  search.step(1);
  search.step(1);
  search.step(-1);
  expect(shown).toEqual([20, 30, 10, 30]);
  await search.run();
  expect(asked).toEqual(['oops']);
  expect(search.line).toBe(10);
});

it('says an exact count even where not every hit can be shown', async () => {
  const { search } = made({ x: { lines: [1, 2], total: 70_000 } });
  search.query = 'x';
  await search.run();
  expect([search.hits.length, search.total]).toEqual([2, 70_000]);
});

it('keeps what was found when the server is away, and says so', async () => {
  const { search } = made({ x: { lines: [1], total: 1 } });
  search.query = 'x';
  await search.run();
  search.query = 'y';
  await search.run();
  expect((search.error as Error).message).toBe('away');
  expect(search.hits).toEqual([1]);
});

it('shows no answer that comes after it was closed', async () => {
  const { search, shown } = made({ x: { lines: [1], total: 1 } });
  search.query = 'x';
  const asked = search.run();
  search.close();
  await asked;
  expect([shown, search.hits, search.asked]).toEqual([[], [], '']);
});

it('forgets everything without words', async () => {
  const { search } = made({ x: { lines: [1], total: 1 } });
  search.query = 'x';
  await search.run();
  search.query = '';
  await search.run();
  expect([search.hits, search.total, search.line]).toEqual([[], 0, undefined]);
});
