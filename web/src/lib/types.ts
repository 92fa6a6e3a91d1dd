// The API's JSON as it crosses the wire. Field names are the server's own; times are RFC 3339 text.
// A reader ignores fields that it doesn't know, so additive changes of the server need none here.

export type Status = 'queued' | 'running' | 'finished';
export type Conclusion = 'success' | 'failure' | 'error' | 'timed_out' | 'cancelled' | 'skipped';
export type RunEvent = 'push' | 'pull_request' | 'manual';
export type Stream = 'stdout' | 'stderr' | 'system';
export type Time = string;

export interface Reason {
  code: string;
  message: string;
}

export interface Page<T> {
  items: T[];
  next?: string | null;
}

export interface Run {
  kind: string;
  id: number;
  repo: string;
  pipeline: string;
  event: RunEvent;
  branch: string;
  pull_request: number | null;
  commit: string;
  title: string;
  author: string;
  status: Status;
  conclusion: Conclusion | null;
  reason: Reason | null;
  held: boolean;
  created_at: Time;
  started_at: Time | null;
  finished_at: Time | null;
}

export interface Diagnostic {
  code: string;
  severity: string;
  path: string;
  line: number;
  column: number;
  message: string;
  rendered: string;
}

export interface RunDetail extends Run {
  jobs: Job[];
  diagnostics: Diagnostic[];
}

export interface Job {
  id: string;
  name: string;
  node: string;
  needs: string[];
  status: Status;
  conclusion: Conclusion | null;
  reason: Reason | null;
  epoch: number;
  started_at: Time | null;
  finished_at: Time | null;
  steps: Step[];
  attempts: Attempt[];
  deployment: number | null;
}

export interface Attempt {
  epoch: number;
  runner: string;
  started_at: Time;
  finished_at: Time | null;
  conclusion: Conclusion | null;
  reason: Reason | null;
  log_bytes: number;
}

export interface Step {
  step: number;
  name: string;
  status: Status;
  conclusion: Conclusion | null;
  exit_code: number | null;
  started_at: Time | null;
  finished_at: Time | null;
  first_line: number | null;
}

export interface LogLine {
  n: number;
  at: Time;
  step: number;
  stream: Stream;
  text: string;
  goes_on?: boolean;
}

export interface LogPage {
  attempt: number;
  lines: LogLine[];
  total: number;
  complete: boolean;
}

export interface LogMatches {
  lines: number[];
  total: number;
}

export interface EventView {
  seq: number;
  at: Time;
  kind: string;
  run: number | null;
  job: string | null;
  deployment: number | null;
}

export interface Artifact {
  id: string;
  run: number;
  job: string;
  path: string;
  size: number;
  sha256: string;
  created_at: Time;
}

export interface Repo {
  id: string;
  name: string;
  forge: string;
  url: string;
  default_branch: string;
  hook_path: string;
  hook: string;
  created_at: Time;
  problem: Reason | null;
}

export interface AddedRepo {
  repo: Repo;
  hook_secret: string;
}

export interface Runner {
  id: string;
  name: string;
  labels: string[];
  state: string;
  version: string;
  seen_at: Time | null;
  jobs: string[];
}

export interface RegistrationToken {
  token: string;
  expires_at: Time;
}

export interface Secret {
  name: string;
  repo: string | null;
  updated_at: Time;
  used_at: Time | null;
}

export interface Me {
  user: string;
  name: string;
  role: string;
}
