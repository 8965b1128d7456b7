//! Transactions that others look on at: each says what it keeps of them, and somebody tries to make more of it.

use cash_contract::Cash;
use cash_wallet::{Done, PartyName, find, on_ledger, payment_of, quantity, spend, us_on_ledger};
use maxhost_sdk::ledger::{Query, StateAndRef, StatesToRecord, lock};
use maxhost_sdk::prelude::*;

/// Somebody who gets a transaction.
#[derive(Serialize, Deserialize, JsonSchema)]
pub struct Recipient {
    /// The party that it is done with.
    pub party: PartyName,
    /// What it keeps of the states: `none`, `only-relevant` or `all-visible`. It is told, and does so.
    pub states: String,
}

/// A payment that others look on at.
#[derive(Serialize, Deserialize, JsonSchema)]
pub struct Observed {
    /// Who is paid.
    pub to: Recipient,
    /// How much, in the smallest unit of the currency.
    pub quantity: i64,
    /// Three capital letters.
    pub currency: String,
    /// Who looks on.
    pub observers: Vec<Recipient>,
    /// What the payer keeps of the states; its own if nothing is said.
    pub states: Option<String>,
    /// What is done wrong: `payee-observes`, `twice` or `oneself`.
    pub wrong: Option<String>,
}

pub(crate) fn choice(word: &str) -> Result<StatesToRecord> {
    Ok(match word {
        "none" => StatesToRecord::None,
        "only-relevant" => StatesToRecord::OnlyRelevant,
        "all-visible" => StatesToRecord::AllVisible,
        other => bail!("'{other}' is no choice of states"),
    })
}

pub(crate) fn told(recipient: &Recipient) -> Result<Session> {
    let session = initiate(&find(&recipient.party)?)?;
    session.send(&recipient.states)?;
    Ok(session)
}

/// Pays somebody while others look on.
#[flow(startable)]
pub fn pay_observed(input: Observed) -> Result<Done> {
    let quantity = quantity(input.quantity)?;
    let spent = spend(&input.currency, quantity)?;
    let payee = on_ledger(&find(&input.to.party)?)?.into();
    let signed = payment_of(&spent, &payee, quantity)?.sign()?;
    let mut participants = vec![told(&input.to)?];
    let mut observers = input.observers.iter().map(told).collect::<Result<Vec<Session>>>()?;
    match input.wrong.as_deref() {
        Some("payee-observes") => observers.append(&mut participants),
        Some("twice") => participants.extend(observers.first().copied()),
        Some("oneself") => observers.push(initiate(&our_identity())?),
        _ => {}
    }
    let states = input.states.as_deref().map_or(Ok(StatesToRecord::default()), choice)?;
    Ok(Done::of(&signed.finalise_with(&participants, &observers, states)?))
}

/// Takes a payment, or looks on at it.
#[flow(responds_to = "pay-observed")]
pub fn looks_on(session: Session) -> Result<()> {
    let states: String = session.receive()?;
    session.receive_finality_with(choice(&states)?).map(drop)
}

/// A transaction of the ledger for somebody.
#[derive(Serialize, Deserialize, JsonSchema)]
pub struct Report {
    /// Who gets it.
    pub to: Recipient,
    /// The transaction.
    pub tx: String,
}

/// Gives a transaction of the ledger to somebody.
#[flow(startable)]
pub fn report(input: Report) -> Result<()> {
    told(&input.to)?.send_recorded(&input.tx)
}

/// Records what it is given.
#[flow(responds_to = "report")]
pub fn is_reported(session: Session) -> Result<()> {
    let states: String = session.receive()?;
    session.receive_transaction(choice(&states)?).map(drop)
}

/// A payment that is shown and not made.
#[derive(Serialize, Deserialize, JsonSchema)]
pub struct Sketch {
    /// Who is shown it, and would be paid.
    pub to: PartyName,
    /// How much, in the smallest unit of the currency.
    pub quantity: i64,
    /// Three capital letters.
    pub currency: String,
    /// Whether the other side takes it as one that is complete.
    pub as_complete: bool,
}

/// Shows somebody a payment that no notary has seen.
#[flow(startable)]
pub fn sketch(input: Sketch) -> Result<Done> {
    let (quantity, to) = (quantity(input.quantity)?, find(&input.to)?);
    let spent = spend(&input.currency, quantity)?;
    let signed = payment_of(&spent, &on_ledger(&to)?.into(), quantity)?.sign()?;
    let session = initiate(&to)?;
    session.send(&input.as_complete)?;
    session.send_transaction(&signed)?;
    Ok(Done::of(&signed))
}

/// Looks at a payment, or takes it.
#[flow(responds_to = "sketch")]
pub fn sees_sketch(session: Session) -> Result<()> {
    let seen = match session.receive()? {
        true => session.receive_transaction(StatesToRecord::AllVisible)?,
        false => session.receive_unrecorded()?,
    };
    info!("{}", seen.id());
    Ok(())
}

/// What somebody could do with the money of others that he sees.
#[derive(Serialize, Deserialize, JsonSchema)]
pub struct Seen {
    /// How much of it he sees, in the smallest unit.
    pub of_others: u64,
    /// How much he has.
    pub own: u64,
    /// The type of the exception with which it could not be locked.
    pub locked: Option<String>,
    /// The kind, or the type, of the error with which it could not be selected.
    pub selected: Option<String>,
    /// The kind, or the type, of the error with which it could not be spent.
    pub spent: Option<String>,
}

fn sum(states: &[StateAndRef<Cash>]) -> u64 {
    states.iter().map(|state| state.state.quantity).sum()
}

fn kind<T>(attempt: Result<T>) -> Option<String> {
    match attempt {
        Ok(_) => None,
        Err(Error::FlowException(refusal)) => refusal.exception_type().map(str::to_owned),
        Err(other) => Some(format!("{other:?}").chars().take_while(char::is_ascii_alphanumeric).collect()),
    }
}

/// Tries to spend money of others that this identity looks on at.
#[flow(startable)]
pub fn spend_seen(currency: String) -> Result<Seen> {
    let of_others = Query::of("cash/Cash").of_others().find::<Cash>()?;
    let own = Query::of("cash/Cash").own().find::<Cash>()?;
    let references: Vec<&str> = of_others.iter().map(|state| state.reference.as_str()).collect();
    let to_us = us_on_ledger();
    let paid = payment_of(&of_others, &(&to_us).into(), sum(&of_others));
    Ok(Seen {
        of_others: sum(&of_others),
        own: sum(&own),
        locked: kind(lock::<Cash>(&references)),
        selected: kind(spend(&currency, sum(&own) + 1)),
        spent: kind(paid.and_then(|draft| draft.sign()).and_then(|signed| signed.finalise(&[] as &[Session]))),
    })
}
