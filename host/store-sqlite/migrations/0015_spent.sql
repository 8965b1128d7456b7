-- From here on a state of a vault says itself what has consumed it, and ledger_spent has only what no vault has. An older host would
-- look there alone, so it must not open a file that was written so. Nothing that is there changes.
SELECT 1;
