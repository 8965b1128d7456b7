//! What was left for a flow that is in memory, and whether something could not be left.
//!
//! Whoever finds no room leaves a mark instead of a wake-up: the mark stays until the flow reads its journal, and
//! [`Inbox::close`] hands it out, so a flow that gives up its instance at any moment learns that it has to come back.

use crate::base::sync::Mutex;

/// Bytes that wait in memory for one flow. One item of any size is taken when nothing else waits, because a message that
/// the network allows must not depend on this bound. Small in tests, so that those who reach it do so soon.
pub(crate) const MAX_QUEUED_BYTES: usize = if cfg!(test) { 4 << 10 } else { 4 << 20 };

/// Whether an item is in the database too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kept {
    /// It is: if there is no room for it here, the flow finds it there.
    InDatabase,
    /// It may not be yet: if there is no room for it here, whoever writes it has to bring it again.
    NotYet,
}

#[derive(Debug)]
struct Queue<T> {
    items: Vec<T>,
    bytes: usize,
    /// Something that is in the database found no room here.
    missed: bool,
    /// Something that the flow waits for may have come about outside of its inbox.
    stirred: bool,
    closed: bool,
}

/// What is handed out when an inbox is closed.
#[derive(Debug)]
pub(crate) struct Rest<T> {
    /// What was left and not taken. The database has it, or its sender brings it again.
    pub unread: Vec<T>,
    /// Something else is in the database that the flow has not seen.
    pub missed: bool,
    /// It was told to look at what it waits for, and has not looked since.
    pub stirred: bool,
}

impl<T> Rest<T> {
    /// Whether the flow has to look into the database.
    pub fn is_news(&self) -> bool {
        self.missed || self.stirred || !self.unread.is_empty()
    }
}

/// The inbox of a flow in memory. Anybody may leave something without waiting; only the flow's own run takes.
#[derive(Debug)]
pub(crate) struct Inbox<T> {
    queue: Mutex<Queue<T>>,
}

impl<T> Inbox<T> {
    pub fn new() -> Inbox<T> {
        let queue = Queue { items: Vec::new(), bytes: 0, missed: false, stirred: false, closed: false };
        Inbox { queue: Mutex::new(queue) }
    }

    /// Leaves an item of so many bytes. One that finds no room and is in the database leaves a mark.
    ///
    /// # Errors
    /// The inbox is closed, or has no room for an item that is [`Kept::NotYet`]: the item comes back.
    pub fn push(&self, item: T, bytes: usize, kept: Kept) -> Result<(), T> {
        let mut queue = self.queue.lock();
        if queue.closed {
            return Err(item);
        }
        if !queue.items.is_empty() && queue.bytes.saturating_add(bytes) > MAX_QUEUED_BYTES {
            return match kept {
                Kept::InDatabase => {
                    queue.missed = true;
                    Ok(())
                }
                Kept::NotYet => Err(item),
            };
        }
        queue.bytes = queue.bytes.saturating_add(bytes);
        queue.items.push(item);
        Ok(())
    }

    /// Takes what was left.
    pub fn take(&self) -> Vec<T> {
        let mut queue = self.queue.lock();
        queue.bytes = 0;
        std::mem::take(&mut queue.items)
    }

    /// Whether something is in the database that found no room here.
    pub fn has_missed(&self) -> bool {
        self.queue.lock().missed
    }

    /// The flow is about to read its journal: what was missed so far is in there.
    pub fn forget_missed(&self) {
        self.queue.lock().missed = false;
    }

    /// What the flow waits for outside of its inbox may have come about. False if the inbox is closed: then nobody looks.
    pub fn stir(&self) -> bool {
        let mut queue = self.queue.lock();
        queue.stirred |= !queue.closed;
        !queue.closed
    }

    /// Whether the flow was told to look at what it waits for, and has not begun to.
    pub fn is_stirred(&self) -> bool {
        self.queue.lock().stirred
    }

    /// The flow is about to look at what it waits for: what has come about so far it will see.
    pub fn forget_stirred(&self) {
        self.queue.lock().stirred = false;
    }

    pub fn is_closed(&self) -> bool {
        self.queue.lock().closed
    }

    /// Takes nothing any more, and hands out what is left.
    pub fn close(&self) -> Rest<T> {
        let mut queue = self.queue.lock();
        queue.closed = true;
        queue.bytes = 0;
        Rest {
            unread: std::mem::take(&mut queue.items),
            missed: std::mem::take(&mut queue.missed),
            stirred: std::mem::take(&mut queue.stirred),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_item_of_any_size_is_taken_when_nothing_waits() {
        for kept in [Kept::InDatabase, Kept::NotYet] {
            let inbox = Inbox::new();
            assert_eq!(inbox.push(1, 3 * MAX_QUEUED_BYTES, kept), Ok(()));
            assert!(!inbox.has_missed());
            assert_eq!(inbox.take(), [1]);
            assert_eq!(inbox.push(2, 3 * MAX_QUEUED_BYTES, kept), Ok(()), "taking makes room");
        }
    }

    #[test]
    fn what_found_no_room_leaves_a_mark_until_the_journal_is_read() {
        let inbox = Inbox::new();
        assert_eq!(inbox.push(1, MAX_QUEUED_BYTES, Kept::InDatabase), Ok(()));
        assert_eq!(inbox.push(2, 1, Kept::InDatabase), Ok(()));
        assert!(inbox.has_missed());
        assert_eq!(inbox.take(), [1]);
        assert!(inbox.has_missed(), "taking what was left does not bring what was not");
        inbox.forget_missed();
        assert!(!inbox.has_missed() && !inbox.close().is_news());
    }

    #[test]
    fn the_mark_is_handed_out_with_the_rest() {
        let inbox = Inbox::new();
        assert_eq!(inbox.push(1, MAX_QUEUED_BYTES, Kept::InDatabase), Ok(()));
        assert_eq!(inbox.push(2, 1, Kept::InDatabase), Ok(()));
        assert_eq!(inbox.take(), [1]);
        let rest = inbox.close();
        assert!(rest.unread.is_empty() && rest.missed && rest.is_news());
    }

    #[test]
    fn a_flow_that_was_stirred_looks_or_learns_of_it_when_it_leaves() {
        let inbox = Inbox::<i32>::new();
        assert!(!inbox.is_stirred() && inbox.stir() && inbox.is_stirred());
        inbox.forget_stirred();
        assert!(!inbox.is_stirred() && inbox.stir());
        let rest = inbox.close();
        assert!(rest.stirred && rest.is_news());
        assert!(!inbox.stir(), "whoever comes later has to bring the flow back");
        assert!(!inbox.close().is_news());
    }

    #[test]
    fn what_is_not_written_yet_comes_back_when_there_is_no_room() {
        let inbox = Inbox::new();
        assert_eq!(inbox.push(1, MAX_QUEUED_BYTES, Kept::NotYet), Ok(()));
        assert_eq!(inbox.push(2, 1, Kept::NotYet), Err(2));
        assert!(!inbox.has_missed(), "the database may not have it yet");
        assert_eq!(inbox.close().unread, [1]);
        assert_eq!(inbox.push(3, 1, Kept::InDatabase), Err(3), "closed");
    }
}
