//! Changes of notary: a state that another notary keeps from then on, and nothing else about it changes.

use serde::de::DeserializeOwned;

use super::{StateAndRef, StatesToRecord, numbers, read_all};
use crate::bindings::maxhost::cordapp::ledger as wit;
use crate::error::Result;
use crate::host;
use crate::party::Party;
use crate::session::Session;

/// Has another notary of the network keep a state of the vault, with all that it can only be spent together with, and gives the
/// state as it is then. Every participant signs, the old notary notarises, no contract is asked, and all participants record
/// it. A participant answers by itself, or with a flow that calls [`Session::receive_notary_change`].
///
/// ```no_run
/// # use maxhost_sdk::prelude::*;
/// # use maxhost_sdk::ledger::{Query, change_notary};
/// # #[derive(Serialize, Deserialize)] struct Cash { quantity: u64 }
/// # fn consolidate(to: &Party) -> Result<()> {
/// for state in Query::of("cash/Cash").own().find::<Cash>()? {
///     if state.notary != *to {
///         change_notary(&state, to)?;
///     }
/// }
/// # Ok(()) }
/// ```
///
/// # Errors
/// A flow exception of type `ledger/rejected`; its data have the code: `notary-untrusted` if it is no notary of the network,
/// `notary-unchanged` if it keeps the state already, `state-unknown`, `state-consumed`, `key-not-own` if this identity takes no
/// part in the state, `notary-change-refused` if a participant does not sign. Of type `vault/locked` if another flow holds the
/// state; of type `notary/conflict` if the old notary knows of another transaction that consumes it.
pub fn change_notary<T: DeserializeOwned>(state: &StateAndRef<T>, notary: &Party) -> Result<StateAndRef<T>> {
    StateAndRef::read(host::change_notary(&state.reference, notary.name())?)
}

/// As [`change_notary`], while others look on, whom the state does not concern: when every participant has signed they get the
/// change with all that it comes from, and each runs [`Session::observe_notary_change`]. One who does not take it ends the change.
///
/// ```no_run
/// # use maxhost_sdk::prelude::*;
/// # use maxhost_sdk::ledger::{StateAndRef, change_notary_observed};
/// # fn reported(debt: &StateAndRef<u64>, to: &Party, supervisor: Session) -> Result<()> {
/// let debt = change_notary_observed(debt, to, &[supervisor])?;
/// # Ok(()) }
/// ```
///
/// # Errors
/// As there; `IllegalArgument` if a session is given twice, or is one with this identity itself.
pub fn change_notary_observed<T: DeserializeOwned>(
    state: &StateAndRef<T>,
    notary: &Party,
    observers: &[impl AsRef<Session>],
) -> Result<StateAndRef<T>> {
    change_notary_with(state, notary, observers, StatesToRecord::default())
}

/// As [`change_notary_observed`], with a choice of what comes into this identity's own vault.
///
/// # Errors
/// As there.
pub fn change_notary_with<T: DeserializeOwned>(
    state: &StateAndRef<T>,
    notary: &Party,
    observers: &[impl AsRef<Session>],
    states: StatesToRecord,
) -> Result<StateAndRef<T>> {
    let observers = numbers(observers);
    StateAndRef::read(host::change_notary_with(&state.reference, notary.name(), &observers, states.into())?)
}

/// A change of notary that another participant proposes, or at which this identity looks on.
#[derive(Debug, Clone)]
pub struct NotaryChange(wit::NotaryChange);

impl NotaryChange {
    /// The id of its transaction.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.0.id
    }

    /// Who keeps the states.
    #[must_use]
    pub fn notary(&self) -> Party {
        Party::named(self.0.notary.clone())
    }

    /// Who is to keep them.
    #[must_use]
    pub fn new_notary(&self) -> Party {
        Party::named(self.0.new_notary.clone())
    }

    /// The types of the states that move, `contract/type`, in their order.
    pub fn state_types(&self) -> impl Iterator<Item = &str> {
        self.0.states.iter().map(|state| state.state_type.as_str())
    }

    /// Those of the states that are of this type, as they are before.
    ///
    /// # Errors
    /// Data of another type.
    pub fn of<T: DeserializeOwned>(&self, state_type: &str) -> Result<Vec<StateAndRef<T>>> {
        read_all(self.0.states.iter().filter(|state| state.state_type == state_type).cloned().collect())
    }
}

impl Session {
    /// Gets a change of notary that this identity should sign, judged with all that it comes from. A flow that responds to
    /// `maxhost/change-notary` calls it, decides in place of the platform for all states of its identity, and ends with
    /// [`Session::accept_notary_change`], or with an exception, which refuses.
    ///
    /// # Errors
    /// A flow exception of type `ledger/rejected`; what the peer sends instead.
    pub fn receive_notary_change(&self) -> Result<NotaryChange> {
        Ok(NotaryChange(host::receive_notary_change(self.0)?))
    }

    /// Signs a change of notary that came with [`Session::receive_notary_change`], and takes part in it until it is recorded.
    ///
    /// # Errors
    /// A flow exception of the old notary; what the peer sends instead.
    pub fn accept_notary_change(&self, change: &NotaryChange) -> Result<()> {
        host::accept_notary_change(self.0, &change.0.bytes)?;
        Ok(())
    }

    /// Gets a change of notary at which this identity looks on, verifies it with all that it comes from, and makes it part of
    /// the ledger when the old notary has notarised it. `states` says which of the states that it makes come into the vault,
    /// and is this identity's to say. The other side runs [`change_notary_observed`].
    ///
    /// # Errors
    /// A flow exception of type `ledger/rejected`, or of the old notary; what the peer sends instead.
    pub fn observe_notary_change(&self, states: StatesToRecord) -> Result<NotaryChange> {
        Ok(NotaryChange(host::observe_notary_change(self.0, states.into())?))
    }
}
