-- Hosts have an access key each, handed out by an enrolment that counts once; signed requests are
-- taken once; what a bundle holds is read when it is stored.

CREATE TABLE host_key (
    access_key TEXT PRIMARY KEY NOT NULL,   -- the public half
    instance   TEXT NOT NULL,
    secret     TEXT NOT NULL,               -- checks signatures, so it can't be kept as a hash
    made       INTEGER NOT NULL,
    revoked    INTEGER
) STRICT;
CREATE UNIQUE INDEX one_key_a_host ON host_key (instance) WHERE revoked IS NULL;

CREATE TABLE enrolment (
    code       TEXT PRIMARY KEY NOT NULL,   -- sha256 of what was printed
    instance   TEXT NOT NULL,
    made       INTEGER NOT NULL,
    expires    INTEGER NOT NULL,
    access_key TEXT                         -- the key that was made of it; it makes no other
) STRICT;
CREATE INDEX enrolment_by_instance ON enrolment (instance);

-- Signatures of requests that changed something, until they are too old to be believed anyway.
CREATE TABLE taken_signature (
    signature TEXT PRIMARY KEY NOT NULL,
    until     INTEGER NOT NULL
) STRICT;
CREATE INDEX taken_signature_by_time ON taken_signature (until);

CREATE TABLE bundle_content (
    sha256 TEXT PRIMARY KEY NOT NULL,
    doc    TEXT NOT NULL
) STRICT;
