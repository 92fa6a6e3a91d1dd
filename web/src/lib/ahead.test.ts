import { afterEach, expect, it, vi } from 'vitest';

import { ahead } from './ahead.ts';
import { api } from './api.ts';
import { placeOf } from './router.svelte.ts';
import { chosenAttempt, chosenJob } from './run.ts';
import type { Attempt, Job } from './types.ts';

const attempt = (epoch: number): Attempt => ({
  epoch, runner: 'one', started_at: '2026-03-01T12:00:00Z', finished_at: '2026-03-01T12:00:09Z', conclusion: 'success', reason: null, log_bytes: 1, log_removed_at: null, steps: [], tests: null,
});
const job = (name: string, more: Partial<Job> = {}): Job => ({
  id: name, name, node: 'job', needs: [], status: 'finished', conclusion: 'success', reason: null, epoch: 2, started_at: null, finished_at: null, steps: [],
  tests: null, attempts: [attempt(1), attempt(2)], deployment: null, ...more,
});

afterEach(() => vi.unstubAllGlobals());

/** Answers by path; remembers what was asked. */
function server(answers: Record<string, unknown>): string[] {
  const asked: string[] = [];
  vi.stubGlobal('fetch', (path: string) => {
    asked.push(path);
    const found = answers[path];
    return Promise.resolve(new Response(JSON.stringify(found ?? { error: { code: 'not_found', message: 'no' } }), { status: found ? 200 : 404 }));
  });
  return asked;
}

it('a run opens on the job named, the first that failed, or the only one', () => {
  const [a, b, bad] = [job('a'), job('b'), job('bad', { conclusion: 'failure' })];
  expect(chosenJob([a, b, bad], 'b', false)).toBe(b);
  expect(chosenJob([a, b, bad], 'none', false)).toBeNull();
  expect(chosenJob([a, b, bad], null, false)).toBe(bad);
  expect(chosenJob([a, b, bad], null, true)).toBeNull();
  expect(chosenJob([a, b], null, false)).toBeNull();
  expect(chosenJob([a], null, false)).toBe(a);
  expect(chosenAttempt(a, 1)?.epoch).toBe(1);
  expect(chosenAttempt(a, 7)?.epoch).toBe(2);
  expect(chosenAttempt(job('new', { attempts: [], epoch: 0 }), 0)).toBeNull();
});

it('what a page needs is asked for once, ahead of it', async () => {
  const log = '/api/runs/8/jobs/test/log?attempt=2&from=501&count=500';
  const asked = server({ '/api/runs/8': { id: 8, jobs: [job('test')] }, [log]: { lines: [], total: 0 } });
  ahead(placeOf(new URL('http://x/runs/8/test#L600')));
  expect(asked).toEqual(['/api/runs/8']);
  expect((await api.run('8')).id).toBe(8);
  await vi.waitFor(() => expect(asked).toEqual(['/api/runs/8', log]));
  await api.log(8, 'test', 2, 501, 500);
  expect(asked).toEqual(['/api/runs/8', log]);
  await api.run('8');
  expect(asked.length).toBe(3);
});

it('a failure ahead is told to the page that waits for it, and to no later one', async () => {
  const asked = server({});
  ahead(placeOf(new URL('http://x/runs/9')));
  await expect(api.run('9')).rejects.toMatchObject({ code: 'not_found' });
  expect(asked).toEqual(['/api/runs/9']);
  ahead(placeOf(new URL('http://x/runs/9')));
  await new Promise((done) => setTimeout(done, 20));
  await expect(api.run('9')).rejects.toMatchObject({ code: 'not_found' });
  expect(asked.length).toBe(3);
});
