-- Which identities have a ledger in a schema of their own: the last of the migrations of ledgers that it has, 0 for none.
-- A ledger is made when its identity first uses it, so that those without one cost no tables.
ALTER TABLE maxhost.identity ADD COLUMN ledger bigint NOT NULL DEFAULT 0;
