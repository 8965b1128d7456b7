//! Batches as transactions.
//!
//! A batch is decided in memory and written by one statement, which also locks and compares the rows of every identity
//! that it writes for, and counts the batch in the committer's row: it writes all, or, if anything is not as it was
//! thought to be, nothing. If nothing was written, the batch is done again in a transaction that takes the locks first,
//! one unit at a time.
//!
//! Invariants: a batch has the number of the one before plus one, and the committer's row has the number of the last one
//! that was written. So the statement of a batch writes once however often it is sent, and a copy of it that is
//! carried out late writes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use maxhost_group_commit::{Failure, Fault, FaultKind, Transactions};
use maxhost_model::IdentityRow;
use maxhost_store::{Job, Op, Outcome, StoreError, rules};
use sqlx::{AssertSqlSafe, Executor, Row};

use crate::batch::{Batch, Read};
use crate::lived::Lived;
use crate::numbers::Numbers;
use crate::options::Layout;
use crate::write::{Fence, statement};

/// How long the committer may sleep with nothing to do.
const FOREVER: Duration = Duration::from_secs(3600);

/// Ledgers in schemas of their own that one transaction writes at most. Each has some 25 tables and indexes that are
/// locked until it ends, and a server with its default settings has 6,400 locks for all of its clients.
const LEDGERS: usize = 64;

/// The committer.
pub(crate) struct PostgresRows {
    pub batch: Batch,
    pub numbers: Arc<Numbers>,
    pub lived: Arc<Lived>,
    /// The number of the last batch that was written.
    number: i64,
    /// Why nothing more is written.
    stopped: Option<Fault>,
}

impl PostgresRows {
    pub(crate) fn new(batch: Batch, numbers: Arc<Numbers>, lived: Arc<Lived>) -> PostgresRows {
        PostgresRows { batch, numbers, lived, number: 0, stopped: None }
    }

    /// Writes what a batch has come to, in one statement outside of any transaction.
    fn write_at_once(&mut self) -> Result<(), Fault> {
        let run = self.batch.run;
        let held: BTreeMap<IdentityRow, (i64, i64)> = self
            .batch
            .read
            .identities
            .iter()
            .filter_map(|(identity, claim)| {
                claim
                    .filter(|claim| claim.run == run)
                    .map(|claim| (*identity, (claim.token.generation, claim.token.epoch)))
            })
            .collect();
        if held.is_empty() {
            // Whoever writes holds something: every unit was refused.
            return Ok(());
        }
        let number = self.number + 1;
        let fence = Fence { run, batch: number, held: &held };
        let write = statement(&self.batch.pending, self.batch.layout, Some(&fence)).map_err(crate::error::fault_of)?;
        let sql: Arc<str> = write.sql.into();
        let written: i64 = self.batch.session.ask(async |conn| {
            let query = sqlx::query_scalar_with(AssertSqlSafe(sql.clone()), write.arguments.clone());
            query.persistent(write.kept).fetch_one(conn).await
        })?;
        if written == 1 {
            self.number = number;
            return Ok(());
        }
        // The statement was sent before, and its answer was lost; or an identity is not held any more.
        match self.last_batch()? {
            Some(last) if last == number => {
                tracing::info!(batch = number, "a batch whose answer was lost had been written");
                self.number = number;
                Ok(())
            }
            Some(last) if last == self.number => {
                Err(Fault::new(FaultKind::Constraint, "an identity of the batch is not held any more"))
            }
            last => Err(self.went_back(last)),
        }
    }

    /// The number of the last batch of this run that was written. Waits for a transaction that is not over.
    fn last_batch(&mut self) -> Result<Option<i64>, Fault> {
        let run = self.batch.run;
        self.batch.session.ask(async |conn| {
            let sql = "SELECT batch FROM maxhost.committer WHERE run = $1 FOR NO KEY UPDATE";
            sqlx::query_scalar(sql).bind(run.0).fetch_optional(conn).await
        })
    }

    /// The database does not have what this run has committed.
    fn went_back(&mut self, found: Option<i64>) -> Fault {
        let text = match found {
            Some(found) => {
                format!("the last commit of this run has number {}, and the database has {found}", self.number)
            }
            None => format!("the database does not know run {}", self.batch.run),
        };
        tracing::error!(reason = %text, "the database has lost commits; nothing more is written");
        let fault = Fault::new(FaultKind::WentBack, text);
        self.stopped = Some(fault.clone());
        fault
    }

