//! Reads of ledgers. An identity that has none yet has no tables either: it is answered as one whose ledger is empty.

use std::collections::BTreeSet;

use async_trait::async_trait;
use bytes::Bytes;
use futures::TryStreamExt;
use maxhost_ledger::notary::Outcome;
use maxhost_ledger::refused::Refused;
use maxhost_ledger::rules::Rule;
use maxhost_ledger::time::Timestamp;
use maxhost_ledger::tx::StateRef;
use maxhost_ledger::vault::query::StatusFilter;
use maxhost_ledger::vault::recording::TransactionStatus;
use maxhost_model::{IdentityRow, SecureHash};
use maxhost_store::ledger::codec::{hash, status_number, time};
use maxhost_store::ledger::query::integer;
use maxhost_store::ledger::{
    Attachment, Consumption, Having, HeldLock, KeptAttachment, KnownKey, LedgerReader, LedgerTransaction,
    ListAttachments, ListRequests, ListTransactions, LoggedRequest, NotaryCounts, PageRequest, RequestPage,
    RequestPlace, Slice, SqlCriteria, SqlDialect, SqlValue, Unsettled, VaultChangeRow, VaultRow, VaultShape,
};
use maxhost_store::{PAGE_BYTES, StoreError};
use maxhost_store_sql::columns::{bytes, column, hash_at, sequence};
use maxhost_store_sql::ledger::{
    BEHIND_STATE, STATE_BODY, STATE_COLUMNS, attachment, held_lock, kept_attachment, known_key, notary_counts,
    slice_key, spent, state_reference, transaction, transaction_status, unsettled, vault_row, vault_shape,
};
use maxhost_store_sql::page_bytes;
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::{Arguments, AssertSqlSafe, Row};

use crate::error::failed;
use crate::ledger::place::Place;
use crate::ledger::tables::{KEYS, PARAMETERS, SHAPES};
use crate::open::PostgresStore;
use crate::options::Layout;
use crate::persist::persist;

pub(super) fn add<'a, T>(arguments: &mut PgArguments, value: T) -> Result<(), StoreError>
where
    T: sqlx::Encode<'a, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
{
    arguments.add(value).map_err(|error| failed(sqlx::Error::Encode(error)))
}

/// Values in their order; those of a page.
fn arguments(values: Vec<SqlValue>) -> Result<PgArguments, StoreError> {
    let mut arguments = PgArguments::default();
    for value in values {
        match value {
            SqlValue::Integer(number) => add(&mut arguments, number)?,
            // No state has such a text, and the server takes none: a cursor that has one is not from here.
            SqlValue::Text(text) if text.contains('\0') => {
                let refused = Refused::new(Rule::CursorInvalid, "the cursor has a NUL character in it");
                return Err(StoreError::Ledger(refused));
            }
            SqlValue::Text(text) => add(&mut arguments, text)?,
            SqlValue::Bytes(bytes) => add(&mut arguments, bytes)?,
        }
    }
    Ok(arguments)
}

/// States as columns: transactions, and their indices.
pub(super) fn references(states: &[StateRef]) -> (Vec<Vec<u8>>, Vec<i64>) {
    (
        states.iter().map(|state| state.tx.as_bytes().to_vec()).collect(),
        states.iter().map(|state| i64::from(state.index)).collect(),
    )
}

/// Ids as a column.
pub(super) fn columns_of(ids: &[SecureHash]) -> Vec<Vec<u8>> {
    ids.iter().map(|id| id.as_bytes().to_vec()).collect()
}

impl PostgresStore {
    fn dialect(&self, identity: IdentityRow) -> SqlDialect {
        SqlDialect::postgres(&Place::of(self.layout, identity).to_string())
    }

    async fn counted(
        &self,
        identity: IdentityRow,
        SqlCriteria { sql, values, .. }: SqlCriteria,
    ) -> Result<u32, StoreError> {
        let rows = self.ledger_rows(identity, &format!("SELECT count(*) FROM {sql}"), arguments(values)?).await?;
        rows.first().map_or(Ok(0), |row| sequence(row, 0, "vault_state"))
    }

