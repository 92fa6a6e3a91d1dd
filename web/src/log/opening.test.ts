import { describe, expect, it } from 'vitest';

import type { Conclusion, Step } from '../lib/types.ts';
import { BLOCK, firstFetch, opening } from './opening.ts';

const step = (n: number, first_line: number | null, conclusion: Conclusion): Step => ({
  step: n, name: `step ${n}`, status: 'finished', conclusion, exit_code: null, started_at: null, finished_at: null, first_line,
});

describe('a log opens', () => {
  const steps = [step(1, 4, 'success'), step(2, 41, 'failure'), step(3, 700, 'skipped')];

  it('at the line that was linked to, before all else', () => {
    expect(opening(60, true, steps)).toEqual({ at: 'line', line: 60 });
  });

  it('at its end while it runs', () => {
    expect(opening(null, true, [])).toEqual({ at: 'end' });
  });

  it('at the end of the step that failed', () => {
    expect(opening(null, false, steps)).toEqual({ at: 'failure', line: 699 });
    expect(opening(null, false, steps.slice(0, 2))).toEqual({ at: 'failure', line: null });
    expect(opening(null, false, [step(1, null, 'failure')])).toEqual({ at: 'start' });
  });

  it('at its first line otherwise', () => {
    expect(opening(null, false, [step(1, 4, 'success')])).toEqual({ at: 'start' });
  });

  it('with the lines that will be seen', () => {
    expect(firstFetch({ at: 'start' })).toBe(1);
    expect(firstFetch({ at: 'line', line: 500 })).toBe(1);
    expect(firstFetch({ at: 'line', line: 501 })).toBe(501);
    expect(firstFetch({ at: 'failure', line: 699 })).toBe(501);
    expect(firstFetch({ at: 'failure', line: null })).toBe(-BLOCK);
    expect(firstFetch({ at: 'end' })).toBe(-BLOCK);
  });
});