    /// Begins a transaction in which units are undone one by one.
    fn begin_singly(&mut self) -> Result<(), Fault> {
        let (run, number) = (self.batch.run, self.number + 1);
        let counted = self.batch.session.ask(async |conn| {
            conn.execute("BEGIN").await?;
            let sql = "UPDATE maxhost.committer SET batch = $2 WHERE run = $1 AND batch = $2 - 1";
            let counted = sqlx::query(sql).bind(run.0).bind(number).execute(&mut *conn).await;
            if counted.is_err() {
                conn.execute("ROLLBACK").await?;
            }
            counted.map(|counted| counted.rows_affected())
        })?;
        if counted == 1 {
            return Ok(());
        }
        self.batch.session.abandon();
        match self.last_batch()? {
            // A copy of the batch's statement was carried out late. Who is told that it failed looks, and finds it.
            Some(last) if last == number => {
                self.number = number;
                Err(Fault::new(FaultKind::Busy, "the batch was written while it was begun anew"))
            }
            last => Err(self.went_back(last)),
        }
    }

    /// Writes what one unit has come to, within the transaction.
    fn write_unit(&mut self) -> Result<(), Fault> {
        let write = statement(&self.batch.pending, self.batch.layout, None).map_err(crate::error::fault_of)?;
        let sql: Arc<str> = write.sql.into();
        self.batch.session.ask_once(async |conn| {
            let query = sqlx::query_with(AssertSqlSafe(sql.clone()), write.arguments.clone());
            query.persistent(write.kept).execute(conn).await.map(drop)
        })?;
        self.remember();
        self.batch.pending.clear();
        Ok(())
    }

    /// Ends the transaction and makes sure that it was written.
    fn commit_singly(&mut self) -> Result<(), Fault> {
        let (run, number) = (self.batch.run, self.number + 1);
        // A COMMIT of a transaction that has failed is answered without an error: the row tells.
        let sql: Arc<str> = format!("COMMIT; SELECT batch FROM maxhost.committer WHERE run = {}", run.0).into();
        let last = self.batch.session.ask_once(async |conn| {
            let rows = sqlx::raw_sql(AssertSqlSafe(sql.clone())).fetch_all(conn).await?;
            rows.last().ok_or(sqlx::Error::RowNotFound)?.try_get::<i64, _>(0)
        });
        let last = match last {
            Ok(last) => Some(last),
            Err(error) => {
                tracing::info!(%error, batch = number, "the answer to a commit was lost; it is found out");
                self.batch.session.abandon();
                self.last_batch()?
            }
        };
        match last {
            Some(last) if last == number => {
                self.number = number;
                Ok(())
            }
            Some(last) if last == self.number => Err(Fault::new(FaultKind::Io, "the transaction was not written")),
            last => Err(self.went_back(last)),
        }
    }

    /// Takes over into memory what was written.
    fn remember(&mut self) {
        let batch = &mut self.batch;
        for (row, touched) in batch.pending.flows.iter() {
            let identity = touched.flow.identity;
            let claim = batch.read.identities.get(&identity).copied().flatten();
            match claim {
                Some(claim) if touched.is_live() => batch.known.put_flow(*row, claim, touched.flow.clone()),
                _ => batch.known.drop_flow(*row),
            }
        }
        for (key, body) in batch.pending.initiations.iter() {
            let claim = batch.read.identities.get(&key.0).copied().flatten();
            match (claim, body) {
                (Some(claim), Some(body)) => batch.known.put_initiation(*key, claim, body.len() as u64),
                _ => batch.known.drop_initiation(*key),
            }
        }
        let mut claims = batch.claims.lock();
        for (identity, _) in batch.pending.released.iter() {
            let shown = batch.read.identities.get(identity).copied().flatten();
            if claims.get(identity).copied() == shown {
                claims.remove(identity);
            }
        }
        drop(claims);
        batch.read.written(&batch.pending);
    }
}

/// How many of the first of these write no more than [`LEDGERS`] ledgers.
fn of_few_ledgers(jobs: &[Job]) -> usize {
    let mut ledgers = BTreeSet::new();
    let too_many = jobs.iter().position(|job| match job {
        Job::Unit(unit) if unit.ops.iter().any(|op| matches!(op, Op::Ledger(_))) => {
            ledgers.insert(unit.author.identity);
            ledgers.len() > LEDGERS
        }
        _ => false,
    });
    too_many.unwrap_or(jobs.len())
}

impl Transactions for PostgresRows {
    type Unit = Job;
    type Receipt = Outcome;
    type Error = StoreError;

    fn begin(&mut self, singly: bool) -> Result<(), Fault> {
        if let Some(fault) = &self.stopped {
            return Err(fault.clone());
        }
        if singly {
            self.begin_singly()?;
        }
        self.batch.singly = singly;
        Ok(())
    }

    fn read_ahead(&mut self, jobs: &[Job]) -> Result<(), Fault> {
        self.batch.read_ahead(jobs.iter().filter_map(|job| match job {
            Job::Unit(unit) => Some(unit),
            _ => None,
        }))
    }

