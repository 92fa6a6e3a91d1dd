// The one word that a run, job, step or deployment is shown by, with its sign. A status is told by
// its shape and its text; the colour only repeats it.

import type { Conclusion, DeploymentDetail, Status } from './types.ts';

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

const DEPLOYMENT: Record<string, Sign> = {
  awaiting_approval: { text: 'awaits approval', tone: 'hold', shape: 'pause' },
  queued: { text: 'queued', tone: 'wait', shape: 'ring' },
  starting: { text: 'starting', tone: 'run', shape: 'spin' },
  preparing: { text: 'preparing', tone: 'run', shape: 'spin' },
  working: { text: 'rolling out', tone: 'run', shape: 'spin' },
  shifting: { text: 'shifting', tone: 'run', shape: 'spin' },
  holding: { text: 'on hold', tone: 'hold', shape: 'pause' },
  completing: { text: 'completing', tone: 'run', shape: 'spin' },
  rolling_back: { text: 'rolling back', tone: 'warn', shape: 'back' },
  succeeded: { text: 'succeeded', tone: 'ok', shape: 'check' },
  failed: { text: 'failed', tone: 'bad', shape: 'cross' },
  rolled_back: { text: 'rolled back', tone: 'bad', shape: 'back' },
  rollback_failed: { text: 'rollback failed', tone: 'bad', shape: 'bang' },
  cancelled: { text: 'cancelled', tone: 'off', shape: 'slash' },
  superseded: { text: 'superseded', tone: 'off', shape: 'skip' },
  expired: { text: 'expired', tone: 'off', shape: 'clock' },
  rejected: { text: 'rejected', tone: 'off', shape: 'slash' },
};

export function deploymentSign(of: { state: string; status: Status; conclusion: Conclusion | null }): Sign {
  return DEPLOYMENT[of.state] ?? { ...signOf(of), text: of.state.replaceAll('_', ' ') };
}

/** Whether what was deployed really serves; what nobody can say counts as serving. */
export function servingSign(of: { health?: { state: string } }): Sign {
  switch (of.health?.state) {
    case 'down': return { text: 'serves nobody', tone: 'bad', shape: 'cross' };
    case 'impaired': return { text: 'impaired', tone: 'warn', shape: 'bang' };
    case 'unknown': return { text: 'not known', tone: 'warn', shape: 'question' };
    default: return { text: 'serving', tone: 'ok', shape: 'check' };
  }
}

const TARGETS: Record<string, Sign> = {
  pending: { text: 'pending', tone: 'wait', shape: 'ring' },
  in_progress: { text: 'in progress', tone: 'run', shape: 'spin' },
  ready: { text: 'ready', tone: 'run', shape: 'dot' },
  succeeded: { text: 'succeeded', tone: 'ok', shape: 'check' },
  failed: { text: 'failed', tone: 'bad', shape: 'cross' },
  skipped: { text: 'skipped', tone: 'off', shape: 'skip' },
  unknown: { text: 'unknown', tone: 'warn', shape: 'question' },
};

export const targetSign = (state: string): Sign => TARGETS[state] ?? { text: state, tone: 'off', shape: 'dot' };

const HEALTH: Record<string, Sign> = {
  holding: { text: 'holds', tone: 'ok', shape: 'check' },
  broken: { text: 'broken', tone: 'bad', shape: 'cross' },
  too_little_data: { text: 'too little data', tone: 'wait', shape: 'question' },
};

export const healthSign = (state: string): Sign => HEALTH[state] ?? { text: state, tone: 'off', shape: 'dot' };

/** A canary's step: the last one that a deployment reached before it was taken back is the one that failed. */
export function stepSign(d: DeploymentDetail, index: number): Sign {
  const step = d.steps[index];
  if (!step) return signOf({ status: 'queued', conclusion: null });
  const over = d.status === 'finished' || d.state === 'rolling_back';
  if (!over) return signOf({ status: step.status, conclusion: step.status === 'finished' ? 'success' : null });
  const reached = d.steps.reduce((last, s, i) => (s.started_at !== null ? i : last), -1);
  if (index > reached) return signOf({ status: 'finished', conclusion: d.state === 'succeeded' && step.status === 'finished' ? 'success' : 'skipped' });
  const bad = index === reached && d.state !== 'succeeded';
  return signOf({ status: 'finished', conclusion: bad ? 'failure' : 'success' });
}
