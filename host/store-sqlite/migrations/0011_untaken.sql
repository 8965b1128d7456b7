-- Messages of the broker that could not be taken for a reason that stays: counted, and put aside with their bytes once they were
-- tried often enough. `since` and `latest` are ms since 1970.
CREATE TABLE untaken (
    identity   INTEGER NOT NULL,
    message_id BLOB NOT NULL,
    since      INTEGER NOT NULL,
    latest     INTEGER NOT NULL,
    tries      INTEGER NOT NULL,
    sender     TEXT NOT NULL,
    reason     TEXT NOT NULL,
    body       BLOB,
    PRIMARY KEY (identity, message_id)
);
