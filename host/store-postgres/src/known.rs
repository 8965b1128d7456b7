//! What the committer remembers of the database from one batch to the next.
//!
//! Rows of an identity are written only by the run that holds it. So what this run read or wrote under a claim stays true
//! for as long as it holds that very claim, and whether it does is looked at in the statement that writes. An entry
//! carries the claim that it was learnt under, and counts under no other.

use std::collections::HashMap;
use std::hash::Hash;

use maxhost_model::{Claim, FlowRow, IdentityRow};

use crate::pending::StoredFlow;

/// Entries of one half: what was not looked at while a half was filled is forgotten.
const HALF: usize = 65_536;

/// Remembers what was used of late.
#[derive(Debug)]
struct Recent<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
}

impl<K, V> Default for Recent<K, V> {
    fn default() -> Recent<K, V> {
        Recent { young: HashMap::new(), old: HashMap::new() }
    }
}

impl<K: Hash + Eq + Copy, V> Recent<K, V> {
    fn get(&mut self, key: K) -> Option<&V> {
        if let Some(value) = self.old.remove(&key) {
            self.put(key, value);
        }
        self.young.get(&key)
    }

    fn put(&mut self, key: K, value: V) {
        if self.young.len() >= HALF {
            self.old = std::mem::take(&mut self.young);
        }
        self.old.remove(&key);
        self.young.insert(key, value);
    }

    fn remove(&mut self, key: K) -> Option<V> {
        let old = self.old.remove(&key);
        self.young.remove(&key).or(old)
    }

    fn clear(&mut self) {
        self.young.clear();
        self.old.clear();
    }
}

/// What is remembered.
#[derive(Debug, Default)]
pub(crate) struct Known {
    flows: Recent<FlowRow, (Claim, StoredFlow)>,
    /// Initiations that wait, with the bytes of their bodies.
    initiations: Recent<(IdentityRow, i64), (Claim, u64)>,
}

impl Known {
    /// A live flow, if this is the claim that its identity is held under.
    pub(crate) fn flow(&mut self, row: FlowRow, claim: impl Fn(IdentityRow) -> Option<Claim>) -> Option<&StoredFlow> {
        let (learnt, flow) = self.flows.get(row)?;
        (claim(flow.identity) == Some(*learnt)).then_some(flow)
    }

    pub(crate) fn put_flow(&mut self, row: FlowRow, claim: Claim, flow: StoredFlow) {
        self.flows.put(row, (claim, flow));
    }

    pub(crate) fn drop_flow(&mut self, row: FlowRow) {
        self.flows.remove(row);
    }

    /// The bytes of an initiation that waits.
    pub(crate) fn initiation(&mut self, key: (IdentityRow, i64), claim: Option<Claim>) -> Option<u64> {
        let (learnt, bytes) = self.initiations.get(key)?;
        (claim == Some(*learnt)).then_some(*bytes)
    }

    pub(crate) fn put_initiation(&mut self, key: (IdentityRow, i64), claim: Claim, bytes: u64) {
        self.initiations.put(key, (claim, bytes));
    }

    pub(crate) fn drop_initiation(&mut self, key: (IdentityRow, i64)) {
        self.initiations.remove(key);
    }

    /// Nothing is known for sure.
    pub(crate) fn clear(&mut self) {
        self.flows.clear();
        self.initiations.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_used_is_forgotten() {
        let mut recent = Recent::default();
        recent.put(usize::MAX, 0);
        recent.put(usize::MAX - 1, 0);
        for key in 0..2 * HALF {
            recent.put(key, key);
            assert_eq!(recent.get(usize::MAX), Some(&0), "used all the time");
        }
        assert_eq!(recent.get(usize::MAX - 1), None);
        assert!(recent.young.len() + recent.old.len() <= 2 * HALF);
        recent.put(7, 8);
        assert_eq!((recent.remove(7), recent.get(7)), (Some(8), None));
    }
}
