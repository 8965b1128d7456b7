//! Messages that run ahead of the disk.
//!
//! A message between identities of one database is given to its recipient as soon as the sender's unit is in the
//! committer's queue, so that the recipient works while the disk does. The queue keeps its order and a unit names the
//! attempts it builds on (`depends_on` of a commit unit): what the recipient writes is written after what it has
//! read, or not at all. A crash leaves a prefix of the queue, and nothing leaves the host before it is written, so
//! nobody can tell.
//!
//! Running ahead is an attempt. Whether it succeeded or not, the message is looked after once more when it is written:
//! whoever is second, the one who says that it was not taken or the one who says that it is written, brings it to its
//! recipient in the ordinary way.

use crate::base::sync::{Arc, AtomicU8, Ordering};

const WRITTEN: u8 = 1;
const DECLINED: u8 = 2;

/// How far one message has come. Clones are one and the same.
#[derive(Debug, Clone)]
pub(crate) struct Speculation(Arc<AtomicU8>);

impl Default for Speculation {
    fn default() -> Speculation {
        Speculation(Arc::new(AtomicU8::new(0)))
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_is_second_brings_a_message_that_was_not_taken() {
        let speculation = Speculation::default();
        assert!(!speculation.decline(), "it is not written: who writes it will bring it");
        assert!(speculation.written());
        let speculation = Speculation::default();
        assert!(!speculation.written(), "it is on its way");
        assert!(speculation.decline());
    }
}
