// The only place that talks HTTP to the server. Every failure becomes an `ApiError` with a code, a
// sentence and, where there is one, the fix; a lost session is announced so that the shell can ask
// for a new login. Reads can be aborted; writes are never repeated by themselves.

import type {
  AddedRepo, Artifact, AuditEntry, Deployment, DeploymentDetail, Dora, Environment, Incident, LogMatches, LogPage, Me, Page,
  RegistrationToken, Repo, Run, RunDetail, Runner, Secret, TestReport,
} from './types.ts';

import { BLOCK } from '../log/opening.ts';

export class ApiError extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    message: string,
    readonly hint: string | null,
  ) {
    super(message);
  }
}

type Query = Record<string, string | number | boolean | null | undefined>;

export const session = new EventTarget();

function address(path: string, query?: Query): string {
  const pairs = new URLSearchParams();
  for (const [key, value] of Object.entries(query ?? {})) {
    if (value !== null && value !== undefined && value !== '') pairs.set(key, String(value));
  }
  const text = pairs.toString();
  return text === '' ? path : `${path}?${text}`;
}

async function failure(response: Response): Promise<ApiError> {
  const text = await response.text().catch(() => '');
  try {
    const { error } = JSON.parse(text) as { error: { code: string; message: string; hint?: string | null } };
    return new ApiError(response.status, error.code, error.message, error.hint ?? null);
  } catch {
    const what = text.length > 0 && text.length < 300 && !text.includes('<') ? text : response.statusText;
    return new ApiError(response.status, `http_${response.status}`, `The server answered ${response.status} ${what}`.trim(), null);
  }
}

export async function call<T>(method: string, path: string, body?: unknown, signal?: AbortSignal): Promise<T> {
  const init: RequestInit = { method, credentials: 'same-origin', headers: { accept: 'application/json' } };
  if (signal) init.signal = signal;
  if (body !== undefined) {
    init.body = JSON.stringify(body);
    init.headers = { accept: 'application/json', 'content-type': 'application/json' };
  }
  let response: Response;
  try {
    response = await fetch(path, init);
  } catch (cause) {
    if (cause instanceof DOMException && cause.name === 'AbortError') throw cause;
    throw new ApiError(0, 'unreachable', 'The server can’t be reached.', 'Is it running? Start it with: pipectl up');
  }
  if (!response.ok) {
    const error = await failure(response);
    if (response.status === 401 && path !== '/api/login') session.dispatchEvent(new Event('lost'));
    throw error;
  }
  if (response.status === 204) return undefined as T;
  const text = await response.text();
  return (text === '' ? undefined : JSON.parse(text)) as T;
}

/** Answers that were asked for before somebody wanted them, each for one taker. */
const early = new Map<string, Promise<unknown>>();
/** What nobody took by then is old. */
const EARLY_MS = 5000;

/** Asks for an address that will be wanted soon. Answers nothing if that fails: the taker is told. */
export function askAhead<T>(where: string): Promise<T | undefined> {
  const answer = call<T>('GET', where);
  early.set(where, answer);
  const forget = (): void => {
    if (early.get(where) === answer) early.delete(where);
  };
  setTimeout(forget, EARLY_MS);
  // A failure is only for who took it already: a later taker asks anew, perhaps signed in by then.
  return answer.catch(() => {
    forget();
    return undefined;
  });
}

export function get<T>(path: string, query?: Query, signal?: AbortSignal): Promise<T> {
  const where = address(path, query);
  const answer = early.get(where);
  if (answer === undefined) return call<T>('GET', where, undefined, signal);
  early.delete(where);
  return answer as Promise<T>;
}

export const post = <T>(path: string, body: unknown = {}): Promise<T> => call<T>('POST', path, body);

const part = encodeURIComponent;
const jobPath = (run: number, job: string): string => `/api/runs/${run}/jobs/${part(job)}`;
const log = (run: number, job: string): string => `${jobPath(run, job)}/log`;

/** Addresses that are asked for ahead. */
export const paths = {
  run: (run: string): string => `/api/runs/${part(run)}`,
  log: (run: number, job: string, attempt: number, from: number): string =>
    address(log(run, job), { attempt, from, count: BLOCK }),
};

