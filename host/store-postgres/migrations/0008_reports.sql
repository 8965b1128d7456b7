-- What reports read (docs/ledger.md): these views keep their columns when the tables beneath change. A part of each ledger, as
-- the tables of 0003. Quoted, the name of the common schema stands for itself in the schema of an identity too. Ids are
-- hexadecimal.
CREATE VIEW maxhost.report_state AS
SELECT i.name AS identity,
       encode(s.tx, 'hex') || ':' || s.idx AS ref,
       s.type AS type,
       CASE WHEN s.consumed_by IS NULL THEN 'unconsumed' ELSE 'consumed' END AS status,
       s.relevant = 1 AS relevant,
       s.notary AS notary,
       s.constraint_kind AS constraint_kind,
       to_timestamp(s.recorded / 1000000000.0) AS recorded,
       to_timestamp(s.consumed / 1000000000.0) AS consumed,
       encode(s.consumed_by, 'hex') AS consumed_by,
       s.linear_id AS linear_id,
       s.token AS token,
       s.issuer AS issuer,
       s.quantity AS quantity,
       s.lock_holder AS lock_holder,
       to_timestamp(s.lock_until / 1000000000.0) AS lock_until
FROM maxhost.vault_state s JOIN "maxhost".identity i ON i.id = s.identity;

CREATE VIEW maxhost.report_transaction AS
SELECT i.name AS identity,
       encode(t.id, 'hex') AS id,
       CASE t.status WHEN 0 THEN 'unverified' WHEN 1 THEN 'in-flight' ELSE 'verified' END AS status,
       CASE t.kind WHEN 0 THEN 'ordinary' ELSE 'notary-change' END AS kind,
       to_timestamp(t.recorded / 1000000000.0) AS recorded
FROM maxhost.ledger_tx t JOIN "maxhost".identity i ON i.id = t.identity;

CREATE VIEW maxhost.report_notarised AS
SELECT i.name AS identity,
       encode(n.id, 'hex') AS id,
       CASE WHEN n.batch IS NULL THEN 'too-late' ELSE 'committed' END AS verdict,
       n.batch AS batch,
       to_timestamp(n.at / 1000000000.0) AS at
FROM maxhost.notary_tx n JOIN "maxhost".identity i ON i.id = n.identity;
