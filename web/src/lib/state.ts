// The one word that a run, job, step or deployment is shown by, with its sign. A status is told by
// its shape and its text; the colour only repeats it.

import type { Conclusion, Status } from './types.ts';

export type Tone = 'ok' | 'bad' | 'warn' | 'run' | 'wait' | 'hold' | 'off';
export type Shape =
  | 'check' | 'cross' | 'bang' | 'clock' | 'slash' | 'skip' | 'spin' | 'ring' | 'pause' | 'back' | 'question' | 'dot';

export interface Sign {
  text: string;
  tone: Tone;
  shape: Shape;
}

const ENDS: Record<Conclusion, Sign> = {
  success: { text: 'success', tone: 'ok', shape: 'check' },
  failure: { text: 'failure', tone: 'bad', shape: 'cross' },
  error: { text: 'error', tone: 'bad', shape: 'bang' },
  timed_out: { text: 'timed out', tone: 'bad', shape: 'clock' },
  cancelled: { text: 'cancelled', tone: 'off', shape: 'slash' },
  skipped: { text: 'skipped', tone: 'off', shape: 'skip' },
};

export function signOf(of: { status: Status; conclusion: Conclusion | null; held?: boolean }): Sign {
  if (of.held && of.status !== 'finished') return { text: 'held', tone: 'hold', shape: 'pause' };
  if (of.status === 'finished') {
    return (of.conclusion && ENDS[of.conclusion]) ?? { text: of.conclusion ?? 'finished', tone: 'off', shape: 'dot' };
  }
  if (of.status === 'running') return { text: 'running', tone: 'run', shape: 'spin' };
  return { text: 'queued', tone: 'wait', shape: 'ring' };
}

export const failed = (c: Conclusion | null): boolean => c === 'failure' || c === 'error' || c === 'timed_out';
