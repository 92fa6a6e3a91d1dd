import { expect, it } from 'vitest';

import { essential, place } from './graph.ts';

it('puts a job to the right of everything that it needs', () => {
  const graph = place([
    { name: 'a', needs: [] }, { name: 'd', needs: ['b', 'c'] }, { name: 'b', needs: ['a'] }, { name: 'c', needs: [] },
  ]);
  const at = Object.fromEntries(graph.nodes.map((n) => [n.name, n.column]));
  expect(at).toEqual({ a: 0, c: 0, b: 1, d: 2 });
  expect(graph.edges).toHaveLength(3);
});

it('survives a cycle and an unknown name', () => {
  expect(place([{ name: 'a', needs: ['b'] }, { name: 'b', needs: ['a', 'zzz'] }]).nodes).toHaveLength(2);
});

it('draws no edge that a longer way says', () => {
  const list = essential([{ name: 'a', needs: [] }, { name: 'b', needs: ['a'] }, { name: 'c', needs: ['a', 'b'] }]);
  expect(list[2]?.needs).toEqual(['b']);
});

it('places ten thousand jobs quickly', () => {
  const list = Array.from({ length: 10_000 }, (_, i) => ({ name: `j${i}`, needs: i === 0 ? [] : [`j${Math.floor(i / 3)}`] }));
  const start = performance.now();
  expect(place(list).nodes).toHaveLength(10_000);
  expect(performance.now() - start).toBeLessThan(1000);
});