    /// The rows of a statement about one ledger, in which `{place}` stands for its schema.
    async fn ledger_rows(
        &self,
        identity: IdentityRow,
        sql: &str,
        arguments: PgArguments,
    ) -> Result<Vec<PgRow>, StoreError> {
        self.rows_since(1, identity, sql, arguments).await
    }

    /// As [`PostgresStore::ledger_rows`], of tables or columns that ledgers have since a version: in one of an older version
    /// there are none.
    pub(super) async fn rows_since(
        &self,
        version: i64,
        identity: IdentityRow,
        sql: &str,
        arguments: PgArguments,
    ) -> Result<Vec<PgRow>, StoreError> {
        self.rows_within(version, identity, sql, arguments, None).await
    }

    /// As [`PostgresStore::rows_since`]. If the column of a body is named, no row comes behind [`PAGE_BYTES`] bytes of bodies.
    async fn rows_within(
        &self,
        version: i64,
        identity: IdentityRow,
        sql: &str,
        arguments: PgArguments,
        body: Option<usize>,
    ) -> Result<Vec<PgRow>, StoreError> {
        let sql = sql.replace("{place}", &Place::of(self.layout, identity).to_string());
        // Kept statements of many schemas would only fill the memory of the connections.
        let kept = self.layout == Layout::Shared;
        let query = || sqlx::query_with(AssertSqlSafe(sql.clone()), arguments.clone()).persistent(kept);
        let read = async || {
            let (mut rows, mut bytes) = (Vec::new(), 0);
            let mut read = query().fetch(&self.pool);
            while bytes < PAGE_BYTES
                && let Some(row) = read.try_next().await?
            {
                bytes += body.map_or(Ok(0), |body| row.try_get::<&[u8], _>(body).map(<[u8]>::len))?;
                rows.push(row);
            }
            Ok::<_, sqlx::Error>(rows)
        };
        match persist!(read()) {
            Err(sqlx::Error::Database(error))
                if error.code().is_some_and(|code| matches!(&*code, "42P01" | "42703" | "3F000")) =>
            {
                if !self.has_ledger(identity, version).await? {
                    return Ok(Vec::new());
                }
                // Another host has made it between the two looks.
                persist!(read()).map_err(failed)
            }
            rows => rows.map_err(failed),
        }
    }

    /// Whether an identity has tables of a ledger, of this version or a later one.
    async fn has_ledger(&self, identity: IdentityRow, version: i64) -> Result<bool, StoreError> {
        let sql = "SELECT EXISTS (SELECT FROM maxhost.identity WHERE id = $1 AND ledger >= $2)";
        let query = || sqlx::query_scalar(sql).bind(identity.0).bind(version);
        Ok(self.layout == Layout::Shared || persist!(query().fetch_one(&self.pool)).map_err(failed)?)
    }

    /// The states that came in with, or went by, changes from one number to another, with the number of each one's.
    async fn states_of_changes(
        &self,
        identity: IdentityRow,
        change: &'static str,
        numbers: (i64, i64),
        now: Timestamp,
    ) -> Result<Vec<(i64, VaultRow)>, StoreError> {
        let sql = format!(
            "SELECT {STATE_COLUMNS}, s.{change} FROM {{place}}.vault_state s \
             WHERE s.identity = $1 AND s.{change} >= $2 AND s.{change} <= $3 ORDER BY s.{change}, s.tx, s.idx"
        );
        let rows = self.ledger_rows(identity, &sql, values![identity.0, numbers.0, numbers.1]).await?;
        rows.iter().map(|row| Ok((column(row, BEHIND_STATE, "vault_state")?, vault_row(row, now)?))).collect()
    }
}

/// Takes the states of a change from the front of a list that stands in the order of changes.
fn taken(states: &mut std::iter::Peekable<impl Iterator<Item = (i64, VaultRow)>>, number: i64) -> Vec<VaultRow> {
    std::iter::from_fn(|| states.next_if(|(change, _)| *change <= number))
        .filter(|(change, _)| *change == number)
        .map(|(_, row)| row)
        .collect()
}

