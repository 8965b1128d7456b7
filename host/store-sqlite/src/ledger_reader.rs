//! Reads of ledgers.

use std::collections::HashSet;

use async_trait::async_trait;
use bytes::Bytes;
use futures::TryStreamExt;
use maxhost_ledger::notary::Outcome;
use maxhost_ledger::time::Timestamp;
use maxhost_ledger::tx::StateRef;
use maxhost_ledger::vault::query::StatusFilter;
use maxhost_ledger::vault::recording::TransactionStatus;
use maxhost_model::{IdentityRow, SecureHash};
use maxhost_store::ledger::codec::{status_number, time};
use maxhost_store::ledger::query::integer;
use maxhost_store::ledger::{
    Attachment, Consumption, Having, HeldLock, KeptAttachment, KnownKey, LedgerReader, LedgerTransaction,
    ListAttachments, ListRequests, ListTransactions, LoggedRequest, NotaryCounts, PageRequest, RequestPage,
    RequestPlace, Slice, SqlCriteria, SqlDialect, SqlValue, Unsettled, VaultChangeRow, VaultRow, VaultShape,
};
use maxhost_store::{PAGE_BYTES, StoreError};
use maxhost_store_sql::columns::{bytes, column, hash_at, sequence};
use maxhost_store_sql::ledger::{
    STATE_COLUMNS, attachment, consumption, held_lock, kept_attachment, key_external_id, known_key, notary_counts,
    slice_key, spent, state_reference, transaction, transaction_status, unsettled, vault_row, vault_shape,
};
use sqlx::sqlite::{SqliteArguments, SqliteRow};
use sqlx::{Arguments, QueryBuilder, Sqlite};

use crate::SqliteStore;
use crate::ledger_points::{self as points, Point};
use crate::point_reads::MOST_ROWS;
use crate::reader::failed;

/// How many keys one statement asks for.
const KEYS_AT_ONCE: usize = 500;

/// By linear id: the sign keeps SQLite from going through all states of the type.
const NEWEST_LINEAR: &str = "SELECT tx, idx FROM vault_state WHERE identity = ?1 AND linear_id = ?2 AND +type = ?3 \
                             AND consumed_by IS NULL ORDER BY number DESC LIMIT 1";

/// References as SQL can take any number of them: `[["id in hex", index], …]`.
fn json(states: &[StateRef]) -> String {
    let pairs: Vec<String> = states.iter().map(|state| format!("[\"{}\",{}]", state.tx, state.index)).collect();
    format!("[{}]", pairs.join(","))
}

/// Ids as SQL can take any number of them: `["id in hex", …]`.
fn json_ids(ids: &[SecureHash]) -> String {
    let ids: Vec<String> = ids.iter().map(|id| format!("\"{id}\"")).collect();
    format!("[{}]", ids.join(","))
}

fn arguments(values: Vec<SqlValue>) -> Result<SqliteArguments, StoreError> {
    let mut arguments = SqliteArguments::default();
    for value in values {
        let added = match value {
            SqlValue::Integer(number) => arguments.add(number),
            SqlValue::Text(text) => arguments.add(text),
            SqlValue::Bytes(bytes) => arguments.add(bytes),
        };
        added.map_err(|error| failed(sqlx::Error::Encode(error)))?;
    }
    Ok(arguments)
}

impl SqliteStore {
    async fn counted(&self, SqlCriteria { sql, values, .. }: SqlCriteria) -> Result<u32, StoreError> {
        let sql = format!("SELECT count(*) FROM {sql}");
        let query = sqlx::query_with::<Sqlite, _>(sqlx::AssertSqlSafe(sql), arguments(values)?);
        let row = query.persistent(false).fetch_one(self.pool()).await.map_err(failed)?;
        sequence(&row, 0, "vault_state")
    }

    async fn states_of_change(
        &self,
        identity: IdentityRow,
        change: &'static str,
        number: i64,
        now: Timestamp,
    ) -> Result<Vec<VaultRow>, StoreError> {
        let sql = format!(
            "SELECT {STATE_COLUMNS} FROM vault_state s WHERE s.identity = ?1 AND s.{change} = ?2 ORDER BY s.tx, s.idx"
        );
        let query = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(identity.0).bind(number);
        let rows = query.fetch_all(self.pool()).await.map_err(failed)?;
        rows.iter().map(|row| vault_row(row, now)).collect()
    }
}

