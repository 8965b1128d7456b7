-- Who did what, or was refused it. Rows of each class (0: looks and refusals, 1: changes) have numbers of their own, so that
-- how many there are is told by the highest number.
CREATE TABLE maxhost.audit (
    class    smallint NOT NULL CHECK (class BETWEEN 0 AND 1),
    number   bigint NOT NULL,
    -- Which run has written it, as its how manieth.
    run      bigint NOT NULL,
    seq      bigint NOT NULL,
    -- When it was written, in the time that hosts have run.
    lived    bigint NOT NULL,
    -- When it happened, ms since 1970.
    at       bigint NOT NULL,
    host     text NOT NULL,
    "user"   text COLLATE "C" NOT NULL,
    action   text NOT NULL,
    identity text COLLATE "C",
    flow     text,
    flow_id  text,
    detail   text,
    allowed  boolean NOT NULL,
    code     text,
    count    bigint NOT NULL,
    PRIMARY KEY (class, number)
);
CREATE UNIQUE INDEX audit_once ON maxhost.audit (run, seq);
CREATE INDEX audit_at ON maxhost.audit (at, class, number);

-- Numbers of rows, given out by whoever writes them, in his transaction.
INSERT INTO maxhost.number (kind, next) VALUES ('audit-look', 1), ('audit-change', 1);
