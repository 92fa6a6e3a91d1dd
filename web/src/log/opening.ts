// Where a log opens: at the line that was linked to, at the end of what runs, at the end of the step
// that failed, otherwise at its first line. Pure, so that the first lines can be asked for before the
// page that shows them is there.

import { failed } from '../lib/state.ts';
import type { Step } from '../lib/types.ts';
import type { Cut } from './rows.ts';

/** Lines that are fetched at a time. */
export const BLOCK = 500;

export type Opening =
  | { at: 'line'; line: number }
  /** `line` is what should be seen; null for the last one, whatever that is. */
  | { at: 'failure'; line: number | null }
  | { at: 'end' }
  | { at: 'start' };

export function opening(linked: number | null, running: boolean, steps: readonly Step[]): Opening {
  if (linked !== null) return { at: 'line', line: linked };
  if (running) return { at: 'end' };
  const bad = steps.find((s) => failed(s.conclusion) && s.first_line !== null);
  if (!bad) return { at: 'start' };
  const begin = bad.first_line ?? 1;
  const next = cutsOf(steps).filter((c) => c.first > begin).sort((a, b) => a.first - b.first)[0];
  return { at: 'failure', line: next ? next.first - 1 : null };
}

/** Where in the log each step begins, as far as it has lines. */
export const cutsOf = (steps: readonly Step[]): Cut[] =>
  steps.flatMap((s) => (s.first_line === null ? [] : [{ step: s.step, first: s.first_line }]));

/** The first line of the block to fetch first; negative counts from the log's end. */
export function firstFetch(open: Opening): number {
  const line = open.at === 'line' || open.at === 'failure' ? open.line : open.at === 'start' ? 1 : null;
  return line === null ? -BLOCK : blockOf(line) * BLOCK + 1;
}

/** The number of the block that a line is in, from 0. */
export const blockOf = (line: number): number => Math.floor((Math.max(1, line) - 1) / BLOCK);
