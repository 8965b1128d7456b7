-- Network parameters under which an identity has judged transactions, as the network's operator signed them: its ledger can be
-- judged again, and given to others, when other parameters are in force.
CREATE TABLE network_parameters (
    identity INTEGER NOT NULL,
    -- SHA-256 of the parameters, by which transactions name them.
    hash     BLOB NOT NULL,
    at       INTEGER NOT NULL,
    -- The parameters with the signature and its certificates.
    body     BLOB NOT NULL,
    PRIMARY KEY (identity, hash)
) WITHOUT ROWID;
