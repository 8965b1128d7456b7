//! Accounts of customers whose money this identity keeps: each has keys of its own, made for the account's id.

use cash_contract::Cash;
use cash_wallet::{finalise_cash, pay_unnamed_from, quantity, spend, thrown};
use maxhost_sdk::ledger::{Draft, Query, external_id_of, fresh_key_for, keys_of};
use maxhost_sdk::prelude::*;

use crate::Done;

/// The most states of an account that are added up.
const MOST_STATES: u32 = 1_000;

/// Cash of this identity that is to be an account's.
#[derive(Serialize, Deserialize, JsonSchema)]
pub struct Assign {
    /// The account's id.
    pub account: String,
    /// How much, in the smallest unit of the currency.
    pub quantity: i64,
    /// Three capital letters.
    pub currency: String,
}

/// An account.
#[derive(Serialize, Deserialize, JsonSchema)]
pub struct Account {
    /// Its id.
    pub account: String,
}

/// What an account has.
#[derive(Serialize, Deserialize, JsonSchema)]
pub struct Holding {
    /// How many keys were made for it.
    pub keys: u64,
    /// How many of them say so themselves.
    pub confirmed: u64,
    /// States under its keys that are not consumed, 1,000 at most.
    pub states: u64,
    /// How much money they are, in the smallest units of their currencies.
    pub quantity: u64,
}

/// Moves cash of this identity to a new key of an account.
#[flow(startable)]
pub fn assign(input: Assign) -> Result<Done> {
    let quantity = quantity(input.quantity)?;
    let spent = spend(&input.currency, quantity)?;
    let key = fresh_key_for(&input.account)?;
    let signed = pay_unnamed_from(Draft::spending(&spent), &spent, &key.party(), quantity)?.sign()?;
    Ok(Done::of(&finalise_cash(&signed, &[])?))
}

/// Tells what an account has.
#[flow(startable)]
pub fn account(input: Account) -> Result<Holding> {
    let keys = keys_of(&input.account)?;
    let mut confirmed = 0;
    for key in &keys {
        confirmed += u64::from(external_id_of(key)?.as_ref() == Some(&input.account));
    }
    let found = Query::of("cash/Cash").own().key_external_id(&input.account).limit(MOST_STATES).find::<Cash>()?;
    // Anybody may send any amount of money of his own making.
    let sum = found.iter().try_fold(0_u64, |sum, state| sum.checked_add(state.state.quantity));
    let Some(quantity) = sum else {
        bail!(thrown("cash/too-much", "the account has more than a number of 64 bits can say"));
    };
    Ok(Holding { keys: keys.len() as u64, confirmed, states: found.len() as u64, quantity })
}
