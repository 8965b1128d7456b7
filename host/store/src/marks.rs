//! Rising numbers that are never used again, not even after their rows were deleted and the host was restarted.
//!
//! A mark in the database lies above every number that a committed row ever had. It is moved in the same transaction
//! as the first row at or above it, and by a stride, so that it costs a write once in a thousand rows.

use rusqlite::{Connection, Statement, params};

const STRIDE: i64 = 1024;

/// One sequence of numbers and its mark.
pub(crate) struct Mark {
    key: &'static str,
    /// The first number that was not used in this life.
    next: i64,
    /// What the database says.
    stored: i64,
    /// What the transaction under way would make of it.
    pending: Option<i64>,
}

impl Mark {
    pub(crate) fn load(conn: &Connection, key: &'static str) -> rusqlite::Result<Mark> {
        let stored = conn.query_row("SELECT value FROM meta WHERE key = ?1", [key], |row| row.get(0))?;
        Ok(Mark { key, next: stored, stored, pending: None })
    }

    /// The first number free for use.
    pub(crate) fn next(&self) -> i64 {
        self.next
    }

    /// A number that was never used.
    pub(crate) fn take(&mut self) -> i64 {
        let id = self.next;
        self.next += 1;
        id
    }

    /// Notes a number that was chosen elsewhere. True if it lies above all that were noted or taken before, so that
    /// nothing can have it already.
    pub(crate) fn observe(&mut self, number: i64) -> bool {
        let new = number >= self.next;
        self.next = self.next.max(number.saturating_add(1));
        new
    }

    /// Moves the mark within the transaction, if a number used in it asks for that.
    pub(crate) fn seal(&mut self, write: &mut Statement<'_>) -> rusqlite::Result<()> {
        if self.next > self.stored {
            let mark = self.next.saturating_add(STRIDE);
            write.execute(params![self.key, mark])?;
            self.pending = Some(mark);
        }
        Ok(())
    }

    /// The transaction is over.
    pub(crate) fn ended(&mut self, committed: bool) {
        if let Some(mark) = self.pending.take()
            && committed
        {
            self.stored = mark;
        }
    }
}
