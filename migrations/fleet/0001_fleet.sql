-- The fleet's own database. Times are microseconds since 1970-01-01 UTC. A column `doc` is the
-- JSON of one of the fleet's own types; what is searched or must be unique has a column of its own.

CREATE TABLE fleet (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    id  TEXT NOT NULL                       -- label on everything made in Docker
) STRICT;

CREATE TABLE application (
    name     TEXT PRIMARY KEY NOT NULL,
    id       TEXT NOT NULL,
    platform TEXT NOT NULL CHECK (platform IN ('ECS', 'Server')),
    created  INTEGER NOT NULL
) STRICT;

CREATE TABLE deployment_group (
    id          TEXT PRIMARY KEY NOT NULL,
    application TEXT NOT NULL REFERENCES application (name) ON DELETE CASCADE,
    name        TEXT NOT NULL,
    config      TEXT NOT NULL,
    doc         TEXT NOT NULL,
    UNIQUE (application, name)
) STRICT;

CREATE TABLE deployment_config (
    name    TEXT PRIMARY KEY NOT NULL,
    created INTEGER NOT NULL,
    doc     TEXT NOT NULL
) STRICT;

CREATE TABLE revision (
    application TEXT NOT NULL REFERENCES application (name) ON DELETE CASCADE,
    location    TEXT NOT NULL,
    description TEXT,
    registered  INTEGER NOT NULL,
    PRIMARY KEY (application, location)
) STRICT;

CREATE TABLE deployment (
    seq         INTEGER PRIMARY KEY AUTOINCREMENT,
    id          TEXT NOT NULL UNIQUE,
    application TEXT NOT NULL,
    grp         TEXT NOT NULL,
    status      TEXT NOT NULL,
    active      INTEGER NOT NULL,
    created     INTEGER NOT NULL,
    invocation  TEXT UNIQUE,                -- amz-sdk-invocation-id: a retried call is the same call
    doc         TEXT NOT NULL
) STRICT;
CREATE INDEX deployment_by_group ON deployment (application, grp, seq);
-- The rule that everything else rests on.
CREATE UNIQUE INDEX one_active_deployment ON deployment (application, grp) WHERE active = 1;

CREATE TABLE target (
    deployment TEXT NOT NULL,
    id         TEXT NOT NULL,
    doc        TEXT NOT NULL,
    PRIMARY KEY (deployment, id)
) STRICT;

-- What the engine is about to do, written before it does it.
CREATE TABLE step (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    deployment TEXT NOT NULL,
    target     TEXT,
    name       TEXT NOT NULL,
    detail     TEXT NOT NULL,
    started    INTEGER NOT NULL,
    ended      INTEGER,
    outcome    TEXT
) STRICT;
CREATE INDEX step_by_deployment ON step (deployment, id);

-- Every weight, before the proxy is told. The version is the proxy's fencing epoch.
CREATE TABLE traffic (
    version     INTEGER PRIMARY KEY AUTOINCREMENT,
    application TEXT NOT NULL,
    grp         TEXT NOT NULL,
    doc         TEXT NOT NULL,
    written     INTEGER NOT NULL,
    applied     INTEGER
) STRICT;
CREATE INDEX traffic_by_group ON traffic (application, grp, version);

CREATE TABLE service (
    application TEXT NOT NULL,
    grp         TEXT NOT NULL,
    doc         TEXT NOT NULL,
    PRIMARY KEY (application, grp)
) STRICT;

CREATE TABLE instance (
    name         TEXT PRIMARY KEY NOT NULL,
    registered   INTEGER NOT NULL,
    deregistered INTEGER,
    identity     TEXT NOT NULL,             -- the IAM ARN that it was registered with
    doc          TEXT NOT NULL
) STRICT;

CREATE TABLE instance_tag (
    instance TEXT NOT NULL REFERENCES instance (name) ON DELETE CASCADE,
    key      TEXT NOT NULL,
    value    TEXT NOT NULL,
    PRIMARY KEY (instance, key, value)
) STRICT;

-- One try of one lifecycle event on one host, written before the agent can see it.
CREATE TABLE command (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    deployment TEXT NOT NULL,
    instance   TEXT NOT NULL,
    event      TEXT NOT NULL,
    doc        TEXT NOT NULL,
    created    INTEGER NOT NULL,
    sent       INTEGER,
    ended      INTEGER,
    outcome    TEXT
) STRICT;
CREATE INDEX command_open ON command (instance, id) WHERE ended IS NULL;
CREATE INDEX command_by_deployment ON command (deployment, instance, id);

CREATE TABLE resource_tag (
    arn   TEXT NOT NULL,
    key   TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (arn, key)
) STRICT;

CREATE TABLE bundle (
    bucket TEXT NOT NULL,
    key    TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    size   INTEGER NOT NULL,
    stored INTEGER NOT NULL,
    PRIMARY KEY (bucket, key)
) STRICT;
