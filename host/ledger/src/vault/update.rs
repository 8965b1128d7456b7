//! What feeds tell: changes of a vault, which add up (behaviour.md 12.1).

use std::collections::BTreeSet;

use maxhost_model::SecureHash;

use crate::refused::{Refused, Result};
use crate::rules::Rule;
use crate::tx::StateRef;

/// What kind of transaction changed a vault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UpdateKind {
    /// An ordinary one.
    #[default]
    General,
    /// A change of notary.
    NotaryChange,
}

/// A change of a vault.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VaultUpdate {
    /// States that are consumed.
    pub consumed: BTreeSet<StateRef>,
    /// States that can be spent now.
    pub produced: BTreeSet<StateRef>,
    /// States that were looked at for the first time.
    pub references: BTreeSet<StateRef>,
    /// The transactions that consume.
    pub transactions: BTreeSet<SecureHash>,
    /// What kind of transaction it was.
    pub kind: UpdateKind,
}

impl VaultUpdate {
    /// Whether it changes nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.consumed.is_empty() && self.produced.is_empty() && self.references.is_empty()
    }

    /// This change and a later one as one. What the first has produced and the second consumed is in neither set.
    ///
    /// # Errors
    /// [`Rule::RecordingInvalid`] for changes of different kinds, unless one of them is empty.
    pub fn plus(&self, later: &VaultUpdate) -> Result<VaultUpdate> {
        if later.is_empty() {
            return Ok(self.clone());
        }
        if self.is_empty() {
            return Ok(later.clone());
        }
        if self.kind != later.kind {
            return Err(Refused::new(Rule::RecordingInvalid, "changes of different kinds do not add up"));
        }
        let passing: BTreeSet<StateRef> = self.produced.intersection(&later.consumed).copied().collect();
        let union = |a: &BTreeSet<StateRef>, b: &BTreeSet<StateRef>| -> BTreeSet<StateRef> {
            a.union(b).filter(|state| !passing.contains(state)).copied().collect()
        };
        Ok(VaultUpdate {
            consumed: union(&self.consumed, &later.consumed),
            produced: union(&self.produced, &later.produced),
            references: self.references.union(&later.references).copied().collect(),
            transactions: self.transactions.union(&later.transactions).copied().collect(),
            kind: self.kind,
        })
    }
}
