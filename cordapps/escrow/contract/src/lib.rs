//! Cash in escrow: the buyer's, and encumbered by the escrow, so that nobody moves it but by the escrow's rules: to the seller
//! at any time, back to the buyer when the time is up.
#![no_std]

use cash_contract::Cash;
use maxhost_contract::prelude::*;
use maxhost_contract::{HasKey, RawState};

/// What holds the buyer's cash for the seller.
#[state(contract = "escrow", version = 1)]
pub struct Escrow {
    /// Its id.
    #[linear_id]
    pub id: LinearId,
    /// Whose cash it holds.
    #[participant]
    pub buyer: Party,
    /// For whom.
    #[participant]
    pub seller: Party,
    /// How much, in the smallest unit of the currency.
    #[query]
    pub quantity: u64,
    /// Three capital letters.
    pub currency: String,
    /// From then on the buyer may have it back.
    #[query]
    pub until: Timestamp,
}

/// What can be done with an escrow.
#[commands]
pub enum Command {
    /// The buyer locks cash.
    Lock,
    /// The buyer pays the seller with it.
    Release,
    /// The buyer takes it back when the time is up.
    Reclaim,
}

/// Why a transaction with an escrow is refused.
#[faults]
pub enum Fault {
    /// An escrow holds something.
    Empty,
    /// Buyer and seller are the same.
    ToOneself,
    /// The buyer's cash and the escrow are not all that encumbers each other, in one circle, or it is not as much as the
    /// escrow says.
    NotHeld,
    /// The seller does not get, from each issuer, as much free cash as the escrow held.
    NotPaid,
    /// The time-window of the transaction begins before the time is up.
    TooEarly,
}

/// The rules.
pub struct EscrowContract;

#[contract(name = "escrow", states = [Escrow], commands = Command, faults = Fault)]
impl EscrowContract {
    #[on(Command::Lock)]
    fn lock(tx: &Tx<'_>) -> Verdict {
        tx.no_inputs::<Escrow>()?;
        let escrow = tx.outputs::<Escrow>()?.only()?;
        ensure!(escrow.quantity > 0, Fault::Empty);
        ensure!(escrow.buyer != escrow.seller, Fault::ToOneself);
        ensure!(held_by(tx, &escrow)? == Some(u128::from(escrow.quantity)), Fault::NotHeld);
        tx.signed_by([&escrow.buyer])
    }

    #[on(Command::Release)]
    fn release(tx: &Tx<'_>) -> Verdict {
        tx.no_outputs::<Escrow>()?;
        let (escrow, held) = released(tx)?;
        for issuer in held.iter().map(|cash| &cash.issuer) {
            let due = sum(held.iter().filter(|cash| cash.issuer == *issuer));
            ensure!(gained(tx, &escrow, issuer)? == Some(due), Fault::NotPaid);
        }
        tx.signed_by([&escrow.buyer])
    }

    #[on(Command::Reclaim)]
    fn reclaim(tx: &Tx<'_>) -> Verdict {
        tx.no_outputs::<Escrow>()?;
        let escrow = tx.inputs::<Escrow>()?.only()?;
        ensure!(tx.needs_time_window()?.begins_at_or_after(escrow.until), Fault::TooEarly);
        tx.signed_by([&escrow.buyer])
    }
}

/// The cash in a state, if it is cash of the publisher of this contract.
fn cash_in(tx: &Tx<'_>, state: &RawState) -> Result<Option<Cash>, Rejection> {
    if !is::<Cash>(tx, state) {
        return Ok(None);
    }
    let cash = maxhost_contract::decode(&state.data);
    cash.map(Some).map_err(|error| Rejection::with_text("tx/state-malformed", error.to_string()))
}

/// Another publisher's contract of the same name is another contract.
fn is<S: State>(tx: &Tx<'_>, state: &RawState) -> bool {
    state.contract.name == S::CONTRACT
        && state.type_name == S::NAME
        && state.contract.publisher == tx.contract().publisher
}

fn sum<'a>(cash: impl Iterator<Item = &'a Cash>) -> u128 {
    cash.map(|one| u128::from(one.quantity)).sum()
}

/// How much of the buyer's cash hangs together with the only escrow among the outputs: from one encumbrance to the next,
/// until the circle is closed. `None` if anything else hangs there or is encumbered besides: then the inputs that come from
/// this transaction would not tell later what the escrow held.
fn held_by(tx: &Tx<'_>, escrow: &Escrow) -> Result<Option<u128>, Rejection> {
    let outputs = &tx.raw().outputs;
    let Some(begin) = outputs.iter().position(|output| is::<Escrow>(tx, output)) else { return Ok(None) };
    let encumbered = outputs.iter().filter(|output| output.encumbrance.is_some()).count();
    let (mut held, mut at) = (Vec::new(), begin);
    // The circle has as many links as there are encumbered outputs: no more are followed.
    for _ in 0..encumbered {
        let next = outputs.get(at).and_then(|output| output.encumbrance);
        let Some(next) = next.and_then(|next| usize::try_from(next).ok()) else { return Ok(None) };
        if next == begin {
            let is_all = held.len() + 1 == encumbered;
            return Ok(is_all.then(|| sum(held.iter())));
        }
        let Some(output) = outputs.get(next) else { return Ok(None) };
        let Some(cash) = cash_in(tx, output)? else { return Ok(None) };
        if cash.owner.key() != escrow.buyer.key() || cash.currency != escrow.currency {
            return Ok(None);
        }
        held.push(cash);
        at = next;
    }
    Ok(None)
}

/// The only escrow among the inputs, with the cash that it held: what was encumbered where it was made. That all of it is
/// here, the ledger has checked.
fn released(tx: &Tx<'_>) -> Result<(Escrow, Vec<Cash>), Rejection> {
    let (reference, escrow) = tx.inputs_with_refs::<Escrow>()?.only()?;
    let mut held = Vec::new();
    for input in &tx.raw().inputs {
        if input.reference.tx == reference.tx && input.state.encumbrance.is_some() {
            held.extend(cash_in(tx, &input.state)?);
        }
    }
    ensure!(!held.is_empty(), Fault::NotHeld);
    Ok((escrow, held))
}

/// How much more free cash of an issuer the seller has after the transaction; `None` if it is less.
fn gained(tx: &Tx<'_>, escrow: &Escrow, issuer: &Party) -> Result<Option<u128>, Rejection> {
    let is_sellers = |cash: &Cash| {
        cash.owner.key() == escrow.seller.key() && cash.issuer == *issuer && cash.currency == escrow.currency
    };
    let mut after = Vec::new();
    // What is encumbered again is not paid.
    for output in tx.raw().outputs.iter().filter(|output| output.encumbrance.is_none()) {
        after.extend(cash_in(tx, output)?);
    }
    let before = tx.inputs::<Cash>()?;
    let (after, before) =
        (sum(after.iter().filter(|cash| is_sellers(cash))), sum(before.iter().filter(|cash| is_sellers(cash))));
    Ok(after.checked_sub(before))
}

contracts! { contracts: [EscrowContract], code_version: 1 }
