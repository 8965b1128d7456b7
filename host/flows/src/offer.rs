//! What a message that runs ahead of the disk brings along, and how an initiation that does is taken or declined.

use maxhost_store::{AttemptToken, CommitHint};

use crate::speculation::Speculation;

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
