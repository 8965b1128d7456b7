-- Who did what, or was refused it. Rows of each class (0: looks and refusals, 1: changes) have numbers of their own, so that
-- how many there are is told by the highest number.
CREATE TABLE audit (
    class    INTEGER NOT NULL CHECK (class BETWEEN 0 AND 1),
    number   INTEGER NOT NULL,
    -- Which run has written it, as its how manieth.
    run      INTEGER NOT NULL,
    seq      INTEGER NOT NULL,
    -- When it was written, in the time that hosts have run.
    lived    INTEGER NOT NULL,
    -- When it happened, ms since 1970.
    at       INTEGER NOT NULL,
    host     TEXT NOT NULL,
    user     TEXT NOT NULL,
    action   TEXT NOT NULL,
    identity TEXT,
    flow     TEXT,
    flow_id  TEXT,
    detail   TEXT,
    allowed  INTEGER NOT NULL CHECK (allowed BETWEEN 0 AND 1),
    code     TEXT,
    count    INTEGER NOT NULL,
    PRIMARY KEY (class, number)
) WITHOUT ROWID;
CREATE UNIQUE INDEX audit_once ON audit (run, seq);
CREATE INDEX audit_at ON audit (at, class, number);
