-- The core: what came in, what runs, who runs it, what happened.
--
-- Times are microseconds since 1970 UTC. Ids are UUID text; runs and events have numbers that are
-- never used again. Words (`state`, `conclusion`, `forge`) are those of the model.

-- One row: who this installation is and when it began.
CREATE TABLE installation (
    only_row INTEGER PRIMARY KEY NOT NULL CHECK (only_row = 1),
    id TEXT NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;

CREATE TABLE repos (
    id TEXT PRIMARY KEY NOT NULL,
    name TEXT NOT NULL,
    forge TEXT NOT NULL,
    url TEXT NOT NULL,
    credentials BLOB,
    default_branch TEXT NOT NULL,
    hook TEXT NOT NULL UNIQUE,
    hook_secret BLOB NOT NULL,
    forge_id INTEGER,
    created_at INTEGER NOT NULL,
    removed_at INTEGER,
    problem_code TEXT,
    problem_message TEXT
) STRICT;
CREATE UNIQUE INDEX repos_name ON repos (name) WHERE removed_at IS NULL;

CREATE TABLE seen_refs (
    repo TEXT NOT NULL REFERENCES repos (id),
    name TEXT NOT NULL,
    sha TEXT NOT NULL,
    PRIMARY KEY (repo, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE deliveries (
    id INTEGER PRIMARY KEY NOT NULL,
    repo TEXT NOT NULL REFERENCES repos (id),
    delivery TEXT NOT NULL,
    event TEXT NOT NULL,
    body BLOB NOT NULL,
    received_at INTEGER NOT NULL,
    -- `requested`, `duplicate` (known push, new delivery id), `ignored`
    disposition TEXT NOT NULL,
    detail TEXT NOT NULL,
    UNIQUE (repo, delivery)
) STRICT;
CREATE INDEX deliveries_received ON deliveries (received_at);

CREATE TABLE run_requests (
    id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
    repo TEXT NOT NULL REFERENCES repos (id),
    delivery INTEGER NOT NULL REFERENCES deliveries (id),
    event TEXT NOT NULL,
    reference TEXT NOT NULL,
    before_sha TEXT,
    after_sha TEXT NOT NULL,
    pull_request TEXT,
    received_at INTEGER NOT NULL,
    due_at INTEGER NOT NULL,
    tries INTEGER NOT NULL DEFAULT 0,
    problem TEXT,
    closed_at INTEGER,
    outcome TEXT
) STRICT;
CREATE INDEX run_requests_open ON run_requests (repo, id) WHERE closed_at IS NULL;
CREATE INDEX run_requests_same ON run_requests (repo, after_sha, received_at);

CREATE TABLE runs (
    id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
    repo TEXT NOT NULL REFERENCES repos (id),
    request INTEGER REFERENCES run_requests (id),
    pipeline TEXT NOT NULL,
    event TEXT NOT NULL,
    reference TEXT NOT NULL,
    branch TEXT NOT NULL,
    pull_request INTEGER,
    commit_sha TEXT NOT NULL,
    before_sha TEXT,
    title TEXT NOT NULL,
    author TEXT NOT NULL,
    -- Came from a fork: its jobs get no secrets, also after the approval.
    fork INTEGER NOT NULL CHECK (fork IN (0, 1)),
    held INTEGER NOT NULL CHECK (held IN (0, 1)),
    status TEXT NOT NULL,
    conclusion TEXT,
    reason_code TEXT,
    reason_message TEXT,
    diagnostics TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    started_at INTEGER,
    finished_at INTEGER
) STRICT;
CREATE INDEX runs_repo ON runs (repo, id);
CREATE INDEX runs_commit ON runs (commit_sha);
CREATE INDEX runs_open ON runs (status, id) WHERE status <> 'finished';

-- Jobs and deploys of runs.
CREATE TABLE jobs (
    id TEXT PRIMARY KEY NOT NULL,
    run INTEGER NOT NULL REFERENCES runs (id),
    position INTEGER NOT NULL,
    name TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('job', 'deploy')),
    spec TEXT NOT NULL,
    labels TEXT NOT NULL,
    retry INTEGER NOT NULL,
    once INTEGER NOT NULL CHECK (once IN (0, 1)),
    state TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    failures INTEGER NOT NULL,
    losses INTEGER NOT NULL,
    runner TEXT REFERENCES runners (id),
    lease_until INTEGER,
    cancel_by TEXT,
    cancel_at INTEGER,
    deployment INTEGER,
    conclusion TEXT,
    reason_code TEXT,
    reason_message TEXT,
    started_at INTEGER,
    finished_at INTEGER,
    CHECK ((state = 'running') = (lease_until IS NOT NULL AND runner IS NOT NULL)),
    CHECK ((state = 'finished') = (conclusion IS NOT NULL AND finished_at IS NOT NULL))
) STRICT;
CREATE UNIQUE INDEX jobs_name ON jobs (run, name);
CREATE INDEX jobs_tally ON jobs (run, state, conclusion);
CREATE INDEX jobs_ready ON jobs (kind, run, position) WHERE state = 'ready';
CREATE INDEX jobs_lease ON jobs (lease_until) WHERE state = 'running';
CREATE INDEX jobs_runner ON jobs (runner) WHERE state = 'running';
CREATE INDEX jobs_deploying ON jobs (cancel_at) WHERE state = 'deploying';

-- `job` may start once `need` succeeded.
CREATE TABLE needs (
    need TEXT NOT NULL REFERENCES jobs (id),
    job TEXT NOT NULL REFERENCES jobs (id),
    PRIMARY KEY (need, job)
) STRICT, WITHOUT ROWID;
CREATE INDEX needs_job ON needs (job, need);

CREATE TABLE attempts (
    job TEXT NOT NULL REFERENCES jobs (id),
    epoch INTEGER NOT NULL,
    runner TEXT NOT NULL REFERENCES runners (id),
    -- The claim request that gave it, for replays of a lost reply.
    request TEXT NOT NULL,
    started_at INTEGER NOT NULL,
    finished_at INTEGER,
    conclusion TEXT,
    reason_code TEXT,
    reason_message TEXT,
    -- What the runner said, where that isn't what counts: a success after a cancel.
    reported TEXT,
    log_bytes INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (job, epoch)
) STRICT, WITHOUT ROWID;
CREATE INDEX attempts_request ON attempts (request);

CREATE TABLE steps (
    job TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    step INTEGER NOT NULL,
    started_at INTEGER,
    finished_at INTEGER,
    conclusion TEXT,
    exit_code INTEGER,
    first_line INTEGER,
    PRIMARY KEY (job, epoch, step),
    FOREIGN KEY (job, epoch) REFERENCES attempts (job, epoch)
) STRICT, WITHOUT ROWID;

CREATE TABLE runners (
    id TEXT PRIMARY KEY NOT NULL,
    name TEXT NOT NULL,
    labels TEXT NOT NULL,
    version TEXT NOT NULL,
    key_hash BLOB NOT NULL UNIQUE,
    created_at INTEGER NOT NULL,
    seen_at INTEGER,
    removed_at INTEGER
) STRICT;

CREATE TABLE registration_tokens (
    hash BLOB PRIMARY KEY NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Writes that a runner was not allowed to make: a stale epoch, somebody else's job. One row for
-- each kind of mistake, so that a wild runner can't fill the disk.
CREATE TABLE rejected_writes (
    job TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    runner TEXT NOT NULL,
    what TEXT NOT NULL,
    times INTEGER NOT NULL,
    first_at INTEGER NOT NULL,
    last_at INTEGER NOT NULL,
    PRIMARY KEY (job, epoch, runner, what)
) STRICT, WITHOUT ROWID;

CREATE TABLE events (
    seq INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
    at INTEGER NOT NULL,
    kind TEXT NOT NULL,
    run INTEGER,
    job TEXT,
    deployment INTEGER
) STRICT;
CREATE INDEX events_run ON events (run, seq) WHERE run IS NOT NULL;
