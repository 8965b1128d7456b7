//! Selecting states for an amount (behaviour.md 12.3).

use std::collections::BTreeSet;

use maxhost_model::SecureHash;

use super::locks::{Holder, Lease, is_available};
use crate::time::Timestamp;
use crate::tx::StateRef;

/// The most states that one selection takes: a transaction with them stays within what a notary takes at once.
pub const MAX_SELECTED: usize = 5_000;

/// How many of the smallest states a selection takes along, so that change does not gather for ever.
const SWEPT: usize = 2;

/// A selection of fewer states than this takes some along.
const SWEEP_BELOW: usize = 8;

/// A state that could be taken: one's own, unconsumed, of the right token and notary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The state.
    pub reference: StateRef,
    /// Its quantity.
    pub quantity: u64,
    /// Who holds it.
    pub lease: Option<Lease>,
    /// The transaction in flight that it is an input of. Nobody may take it until that is settled, not even its holder.
    pub in_flight: Option<SecureHash>,
}

/// What is selected for.
#[derive(Debug, Clone, Copy)]
pub struct Need<'a> {
    /// How much.
    pub quantity: u64,
    /// Who will hold the states.
    pub holder: &'a str,
    /// The time.
    pub now: Timestamp,
    /// Decides among states that serve equally well. Different flows have different seeds, so that they do not all want
    /// the same states.
    pub seed: u64,
}

/// Why states could not be selected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectionFailure {
    /// There is not enough, held by others or not. Waiting does not help.
    #[error("{needed} are needed, and there are {have}")]
    Insufficient {
        /// How much is needed.
        needed: u64,
        /// How much there is.
        have: u128,
    },
    /// There is enough, but others hold too much of it. Try again when they let go.
    #[error("{needed} are needed; there is enough, but {amount} are held by others, {}", how_long(.soonest.as_ref()))]
    Locked {
        /// How much is needed.
        needed: u64,
        /// How much others hold.
        amount: u128,
        /// Who they are: holders of leases, and `transaction ID` of what is in flight and held by nobody else.
        holders: BTreeSet<Holder>,
        /// When the first of their leases ends, if none of them lets go before; `None` if all of it is in flight.
        soonest: Option<Timestamp>,
    },
    /// Others held too much of it for as long as the caller would wait.
    #[error("{needed} are needed, and others held too much of it for {waited_ms} ms")]
    TimedOut {
        /// How much is needed.
        needed: u64,
        /// How long the caller waited, in milliseconds.
        waited_ms: u64,
    },
    /// There is enough, but in more states than one transaction takes.
    #[error("{needed} are needed, and the largest {} states hold {most}", MAX_SELECTED)]
    Fragmented {
        /// How much is needed.
        needed: u64,
        /// How much the largest states that fit hold.
        most: u128,
    },
}

impl SelectionFailure {
    /// The stable word: the type of the exception that a flow ends with.
    #[must_use]
    pub fn exception(&self) -> &'static str {
        match self {
            SelectionFailure::Insufficient { .. } => "vault/insufficient",
            SelectionFailure::Locked { .. } => "vault/locked",
            SelectionFailure::TimedOut { .. } => "vault/timed-out",
            SelectionFailure::Fragmented { .. } => "vault/fragmented",
        }
    }

    /// Whether waiting may help.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, SelectionFailure::Locked { .. } | SelectionFailure::TimedOut { .. })
    }
}

/// The bucket of a quantity, by which states are indexed: one for each power of two; 0 is in bucket 0.
#[must_use]
pub fn bucket(quantity: u64) -> u8 {
    u8::try_from(u64::BITS - quantity.leading_zeros()).unwrap_or(u8::MAX)
}

/// Where a state stands in the shuffled order of its bucket.
#[must_use]
pub fn shuffled(seed: u64, state: &StateRef) -> [u8; 8] {
    let bytes = [&seed.to_be_bytes()[..], state.tx.as_bytes(), &state.index.to_be_bytes()].concat();
    let mut place = [0; 8];
    place.copy_from_slice(&SecureHash::of(&bytes).as_bytes()[..8]);
    place
}

