-- Vaults are read in the order of the times of recording. The condition is true of every state: statements that do not say it
-- do not take this index, which SQLite would do where it knows no more than the identity.
CREATE INDEX vault_state_recorded ON vault_state (identity, recorded) WHERE idx >= 0;

-- Which fields the states of a type have together: names with rows in vault_field, in order, each with a dot behind it. So
-- types of which no state lacks a field are known without looking at their states.
CREATE TABLE vault_shape (
    identity INTEGER NOT NULL,
    type     TEXT NOT NULL,
    fields   TEXT NOT NULL,
    PRIMARY KEY (identity, type, fields)
) WITHOUT ROWID;
INSERT INTO vault_shape (identity, type, fields)
SELECT DISTINCT s.identity, s.type,
       coalesce((SELECT group_concat(f.name || '.', '' ORDER BY f.name) FROM vault_field f WHERE f.state = s.number), '')
FROM vault_state s;
