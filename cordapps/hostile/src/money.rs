//! What somebody tries with money that he has.

use cash_wallet::{PartyName, find, on_ledger, pay_from, quantity, spend};
use maxhost_sdk::ledger::Draft;
use maxhost_sdk::prelude::*;

/// The same money for two.
#[derive(Serialize, Deserialize, JsonSchema)]
pub struct DoubleSpend {
    /// Who is to be paid, the second with what the first has got.
    pub to: (PartyName, PartyName),
    /// How much, in the smallest unit of the currency.
    pub quantity: i64,
    /// Three capital letters.
    pub currency: String,
}

/// What became of the two.
#[derive(Serialize, Deserialize, JsonSchema)]
pub struct Attempts {
    /// The id of the first transaction.
    pub first: String,
    /// How the second ended.
    pub second: Ended,
}

/// How an attempt ended.
#[derive(Serialize, Deserialize, JsonSchema)]
pub struct Ended {
    /// `completed`, or the kind of the error.
    pub kind: String,
    /// The type of the exception.
    pub exception: Option<String>,
}

/// Pays two parties with the same states: both transactions are signed before either is sent to the notary.
#[flow(startable)]
pub fn double_spend(input: DoubleSpend) -> Result<Attempts> {
    let quantity = quantity(input.quantity)?;
    let (to, other) = (find(&input.to.0)?, find(&input.to.1)?);
    let spent = spend(&input.currency, quantity)?;
    let pay = |to: &Party| pay_from(Draft::spending(&spent), &spent, &on_ledger(to)?.into(), quantity)?.sign();
    let (first, second) = (pay(&to)?, pay(&other)?);
    let first = first.finalise(&[initiate(&to)?])?;
    let second = match second.finalise(&[initiate(&other)?]) {
        Ok(_) => Ended { kind: "completed".to_owned(), exception: None },
        Err(Error::FlowException(refusal)) => {
            Ended { kind: "flow-exception".to_owned(), exception: refusal.exception_type().map(str::to_owned) }
        }
        Err(other) => return Err(other),
    };
    Ok(Attempts { first: first.id().to_owned(), second })
}

/// Takes a payment as anybody does.
#[flow(responds_to = "double-spend")]
pub fn takes_payment(session: Session) -> Result<()> {
    session.receive_finality().map(drop)
}
