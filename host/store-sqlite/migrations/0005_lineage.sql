-- Tells this database from others.

INSERT INTO meta (key, value) VALUES ('database', (random() >> 1) & 0x3fffffffffffffff);
