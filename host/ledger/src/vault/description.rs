//! What a contract says of a state to the vault (behaviour.md 12.9).

use std::collections::BTreeMap;

use maxhost_model::{PublicKey, X500Name};

use super::query::Value;
use super::recording::Described;
use crate::time::Timestamp;

/// A key that has to do with a state, and whose it is if the state says so. An anonymous party is a key alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Participant {
    /// The key.
    pub key: PublicKey,
    /// The name, if the state gives one.
    pub name: Option<X500Name>,
}

/// An amount of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FungibleAmount {
    /// In the smallest unit; at most 63 bits.
    pub quantity: u64,
    /// Which token, for example `GBP`.
    pub token: String,
    /// Who owes it, if somebody does.
    pub issuer: Option<Participant>,
}

/// Something that is to be done about a state at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Activity {
    /// The moment at which it is due.
    pub at: Timestamp,
    /// The flow, as `cordapp/flow`; it is given the reference of the state.
    pub flow: String,
}

/// What a contract says of a state.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StateDescription {
    /// Those whom it concerns.
    pub participants: Vec<Participant>,
    /// Who may spend it, for a state with an owner.
    pub owner: Option<Participant>,
    /// What stays the same from version to version of one thing: a UUID.
    pub linear_id: Option<[u8; 16]>,
    /// What that thing is called elsewhere.
    pub external_id: Option<String>,
    /// How much it is worth, for a state that can be split and merged.
    pub amount: Option<FungibleAmount>,
    /// What is to be done next.
    pub next_activity: Option<Activity>,
    /// What can be asked for besides the fields of its data.
    pub attributes: BTreeMap<String, Value>,
}

impl StateDescription {
    /// As far as recording looks at it.
    #[must_use]
    pub fn for_recording(&self) -> Described {
        Described {
            participants: self.participants.iter().map(|one| one.key.clone()).collect(),
            owner: self.owner.as_ref().map(|owner| owner.key.clone()),
            fungible: self.amount.is_some(),
        }
    }
}
