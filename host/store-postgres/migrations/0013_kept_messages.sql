-- Messages that the broker has confirmed, kept for a while, so that a broker that has lost what it had is given them again.
-- They are in a table of their own: whatever reads the outbox sees what is still to be sent, and nothing else.
CREATE TABLE maxhost.sent (
    -- The number of the marker that was seen in the broker before the message was sent.
    marker      bigint NOT NULL,
    -- In the order in which they came to be kept.
    number      bigint GENERATED ALWAYS AS IDENTITY,
    identity    bigint NOT NULL,
    destination text COLLATE "C" NOT NULL,
    message_id  bytea NOT NULL,
    body        bytea NOT NULL,
    kind        smallint NOT NULL CHECK (kind BETWEEN 0 AND 2),
    session     bigint,
    seq         bigint,
    -- When it came to be kept, in the time that hosts have run.
    at          bigint NOT NULL,
    PRIMARY KEY (marker, number)
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 5000);

ALTER TABLE maxhost.database
    -- The number of the present marker of the broker, in the first database; 0 if none was ever set.
    ADD COLUMN broker_marker bigint NOT NULL DEFAULT 0;