/// Selects states of at least the quantity needed; nothing for zero. One state that is enough is preferred, of the
/// smallest bucket that has one; else few large states. None is taken that is not needed, but for some of the smallest.
///
/// # Errors
/// [`SelectionFailure`], but not timed out: waiting is the caller's.
pub fn select(candidates: &[Candidate], need: Need<'_>) -> Result<Vec<StateRef>, SelectionFailure> {
    if need.quantity == 0 {
        return Ok(Vec::new());
    }
    let mut free: Vec<&Candidate> = Vec::new();
    let mut held: Vec<Held> = Vec::new();
    for candidate in candidates.iter().filter(|candidate| candidate.quantity > 0) {
        match Held::of(candidate, need) {
            Some(by) => held.push(by),
            None => free.push(candidate),
        }
    }
    let needed = u128::from(need.quantity);
    let total = |of: &[&Candidate]| of.iter().map(|candidate| u128::from(candidate.quantity)).sum::<u128>();
    if total(&free) < needed {
        return Err(too_little(need.quantity, total(&free), &held));
    }
    // The largest bucket first, shuffled inside of it.
    free.sort_by_cached_key(|candidate| {
        (std::cmp::Reverse(bucket(candidate.quantity)), shuffled(need.seed, &candidate.reference))
    });
    let taken = match smallest_that_is_enough(&free, need.quantity) {
        Some(one) => vec![one],
        None => largest(&free, needed)?,
    };
    Ok(with_dust(taken, &free).into_iter().map(|candidate| candidate.reference).collect())
}

/// A state that cannot be taken now.
struct Held {
    quantity: u64,
    holder: Holder,
    /// When its lease ends. What is in flight is free when its transaction is settled, however long that takes.
    until: Option<Timestamp>,
}

impl Held {
    /// `None`: it can be taken.
    fn of(candidate: &Candidate, need: Need<'_>) -> Option<Held> {
        let others = candidate.lease.as_ref().filter(|lease| !is_available(Some(lease), need.holder, need.now));
        let (holder, until) = match (&candidate.in_flight, others) {
            (None, None) => return None,
            (None, Some(lease)) => (lease.holder.clone(), Some(lease.until)),
            (Some(_), Some(lease)) => (lease.holder.clone(), None),
            (Some(id), None) => (format!("transaction {id}"), None),
        };
        Some(Held { quantity: candidate.quantity, holder, until })
    }
}

fn too_little(needed: u64, free: u128, held: &[Held]) -> SelectionFailure {
    let amount: u128 = held.iter().map(|by| u128::from(by.quantity)).sum();
    if free + amount < u128::from(needed) {
        return SelectionFailure::Insufficient { needed, have: free + amount };
    }
    let holders = held.iter().map(|by| by.holder.clone()).collect();
    SelectionFailure::Locked { needed, amount, holders, soonest: held.iter().filter_map(|by| by.until).min() }
}

fn how_long(soonest: Option<&Timestamp>) -> String {
    match soonest {
        Some(soonest) => format!("at the longest until {soonest}"),
        None => "by transactions that are not settled yet".to_owned(),
    }
}

/// The first, in shuffled order, of the smallest bucket that has a state which is enough.
fn smallest_that_is_enough<'a>(free: &[&'a Candidate], needed: u64) -> Option<&'a Candidate> {
    let enough = free.iter().filter(|candidate| candidate.quantity >= needed);
    enough.min_by_key(|candidate| bucket(candidate.quantity)).copied()
}

