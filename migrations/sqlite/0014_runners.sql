-- Who may register a runner, as what; which process is a runner; and a proof of the master key.

-- A token registers one runner, which gets what the administrator decided: labels, repositories, and
-- whether commits of forks may run on it.
CREATE TABLE enrolments (
    hash BLOB PRIMARY KEY NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    -- JSON, and whether the runner may name others beside these.
    labels TEXT NOT NULL,
    any_label INTEGER NOT NULL CHECK (any_label IN (0, 1)),
    -- JSON, ids; every repository if absent.
    repos TEXT,
    forks INTEGER NOT NULL CHECK (forks IN (0, 1)),
    -- Kept, so that the same token is never taken again.
    used_at INTEGER,
    runner TEXT
) STRICT, WITHOUT ROWID;
-- Tokens of the kind that registered any number of runners are over.
INSERT INTO enrolments (hash, created_at, expires_at, labels, any_label, forks, used_at)
    SELECT hash, created_at, expires_at, '[]', 0, 0, created_at FROM registration_tokens;
DROP TABLE registration_tokens;

-- Runners from before this take what they took: jobs of every repository, and of forks.
ALTER TABLE runners ADD COLUMN repos TEXT;
ALTER TABLE runners ADD COLUMN forks INTEGER NOT NULL DEFAULT 1 CHECK (forks IN (0, 1));
-- The one process that speaks for it, and when it last did.
ALTER TABLE runners ADD COLUMN process TEXT;
ALTER TABLE runners ADD COLUMN process_at INTEGER;

-- A known value, sealed by the master key.
ALTER TABLE installation ADD COLUMN key_check BLOB;

-- Secrets of the installation itself.
CREATE TABLE installation_secrets (
    name TEXT PRIMARY KEY NOT NULL,
    sealed BLOB NOT NULL,
    set_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