#[async_trait]
impl LedgerReader for SqliteStore {
    fn keeps_ledgers(&self) -> bool {
        true
    }

    async fn ledger_transaction(
        &self,
        identity: IdentityRow,
        id: &SecureHash,
    ) -> Result<Option<LedgerTransaction>, StoreError> {
        if let Some(found) = self.points().read(|conn| points::transaction(conn, identity, id)) {
            match found {
                Point::None => return Ok(None),
                Point::Small(found) => return Ok(Some(found)),
                Point::Large => {}
            }
        }
        let sql = "SELECT number, id, status, kind, recorded, signatures, (SELECT body FROM ledger_body WHERE tx = number) \
                   FROM ledger_tx WHERE identity = ?1 AND id = ?2";
        let query = sqlx::query(sql).bind(identity.0).bind(&id.as_bytes()[..]);
        let found = query.fetch_optional(self.pool()).await.map_err(failed)?;
        found.as_ref().map(transaction).transpose()
    }

    async fn ledger_transactions(
        &self,
        identity: IdentityRow,
        list: &ListTransactions,
    ) -> Result<Vec<LedgerTransaction>, StoreError> {
        let sql = "SELECT number, id, status, kind, recorded, x'', NULL FROM ledger_tx WHERE identity = ?1 \
                   AND number < ?2 AND (?3 IS NULL OR status = ?3) ORDER BY number DESC LIMIT ?4";
        let query = sqlx::query(sql)
            .bind(identity.0)
            .bind(list.before.unwrap_or(i64::MAX))
            .bind(list.status.map(status_number))
            .bind(list.limit);
        let rows = query.fetch_all(self.pool()).await.map_err(failed)?;
        rows.iter().map(transaction).collect()
    }

    async fn unsettled(&self, identity: IdentityRow, limit: u32) -> Result<Vec<Unsettled>, StoreError> {
        let sql = "SELECT id, part, states FROM ledger_tx WHERE identity = ?1 AND status < 2 AND status = 1 \
                   AND (flow IS NULL OR NOT EXISTS (SELECT 1 FROM flow WHERE flow.id = ledger_tx.flow)) \
                   ORDER BY number LIMIT ?2";
        let rows = sqlx::query(sql).bind(identity.0).bind(limit).fetch_all(self.pool()).await.map_err(failed)?;
        rows.iter().map(unsettled).collect()
    }

    async fn with_unsettled(&self, identities: &[IdentityRow]) -> Result<Vec<IdentityRow>, StoreError> {
        let sql = "SELECT DISTINCT identity FROM ledger_tx WHERE status < 2 AND status = 1 \
                   AND (flow IS NULL OR NOT EXISTS (SELECT 1 FROM flow WHERE flow.id = ledger_tx.flow))";
        let rows = sqlx::query(sql).fetch_all(self.pool()).await.map_err(failed)?;
        let read = |row: &SqliteRow| column(row, 0, "ledger_tx").map(IdentityRow);
        let found: HashSet<IdentityRow> = rows.iter().map(read).collect::<Result<_, _>>()?;
        Ok(identities.iter().copied().filter(|identity| found.contains(identity)).collect())
    }

    async fn parents(&self, identity: IdentityRow, id: &SecureHash) -> Result<Vec<SecureHash>, StoreError> {
        let sql = "SELECT parent FROM ledger_parent WHERE tx = (SELECT number FROM ledger_tx WHERE identity = ?1 AND id = ?2) \
                   ORDER BY parent";
        let query = sqlx::query(sql).bind(identity.0).bind(&id.as_bytes()[..]);
        let rows = query.fetch_all(self.pool()).await.map_err(failed)?;
        rows.iter().map(|row| hash_at(row, 0, "ledger_parent")).collect()
    }

