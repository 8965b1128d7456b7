//! What is done beside the committer, on connections of the pool: names are made known, identities claimed, and what is
//! kept no longer removed. A commit never waits for these longer than for a lock on the row of its own identity.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use maxhost_model::IdentityRow;
use maxhost_store::{ClaimRequest, Claimed, Forgive, ResultRead, StoreError};
use sqlx::AssertSqlSafe;
use tokio::sync::oneshot;

use crate::claiming::Asked;
use crate::error::failed;
use crate::ledger::place::Place;
use crate::lived;
use crate::open::PostgresStore;
use crate::options::Layout;
use crate::persist::persist;

/// Identities in one transaction.
const CHUNK: usize = 100;
/// How often a run gives a sign of life, milliseconds in which hosts run.
const SIGN_EVERY: i64 = 10 * 60 * 1000;
/// A run that has given no sign of life for so long, and owns no identity, is gone: its row is removed. Seven days in which hosts
/// run, milliseconds. One that was only cut off for so long finds that its row is not there, and writes nothing more.
const GONE_AFTER: i64 = 7 * 24 * 60 * 60 * 1000;

impl PostgresStore {
    /// Notes when clients first had results.
    pub(crate) async fn write_results_read(&self, reads: &[ResultRead]) -> Result<(), StoreError> {
        // In one order on every host, so that no two wait for each other.
        let sorted: BTreeMap<i64, &ResultRead> = reads.iter().rev().map(|read| (read.flow.0, read)).collect();
        let flows: Vec<i64> = sorted.keys().copied().collect();
        let times: Vec<i64> = sorted.values().map(|read| read.at).collect();
        let update = || {
            sqlx::query(
                "UPDATE maxhost.ended e SET result_read = u.at FROM (SELECT l.id, u.at FROM maxhost.ended l \
                 JOIN unnest($1::int8[], $2::int8[]) u (id, at) ON l.id = u.id WHERE l.result_read IS NULL ORDER BY l.id FOR NO KEY UPDATE OF l) u \
                 WHERE e.id = u.id",
            )
            .bind(&flows)
            .bind(&times)
            .execute(&self.pool)
        };
        persist!(update()).map(drop).map_err(failed)
    }

    pub(crate) async fn register_names(&self, names: Vec<String>) -> Result<Vec<IdentityRow>, StoreError> {
        // In one order on every host, so that no two wait for each other.
        let sorted: Vec<&str> = names.iter().map(String::as_str).collect::<BTreeSet<_>>().into_iter().collect();
        let mut rows: HashMap<String, IdentityRow> = HashMap::with_capacity(sorted.len());
        for chunk in sorted.chunks(CHUNK) {
            rows.extend(persist!(self.register_chunk(chunk)).map_err(failed)?);
        }
        let row = |name: &String| rows.get(name).copied();
        let missing = || StoreError::Corrupt { table: "identity", key: "a name that was just added".to_owned() };
        names.iter().map(row).collect::<Option<Vec<_>>>().ok_or_else(missing)
    }

    async fn register_chunk(&self, names: &[&str]) -> Result<Vec<(String, IdentityRow)>, sqlx::Error> {
        let mut transaction = self.pool.begin().await?;
        sqlx::query(
            "INSERT INTO maxhost.identity (name) SELECT n FROM unnest($1::text[]) n \
             WHERE NOT EXISTS (SELECT FROM maxhost.identity i WHERE i.name = n COLLATE \"C\") \
             ORDER BY n COLLATE \"C\" ON CONFLICT DO NOTHING",
        )
        .bind(names)
        .execute(&mut *transaction)
        .await?;
        let found: Vec<(String, i64, bool)> = sqlx::query_as(
            "SELECT i.name, i.id, EXISTS (SELECT FROM pg_namespace WHERE nspname = 'maxhost_i' || i.id) \
             FROM maxhost.identity i WHERE i.name = ANY($1) ORDER BY i.id",
        )
        .bind(names)
        .fetch_all(&mut *transaction)
        .await?;
        if self.layout == Layout::Schemas {
            for (_, id, _) in found.iter().filter(|(.., there)| !there) {
                let sql = format!("CREATE SCHEMA IF NOT EXISTS {}", Place::of(self.layout, IdentityRow(*id)));
                sqlx::query(AssertSqlSafe(sql)).execute(&mut *transaction).await?;
            }
        }
        transaction.commit().await?;
        Ok(found.into_iter().map(|(name, id, _)| (name, IdentityRow(id))).collect())
    }

    pub(crate) async fn claim_identities(&self, requests: Vec<ClaimRequest>) -> Result<Claimed, StoreError> {
        self.clock.check()?;
        let mut answers = Vec::with_capacity(requests.len());
        for request in requests {
            let (reply, answer) = oneshot::channel();
            self.claiming.send(Asked { request, reply }).await.map_err(|_| StoreError::Closed)?;
            answers.push(answer);
        }
        let mut claimed = Vec::with_capacity(answers.len());
        for answer in answers {
            claimed.push(answer.await.map_err(|_| StoreError::Closed)??);
        }
        Ok(claimed)
    }

