//! Transactions of one connection, for the loop of group commit.

use maxhost_group_commit::{Failure, Fault, Queue, Stats, Transactions};
use rusqlite::{Connection, Statement};

use crate::error::SqliteError;
use crate::wal::{Wal, WalLimits};

/// What is written for a unit, within transactions that [`run`] begins and ends. All methods run on the committer's
/// thread. The methods that [`Transactions`] has too mean the same here.
#[allow(missing_docs, clippy::missing_errors_doc)]
pub trait Writer {
    type Unit;
    type Receipt;
    type Error: From<Fault>;

    fn begin(&mut self, singly: bool) -> Result<(), Fault>;

    /// How many changes were kept back so far. Rises with each.
    fn unwritten(&self) -> u64 {
        0
    }

    fn apply(&mut self, unit: &Self::Unit, again: bool) -> Result<Self::Receipt, Failure<Self::Error>>;

    fn seal(&mut self) -> Result<(), Fault>;

    fn ended(&mut self, committed: bool);

    fn finish(unit: Self::Unit, outcome: Result<Self::Receipt, Self::Error>);

    fn closed() -> Self::Error;
}

/// Commits what comes through the queue until it is closed and empty; then works off the write-ahead log.
///
/// # Errors
/// Only if the connection cannot even prepare the statements of a transaction; the queue is closed then.
pub fn run<W: Writer>(
    conn: &Connection,
    writer: &mut W,
    queue: &Queue<W::Unit>,
    limits: WalLimits,
    stats: &Stats,
) -> Result<(), Fault> {
    match Sqlite::prepare(conn, writer, limits, stats) {
        Ok(mut database) => {
            maxhost_group_commit::run(&mut database, queue, stats);
            Ok(())
        }
        Err(error) => {
            queue.close();
            for unit in queue.drain() {
                W::finish(unit, Err(W::closed()));
            }
            Err(error.into())
        }
    }
}

struct Sqlite<'c, 'w, W> {
    conn: &'c Connection,
    writer: &'w mut W,
    wal: Wal<'c, 'w>,
    begin: Statement<'c>,
    commit: Statement<'c>,
    rollback: Statement<'c>,
    savepoint: Statement<'c>,
    release: Statement<'c>,
    rollback_to: Statement<'c>,
}

impl<'c, 'w, W: Writer> Sqlite<'c, 'w, W> {
    fn prepare(
        conn: &'c Connection,
        writer: &'w mut W,
        limits: WalLimits,
        stats: &'w Stats,
    ) -> Result<Sqlite<'c, 'w, W>, SqliteError> {
        Ok(Sqlite {
            conn,
            writer,
            wal: Wal::new(conn, stats, limits)?,
            begin: conn.prepare("BEGIN IMMEDIATE")?,
            commit: conn.prepare("COMMIT")?,
            rollback: conn.prepare("ROLLBACK")?,
            savepoint: conn.prepare("SAVEPOINT unit")?,
            release: conn.prepare("RELEASE unit")?,
            rollback_to: conn.prepare("ROLLBACK TO unit")?,
        })
    }
}

fn execute(statement: &mut Statement<'_>) -> Result<(), Fault> {
    statement.execute([]).map_err(SqliteError::from)?;
    Ok(())
}

impl<W: Writer> Transactions for Sqlite<'_, '_, W> {
    type Unit = W::Unit;
    type Receipt = W::Receipt;
    type Error = W::Error;

    fn begin(&mut self, singly: bool) -> Result<(), Fault> {
        execute(&mut self.begin)?;
        self.writer.begin(singly)
    }

    fn changes(&self) -> u64 {
        // Both only rise, so their sum stays the same only if both do.
        self.conn.total_changes().wrapping_add(self.writer.unwritten())
    }

    fn apply(&mut self, unit: &W::Unit, again: bool) -> Result<W::Receipt, Failure<W::Error>> {
        self.writer.apply(unit, again)
    }

    fn mark(&mut self) -> Result<(), Fault> {
        execute(&mut self.savepoint)
    }

    fn undo(&mut self) -> Result<(), Fault> {
        execute(&mut self.rollback_to)
    }

    fn unmark(&mut self) -> Result<(), Fault> {
        execute(&mut self.release)
    }

    fn seal(&mut self) -> Result<(), Fault> {
        self.writer.seal()
    }

    fn commit(&mut self) -> Result<(), Fault> {
        execute(&mut self.commit)
    }

    fn roll_back(&mut self) {
        // After some errors SQLite has rolled back by itself.
        if !self.conn.is_autocommit()
            && let Err(error) = self.rollback.execute([])
        {
            tracing::error!(%error, "a failed transaction could not be rolled back");
        }
    }

    fn ended(&mut self, committed: bool) {
        self.writer.ended(committed);
    }

    fn finish(unit: W::Unit, outcome: Result<W::Receipt, W::Error>) {
        W::finish(unit, outcome);
    }

    fn closed() -> W::Error {
        W::closed()
    }

    fn idle_after(&self) -> std::time::Duration {
        self.wal.patience()
    }

    fn idle(&mut self) {
        self.wal.idle();
    }

    fn told(&mut self) {
        self.wal.committed();
    }

    fn disk_full(&mut self) {
        self.wal.disk_full();
    }

    fn close(&mut self) {
        self.wal.close();
    }
}