fn largest<'a>(free: &[&'a Candidate], needed: u128) -> Result<Vec<&'a Candidate>, SelectionFailure> {
    let mut taken: Vec<&Candidate> = Vec::new();
    let mut sum = 0_u128;
    for candidate in free.iter().take(MAX_SELECTED) {
        if sum >= needed {
            break;
        }
        sum += u128::from(candidate.quantity);
        taken.push(candidate);
    }
    if sum < needed {
        let needed = u64::try_from(needed).unwrap_or(u64::MAX);
        return Err(SelectionFailure::Fragmented { needed, most: sum });
    }
    // Inside a bucket the order is not that of size, so some may turn out not to be needed.
    taken.sort_by_key(|candidate| std::cmp::Reverse(candidate.quantity));
    while let Some(last) = taken.last().filter(|last| sum - u128::from(last.quantity) >= needed) {
        sum -= u128::from(last.quantity);
        taken.pop();
    }
    Ok(taken)
}

/// Takes some of the smallest states along: of buckets below that of the smallest state that is taken for its amount.
fn with_dust<'a>(mut taken: Vec<&'a Candidate>, free: &[&'a Candidate]) -> Vec<&'a Candidate> {
    let Some(least) = taken.iter().map(|candidate| bucket(candidate.quantity)).min() else { return taken };
    if taken.len() < SWEEP_BELOW {
        let dust = free.iter().rev().filter(|candidate| bucket(candidate.quantity) < least);
        taken.extend(dust.take(SWEPT));
    }
    taken
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;
    use crate::fixtures::reference;

    fn candidate(number: u32, quantity: u64) -> Candidate {
        Candidate { reference: reference(number), quantity, lease: None, in_flight: None }
    }

    fn held(number: u32, quantity: u64, holder: &str, until: u64) -> Candidate {
        let lease = Lease { holder: holder.to_owned(), claim: [1; 16], until: Timestamp::from_nanos(until) };
        Candidate { lease: Some(lease), ..candidate(number, quantity) }
    }

    fn need(quantity: u64) -> Need<'static> {
        Need { quantity, holder: "me", now: Timestamp::from_nanos(5), seed: 1 }
    }

    fn sum(candidates: &[Candidate], taken: &[StateRef]) -> u128 {
        let of = |state: &StateRef| candidates.iter().find(|c| c.reference == *state).unwrap().quantity;
        taken.iter().map(|state| u128::from(of(state))).sum()
    }

    #[test]
    fn one_state_that_is_enough_is_preferred() {
        let candidates = [candidate(1, 1000), candidate(2, 50), candidate(3, 60), candidate(4, 5)];
        let taken = select(&candidates, need(55)).unwrap();
        assert_eq!(taken, [reference(3), reference(4)], "and the dust");
        assert_eq!(select(&candidates, need(0)).unwrap(), []);
        assert_eq!(select(&candidates, need(1115)).unwrap().len(), 4);
    }

    #[test]
    fn three_kinds_of_failure() {
        let candidates = [candidate(1, 10), held(2, 20, "b", 100), held(3, 5, "a", 50), held(4, 7, "old", 5)];
        assert_eq!(select(&candidates, need(43)), Err(SelectionFailure::Insufficient { needed: 43, have: 42 }));
        let locked = SelectionFailure::Locked {
            needed: 18,
            amount: 25,
            holders: ["a".to_owned(), "b".to_owned()].into(),
            soonest: Some(Timestamp::from_nanos(50)),
        };
        assert_eq!(select(&candidates, need(18)), Err(locked.clone()));
        assert!(locked.is_transient());
        // The lease of 4 is over.
        assert_eq!(select(&candidates, need(17)).unwrap().len(), 2);
        let own = Need { holder: "b", ..need(37) };
        assert_eq!(sum(&candidates, &select(&candidates, own).unwrap()), 37);
    }

    #[test]
    fn what_is_in_flight_is_held() {
        let id = SecureHash::of(b"sent");
        let sent = |candidate: Candidate| Candidate { in_flight: Some(id), ..candidate };
        let candidates =
            [candidate(1, 10), sent(held(2, 20, "b", 100)), sent(held(3, 5, "me", 100)), sent(candidate(4, 7))];
        assert_eq!(select(&candidates, need(10)).unwrap(), [reference(1)]);
        assert_eq!(select(&candidates, need(43)), Err(SelectionFailure::Insufficient { needed: 43, have: 42 }));
        let (one, transaction) = ("b".to_owned(), format!("transaction {id}"));
        let locked =
            SelectionFailure::Locked { needed: 42, amount: 32, holders: [one, transaction].into(), soonest: None };
        assert_eq!(select(&candidates, need(42)), Err(locked.clone()), "not even what this holder has locked is free");
        assert!(locked.is_transient());
        let text =
            "42 are needed; there is enough, but 32 are held by others, by transactions that are not settled yet";
        assert_eq!(locked.to_string(), text);
    }

    #[test]
    fn the_number_of_states_is_bounded() {
        let count = u32::try_from(MAX_SELECTED).unwrap();
        let candidates: Vec<Candidate> = (0..count + 5).map(|number| candidate(number, 1)).collect();
        assert_eq!(select(&candidates, need(u64::from(count))).unwrap().len(), MAX_SELECTED);
        let most = u128::from(count);
        let failure = SelectionFailure::Fragmented { needed: u64::from(count) + 1, most };
        assert_eq!(select(&candidates, need(u64::from(count) + 1)), Err(failure));
    }

    #[test]
    fn flows_with_different_seeds_want_different_states() {
        let candidates: Vec<Candidate> = (0..64).map(|number| candidate(number, 100)).collect();
        let first = |seed| select(&candidates, Need { seed, ..need(100) }).unwrap()[0];
        let wanted: BTreeSet<StateRef> = (0..64).map(first).collect();
        assert!(wanted.len() > 30, "{}", wanted.len());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]

        #[test]
        fn enough_is_taken_and_nothing_without_need(quantities in proptest::collection::vec((0_u64..200, any::<bool>()), 0..40), wanted in 1_u64..2000, seed in any::<u64>()) {
            let make = |(number, (quantity, other)): (u32, (u64, bool))| {
                if other { held(number, quantity, "other", 9) } else { candidate(number, quantity) }
            };
            let candidates: Vec<Candidate> = (0_u32..).zip(quantities).map(make).collect();
            let free: u64 = candidates.iter().filter(|c| c.lease.is_none()).map(|c| c.quantity).sum();
            let all: u64 = candidates.iter().map(|c| c.quantity).sum();
            match select(&candidates, Need { seed, ..need(wanted) }) {
                Ok(taken) => {
                    prop_assert!(sum(&candidates, &taken) >= u128::from(wanted));
                    prop_assert_eq!(taken.iter().collect::<BTreeSet<_>>().len(), taken.len());
                    let others = candidates.iter().filter(|c| c.lease.is_some());
                    prop_assert!(others.map(|c| c.reference).all(|held| !taken.contains(&held)));
                    // Without the dust, and one less, it would not be enough.
                    let mut largest: Vec<u64> = taken.iter().map(|t| candidates.iter().find(|c| c.reference == *t).unwrap().quantity).collect();
                    largest.sort_unstable();
                    let spare = largest.len().saturating_sub(1).min(SWEPT);
                    let last = largest.len() - 1;
                    let kept: u64 = largest[spare.min(last)..].iter().sum();
                    prop_assert!(kept - largest[spare.min(last)] < wanted);
                }
                Err(SelectionFailure::Insufficient { have, .. }) => {
                    prop_assert_eq!(have, u128::from(all));
                    prop_assert!(all < wanted);
                }
                Err(SelectionFailure::Locked { amount, .. }) => {
                    prop_assert_eq!(amount, u128::from(all - free));
                    prop_assert!(all >= wanted && free < wanted);
                }
                Err(other) => prop_assert!(false, "{}", other),
            }
        }
    }
}