    async fn ledger_statuses(
        &self,
        identity: IdentityRow,
        ids: &[SecureHash],
    ) -> Result<Vec<(SecureHash, TransactionStatus)>, StoreError> {
        if ids.len() <= MOST_ROWS
            && let Some(found) = self.points().read(|conn| points::statuses(conn, identity, ids))
        {
            return Ok(found);
        }
        let sql = "SELECT t.id, t.status FROM json_each(?2) AS asked CROSS JOIN ledger_tx t \
                   ON t.identity = ?1 AND t.id = unhex(asked.value) ORDER BY asked.key";
        let rows =
            sqlx::query(sql).bind(identity.0).bind(json_ids(ids)).fetch_all(self.pool()).await.map_err(failed)?;
        rows.iter().map(transaction_status).collect()
    }

    async fn ledger_bodies(
        &self,
        identity: IdentityRow,
        ids: &[SecureHash],
        bytes: usize,
    ) -> Result<Vec<LedgerTransaction>, StoreError> {
        // Sizes are added up first: what does not fit is not read.
        let sql = "WITH asked AS MATERIALIZED (SELECT asked.key AS place, t.number AS number, \
                       length(b.body) + length(t.signatures) AS size FROM json_each(?2) AS asked \
                       CROSS JOIN ledger_tx t ON t.identity = ?1 AND t.id = unhex(asked.value) \
                       CROSS JOIN ledger_body b ON b.tx = t.number), \
                   summed AS MATERIALIZED (SELECT place, number, size, sum(size) OVER (ORDER BY place) AS total FROM asked) \
                   SELECT t.number, t.id, t.status, t.kind, t.recorded, t.signatures, b.body FROM summed s \
                   CROSS JOIN ledger_tx t ON t.number = s.number CROSS JOIN ledger_body b ON b.tx = s.number \
                   WHERE s.total <= ?3 OR s.total = s.size ORDER BY s.place";
        let most = i64::try_from(bytes).unwrap_or(i64::MAX);
        let query = sqlx::query(sql).bind(identity.0).bind(json_ids(ids)).bind(most);
        query.fetch_all(self.pool()).await.map_err(failed)?.iter().map(transaction).collect()
    }

    async fn ledger_ancestors(
        &self,
        identity: IdentityRow,
        of: &[SecureHash],
        limit: u32,
    ) -> Result<Vec<SecureHash>, StoreError> {
        // The rows of a recursion are a queue: what is found first is looked at first.
        let sql = "WITH RECURSIVE walk (number, id) AS (SELECT t.number, t.id FROM json_each(?2) AS asked \
                       CROSS JOIN ledger_tx t ON t.identity = ?1 AND t.id = unhex(asked.value) \
                       UNION SELECT t.number, t.id FROM walk CROSS JOIN ledger_parent p ON p.tx = walk.number \
                       CROSS JOIN ledger_tx t ON t.identity = ?1 AND t.id = p.parent LIMIT ?3) \
                   SELECT id FROM walk";
        let query = sqlx::query(sql).bind(identity.0).bind(json_ids(of)).bind(limit);
        query.fetch_all(self.pool()).await.map_err(failed)?.iter().map(|row| hash_at(row, 0, "ledger_tx")).collect()
    }

    async fn parents_of(&self, identity: IdentityRow, ids: &[SecureHash]) -> Result<Vec<SecureHash>, StoreError> {
        let sql = "SELECT DISTINCT p.parent FROM json_each(?2) AS asked CROSS JOIN ledger_tx t \
                   ON t.identity = ?1 AND t.id = unhex(asked.value) CROSS JOIN ledger_parent p ON p.tx = t.number";
        let query = sqlx::query(sql).bind(identity.0).bind(json_ids(ids));
        query.fetch_all(self.pool()).await.map_err(failed)?.iter().map(|row| hash_at(row, 0, "ledger_parent")).collect()
    }

    async fn newest_linear(
        &self,
        identity: IdentityRow,
        type_name: &str,
        linear_id: &str,
    ) -> Result<Option<StateRef>, StoreError> {
        let query = sqlx::query(NEWEST_LINEAR).bind(identity.0).bind(linear_id).bind(type_name);
        let row = query.fetch_optional(self.pool()).await.map_err(failed)?;
        row.as_ref().map(state_reference).transpose()
    }