#[async_trait]
impl LedgerReader for PostgresStore {
    fn keeps_ledgers(&self) -> bool {
        true
    }

    async fn ledger_transaction(
        &self,
        identity: IdentityRow,
        id: &SecureHash,
    ) -> Result<Option<LedgerTransaction>, StoreError> {
        let sql = "SELECT number, id, status::int8, kind::int8, recorded, signatures, body FROM {place}.ledger_tx \
                   WHERE identity = $1 AND id = $2";
        let rows = self.ledger_rows(identity, sql, values![identity.0, &id.as_bytes()[..]]).await?;
        rows.first().map(transaction).transpose()
    }

    async fn ledger_transactions(
        &self,
        identity: IdentityRow,
        list: &ListTransactions,
    ) -> Result<Vec<LedgerTransaction>, StoreError> {
        let sql = "SELECT number, id, status::int8, kind::int8, recorded, ''::bytea, NULL::bytea \
                   FROM {place}.ledger_tx WHERE identity = $1 AND number < $2 AND ($3::int2 IS NULL OR status = $3) \
                   ORDER BY number DESC LIMIT $4";
        let values = values![
            identity.0,
            list.before.unwrap_or(i64::MAX),
            list.status.map(status_number),
            i64::from(list.limit),
        ];
        self.ledger_rows(identity, sql, values).await?.iter().map(transaction).collect()
    }

    async fn unsettled(&self, identity: IdentityRow, limit: u32) -> Result<Vec<Unsettled>, StoreError> {
        let sql = "SELECT id, part::int8, states::int8 FROM {place}.ledger_tx t WHERE identity = $1 AND status < 2 AND status = 1 \
                   AND (flow IS NULL OR NOT EXISTS (SELECT FROM maxhost.flow WHERE flow.id = t.flow)) \
                   ORDER BY number LIMIT $2";
        let rows = self.ledger_rows(identity, sql, values![identity.0, i64::from(limit)]).await?;
        rows.iter().map(unsettled).collect()
    }

    async fn parents(&self, identity: IdentityRow, id: &SecureHash) -> Result<Vec<SecureHash>, StoreError> {
        let sql = "SELECT parents FROM {place}.ledger_tx WHERE identity = $1 AND id = $2";
        let rows = self.ledger_rows(identity, sql, values![identity.0, &id.as_bytes()[..]]).await?;
        let Some(row) = rows.first() else { return Ok(Vec::new()) };
        let parents = column::<Option<Vec<u8>>>(row, 0, "ledger_tx")?.unwrap_or_default();
        parents.chunks(32).map(|parent| hash("ledger_tx", parent)).collect()
    }

    async fn ledger_statuses(
        &self,
        identity: IdentityRow,
        ids: &[SecureHash],
    ) -> Result<Vec<(SecureHash, TransactionStatus)>, StoreError> {
        let sql = "SELECT t.id, t.status::int8 FROM unnest($2::bytea[]) WITH ORDINALITY u (id, place) \
                   JOIN {place}.ledger_tx t ON t.identity = $1 AND t.id = u.id ORDER BY u.place";
        let rows = self.ledger_rows(identity, sql, values![identity.0, columns_of(ids)]).await?;
        rows.iter().map(transaction_status).collect()
    }

    async fn ledger_bodies(
        &self,
        identity: IdentityRow,
        ids: &[SecureHash],
        bytes: usize,
    ) -> Result<Vec<LedgerTransaction>, StoreError> {
        // Sizes are added up first: what does not fit is not read.
        let sql = "WITH asked AS MATERIALIZED (SELECT u.place, t.id, length(t.body) + length(t.signatures) AS size \
                       FROM unnest($2::bytea[]) WITH ORDINALITY u (id, place) \
                       JOIN {place}.ledger_tx t ON t.identity = $1 AND t.id = u.id WHERE t.body IS NOT NULL), \
                   summed AS (SELECT place, id, size, sum(size) OVER (ORDER BY place) AS total FROM asked) \
                   SELECT t.number, t.id, t.status::int8, t.kind::int8, t.recorded, t.signatures, t.body FROM summed s \
                   JOIN {place}.ledger_tx t ON t.identity = $1 AND t.id = s.id \
                   WHERE s.total <= $3 OR s.total = s.size ORDER BY s.place";
        let most = i64::try_from(bytes).unwrap_or(i64::MAX);
        let rows = self.ledger_rows(identity, sql, values![identity.0, columns_of(ids), most]).await?;
        rows.iter().map(transaction).collect()
    }

