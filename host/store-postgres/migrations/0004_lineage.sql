-- Tells this database from others.

ALTER TABLE maxhost.database ADD COLUMN id bigint NOT NULL DEFAULT floor(random() * 4.6e18)::bigint;
