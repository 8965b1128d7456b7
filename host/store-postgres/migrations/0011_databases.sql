-- Identities of one installation may live in several databases. All of them know each identity by the number that it has in
-- the first one. It lives in that whose row has no moved_to; elsewhere moved_to names a database, by its id.

ALTER TABLE maxhost.database
    -- The id of the first database, in those that stand beside it.
    ADD COLUMN home bigint,
    -- Rises whenever an identity comes or goes, so that hosts notice.
    ADD COLUMN moves bigint NOT NULL DEFAULT 0;

ALTER TABLE maxhost.identity
    -- 1: its rows are being copied to the database that moved_to names, and nobody may write them. 2: they were copied to
    -- here, and it lives here as soon as its former database says that it has left.
    ADD COLUMN moving smallint NOT NULL DEFAULT 0 CHECK (moving BETWEEN 0 AND 2),
    -- When it left, in the time that hosts have run, while there are rows of it still.
    ADD COLUMN left_at bigint;
CREATE INDEX identity_moved ON maxhost.identity (moved_to) WHERE moved_to IS NOT NULL;
CREATE INDEX identity_left ON maxhost.identity (left_at) WHERE left_at IS NOT NULL;