    async fn ledger_ancestors(
        &self,
        identity: IdentityRow,
        of: &[SecureHash],
        limit: u32,
    ) -> Result<Vec<SecureHash>, StoreError> {
        // A recursion goes level by level, and no further than rows are asked for.
        let sql = "WITH RECURSIVE walk AS (SELECT t.id, t.parents FROM unnest($2::bytea[]) WITH ORDINALITY u (id, place) \
                       JOIN {place}.ledger_tx t ON t.identity = $1 AND t.id = u.id \
                       UNION SELECT t.id, t.parents FROM walk \
                       CROSS JOIN generate_series(0, length(walk.parents) / 32 - 1) AS at \
                       JOIN {place}.ledger_tx t ON t.identity = $1 AND t.id = substring(walk.parents FROM at * 32 + 1 FOR 32)) \
                   SELECT id FROM walk LIMIT $3";
        let rows = self.ledger_rows(identity, sql, values![identity.0, columns_of(of), i64::from(limit)]).await?;
        rows.iter().map(|row| hash_at(row, 0, "ledger_tx")).collect()
    }

    async fn parents_of(&self, identity: IdentityRow, ids: &[SecureHash]) -> Result<Vec<SecureHash>, StoreError> {
        let sql = "SELECT t.parents FROM unnest($2::bytea[]) u (id) \
                   JOIN {place}.ledger_tx t ON t.identity = $1 AND t.id = u.id WHERE t.parents IS NOT NULL";
        let rows = self.ledger_rows(identity, sql, values![identity.0, columns_of(ids)]).await?;
        let mut parents = BTreeSet::new();
        for row in &rows {
            for parent in column::<Vec<u8>>(row, 0, "ledger_tx")?.chunks(32) {
                parents.insert(hash("ledger_tx", parent)?);
            }
        }
        Ok(parents.into_iter().collect())
    }

    async fn newest_linear(
        &self,
        identity: IdentityRow,
        type_name: &str,
        linear_id: &str,
    ) -> Result<Option<StateRef>, StoreError> {
        let sql = "SELECT tx, idx FROM {place}.vault_state WHERE identity = $1 AND linear_id = $2 AND type = $3 \
                   AND consumed_by IS NULL ORDER BY recorded DESC, number DESC LIMIT 1";
        let rows = self.ledger_rows(identity, sql, values![identity.0, linear_id, type_name]).await?;
        rows.first().map(state_reference).transpose()
    }

    async fn spent_by(
        &self,
        identity: IdentityRow,
        states: &[StateRef],
    ) -> Result<Vec<(StateRef, SecureHash)>, StoreError> {
        let sql = "SELECT s.tx, s.idx, s.consumed_by FROM unnest($2::bytea[], $3::int8[]) WITH ORDINALITY u (tx, idx, place) \
                   JOIN {place}.ledger_spent s ON s.identity = $1 AND s.tx = u.tx AND s.idx = u.idx ORDER BY u.place";
        let (transactions, indices) = references(states);
        let rows = self.ledger_rows(identity, sql, values![identity.0, transactions, indices]).await?;
        rows.iter().map(spent).collect()
    }

    async fn vault_candidates(
        &self,
        identity: IdentityRow,
        request: &PageRequest<'_>,
    ) -> Result<Vec<VaultRow>, StoreError> {
        let SqlCriteria { sql, values, .. } = SqlCriteria::page(identity, request, self.dialect(identity));
        let sql = format!("SELECT {STATE_COLUMNS} FROM {sql}");
        let rows = self.rows_within(1, identity, &sql, arguments(values)?, Some(STATE_BODY)).await?;
        rows.iter().map(|row| vault_row(row, request.now)).collect()
    }

