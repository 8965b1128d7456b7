//! When this host is to look at the demand for an identity. A demand is told each time it is raised, so a busy sender may have it
//! told very often; one task waits for all of them.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use maxhost_model::SecureHash;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::base::clock::Moment;

/// The demands that were told to this host and whose turn has not come.
#[derive(Default)]
pub(crate) struct Turns(Mutex<HashMap<SecureHash, Turn>>);

/// What is kept of all that was told of one identity: the first turn, so that nobody waits for longer because others ask too, and
/// the last one, because until then the identity may belong to somebody who lets it go.
struct Turn {
    first: Moment,
    last: Moment,
    again: Arc<Notify>,
    /// What came with the last of them.
    message: Option<Arc<[u8]>>,
}

impl Turns {
    /// It is this host's turn then. True if nobody waits for the identity yet: then whoever tells has somebody wait. A message
    /// takes the place of the one before it.
    pub fn tell(&self, identity: SecureHash, at: Moment, message: Option<Arc<[u8]>>) -> bool {
        match self.0.lock().entry(identity) {
            Entry::Vacant(free) => {
                free.insert(Turn { first: at, last: at, again: Arc::default(), message });
                true
            }
            Entry::Occupied(mut told) => {
                let turn = told.get_mut();
                turn.message = message.or(turn.message.take());
                turn.last = turn.last.max(at);
                turn.first = turn.first.min(at);
                turn.again.notify_one();
                false
            }
        }
    }

    /// The next turn, and what rings when the identity is told again: that turn may be earlier, and what this host put the
    /// identity off for may be over. `None` if nobody need wait.
    pub fn next(&self, identity: &SecureHash) -> Option<(Moment, Arc<Notify>)> {
        self.0.lock().get(identity).map(|turn| (turn.first, turn.again.clone()))
    }

    /// What came with the demand, once.
    pub fn take_message(&self, identity: &SecureHash) -> Option<Arc<[u8]>> {
        self.0.lock().get_mut(identity)?.message.take()
    }

    /// This turn has come. True if there is a later one, which whoever waits waits for too.
    pub fn has_come(&self, identity: SecureHash, at: Moment) -> bool {
        let mut told = self.0.lock();
        let Entry::Occupied(mut known) = told.entry(identity) else { return false };
        let turn = known.get_mut();
        if turn.last > at {
            turn.first = turn.last;
            return true;
        }
        known.remove();
        false
    }

    /// Nobody waits for the identity any more.
    pub fn forget(&self, identity: &SecureHash) {
        self.0.lock().remove(identity);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::FutureExt;

    use super::*;

    const fn at(millis: u64) -> Moment {
        Moment::new(Duration::from_millis(millis))
    }

    #[test]
    fn one_waits_however_often_it_is_told() {
        let (turns, alice, bob) = (Turns::default(), SecureHash::of(b"alice"), SecureHash::of(b"bob"));
        assert!(turns.tell(alice, at(50), None));
        assert!((60..1_000).all(|millis| !turns.tell(alice, at(millis), None)));
        assert!(turns.tell(bob, at(70), None), "of another identity nobody waits");
        assert_eq!(
            turns.next(&alice).map(|(at, _)| at),
            Some(at(50)),
            "nobody waits for longer because others ask too"
        );
        assert!(turns.has_come(alice, at(50)));
        assert_eq!(turns.next(&alice).map(|(at, _)| at), Some(at(999)));
        assert!(!turns.has_come(alice, at(999)));
        assert!(turns.next(&alice).is_none() && turns.tell(alice, at(1_200), None), "the next one is waited for anew");
    }

    #[test]
    fn the_message_that_came_last_is_taken_once() {
        let (turns, alice) = (Turns::default(), SecureHash::of(b"alice"));
        let message = |text: &[u8]| Some(Arc::<[u8]>::from(text));
        turns.tell(alice, at(50), message(b"first"));
        turns.tell(alice, at(60), message(b"second"));
        turns.tell(alice, at(70), None);
        assert_eq!(turns.take_message(&alice), message(b"second"));
        assert_eq!(turns.take_message(&alice), None);
        turns.forget(&alice);
        assert_eq!(turns.take_message(&alice), None);
    }

    #[test]
    fn whoever_waits_hears_that_it_is_told_again() {
        let (turns, alice) = (Turns::default(), SecureHash::of(b"alice"));
        turns.tell(alice, at(2_000), None);
        let again = turns.next(&alice).map(|(_, again)| again).unwrap_or_default();
        assert!(again.notified().now_or_never().is_none());
        for millis in [2_500, 25] {
            turns.tell(alice, at(millis), None);
            assert!(again.notified().now_or_never().is_some());
        }
        assert_eq!(turns.next(&alice).map(|(at, _)| at), Some(at(25)));
        assert!(turns.has_come(alice, at(25)), "and the later ones stay");
        turns.forget(&alice);
        assert!(!turns.has_come(alice, at(2_500)));
    }
}
