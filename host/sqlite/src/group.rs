//! The loop of the committer's thread.
//!
//! Invariants: a unit is finished exactly once; it is finished with success only after the transaction that holds it
//! is durable; a unit that fails leaves nothing behind; a transaction that fails takes all its units with it, and the
//! next one starts afresh.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use rusqlite::{Connection, Statement};

use crate::fault::{Fault, FaultKind};
use crate::queue::{Batch, Queue, Taken};
use crate::stats::Stats;
use crate::wal::{Wal, WalLimits};

/// How long the committer waits for an announced unit at most.
const LONGEST_PATIENCE: Duration = Duration::from_millis(1);

/// Why a unit cannot be applied.
#[derive(Debug)]
pub enum Failure<E> {
    /// Only this unit: what it changed is undone, the others go on.
    Unit(E),
    /// The transaction can no longer be trusted: every unit of the batch fails.
    Transaction(Fault),
}

impl<E: From<Fault>> From<Fault> for Failure<E> {
    fn from(fault: Fault) -> Failure<E> {
        if concerns_all(&fault) { Failure::Transaction(fault) } else { Failure::Unit(fault.into()) }
    }
}

/// The disk and the file concern everybody. A broken page belongs to somebody's row: only who touches it is to suffer.
fn concerns_all(fault: &Fault) -> bool {
    use FaultKind::{Busy, CannotOpen, Full, Io, ReadOnly};
    matches!(fault.kind, Full | Io | Busy | ReadOnly | CannotOpen)
}

impl<E: From<Fault>> From<rusqlite::Error> for Failure<E> {
    fn from(error: rusqlite::Error) -> Failure<E> {
        Fault::from(error).into()
    }
}

/// What the loop needs to know of what it writes. All methods run on the committer's thread.
pub trait Writer {
    /// What is put into the queue.
    type Unit;
    /// What a unit that was committed learns.
    type Receipt;
    /// What a unit that was not committed learns.
    type Error: From<Fault>;

    /// A transaction has begun. `singly`: units may be undone one by one in it, so what a unit changes must be in the
    /// database when it is applied. Otherwise the writer may keep something back until [`Writer::seal`].
    ///
    /// # Errors
    /// The whole batch fails with it.
    fn begin(&mut self, singly: bool) -> Result<(), Fault>;

    /// How many changes were kept back so far. Rises with each.
    fn unwritten(&self) -> u64 {
        0
    }

    /// Writes the rows of one unit. `again`: it was applied before, but the transaction had to be rolled back because of
    /// a later unit, so what this one leads to outside the database has been decided: it must succeed again.
    ///
    /// # Errors
    /// As [`Failure`] says.
    fn apply(&mut self, unit: &Self::Unit, again: bool) -> Result<Self::Receipt, Failure<Self::Error>>;

    /// The last chance to write before the commit.
    ///
    /// # Errors
    /// The whole batch fails with it.
    fn seal(&mut self) -> Result<(), Fault>;

    /// The transaction is over. If it was not committed, everything remembered since `begin` is void.
    fn ended(&mut self, committed: bool);

    /// Tells the unit. A panic in here is caught and logged.
    fn finish(unit: Self::Unit, outcome: Result<Self::Receipt, Self::Error>);

    /// What a unit learns that comes after the end.
    fn closed() -> Self::Error;
}

struct Control<'c> {
    begin: Statement<'c>,
    commit: Statement<'c>,
    rollback: Statement<'c>,
    savepoint: Statement<'c>,
    release: Statement<'c>,
    rollback_to: Statement<'c>,
    /// How long a commit takes of late.
    usual: Duration,
}