    /// Says that owners of an identity do not count. Asked once: what is done twice would forgive one too many.
    pub(crate) async fn forgive_owners(&self, identity: IdentityRow, forgive: Forgive) -> Result<(), StoreError> {
        let claim = match forgive {
            Forgive::Healthy(claim) => Some(claim),
            Forgive::Survived | Forgive::Asked => None,
        };
        sqlx::query(
            "UPDATE maxhost.identity SET unclean = CASE WHEN $2 THEN unclean - 1 ELSE 0 END \
             WHERE id = $1 AND unclean > 0 AND ($3::int8 IS NULL OR (generation, epoch, owner) = ($3, $4, $5))",
        )
        .bind(identity.0)
        .bind(forgive == Forgive::Survived)
        .bind(claim.map(|claim| claim.token.generation))
        .bind(claim.map(|claim| claim.token.epoch))
        .bind(claim.map(|claim| claim.run.0))
        .execute(&self.pool)
        .await
        .map(drop)
        .map_err(failed)
    }

    pub(crate) async fn purge_rows(&self, limit: u32) -> Result<u64, StoreError> {
        persist!(self.purge_once(i64::from(limit))).map_err(failed)
    }

    async fn purge_once(&self, limit: i64) -> Result<u64, sqlx::Error> {
        let mut transaction = self.pool.begin().await?;
        // What is removed twice is removed, so nobody need wait for the disk with the rows of his identity locked.
        sqlx::query("SET LOCAL synchronous_commit = off").execute(&mut *transaction).await?;
        let lived = lived::touch(&mut transaction).await?;
        let before = lived.saturating_sub(self.processed_retention);
        // Identities whose rows are being written at the moment are left for the next time.
        let ended: i64 = sqlx::query_scalar(
            "WITH gone AS (DELETE FROM maxhost.ended WHERE id IN (SELECT e.id FROM maxhost.ended e \
                 JOIN maxhost.identity i ON i.id = e.identity WHERE e.forget_at <= $1 ORDER BY e.forget_at LIMIT $2 \
                 FOR NO KEY UPDATE OF i SKIP LOCKED) RETURNING id, identity, \"user\", client_id), \
             unnamed AS (DELETE FROM maxhost.client c USING gone g WHERE c.identity = g.identity \
                 AND c.\"user\" = coalesce(g.\"user\", '') AND c.client_id = g.client_id AND c.flow = g.id) \
             SELECT count(*) FROM gone",
        )
        .bind(lived)
        .bind(limit)
        .fetch_one(&mut *transaction)
        .await?;
        let orphans = sqlx::query(
            "DELETE FROM maxhost.outbox WHERE id IN (SELECT o.id FROM maxhost.outbox o \
             JOIN maxhost.identity i ON i.id = o.identity \
             WHERE (i.moved_to IS NOT NULL AND i.moving = 0) OR (o.lived <= $1 AND i.owner IS NULL) ORDER BY o.id LIMIT $2 \
             FOR NO KEY UPDATE OF i SKIP LOCKED)",
        )
        .bind(before)
        .bind(limit)
        .execute(&mut *transaction)
        .await?
        .rows_affected();
        let processed = sqlx::query(
            "DELETE FROM maxhost.processed WHERE (identity, message_id) IN \
             (SELECT identity, message_id FROM maxhost.processed WHERE at <= $1 ORDER BY at LIMIT $2)",
        )
        .bind(before)
        .bind(limit)
        .execute(&mut *transaction)
        .await?
        .rows_affected();
        // What its receiver may have forgotten by now must not be sent again. Mostly the first row tells that there is none.
        let kept = sqlx::query(
            "DELETE FROM maxhost.sent WHERE (marker, number) IN (SELECT marker, number FROM \
             (SELECT marker, number, at FROM maxhost.sent ORDER BY marker, number LIMIT $2) oldest \
             WHERE at <= $1 AND (SELECT at FROM maxhost.sent ORDER BY marker, number LIMIT 1) <= $1)",
        )
        .bind(before)
        .bind(limit)
        .execute(&mut *transaction)
        .await?
        .rows_affected();
        let audit = self.forget_audit(&mut transaction, lived, limit).await?;
        let left = crate::moving::forget_left(&mut transaction, self.layout, lived, limit).await?;
        transaction.commit().await?;
        self.lived.set(lived);
        let runs = self.forget_runs(lived, limit).await?;
        Ok(ended.unsigned_abs() + orphans + processed + kept + audit + left + runs)
    }

    /// Gives a sign of life, and removes the rows of runs that can write nothing any more. In statements of their own, so that no
    /// commit waits for a row of these for longer than one takes. A run of an older release gives no sign, and keeps its row.
    async fn forget_runs(&self, lived: i64, limit: i64) -> Result<u64, sqlx::Error> {
        sqlx::query("UPDATE maxhost.committer SET seen = $2 WHERE run = $1 AND (seen IS NULL OR seen <= $3)")
            .bind(self.run.0)
            .bind(lived)
            .bind(lived.saturating_sub(SIGN_EVERY))
            .execute(&self.pool)
            .await?;
        let gone = sqlx::query(
            "DELETE FROM maxhost.committer WHERE run IN (SELECT c.run FROM maxhost.committer c \
             WHERE c.run <> $1 AND c.seen <= $2 AND NOT EXISTS (SELECT FROM maxhost.identity i WHERE i.owner = c.run) \
             ORDER BY c.run LIMIT $3 FOR UPDATE OF c SKIP LOCKED)",
        )
        .bind(self.run.0)
        .bind(lived.saturating_sub(GONE_AFTER))
        .bind(limit)
        .execute(&self.pool)
        .await?;
        Ok(gone.rows_affected())
    }
}
