//! A debt: agreed on by borrower and lender, passed on by the lender, settled in cash by the borrower.

mod roles;

use cash_wallet::{
    Issuers, PartyName, Proposal, amount, find, notary, on_ledger, pay_from, quantity, spend_such, thrown, us_on_ledger,
};
use iou_contract::{Command, Iou};
use maxhost_contract::{CommandSet, HasKey, LinearId, State};
use maxhost_sdk::ledger::{Draft, Query, StateAndRef, Transaction, change_notary as move_to_notary, our_key, text};
use maxhost_sdk::prelude::*;
use roles::Sides;

/// A debt of this identity that is to be made.
#[derive(Serialize, Deserialize, JsonSchema)]
pub struct Issue {
    /// Who lends.
    pub lender: PartyName,
    /// How much, in the smallest unit of the currency.
    pub quantity: i64,
    /// Three capital letters.
    pub currency: String,
    /// When all of it should be paid back: RFC 3339.
    #[serde(default)]
    pub due: Option<String>,
}

/// A claim of this identity that is to be passed on.
#[derive(Serialize, Deserialize, JsonSchema)]
pub struct Transfer {
    /// The debt.
    pub id: String,
    /// Who gets the claim.
    pub to: PartyName,
}

/// A debt of this identity that is to be paid back, or a part of it.
#[derive(Serialize, Deserialize, JsonSchema)]
pub struct Settle {
    /// The debt.
    pub id: String,
    /// How much, in the smallest unit of the currency.
    pub quantity: i64,
}

/// A debt that another notary is to keep.
#[derive(Serialize, Deserialize, JsonSchema)]
pub struct ChangeNotary {
    /// The debt.
    pub id: String,
    /// The notary that is to keep it.
    pub to: PartyName,
}

/// Where a debt is that another notary keeps now.
#[derive(Serialize, Deserialize, JsonSchema)]
pub struct Moved {
    /// The state, `TXID:INDEX`.
    pub state: String,
    /// Id of the debt.
    pub id: String,
}

/// The transaction that did it, and the debt.
#[derive(Serialize, Deserialize, JsonSchema)]
pub struct Done {
    /// Id of the transaction.
    pub tx: String,
    /// Id of the debt.
    pub id: String,
}

impl Done {
    fn of(transaction: &Transaction, iou: &Iou) -> Done {
        Done { tx: transaction.id().to_owned(), id: iou.id.to_string() }
    }
}

/// What the other side is asked for.
#[derive(Serialize, Deserialize)]
enum Asked {
    /// To sign, and to record.
    Sign,
    /// To record.
    Record,
}

/// Borrows: the lender signs too.
#[flow(startable)]
fn issue(input: Issue) -> Result<Done> {
    let (us, lender) = (our_identity(), find(&input.lender)?);
    ensure!(lender != us, FlowException::new("nobody owes to himself").of_type("iou/to-oneself"));
    let due = match &input.due {
        Some(due) => Some(due.parse().map_err(|_| thrown("iou/due-invalid", "a time is written as in RFC 3339"))?),
        None => None,
    };
    let mut random_id = [0; 16];
    random_id.copy_from_slice(&random(16)?);
    let iou = Iou {
        id: LinearId::from_random(random_id),
        lender: on_ledger(&lender)?,
        borrower: on_ledger(&us)?,
        quantity: quantity(input.quantity)?,
        currency: input.currency,
        paid: 0,
        due,
    };
    let draft = Draft::new(&notary(None)?).output(Iou::CONTRACT, Iou::NAME, &iou)?;
    let signed = command(draft, &Command::Issue, [&iou.lender, &iou.borrower])?.sign()?;
    let session = initiate(&lender)?;
    session.send(&Asked::Sign)?;
    let sessions = [session];
    Ok(Done::of(&signed.collect(&sessions)?.finalise(&sessions)?, &iou))
}

/// Passes a claim on: whoever gets it signs too, and the borrower learns of it.
#[flow(startable)]
fn transfer(input: Transfer) -> Result<Done> {
    let (us, to) = (our_identity(), find(&input.to)?);
    let old = of_id(&input.id)?;
    ensure!(
        old.state.lender.name == us.name(),
        FlowException::new("only the lender passes a claim on").of_type("iou/not-lender")
    );
    let new = Iou { lender: on_ledger(&to)?, ..old.state.clone() };
    let draft = Draft::spending(std::slice::from_ref(&old)).output(Iou::CONTRACT, Iou::NAME, &new)?;
    let signed = command(draft, &Command::Transfer, [&old.state.lender, &new.lender])?.sign()?;
    let to_sign = initiate(&to)?;
    to_sign.send(&Asked::Sign)?;
    let signed = signed.collect(&[to_sign])?;
    let borrower = initiate(&Party::from_name(new.borrower.name.as_str()))?;
    borrower.send(&Asked::Record)?;
    Ok(Done::of(&signed.finalise(&[to_sign, borrower])?, &new))
}

