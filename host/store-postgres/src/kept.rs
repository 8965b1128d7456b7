//! Messages that the broker has confirmed, and that are kept for a while.
//!
//! The committer moves a row of the outbox here in the statement that it would have removed it with. What is done here runs
//! beside it, in pieces. A message that is to be sent again gets a new number in the outbox, behind all others, so that no
//! relay has passed it yet.

use std::time::Duration;

use async_trait::async_trait;
use maxhost_store::{KeptMessages, StoreError};

use crate::error::failed;
use crate::open::PostgresStore;
use crate::persist::persist;

#[async_trait]
impl KeptMessages for PostgresStore {
    async fn marker(&self) -> Result<i64, StoreError> {
        let sql = "SELECT broker_marker FROM maxhost.database";
        persist!(sqlx::query_scalar::<_, i64>(sql).fetch_one(&self.pool)).map_err(failed)
    }

    async fn next_marker(&self, present: i64) -> Result<Option<i64>, StoreError> {
        // If the answer is lost, the next attempt finds that somebody was first: that is what the caller is told.
        let sql = "UPDATE maxhost.database SET broker_marker = broker_marker + 1 WHERE broker_marker = $1 \
                   RETURNING broker_marker";
        let query = || sqlx::query_scalar::<_, i64>(sql).bind(present).fetch_optional(&self.pool);
        persist!(query()).map_err(failed)
    }

    async fn send_again(&self, marker: i64, limit: u32) -> Result<u64, StoreError> {
        persist!(self.send_again_once(marker, i64::from(limit))).map_err(failed)
    }

    async fn forget(&self, marker: i64, after: Duration, newest: u64, limit: u32) -> Result<u64, StoreError> {
        let after = i64::try_from(after.as_millis()).unwrap_or(i64::MAX);
        let before = self.lived.now().saturating_sub(after);
        // Numbers rise by one or more, so there are no more rows behind a number than the highest one is above it.
        let query = || {
            sqlx::query(
                "DELETE FROM maxhost.sent WHERE marker = $1 AND number IN (SELECT number FROM \
                 (SELECT number, at FROM maxhost.sent WHERE marker = $1 ORDER BY number LIMIT $4) oldest \
                 WHERE at <= $2 OR number <= (SELECT max(number) FROM maxhost.sent WHERE marker = $1) - $3)",
            )
            .bind(marker)
            .bind(before)
            .bind(i64::try_from(newest).unwrap_or(i64::MAX))
            .bind(i64::from(limit))
            .execute(&self.pool)
        };
        Ok(persist!(query()).map_err(failed)?.rows_affected())
    }
}

impl PostgresStore {
    async fn send_again_once(&self, marker: i64, limit: i64) -> Result<u64, sqlx::Error> {
        // The few markers there are, each by a look at the index.
        let others: Vec<i64> = sqlx::query_scalar(
            "WITH RECURSIVE leap (marker) AS (SELECT min(marker) FROM maxhost.sent UNION ALL \
             SELECT (SELECT min(s.marker) FROM maxhost.sent s WHERE s.marker > leap.marker) FROM leap \
             WHERE leap.marker IS NOT NULL) SELECT marker FROM leap WHERE marker IS NOT NULL AND marker <> $1",
        )
        .bind(marker)
        .fetch_all(&self.pool)
        .await?;
        if others.is_empty() {
            return Ok(0);
        }
        // Identities whose rows are being written at the moment are left for the next time. What one that lives in another
        // database has left here was copied to there.
        let count: i64 = sqlx::query_scalar(
            "WITH lost AS (SELECT s.marker, s.number FROM maxhost.sent s JOIN maxhost.identity i ON i.id = s.identity \
                 WHERE s.marker = ANY($1) AND i.moved_to IS NULL ORDER BY s.marker, s.number LIMIT $2 \
                 FOR NO KEY UPDATE OF i SKIP LOCKED), \
             gone AS (DELETE FROM maxhost.sent s USING lost l WHERE s.marker = l.marker AND s.number = l.number \
                 RETURNING s.*), \
             back AS (INSERT INTO maxhost.outbox (identity, destination, message_id, body, kind, session, seq, lived) \
                 SELECT identity, destination, message_id, body, kind, session, seq, $3 FROM gone ORDER BY marker, number) \
             SELECT count(*) FROM gone",
        )
        .bind(&others)
        .bind(limit)
        .bind(self.lived.now())
        .fetch_one(&self.pool)
        .await?;
        Ok(count.unsigned_abs())
    }
}
