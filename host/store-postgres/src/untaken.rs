//! Messages of the broker that cannot be taken: counted and put aside beside the committer, over a connection of the pool.

use maxhost_store::{StoreError, UNTAKEN_BYTES, UNTAKEN_ROWS, UNTAKEN_TRIES, Untaken, UntakenCount};

use crate::error::failed;
use crate::open::PostgresStore;
use crate::persist::persist;

impl PostgresStore {
    /// A count that is asked for again because its answer was lost may count twice.
    pub(crate) async fn count_untaken(&self, untaken: &Untaken) -> Result<UntakenCount, StoreError> {
        persist!(self.count_untaken_once(untaken)).map_err(failed)
    }

    async fn count_untaken_once(&self, untaken: &Untaken) -> Result<UntakenCount, sqlx::Error> {
        let Untaken { identity, message_id, at, sender, reason, body } = untaken;
        let mut transaction = self.pool.begin().await?;
        let tries: i64 = sqlx::query_scalar(
            "INSERT INTO maxhost.untaken AS u (identity, message_id, since, latest, tries, sender, reason) \
             VALUES ($1, $2, $3, $3, 1, $4, $5) ON CONFLICT (identity, message_id) DO UPDATE SET latest = excluded.latest, \
             tries = u.tries + 1, sender = excluded.sender, reason = excluded.reason RETURNING tries",
        )
        .bind(identity.0)
        .bind(&message_id[..])
        .bind(at)
        .bind(sender)
        .bind(reason)
        .fetch_one(&mut *transaction)
        .await?;
        let tries = tries.unsigned_abs();
        let mut is_kept = false;
        if tries >= UNTAKEN_TRIES {
            let kept = sqlx::query(
                "UPDATE maxhost.untaken SET body = $3 WHERE identity = $1 AND message_id = $2 AND (SELECT \
                 coalesce(sum(octet_length(o.body)), 0) FROM maxhost.untaken o WHERE o.identity = $1 \
                 AND o.message_id <> $2) + octet_length($3::bytea) <= $4",
            )
            .bind(identity.0)
            .bind(&message_id[..])
            .bind(&body[..])
            .bind(i64::try_from(UNTAKEN_BYTES).unwrap_or(i64::MAX))
            .execute(&mut *transaction)
            .await?;
            is_kept = kept.rows_affected() > 0;
        }
        sqlx::query(
            "DELETE FROM maxhost.untaken WHERE identity = $1 AND message_id IN (SELECT message_id FROM maxhost.untaken \
             WHERE identity = $1 ORDER BY latest DESC, message_id OFFSET $2)",
        )
        .bind(identity.0)
        .bind(i64::from(UNTAKEN_ROWS))
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(UntakenCount { tries, is_kept })
    }
}
