-- What a notary has answered to a request. 0: committed; 1: it was committed before; 2: conflict; 3: too late; 4: too early;
-- nothing of one that an older version has logged. And the states that kept it from being committed: how many, and the first of
-- them.
ALTER TABLE maxhost.notary_request ADD COLUMN answered smallint CHECK (answered BETWEEN 0 AND 4);
ALTER TABLE maxhost.notary_request ADD COLUMN conflicting bigint;
ALTER TABLE maxhost.notary_request ADD COLUMN conflicts bytea;
-- Times of one notary never fall, so rows of this index come at its end. With it those that were committed are found as well,
-- because it is known when that was; the others of a transaction have an index of their own.
CREATE INDEX notary_request_at ON maxhost.notary_request (identity, at, number);
CREATE INDEX notary_request_id ON maxhost.notary_request (identity, id, at, number)
    WHERE answered IS DISTINCT FROM 0;

-- The external ids of keys that an identity has made for them.
CREATE TABLE maxhost.key_external_id (
    identity    bigint NOT NULL,
    -- SHA-256 of the key.
    id          bytea NOT NULL,
    external_id text NOT NULL,
    at          bigint NOT NULL,
    PRIMARY KEY (identity, id)
);
CREATE INDEX key_external_id_keys ON maxhost.key_external_id (identity, external_id, id);
