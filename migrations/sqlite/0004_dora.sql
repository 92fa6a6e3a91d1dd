-- What the metrics are made of, kept up in the transaction of every change.
--
-- A contribution says what one deployment or incident adds (JSON); a cell is the sum of the
-- contributions of a place in an hour, day or month of UTC. A cell can always be built again from
-- its contributions, and a contribution from its deployment or incident. What was there before this
-- migration is added by the check that the server makes when it starts.

CREATE TABLE dora_contributions (
    source TEXT NOT NULL CHECK (source IN ('deployment', 'incident')),
    id INTEGER NOT NULL,
    environment TEXT NOT NULL,
    service TEXT NOT NULL,
    -- The moment that decides its cells.
    at INTEGER NOT NULL,
    -- Of a deployment: what it was for, by what had been deployed before.
    kind TEXT CHECK (kind IN ('normal', 'hotfix', 'rollback', 'redeploy')),
    -- The deployment that this one takes back.
    repairs INTEGER,
    -- It is over.
    over INTEGER NOT NULL CHECK (over IN (0, 1)),
    -- It has rows behind the lead time; behind the recovery time.
    leads INTEGER NOT NULL CHECK (leads IN (0, 1)),
    failed INTEGER NOT NULL CHECK (failed IN (0, 1)),
    part TEXT NOT NULL,
    CHECK ((source = 'deployment') = (kind IS NOT NULL)),
    PRIMARY KEY (source, id)
) STRICT, WITHOUT ROWID;
CREATE INDEX dora_contributions_environment ON dora_contributions (environment, at);
CREATE INDEX dora_contributions_service ON dora_contributions (environment, service, at);
CREATE INDEX dora_contributions_failed ON dora_contributions (environment, at) WHERE failed = 1;
CREATE INDEX dora_contributions_repairs ON dora_contributions (repairs) WHERE repairs IS NOT NULL;

CREATE TABLE dora_cells (
    environment TEXT NOT NULL,
    -- Empty for the whole environment: NULLs would not be unique.
    service TEXT NOT NULL,
    tier TEXT NOT NULL CHECK (tier IN ('hour', 'day', 'month')),
    start INTEGER NOT NULL,
    cell BLOB NOT NULL,
    PRIMARY KEY (environment, service, tier, start)
) STRICT, WITHOUT ROWID;

-- Whether a commit was deployed to a place before.
CREATE INDEX deployments_commit ON deployments (environment, service, commit_sha)
    WHERE state = 'succeeded';
CREATE INDEX incidents_deployment ON incidents (deployment) WHERE deployment IS NOT NULL;
