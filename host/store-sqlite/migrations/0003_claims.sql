-- Who holds an identity: the newest claim, and the run that it belongs to while somebody owns the identity.
ALTER TABLE identity ADD COLUMN generation INTEGER NOT NULL DEFAULT 0;
ALTER TABLE identity ADD COLUMN owner INTEGER;
ALTER TABLE identity ADD COLUMN wake_at INTEGER;
ALTER TABLE identity ADD COLUMN unclean INTEGER NOT NULL DEFAULT 0;
ALTER TABLE identity ADD COLUMN moved_to TEXT;
ALTER TABLE identity ADD COLUMN key_fp BLOB;
CREATE INDEX identity_wake ON identity (wake_at) WHERE wake_at IS NOT NULL;

-- The number of the newest run, and the time for which hosts have run on this database, ms.
INSERT INTO meta (key, value) VALUES ('run', 0), ('lived', 0);

-- Client ids are names that a user gives: two users may use the same.
CREATE TABLE client_of_user (
    identity  INTEGER NOT NULL,
    user      TEXT NOT NULL,
    client_id TEXT NOT NULL,
    flow      INTEGER NOT NULL,
    PRIMARY KEY (identity, user, client_id)
) WITHOUT ROWID;
INSERT INTO client_of_user SELECT identity, coalesce(user, ''), client_id, flow FROM client;
DROP TABLE client;
ALTER TABLE client_of_user RENAME TO client;

ALTER TABLE journal RENAME COLUMN lane TO stream;

-- A message that could not be written to its recipient directly is kept as it would have been written: kind 1 is an
-- initiation, kind 2 a message for a session; kind 0 is a message as it goes to the broker.
ALTER TABLE outbox ADD COLUMN kind INTEGER NOT NULL DEFAULT 0 CHECK (kind BETWEEN 0 AND 2);
ALTER TABLE outbox ADD COLUMN session INTEGER;
ALTER TABLE outbox ADD COLUMN seq INTEGER;
-- When the row was written, in the time that hosts have run.
ALTER TABLE outbox ADD COLUMN lived INTEGER NOT NULL DEFAULT 0;
CREATE INDEX outbox_destination ON outbox (destination, id);
CREATE INDEX outbox_identity ON outbox (identity);

-- Confirmations of sessions whose flow had ended when they came.
CREATE TABLE late_confirm (
    identity INTEGER NOT NULL,
    session  INTEGER NOT NULL,
    body     BLOB NOT NULL,
    PRIMARY KEY (identity, session)
) WITHOUT ROWID;

-- Rises with each change of state: a part of the flow's version.
ALTER TABLE flow ADD COLUMN revision INTEGER NOT NULL DEFAULT 0;
-- What waits for a flow that has not looked for long.
ALTER TABLE flow ADD COLUMN waiting_messages INTEGER NOT NULL DEFAULT 0;
ALTER TABLE flow ADD COLUMN waiting_bytes INTEGER NOT NULL DEFAULT 0;
CREATE INDEX flow_waiting ON flow (id) WHERE waiting_messages > 0;

ALTER TABLE ended ADD COLUMN revision INTEGER NOT NULL DEFAULT 0;
ALTER TABLE ended ADD COLUMN labels BLOB;
ALTER TABLE ended ADD COLUMN result_read INTEGER;
-- When the row goes, in the time that hosts have run: what is kept now gets all of its time.
ALTER TABLE ended ADD COLUMN forget_at INTEGER NOT NULL DEFAULT 0;
UPDATE ended SET forget_at = max(expires - coalesce(finished, expires), 0);
DROP INDEX ended_expiry;
CREATE INDEX ended_forget ON ended (forget_at);

-- In the time that hosts have run, from now on.
UPDATE processed SET at = 0;
