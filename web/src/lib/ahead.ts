// Asks for what the first page needs while the program and the session's owner are still on their way:
// a run, and the first lines of the log that it opens on. What nobody takes is forgotten.

import { firstFetch, opening } from '../log/opening.ts';
import { parseLines } from '../log/links.ts';
import { askAhead, paths } from './api.ts';
import type { Place } from './router.svelte.ts';
import { chosenAttempt, chosenJob } from './run.ts';
import type { LogPage, RunDetail } from './types.ts';

/** Asks for what the page at this address will ask for. */
export function ahead(place: Place): void {
  const run = place.params['run'];
  if (place.name !== 'run' || run === undefined) return;
  void askAhead<RunDetail>(paths.run(run)).then((detail) => {
    if (detail) log(place, detail);
  });
}

function log(place: Place, detail: RunDetail): void {
  if (place.query.get('part') === 'tests') return;
  const job = chosenJob(detail.jobs, place.params['job'] ?? null, place.query.has('overview'));
  const attempt = job && chosenAttempt(job, Number(place.query.get('attempt') ?? 0));
  if (!job || !attempt || attempt.log_removed_at) return;
  const linked = parseLines(place.hash)?.[0] ?? null;
  const from = firstFetch(opening(linked, attempt.finished_at === null, attempt.steps));
  void askAhead<LogPage>(paths.log(detail.id, job.name, attempt.epoch, from));
}
