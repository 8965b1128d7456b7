//! The loop of the committer's thread.
//!
//! Invariants: a unit is finished exactly once; it is finished with success only after the transaction that holds it
//! is durable; a unit that fails leaves nothing behind; a transaction that fails takes all its units with it, and the
//! next one starts afresh.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use crate::fault::{Fault, FaultKind};
use crate::queue::{Batch, Queue, Taken};
use crate::stats::Stats;

/// How long the committer waits for a unit that a hint stands for at most.
const LONGEST_PATIENCE: Duration = Duration::from_millis(1);
/// How long the committer sleeps when its database has nothing to do in idle moments.
const FOREVER: Duration = Duration::from_secs(3600);

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
    use FaultKind::{Busy, CannotOpen, Full, Io, ReadOnly, WentBack};
    matches!(fault.kind, Full | Io | Busy | ReadOnly | CannotOpen | WentBack)
}

/// A database as the loop sees it: transactions one after the other, and the units that are written in them. All
/// methods run on the committer's thread.
pub trait Transactions {
    /// What is put into the queue.
    type Unit;
    /// What a unit that was committed learns.
    type Receipt;
    /// What a unit that was not committed learns.
    type Error: From<Fault>;

    /// Begins a transaction. `singly`: units may be undone one by one in it, so what a unit changes must be undone by
    /// [`Transactions::undo`]. Otherwise changes may be kept back until [`Transactions::seal`].
    ///
    /// # Errors
    /// The whole batch fails with it.
    fn begin(&mut self, singly: bool) -> Result<(), Fault>;

    /// Looks at units that will be applied next, for databases that read what they need for all of them at once.
    ///
    /// # Errors
    /// The whole batch fails with it.
    fn read_ahead(&mut self, units: &[Self::Unit]) -> Result<(), Fault> {
        let _ = units;
        Ok(())
    }

    /// How many of the first of these units one transaction can hold, for databases that lock something for each. The
    /// others are committed after them. Taken for at least one.
    fn holds(&self, units: &[Self::Unit]) -> usize {
        units.len()
    }

    /// A number that rises with each change, whether it was written or is kept back.
    fn changes(&self) -> u64;

    /// Writes the rows of one unit. `again`: it was applied before, but the transaction had to be rolled back because of
    /// a later unit, so what this one leads to outside the database has been decided: it must succeed again.
    ///
    /// # Errors
    /// As [`Failure`] says.
    fn apply(&mut self, unit: &Self::Unit, again: bool) -> Result<Self::Receipt, Failure<Self::Error>>;

    /// Marks a point to which [`Transactions::undo`] goes back. Only in a transaction that was begun `singly`.
    ///
    /// # Errors
    /// The whole batch fails with it.
    fn mark(&mut self) -> Result<(), Fault>;

    /// Undoes what was changed since the mark.
    ///
    /// # Errors
    /// The whole batch fails with it.
    fn undo(&mut self) -> Result<(), Fault>;

    /// Removes the mark.
    ///
    /// # Errors
    /// The whole batch fails with it.
    fn unmark(&mut self) -> Result<(), Fault>;

    /// The last chance to write before the commit.
    ///
    /// # Errors
    /// The whole batch fails with it.
    fn seal(&mut self) -> Result<(), Fault>;

    /// Makes the transaction durable. An implementation whose connection breaks here finds out what became of the
    /// transaction before it answers.
    ///
    /// # Errors
    /// The transaction was not written. If the fault does not concern the whole database, it is done again singly.
    fn commit(&mut self) -> Result<(), Fault>;

    /// Ends a transaction that failed, if there is one.
    fn roll_back(&mut self);

    /// The transaction is over. If it was not committed, everything remembered since `begin` is void.
    fn ended(&mut self, committed: bool);

    /// Tells the unit. A panic in here is caught and logged.
    fn finish(unit: Self::Unit, outcome: Result<Self::Receipt, Self::Error>);

    /// What a unit learns that comes after the end.
    fn closed() -> Self::Error;

    /// How long the loop may sleep before [`Transactions::idle`] has something to do.
    fn idle_after(&self) -> Duration {
        FOREVER
    }

    /// Nothing is to be committed for the moment: housekeeping.
    fn idle(&mut self) {}

    /// All units of a batch that was committed have been told.
    fn told(&mut self) {}

    /// A batch failed because there was no space.
    fn disk_full(&mut self) {}

    /// The last act.
    fn close(&mut self) {}
}

/// Whoever waits in the queue when the thread ends, however it ends, is told.
struct TellTheRest<'q, T: Transactions>(&'q Queue<T::Unit>);

impl<T: Transactions> Drop for TellTheRest<'_, T> {
    fn drop(&mut self) {
        self.0.close();
        for unit in self.0.drain() {
            finish::<T>(unit, Err(T::closed()));
        }
    }
}

