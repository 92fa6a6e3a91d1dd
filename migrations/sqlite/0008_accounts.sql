-- Roles, the identities that forges know people by, credentials that end with the one that made
-- them, and an audit log whose rows are chained.

ALTER TABLE credentials RENAME TO credentials_before;
ALTER TABLE users RENAME TO users_before;

CREATE TABLE users (
    id TEXT PRIMARY KEY NOT NULL,
    name TEXT NOT NULL,
    role TEXT NOT NULL CHECK (role IN ('admin', 'developer')),
    -- When this person first signed in.
    first_seen_at INTEGER,
    created_at INTEGER NOT NULL,
    -- The row stays for what it did; its name may be given again.
    removed_at INTEGER
) STRICT;
CREATE UNIQUE INDEX users_name ON users (name) WHERE removed_at IS NULL;
INSERT INTO users (id, name, role, first_seen_at, created_at)
    SELECT id, name, role, first_seen_at, created_at FROM users_before;

-- Who a forge says that somebody is. One login is one person.
CREATE TABLE identities (
    forge TEXT NOT NULL,
    login TEXT NOT NULL,
    user_id TEXT NOT NULL REFERENCES users (id),
    PRIMARY KEY (forge, login)
) STRICT, WITHOUT ROWID;
CREATE INDEX identities_user ON identities (user_id);

-- Sessions, API tokens and one-time logins. Only a hash of the secret is kept. Every one ends, and
-- ends with its parent: the credential that it was made by.
CREATE TABLE credentials (
    id TEXT PRIMARY KEY NOT NULL,
    user_id TEXT NOT NULL REFERENCES users (id),
    kind TEXT NOT NULL CHECK (kind IN ('login', 'session', 'token')),
    label TEXT NOT NULL,
    hash BLOB NOT NULL UNIQUE CHECK (length(hash) = 32),
    parent TEXT REFERENCES credentials (id) ON DELETE CASCADE,
    created_at INTEGER NOT NULL,
    used_at INTEGER,
    expires_at INTEGER NOT NULL
) STRICT;
-- What never ended gets 90 days from now; what would last longer than a year, a year.
INSERT INTO credentials (id, user_id, kind, label, hash, created_at, used_at, expires_at)
    SELECT id, user_id, kind, label, hash, created_at, used_at,
        min(coalesce(expires_at, (unixepoch('now') + 90 * 86400) * 1000000),
            (unixepoch('now') + 365 * 86400) * 1000000)
    FROM credentials_before;
DROP TABLE credentials_before;
DROP TABLE users_before;
CREATE INDEX credentials_by_expiry ON credentials (expires_at);
CREATE INDEX credentials_by_parent ON credentials (parent) WHERE parent IS NOT NULL;
CREATE INDEX credentials_by_user ON credentials (user_id);

-- `who` and `who_id` say who did it, `name` what they were called then. A row without `hash` was
-- written before the chain began.
ALTER TABLE audit ADD COLUMN who TEXT;
ALTER TABLE audit ADD COLUMN who_id TEXT;
ALTER TABLE audit ADD COLUMN name TEXT;
ALTER TABLE audit ADD COLUMN credential TEXT;
ALTER TABLE audit ADD COLUMN address TEXT;
ALTER TABLE audit ADD COLUMN before TEXT;
ALTER TABLE audit ADD COLUMN after TEXT;
ALTER TABLE audit ADD COLUMN hash BLOB;

-- The chain's first link, over the rows from before it, and its newest one: a row that is taken from
-- the end is missed too.
CREATE TABLE audit_chain (
    only_row INTEGER PRIMARY KEY NOT NULL CHECK (only_row = 1),
    begins_after INTEGER NOT NULL,
    genesis BLOB NOT NULL,
    seq INTEGER NOT NULL,
    hash BLOB NOT NULL
) STRICT;
UPDATE audit SET who = iif(user_id IS NULL, 'pipeyard', 'user'), who_id = user_id,
    name = iif(user_id IS NULL, 'pipeyard',
        coalesce((SELECT name FROM users WHERE users.id = audit.user_id), 'unknown'));
