//! What becomes of requests, in numbers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::held::Held;

/// Counted since the host was started.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub answered: AtomicU64,
    pub refused: AtomicU64,
    pub dropped: AtomicU64,
    pub put_back: AtomicU64,
}

impl Counts {
    pub fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// What has become of the requests that this host was given.
#[derive(Clone)]
pub struct MessageCounts {
    pub(super) counts: Arc<Counts>,
    pub(super) held: Arc<Held>,
}

impl MessageCounts {
    /// How many were: `answered` with what was asked for; `refused`, which is answered with an error; `dropped`, because there is
    /// nobody to answer to; `put-back`, to be looked at again later.
    #[must_use]
    pub fn outcomes(&self) -> [(&'static str, u64); 4] {
        let Counts { answered, refused, dropped, put_back, .. } = &*self.counts;
        [("answered", answered), ("refused", refused), ("dropped", dropped), ("put-back", put_back)]
            .map(|(outcome, count)| (outcome, count.load(Ordering::Relaxed)))
    }

    /// How many wait for the end of a flow, or for trouble to pass, in this host.
    #[must_use]
    pub fn waiting(&self) -> u64 {
        self.held.len()
    }
}
