-- A push is compared with earlier ones of its own ref: many branches may point at one commit.
DROP INDEX run_requests_same;
CREATE INDEX run_requests_same ON run_requests (repo, reference, after_sha, received_at);
