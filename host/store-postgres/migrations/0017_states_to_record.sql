-- While a transaction is in flight: which of its states come into the vault when it is settled. 0: none; 1: one's own; 2: all.
-- Nothing stands for one's own. A part of each ledger, as the tables of 0003.
ALTER TABLE maxhost.ledger_tx ADD COLUMN states smallint CHECK (states BETWEEN 0 AND 2);