impl<'c> Control<'c> {
    fn prepare(conn: &'c Connection) -> Result<Control<'c>, Fault> {
        Ok(Control {
            begin: conn.prepare("BEGIN IMMEDIATE")?,
            commit: conn.prepare("COMMIT")?,
            rollback: conn.prepare("ROLLBACK")?,
            savepoint: conn.prepare("SAVEPOINT unit")?,
            release: conn.prepare("RELEASE unit")?,
            rollback_to: conn.prepare("ROLLBACK TO unit")?,
            usual: Duration::ZERO,
        })
    }

    fn commit(&mut self) -> Result<Duration, Fault> {
        let began = Instant::now();
        self.commit.execute([])?;
        let took = began.elapsed();
        self.usual = (self.usual * 7 + took) / 8;
        Ok(took)
    }

    /// How long to wait for a unit that is announced. If it comes, a commit is saved; if not, one takes twice its time
    /// at most. More than a slow disk's usual time would not be worth it for anybody.
    fn patience(&self) -> Duration {
        self.usual.min(LONGEST_PATIENCE)
    }
}

/// Whoever waits in the queue when the thread ends, however it ends, is told.
struct TellTheRest<'q, W: Writer>(&'q Queue<W::Unit>);

impl<W: Writer> Drop for TellTheRest<'_, W> {
    fn drop(&mut self) {
        self.0.close();
        for unit in self.0.drain() {
            finish::<W>(unit, Err(W::closed()));
        }
    }
}

/// Commits what comes through the queue until it is closed and empty; then works off the write-ahead log.
///
/// # Errors
/// Only if the connection cannot even prepare the statements of a transaction; nothing was taken then but the queue is
/// closed.
pub fn run<W: Writer>(
    conn: &Connection,
    writer: &mut W,
    queue: &Queue<W::Unit>,
    limits: WalLimits,
    stats: &Stats,
) -> Result<(), Fault> {
    let rest = TellTheRest::<W>(queue);
    let mut control = Control::prepare(conn)?;
    let mut wal = Wal::new(conn, stats, limits)?;
    loop {
        match queue.take(wal.patience()) {
            Taken::Batch(batch) => {
                stats.queue.record(batch.since.elapsed());
                commit_batch(conn, &mut control, &mut wal, writer, queue, batch, stats);
            }
            Taken::Idle => wal.idle(),
            Taken::Closed => break,
        }
    }
    drop(rest);
    wal.close();
    Ok(())
}

fn commit_batch<W: Writer>(
    conn: &Connection,
    control: &mut Control<'_>,
    wal: &mut Wal<'_, '_>,
    writer: &mut W,
    queue: &Queue<W::Unit>,
    mut batch: Batch<W::Unit>,
    stats: &Stats,
) {
    let mut outcomes = Vec::with_capacity(batch.units.len());
    let written =
        catch_unwind(AssertUnwindSafe(|| write(conn, control, writer, queue, &mut batch, &mut outcomes, stats)))
            .unwrap_or_else(|_| Err(Fault::new(FaultKind::Other, "the committer met a defect while writing")));
    let Batch { units: batch, bytes, .. } = batch;
    if let Err(fault) = &written {
        roll_back(conn, control);
        stats.failed_commits.fetch_add(1, Relaxed);
        tracing::warn!(error = %fault, units = batch.len(), "a commit failed");
    }
    writer.ended(written.is_ok());
    match written {
        Ok(()) => {
            stats.commits.fetch_add(1, Relaxed);
            stats.bytes.fetch_add(bytes as u64, Relaxed);
            let refused = outcomes.iter().filter(|outcome| outcome.is_err()).count() as u64;
            stats.refused_units.fetch_add(refused, Relaxed);
            stats.units.fetch_add(outcomes.len() as u64 - refused, Relaxed);
            for (unit, outcome) in batch.into_iter().zip(outcomes) {
                finish::<W>(unit, outcome);
            }
            wal.committed();
        }
        Err(fault) => {
            let full = fault.kind == FaultKind::Full;
            for unit in batch {
                finish::<W>(unit, Err(fault.clone().into()));
            }
            if full {
                wal.disk_full();
            }
        }
    }
}

type Outcomes<W> = Vec<Result<<W as Writer>::Receipt, <W as Writer>::Error>>;

