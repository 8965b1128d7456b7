-- A ledger. These tables are there once for all identities of a database whose layout is shared, and once more in the
-- schema of each identity that has a schema and uses its ledger: there the name of that schema stands for maxhost.
--
-- Numbers rise within an identity. Times are nanoseconds since 1970. Few tables, because thousands of schemas may have
-- them: bodies, and the references from transaction to transaction, are columns that can be emptied alone.

CREATE TABLE maxhost.ledger_tx (
    identity   bigint NOT NULL,
    number     bigint NOT NULL,
    id         bytea NOT NULL,
    -- 0: its bytes are here; 1: it was sent to the notary; 2: it is part of the ledger.
    status     smallint NOT NULL CHECK (status BETWEEN 0 AND 2),
    kind       smallint NOT NULL CHECK (kind BETWEEN 0 AND 1),
    recorded   bigint NOT NULL,
    signatures bytea NOT NULL,
    -- While it is in flight: the flow that settles it, and how. 0: nobody has asked the notary yet; 1: that flow asks; 2: it
    -- came from whoever asks.
    flow       bigint,
    part       smallint CHECK (part BETWEEN 0 AND 2),
    body       bytea,
    -- The ids of the transactions whose states it names, in their order, 32 bytes each.
    parents    bytea,
    PRIMARY KEY (identity, id)
);
CREATE UNIQUE INDEX ledger_tx_number ON maxhost.ledger_tx (identity, number);
CREATE INDEX ledger_tx_unsettled ON maxhost.ledger_tx (identity, number) WHERE status < 2;

-- What recorded transactions have consumed, whether or not the vault has it.
CREATE TABLE maxhost.ledger_spent (
    identity    bigint NOT NULL,
    tx          bytea NOT NULL,
    idx         bigint NOT NULL,
    consumed_by bytea NOT NULL,
    PRIMARY KEY (identity, tx, idx)
);

-- Changes of vaults: one for each transaction that changed one.
CREATE TABLE maxhost.vault_change (
    identity bigint NOT NULL,
    number   bigint NOT NULL,
    tx       bytea NOT NULL,
    at       bigint NOT NULL,
    PRIMARY KEY (identity, number)
);

-- Texts are compared byte by byte, which is the order of their code points.
CREATE TABLE maxhost.vault_state (
    identity        bigint NOT NULL,
    number          bigint NOT NULL,
    tx              bytea NOT NULL,
    idx             bigint NOT NULL,
    type            text COLLATE "C" NOT NULL,
    notary          text COLLATE "C" NOT NULL,
    constraint_kind text COLLATE "C" NOT NULL,
    relevant        smallint NOT NULL CHECK (relevant BETWEEN 0 AND 1),
    recorded        bigint NOT NULL,
    consumed        bigint,
    consumed_by     bytea,
    change_in       bigint NOT NULL,
    change_out      bigint,
    -- The transaction in flight that it is an input of.
    in_flight       bytea,
    -- The component, and what queries know of it: names of participants, fields.
    state           bytea NOT NULL,
    participants    bytea NOT NULL,
    fields          bytea NOT NULL,
    linear_id       text COLLATE "C",
    -- A fungible state's amount; the bucket is one for each power of two.
    token           text COLLATE "C",
    issuer          text COLLATE "C",
    quantity        bigint,
    bucket          smallint,
    -- Who holds it, under which claim, until when, and the flow with which that ends.
    lock_holder     text COLLATE "C",
    lock_claim      bytea,
    lock_until      bigint,
    lock_flow       bigint,
    PRIMARY KEY (identity, tx, idx)
) WITH (fillfactor = 80);
CREATE INDEX vault_state_number ON maxhost.vault_state (identity, number);
CREATE INDEX vault_state_unconsumed ON maxhost.vault_state (identity, type, tx, idx) WHERE consumed_by IS NULL;
CREATE INDEX vault_state_in ON maxhost.vault_state (identity, change_in);
CREATE INDEX vault_state_out ON maxhost.vault_state (identity, change_out) WHERE change_out IS NOT NULL;
CREATE INDEX vault_state_amount ON maxhost.vault_state (identity, type, token, bucket)
    WHERE token IS NOT NULL AND consumed_by IS NULL AND relevant = 1;
CREATE INDEX vault_state_in_flight ON maxhost.vault_state (identity, in_flight) WHERE in_flight IS NOT NULL;
CREATE INDEX vault_state_locked ON maxhost.vault_state (identity, lock_flow) WHERE lock_flow IS NOT NULL;
CREATE INDEX vault_state_claim ON maxhost.vault_state (identity, lock_claim) WHERE lock_claim IS NOT NULL;

-- The fields of states as bytes that sort like their values. A key has at most some 1,100 bytes.
CREATE TABLE maxhost.vault_field (
    identity bigint NOT NULL,
    name     text COLLATE "C" NOT NULL,
    value    bytea NOT NULL,
    state    bigint NOT NULL,
    PRIMARY KEY (identity, name, value, state)
);
CREATE INDEX vault_field_state ON maxhost.vault_field (identity, state, name);

-- What an identity has committed as a notary. A state is committed once.
CREATE TABLE maxhost.notary_state (
    identity    bigint NOT NULL,
    tx          bytea NOT NULL,
    idx         bigint NOT NULL,
    consumed_by bytea NOT NULL,
    PRIMARY KEY (identity, tx, idx)
);

-- What was decided for ever: in which batch a transaction was committed, or, without one, when its window was over.
CREATE TABLE maxhost.notary_tx (
    identity bigint NOT NULL,
    id       bytea NOT NULL,
    batch    bigint,
    at       bigint NOT NULL,
    PRIMARY KEY (identity, id)
);

CREATE TABLE maxhost.notary_request (
    number   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    identity bigint NOT NULL,
    id       bytea NOT NULL,
    caller   text NOT NULL,
    states   bigint NOT NULL,
    batch    bigint NOT NULL,
    at       bigint NOT NULL
);

-- The newest batch of a notary, and what it has decided in all.
CREATE TABLE maxhost.notary (
    identity  bigint PRIMARY KEY,
    batch     bigint NOT NULL,
    at        bigint NOT NULL,
    committed bigint NOT NULL,
    conflicts bigint NOT NULL,
    states    bigint NOT NULL
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);

CREATE TABLE maxhost.attachment (
    identity bigint NOT NULL,
    id       bytea NOT NULL,
    uploader text NOT NULL,
    at       bigint NOT NULL,
    body     bytea NOT NULL,
    PRIMARY KEY (identity, id)
);