/// Commits what comes through the queue until it is closed and empty; then closes the database.
pub fn run<T: Transactions>(database: &mut T, queue: &Queue<T::Unit>, stats: &Stats) {
    let rest = TellTheRest::<T>(queue);
    let mut usual = Usual(Duration::ZERO);
    loop {
        match queue.take(database.idle_after()) {
            Taken::Batch(batch) => {
                stats.queue.record(batch.since.elapsed());
                let mut next = Some(batch);
                while let Some(batch) = next {
                    next = commit_batch(database, &mut usual, queue, batch, stats);
                }
            }
            Taken::Idle => database.idle(),
            Taken::Closed => break,
        }
    }
    drop(rest);
    database.close();
}

/// How long a commit takes of late.
struct Usual(Duration);

impl Usual {
    fn record(&mut self, took: Duration) {
        self.0 = (self.0 * 7 + took) / 8;
    }

    /// How long to wait for a unit that a hint stands for. If it comes, a commit is saved; if not, one takes twice its
    /// time at most. More than a slow disk's usual time would not be worth it for anybody.
    fn patience(&self) -> Duration {
        self.0.min(LONGEST_PATIENCE)
    }
}

/// Commits what one transaction holds of a batch, and gives the rest.
fn commit_batch<T: Transactions>(
    database: &mut T,
    usual: &mut Usual,
    queue: &Queue<T::Unit>,
    mut batch: Batch<T::Unit>,
    stats: &Stats,
) -> Option<Batch<T::Unit>> {
    let mut rest = batch.split_off(database.holds(&batch.units));
    let mut outcomes = Vec::with_capacity(batch.units.len());
    let written =
        catch_unwind(AssertUnwindSafe(|| write(database, usual, queue, (&mut batch, &mut rest), &mut outcomes, stats)))
            .unwrap_or_else(|_| Err(Fault::new(FaultKind::Other, "the committer met a defect while writing")));
    let Batch { units: batch, bytes, .. } = batch;
    if let Err(fault) = &written {
        database.roll_back();
        stats.failed_commits.fetch_add(1, Relaxed);
        tracing::warn!(error = %fault, units = batch.len(), "a commit failed");
    }
    database.ended(written.is_ok());
    match written {
        Ok(()) => {
            stats.commits.fetch_add(1, Relaxed);
            stats.bytes.fetch_add(bytes as u64, Relaxed);
            let refused = outcomes.iter().filter(|outcome| outcome.is_err()).count() as u64;
            stats.refused_units.fetch_add(refused, Relaxed);
            stats.units.fetch_add(outcomes.len() as u64 - refused, Relaxed);
            for (unit, outcome) in batch.into_iter().zip(outcomes) {
                finish::<T>(unit, outcome);
            }
            database.told();
        }
        Err(fault) => {
            let full = fault.kind == FaultKind::Full;
            for unit in batch {
                finish::<T>(unit, Err(fault.clone().into()));
            }
            if full {
                database.disk_full();
            }
        }
    }
    rest
}

type Outcomes<T> = Vec<Result<<T as Transactions>::Receipt, <T as Transactions>::Error>>;

fn write<T: Transactions>(
    database: &mut T,
    usual: &mut Usual,
    queue: &Queue<T::Unit>,
    (batch, rest): (&mut Batch<T::Unit>, &mut Option<Batch<T::Unit>>),
    outcomes: &mut Outcomes<T>,
    stats: &Stats,
) -> Result<(), Fault> {
    let started = Instant::now();
    database.begin(false)?;
    let mut whole = apply_plainly(database, &batch.units, outcomes)?;
    // What came while these were applied goes along, and what a hint stands for, once: two flows that talk are often
    // ready by now, and the sync is what costs. Not again, so that the first need not wait for ever more. Nothing
    // overtakes the rest of the batch.
    if whole && rest.is_none() && queue.top_up(batch, usual.patience()) {
        *rest = batch.split_off(database.holds(&batch.units).max(outcomes.len()));
        whole = apply_plainly(database, &batch.units[outcomes.len()..], outcomes)?;
    }
    if whole {
        match make_durable(database, usual, stats, started) {
            Err(fault) if concerns_all(&fault) => return Err(fault),
            // Whose row it was is found out below, so nobody's outcome is known yet.
            Err(_) => outcomes.clear(),
            Ok(()) => return Ok(()),
        }
    }
    database.roll_back();
    database.ended(false);
    database.begin(true)?;
    apply_singly(database, &batch.units, outcomes)?;
    make_durable(database, usual, stats, started)
}

fn make_durable<T: Transactions>(
    database: &mut T,
    usual: &mut Usual,
    stats: &Stats,
    started: Instant,
) -> Result<(), Fault> {
    database.seal()?;
    stats.apply.record(started.elapsed());
    let began = Instant::now();
    database.commit()?;
    let took = began.elapsed();
    usual.record(took);
    stats.commit.record(took);
    Ok(())
}

