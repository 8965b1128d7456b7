//! Cash: the issuer makes it, owners pass it on, the issuer takes it back.

mod accounts;

use cash_contract::{Cash, Command};
use cash_wallet::{
    Done, PartyName, command, finalise_cash, find, in_cash, is, notary, of_any_issuer, of_one_notary, on_ledger,
    pay_unnamed_for, payment_of, quantity, receive_cash, spend, spend_of_account, thrown,
};
use maxhost_contract::{HasKey, State};
use maxhost_sdk::ledger::{AmountOf, Draft, Query, StateAndRef, change_notary as move_to_notary, our_key, text};
use maxhost_sdk::prelude::*;

/// The most states that one flow moves to another notary; the next one goes on.
const MOST_MOVED: usize = 200;

/// Cash that is to be made.
#[derive(Serialize, Deserialize, JsonSchema)]
pub struct Issue {
    /// How much, in the smallest unit of the currency.
    pub quantity: i64,
    /// Three capital letters.
    pub currency: String,
    /// Who keeps it; the network's first notary if nobody is named.
    #[serde(default)]
    pub notary: Option<PartyName>,
    /// Who gets it; the issuer if nobody is named.
    #[serde(default)]
    pub to: Option<PartyName>,
}

/// A payment.
#[derive(Serialize, Deserialize, JsonSchema)]
pub struct Pay {
    /// Who is paid.
    pub to: PartyName,
    /// How much, in the smallest unit of the currency.
    pub quantity: i64,
    /// Three capital letters.
    pub currency: String,
    /// Whether the payee is a new key on the ledger, and not a name; so is whoever pays, for what is left.
    #[serde(default)]
    pub anonymous: bool,
    /// The payee's account: he makes the new key for it. Whoever names one pays anonymously.
    #[serde(default)]
    pub account: Option<String>,
    /// The account of a customer of the payer whose money it is. Without one only money that is no customer's is spent.
    #[serde(default)]
    pub from_account: Option<String>,
}

/// Cash that is to be taken back.
#[derive(Serialize, Deserialize, JsonSchema)]
pub struct Exit {
    /// How much, in the smallest unit of the currency.
    pub quantity: i64,
    /// Three capital letters.
    pub currency: String,
}

/// Cash of this identity that another notary is to keep.
#[derive(Serialize, Deserialize, JsonSchema)]
pub struct ChangeNotary {
    /// The notary that is to keep it.
    pub to: PartyName,
    /// Three capital letters: all cash of this currency moves that other notaries keep.
    #[serde(default)]
    pub currency: Option<String>,
    /// The notary that keeps it; any other one if nobody is named.
    #[serde(default)]
    pub from: Option<PartyName>,
    /// In place of a currency one state, `TXID:INDEX`.
    #[serde(default)]
    pub reference: Option<String>,
}

/// What another notary keeps now.
#[derive(Serialize, Deserialize, JsonSchema)]
pub struct Moved {
    /// The states, as they are now.
    pub states: Vec<String>,
    /// How much money it is, in the smallest unit of the currency.
    pub quantity: u64,
}

/// Makes cash that this identity owes.
#[flow(startable, version = 2)]
fn issue(input: Issue) -> Result<Done> {
    let quantity = quantity(input.quantity)?;
    let us = our_identity();
    let to = match &input.to {
        Some(name) => find(name)?,
        None => us.clone(),
    };
    let notary = notary(input.notary.as_ref())?;
    let cash = Cash { owner: on_ledger(&to)?.into(), quantity, currency: input.currency, issuer: on_ledger(&us)? };
    let made = Draft::new(&notary).output(Cash::CONTRACT, Cash::NAME, &cash)?;
    let made = command(made, &Command::Issue, [our_key()])?.sign()?;
    let sessions = if to == us { Vec::new() } else { vec![initiate(&to)?] };
    Ok(Done::of(&finalise_cash(&made, &sessions)?))
}

/// Takes cash that somebody made for this identity.
#[flow(responds_to = "issue", version = 2)]
fn accept_issue(session: Session) -> Result<()> {
    receive_cash(&session).map(drop)
}

/// Pays somebody out of what this identity has itself, or out of what a customer's account has, and keeps the change for whom it was.
#[flow(startable, version = 2)]
fn pay(input: Pay) -> Result<Done> {
    let quantity = quantity(input.quantity)?;
    let (us, to) = (our_identity(), find(&input.to)?);
    ensure!(to != us, FlowException::new("nobody pays himself").of_type("cash/to-oneself"));
    progress!("selecting");
    let spent = match &input.from_account {
        Some(account) => spend_of_account(account, &input.currency, quantity)?,
        None => spend(&input.currency, quantity)?,
    };
    if input.anonymous || input.account.is_some() {
        return pay_unnamed(&to, &input, &spent, quantity);
    }
    progress!("signing");
    let draft = payment_of(&spent, &on_ledger(&to)?.into(), quantity)?;
    let signed = draft.sign()?;
    progress!("finalising");
    let session = initiate(&to)?;
    Ok(Done::of(&finalise_cash(&signed, &[session])?))
}

