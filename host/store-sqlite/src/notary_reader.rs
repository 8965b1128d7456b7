//! Reads of what a notary has decided.

use maxhost_ledger::notary::Outcome;
use maxhost_model::{IdentityRow, SecureHash};
use maxhost_store::StoreError;
use maxhost_store::ledger::{Answered, ListRequests, LoggedRequest, RequestPage, RequestPlace};
use maxhost_store_sql::ledger::{REQUEST_COLUMNS, logged_request, outcome, request_place};
use sqlx::AssertSqlSafe;

use crate::SqliteStore;
use crate::reader::failed;

/// What was looked at last of so many requests (?5) below a place (?2, ?3), from a time on (?4).
const END: &str = "SELECT number, at FROM notary_request WHERE identity = ?1 AND (at, number) < (?2, ?3) \
                              AND at >= ?4 ORDER BY at DESC, number DESC LIMIT 1 OFFSET ?5";

/// Requests below a place and from another one (?5, ?6) on.
fn list_sql() -> String {
    format!(
        "SELECT {REQUEST_COLUMNS} FROM notary_request r WHERE r.identity = ?1 AND (r.at, r.number) < (?2, ?3) \
         AND r.at >= ?4 AND (r.at, r.number) >= (?5, ?6) AND (?7 IS NULL OR r.caller = ?7) \
         AND (?8 IS NULL OR r.answered = ?8) ORDER BY r.at DESC, r.number DESC LIMIT ?9"
    )
}

/// Requests about a transaction: those that did not commit it, by its id; the one that did, by when that was.
fn about_sql() -> String {
    format!(
        "SELECT * FROM (SELECT {REQUEST_COLUMNS} FROM notary_request r INDEXED BY notary_request_id \
         WHERE r.identity = ?1 AND r.id = ?2 AND r.answered IS NOT 0 \
         ORDER BY r.at DESC, r.number DESC LIMIT ?3) UNION ALL SELECT {REQUEST_COLUMNS} FROM notary_tx t \
         CROSS JOIN notary_request r INDEXED BY notary_request_at ON r.identity = t.identity AND r.at = t.at \
         AND r.id = t.id AND r.answered = 0 WHERE t.identity = ?1 AND t.id = ?2 AND t.batch IS NOT NULL \
         ORDER BY 2 DESC, 1 DESC LIMIT ?3"
    )
}

impl SqliteStore {
    pub(crate) async fn read_requests(
        &self,
        identity: IdentityRow,
        list: &ListRequests,
    ) -> Result<RequestPage, StoreError> {
        let (below, since) = (list.below(), list.since());
        // What comes meanwhile stands above, so the end that is found first is the end of what is read then.
        let end = sqlx::query(END)
            .bind(identity.0)
            .bind(below.at)
            .bind(below.number)
            .bind(since)
            .bind(list.look.saturating_sub(1))
            .fetch_optional(self.pool())
            .await
            .map_err(failed)?;
        let end = end.as_ref().map(request_place).transpose()?;
        let from = end.unwrap_or(RequestPlace::OLDEST);
        let rows = sqlx::query(AssertSqlSafe(list_sql()))
            .bind(identity.0)
            .bind(below.at)
            .bind(below.number)
            .bind(since)
            .bind(from.at)
            .bind(from.number)
            .bind(list.caller.as_deref())
            .bind(list.answered.map(Answered::number))
            .bind(list.limit)
            .fetch_all(self.pool())
            .await
            .map_err(failed)?;
        let rows = rows.iter().map(logged_request).collect::<Result<Vec<_>, _>>()?;
        Ok(RequestPage::of(rows, list.limit, end))
    }

    pub(crate) async fn read_requests_of(
        &self,
        identity: IdentityRow,
        id: &SecureHash,
        limit: u32,
    ) -> Result<Vec<(RequestPlace, LoggedRequest)>, StoreError> {
        let query = sqlx::query(AssertSqlSafe(about_sql())).bind(identity.0).bind(&id.as_bytes()[..]).bind(limit);
        query.fetch_all(self.pool()).await.map_err(failed)?.iter().map(logged_request).collect()
    }

    pub(crate) async fn read_outcome(
        &self,
        identity: IdentityRow,
        id: &SecureHash,
    ) -> Result<Option<Outcome>, StoreError> {
        let sql = "SELECT batch, at FROM notary_tx WHERE identity = ?1 AND id = ?2";
        let query = sqlx::query(sql).bind(identity.0).bind(&id.as_bytes()[..]);
        query.fetch_optional(self.pool()).await.map_err(failed)?.as_ref().map(outcome).transpose()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use rusqlite::Connection;

    use super::*;

    #[test]
    fn no_read_of_the_log_goes_through_all_of_it() {
        let conn = Connection::open_in_memory().unwrap();
        conn.execute_batch(include_str!("../migrations/0004_ledger.sql")).unwrap();
        conn.execute_batch(include_str!("../migrations/0014_log_and_key_ids.sql")).unwrap();
        let steps = |sql: &str| -> Vec<String> {
            let mut statement = conn.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
            for number in 1..=statement.parameter_count() {
                statement.raw_bind_parameter(number, 1).unwrap();
            }
            let (mut rows, mut steps) = (statement.raw_query(), Vec::new());
            while let Some(row) = rows.next().unwrap() {
                steps.push(row.get::<_, String>(3).unwrap());
            }
            steps
        };
        for sql in [END, &list_sql()] {
            let steps = steps(sql);
            assert_eq!(steps.len(), 1, "the order is that of the index: {steps:?}");
            assert!(steps[0].contains("notary_request_at (identity=? AND "), "{steps:?}");
        }
        let of = steps(&about_sql());
        for index in ["notary_request_id (identity=? AND id=?)", "notary_request_at (identity=? AND at=?)"] {
            assert!(of.iter().any(|step| step.starts_with("SEARCH") && step.contains(index)), "{of:?}");
        }
        assert!(!of.iter().any(|step| step.starts_with("SCAN r")), "{of:?}");
    }
}
