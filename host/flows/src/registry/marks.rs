//! What an identity has to look after that no command tells it: marks that stay until the identity takes them.

use std::sync::atomic::{AtomicU8, Ordering};

use tokio::sync::Notify;

/// Something to look after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mark {
    /// There is something in the database that no command tells of.
    Behind = 1,
    /// The manifest or the CorDapps have changed.
    Refresh = 2,
    /// The identity is to be let go.
    Drain = 4,
    /// The committer has answered a unit of the identity's own.
    Answered = 8,
    /// The identity is not this host's any more.
    Lost = 16,
}

/// The marks of one identity.
#[derive(Debug, Default)]
pub(crate) struct Marks {
    set: AtomicU8,
    notify: Notify,
}

/// Marks that were taken: whoever takes them looks after them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Taken(u8);

impl Taken {
    pub fn has(self, mark: Mark) -> bool {
        self.0 & mark as u8 != 0
    }
}

impl Marks {
    /// Sets a mark and wakes the identity.
    pub fn set(&self, mark: Mark) {
        self.set.fetch_or(mark as u8, Ordering::AcqRel);
        self.notify.notify_one();
    }

    /// Takes the marks. That the identity is lost stays until its actor has gone: whoever takes the others does not look
    /// after that.
    pub fn take(&self) -> Taken {
        Taken(self.set.fetch_and(Mark::Lost as u8, Ordering::AcqRel))
    }

    /// Takes all of them, for an actor that goes or for one that has just claimed the identity: that it was lost before
    /// concerns neither any more.
    pub fn take_all(&self) -> Taken {
        Taken(self.set.swap(0, Ordering::AcqRel))
    }

    /// The identity is held from now on, so what was said of an earlier ownership is over.
    pub fn is_held_anew(&self) {
        self.set.fetch_and(!(Mark::Lost as u8), Ordering::AcqRel);
    }

    /// Whether there is something to look after. That the identity is lost is not.
    pub fn any_work(&self) -> bool {
        self.set.load(Ordering::Acquire) & !(Mark::Lost as u8) != 0
    }

    /// Whether a mark is set; it stays.
    pub fn has(&self, mark: Mark) -> bool {
        self.set.load(Ordering::Acquire) & mark as u8 != 0
    }

    pub fn any(&self) -> bool {
        self.set.load(Ordering::Acquire) != 0
    }

    /// Until a mark is set. One that is set already counts too.
    pub async fn wait(&self) {
        while !self.any() {
            self.notify.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn a_mark_stays_until_it_is_taken() {
        let marks = Marks::default();
        assert!(marks.wait().now_or_never().is_none());
        marks.set(Mark::Behind);
        marks.set(Mark::Drain);
        assert!(marks.wait().now_or_never().is_some() && marks.wait().now_or_never().is_some());
        let taken = marks.take();
        assert!(taken.has(Mark::Behind) && taken.has(Mark::Drain) && !taken.has(Mark::Refresh));
        assert!(!marks.any() && marks.wait().now_or_never().is_none());
    }

    #[test]
    fn that_an_identity_is_lost_is_not_taken_along_with_something_else() {
        let marks = Marks::default();
        marks.set(Mark::Behind);
        marks.set(Mark::Lost);
        assert!(marks.take().has(Mark::Behind));
        assert!(marks.has(Mark::Lost) && !marks.has(Mark::Behind) && marks.any() && !marks.any_work());
        marks.is_held_anew();
        assert!(!marks.any());
        marks.set(Mark::Lost);
        assert!(marks.take_all().has(Mark::Lost) && !marks.any());
    }
}
