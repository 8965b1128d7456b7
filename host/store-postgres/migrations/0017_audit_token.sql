-- The id of the token with which whoever called has logged in, or tried to.
ALTER TABLE maxhost.audit ADD COLUMN token text;
