-- Times in which a service answered nobody, as the fleet saw it.

CREATE TABLE outage (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    application TEXT NOT NULL,
    grp         TEXT NOT NULL,
    began       INTEGER NOT NULL,
    ended       INTEGER,
    reason      TEXT NOT NULL
) STRICT;
CREATE INDEX outage_by_group ON outage (application, grp, id);
