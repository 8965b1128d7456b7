//! Messages that run ahead of the disk.
//!
//! A message between identities of one database is given to its recipient as soon as the sender's unit is in the
//! committer's queue, so that the recipient works while the disk does. The queue keeps its order and a unit names the
//! attempts it builds on ([`maxhost_store::CommitUnit::depends_on`]): what the recipient writes is written after what it has
//! read, or not at all. A crash leaves a prefix of the queue, and nothing leaves the host before it is written, so
//! nobody can tell.
//!
//! Running ahead is an attempt. Whether it succeeded or not, the message is looked after once more when it is written:
//! whoever is second, the one who says that it was not taken or the one who says that it is written, brings it to its
//! recipient in the ordinary way.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use maxhost_store::{AttemptToken, CommitHint};

const WRITTEN: u8 = 1;
const DECLINED: u8 = 2;

/// How far one message has come. Clones are one and the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct Speculation(Arc<AtomicU8>);

impl Speculation {
    /// The recipient did not take it. True if it is written already, so that nobody else will bring it.
    pub fn decline(&self) -> bool {
        self.0.fetch_or(DECLINED, Ordering::AcqRel) & WRITTEN != 0
    }

    /// It is written. True if it was not taken before, so that it has to be brought now.
    pub fn written(&self) -> bool {
        self.0.fetch_or(WRITTEN, Ordering::AcqRel) & DECLINED != 0
    }

    pub fn is_written(&self) -> bool {
        self.0.load(Ordering::Acquire) & WRITTEN != 0
    }
}

/// What a message that ran ahead brings along: whose attempt it is of, and how far it has come.
#[derive(Debug)]
pub(crate) struct Runner {
    pub sender: AttemptToken,
    pub speculation: Speculation,
    /// The reader is likely to answer.
    #[expect(dead_code, reason = "held until the message is read")]
    pub answer: Option<CommitHint>,
}

impl Runner {
    /// True if the message was never written and never will be.
    pub fn is_void(&self) -> bool {
        !self.speculation.is_written() && self.sender.is_revoked()
    }
}

/// An initiation in the recipient's hands: not taken until he says so.
#[derive(Debug)]
pub(crate) struct Offer {
    runner: Runner,
    taken: bool,
}

impl Offer {
    pub fn new(runner: Runner) -> Offer {
        Offer { runner, taken: false }
    }

    pub fn take(mut self) {
        self.taken = true;
    }
}

impl Drop for Offer {
    fn drop(&mut self) {
        if !self.taken {
            // If it is written already it is in the database, and whoever declines looks there again.
            self.runner.speculation.decline();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runner(speculation: &Speculation) -> Runner {
        Runner { sender: AttemptToken::new(), speculation: speculation.clone(), answer: None }
    }

    #[test]
    fn whoever_is_second_brings_a_message_that_was_not_taken() {
        let speculation = Speculation::default();
        assert!(!speculation.decline(), "it is not written: who writes it will bring it");
        assert!(speculation.written());
        let speculation = Speculation::default();
        assert!(!speculation.written(), "it is on its way");
        assert!(speculation.decline());
    }

    #[test]
    fn an_offer_is_declined_unless_it_is_taken() {
        let speculation = Speculation::default();
        Offer::new(runner(&speculation)).take();
        assert!(!speculation.written());
        let speculation = Speculation::default();
        drop(Offer::new(runner(&speculation)));
        assert!(speculation.written());
    }

    #[test]
    fn a_message_is_void_when_its_attempt_failed_before_it_was_written() {
        let runner = runner(&Speculation::default());
        assert!(!runner.is_void());
        runner.sender.revoke();
        assert!(runner.is_void());
        runner.speculation.written();
        assert!(!runner.is_void());
    }
}
