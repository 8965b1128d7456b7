//! Claims of identities, on connections of the pool.
//!
//! Claims that are asked for at the same time are one statement and wait for the disk once: when a host dies or is drained,
//! the others claim hundreds of identities in a moment. The statement passes over rows that somebody else has locked. What it
//! did not grant is decided alone, in a transaction that waits for the lock, so no identity waits for another one's.
//!
//! The statement does not wait until its claims are on the disk. Everybody sees them from its end on, and the server writes
//! its log in order, so whatever is confirmed to have been written under a claim, or after it, takes the claim along. A server
//! that dies before that loses the claim and all that built on it together: the row shows an earlier claim then, and units of
//! the one that was lost are refused.

use std::collections::HashMap;
use std::sync::Arc;

use maxhost_model::{Claim, FencingToken, IdentityRow};
use maxhost_store::{Caution, ClaimRequest, DEATHS_LAST, DEATHS_SLOW, RunId, StoreError, rules};
use maxhost_store_sql::host::identity_record;
use sqlx::postgres::PgPool;
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::batch::Claims;
use crate::error::failed;
use crate::ledger::tables;
use crate::options::Layout;
use crate::persist::{ANSWER, persist};

/// Claims that wait for their turn; whoever has more waits to ask.
pub(crate) const WAITING: usize = 256;
/// Claims in one statement.
const AT_ONCE: usize = 100;
/// Statements at once: while one waits for the disk, or on a connection that has died, another may be carried out.
const STATEMENTS: usize = 2;
/// Claims that are decided alone at once. Each may wait for a lock with a connection of the pool in its hands.
const ALONE: usize = 3;

/// A claim, and where its outcome is told: an inner error concerns the claim, an outer one the database.
pub(crate) struct Asked {
    pub request: ClaimRequest,
    pub reply: oneshot::Sender<Result<Result<Claim, StoreError>, StoreError>>,
}

/// Whoever claims for a run.
pub(crate) struct Claimer {
    pool: PgPool,
    run: RunId,
    layout: Layout,
    /// What this run holds, as the committer knows it.
    claims: Claims,
    alone: Semaphore,
}

/// How many owners the row must show for one who is cautious and has waited; `None` for one who is not.
fn seen(caution: Caution) -> Option<i64> {
    match caution {
        Caution::None => None,
        Caution::WaitedSince(deaths) => Some(i64::from(deaths)),
    }
}

impl Claimer {
    pub fn new(pool: PgPool, run: RunId, layout: Layout, claims: Claims) -> Claimer {
        Claimer { pool, run, layout, claims, alone: Semaphore::new(ALONE) }
    }

    /// Claims what is asked for, until nobody can ask any more.
    pub async fn run(self: Arc<Claimer>, mut asked: mpsc::Receiver<Asked>) {
        let statements = Arc::new(Semaphore::new(STATEMENTS));
        // What comes while all statements are under way goes with the next one.
        while let Ok(turn) = Arc::clone(&statements).acquire_owned().await {
            let mut together = Vec::new();
            if asked.recv_many(&mut together, AT_ONCE).await == 0 {
                return;
            }
            let claimer = Arc::clone(&self);
            tokio::spawn(async move {
                claimer.claim_together(together).await;
                drop(turn);
            });
        }
    }

    async fn claim_together(self: Arc<Claimer>, together: Vec<Asked>) {
        let requests: Vec<ClaimRequest> = together.iter().map(|asked| asked.request).collect();
        let granted = match tokio::time::timeout(ANSWER, self.grant(&requests)).await {
            Ok(Ok(granted)) => granted,
            // Whether it was done shows when each is decided alone.
            outcome => {
                tracing::debug!(?outcome, "claims could not be made together");
                HashMap::new()
            }
        };
        for Asked { request, reply } in together {
            if granted.get(&request.identity) == Some(&request.token) {
                // Who has gone away finds the claim when he asks again.
                let _ = reply.send(Ok(Ok(self.believe(&request))));
                continue;
            }
            let claimer = Arc::clone(&self);
            tokio::spawn(async move {
                let _ = reply.send(claimer.claim_alone(&request).await);
            });
        }
    }

    fn believe(&self, request: &ClaimRequest) -> Claim {
        let claim = Claim { token: request.token, run: self.run };
        self.claims.lock().insert(request.identity, claim);
        claim
    }

