//! Selecting cash to spend. The vault knows issuers by their names only, so what it selects is looked at before it is spent. And it
//! selects whatever the identity can sign for: cash under a key that was made for a customer's account is the customer's, and is
//! spent by [`spend_of_account`] alone.

use std::collections::{BTreeMap, BTreeSet};

use cash_contract::Cash;
use maxhost_sdk::ledger::{AmountOf, Query, StateAndRef, lock_together, notaries, select, text};
use maxhost_sdk::prelude::*;

use crate::issuers::Issuers;
use crate::{MAX_QUANTITY, is, thrown};

/// So long a payment waits for money that other flows hold, milliseconds.
const PATIENCE_MS: u64 = 5_000;
/// So often cash is selected anew because some of it cannot be taken.
const MOST_SELECTIONS: u32 = 64;
/// So many states are asked about at once.
const ASKED_AT_ONCE: usize = 100;
/// The most states that are looked through one by one, the largest first.
const MOST_LOOKED_THROUGH: u32 = 1_000;

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
/// [`PATIENCE_MS`]. Cash of customers, under keys that were made for accounts, is left where it is.
///
/// # Errors
/// `cash/insufficient`, `cash/locked`, `cash/several-notaries`.
pub fn spend(currency: &str, quantity: u64) -> Result<Vec<StateAndRef<Cash>>> {
    of_one_notary(&amount(currency, quantity)).map_err(in_cash)
}

/// Selects and locks cash under the keys that were made for a customer's account, kept by one notary.
///
/// # Errors
/// `cash/insufficient`, `cash/locked`, `cash/several-notaries`.
pub fn spend_of_account(account: &str, currency: &str, quantity: u64) -> Result<Vec<StateAndRef<Cash>>> {
    let mut issuers = Issuers::new();
    let mut known = |cash: &Cash| issuers.know(&cash.issuer);
    let whose = format!("\"@key_external_id\" = {}", text(account));
    of_one(&amount(currency, quantity), &mut |wanted| look_through(wanted, &whose, Vec::new(), &mut known))
        .map_err(in_cash)
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
    of_one(wanted, &mut |wanted| select_such(wanted, &mut known))
}

/// Selects and locks cash that is no customer's, whoever has made it and whichever notaries keep it.
///
/// # Errors
/// Those of [`select`].
pub fn of_any_issuer(wanted: &AmountOf) -> Result<Vec<StateAndRef<Cash>>> {
    select_such(wanted, &mut |_| Ok(true))
}

/// What is found for an amount, if one notary keeps it, or else what is found of a notary that keeps enough.
fn of_one(
    wanted: &AmountOf,
    find: &mut dyn FnMut(&AmountOf) -> Result<Vec<StateAndRef<Cash>>>,
) -> Result<Vec<StateAndRef<Cash>>> {
    let spent = find(wanted)?;
    let Some(first) = spent.first() else { return Ok(spent) };
    if spent.iter().all(|state| state.notary == first.notary) {
        return Ok(spent);
    }
    for notary in notaries() {
        match find(&wanted.clone().kept_by(&notary)) {
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
        let of_accounts = of_accounts(&selected)?;
        for state in selected {
            if of_accounts.contains(&state.reference) {
                continue;
            }
            if may_be_taken(&state.state)? {
                taken.push(state);
            } else {
                left.insert(state.reference, state.state.quantity);
            }
        }
        if is_enough(&taken, wanted) {
            return Ok(taken);
        }
        if !of_accounts.is_empty() {
            // There may be any number of customers: what is not theirs is looked for.
            return look_through(wanted, "\"@key_external_id\" is null", taken, may_be_taken);
        }
    }
    Err(too_little(wanted))
}

/// Adds to cash that is held already what a condition finds and what may be taken, the largest first, until it is enough. What can only
/// be spent together with something else is left, as a selection leaves it.
fn look_through(
    wanted: &AmountOf,
    whose: &str,
    mut taken: Vec<StateAndRef<Cash>>,
    may_be_taken: &mut dyn FnMut(&Cash) -> Result<bool>,
) -> Result<Vec<StateAndRef<Cash>>> {
    let (token, us) = (text(wanted.token()), text(&flow_id()));
    // What this flow holds already, from a selection before, is as good as what nobody holds.
    let mut condition = format!("{whose} and (lock is null or lock = {us}) and currency = {token}");
    for (field, party) in [("issuer", wanted.issuer()), ("notary", wanted.notary())] {
        if let Some(party) = party {
            condition += &format!(" and {field} = {}", text(party.name()));
        }
    }
    let found = Query::of(wanted.state_type()).own().filter(condition).sort("quantity:desc");
    let mut is_held = false;
    for state in found.limit(MOST_LOOKED_THROUGH).find::<Cash>()? {
        if is_enough(&taken, wanted) {
            break;
        }
        if taken.iter().any(|held| held.reference == state.reference) || !may_be_taken(&state.state)? {
            continue;
        }
        match lock_together(&state) {
            Ok(together) if together.is_alone() => taken.push(state),
            Ok(_) => {}
            // Somebody was quicker, or a transaction in flight consumes it.
            Err(error) if is(&error, "vault/locked") => is_held = true,
            Err(error) => return Err(error),
        }
    }
    match (is_enough(&taken, wanted), is_held) {
        (true, _) => Ok(taken),
        (false, true) => Err(thrown("vault/locked", "other flows hold too much of what may be taken")),
        (false, false) => Err(too_little(wanted)),
    }
}

fn is_enough(cash: &[StateAndRef<Cash>], wanted: &AmountOf) -> bool {
    cash.iter().map(|state| u128::from(state.state.quantity)).sum::<u128>() >= wanted.quantity().into()
}

fn too_little(wanted: &AmountOf) -> Error {
    let text = format!(
        "{} are needed, and too much of what is here cannot be taken: look at its issuers, and at what is under keys of accounts",
        wanted.quantity()
    );
    thrown("vault/insufficient", &text)
}

/// Those of these states that are under keys which were made for accounts. What names its owner is under none.
fn of_accounts(cash: &[StateAndRef<Cash>]) -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    let unnamed: Vec<String> =
        cash.iter().filter(|one| one.state.owner.name.is_none()).map(|one| text(&one.reference)).collect();
    for some in unnamed.chunks(ASKED_AT_ONCE) {
        let condition = format!("\"@key_external_id\" is not null and ref in ({})", some.join(", "));
        let states = Query::of("cash/Cash").filter(condition).limit(ASKED_AT_ONCE as u32).find::<Cash>()?;
        found.extend(states.into_iter().map(|one| one.reference));
    }
    Ok(found)
}
