//! Reads of what a notary has decided.

use maxhost_ledger::notary::Outcome;
use maxhost_ledger::tx::StateRef;
use maxhost_model::{IdentityRow, SecureHash};
use maxhost_store::StoreError;
use maxhost_store::ledger::{Consumption, ListRequests, LoggedRequest, RequestPage, RequestPlace};
use maxhost_store_sql::ledger::{REQUEST_COLUMNS, consumption, logged_request, outcome, request_place};
use sqlx::postgres::PgArguments;

use crate::ledger::reader::{add, references};
use crate::ledger::tables::REQUESTS;
use crate::open::PostgresStore;

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
        let end = rows.first().map(request_place).transpose()?;
        let from = end.unwrap_or(RequestPlace::OLDEST);
        let sql = format!(
            "SELECT {REQUEST_COLUMNS} FROM {{place}}.notary_request r WHERE r.identity = $1 AND (r.at, r.number) < ($2, $3) \
             AND r.at >= $4 AND (r.at, r.number) >= ($5, $6) AND ($7::text IS NULL OR r.caller = $7) \
             AND ($8::int2 IS NULL OR r.answered = $8) ORDER BY r.at DESC, r.number DESC LIMIT $9"
        );
        let answered = list.answered.and_then(|answered| i16::try_from(answered.number()).ok());
        let (caller, limit) = (list.caller.clone(), i64::from(list.limit));
        let values = values![identity.0, below.at, below.number, since, from.at, from.number, caller, answered, limit];
        let rows = self.rows_since(REQUESTS, identity, &sql, values).await?;
        let rows = rows.iter().map(logged_request).collect::<Result<Vec<_>, _>>()?;
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
            "(SELECT {REQUEST_COLUMNS} FROM {{place}}.notary_request r WHERE r.identity = $1 AND r.id = $2 \
             AND r.answered IS DISTINCT FROM 0 ORDER BY r.at DESC, r.number DESC LIMIT $3) UNION ALL \
             (SELECT {REQUEST_COLUMNS} FROM {{place}}.notary_tx t JOIN {{place}}.notary_request r ON r.identity = t.identity \
             AND r.at = t.at AND r.id = t.id AND r.answered = 0 \
             WHERE t.identity = $1 AND t.id = $2 AND t.batch IS NOT NULL LIMIT $3) \
             ORDER BY at DESC, number DESC LIMIT $3"
        );
        let values = values![identity.0, &id.as_bytes()[..], i64::from(limit)];
        self.rows_since(REQUESTS, identity, &sql, values).await?.iter().map(logged_request).collect()
    }

    pub(super) async fn read_outcome(
        &self,
        identity: IdentityRow,
        id: &SecureHash,
    ) -> Result<Option<Outcome>, StoreError> {
        let sql = "SELECT batch, at FROM {place}.notary_tx WHERE identity = $1 AND id = $2";
        let rows = self.rows_since(1, identity, sql, values![identity.0, &id.as_bytes()[..]]).await?;
        rows.first().map(outcome).transpose()
    }

    pub(super) async fn read_consumed(
        &self,
        identity: IdentityRow,
        states: &[StateRef],
    ) -> Result<Vec<Consumption>, StoreError> {
        let sql = "SELECT s.tx, s.idx, s.consumed_by, t.batch, t.at \
                   FROM unnest($2::bytea[], $3::int8[]) WITH ORDINALITY u (tx, idx, place) \
                   JOIN {place}.notary_state s ON s.identity = $1 AND s.tx = u.tx AND s.idx = u.idx \
                   LEFT JOIN {place}.notary_tx t ON t.identity = s.identity AND t.id = s.consumed_by ORDER BY u.place";
        let (transactions, indices) = references(states);
        let rows = self.rows_since(1, identity, sql, values![identity.0, transactions, indices]).await?;
        rows.iter().map(consumption).collect()
    }
}