    async fn spent_by(
        &self,
        identity: IdentityRow,
        states: &[StateRef],
    ) -> Result<Vec<(StateRef, SecureHash)>, StoreError> {
        if states.len() <= MOST_ROWS
            && let Some(found) = self.points().read(|conn| points::spent_by(conn, identity, states))
        {
            return Ok(found);
        }
        // A state of the vault says itself what has consumed it.
        let sql = "WITH asked AS MATERIALIZED (SELECT key, unhex(value ->> 0) AS tx, value ->> 1 AS idx FROM json_each(?2)), \
                   found AS MATERIALIZED (SELECT key, tx, idx, coalesce( \
                       (SELECT s.consumed_by FROM vault_state s WHERE s.identity = ?1 AND s.tx = asked.tx AND s.idx = asked.idx), \
                       (SELECT p.consumed_by FROM ledger_spent p WHERE p.identity = ?1 AND p.tx = asked.tx AND p.idx = asked.idx) \
                   ) AS consumer FROM asked) \
                   SELECT tx, idx, consumer FROM found WHERE consumer IS NOT NULL ORDER BY key";
        let query = sqlx::query(sql).bind(identity.0).bind(json(states));
        let rows = query.fetch_all(self.pool()).await.map_err(failed)?;
        rows.iter().map(spent).collect()
    }

    async fn vault_candidates(
        &self,
        identity: IdentityRow,
        request: &PageRequest<'_>,
    ) -> Result<Vec<VaultRow>, StoreError> {
        let SqlCriteria { sql, values, .. } = SqlCriteria::page(identity, request, SqlDialect::sqlite());
        let sql = format!("SELECT {STATE_COLUMNS} FROM {sql}");
        let query = sqlx::query_with::<Sqlite, _>(sqlx::AssertSqlSafe(sql), arguments(values)?);
        // Statements differ from query to query: kept, they would only fill the cache. Rows are read one by one, because only
        // then it is clear how large they are.
        let mut rows = query.persistent(false).fetch(self.pool());
        let (mut found, mut bytes) = (Vec::new(), 0);
        while bytes < PAGE_BYTES
            && let Some(row) = rows.try_next().await.map_err(failed)?
        {
            let row = vault_row(&row, request.now)?;
            bytes += row.bytes();
            found.push(row);
        }
        Ok(found)
    }

    async fn count_of(&self, identity: IdentityRow, having: &Having, most: u32) -> Result<u32, StoreError> {
        self.counted(SqlCriteria::count(identity, having, most, SqlDialect::sqlite())).await
    }

    async fn count_of_states(
        &self,
        identity: IdentityRow,
        status: StatusFilter,
        types: Option<&[String]>,
        most: u32,
    ) -> Result<u32, StoreError> {
        self.counted(SqlCriteria::count_states(identity, status, types, most, SqlDialect::sqlite())).await
    }

    async fn vault_key_at(
        &self,
        identity: IdentityRow,
        slice: &Slice,
        place: u32,
    ) -> Result<Option<SqlValue>, StoreError> {
        let SqlCriteria { sql, values, .. } = SqlCriteria::key_at(identity, slice, place, SqlDialect::sqlite());
        let query = sqlx::query_with::<Sqlite, _>(sqlx::AssertSqlSafe(sql), arguments(values)?);
        let row = query.persistent(false).fetch_optional(self.pool()).await.map_err(failed)?;
        row.as_ref().map(|row| slice_key(row, &slice.of)).transpose()
    }

    async fn vault_shapes(&self, identity: IdentityRow, limit: u32) -> Result<Vec<VaultShape>, StoreError> {
        let sql = "SELECT type, fields FROM vault_shape WHERE identity = ?1 ORDER BY type, fields LIMIT ?2";
        let rows = sqlx::query(sql).bind(identity.0).bind(limit).fetch_all(self.pool()).await.map_err(failed)?;
        rows.iter().map(vault_shape).collect()
    }

    async fn newest_change(&self, identity: IdentityRow) -> Result<i64, StoreError> {
        let sql = "SELECT coalesce(max(number), 0) FROM vault_change WHERE identity = ?1";
        let row = sqlx::query(sql).bind(identity.0).fetch_one(self.pool()).await.map_err(failed)?;
        column(&row, 0, "vault_change")
    }

