//! Selecting cash to spend. The vault knows issuers by their names only, so what it selects is looked at before it is spent.

use std::collections::BTreeMap;

use cash_contract::Cash;
use maxhost_sdk::ledger::{AmountOf, StateAndRef, notaries, select};
use maxhost_sdk::prelude::*;

use crate::issuers::Issuers;
use crate::{MAX_QUANTITY, is, thrown};

/// So long a payment waits for money that other flows hold, milliseconds.
const PATIENCE_MS: u64 = 5_000;
/// So often cash is selected anew because some of it cannot be taken.
const MOST_SELECTIONS: u32 = 64;

/// What the vault says of too little, in the words of cash.
#[must_use]
pub fn in_cash(error: Error) -> Error {
    let kind = match error.flow_exception().and_then(FlowException::exception_type) {
        Some("vault/insufficient") => "cash/insufficient",
        Some("vault/locked" | "vault/timed-out") => "cash/locked",
        _ => return error,
    };
    thrown(kind, &error.to_string())
}

/// An amount of cash that a payment needs. While other flows hold too much of it, it is waited for up to [`PATIENCE_MS`].
#[must_use]
pub fn amount(currency: &str, quantity: u64) -> AmountOf {
    AmountOf::new("cash/Cash", currency, quantity).waiting(PATIENCE_MS)
}

/// Selects and locks cash of a currency, kept by one notary. While other flows hold too much of it, waits up to
/// [`PATIENCE_MS`].
///
/// # Errors
/// `cash/insufficient`, `cash/locked`, `cash/several-notaries`.
pub fn spend(currency: &str, quantity: u64) -> Result<Vec<StateAndRef<Cash>>> {
    of_one_notary(&amount(currency, quantity)).map_err(in_cash)
}

/// Selects and locks such cash as may be taken: each state that is looked at is of the party that it names.
///
/// # Errors
/// `cash/insufficient`, `cash/locked`.
pub fn spend_such(wanted: &AmountOf, may_be_taken: impl Fn(&Cash) -> bool) -> Result<Vec<StateAndRef<Cash>>> {
    let mut issuers = Issuers::new();
    select_such(wanted, &mut |cash| Ok(may_be_taken(cash) && issuers.know(&cash.issuer)?)).map_err(in_cash)
}

/// Selects and locks cash that one notary keeps, as a transaction needs it: the states that are selected first, or if they
/// are of several notaries those of one that keeps enough. Cash of which the issuer is not the party that it names is left out.
///
/// # Errors
/// Those of [`select`]; `cash/several-notaries` if no notary keeps enough, and all of them together do.
pub fn of_one_notary(wanted: &AmountOf) -> Result<Vec<StateAndRef<Cash>>> {
    let mut issuers = Issuers::new();
    let mut known = |cash: &Cash| issuers.know(&cash.issuer);
    let spent = select_such(wanted, &mut known)?;
    let Some(first) = spent.first() else { return Ok(spent) };
    if spent.iter().all(|state| state.notary == first.notary) {
        return Ok(spent);
    }
    for notary in notaries() {
        match select_such(&wanted.clone().kept_by(&notary), &mut known) {
            Err(error) if is(&error, "vault/insufficient") => {}
            selected => return selected,
        }
    }
    let text = "there is enough, but several notaries keep it, and a transaction has one: `cash/change-notary` moves it to one";
    Err(thrown("cash/several-notaries", text))
}

/// Selects states for an amount, and as much more as was found that may not be taken, until enough of them may. If there is
/// enough, so much more is there too; and each selection that is not enough finds more that may not be taken.
fn select_such(
    wanted: &AmountOf,
    may_be_taken: &mut dyn FnMut(&Cash) -> Result<bool>,
) -> Result<Vec<StateAndRef<Cash>>> {
    let mut left: BTreeMap<String, u64> = BTreeMap::new();
    for _ in 0..MOST_SELECTIONS {
        let more = left.values().try_fold(wanted.quantity(), |sum, quantity| sum.checked_add(*quantity));
        let Some(quantity) = more.filter(|sum| *sum <= MAX_QUANTITY) else { break };
        let selected = match select::<Cash>(&wanted.clone().with_quantity(quantity)) {
            Err(error) if is(&error, "vault/insufficient") && !left.is_empty() => break,
            selected => selected?,
        };
        let mut taken = Vec::with_capacity(selected.len());
        for state in selected {
            match may_be_taken(&state.state)? {
                true => taken.push(state),
                false => drop(left.insert(state.reference, state.state.quantity)),
            }
        }
        if taken.iter().map(|state| u128::from(state.state.quantity)).sum::<u128>() >= wanted.quantity().into() {
            return Ok(taken);
        }
    }
    let text =
        format!("{} are needed, and too much of what is here cannot be taken: look at its issuers", wanted.quantity());
    Err(thrown("vault/insufficient", &text))
}
