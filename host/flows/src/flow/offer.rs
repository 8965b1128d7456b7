//! What a message that runs ahead of the disk brings along, and how an initiation that does is taken or declined.

use maxhost_store::{AttemptToken, CommitHint};

use crate::flow::speculation::Speculation;

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
    /// True if the message is not to be read now, because its attempt was given up. An attempt may be given up for what
    /// came later, while the message is in the database and nobody has been told so yet: so it is declined, and whoever
    /// learns that it is written brings it again.
    pub fn give_up(&self) -> bool {
        !self.speculation.is_written() && self.sender.is_revoked() && !self.speculation.decline()
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

    /// Whose attempt it is of, unless it is known to be written.
    pub fn sender(&self) -> Option<AttemptToken> {
        (!self.runner.speculation.is_written()).then(|| self.runner.sender.clone())
    }

    /// It is not taken now. True if it is written already: then nobody brings it again.
    pub fn decline(mut self) -> bool {
        self.taken = true;
        self.runner.speculation.decline()
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
        let speculation = Speculation::default();
        assert!(!Offer::new(runner(&speculation)).decline() && speculation.written());
        assert!(Offer::new(runner(&speculation)).decline(), "it is written, and nobody brings it again");
    }

    #[test]
    fn a_message_whose_attempt_was_given_up_is_brought_again_if_it_turns_out_to_be_written() {
        let runner = runner(&Speculation::default());
        assert!(!runner.give_up());
        runner.sender.revoke();
        assert!(runner.give_up());
        assert!(runner.speculation.written(), "whoever is told that it is written has to bring it");
        assert!(!runner.give_up(), "and then it is read");
    }

    #[test]
    fn a_message_that_is_written_is_read_whatever_becomes_of_its_attempt() {
        let runner = runner(&Speculation::default());
        runner.speculation.written();
        runner.sender.revoke();
        assert!(!runner.give_up());
    }
}
