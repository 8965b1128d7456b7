-- Code of CorDapps, for hosts that go on with flows which others have started.

CREATE TABLE maxhost.component (
    hash    bytea PRIMARY KEY CHECK (length(hash) = 32),
    body    bytea NOT NULL,
    -- When a host has last said that it uses it, by the clock of the database.
    used_at timestamptz NOT NULL DEFAULT now()
);
-- It is compressed as far as it goes, and would not get smaller.
ALTER TABLE maxhost.component ALTER COLUMN body SET STORAGE EXTERNAL;
