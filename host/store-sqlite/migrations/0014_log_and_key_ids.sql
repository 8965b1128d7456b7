-- What a notary has answered to a request. 0: committed; 1: it was committed before; 2: conflict; 3: too late; 4: too early;
-- nothing of one that an older version has logged. And the states that kept it from being committed: how many, and the first of
-- them.
ALTER TABLE notary_request ADD COLUMN answered INTEGER CHECK (answered BETWEEN 0 AND 4);
ALTER TABLE notary_request ADD COLUMN conflicting INTEGER;
ALTER TABLE notary_request ADD COLUMN conflicts BLOB;
-- Times of one notary never fall, so rows of this index come at its end. With it those that were committed are found as well,
-- because it is known when that was; the others of a transaction have an index of their own.
CREATE INDEX notary_request_at ON notary_request (identity, at, number);
CREATE INDEX notary_request_id ON notary_request (identity, id, at, number) WHERE answered IS NOT 0;

-- The external ids of keys that an identity has made for them.
CREATE TABLE key_external_id (
    identity    INTEGER NOT NULL,
    -- SHA-256 of the key.
    id          BLOB NOT NULL,
    external_id TEXT NOT NULL,
    at          INTEGER NOT NULL,
    PRIMARY KEY (identity, id)
) WITHOUT ROWID;
CREATE INDEX key_external_id_keys ON key_external_id (identity, external_id, id);
