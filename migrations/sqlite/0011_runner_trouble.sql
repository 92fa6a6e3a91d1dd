-- Why a runner that is there can run nothing: its Docker doesn't answer, its disk is full.
ALTER TABLE runners ADD COLUMN trouble TEXT;
