-- Messages of the broker that could not be taken for a reason that stays: counted, and put aside with their bytes once they were
-- tried often enough. `since` and `latest` are ms since 1970.
CREATE TABLE maxhost.untaken (
    identity   bigint NOT NULL,
    message_id bytea NOT NULL,
    since      bigint NOT NULL,
    latest     bigint NOT NULL,
    tries      bigint NOT NULL,
    sender     text NOT NULL,
    reason     text NOT NULL,
    body       bytea,
    PRIMARY KEY (identity, message_id)
);
