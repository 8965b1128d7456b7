-- A run that is killed leaves its row behind. One that gives a sign of life now and then tells itself apart from it.

ALTER TABLE maxhost.committer
    -- When the run last gave a sign of life, in the time that hosts have run. NULL of one that gives none.
    ADD COLUMN seen bigint;
