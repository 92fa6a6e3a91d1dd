import { expect, it } from 'vitest';

import { match, runPath } from './router.svelte.ts';

it('finds the page of an address', () => {
  expect(match('/runs/81')).toEqual({ name: 'run', params: { run: '81' } });
  expect(match('/runs/81/unit%20tests')).toEqual({ name: 'run', params: { run: '81', job: 'unit tests' } });
  expect(match('/').name).toBe('runs');
  expect(match('/nowhere').name).toBe('missing');
  expect(match('/runs/81/%E0%A4%A').name).toBe('missing');
});

it('writes addresses of jobs that no server takes for files', () => {
  const path = runPath(81, 'v1.2/x');
  expect(path).toBe('/runs/81/v1%2E2%2Fx');
  expect(match(path).params['job']).toBe('v1.2/x');
});
