-- Keys that states name without a party, and whose they are: an identity's own, with the nonce that they are derived from,
-- and those of parties that have told it.
CREATE TABLE ledger_key (
    identity INTEGER NOT NULL,
    -- SHA-256 of the key.
    id       BLOB NOT NULL,
    key      BLOB NOT NULL,
    party    TEXT NOT NULL,
    nonce    BLOB,
    at       INTEGER NOT NULL,
    PRIMARY KEY (identity, id)
) WITHOUT ROWID;
