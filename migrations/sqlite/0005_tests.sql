-- What the test reports of attempts say: the counts that lists show beside an attempt, and the
-- bounded report (JSON) with its suites, failed tests and problems.
CREATE TABLE test_reports (
    id INTEGER PRIMARY KEY NOT NULL,
    job TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    passed INTEGER NOT NULL,
    failed INTEGER NOT NULL,
    errored INTEGER NOT NULL,
    skipped INTEGER NOT NULL,
    flaky INTEGER NOT NULL,
    duration_ms INTEGER NOT NULL,
    problems INTEGER NOT NULL,
    report TEXT NOT NULL,
    UNIQUE (job, epoch),
    FOREIGN KEY (job, epoch) REFERENCES attempts (job, epoch)
) STRICT;
