-- What reports read (docs/ledger.md): these views keep their columns when the tables beneath change. Times are texts in UTC,
-- ids are hexadecimal.
CREATE VIEW report_state AS
SELECT i.name AS identity,
       lower(hex(s.tx)) || ':' || s.idx AS ref,
       s.type AS type,
       CASE WHEN s.consumed_by IS NULL THEN 'unconsumed' ELSE 'consumed' END AS status,
       s.relevant AS relevant,
       s.notary AS notary,
       s.constraint_kind AS constraint_kind,
       strftime('%Y-%m-%dT%H:%M:%fZ', s.recorded / 1000000000.0, 'unixepoch') AS recorded,
       strftime('%Y-%m-%dT%H:%M:%fZ', s.consumed / 1000000000.0, 'unixepoch') AS consumed,
       lower(hex(s.consumed_by)) AS consumed_by,
       s.linear_id AS linear_id,
       s.token AS token,
       s.issuer AS issuer,
       s.quantity AS quantity,
       s.lock_holder AS lock_holder,
       strftime('%Y-%m-%dT%H:%M:%fZ', s.lock_until / 1000000000.0, 'unixepoch') AS lock_until
FROM vault_state s JOIN identity i ON i.id = s.identity;

CREATE VIEW report_transaction AS
SELECT i.name AS identity,
       lower(hex(t.id)) AS id,
       CASE t.status WHEN 0 THEN 'unverified' WHEN 1 THEN 'in-flight' ELSE 'verified' END AS status,
       CASE t.kind WHEN 0 THEN 'ordinary' ELSE 'notary-change' END AS kind,
       strftime('%Y-%m-%dT%H:%M:%fZ', t.recorded / 1000000000.0, 'unixepoch') AS recorded
FROM ledger_tx t JOIN identity i ON i.id = t.identity;

CREATE VIEW report_notarised AS
SELECT i.name AS identity,
       lower(hex(n.id)) AS id,
       CASE WHEN n.batch IS NULL THEN 'too-late' ELSE 'committed' END AS verdict,
       n.batch AS batch,
       strftime('%Y-%m-%dT%H:%M:%fZ', n.at / 1000000000.0, 'unixepoch') AS at
FROM notary_tx n JOIN identity i ON i.id = n.identity;
