-- Of a repository's open requests those are found that are due: one that waits for its retry holds
-- back nobody, and a flood of them isn't walked through.
DROP INDEX run_requests_open;
CREATE INDEX run_requests_due ON run_requests (repo, due_at, id) WHERE closed_at IS NULL;