/// Applies the units one after the other without marks, which cost a copy of every page that a unit touches.
///
/// Returns false when a unit failed halfway: the transaction must be rolled back then and done again singly. A unit that
/// is refused before it changed anything, as nearly all are, needs no undoing. `outcomes` ends with the unit that failed.
fn apply_plainly<T: Transactions>(
    database: &mut T,
    batch: &[T::Unit],
    outcomes: &mut Outcomes<T>,
) -> Result<bool, Fault> {
    database.read_ahead(batch)?;
    for unit in batch {
        let before = database.changes();
        match database.apply(unit, false) {
            Ok(receipt) => outcomes.push(Ok(receipt)),
            Err(Failure::Transaction(fault)) => return Err(fault),
            Err(Failure::Unit(error)) => {
                outcomes.push(Err(error));
                if database.changes() != before {
                    return Ok(false);
                }
            }
        }
    }
    Ok(true)
}

/// Applies the units anew, each behind a mark. Those that were refused in the first round stay refused: what they were
/// refused for came before the failure that ended the round, so it holds again.
fn apply_singly<T: Transactions>(database: &mut T, batch: &[T::Unit], outcomes: &mut Outcomes<T>) -> Result<(), Fault> {
    let mut first_round = std::mem::take(outcomes).into_iter();
    database.read_ahead(batch)?;
    for unit in batch {
        let again = match first_round.next() {
            Some(Err(error)) => {
                outcomes.push(Err(error));
                continue;
            }
            Some(Ok(_)) => true,
            None => false,
        };
        database.mark()?;
        let outcome = match database.apply(unit, again) {
            Ok(receipt) => Ok(receipt),
            Err(Failure::Transaction(fault)) => return Err(fault),
            Err(Failure::Unit(error)) => {
                database.undo()?;
                Err(error)
            }
        };
        database.unmark()?;
        outcomes.push(outcome);
    }
    Ok(())
}

fn finish<T: Transactions>(unit: T::Unit, outcome: Result<T::Receipt, T::Error>) {
    if catch_unwind(AssertUnwindSafe(|| T::finish(unit, outcome))).is_err() {
        tracing::error!("what was to run after a commit met a defect");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::Bounds;

    /// A database whose transactions hold three units at most, and that fails with units of a certain number.
    #[derive(Default)]
    struct Small {
        under_way: Vec<u32>,
        committed: Vec<Vec<u32>>,
    }

    const BROKEN: u32 = 5;

    impl Transactions for Small {
        type Unit = (u32, std::sync::mpsc::Sender<(u32, bool)>);
        type Receipt = ();
        type Error = Fault;

        fn begin(&mut self, _: bool) -> Result<(), Fault> {
            Ok(())
        }
        fn holds(&self, _: &[Self::Unit]) -> usize {
            3
        }
        fn changes(&self) -> u64 {
            0
        }
        fn apply(&mut self, unit: &Self::Unit, _: bool) -> Result<(), Failure<Fault>> {
            if unit.0 == BROKEN {
                return Err(Failure::Transaction(Fault::new(FaultKind::Io, "broken")));
            }
            self.under_way.push(unit.0);
            Ok(())
        }
        fn mark(&mut self) -> Result<(), Fault> {
            Ok(())
        }
        fn undo(&mut self) -> Result<(), Fault> {
            Ok(())
        }
        fn unmark(&mut self) -> Result<(), Fault> {
            Ok(())
        }
        fn seal(&mut self) -> Result<(), Fault> {
            Ok(())
        }
        fn commit(&mut self) -> Result<(), Fault> {
            self.committed.push(std::mem::take(&mut self.under_way));
            Ok(())
        }
        fn roll_back(&mut self) {
            self.under_way.clear();
        }
        fn ended(&mut self, _: bool) {}
        fn finish((number, told): Self::Unit, outcome: Result<(), Fault>) {
            let _ = told.send((number, outcome.is_ok()));
        }
        fn closed() -> Fault {
            Fault::new(FaultKind::Other, "closed")
        }
    }

    #[test]
    fn what_one_transaction_does_not_hold_is_committed_after_it() {
        let queue = Queue::new(Bounds::default());
        let (told, outcomes) = std::sync::mpsc::channel();
        for number in 0..11 {
            assert!(queue.push((number, told.clone()), 10).is_ok());
        }
        drop(told);
        queue.close();
        let (mut database, stats) = (Small::default(), Stats::default());
        run(&mut database, &queue, &stats);
        // The transaction with the broken unit takes its own units with it, and no others.
        assert_eq!(database.committed, [vec![0, 1, 2], vec![6, 7, 8], vec![9, 10]]);
        let outcomes: Vec<(u32, bool)> = outcomes.iter().collect();
        let expected: Vec<(u32, bool)> = (0..11).map(|number| (number, !(3..6).contains(&number))).collect();
        assert_eq!(outcomes, expected);
        assert_eq!(stats.bytes.load(Relaxed), 110 - 30);
    }
}
