//! Who holds which state, and for how long (behaviour.md 12.2).
//!
//! A lock is a lease: it ends with the flow that holds it, or by time, never by a person. It is taken under a claim, whose
//! id a flow derives from its own place, so that a flow that is run again gets the states that it had. Locks are of one
//! vault and never enter the ledger. This is the table in memory that databases are tested against.

use std::collections::{BTreeMap, BTreeSet};

use crate::time::Timestamp;
use crate::tx::StateRef;

/// The holder of a lock: a text that contains the id of a flow, or one that an author has chosen.
pub type Holder = String;

/// A claim: unique in a vault, and the same when a flow is run again.
pub type ClaimId = [u8; 16];

/// Who holds a state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The holder.
    pub holder: Holder,
    /// Under which claim.
    pub claim: ClaimId,
    /// Until when, that point excluded.
    pub until: Timestamp,
}

impl Lease {
    /// Whether it is over.
    #[must_use]
    pub fn is_over(&self, now: Timestamp) -> bool {
        now >= self.until
    }
}

/// Whether a holder may take a state: it is free, its lease is over, or it is the holder's own.
#[must_use]
pub fn is_available(lease: Option<&Lease>, holder: &str, now: Timestamp) -> bool {
    lease.is_none_or(|lease| lease.holder == holder || lease.is_over(now))
}

/// States that could not be reserved; nothing was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} states are consumed, unknown or held by others", .0.len())]
pub struct NotAvailable(pub BTreeSet<StateRef>);

/// The states of a vault that can be spent, and who holds them.
#[derive(Debug, Clone, Default)]
pub struct Locks {
    leases: BTreeMap<StateRef, Option<Lease>>,
}

impl Locks {
    /// A state can be spent now. A fungible one that a flow has made is held by that flow from the start.
    pub fn produced(&mut self, state: StateRef, lease: Option<Lease>) {
        self.leases.entry(state).or_insert(lease);
    }

    /// A state was consumed, and with it its lock.
    pub fn consumed(&mut self, state: &StateRef) {
        self.leases.remove(state);
    }

    /// Who holds a state, if anybody does at this time.
    #[must_use]
    pub fn lease(&self, state: &StateRef, now: Timestamp) -> Option<&Lease> {
        self.leases.get(state)?.as_ref().filter(|lease| !lease.is_over(now))
    }

    /// The states that are held under a claim.
    #[must_use]
    pub fn claimed(&self, claim: &ClaimId, now: Timestamp) -> BTreeSet<StateRef> {
        let held = self.leases.iter().filter(|(state, _)| self.lease(state, now).is_some_and(|l| l.claim == *claim));
        held.map(|(state, _)| *state).collect()
    }

    /// Reserves all of these states, or none. What the holder has already is taken again, with the new claim and lease.
    ///
    /// # Errors
    /// [`NotAvailable`] with each state that is in the way.
    pub fn reserve(&mut self, states: &BTreeSet<StateRef>, lease: &Lease, now: Timestamp) -> Result<(), NotAvailable> {
        let available = |state: &&StateRef| {
            self.leases.get(state).is_some_and(|held| is_available(held.as_ref(), &lease.holder, now))
        };
        let missing: BTreeSet<StateRef> = states.iter().filter(|state| !available(state)).copied().collect();
        if !missing.is_empty() {
            return Err(NotAvailable(missing));
        }
        for state in states {
            self.leases.insert(*state, Some(lease.clone()));
        }
        Ok(())
    }

    /// Lengthens all leases of a holder that are not over, never shortens one.
    pub fn renew(&mut self, holder: &str, until: Timestamp, now: Timestamp) {
        for lease in self.leases.values_mut().flatten().filter(|lease| lease.holder == holder && !lease.is_over(now)) {
            lease.until = lease.until.max(until);
        }
    }

