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
  tests: TestSummary | null;
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
  log_removed_at: Time | null;
  steps: Step[];
  tests: TestSummary | null;
}

export interface TestCounts {
  passed: number;
  failed: number;
  errored: number;
  skipped: number;
  flaky: number;
  duration_ms: number;
}

export interface TestSummary extends TestCounts {
  problems: number;
}

export interface TestSuite extends TestCounts {
  name: string;
}

export interface FailedTest {
  suite: string;
  name: string;
  class: string | null;
  file: string | null;
  line: number | null;
  how: 'failed' | 'errored';
  message: string;
  details: string;
  output: string;
  cut: boolean;
  duration_ms: number;
}

export interface ReportProblem {
  code: string;
  path: string;
  line: number | null;
  message: string;
}

export interface TestReport extends TestCounts {
  attempt: number;
  files: number;
  suites: TestSuite[];
  suites_left_out: number;
  failures: FailedTest[];
  failures_left_out: number;
  problems: ReportProblem[];
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
  removed_at: Time | null;
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
  trouble: string | null;
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
  branches: string[];
  default_branch_only: boolean;
  events: string[];
  scope: string;
  limited_by_upgrade: boolean;
  updated_at: Time;
  used_at: Time | null;
}

export interface AuditEntry {
  seq: number;
  at: Time;
  who: string;
  actor: string;
  credential: string | null;
  address: string | null;
  action: string;
  target: string;
}

export interface Me {
  user: string;
  name: string;
  role: 'admin' | 'developer';
  expires_at: Time;
}

// Environments, deployments, incidents, DORA.

export interface ProviderSpec {
  endpoint?: string | null;
  region: string;
  credentials?: string | null;
}

export interface ServiceSpec {
  listen: number;
  container?: { image: string; command: string[]; port: number; health_path: string; replicas: number } | null;
  hosts?: { tags: Record<string, string>; count: number; health_path: string } | null;
  queue: string;
}

/** One of these must fit; all of it must hold. */
export interface Accept {
  repo: string;
  branches?: string[];
  tags?: string[];
  events: string[];
}

export interface Environment {
  name: string;
  production: boolean;
  accepts: Accept[];
  approvals: { count: number; of?: string[]; not_the_author: boolean };
  freeze: { begin: string; end: string; zone: string }[];
  frozen: { until: Time | null; message: string } | null;
  provider: ProviderSpec;
  services: Service[];
}

export interface Service {
  name: string;
  spec: ServiceSpec;
  serving: { deployment: number; release: Release; since: Time } | null;
  health?: { state: string; since: Time; healthy: number; wanted: number; reason?: string; at: Time };
  active: number | null;
  waiting: number[];
}

export interface Release {
  id: string;
  repo: string;
  commit: string;
  run: number;
  artifact: string;
  sha256: string;
  size: number;
}

export type Strategy = 'all_at_once' | { canary: { steps: { weight: number; for: number }[] } } | { rolling: { batch: unknown } };

/** The provider doesn't answer, or refuses, while a deployment is under way. */
export interface Trouble {
  since: Time;
  code: string;
  message: string;
  doing: string;
  until: Time;
  then: string;
}

export interface Deployment {
  kind: string;
  id: number;
  environment: string;
  service: string;
  sequence: number;
  purpose: 'ship' | 'rollback';
  release: Release;
  replaces: Release | null;
  strategy: Strategy;
  strategy_text: string;
  status: Status;
  conclusion: Conclusion | null;
  state: string;
  reason: Reason | null;
  trouble: Trouble | null;
  intended_weight: number | null;
  measured_weight: number | null;
  verdict: Verdict | null;
  approval: Approval;
  run: number | null;
  job: string | null;
  requested_by: string;
  rollback_of: number | null;
  rolled_back_to: number | null;
  created_at: Time;
  started_at: Time | null;
  first_traffic_at: Time | null;
  finished_at: Time | null;
}

/** One person's approval. */
export interface Given {
  by: string;
  at: Time;
  /** Their own change; null where that isn't known. */
  own: boolean | null;
  comment: string | null;
  /** It counts under the environment's rules of now. */
  counts: boolean;
}

export interface Approval {
  needed: boolean;
  by: string | null;
  at: Time | null;
  own: boolean;
  comment: string | null;
  count: number;
  missing: number;
  who: string | null;
  not_the_author: boolean;
  rule: string | null;
  given: Given[];
}

export interface DeploymentDetail extends Deployment {
  provider_id: string | null;
  provider_status: string | null;
  steps: StepProgress[];
  health: Health[];
  otherwise: string;
  targets: Target[];
  samples: Sample[];
  timeline: TimelineEntry[];
  commits: { state: string; count: number; items: { sha: string; title: string; author: string; since: Time }[] };
  incidents: number[];
}

export interface StepProgress {
  weight: number;
  hold_seconds: number;
  judged_seconds: number;
  status: Status;
  measured_weight: number | null;
  started_at: Time | null;
}

export type HealthLimit = { error_rate: number } | { latency_ms: { percentile: number; below: number } };

export interface Health {
  limit: HealthLimit | null;
  text: string;
  state: string;
  value: number | null;
  baseline: number | null;
  lower_bound: number | null;
  requests: number;
  needed: number;
  evidence: number;
  evidence_limit: number;
}

export interface Verdict {
  verdict: string;
  code: string;
  message: string;
  at: Time;
}

export interface Target {
  id: string;
  state: string;
  events: {
    name: string;
    state: string;
    started_at: Time | null;
    finished_at: Time | null;
    problem: string | null;
    log_tail: string | null;
  }[];
}

export interface Arm {
  requests: number;
  errors: number;
  p50_ms: number | null;
  p95_ms: number | null;
  p99_ms: number | null;
}

export interface Sample {
  at: Time;
  intended_weight: number;
  measured_weight: number | null;
  canary: Arm;
  stable: Arm | null;
}

export interface TimelineEntry {
  n: number;
  at: Time;
  who: string;
  code: string;
  message: string;
}

export interface Incident {
  kind: string;
  id: number;
  environment: string;
  service: string;
  title: string;
  impact_at: Time;
  detected_at: Time;
  restored_at: Time | null;
  deployment: number | null;
  link: string | null;
  opened_by: string;
  closed_by: string | null;
}

export interface Dora {
  kind: string;
  environment: string | null;
  service: string | null;
  since: Time;
  until: Time;
  by: string;
  metrics: Metric[];
  notes: string[];
}

export interface Metric {
  name: string;
  title: string;
  value: number | null;
  unit: string;
  n: number;
  numerator: number | null;
  previous: number | null;
  previous_n: number;
  percentiles: Record<string, number>;
  buckets: { start: Time; value: number | null; n: number; provisional: boolean }[];
  rows: DoraRow[];
  rows_total: number;
}

export interface DoraRow {
  deployment: number | null;
  incident: number | null;
  commit: string | null;
  at: Time;
  value: number | null;
  counts: string;
  reason: string;
}