    /// Those that are granted as they are asked for, by what they show now. Left out are, beside those that
    /// [`rules::decide_claim`] refuses, those that are written already, those whose row is locked, and those whose ledger has
    /// to be brought up to date first.
    async fn grant(&self, requests: &[ClaimRequest]) -> Result<HashMap<IdentityRow, FencingToken>, sqlx::Error> {
        let granted: Vec<(i64, i64, i64, i64)> = sqlx::query_as(
            "WITH asked AS (SELECT * FROM unnest($2::int8[], $3::int8[], $4::int8[], $5::bytea[], $6::int8[]) \
             a (id, g, e, k, seen)), \
             free AS (SELECT id FROM maxhost.identity WHERE id = ANY($2) ORDER BY id FOR NO KEY UPDATE SKIP LOCKED), \
             at_once AS MATERIALIZED (SELECT set_config('synchronous_commit', 'off', true)) \
             UPDATE maxhost.identity i SET generation = a.g, epoch = a.e, owner = $1, wake_at = NULL, \
             unclean = least(i.unclean + 1, 4294967295), key_fp = coalesce(i.key_fp, a.k) \
             FROM asked a JOIN free USING (id) CROSS JOIN at_once WHERE i.id = a.id AND i.moved_to IS NULL \
             AND (i.generation, i.epoch) < (a.g, a.e) AND (i.key_fp IS NULL OR a.k IS NULL OR i.key_fp = a.k) \
             AND (a.seen IS NULL OR i.unclean < $7 OR (i.unclean < $8 AND i.unclean = a.seen)) \
             RETURNING i.id, i.generation, i.epoch, i.ledger",
        )
        .bind(self.run.0)
        .bind(requests.iter().map(|request| request.identity.0).collect::<Vec<i64>>())
        .bind(requests.iter().map(|request| request.token.generation).collect::<Vec<i64>>())
        .bind(requests.iter().map(|request| request.token.epoch).collect::<Vec<i64>>())
        .bind(requests.iter().map(|request| request.key_fp.as_ref().map(|key| &key[..])).collect::<Vec<_>>())
        .bind(requests.iter().map(|request| seen(request.caution)).collect::<Vec<Option<i64>>>())
        .bind(i64::from(DEATHS_SLOW))
        .bind(i64::from(DEATHS_LAST))
        .fetch_all(&self.pool)
        .await?;
        let is_usable = |ledger: i64| self.layout == Layout::Shared || ledger == 0 || ledger >= tables::NEWEST;
        let usable = granted.into_iter().filter(|(.., ledger)| is_usable(*ledger));
        Ok(usable.map(|(id, generation, epoch, _)| (IdentityRow(id), FencingToken { generation, epoch })).collect())
    }

    async fn claim_alone(&self, request: &ClaimRequest) -> Result<Result<Claim, StoreError>, StoreError> {
        let _place = self.alone.acquire().await.map_err(|_| StoreError::Closed)?;
        if let Err(refused) = persist!(self.decide(request)).map_err(failed)? {
            return Ok(Err(refused));
        }
        // A ledger that an older build has made is brought up to date before anybody uses it.
        if self.layout == Layout::Schemas
            && let Some(identity) = persist!(self.outdated(request.identity)).map_err(failed)?
        {
            persist!(self.bring_up(identity)).map_err(failed)?;
        }
        Ok(Ok(self.believe(request)))
    }

    /// Once more it leads to the same: a claim that is there already is no error.
    async fn decide(&self, request: &ClaimRequest) -> Result<Result<Claim, StoreError>, sqlx::Error> {
        let mut transaction = self.pool.begin().await?;
        let sql = "SELECT id, name, generation, epoch, owner, wake_at, unclean, moved_to, key_fp \
                   FROM maxhost.identity WHERE id = $1 FOR NO KEY UPDATE";
        let row = sqlx::query(sql).bind(request.identity.0).fetch_optional(&mut *transaction).await?;
        let record = match row.as_ref().map(identity_record).transpose() {
            Ok(record) => record,
            Err(error) => return Ok(Err(error)),
        };
        let outcome = rules::decide_claim(record.as_ref(), request, self.run);
        if let (Ok(claim), Some(record)) = (&outcome, record)
            && record.claim != *claim
        {
            sqlx::query(
                "UPDATE maxhost.identity SET generation = $2, epoch = $3, owner = $4, wake_at = NULL, unclean = $5, \
                 key_fp = coalesce(key_fp, $6) WHERE id = $1",
            )
            .bind(record.row.0)
            .bind(claim.token.generation)
            .bind(claim.token.epoch)
            .bind(self.run.0)
            .bind(i64::from(record.unclean.saturating_add(1)))
            .bind(request.key_fp.as_ref().map(|key| &key[..]))
            .execute(&mut *transaction)
            .await?;
        }
        transaction.commit().await?;
        Ok(outcome)
    }

    async fn outdated(&self, identity: IdentityRow) -> Result<Option<IdentityRow>, sqlx::Error> {
        Ok(tables::outdated(&mut *self.pool.acquire().await?, Some(&[identity.0])).await?.pop())
    }

    async fn bring_up(&self, identity: IdentityRow) -> Result<(), sqlx::Error> {
        tables::bring_up(&mut *self.pool.acquire().await?, identity).await
    }
}