fn write<W: Writer>(
    conn: &Connection,
    control: &mut Control<'_>,
    writer: &mut W,
    queue: &Queue<W::Unit>,
    batch: &mut Batch<W::Unit>,
    outcomes: &mut Outcomes<W>,
    stats: &Stats,
) -> Result<(), Fault> {
    let started = Instant::now();
    control.begin.execute([])?;
    writer.begin(false)?;
    let mut whole = apply_plainly(conn, writer, &batch.units, outcomes)?;
    // What came while these were applied goes along, and what is announced, once: two flows that talk are often ready by
    // now, and the sync is what costs. Not again, so that the first need not wait for ever more.
    if whole && queue.top_up(batch, control.patience()) {
        whole = apply_plainly(conn, writer, &batch.units[outcomes.len()..], outcomes)?;
    }
    if whole {
        match writer.seal() {
            Err(fault) if concerns_all(&fault) => return Err(fault),
            Err(_) => {
                // Whose row it was is found out below, so nobody's outcome is known yet.
                outcomes.clear();
                whole = false;
            }
            Ok(()) => {}
        }
    }
    if !whole {
        roll_back(conn, control);
        writer.ended(false);
        control.begin.execute([])?;
        writer.begin(true)?;
        apply_with_savepoints(control, writer, &batch.units, outcomes)?;
        writer.seal()?;
    }
    stats.apply.record(started.elapsed());
    stats.commit.record(control.commit()?);
    Ok(())
}

/// Applies the units one after the other without savepoints, which cost a copy of every page that a unit touches.
///
/// Returns false when a unit failed halfway: the transaction must be rolled back then and done again with savepoints.
/// A unit that is refused before it changed anything, as nearly all are, needs no undoing. `outcomes` ends with the
/// unit that failed.
fn apply_plainly<W: Writer>(
    conn: &Connection,
    writer: &mut W,
    batch: &[W::Unit],
    outcomes: &mut Outcomes<W>,
) -> Result<bool, Fault> {
    for unit in batch {
        let before = (conn.total_changes(), writer.unwritten());
        match writer.apply(unit, false) {
            Ok(receipt) => outcomes.push(Ok(receipt)),
            Err(Failure::Transaction(fault)) => return Err(fault),
            Err(Failure::Unit(error)) => {
                outcomes.push(Err(error));
                if (conn.total_changes(), writer.unwritten()) != before {
                    return Ok(false);
                }
            }
        }
    }
    Ok(true)
}

/// Applies the units anew, each in a savepoint. Those that were refused in the first round stay refused: what they
/// were refused for came before the failure that ended the round, so it holds again.
fn apply_with_savepoints<W: Writer>(
    control: &mut Control<'_>,
    writer: &mut W,
    batch: &[W::Unit],
    outcomes: &mut Outcomes<W>,
) -> Result<(), Fault> {
    let mut first_round = std::mem::take(outcomes).into_iter();
    for unit in batch {
        let again = match first_round.next() {
            Some(Err(error)) => {
                outcomes.push(Err(error));
                continue;
            }
            Some(Ok(_)) => true,
            None => false,
        };
        control.savepoint.execute([])?;
        let outcome = match writer.apply(unit, again) {
            Ok(receipt) => Ok(receipt),
            Err(Failure::Transaction(fault)) => return Err(fault),
            Err(Failure::Unit(error)) => {
                control.rollback_to.execute([])?;
                Err(error)
            }
        };
        control.release.execute([])?;
        outcomes.push(outcome);
    }
    Ok(())
}

fn roll_back(conn: &Connection, control: &mut Control<'_>) {
    // After some errors SQLite has rolled back by itself.
    if !conn.is_autocommit()
        && let Err(error) = control.rollback.execute([])
    {
        tracing::error!(%error, "a failed transaction could not be rolled back");
    }
}

fn finish<W: Writer>(unit: W::Unit, outcome: Result<W::Receipt, W::Error>) {
    if catch_unwind(AssertUnwindSafe(|| W::finish(unit, outcome))).is_err() {
        tracing::error!("what was to run after a commit met a defect");
    }
}