/// Takes a payment, unless it is in cash of somebody who does not owe it.
#[flow(responds_to = "pay", version = 2)]
fn accept_payment(session: Session) -> Result<()> {
    receive_cash(&session).map(drop)
}

/// Pays a key that the payee makes for this payment.
#[flow(initiating, version = 2)]
fn pay_unnamed(to: &Party, input: &Pay, spent: &[StateAndRef<Cash>], quantity: u64) -> Result<Done> {
    progress!("asking for a key");
    let session = initiate(to)?;
    let payee = match &input.account {
        Some(account) => session.request_key_for(account)?,
        None => session.request_key()?,
    };
    progress!("signing");
    let from = input.from_account.as_deref();
    let signed = pay_unnamed_for(Draft::spending(spent), spent, &payee.party(), quantity, from)?.sign()?;
    progress!("finalising");
    Ok(Done::of(&finalise_cash(&signed, &[session])?))
}

/// Takes a payment to a key that it makes, for an account of its own if the payer names one.
#[flow(responds_to = "pay-unnamed", version = 2)]
fn accept_unnamed_payment(session: Session) -> Result<()> {
    session.provide_key_as_asked()?;
    receive_cash(&session).map(drop)
}

/// Takes back cash that this identity has made and has.
#[flow(startable)]
fn exit(input: Exit) -> Result<Done> {
    let quantity = quantity(input.quantity)?;
    let us = our_identity();
    let wanted = AmountOf::new("cash/Cash", &input.currency, quantity);
    let spent = match of_one_notary(&wanted.clone().issued_by(&us)) {
        Ok(spent) => spent,
        // Whether there would be enough of others' money decides what is wrong.
        Err(error) if is(&error, "vault/insufficient") && of_any_issuer(&wanted).is_ok() => {
            bail!(FlowException::new("only its issuer takes cash back").of_type("cash/not-issuer"));
        }
        Err(error) => return Err(in_cash(error)),
    };
    let have: u64 = spent.iter().map(|state| state.state.quantity).sum();
    let mut draft = Draft::spending(&spent);
    if have > quantity {
        let change = Cash {
            owner: on_ledger(&us)?.into(),
            quantity: have - quantity,
            currency: input.currency.clone(),
            issuer: on_ledger(&us)?,
        };
        draft = draft.output(Cash::CONTRACT, Cash::NAME, &change)?;
    }
    let owners = spent.iter().map(|state| state.state.owner.key().spki().to_vec());
    let signed = command(draft, &Command::Exit { quantity }, owners.chain([our_key()]))?.sign()?;
    Ok(Done::of(&signed.finalise(&[] as &[Session])?))
}

/// Has another notary keep cash of this identity: each state in a transaction of its own.
#[flow(startable)]
fn change_notary(input: ChangeNotary) -> Result<Moved> {
    let to = find(&input.to)?;
    let chosen = match (&input.reference, &input.currency) {
        (Some(reference), None) => format!("ref = {}", text(reference)),
        (None, Some(currency)) => format!("currency = {} and notary != {}", text(currency), text(to.name())),
        _ => bail!(thrown("cash/choose-one", "either a currency moves or the state of one reference")),
    };
    let chosen = match &input.from {
        Some(from) => format!("{chosen} and notary = {}", text(find(from)?.name())),
        None => chosen,
    };
    let mut moved = Moved { states: Vec::new(), quantity: 0 };
    // One after the other, as they are found: what is encumbered takes others along, which are not found again.
    loop {
        let Some(state) = Query::of("cash/Cash").own().filter(&chosen).limit(1).find::<Cash>()?.pop() else { break };
        progress!("moving {}", state.reference);
        // Anybody may send any amount of money of his own making.
        let Some(sum) = moved.quantity.checked_add(state.state.quantity) else {
            let text = "it is more than a number of 64 bits can say: what has moved so far has moved, and the next flow goes on";
            bail!(thrown("cash/too-much", text));
        };
        let now = move_to_notary(&state, &to)?;
        moved.quantity = sum;
        moved.states.push(now.reference);
        if input.reference.is_some() || moved.states.len() == MOST_MOVED {
            break;
        }
    }
    ensure!(
        !moved.states.is_empty() || input.currency.is_some(),
        FlowException::new("there is no such cash that can be spent").of_type("cash/not-found")
    );
    Ok(moved)
}

cordapp! {
    flows: [
        accounts::account,
        accounts::assign,
        change_notary,
        issue,
        accept_issue,
        pay,
        accept_payment,
        pay_unnamed,
        accept_unnamed_payment,
        exit,
    ]
}
