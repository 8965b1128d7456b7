//! What somebody tries with money that he has.

use cash_contract::{Cash, Command};
use cash_wallet::{PartyName, command, find, notary, on_ledger, pay_from, payment_of, quantity, spend, us_on_ledger};
use escrow_contract::{Command as EscrowCommand, Escrow};
use maxhost_contract::{CommandSet, Party as LedgerParty, State};
use maxhost_sdk::ledger::{AmountOf, Draft, Query, lock_together, our_key, select, text};
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
    let pay = |to: &Party| payment_of(&spent, &on_ledger(to)?.into(), quantity)?.sign();
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

/// Money that somebody else is said to owe.
#[derive(Serialize, Deserialize, JsonSchema)]
pub struct Counterfeit {
    /// Who gets it.
    pub to: PartyName,
    /// Who is said to owe it.
    pub issuer: PartyName,
    /// How much, in the smallest unit of the currency.
    pub quantity: i64,
    /// Three capital letters.
    pub currency: String,
}

/// Gives somebody money in another's name, issued with the own key. The other side takes what comes; returns the transaction.
#[flow(startable)]
pub fn counterfeit(input: Counterfeit) -> Result<Chain> {
    let to = find(&input.to)?;
    let issuer = LedgerParty { name: find(&input.issuer)?.name().to_owned(), ..us_on_ledger() };
    let (quantity, currency) = (quantity(input.quantity)?, input.currency);
    let cash = Cash { owner: on_ledger(&to)?.into(), quantity, currency, issuer };
    let draft = Draft::new(&notary(None)?).output(Cash::CONTRACT, Cash::NAME, &cash)?;
    let made = command(draft, &Command::Issue, [our_key()])?.sign()?.finalise(&[initiate(&to)?])?;
    Ok(Chain { tx: made.id().to_owned() })
}

/// Takes money without a look.
#[flow(responds_to = "counterfeit")]
pub fn takes_counterfeit(session: Session) -> Result<()> {
    session.receive_finality().map(drop)
}

/// A chain of transactions.
#[derive(Serialize, Deserialize, JsonSchema)]
pub struct Length {
    /// Three capital letters.
    pub currency: String,
    /// How many transactions.
    pub times: u32,
}

/// Where a chain ends.
#[derive(Serialize, Deserialize, JsonSchema)]
pub struct Chain {
    /// The id of the last transaction.
    pub tx: String,
}

/// Hands all one's money of a currency to oneself, again and again, in two parts: each transaction comes from the one before.
#[flow(startable)]
pub fn lengthen(input: Length) -> Result<Chain> {
    let us: maxhost_contract::AnyParty = on_ledger(&our_identity())?.into();
    let mut last = String::new();
    for _ in 0..input.times {
        let own =
            Query::of("cash/Cash").own().filter(format!("currency = {}", text(&input.currency))).find::<Cash>()?;
        let part = own.iter().map(|state| state.state.quantity).sum::<u64>() / 2;
        let moved = payment_of(&own, &us, part)?.sign()?.finalise(&[] as &[Session])?;
        last = moved.id().to_owned();
    }
    Ok(Chain { tx: last })
}

/// What somebody looks for in his vault, in any words.
#[derive(Serialize, Deserialize, JsonSchema)]
pub struct LookFor {
    /// Contract and type, if they are such.
    pub state_type: String,
    /// What money is selected by; else states are asked for.
    pub token: Option<String>,
    /// The condition that states are asked for with.
    #[serde(rename = "where")]
    pub condition: Option<String>,
    /// What they are sorted by.
    pub sort: Option<String>,
}

/// Looks for money: how many states there are.
#[flow(startable)]
pub fn look_for(wanted: LookFor) -> Result<usize> {
    if let Some(token) = wanted.token {
        return Ok(select::<Cash>(&AmountOf::new(wanted.state_type, token, 1))?.len());
    }
    let mut query = Query::of(wanted.state_type);
    if let Some(condition) = wanted.condition {
        query = query.filter(condition);
    }
    if let Some(sort) = wanted.sort {
        query = query.sort(sort);
    }
    Ok(query.find::<Cash>()?.len())
}

/// Takes back what is locked for a seller, and does not let him know: the id of the transaction.
#[flow(startable)]
pub fn reclaim_unseen(id: String) -> Result<String> {
    let found = Query::of("escrow/Escrow").filter(format!("id = {}", text(&id))).find::<Escrow>()?.pop();
    let Some(escrow) = found else { bail!("there is no such escrow") };
    let together = lock_together(&escrow)?;
    let cash = together.of::<Cash>("cash/Cash")?;
    let Escrow { buyer, quantity, until, .. } = escrow.state;
    let until = Timestamp::from_unix_nanos(until.as_unix_nanos());
    let draft = pay_from(Draft::spending_together(&together), &cash, &(&buyer).into(), quantity)?
        .from(until)
        .until(until.max(now()) + Duration::from_secs(3600));
    let value = EscrowCommand::Reclaim.encode().map_err(|error| Error::unexpected(error.to_string()))?;
    let draft = draft.command(Escrow::CONTRACT, EscrowCommand::Reclaim.name(), value, [our_key()]);
    Ok(draft.sign()?.finalise(&[] as &[Session])?.id().to_owned())
}
