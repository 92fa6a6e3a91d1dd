-- Where releases go, how they got there, and what failed.
--
-- A deployment's row has its document (JSON, written by the state machine) and beside it the
-- columns that queries need. `version` is compared before every change.

CREATE TABLE environments (
    name TEXT PRIMARY KEY NOT NULL,
    production INTEGER NOT NULL CHECK (production IN (0, 1)),
    provider TEXT NOT NULL,
    retired_at INTEGER
) STRICT, WITHOUT ROWID;

CREATE TABLE services (
    environment TEXT NOT NULL REFERENCES environments (name),
    name TEXT NOT NULL,
    spec TEXT NOT NULL,
    retired_at INTEGER,
    -- The last sequence number that a deployment got here.
    sequence INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (environment, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE deployments (
    id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
    environment TEXT NOT NULL,
    service TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    version INTEGER NOT NULL,
    -- A word of the state machine.
    state TEXT NOT NULL,
    finished INTEGER NOT NULL CHECK (finished IN (0, 1)),
    -- It may hold the provider's only place.
    active INTEGER NOT NULL CHECK (active IN (0, 1)),
    -- The deploy in a run that asked for it, and which try of it.
    job TEXT,
    attempt INTEGER,
    run INTEGER NOT NULL,
    commit_sha TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    finished_at INTEGER,
    document TEXT NOT NULL,
    -- What was last seen of it: targets, health, weights (JSON).
    look TEXT NOT NULL DEFAULT '{}',
    -- The judge's memory (JSON), while it judges.
    judge TEXT,
    -- `pending`, `first_deployment`, `known`, `unknown`.
    commits_state TEXT NOT NULL DEFAULT 'pending',
    FOREIGN KEY (environment, service) REFERENCES services (environment, name),
    UNIQUE (environment, service, sequence),
    UNIQUE (job, attempt)
) STRICT;
CREATE INDEX deployments_open ON deployments (finished, id) WHERE finished = 0;
CREATE UNIQUE INDEX deployments_one_active ON deployments (environment, service) WHERE active = 1;
CREATE INDEX deployments_place ON deployments (environment, service, state, finished_at);
CREATE INDEX deployments_time ON deployments (created_at);

CREATE TABLE deployment_timeline (
    deployment INTEGER NOT NULL REFERENCES deployments (id),
    n INTEGER NOT NULL,
    at INTEGER NOT NULL,
    who TEXT NOT NULL,
    code TEXT NOT NULL,
    message TEXT NOT NULL,
    PRIMARY KEY (deployment, n)
) STRICT, WITHOUT ROWID;

CREATE TABLE deployment_samples (
    deployment INTEGER NOT NULL REFERENCES deployments (id),
    at INTEGER NOT NULL,
    sample TEXT NOT NULL,
    PRIMARY KEY (deployment, at)
) STRICT, WITHOUT ROWID;

-- Commits that a deployment brought to its place first.
CREATE TABLE deployment_commits (
    deployment INTEGER NOT NULL REFERENCES deployments (id),
    position INTEGER NOT NULL,
    sha TEXT NOT NULL,
    title TEXT NOT NULL,
    author TEXT NOT NULL,
    authored_at INTEGER NOT NULL,
    committed_at INTEGER NOT NULL,
    first_seen INTEGER,
    is_merge INTEGER NOT NULL CHECK (is_merge IN (0, 1)),
    is_cherry_pick INTEGER NOT NULL CHECK (is_cherry_pick IN (0, 1)),
    PRIMARY KEY (deployment, position)
) STRICT, WITHOUT ROWID;

CREATE TABLE incidents (
    id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
    key TEXT UNIQUE,
    environment TEXT NOT NULL,
    service TEXT NOT NULL,
    title TEXT NOT NULL,
    impact_at INTEGER NOT NULL,
    detected_at INTEGER NOT NULL,
    restored_at INTEGER,
    deployment INTEGER REFERENCES deployments (id),
    -- How it is known that this deployment caused it.
    link TEXT,
    opened_by TEXT NOT NULL,
    closed_by TEXT,
    created_at INTEGER NOT NULL,
    CHECK ((deployment IS NULL) = (link IS NULL)),
    CHECK ((restored_at IS NULL) = (closed_by IS NULL)),
    FOREIGN KEY (environment, service) REFERENCES services (environment, name)
) STRICT;
CREATE INDEX incidents_place ON incidents (environment, service, impact_at);
