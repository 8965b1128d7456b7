//! Waiting for what other flows of this identity record.

use super::Transaction;
use crate::error::Result;
use crate::host;
use crate::time::Timestamp;

/// Waits until a transaction is part of this identity's ledger, verified, whichever of its flows records it, and gives it: at
/// once, if it is there already. `None` at the deadline; without one the flow waits as long as it takes.
///
/// ```no_run
/// # use std::time::Duration;
/// # use maxhost_sdk::prelude::*;
/// # use maxhost_sdk::ledger::wait_for_ledger_commit;
/// # fn settled(id: &str) -> Result<()> {
/// match wait_for_ledger_commit(id, now() + Duration::from_secs(3600))? {
///     Some(transaction) => info!("{} is part of the ledger", transaction.id()),
///     None => warn!("{id} has not come within an hour"),
/// }
/// # Ok(()) }
/// ```
///
/// # Errors
/// `IllegalArgument` for what is no id. The error of a peer that comes on any session of this flow while it waits. A flow
/// exception of type `ledger/rejected` for a change of notary, which is no transaction that a flow could read.
pub fn wait_for_ledger_commit(id: &str, deadline: impl Into<Option<Timestamp>>) -> Result<Option<Transaction>> {
    let found = host::until_committed(id, deadline.into().map(Timestamp::deadline_millis))?;
    Ok(found.map(Transaction))
}

/// Waits until transactions of this identity's ledger have consumed all of these states, `TXID:INDEX`: at once, if they have.
/// The vault need not know the states. False at the deadline; without one the flow waits as long as it takes. What peers do on
/// the sessions of the flow does not end the wait.
///
/// ```no_run
/// # use std::time::Duration;
/// # use maxhost_sdk::prelude::*;
/// # use maxhost_sdk::ledger::{StateAndRef, wait_for_state_consumption};
/// # fn replaced(list: &StateAndRef<String>) -> Result<()> {
/// if !wait_for_state_consumption([&list.reference], now() + Duration::from_secs(60))? {
///     info!("{} is still the newest", list.reference);
/// }
/// # Ok(()) }
/// ```
///
/// # Errors
/// `IllegalArgument` for more than 1,000 states; a flow exception of type `ledger/rejected` for what is no reference.
pub fn wait_for_state_consumption(
    states: impl IntoIterator<Item = impl AsRef<str>>,
    deadline: impl Into<Option<Timestamp>>,
) -> Result<bool> {
    let states: Vec<_> = states.into_iter().collect();
    let references: Vec<&str> = states.iter().map(AsRef::as_ref).collect();
    Ok(host::until_consumed(&references, deadline.into().map(Timestamp::deadline_millis))?)
}