export const api = {
  me: (signal?: AbortSignal) => get<Me>('/api/me', {}, signal),
  login: (code: string) => post<Me>('/api/login', { code, want: 'cookie' }),
  logout: () => post<void>('/api/logout'),

  runs: (query: Query, signal?: AbortSignal) => get<Page<Run>>('/api/runs', query, signal),
  run: (run: string, signal?: AbortSignal) => get<RunDetail>(paths.run(run), {}, signal),
  start: (repo: string, reference: string | null) => post<Run>('/api/runs', { repo, reference }),
  cancel: (run: number) => post<Run>(`/api/runs/${run}/cancel`),
  approve: (run: number) => post<Run>(`/api/runs/${run}/approve`),
  rerun: (run: number, failed: boolean) => post<Run>(`/api/runs/${run}/rerun`, { failed }),
  artifacts: (run: number, signal?: AbortSignal) => get<Artifact[]>(`/api/runs/${run}/artifacts`, {}, signal),

  tests: (run: number, job: string, attempt: number, signal?: AbortSignal) =>
    get<TestReport>(`${jobPath(run, job)}/tests`, { attempt }, signal),
  log: (run: number, job: string, attempt: number | null, from: number, count: number, signal?: AbortSignal) =>
    get<LogPage>(log(run, job), { attempt, from, count }, signal),
  logSearch: (run: number, job: string, attempt: number | null, q: string, signal?: AbortSignal) =>
    get<LogMatches>(`${log(run, job)}/search`, { attempt, q }, signal),
  logRaw: (run: number, job: string, attempt: number | null) => address(`${log(run, job)}/raw`, { attempt }),
  logFollow: (run: number, job: string, attempt: number | null, from: number) =>
    address(`${log(run, job)}/follow`, { attempt, from }),

  environments: (signal?: AbortSignal) => get<Environment[]>('/api/environments', {}, signal),
  deployments: (query: Query, signal?: AbortSignal) => get<Page<Deployment>>('/api/deployments', query, signal),
  deployment: (id: string, signal?: AbortSignal) => get<DeploymentDetail>(`/api/deployments/${part(id)}`, {}, signal),
  decide: (id: number, what: 'approve' | 'abort' | 'promote', comment: string | null) =>
    post<Deployment>(`/api/deployments/${id}/${what}`, comment ? { comment } : {}),
  rollBack: (env: string, service: string, to: number | null, comment: string | null) =>
    post<Deployment>(`/api/environments/${part(env)}/${part(service)}/rollback`, { to, comment }),
  dora: (query: Query, signal?: AbortSignal) => get<Dora>('/api/dora', query, signal),
  incidents: (query: Query, signal?: AbortSignal) => get<Incident[]>('/api/incidents', query, signal),
  openIncident: (body: { environment: string; service: string; title: string; impact_at?: string; deployment?: number }) =>
    post<Incident>('/api/incidents', body),
  closeIncident: (id: number, restored_at: string | null) =>
    post<Incident>(`/api/incidents/${id}/close`, restored_at ? { restored_at } : {}),

  audit: (query: Query, signal?: AbortSignal) => get<Page<AuditEntry>>('/api/audit', query, signal),

  repos: (signal?: AbortSignal) => get<Repo[]>('/api/repos', {}, signal),
  addRepo: (body: { url: string; name?: string; forge?: string; default_branch?: string }) =>
    post<AddedRepo>('/api/repos', body),
  removeRepo: (name: string) => call<void>('DELETE', `/api/repos/${part(name)}`),
  runners: (signal?: AbortSignal) => get<Runner[]>('/api/runners', {}, signal),
  runnerToken: () => post<RegistrationToken>('/api/runners/tokens'),
  removeRunner: (id: string) => call<void>('DELETE', `/api/runners/${part(id)}`),
  secrets: (signal?: AbortSignal) => get<Secret[]>('/api/secrets', {}, signal),
  setSecret: (name: string, repo: string | null, body: { value: string; branches?: string[]; default_branch_only?: boolean }) =>
    call<{ scope: string }>('PUT', address(`/api/secrets/${part(name)}`, repo === null ? { all_repos: 'true' } : { repo }), body),
  removeSecret: (name: string, repo: string | null) =>
    call<void>('DELETE', address(`/api/secrets/${part(name)}`, repo === null ? { all_repos: 'true' } : { repo })),
};
