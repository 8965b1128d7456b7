//! Reads of what a notary has decided.

use maxhost_ledger::notary::{BatchStamp, Outcome};
use maxhost_ledger::tx::StateRef;
use maxhost_model::{IdentityRow, SecureHash};
use maxhost_store::StoreError;
use maxhost_store::ledger::{
    Answered, Consumption, ListRequests, LoggedRequest, RequestPage, RequestPlace, decode_conflicts,
};
use sqlx::postgres::{PgArguments, PgRow};

use crate::columns::{column, corrupt};
use crate::ledger::read::time;
use crate::ledger::reader::{add, hash_at, reference, references};
use crate::ledger::tables::REQUESTS;
use crate::open::PostgresStore;

const TABLE: &str = "notary_request";

/// The columns that [`logged`] reads, of a request `r`.
const COLUMNS: &str = "r.number, r.at, r.id, r.caller, r.states, r.batch, r.answered, r.conflicting, r.conflicts";

fn logged(row: &PgRow) -> Result<(RequestPlace, LoggedRequest), StoreError> {
    let (number, at): (i64, i64) = (column(row, 0, TABLE)?, column(row, 1, TABLE)?);
    let answered = match column::<Option<i16>>(row, 6, TABLE)? {
        None => None,
        Some(stored) => {
            Some(Answered::of(stored.into()).ok_or_else(|| corrupt(TABLE, format!("{number}: answer {stored}")))?)
        }
    };
    let request = LoggedRequest {
        id: hash_at(row, 2, TABLE)?,
        caller: column(row, 3, TABLE)?,
        states: column::<i64>(row, 4, TABLE)?.unsigned_abs(),
        stamp: BatchStamp { batch: column::<i64>(row, 5, TABLE)?.unsigned_abs(), at: time(at) },
        answered,
        conflicting: column::<Option<i64>>(row, 7, TABLE)?.unwrap_or_default().unsigned_abs(),
        conflicts: decode_conflicts(column::<Option<Vec<u8>>>(row, 8, TABLE)?.as_deref())?,
    };
    Ok((RequestPlace { at, number }, request))
}

/// Reads of the log find none in a ledger of an older version, whose identity has not been claimed since.
impl PostgresStore {
    pub(super) async fn read_requests(
        &self,
        identity: IdentityRow,
        list: &ListRequests,
    ) -> Result<RequestPage, StoreError> {
        let (below, since) = (list.below(), list.since());
        // What comes meanwhile stands above, so the end that is found first is the end of what is read then.
        let sql = "SELECT number, at FROM {place}.notary_request WHERE identity = $1 AND (at, number) < ($2, $3) \
                   AND at >= $4 ORDER BY at DESC, number DESC LIMIT 1 OFFSET $5";
        let look = i64::from(list.look.saturating_sub(1));
        let values = values![identity.0, below.at, below.number, since, look];
        let rows = self.rows_since(REQUESTS, identity, sql, values).await?;
        let end = match rows.first() {
            Some(row) => Some(RequestPlace { number: column(row, 0, TABLE)?, at: column(row, 1, TABLE)? }),
            None => None,
        };
        let from = end.unwrap_or(RequestPlace::OLDEST);
        let sql = format!(
            "SELECT {COLUMNS} FROM {{place}}.notary_request r WHERE r.identity = $1 AND (r.at, r.number) < ($2, $3) \
             AND r.at >= $4 AND (r.at, r.number) >= ($5, $6) AND ($7::text IS NULL OR r.caller = $7) \
             AND ($8::int2 IS NULL OR r.answered = $8) ORDER BY r.at DESC, r.number DESC LIMIT $9"
        );
        let answered = list.answered.and_then(|answered| i16::try_from(answered.number()).ok());
        let (caller, limit) = (list.caller.clone(), i64::from(list.limit));
        let values = values![identity.0, below.at, below.number, since, from.at, from.number, caller, answered, limit];
        let rows = self.rows_since(REQUESTS, identity, &sql, values).await?;
        let rows = rows.iter().map(logged).collect::<Result<Vec<_>, _>>()?;
        Ok(RequestPage::of(rows, list.limit, end))
    }

    pub(super) async fn read_requests_of(
        &self,
        identity: IdentityRow,
        id: &SecureHash,
        limit: u32,
    ) -> Result<Vec<(RequestPlace, LoggedRequest)>, StoreError> {
        // Those that did not commit it are found by its id; the one that did, by when that was.
        let sql = format!(
            "(SELECT {COLUMNS} FROM {{place}}.notary_request r WHERE r.identity = $1 AND r.id = $2 \
             AND r.answered IS DISTINCT FROM 0 ORDER BY r.at DESC, r.number DESC LIMIT $3) UNION ALL \
             (SELECT {COLUMNS} FROM {{place}}.notary_tx t JOIN {{place}}.notary_request r ON r.identity = t.identity \
             AND r.at = t.at AND r.id = t.id AND r.answered = 0 \
             WHERE t.identity = $1 AND t.id = $2 AND t.batch IS NOT NULL LIMIT $3) \
             ORDER BY at DESC, number DESC LIMIT $3"
        );
        let values = values![identity.0, &id.as_bytes()[..], i64::from(limit)];
        self.rows_since(REQUESTS, identity, &sql, values).await?.iter().map(logged).collect()
    }

    pub(super) async fn read_outcome(
        &self,
        identity: IdentityRow,
        id: &SecureHash,
    ) -> Result<Option<Outcome>, StoreError> {
        const T: &str = "notary_tx";
        let sql = "SELECT batch, at FROM {place}.notary_tx WHERE identity = $1 AND id = $2";
        let rows = self.rows_since(1, identity, sql, values![identity.0, &id.as_bytes()[..]]).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let at = time(column(row, 1, T)?);
        Ok(Some(match column::<Option<i64>>(row, 0, T)? {
            Some(batch) => Outcome::Committed(BatchStamp { batch: batch.unsigned_abs(), at }),
            None => Outcome::TooLate(at),
        }))
    }

    pub(super) async fn read_consumed(
        &self,
        identity: IdentityRow,
        states: &[StateRef],
    ) -> Result<Vec<Consumption>, StoreError> {
        const T: &str = "notary_state";
        let sql = "SELECT s.tx, s.idx, s.consumed_by, t.batch, t.at \
                   FROM unnest($2::bytea[], $3::int8[]) WITH ORDINALITY u (tx, idx, place) \
                   JOIN {place}.notary_state s ON s.identity = $1 AND s.tx = u.tx AND s.idx = u.idx \
                   LEFT JOIN {place}.notary_tx t ON t.identity = s.identity AND t.id = s.consumed_by ORDER BY u.place";
        let (transactions, indices) = references(states);
        let rows = self.rows_since(1, identity, sql, values![identity.0, transactions, indices]).await?;
        let read = |row: &PgRow| {
            let batch = column::<Option<i64>>(row, 3, T)?.zip(column::<Option<i64>>(row, 4, T)?);
            let stamp = batch.map(|(batch, at)| BatchStamp { batch: batch.unsigned_abs(), at: time(at) });
            Ok(Consumption { reference: reference(row, T)?, consumed_by: hash_at(row, 2, T)?, stamp })
        };
        rows.iter().map(read).collect()
    }
}
