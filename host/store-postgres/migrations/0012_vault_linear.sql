-- Pointers of states lead to the newest state of a linear id. A part of each ledger, as the tables of 0003.
CREATE INDEX vault_state_linear ON maxhost.vault_state (identity, linear_id)
    WHERE linear_id IS NOT NULL AND consumed_by IS NULL;