    /// Releases these states, or all, of a holder: when its flow ends, in whatever way, or when it asks.
    pub fn release(&mut self, holder: &str, states: Option<&BTreeSet<StateRef>>) {
        for (state, lease) in &mut self.leases {
            let meant = states.is_none_or(|states| states.contains(state));
            if meant && lease.as_ref().is_some_and(|lease| lease.holder == holder) {
                *lease = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;
    use crate::fixtures::reference;

    fn at(nanos: u64) -> Timestamp {
        Timestamp::from_nanos(nanos)
    }

    fn lease(holder: &str, claim: u8, until: u64) -> Lease {
        Lease { holder: holder.to_owned(), claim: [claim; 16], until: at(until) }
    }

    fn states(numbers: &[u32]) -> BTreeSet<StateRef> {
        numbers.iter().copied().map(reference).collect()
    }

    fn locks(count: u32) -> Locks {
        let mut locks = Locks::default();
        (0..count).for_each(|number| locks.produced(reference(number), None));
        locks
    }

    #[test]
    fn all_or_nothing() {
        let mut locks = locks(4);
        locks.reserve(&states(&[0, 1]), &lease("a", 1, 10), at(0)).unwrap();
        assert_eq!(locks.reserve(&states(&[1, 2]), &lease("b", 2, 10), at(0)), Err(NotAvailable(states(&[1]))));
        assert_eq!(locks.lease(&reference(2), at(0)), None);
        assert_eq!(locks.reserve(&states(&[9]), &lease("b", 2, 10), at(0)), Err(NotAvailable(states(&[9]))));
        // The same holder may take more, and keeps what it has.
        locks.reserve(&states(&[0, 1, 2]), &lease("a", 3, 20), at(0)).unwrap();
        assert_eq!(locks.claimed(&[3; 16], at(0)), states(&[0, 1, 2]));
    }

    #[test]
    fn a_lock_ends_with_its_flow_or_its_lease() {
        let mut locks = locks(3);
        locks.reserve(&states(&[0, 1]), &lease("a", 1, 10), at(0)).unwrap();
        locks.renew("a", at(15), at(9));
        locks.renew("a", at(12), at(9));
        assert!(locks.lease(&reference(0), at(14)).is_some());
        assert!(locks.reserve(&states(&[0]), &lease("b", 2, 30), at(14)).is_err());
        locks.reserve(&states(&[0]), &lease("b", 2, 30), at(15)).unwrap();
        // What is over is not renewed, and what another has taken since is not released.
        locks.renew("a", at(50), at(15));
        assert_eq!(locks.lease(&reference(1), at(15)), None);
        locks.release("a", None);
        assert_eq!(locks.lease(&reference(0), at(20)).unwrap().holder, "b");
        locks.release("b", Some(&states(&[1])));
        assert!(locks.lease(&reference(0), at(20)).is_some());
        locks.release("b", None);
        assert_eq!(locks.lease(&reference(0), at(20)), None);
    }

    #[test]
    fn consuming_clears_a_lock_and_recording_again_does_not_free_one() {
        let mut locks = locks(1);
        locks.reserve(&states(&[0]), &lease("a", 1, 10), at(0)).unwrap();
        locks.produced(reference(0), None);
        assert!(locks.lease(&reference(0), at(0)).is_some());
        locks.consumed(&reference(0));
        assert!(locks.reserve(&states(&[0]), &lease("a", 1, 10), at(0)).is_err());
    }

    proptest! {
        /// At no time do two holders have one state, whatever they ask for.
        #[test]
        fn nobody_loses_a_state_that_is_held(steps in proptest::collection::vec((0_u8..3, proptest::collection::btree_set(0_u32..6, 1..4), 0_u64..5, any::<bool>()), 1..40)) {
            let mut locks = locks(6);
            for (now, (who, wanted, length, release)) in (0_u64..).zip(steps) {
                let holder = format!("flow {who}");
                let wanted: BTreeSet<StateRef> = wanted.into_iter().map(reference).collect();
                let before = locks.clone();
                if release {
                    locks.release(&holder, Some(&wanted));
                } else {
                    let taken = locks.reserve(&wanted, &lease(&holder, who, now + length), at(now)).is_ok();
                    let free = wanted.iter().all(|s| before.lease(s, at(now)).is_none_or(|l| l.holder == holder));
                    prop_assert_eq!(taken, free);
                }
                for state in (0..6).map(reference) {
                    if let Some(held) = before.lease(&state, at(now)).filter(|held| held.holder != holder) {
                        prop_assert_eq!(locks.lease(&state, at(now)), Some(held));
                    }
                }
            }
        }
    }
}