    fn holds(&self, jobs: &[Job]) -> usize {
        match self.batch.layout {
            Layout::Schemas => of_few_ledgers(jobs),
            Layout::Shared => jobs.len(),
        }
    }

    fn changes(&self) -> u64 {
        // A unit that fails has its changes undone in memory, and leaves nothing behind.
        0
    }

    fn apply(&mut self, job: &Job, again: bool) -> Result<Outcome, Failure<StoreError>> {
        let Job::Unit(unit) = job else {
            let fault = Fault::new(FaultKind::Other, "claims, names and purging do not go through this committer");
            return Err(Failure::Unit(fault.into()));
        };
        self.batch.pending.mark();
        let backlog = self.batch.backlog.mark();
        let mut applied = rules::apply_unit(self, unit, again);
        if applied.is_ok()
            && self.batch.singly
            && let Err(fault) = self.write_unit()
        {
            self.batch.backlog.undo_to(backlog);
            if let Some(attempt) = &unit.attempt {
                attempt.revoke();
            }
            applied = Err(fault.into());
        }
        if applied.is_err() {
            self.batch.pending.undo();
        }
        applied.map(Outcome::Receipt)
    }

    fn mark(&mut self) -> Result<(), Fault> {
        self.batch.session.ask_once(async |conn| conn.execute("SAVEPOINT unit").await.map(drop))
    }

    fn undo(&mut self) -> Result<(), Fault> {
        self.batch.session.ask_once(async |conn| conn.execute("ROLLBACK TO SAVEPOINT unit").await.map(drop))
    }

    fn unmark(&mut self) -> Result<(), Fault> {
        self.batch.session.ask_once(async |conn| conn.execute("RELEASE SAVEPOINT unit").await.map(drop))
    }

    fn seal(&mut self) -> Result<(), Fault> {
        Ok(())
    }

    fn commit(&mut self) -> Result<(), Fault> {
        if self.batch.singly {
            self.commit_singly()
        } else {
            self.write_at_once()?;
            self.remember();
            Ok(())
        }
    }

    fn roll_back(&mut self) {
        if self.batch.singly
            && self.batch.session.ask_once(async |conn| conn.execute("ROLLBACK").await.map(drop)).is_err()
        {
            self.batch.session.abandon();
        }
    }

    fn ended(&mut self, committed: bool) {
        self.batch.singly = false;
        self.batch.pending.clear();
        self.batch.backlog.ended(committed);
        if !committed {
            // What was remembered of a batch that was not written must not be believed.
            self.batch.known.clear();
        }
        self.batch.read = Read::default();
    }

    fn finish(job: Job, outcome: Result<Outcome, StoreError>) {
        job.finish(outcome);
    }

    fn closed() -> StoreError {
        StoreError::Closed
    }

    fn idle_after(&self) -> Duration {
        FOREVER
    }

    fn close(&mut self) {
        let run = self.batch.run;
        if self.stopped.is_none() {
            // Nobody asks for the row of a run that is over.
            let forgotten = self.batch.session.ask_once(async |conn| {
                sqlx::query("DELETE FROM maxhost.committer WHERE run = $1").bind(run.0).execute(conn).await.map(drop)
            });
            if let Err(error) = forgotten {
                tracing::debug!(%error, "the row of the committer stays");
            }
        }
        self.batch.session.close();
    }
}

#[cfg(test)]
mod tests {
    use maxhost_model::{Claim, FencingToken, RunId, SecureHash};
    use maxhost_store::{Author, CommitUnit, LedgerOp};
    use smallvec::SmallVec;

    use super::*;

    #[test]
    fn one_transaction_writes_few_ledgers() {
        let claim = Claim { token: FencingToken { generation: 0, epoch: 1 }, run: RunId(1) };
        let job = |identity, ops| {
            let author = Author { identity: IdentityRow(identity), claim };
            Job::Unit(CommitUnit { author, attempt: None, depends_on: SmallVec::new(), ops, done: Box::new(drop) })
        };
        let writes = |identity| job(identity, vec![Op::Ledger(LedgerOp::Forget(vec![SecureHash::of(b"tx")]))]);
        // Three units of each ledger, and units without one between them.
        let mut jobs: Vec<Job> =
            (0..3 * LEDGERS as i64).flat_map(|n| [writes(n / 3), job(1000 + n, Vec::new())]).collect();
        assert_eq!(of_few_ledgers(&jobs), jobs.len());
        let full = jobs.len();
        jobs.push(writes(5));
        jobs.push(writes(500));
        jobs.push(writes(6));
        assert_eq!(of_few_ledgers(&jobs), full + 1, "one ledger more goes with the next transaction");
        assert_eq!(of_few_ledgers(&jobs[full + 1..]), 2);
    }
}
