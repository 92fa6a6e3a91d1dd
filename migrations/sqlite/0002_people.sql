-- People, credentials, secrets, artifacts, messages that leave, and the audit log.

CREATE TABLE users (
    id TEXT PRIMARY KEY NOT NULL,
    name TEXT NOT NULL UNIQUE,
    role TEXT NOT NULL CHECK (role IN ('admin')),
    -- When this person first signed in.
    first_seen_at INTEGER,
    created_at INTEGER NOT NULL
) STRICT;

-- Sessions, API tokens and one-time logins. Only a hash of the secret is kept.
CREATE TABLE credentials (
    id TEXT PRIMARY KEY NOT NULL,
    user_id TEXT NOT NULL REFERENCES users (id),
    kind TEXT NOT NULL CHECK (kind IN ('login', 'session', 'token')),
    label TEXT NOT NULL,
    hash BLOB NOT NULL UNIQUE CHECK (length(hash) = 32),
    created_at INTEGER NOT NULL,
    used_at INTEGER,
    expires_at INTEGER
) STRICT;
CREATE INDEX credentials_by_expiry ON credentials (expires_at) WHERE expires_at IS NOT NULL;

-- Append-only: nothing updates or deletes a row.
CREATE TABLE audit (
    seq INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
    at INTEGER NOT NULL,
    user_id TEXT,
    action TEXT NOT NULL,
    target TEXT NOT NULL
) STRICT;

-- `repo` is empty text for a secret of every repository: NULLs would not be unique.
CREATE TABLE secrets (
    repo TEXT NOT NULL,
    name TEXT NOT NULL,
    sealed BLOB NOT NULL,
    updated_at INTEGER NOT NULL,
    used_at INTEGER,
    PRIMARY KEY (repo, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE forge_tokens (
    repo TEXT PRIMARY KEY NOT NULL REFERENCES repos (id),
    sealed BLOB NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE artifacts (
    id TEXT PRIMARY KEY NOT NULL,
    job TEXT NOT NULL REFERENCES jobs (id),
    epoch INTEGER NOT NULL,
    path TEXT NOT NULL,
    size INTEGER NOT NULL CHECK (size >= 0),
    sha256 TEXT NOT NULL CHECK (length(sha256) = 64),
    created_at INTEGER NOT NULL,
    UNIQUE (job, epoch, path)
) STRICT;
CREATE INDEX artifacts_by_sha256 ON artifacts (sha256);

-- `state` waiting -> sent | dead. `seq` is the order of the changes.
CREATE TABLE outbox (
    seq INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
    id TEXT NOT NULL UNIQUE,
    key TEXT NOT NULL,
    notice TEXT NOT NULL,
    state TEXT NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'sent', 'dead')),
    tries INTEGER NOT NULL DEFAULT 0,
    problem TEXT,
    created_at INTEGER NOT NULL,
    next_at INTEGER NOT NULL,
    done_at INTEGER
) STRICT;
CREATE INDEX outbox_waiting ON outbox (key, seq) WHERE state = 'waiting';
