-- What a host keeps of its identities beside their ledgers. Times called lived are the time for which hosts have run on
-- this database, ms: it never jumps.

CREATE TABLE maxhost.database (
    one         boolean PRIMARY KEY DEFAULT true CHECK (one),
    -- The high bits of row numbers. Rises when the database is put back to an earlier moment.
    incarnation integer NOT NULL DEFAULT 0 CHECK (incarnation BETWEEN 0 AND 2047),
    -- Whether each identity has a schema of its own.
    schemas     boolean,
    lived       bigint NOT NULL DEFAULT 0,
    lived_at    timestamptz NOT NULL DEFAULT now()
);
INSERT INTO maxhost.database DEFAULT VALUES;

-- Numbers from these on were never given out. Hosts take them in blocks.
CREATE TABLE maxhost.number (
    kind text PRIMARY KEY,
    next bigint NOT NULL
);
INSERT INTO maxhost.number (kind, next) VALUES ('run', 1), ('flow', 1), ('initiation', 1);

-- The last batch that each run has committed: what became of a commit whose answer was lost is told by it.
CREATE TABLE maxhost.committer (
    run     bigint PRIMARY KEY,
    batch   bigint NOT NULL DEFAULT 0,
    started timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);

CREATE TABLE maxhost.identity (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name       text COLLATE "C" NOT NULL UNIQUE,
    key_fp     bytea,
    generation bigint NOT NULL DEFAULT 0,
    epoch      bigint NOT NULL DEFAULT 0,
    owner      bigint,
    wake_at    bigint,
    unclean    bigint NOT NULL DEFAULT 0,
    moved_to   text
) WITH (fillfactor = 80);
CREATE INDEX identity_wake ON maxhost.identity (wake_at) WHERE wake_at IS NOT NULL;

CREATE TABLE maxhost.flow (
    id               bigint PRIMARY KEY,
    identity         bigint NOT NULL,
    state            smallint NOT NULL CHECK (state BETWEEN 0 AND 2),
    attempts         bigint NOT NULL DEFAULT 0,
    started          bigint NOT NULL,
    tag              bytea NOT NULL,
    name             text NOT NULL,
    "user"           text,
    client_id        text,
    reason           text,
    start_body       bytea NOT NULL,
    revision         bigint NOT NULL DEFAULT 0,
    waiting_messages bigint NOT NULL DEFAULT 0,
    waiting_bytes    bigint NOT NULL DEFAULT 0
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 5000);
CREATE INDEX flow_waiting ON maxhost.flow (identity) WHERE waiting_messages > 0;

CREATE TABLE maxhost.ended (
    id          bigint PRIMARY KEY,
    identity    bigint NOT NULL,
    state       smallint NOT NULL CHECK (state BETWEEN 3 AND 5),
    attempts    bigint NOT NULL,
    started     bigint NOT NULL,
    finished    bigint NOT NULL,
    expires     bigint NOT NULL,
    tag         bytea NOT NULL,
    name        text NOT NULL,
    "user"      text,
    client_id   text,
    start_body  bytea NOT NULL,
    revision    bigint NOT NULL,
    result_read bigint,
    end_body    bytea NOT NULL,
    labels      bytea,
    forget_at   bigint NOT NULL
);
CREATE INDEX ended_forget ON maxhost.ended (forget_at);

-- A flow's log (stream -1) and what arrived in its sessions (stream = index of the session).
CREATE TABLE maxhost.journal (
    flow   bigint NOT NULL,
    stream integer NOT NULL,
    seq    bigint NOT NULL,
    body   bytea NOT NULL,
    PRIMARY KEY (flow, stream, seq)
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 10000);

CREATE TABLE maxhost.initiation (
    identity bigint NOT NULL,
    id       bigint NOT NULL,
    body     bytea NOT NULL,
    PRIMARY KEY (identity, id)
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 5000);

CREATE TABLE maxhost.late_confirm (
    identity bigint NOT NULL,
    session  bigint NOT NULL,
    body     bytea NOT NULL,
    PRIMARY KEY (identity, session)
);

CREATE TABLE maxhost.client (
    identity  bigint NOT NULL,
    "user"    text COLLATE "C" NOT NULL,
    client_id text COLLATE "C" NOT NULL,
    flow      bigint NOT NULL,
    PRIMARY KEY (identity, "user", client_id)
);

CREATE TABLE maxhost.outbox (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    identity    bigint NOT NULL,
    destination text COLLATE "C" NOT NULL,
    message_id  bytea NOT NULL,
    body        bytea NOT NULL,
    kind        smallint NOT NULL CHECK (kind BETWEEN 0 AND 2),
    session     bigint,
    seq         bigint,
    lived       bigint NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 5000);
CREATE INDEX outbox_destination ON maxhost.outbox (destination, id);
CREATE INDEX outbox_identity ON maxhost.outbox (identity);

CREATE TABLE maxhost.processed (
    identity   bigint NOT NULL,
    message_id bytea NOT NULL,
    at         bigint NOT NULL,
    PRIMARY KEY (identity, message_id)
);
CREATE INDEX processed_at ON maxhost.processed (at);