    async fn vault_changes(
        &self,
        identity: IdentityRow,
        after: i64,
        limit: u32,
        now: Timestamp,
    ) -> Result<Vec<VaultChangeRow>, StoreError> {
        const T: &str = "vault_change";
        let sql =
            "SELECT number, tx, at FROM vault_change WHERE identity = ?1 AND number > ?2 ORDER BY number LIMIT ?3";
        let query = sqlx::query(sql).bind(identity.0).bind(after).bind(limit);
        let rows = query.fetch_all(self.pool()).await.map_err(failed)?;
        let (mut changes, mut bytes) = (Vec::with_capacity(rows.len()), 0);
        for row in &rows {
            if bytes >= PAGE_BYTES {
                break;
            }
            let number: i64 = column(row, 0, T)?;
            let change = VaultChangeRow {
                number,
                transaction: hash_at(row, 1, T)?,
                at: time(column(row, 2, T)?),
                produced: self.states_of_change(identity, "change_in", number, now).await?,
                consumed: self.states_of_change(identity, "change_out", number, now).await?,
            };
            bytes += change.produced.iter().chain(&change.consumed).map(VaultRow::bytes).sum::<usize>();
            changes.push(change);
        }
        Ok(changes)
    }

    async fn locks(
        &self,
        identity: IdentityRow,
        after: Option<StateRef>,
        limit: u32,
        now: Timestamp,
    ) -> Result<Vec<HeldLock>, StoreError> {
        let sql = "SELECT tx, idx, lock_holder, lock_until FROM vault_state WHERE identity = ?1 AND lock_until > ?2 \
                   AND lock_flow IS NOT NULL AND (tx, idx) > (?3, ?4) ORDER BY tx, idx LIMIT ?5";
        let (tx, index) = after.map_or((Vec::new(), 0), |state| (state.tx.as_bytes().to_vec(), state.index));
        let query = sqlx::query(sql).bind(identity.0).bind(integer(now)).bind(tx).bind(index).bind(limit);
        let rows = query.fetch_all(self.pool()).await.map_err(failed)?;
        rows.iter().map(held_lock).collect()
    }

    async fn attachment(&self, identity: IdentityRow, id: &SecureHash) -> Result<Option<Attachment>, StoreError> {
        let sql = "SELECT id, uploader, at, body FROM attachment WHERE identity = ?1 AND id = ?2";
        let query = sqlx::query(sql).bind(identity.0).bind(&id.as_bytes()[..]);
        let found = query.fetch_optional(self.pool()).await.map_err(failed)?;
        found.as_ref().map(attachment).transpose()
    }

    async fn attachments(
        &self,
        identity: IdentityRow,
        list: &ListAttachments,
    ) -> Result<Vec<KeptAttachment>, StoreError> {
        let sql = "SELECT id, uploader, at, length(body), coalesce(substr(body, 1, 4), x'') FROM attachment WHERE identity = ?1 \
                   AND id > ?2 AND (?3 IS NULL OR id = ?3) ORDER BY id LIMIT ?4";
        let query = sqlx::query(sql)
            .bind(identity.0)
            .bind(list.after.map_or_else(Vec::new, |id| id.as_bytes().to_vec()))
            .bind(list.only.map(|id| id.as_bytes().to_vec()))
            .bind(list.limit);
        let rows = query.fetch_all(self.pool()).await.map_err(failed)?;
        rows.iter().map(kept_attachment).collect()
    }

    async fn kept_parameters(&self, identity: IdentityRow, hash: &SecureHash) -> Result<Option<Bytes>, StoreError> {
        let sql = "SELECT body FROM network_parameters WHERE identity = ?1 AND hash = ?2";
        let query = sqlx::query(sql).bind(identity.0).bind(&hash.as_bytes()[..]);
        let found = query.fetch_optional(self.pool()).await.map_err(failed)?;
        found.as_ref().map(|row| bytes(row, 0, "network_parameters")).transpose()
    }

    async fn known_keys(
        &self,
        identity: IdentityRow,
        fingerprints: &[SecureHash],
    ) -> Result<Vec<KnownKey>, StoreError> {
        let mut found = Vec::new();
        for chunk in fingerprints.chunks(KEYS_AT_ONCE) {
            let mut query = QueryBuilder::new("SELECT key, party, nonce, at FROM ledger_key WHERE identity = ");
            query.push_bind(identity.0).push(" AND id IN (");
            let mut list = query.separated(", ");
            for fingerprint in chunk {
                list.push_bind(&fingerprint.as_bytes()[..]);
            }
            query.push(")");
            let rows = query.build().persistent(chunk.len() == 1).fetch_all(self.pool()).await.map_err(failed)?;
            for row in &rows {
                found.push(known_key(row)?);
            }
        }
        Ok(found)
    }

