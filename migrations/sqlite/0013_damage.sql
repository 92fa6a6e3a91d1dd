-- What a sealed log was when it was sealed: the SHA-256 of its index, which holds the sums of its
-- frames. A log that was sealed before has none.
ALTER TABLE attempts ADD COLUMN log_digest TEXT;