/// Pays back, in cash: the debt and the cash change in one transaction, which the lender signs too.
#[flow(startable)]
fn settle(input: Settle) -> Result<Done> {
    let (us, paid) = (our_identity(), quantity(input.quantity)?);
    let old = of_id(&input.id)?;
    ensure!(
        old.state.borrower.name == us.name(),
        FlowException::new("only the borrower pays a debt back").of_type("iou/not-borrower")
    );
    let owed = old.state.quantity - old.state.paid;
    ensure!(paid <= owed, FlowException::new(format!("{owed} are owed")).of_type("iou/over-paid"));
    let (lender, borrower) = (old.state.lender.clone(), old.state.borrower.clone());
    let wanted = amount(&old.state.currency, paid).kept_by(&old.notary);
    let cash = spend_such(&wanted, |cash| roles::is_accepted(cash, &borrower))?;
    let mut draft = Draft::spending(std::slice::from_ref(&old)).inputs(&cash);
    if paid < owed {
        let new = Iou { paid: old.state.paid + paid, ..old.state.clone() };
        draft = draft.output(Iou::CONTRACT, Iou::NAME, &new)?;
    }
    let draft = pay_from(draft, &cash, &(&lender).into(), paid)?;
    let settling = Command::Settle { quantity: paid };
    let signed = command(draft, &settling, [&old.state.borrower, &old.state.lender])?.sign()?;
    let session = initiate(&Party::from_name(lender.name.as_str()))?;
    session.send(&Asked::Sign)?;
    let sessions = [session];
    Ok(Done::of(&signed.collect(&sessions)?.finalise(&sessions)?, &old.state))
}

/// Has another notary keep a debt. Lender and borrower sign, whichever of them wants it.
#[flow(startable)]
fn change_notary(input: ChangeNotary) -> Result<Moved> {
    let old = of_id(&input.id)?;
    let moved = move_to_notary(&old, &find(&input.to)?)?;
    Ok(Moved { state: moved.reference, id: moved.state.id.to_string() })
}

/// Agrees to lend.
#[flow(responds_to = "issue")]
fn accept_issue(session: Session) -> Result<()> {
    let Asked::Sign = session.receive()? else { return Err(nothing_to_record()) };
    let proposed = session.receive_to_sign()?;
    is_new(roles::lends(&Proposal::of(&proposed)?, &sides(&session)?)?)?;
    session.sign(&proposed)?;
    session.receive_finality_of(proposed.id()).map(drop)
}

/// Takes a claim; or, as the borrower, who signs nothing, learns that it has gone to another.
#[flow(responds_to = "transfer")]
fn accept_transfer(session: Session) -> Result<()> {
    if let Asked::Record = session.receive()? {
        return session.receive_finality().map(drop);
    }
    let proposed = session.receive_to_sign()?;
    let proposal = Proposal::of(&proposed)?;
    let claim = roles::takes_claim(&proposal, &sides(&session)?)?;
    ensure!(
        Issuers::new().know(&claim.borrower)?,
        FlowException::new(format!("the key of the borrower is not that of {}", claim.borrower))
            .of_type("iou/unexpected-proposal")
    );
    is_new(claim)?;
    session.sign(&proposed)?;
    session.receive_finality_of(proposed.id()).map(drop)
}

/// Is paid back, in money of anybody whom the network knows but the borrower.
#[flow(responds_to = "settle")]
fn accept_settlement(session: Session) -> Result<()> {
    let Asked::Sign = session.receive()? else { return Err(nothing_to_record()) };
    let proposed = session.receive_to_sign()?;
    let (proposal, sides) = (Proposal::of(&proposed)?, sides(&session)?);
    Issuers::new().check(roles::is_paid(&proposal, &sides)?)?;
    session.sign(&proposed)?;
    session.receive_finality_of(proposed.id()).map(drop)
}

fn sides(session: &Session) -> Result<Sides> {
    Ok(Sides { us: us_on_ledger(), peer: on_ledger(&session.counterparty())? })
}

fn nothing_to_record() -> Error {
    thrown("iou/unexpected-proposal", "a signature is asked for here, and nothing is recorded without one")
}

/// Two debts with the same id could not be told apart.
fn is_new(iou: &Iou) -> Result<()> {
    let id = iou.id.to_string();
    let known = Query::of("iou/Iou").filter(format!("id = {}", text(&id))).limit(1).find::<Iou>()?;
    ensure!(
        known.is_empty(),
        FlowException::new(format!("there is an open debt with the id '{id}' already"))
            .of_type("iou/unexpected-proposal")
    );
    Ok(())
}

fn of_id(id: &str) -> Result<StateAndRef<Iou>> {
    let mut found = Query::of("iou/Iou").filter(format!("id = {}", text(id))).find::<Iou>()?;
    found.pop().ok_or_else(|| thrown("iou/not-found", &format!("there is no open debt with the id '{id}'")))
}

fn command<'a>(
    draft: Draft,
    command: &Command,
    signers: impl IntoIterator<Item = &'a maxhost_contract::Party>,
) -> Result<Draft> {
    let value = command.encode().map_err(|error| Error::unexpected(error.to_string()))?;
    let keys: Vec<Vec<u8>> = signers.into_iter().map(|party| party.key().spki().to_vec()).chain([our_key()]).collect();
    Ok(draft.command(Iou::CONTRACT, command.name(), value, keys))
}

cordapp! { flows: [change_notary, issue, accept_issue, transfer, accept_transfer, settle, accept_settlement] }
