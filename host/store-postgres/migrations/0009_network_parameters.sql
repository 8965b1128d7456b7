-- Network parameters under which an identity has judged transactions, as the network's operator signed them: its ledger can be
-- judged again, and given to others, when other parameters are in force. A part of each ledger, as the tables of 0003.
CREATE TABLE maxhost.network_parameters (
    identity bigint NOT NULL,
    -- SHA-256 of the parameters, by which transactions name them.
    hash     bytea NOT NULL,
    at       bigint NOT NULL,
    -- The parameters with the signature and its certificates.
    body     bytea NOT NULL,
    PRIMARY KEY (identity, hash)
);
