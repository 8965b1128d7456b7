-- Vaults are read in the order of the times of recording. A part of each ledger, as the tables of 0003.
CREATE INDEX vault_state_recorded ON maxhost.vault_state (identity, recorded);

-- Which fields the states of a type have together: names with rows in vault_field, in order, each with a dot behind it. So
-- types of which no state lacks a field are known without looking at their states.
CREATE TABLE maxhost.vault_shape (
    identity bigint NOT NULL,
    type     text COLLATE "C" NOT NULL,
    -- SHA-256 of the fields, which may be too long for an index.
    digest   bytea NOT NULL,
    fields   text NOT NULL,
    PRIMARY KEY (identity, type, digest)
);
INSERT INTO maxhost.vault_shape (identity, type, digest, fields)
SELECT DISTINCT known.identity, known.type, sha256(convert_to(known.fields, 'UTF8')), known.fields
FROM (SELECT s.identity, s.type,
             coalesce((SELECT string_agg(f.name || '.', '' ORDER BY f.name) FROM maxhost.vault_field f
                       WHERE f.identity = s.identity AND f.state = s.number), '') AS fields
      FROM maxhost.vault_state s) known;
