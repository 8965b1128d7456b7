-- Flow ids rise and are never used again, so what belongs to a live flow lies together and a commit touches few pages
-- however many identities and sleeping flows there are.

CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) WITHOUT ROWID;

-- Row numbers below these marks may have been used.
INSERT INTO meta (key, value) VALUES ('flow', 1), ('initiation', 1), ('outbox', 1);

CREATE TABLE identity (
    id    INTEGER PRIMARY KEY,
    name  TEXT NOT NULL UNIQUE,
    epoch INTEGER NOT NULL DEFAULT 0
);

CREATE TABLE flow (
    id         INTEGER PRIMARY KEY,
    identity   INTEGER NOT NULL,
    state      INTEGER NOT NULL CHECK (state BETWEEN 0 AND 5),
    attempts   INTEGER NOT NULL DEFAULT 0,
    started    INTEGER NOT NULL,
    finished   INTEGER,
    expires    INTEGER,
    tag        BLOB NOT NULL,
    name       TEXT NOT NULL,
    user       TEXT,
    client_id  TEXT,
    reason     TEXT,
    start_body BLOB NOT NULL,
    end_body   BLOB
);
-- What a host scans when it starts, without the bodies and without finished flows.
CREATE INDEX flow_live ON flow (id, identity, state) WHERE state <= 2;
-- What is to be forgotten.
CREATE INDEX flow_expiry ON flow (expires) WHERE expires IS NOT NULL;

-- A flow's log (lane -1) and what arrived in its sessions (lane = index of the session), interleaved: the log and the
-- sessions advance at about the same pace, so what two flows that talk to each other write in one commit lies on two
-- pages, not on four.
CREATE TABLE journal (
    flow INTEGER NOT NULL,
    seq  INTEGER NOT NULL,
    lane INTEGER NOT NULL,
    body BLOB NOT NULL,
    PRIMARY KEY (flow, seq, lane)
) WITHOUT ROWID;

CREATE TABLE initiation (
    identity INTEGER NOT NULL,
    id       INTEGER NOT NULL,
    body     BLOB NOT NULL,
    PRIMARY KEY (identity, id)
) WITHOUT ROWID;

CREATE TABLE client (
    identity  INTEGER NOT NULL,
    client_id TEXT NOT NULL,
    flow      INTEGER NOT NULL,
    user      TEXT,
    PRIMARY KEY (identity, client_id)
) WITHOUT ROWID;

CREATE TABLE outbox (
    id          INTEGER PRIMARY KEY,
    identity    INTEGER NOT NULL,
    destination TEXT NOT NULL,
    message_id  BLOB NOT NULL,
    body        BLOB NOT NULL
);

-- Messages that came through a broker and were taken, so that a second delivery is known.
CREATE TABLE processed (
    identity   INTEGER NOT NULL,
    message_id BLOB NOT NULL,
    at         INTEGER NOT NULL,
    PRIMARY KEY (identity, message_id)
) WITHOUT ROWID;
CREATE INDEX processed_at ON processed (at);