    async fn key_external_ids(
        &self,
        identity: IdentityRow,
        fingerprints: &[SecureHash],
    ) -> Result<Vec<(SecureHash, String)>, StoreError> {
        let sql = "SELECT e.id, e.external_id FROM json_each(?2) AS asked CROSS JOIN key_external_id e \
                   ON e.identity = ?1 AND e.id = unhex(asked.value)";
        let query = sqlx::query(sql).bind(identity.0).bind(json_ids(fingerprints));
        let rows = query.fetch_all(self.pool()).await.map_err(failed)?;
        rows.iter().map(key_external_id).collect()
    }

    async fn keys_of_external_id(
        &self,
        identity: IdentityRow,
        external_id: &str,
        after: Option<SecureHash>,
        limit: u32,
    ) -> Result<Vec<KnownKey>, StoreError> {
        let sql = "SELECT k.key, k.party, k.nonce, k.at FROM key_external_id e CROSS JOIN ledger_key k \
                   ON k.identity = e.identity AND k.id = e.id \
                   WHERE e.identity = ?1 AND e.external_id = ?2 AND e.id > ?3 ORDER BY e.id LIMIT ?4";
        let after = after.map_or_else(Vec::new, |id| id.as_bytes().to_vec());
        let query = sqlx::query(sql).bind(identity.0).bind(external_id).bind(after).bind(limit);
        let rows = query.fetch_all(self.pool()).await.map_err(failed)?;
        rows.iter().map(known_key).collect()
    }

    async fn notary_requests(&self, identity: IdentityRow, list: &ListRequests) -> Result<RequestPage, StoreError> {
        self.read_requests(identity, list).await
    }

    async fn notary_requests_of(
        &self,
        identity: IdentityRow,
        id: &SecureHash,
        limit: u32,
    ) -> Result<Vec<(RequestPlace, LoggedRequest)>, StoreError> {
        self.read_requests_of(identity, id, limit).await
    }

    async fn notary_outcome(&self, identity: IdentityRow, id: &SecureHash) -> Result<Option<Outcome>, StoreError> {
        self.read_outcome(identity, id).await
    }

    async fn notary_consumed(
        &self,
        identity: IdentityRow,
        states: &[StateRef],
    ) -> Result<Vec<Consumption>, StoreError> {
        let sql = "SELECT s.tx, s.idx, s.consumed_by, t.batch, t.at FROM json_each(?2) AS asked CROSS JOIN notary_state s \
                   ON s.identity = ?1 AND s.tx = unhex(asked.value ->> 0) AND s.idx = asked.value ->> 1 \
                   LEFT JOIN notary_tx t ON t.identity = s.identity AND t.id = s.consumed_by ORDER BY asked.key";
        let query = sqlx::query(sql).bind(identity.0).bind(json(states));
        let rows = query.fetch_all(self.pool()).await.map_err(failed)?;
        rows.iter().map(consumption).collect()
    }

    async fn notary_counts(&self, identity: IdentityRow) -> Result<Option<NotaryCounts>, StoreError> {
        let sql = "SELECT committed, conflicts, states FROM notary WHERE identity = ?1";
        let found = sqlx::query(sql).bind(identity.0).fetch_optional(self.pool()).await.map_err(failed)?;
        found.as_ref().map(notary_counts).transpose()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use rusqlite::Connection;

    use super::NEWEST_LINEAR;

    #[test]
    fn a_linear_id_is_looked_up_newest_first() {
        let conn = Connection::open_in_memory().unwrap();
        conn.execute_batch(include_str!("../migrations/0004_ledger.sql")).unwrap();
        let mut statement = conn.prepare(&format!("EXPLAIN QUERY PLAN {NEWEST_LINEAR}")).unwrap();
        let steps = statement.query_map([1, 1, 1], |row| row.get::<_, String>(3)).unwrap();
        let steps: Vec<String> = steps.map(Result::unwrap).collect();
        assert_eq!(steps, ["SEARCH vault_state USING INDEX vault_state_linear (identity=? AND linear_id=?)"]);
    }
}
