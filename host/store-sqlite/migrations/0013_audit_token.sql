-- The id of the token with which whoever called has logged in, or tried to.
ALTER TABLE audit ADD COLUMN token TEXT;
