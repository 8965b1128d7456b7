-- Flows that have ended get a table of their own. A row of a live flow no longer grows when it ends, which would push its
-- neighbours to other pages, and needs no index to be told from an ended one: a start touches one page less, an end four.

CREATE TABLE ended (
    id         INTEGER PRIMARY KEY,
    identity   INTEGER NOT NULL,
    state      INTEGER NOT NULL CHECK (state BETWEEN 3 AND 5),
    attempts   INTEGER NOT NULL,
    started    INTEGER NOT NULL,
    finished   INTEGER,
    expires    INTEGER NOT NULL,
    tag        BLOB NOT NULL,
    name       TEXT NOT NULL,
    user       TEXT,
    client_id  TEXT,
    start_body BLOB NOT NULL,
    end_body   BLOB
);
-- What is to be forgotten.
CREATE INDEX ended_expiry ON ended (expires);

INSERT INTO ended
SELECT id, identity, state, attempts, started, finished, coalesce(expires, 0), tag, name, user, client_id, start_body, end_body
FROM flow WHERE state > 2;

CREATE TABLE live (
    id         INTEGER PRIMARY KEY,
    identity   INTEGER NOT NULL,
    state      INTEGER NOT NULL CHECK (state BETWEEN 0 AND 2),
    attempts   INTEGER NOT NULL DEFAULT 0,
    started    INTEGER NOT NULL,
    tag        BLOB NOT NULL,
    name       TEXT NOT NULL,
    user       TEXT,
    client_id  TEXT,
    reason     TEXT,
    start_body BLOB NOT NULL
);
INSERT INTO live
SELECT id, identity, state, attempts, started, tag, name, user, client_id, reason, start_body
FROM flow WHERE state <= 2;

DROP TABLE flow;
ALTER TABLE live RENAME TO flow;
