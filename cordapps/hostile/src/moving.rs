//! What somebody tries with states whose notary changes.

use cash_contract::Cash;
use cash_wallet::{PartyName, find, on_ledger, payment_of};
use iou_contract::Iou;
use maxhost_sdk::ledger::{
    Query, StateAndRef, StatesToRecord, change_notary, change_notary_observed, change_notary_with, text,
};
use maxhost_sdk::prelude::*;

use crate::money::Ended;
use crate::observing::{Recipient, choice, told};

/// Money that is to be paid at one notary and to be kept by another.
#[derive(Serialize, Deserialize, JsonSchema)]
pub struct MoveAndSpend {
    /// Who is to be paid with what has moved away.
    pub to: PartyName,
    /// The notary that is to keep it.
    pub notary: PartyName,
    /// Three capital letters.
    pub currency: String,
}

/// A state, whatever becomes of it.
#[derive(Serialize, Deserialize, JsonSchema)]
pub struct MoveState {
    /// Where it was made: `TXID:INDEX`.
    pub reference: String,
    /// Who is to keep it.
    pub notary: String,
}

/// Asks for another notary of a state, whether or not it is there and one's own; the state as it is then, or the code of the
/// refusal.
#[flow(startable)]
pub fn move_state(input: MoveState) -> Result<String> {
    let notary = Party::from_name(input.notary.as_str());
    let state = StateAndRef { reference: input.reference, state: serde::de::IgnoredAny, notary: notary.clone() };
    match change_notary(&state, &notary) {
        Ok(moved) => Ok(moved.reference),
        Err(Error::FlowException(refusal)) => {
            let code = refusal.data::<Facts>().ok().flatten().map(|facts| facts.code);
            code.ok_or_else(|| Error::FlowException(refusal))
        }
        Err(other) => Err(other),
    }
}

/// What goes with a refusal of the platform, as far as it is looked at.
#[derive(Deserialize)]
struct Facts {
    code: String,
}

/// Signs a payment of a state, has another notary keep the state, and then asks the old notary for the payment.
#[flow(startable)]
pub fn move_and_spend(input: MoveAndSpend) -> Result<Ended> {
    let (to, notary) = (find(&input.to)?, find(&input.notary)?);
    let filter = format!("currency = {}", text(&input.currency));
    let spent = Query::of("cash/Cash").filter(filter).limit(1).find::<Cash>()?;
    let Some(state) = spent.first() else { bail!("there is nothing to spend") };
    let paid = payment_of(&spent, &on_ledger(&to)?.into(), state.state.quantity)?.sign()?;
    change_notary(state, &notary)?;
    match paid.finalise(&[initiate(&to)?]) {
        Ok(_) => Ok(Ended { kind: "completed".to_owned(), exception: None }),
        Err(Error::FlowException(refusal)) => {
            let exception = refusal.exception_type().map(str::to_owned);
            Ok(Ended { kind: "flow-exception".to_owned(), exception })
        }
        Err(other) => Err(other),
    }
}

/// Takes a payment as anybody does.
#[flow(responds_to = "move-and-spend")]
pub fn takes_moved_payment(session: Session) -> Result<()> {
    session.receive_finality().map(drop)
}

/// Decides in place of the platform whether the notary of a state changes: that of a debt of an odd amount does not.
#[flow(responds_to = "maxhost/change-notary")]
pub fn wary(session: Session) -> Result<()> {
    let change = session.receive_notary_change()?;
    for debt in change.of::<Iou>("iou/Iou")? {
        ensure!(
            debt.state.quantity % 2 == 0,
            FlowException::new(format!("a debt of {} stays where it is", debt.state.quantity)).of_type("hostile/wary")
        );
    }
    session.accept_notary_change(&change)
}

/// A change of notary that others look on at.
#[derive(Serialize, Deserialize, JsonSchema)]
pub struct MoveObserved {
    /// Where the state was made: `TXID:INDEX`.
    pub reference: String,
    /// Who is to keep it.
    pub notary: String,
    /// Who looks on.
    pub observers: Vec<Recipient>,
    /// What whoever moves it keeps of the states; its own if nothing is said.
    pub states: Option<String>,
    /// What is done wrong: `twice` or `oneself`.
    pub wrong: Option<String>,
}

/// Has another notary keep a state while others look on; where the state is then.
#[flow(startable)]
pub fn move_observed(input: MoveObserved) -> Result<String> {
    let notary = Party::from_name(input.notary.as_str());
    let state = StateAndRef { reference: input.reference, state: serde::de::IgnoredAny, notary: notary.clone() };
    let mut observers = input.observers.iter().map(told).collect::<Result<Vec<Session>>>()?;
    match input.wrong.as_deref() {
        Some("twice") => observers.extend(observers.first().copied()),
        Some("oneself") => observers.push(initiate(&our_identity())?),
        _ => {}
    }
    let moved = match input.states.as_deref() {
        Some(states) => change_notary_with(&state, &notary, &observers, choice(states)?)?,
        None => change_notary_observed(&state, &notary, &observers)?,
    };
    Ok(moved.reference)
}

/// Looks on at a change of notary and keeps what it is told to keep. Told `refuse`, it does not take the change; told
/// `as-payment`, it takes it for a payment.
#[flow(responds_to = "move-observed")]
pub fn looks_on_at_move(session: Session) -> Result<()> {
    let states: String = session.receive()?;
    ensure!(states != "refuse", FlowException::new("this is not looked at").of_type("hostile/looks-away"));
    if states == "as-payment" {
        return session.receive_finality_with(StatesToRecord::AllVisible).map(drop);
    }
    let change = session.observe_notary_change(choice(&states)?)?;
    info!("{} moves from {} to {}", change.id(), change.notary().name(), change.new_notary().name());
    ensure!(change.state_types().next().is_some(), "a change of notary without states");
    Ok(())
}
