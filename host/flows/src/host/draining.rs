//! How a host that was asked to drain, or that stops, gives up what it runs.
//!
//! Each identity is without an owner from the moment at which this host lets it go until another one has claimed it. If all
//! were let go at once, the last would be without one for as long as the others take to claim them all. So some are let go at
//! a time, those with the fewest flows first, and the next when another host has one of them; until then an identity goes on
//! here. If nobody takes what is let go there is nothing to wait for, and all others go at once.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use maxhost_ownership::{Changes, Ownedness};

use crate::base::clock::Moment;
use crate::host::parts::Parts;
use crate::registry::entry::IdentityEntry;
use crate::registry::marks::Mark;

/// Identities that are on their way to other hosts at once. Few, so that none waits long for its new owner; enough to keep those
/// who claim them busy.
const ON_THEIR_WAY: usize = 32;
/// Whoever was not let go after so long keeps the others waiting no more, and if nobody has taken one that was, nobody takes any.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often it is looked how far they are, if no change is told.
const LOOK: Duration = Duration::from_millis(50);

/// Hands over what this host runs when it is asked to, and takes identities again when that is taken back.
pub(crate) async fn follow(parts: Arc<Parts>) {
    let Some(membership) = &parts.membership else { return };
    let (mut draining, mut changes) = (parts.ownership.draining(), parts.ownership.changes());
    let mut leaving = Leaving::default();
    loop {
        let is_draining = *draining.borrow_and_update();
        if is_draining != membership.is_draining() {
            tracing::info!(is_draining, "asked to drain, or to take identities again");
            membership.set_draining(is_draining);
            leaving = Leaving::default();
            // What has changed before concerns nobody who leaves now.
            changes = parts.ownership.changes();
            if is_draining {
                // One that is being opened is told too: it drains once it is open.
                leaving.all(parts.directory.all());
            }
        }
        leaving.go_on(parts.clock.monotonic(), |entry| is_taken(&parts, entry));
        tokio::select! {
            changed = draining.changed() => if changed.is_err() { return },
            () = next_look(&parts, &mut *changes), if leaving.is_any() => {}
            () = parts.stopping.cancelled() => return,
        }
    }
}

/// The same for a host that stops: returns when all are told, and the last may be on their way.
pub(crate) async fn leave(parts: &Parts) {
    let Some(membership) = parts.membership.as_ref().filter(|membership| !membership.runs_none()) else { return };
    let (mut changes, mut leaving) = (parts.ownership.changes(), Leaving::default());
    membership.set_draining(true);
    leaving.all(parts.directory.all());
    loop {
        leaving.go_on(parts.clock.monotonic(), |entry| is_taken(parts, entry));
        if leaving.waiting.is_empty() {
            return;
        }
        next_look(parts, &mut *changes).await;
    }
}

/// Until an owner has changed, or for a while.
async fn next_look(parts: &Parts, changes: &mut dyn Changes) {
    let look = parts.clock.sleep_until(parts.clock.monotonic() + LOOK);
    tokio::select! {
        Some(_) = changes.next() => {}
        () = look => {}
    }
}

/// Whether nobody waits any more for an identity that was let go: another host has it, or that is not known.
fn is_taken(parts: &Parts, entry: &IdentityEntry) -> bool {
    let Some(key) = entry.key() else { return true };
    match parts.ownership.owner_of(&key) {
        Ownedness::Owned(owner) => *owner.host != *parts.ownership.host(),
        Ownedness::Unknown => true,
        Ownedness::Free => false,
    }
}

/// What is to be let go, and what is on its way.
#[derive(Default)]
struct Leaving {
    waiting: VecDeque<Arc<IdentityEntry>>,
    on_their_way: Vec<OnItsWay>,
    /// Nobody takes what is let go.
    at_once: bool,
}

struct OnItsWay {
    entry: Arc<IdentityEntry>,
    told: Moment,
    /// When it was seen first that it is let go.
    free: Option<Moment>,
}

/// What becomes of one that is on its way.
enum Step {
    Stays,
    Done,
    /// It was let go and nobody has taken it.
    NotTaken,
}

impl OnItsWay {
    fn step(&mut self, now: Moment, is_taken: impl FnOnce(&IdentityEntry) -> bool) -> Step {
        if is_busy(&self.entry) {
            return if now.since(self.told) >= PATIENCE { Step::Done } else { Step::Stays };
        }
        let free = *self.free.get_or_insert(now);
        if is_taken(&self.entry) {
            return Step::Done;
        }
        if now.since(free) >= PATIENCE { Step::NotTaken } else { Step::Stays }
    }
}

/// Whether this host runs an identity, or is about to.
fn is_busy(entry: &IdentityEntry) -> bool {
    entry.is_held() || entry.mailbox().is_some()
}

