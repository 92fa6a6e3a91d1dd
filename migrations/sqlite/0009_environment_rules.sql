-- What an environment takes, from whom, and when (JSON). NULL: the environment is older than rules;
-- they are made from its history when this version opens the file for the first time.
ALTER TABLE environments ADD COLUMN policy TEXT;

-- The forge's user who pushed, as the forge signed it; NULL where none is known.
ALTER TABLE run_requests ADD COLUMN forge_user TEXT;
ALTER TABLE runs ADD COLUMN forge_user TEXT;
-- The person who started the run by hand.
ALTER TABLE runs ADD COLUMN started_by TEXT;
