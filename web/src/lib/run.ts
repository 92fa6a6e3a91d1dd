// Which part of a run is shown. Pure, and shared by the page and by what is asked for ahead of it.

import { failed } from './state.ts';
import type { Attempt, Job } from './types.ts';

/** The job that a run's page opens on: the one named, or the first that failed, or the only one. */
export function chosenJob(jobs: readonly Job[], named: string | null, overview: boolean): Job | null {
  if (named !== null) return jobs.find((j) => j.name === named) ?? null;
  if (overview) return null;
  return jobs.find((j) => failed(j.conclusion)) ?? (jobs.length === 1 ? (jobs[0] ?? null) : null);
}

/** The attempt that is shown: the one asked for, or the present one; null before the first. */
export const chosenAttempt = (job: Job, asked: number): Attempt | null =>
  job.attempts.find((a) => a.epoch === asked) ?? job.attempts.find((a) => a.epoch === job.epoch) ?? null;
