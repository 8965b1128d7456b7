//! Rising numbers that are never used again, not even after their rows were deleted and the host was restarted.
//!
//! A mark in the database lies above every number that a committed row ever had. It is moved in the same transaction
//! as the first row at or above it, and by a stride, so that it costs a write once in a thousand rows.

const STRIDE: i64 = 1024;

/// One sequence of numbers and its mark.
#[derive(Debug)]
pub struct IdAllocator {
    /// The first number that was not used in this run.
    next: i64,
    /// The mark as it is in the database.
    stored: i64,
    /// The mark that the transaction under way writes.
    pending: Option<i64>,
}

impl IdAllocator {
    /// The sequence whose mark the database has.
    #[must_use]
    pub fn new(stored: i64) -> IdAllocator {
        IdAllocator { next: stored, stored, pending: None }
    }

    /// The first number that is free for use.
    #[must_use]
    pub fn next(&self) -> i64 {
        self.next
    }

    /// A number that was never used.
    pub fn take(&mut self) -> i64 {
        let id = self.next;
        self.next += 1;
        id
    }

    /// Notes a number that was chosen elsewhere. True if it lies above all that were noted or taken before, so that
    /// nothing can have it already.
    pub fn observe(&mut self, number: i64) -> bool {
        let new = number >= self.next;
        self.next = self.next.max(number.saturating_add(1));
        new
    }

    /// The mark to be written within the transaction, if a number that was used in it asks for that.
    pub fn seal(&mut self) -> Option<i64> {
        if self.next > self.stored {
            self.pending = Some(self.next.saturating_add(STRIDE));
            return self.pending;
        }
        None
    }

    /// The transaction is over.
    pub fn ended(&mut self, committed: bool) {
        if let Some(mark) = self.pending.take()
            && committed
        {
            self.stored = mark;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mark_stays_above_every_number_that_was_committed() {
        let mut ids = IdAllocator::new(1);
        assert_eq!(ids.seal(), None, "nothing was used");
        assert_eq!((ids.take(), ids.take()), (1, 2));
        let mark = ids.seal();
        assert!(mark.is_some_and(|mark| mark > 2));
        ids.ended(false);
        assert_eq!(ids.seal(), mark, "a transaction that was lost has moved nothing");
        ids.ended(true);
        assert!(ids.observe(10) && !ids.observe(10) && !ids.observe(4));
        assert_eq!(ids.seal(), None, "the stride covers it");
        assert_eq!(ids.next(), 11);
    }
}
