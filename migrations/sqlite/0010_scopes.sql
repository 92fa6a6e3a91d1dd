-- What a secret is limited to (JSON). Those of all repositories were for every branch of every one of
-- them; from now on they are for default branches, until somebody sets them again.
ALTER TABLE secrets ADD COLUMN scope TEXT NOT NULL DEFAULT '{"branches":"any"}';
ALTER TABLE secrets ADD COLUMN limited_by_upgrade INTEGER NOT NULL DEFAULT 0
    CHECK (limited_by_upgrade IN (0, 1));
UPDATE secrets SET scope = '{"branches":"default"}', limited_by_upgrade = 1 WHERE repo = '';

-- The branch that the run's commit was proven to be on. Empty for runs of earlier versions of which
-- nothing is proven, and for strangers'.
ALTER TABLE runs ADD COLUMN code_branch TEXT NOT NULL DEFAULT '';
-- Why the commit is treated as a stranger's: `pull_request`, `not_on_its_branch`, `on_no_branch`.
ALTER TABLE runs ADD COLUMN stranger TEXT;
-- The run's push was no longer the tip of its branch when its delivery was taken in.
ALTER TABLE runs ADD COLUMN overtaken INTEGER NOT NULL DEFAULT 0 CHECK (overtaken IN (0, 1));
-- Its jobs are still being written, in pieces: nobody sees it before the last is there.
ALTER TABLE runs ADD COLUMN making INTEGER NOT NULL DEFAULT 0 CHECK (making IN (0, 1));
CREATE INDEX runs_making ON runs (id) WHERE making = 1;

UPDATE runs SET stranger = 'pull_request' WHERE fork = 1;
-- The forge said so of pushes; a person's commit is a branch's if a push brought it there.
UPDATE runs SET code_branch = branch WHERE fork = 0 AND event = 'push';
UPDATE runs SET code_branch = branch WHERE fork = 0 AND event = 'manual' AND EXISTS (
    SELECT 1 FROM run_requests AS q WHERE q.repo = runs.repo AND q.reference = runs.reference
    AND q.after_sha = runs.commit_sha AND q.event = 'push');
UPDATE runs SET code_branch = coalesce((
    SELECT json_extract(q.pull_request, '$.head_branch') FROM run_requests AS q
    WHERE q.id = runs.request), '') WHERE fork = 0 AND event = 'pull_request';

-- A delivery is known by its body too. Bodies of earlier versions have no hash.
ALTER TABLE deliveries ADD COLUMN body_hash BLOB;
CREATE INDEX deliveries_body ON deliveries (repo, body_hash) WHERE body_hash IS NOT NULL;
-- Where the ref was last seen before this push was told of; empty if it wasn't, null if that isn't
-- known (earlier versions).
ALTER TABLE run_requests ADD COLUMN seen_sha TEXT;
