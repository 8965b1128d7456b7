//! What a run is asked to do besides its work. A signal that was raised stays raised for the rest of the run.

use crate::base::sync::{AtomicU8, Ordering};

/// What a run is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signal {
    /// To end now.
    Kill = 1,
    /// To give up the instance at the next wait.
    Evict = 2,
    /// To give up, because a commit failed and nothing after it counts.
    Failed = 4,
    /// To give up the instance for a flow that has none, once this one has got on or waits. Given up before, it would come
    /// back to where it was, and two flows could make room for each other for ever.
    MakeRoom = 8,
}

/// The signals that were raised for one run.
#[derive(Debug)]
pub(crate) struct Signals(AtomicU8);

impl Signals {
    pub fn new() -> Signals {
        Signals(AtomicU8::new(0))
    }

    pub fn raise(&self, signal: Signal) {
        self.0.fetch_or(signal as u8, Ordering::AcqRel);
    }

    pub fn is_raised(&self, signal: Signal) -> bool {
        self.0.load(Ordering::Acquire) & signal as u8 != 0
    }

    pub fn any(&self) -> bool {
        self.0.load(Ordering::Acquire) != 0
    }

    /// Whether one was raised that a run heeds also while it waits for an instance.
    pub fn any_urgent(&self) -> bool {
        self.0.load(Ordering::Acquire) & !(Signal::MakeRoom as u8) != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_stays_raised_beside_others() {
        let signals = Signals::new();
        assert!(!signals.any());
        signals.raise(Signal::Evict);
        signals.raise(Signal::Kill);
        assert!(signals.any() && signals.is_raised(Signal::Evict) && signals.is_raised(Signal::Kill));
        assert!(!signals.is_raised(Signal::Failed));
    }

    #[test]
    fn to_make_room_is_not_urgent() {
        let signals = Signals::new();
        signals.raise(Signal::MakeRoom);
        assert!(signals.any() && !signals.any_urgent());
        signals.raise(Signal::Evict);
        assert!(signals.any_urgent() && signals.is_raised(Signal::MakeRoom));
    }
}
