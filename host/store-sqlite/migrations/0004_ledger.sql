-- The ledger of each identity. Times are nanoseconds since 1970. Bodies, states, spent marks and the references from
-- transaction to transaction are tables of their own, so that each can be pruned alone.

CREATE TABLE ledger_tx (
    number     INTEGER PRIMARY KEY,
    identity   INTEGER NOT NULL,
    id         BLOB NOT NULL,
    -- 0: its bytes are here; 1: it was sent to the notary; 2: it is part of the ledger.
    status     INTEGER NOT NULL CHECK (status BETWEEN 0 AND 2),
    kind       INTEGER NOT NULL CHECK (kind BETWEEN 0 AND 1),
    recorded   INTEGER NOT NULL,
    signatures BLOB NOT NULL,
    -- While it is in flight: the flow that settles it, and how. 0: nobody has asked the notary yet; 1: that flow asks; 2: it
    -- came from whoever asks.
    flow       INTEGER,
    part       INTEGER CHECK (part BETWEEN 0 AND 2)
);
CREATE UNIQUE INDEX ledger_tx_id ON ledger_tx (identity, id);
CREATE INDEX ledger_tx_unsettled ON ledger_tx (identity, number) WHERE status < 2;

CREATE TABLE ledger_body (
    tx   INTEGER PRIMARY KEY,
    body BLOB NOT NULL
);

CREATE TABLE ledger_parent (
    tx     INTEGER NOT NULL,
    parent BLOB NOT NULL,
    PRIMARY KEY (tx, parent)
) WITHOUT ROWID;

-- What recorded transactions have consumed, whether or not the vault has it.
CREATE TABLE ledger_spent (
    identity    INTEGER NOT NULL,
    tx          BLOB NOT NULL,
    idx         INTEGER NOT NULL,
    consumed_by BLOB NOT NULL,
    PRIMARY KEY (identity, tx, idx)
) WITHOUT ROWID;

-- Changes of vaults: one for each transaction that changed one.
CREATE TABLE vault_change (
    number   INTEGER PRIMARY KEY,
    identity INTEGER NOT NULL,
    tx       BLOB NOT NULL,
    at       INTEGER NOT NULL
);
CREATE INDEX vault_change_identity ON vault_change (identity, number);

CREATE TABLE vault_state (
    number          INTEGER PRIMARY KEY,
    identity        INTEGER NOT NULL,
    tx              BLOB NOT NULL,
    idx             INTEGER NOT NULL,
    type            TEXT NOT NULL,
    notary          TEXT NOT NULL,
    constraint_kind TEXT NOT NULL,
    relevant        INTEGER NOT NULL,
    recorded        INTEGER NOT NULL,
    consumed        INTEGER,
    consumed_by     BLOB,
    change_in       INTEGER NOT NULL,
    change_out      INTEGER,
    -- The transaction in flight that it is an input of.
    in_flight       BLOB,
    -- The component, and what queries know of it: names of participants, fields.
    state           BLOB NOT NULL,
    participants    BLOB NOT NULL,
    fields          BLOB NOT NULL,
    linear_id       TEXT,
    -- A fungible state's amount; the bucket is one for each power of two.
    token           TEXT,
    issuer          TEXT,
    quantity        INTEGER,
    bucket          INTEGER,
    -- Who holds it, under which claim, until when, and the flow with which that ends.
    lock_holder     TEXT,
    lock_claim      BLOB,
    lock_until      INTEGER,
    lock_flow       INTEGER
);
CREATE UNIQUE INDEX vault_state_ref ON vault_state (identity, tx, idx);
CREATE INDEX vault_state_unconsumed ON vault_state (identity, type, tx, idx) WHERE consumed_by IS NULL;
CREATE INDEX vault_state_in ON vault_state (identity, change_in);
CREATE INDEX vault_state_out ON vault_state (identity, change_out) WHERE change_out IS NOT NULL;
CREATE INDEX vault_state_amount ON vault_state (identity, type, token, bucket)
    WHERE token IS NOT NULL AND consumed_by IS NULL AND relevant = 1;
CREATE INDEX vault_state_linear ON vault_state (identity, linear_id) WHERE linear_id IS NOT NULL;
CREATE INDEX vault_state_in_flight ON vault_state (identity, in_flight) WHERE in_flight IS NOT NULL;
CREATE INDEX vault_state_locked ON vault_state (identity, tx, idx) WHERE lock_flow IS NOT NULL;
CREATE INDEX vault_state_lock ON vault_state (lock_flow) WHERE lock_flow IS NOT NULL;
CREATE INDEX vault_state_claim ON vault_state (identity, lock_claim) WHERE lock_claim IS NOT NULL;

-- The fields of states as bytes that sort like their values.
CREATE TABLE vault_field (
    identity INTEGER NOT NULL,
    name     TEXT NOT NULL,
    value    BLOB NOT NULL,
    state    INTEGER NOT NULL,
    PRIMARY KEY (identity, name, value, state)
) WITHOUT ROWID;
CREATE INDEX vault_field_state ON vault_field (state, name, value);

-- What an identity has committed as a notary. A state is committed once.
CREATE TABLE notary_state (
    identity    INTEGER NOT NULL,
    tx          BLOB NOT NULL,
    idx         INTEGER NOT NULL,
    consumed_by BLOB NOT NULL,
    PRIMARY KEY (identity, tx, idx)
) WITHOUT ROWID;

-- What was decided for ever: in which batch a transaction was committed, or, without one, when its window was over.
CREATE TABLE notary_tx (
    identity INTEGER NOT NULL,
    id       BLOB NOT NULL,
    batch    INTEGER,
    at       INTEGER NOT NULL,
    PRIMARY KEY (identity, id)
) WITHOUT ROWID;

CREATE TABLE notary_request (
    number   INTEGER PRIMARY KEY,
    identity INTEGER NOT NULL,
    id       BLOB NOT NULL,
    caller   TEXT NOT NULL,
    states   INTEGER NOT NULL,
    batch    INTEGER NOT NULL,
    at       INTEGER NOT NULL
);

-- The newest batch of each notary, and what it has decided in all.
CREATE TABLE notary (
    identity  INTEGER PRIMARY KEY,
    batch     INTEGER NOT NULL,
    at        INTEGER NOT NULL,
    committed INTEGER NOT NULL DEFAULT 0,
    conflicts INTEGER NOT NULL DEFAULT 0,
    states    INTEGER NOT NULL DEFAULT 0
);

CREATE TABLE attachment (
    identity INTEGER NOT NULL,
    id       BLOB NOT NULL,
    uploader TEXT NOT NULL,
    at       INTEGER NOT NULL,
    body     BLOB NOT NULL,
    PRIMARY KEY (identity, id)
);