    async fn count_of(&self, identity: IdentityRow, having: &Having, most: u32) -> Result<u32, StoreError> {
        self.counted(identity, SqlCriteria::count(identity, having, most, self.dialect(identity))).await
    }

    async fn count_of_states(
        &self,
        identity: IdentityRow,
        status: StatusFilter,
        types: Option<&[String]>,
        most: u32,
    ) -> Result<u32, StoreError> {
        let criteria = SqlCriteria::count_states(identity, status, types, most, self.dialect(identity));
        self.counted(identity, criteria).await
    }

    async fn vault_key_at(
        &self,
        identity: IdentityRow,
        slice: &Slice,
        place: u32,
    ) -> Result<Option<SqlValue>, StoreError> {
        let SqlCriteria { sql, values, .. } = SqlCriteria::key_at(identity, slice, place, self.dialect(identity));
        let rows = self.ledger_rows(identity, &sql, arguments(values)?).await?;
        rows.first().map(|row| slice_key(row, &slice.of)).transpose()
    }

    async fn vault_shapes(&self, identity: IdentityRow, limit: u32) -> Result<Vec<VaultShape>, StoreError> {
        let sql = "SELECT type, fields FROM {place}.vault_shape WHERE identity = $1 ORDER BY type, digest LIMIT $2";
        // Of a ledger of an older version, whose identity has not been claimed since, none are known.
        let rows = self.rows_since(SHAPES, identity, sql, values![identity.0, i64::from(limit)]).await?;
        rows.iter().map(vault_shape).collect()
    }

    async fn newest_change(&self, identity: IdentityRow) -> Result<i64, StoreError> {
        let sql = "SELECT max(number) FROM {place}.vault_change WHERE identity = $1";
        let rows = self.ledger_rows(identity, sql, values![identity.0]).await?;
        let newest = rows.first().map(|row| column::<Option<i64>>(row, 0, "vault_change")).transpose()?;
        Ok(newest.flatten().unwrap_or_default())
    }

    async fn vault_changes(
        &self,
        identity: IdentityRow,
        after: i64,
        limit: u32,
        now: Timestamp,
    ) -> Result<Vec<VaultChangeRow>, StoreError> {
        const T: &str = "vault_change";
        // Lengths first: the server tells them without reading the states.
        let sql = "SELECT number, tx, at FROM (SELECT number, tx, at, sum(bytes) OVER (ORDER BY number) - bytes AS ahead FROM ( \
                       SELECT c.number, c.tx, c.at, \
                           (SELECT coalesce(sum(octet_length(s.state)), 0) FROM {place}.vault_state s \
                            WHERE s.identity = c.identity AND s.change_in = c.number) \
                           + (SELECT coalesce(sum(octet_length(s.state)), 0) FROM {place}.vault_state s \
                            WHERE s.identity = c.identity AND s.change_out = c.number) AS bytes \
                       FROM {place}.vault_change c WHERE c.identity = $1 AND c.number > $2 ORDER BY c.number LIMIT $3 \
                   ) page) lengths WHERE ahead < $4 ORDER BY number";
        let rows = self.ledger_rows(identity, sql, values![identity.0, after, i64::from(limit), page_bytes()]).await?;
        let numbers = match (rows.first(), rows.last()) {
            (Some(first), Some(last)) => (column(first, 0, T)?, column(last, 0, T)?),
            _ => return Ok(Vec::new()),
        };
        let mut produced = self.states_of_changes(identity, "change_in", numbers, now).await?.into_iter().peekable();
        let mut consumed = self.states_of_changes(identity, "change_out", numbers, now).await?.into_iter().peekable();
        let read = |row: &PgRow| {
            let number: i64 = column(row, 0, T)?;
            let (transaction, at) = (hash_at(row, 1, T)?, time(column(row, 2, T)?));
            let (produced, consumed) = (taken(&mut produced, number), taken(&mut consumed, number));
            Ok(VaultChangeRow { number, transaction, at, produced, consumed })
        };
        rows.iter().map(read).collect()
    }

