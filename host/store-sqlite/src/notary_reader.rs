//! Reads of what a notary has decided.

use maxhost_ledger::notary::{BatchStamp, Outcome};
use maxhost_model::{IdentityRow, SecureHash};
use maxhost_store::StoreError;
use maxhost_store::ledger::codec::hash;
use maxhost_store::ledger::{Answered, ListRequests, LoggedRequest, RequestPage, RequestPlace, decode_conflicts};
use sqlx::sqlite::SqliteRow;

use crate::SqliteStore;
use crate::columns::{column, corrupt};
use crate::ledger_rows::time;
use crate::reader::failed;

const TABLE: &str = "notary_request";

/// The columns that [`logged`] reads, of a request `r`.
macro_rules! columns {
    () => {
        "r.number, r.at, r.id, r.caller, r.states, r.batch, r.answered, r.conflicting, r.conflicts"
    };
}

/// What was looked at last of so many requests (?5) below a place (?2, ?3), from a time on (?4).
const END: &str = "SELECT at, number FROM notary_request WHERE identity = ?1 AND (at, number) < (?2, ?3) \
                              AND at >= ?4 ORDER BY at DESC, number DESC LIMIT 1 OFFSET ?5";

/// Requests below a place and from another one (?5, ?6) on.
const LIST: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM notary_request r WHERE r.identity = ?1 AND (r.at, r.number) < (?2, ?3) AND r.at >= ?4 \
      AND (r.at, r.number) >= (?5, ?6) AND (?7 IS NULL OR r.caller = ?7) AND (?8 IS NULL OR r.answered = ?8) \
      ORDER BY r.at DESC, r.number DESC LIMIT ?9"
);

/// Requests about a transaction: those that did not commit it, by its id; the one that did, by when that was.
const OF: &str = concat!(
    "SELECT * FROM (SELECT ",
    columns!(),
    " FROM notary_request r INDEXED BY notary_request_id WHERE r.identity = ?1 AND r.id = ?2 AND r.answered IS NOT 0 \
      ORDER BY r.at DESC, r.number DESC LIMIT ?3) UNION ALL SELECT ",
    columns!(),
    " FROM notary_tx t CROSS JOIN notary_request r INDEXED BY notary_request_at ON r.identity = t.identity AND r.at = t.at \
      AND r.id = t.id AND r.answered = 0 WHERE t.identity = ?1 AND t.id = ?2 AND t.batch IS NOT NULL \
      ORDER BY 2 DESC, 1 DESC LIMIT ?3"
);

fn logged(row: &SqliteRow) -> Result<(RequestPlace, LoggedRequest), StoreError> {
    let (number, at): (i64, i64) = (column(row, 0, TABLE)?, column(row, 1, TABLE)?);
    let answered = match column::<Option<i64>>(row, 6, TABLE)? {
        None => None,
        Some(stored) => Some(Answered::of(stored).ok_or_else(|| corrupt(TABLE, format!("{number}: answer {stored}")))?),
    };
    let request = LoggedRequest {
        id: hash(TABLE, &column::<Vec<u8>>(row, 2, TABLE)?)?,
        caller: column(row, 3, TABLE)?,
        states: column::<i64>(row, 4, TABLE)?.unsigned_abs(),
        stamp: BatchStamp { batch: column::<i64>(row, 5, TABLE)?.unsigned_abs(), at: time(at) },
        answered,
        conflicting: column::<Option<i64>>(row, 7, TABLE)?.unwrap_or_default().unsigned_abs(),
        conflicts: decode_conflicts(column::<Option<Vec<u8>>>(row, 8, TABLE)?.as_deref())?,
    };
    Ok((RequestPlace { at, number }, request))
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
        let end = match &end {
            Some(row) => Some(RequestPlace { at: column(row, 0, TABLE)?, number: column(row, 1, TABLE)? }),
            None => None,
        };
        let from = end.unwrap_or(RequestPlace::OLDEST);
        let rows = sqlx::query(LIST)
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
        let rows = rows.iter().map(logged).collect::<Result<Vec<_>, _>>()?;
        Ok(RequestPage::of(rows, list.limit, end))
    }

    pub(crate) async fn read_requests_of(
        &self,
        identity: IdentityRow,
        id: &SecureHash,
        limit: u32,
    ) -> Result<Vec<(RequestPlace, LoggedRequest)>, StoreError> {
        let query = sqlx::query(OF).bind(identity.0).bind(&id.as_bytes()[..]).bind(limit);
        query.fetch_all(self.pool()).await.map_err(failed)?.iter().map(logged).collect()
    }

    pub(crate) async fn read_outcome(
        &self,
        identity: IdentityRow,
        id: &SecureHash,
    ) -> Result<Option<Outcome>, StoreError> {
        const T: &str = "notary_tx";
        let sql = "SELECT batch, at FROM notary_tx WHERE identity = ?1 AND id = ?2";
        let query = sqlx::query(sql).bind(identity.0).bind(&id.as_bytes()[..]);
        let Some(row) = query.fetch_optional(self.pool()).await.map_err(failed)? else { return Ok(None) };
        let at = time(column(&row, 1, T)?);
        Ok(Some(match column::<Option<i64>>(&row, 0, T)? {
            Some(batch) => Outcome::Committed(BatchStamp { batch: batch.unsigned_abs(), at }),
            None => Outcome::TooLate(at),
        }))
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
        for sql in [END, LIST] {
            let steps = steps(sql);
            assert_eq!(steps.len(), 1, "the order is that of the index: {steps:?}");
            assert!(steps[0].contains("notary_request_at (identity=? AND "), "{steps:?}");
        }
        let of = steps(OF);
        for index in ["notary_request_id (identity=? AND id=?)", "notary_request_at (identity=? AND at=?)"] {
            assert!(of.iter().any(|step| step.starts_with("SEARCH") && step.contains(index)), "{of:?}");
        }
        assert!(!of.iter().any(|step| step.starts_with("SCAN r")), "{of:?}");
    }
}