impl Leaving {
    /// All of these are to be let go.
    fn all(&mut self, entries: Vec<Arc<IdentityEntry>>) {
        let mut busy: Vec<_> = entries.into_iter().filter(|entry| is_busy(entry)).collect();
        busy.sort_by_cached_key(|entry| entry.live_flows.load(Ordering::Relaxed));
        self.waiting = busy.into();
    }

    fn is_any(&self) -> bool {
        !self.waiting.is_empty() || !self.on_their_way.is_empty()
    }

    /// Looks how far those are that are on their way, and lets the next go.
    fn go_on(&mut self, now: Moment, is_taken: impl Fn(&IdentityEntry) -> bool) {
        let mut at_once = self.at_once;
        self.on_their_way.retain_mut(|one| match one.step(now, &is_taken) {
            Step::Stays => true,
            Step::Done => false,
            Step::NotTaken => {
                at_once = true;
                false
            }
        });
        self.at_once = at_once;
        while at_once || self.on_their_way.len() < ON_THEIR_WAY {
            let Some(entry) = self.waiting.pop_front() else { return };
            // It may have gone to sleep by itself.
            if is_busy(&entry) {
                entry.marks.set(Mark::Drain);
                self.on_their_way.push(OnItsWay { entry, told: now, free: None });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::cell::RefCell;
    use std::collections::HashSet;

    use maxhost_model::SecureHash;
    use maxhost_store::UNCLAIMED;

    use super::*;
    use crate::options::HostRules;
    use crate::registry::entry::HeldCount;
    use crate::registry::entry::tests::party;

    const MANY: i64 = 100;

    const fn at(millis: u64) -> Moment {
        Moment::new(Duration::from_millis(millis))
    }

    /// Identities that are held; the last has the fewest flows.
    fn held() -> Vec<Arc<IdentityEntry>> {
        let count = HeldCount::default();
        let entry = |number: i64| {
            let entry = party(number, HostRules::default(), &count);
            entry.hold(UNCLAIMED, SecureHash::of(&number.to_be_bytes()), 1);
            entry.live_flows.store((MANY - number).unsigned_abs(), Ordering::Relaxed);
            entry
        };
        (0..MANY).map(entry).collect()
    }

    fn told(entries: &[Arc<IdentityEntry>]) -> Vec<i64> {
        entries.iter().filter(|entry| entry.marks.has(Mark::Drain)).map(|entry| entry.row.0).collect()
    }

    #[test]
    fn the_next_is_let_go_when_another_host_has_one_and_those_with_few_flows_go_first() {
        let (entries, taken) = (held(), RefCell::new(HashSet::new()));
        let is_taken = |entry: &IdentityEntry| taken.borrow().contains(&entry.row);
        let mut leaving = Leaving::default();
        leaving.all(entries.clone());
        leaving.go_on(at(0), is_taken);
        let first = MANY - ON_THEIR_WAY as i64;
        assert_eq!(told(&entries), (first..MANY).collect::<Vec<_>>());
        // Those that are let go keep the others waiting until they are taken.
        entries[99].release();
        entries[98].release();
        leaving.go_on(at(10), is_taken);
        assert_eq!(told(&entries).len(), ON_THEIR_WAY);
        taken.borrow_mut().insert(entries[98].row);
        leaving.go_on(at(20), is_taken);
        assert_eq!(told(&entries), (first - 1..MANY).collect::<Vec<_>>());
        // One that sleeps by now need not be told.
        entries[0].release();
        for entry in &entries[1..] {
            entry.release();
            taken.borrow_mut().insert(entry.row);
        }
        (0..10).for_each(|_| leaving.go_on(at(30), is_taken));
        assert!(!leaving.is_any());
        assert_eq!(told(&entries), (first - 1..MANY).collect::<Vec<_>>());
    }

    #[test]
    fn one_whose_flows_take_long_keeps_nobody_waiting_and_if_nobody_takes_any_all_go() {
        let (entries, mut leaving) = (held(), Leaving::default());
        leaving.all(entries.clone());
        leaving.go_on(at(0), |_| false);
        leaving.go_on(at(999), |_| false);
        assert_eq!(told(&entries).len(), ON_THEIR_WAY);
        leaving.go_on(at(1_000), |_| false);
        assert_eq!(told(&entries).len(), 2 * ON_THEIR_WAY);
        entries[99 - ON_THEIR_WAY].release();
        leaving.go_on(at(1_010), |_| false);
        leaving.go_on(at(2_009), |_| false);
        assert_eq!(told(&entries).len(), 3 * ON_THEIR_WAY - 1, "the others have taken a second, and count no more");
        leaving.go_on(at(2_010), |_| false);
        assert_eq!(told(&entries).len(), MANY as usize);
    }
}