    async fn locks(
        &self,
        identity: IdentityRow,
        after: Option<StateRef>,
        limit: u32,
        now: Timestamp,
    ) -> Result<Vec<HeldLock>, StoreError> {
        let sql = "SELECT tx, idx, lock_holder, lock_until FROM {place}.vault_state WHERE identity = $1 \
                   AND lock_until > $2 AND lock_flow IS NOT NULL AND (tx, idx) > ($3, $4) ORDER BY tx, idx LIMIT $5";
        let (tx, index) = after.map_or((Vec::new(), 0), |state| (state.tx.as_bytes().to_vec(), state.index));
        let values = values![identity.0, integer(now), tx, i64::from(index), i64::from(limit)];
        self.ledger_rows(identity, sql, values).await?.iter().map(held_lock).collect()
    }

    async fn attachment(&self, identity: IdentityRow, id: &SecureHash) -> Result<Option<Attachment>, StoreError> {
        let sql = "SELECT id, uploader, at, body FROM {place}.attachment WHERE identity = $1 AND id = $2";
        let rows = self.ledger_rows(identity, sql, values![identity.0, &id.as_bytes()[..]]).await?;
        rows.first().map(attachment).transpose()
    }

    async fn attachments(
        &self,
        identity: IdentityRow,
        list: &ListAttachments,
    ) -> Result<Vec<KeptAttachment>, StoreError> {
        let sql = "SELECT id, uploader, at, octet_length(body)::int8, substr(body, 1, 4) FROM {place}.attachment \
                   WHERE identity = $1 AND id > $2 AND ($3::bytea IS NULL OR id = $3) ORDER BY id LIMIT $4";
        let after = list.after.map_or_else(Vec::new, |id| id.as_bytes().to_vec());
        let values = values![identity.0, after, list.only.map(|id| id.as_bytes().to_vec()), i64::from(list.limit)];
        self.ledger_rows(identity, sql, values).await?.iter().map(kept_attachment).collect()
    }

    async fn kept_parameters(&self, identity: IdentityRow, hash: &SecureHash) -> Result<Option<Bytes>, StoreError> {
        let sql = "SELECT body FROM {place}.network_parameters WHERE identity = $1 AND hash = $2";
        // A ledger of an older version, whose identity has not been claimed since, has kept none.
        let rows = self.rows_since(PARAMETERS, identity, sql, values![identity.0, &hash.as_bytes()[..]]).await?;
        rows.first().map(|row| bytes(row, 0, "network_parameters")).transpose()
    }

    async fn known_keys(
        &self,
        identity: IdentityRow,
        fingerprints: &[SecureHash],
    ) -> Result<Vec<KnownKey>, StoreError> {
        if fingerprints.is_empty() {
            return Ok(Vec::new());
        }
        let sql =
            "SELECT key, party, nonce, at FROM {place}.ledger_key WHERE identity = $1 AND id = ANY($2) ORDER BY id";
        // A ledger of an older version, whose identity has not been claimed since, knows no keys.
        let rows = self.rows_since(KEYS, identity, sql, values![identity.0, columns_of(fingerprints)]).await?;
        rows.iter().map(known_key).collect()
    }

    async fn key_external_ids(
        &self,
        identity: IdentityRow,
        fingerprints: &[SecureHash],
    ) -> Result<Vec<(SecureHash, String)>, StoreError> {
        self.read_key_external_ids(identity, fingerprints).await
    }

    async fn keys_of_external_id(
        &self,
        identity: IdentityRow,
        external_id: &str,
        after: Option<SecureHash>,
        limit: u32,
    ) -> Result<Vec<KnownKey>, StoreError> {
        self.read_keys_of(identity, external_id, after, limit).await
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
        self.read_consumed(identity, states).await
    }

    async fn notary_counts(&self, identity: IdentityRow) -> Result<Option<NotaryCounts>, StoreError> {
        let sql = "SELECT committed, conflicts, states FROM {place}.notary WHERE identity = $1";
        let rows = self.ledger_rows(identity, sql, values![identity.0]).await?;
        rows.first().map(notary_counts).transpose()
    }
}
