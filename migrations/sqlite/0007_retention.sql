-- Logs and artifacts of runs that ended long ago are removed; the rows that say so stay.

-- When the log's bytes were given up.
ALTER TABLE attempts ADD COLUMN log_removed_at INTEGER;
-- When the artifact's bytes were given up, and whether a release still needs them although the run
-- is old.
ALTER TABLE artifacts ADD COLUMN removed_at INTEGER;
ALTER TABLE artifacts ADD COLUMN held INTEGER NOT NULL DEFAULT 0 CHECK (held IN (0, 1));
CREATE INDEX artifacts_held ON artifacts (held) WHERE held = 1;
-- When the run was last looked at for this; started again it ends anew, and is looked at again.
ALTER TABLE runs ADD COLUMN emptied_at INTEGER;
CREATE INDEX runs_full ON runs (finished_at)
    WHERE finished_at IS NOT NULL AND (emptied_at IS NULL OR emptied_at <= finished_at);

-- Bytes that their rows have given up and that may still be on the disk.
CREATE TABLE removals (
    kind TEXT NOT NULL CHECK (kind IN ('log', 'blob')),
    -- `<job id>/<epoch>`, or the SHA-256.
    key TEXT NOT NULL,
    PRIMARY KEY (kind, key)
) STRICT, WITHOUT ROWID;
