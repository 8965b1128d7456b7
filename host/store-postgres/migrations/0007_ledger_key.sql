-- Keys that states name without a party, and whose they are: an identity's own, with the nonce that they are derived from,
-- and those of parties that have told it. A part of each ledger, as the tables of 0003.
CREATE TABLE maxhost.ledger_key (
    identity bigint NOT NULL,
    -- SHA-256 of the key.
    id       bytea NOT NULL,
    key      bytea NOT NULL,
    party    text NOT NULL,
    nonce    bytea,
    at       bigint NOT NULL,
    PRIMARY KEY (identity, id)
);
