//! Starts that go along with a demand, and that the broker is given only if that was not enough.
//!
//! Whoever opens the identity for the demand carries such a start out. Mostly the flow is in the database before a broker would have
//! taken the command, given it out and had it acknowledged, and then none of that need be done. So the broker is given it a while later,
//! by whoever still waits for the flow. Nothing is told to anybody before the flow is in the database, so a host that ends in between has
//! promised nothing.
//!
//! A demand has one message, the last one. So starts of one identity that are under way together are all given to the broker at once.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use maxhost_model::SecureHash;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

/// The identities that starts go along for. Each start has a client that waits, so there are no more than requests may be under way.
#[derive(Default)]
pub(crate) struct StartsAhead(Mutex<HashMap<SecureHash, Together>>);

/// The starts of one identity.
#[derive(Default)]
struct Together {
    starts: usize,
    /// There was more than one: none of them waits.
    are_several: CancellationToken,
}

impl StartsAhead {
    /// A start for this identity goes along with its demand, for as long as what is returned is there.
    pub fn begin(self: &Arc<StartsAhead>, identity: SecureHash) -> Ahead {
        let mut all = self.0.lock();
        let together = all.entry(identity).or_default();
        together.starts += 1;
        if together.starts > 1 {
            together.are_several.cancel();
        }
        Ahead { all: self.clone(), identity, are_several: together.are_several.clone() }
    }
}

/// A start that goes along with a demand.
pub(crate) struct Ahead {
    all: Arc<StartsAhead>,
    identity: SecureHash,
    are_several: CancellationToken,
}

impl Ahead {
    /// Returns when the broker is to be given the start: after this time, or at once if there are several or the demand could not be
    /// raised. `failed` tells the latter, and ends without a word if the demand was raised.
    pub async fn wait(&self, time: Duration, failed: oneshot::Receiver<()>) {
        let failed = async {
            if failed.await.is_err() {
                std::future::pending().await
            }
        };
        tokio::select! {
            () = tokio::time::sleep(time) => {}
            () = failed => {}
            () = self.are_several.cancelled() => {}
        }
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        if let Entry::Occupied(mut together) = self.all.0.lock().entry(self.identity) {
            together.get_mut().starts -= 1;
            if together.get().starts == 0 {
                together.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use tokio::time::Instant;

    use super::*;

    const LONG: Duration = Duration::from_secs(3_600);

    #[tokio::test]
    async fn the_broker_is_given_a_start_after_a_while_or_when_the_demand_was_not_raised() {
        let (starts, alice, short) =
            (Arc::<StartsAhead>::default(), SecureHash::of(b"alice"), Duration::from_millis(20));
        let (raised, failed) = oneshot::channel();
        drop(raised);
        let begun = Instant::now();
        starts.begin(alice).wait(short, failed).await;
        assert!(begun.elapsed() >= short, "the demand was raised");
        let (lost, failed) = oneshot::channel();
        assert!(lost.send(()).is_ok());
        let ahead = starts.begin(alice);
        let waited = tokio::time::timeout(Duration::from_secs(20), ahead.wait(LONG, failed)).await;
        assert!(waited.is_ok(), "the demand was not raised");
    }

    #[tokio::test]
    async fn starts_of_one_identity_that_are_under_way_together_do_not_wait() {
        let (starts, alice, bob) = (Arc::<StartsAhead>::default(), SecureHash::of(b"alice"), SecureHash::of(b"bob"));
        let is_over = |ahead: &Ahead| ahead.wait(LONG, oneshot::channel().1).now_or_never().is_some();
        let (first, of_bob) = (starts.begin(alice), starts.begin(bob));
        let (_raising, failed) = oneshot::channel();
        assert!(first.wait(LONG, failed).now_or_never().is_none());
        let second = starts.begin(alice);
        assert!(is_over(&first) && is_over(&second) && !is_over(&of_bob));
        drop(first);
        let third = starts.begin(alice);
        assert!(is_over(&second) && is_over(&third), "the second is under way");
        drop((second, third));
        assert!(!is_over(&starts.begin(alice)), "the others are over");
        drop(of_bob);
        assert!(starts.0.lock().is_empty(), "nothing is kept of what is over");
    }
}
