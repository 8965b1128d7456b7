//! A CorDapp that is called `iou` and is not the sample of that name: whoever runs it speaks the protocols of debts and of sales, and
//! proposes what the other side should not sign.

use cash_contract::{Cash, Command as CashCommand};
use cash_wallet::{PartyName, command, find, notary, on_ledger, pay_from, us_on_ledger};
use iou_contract::{Command, Iou};
use maxhost_contract::{AnyParty, CommandSet, HasKey, State};
use maxhost_sdk::ledger::{Draft, Query, StateAndRef, our_key, text};
use maxhost_sdk::prelude::*;
use trade_contract::{Asset, Command as TradeCommand};

/// Another's claim on this identity.
#[derive(Serialize, Deserialize, JsonSchema)]
pub struct Issue {
    /// The debt.
    pub id: String,
    /// Who would get the claim.
    pub to: PartyName,
}

/// A debt of this identity.
#[derive(Serialize, Deserialize, JsonSchema)]
pub struct Settle {
    /// The debt.
    pub id: String,
    /// How much of it is paid.
    pub quantity: u64,
    /// In whose name the cash is that it is paid with.
    pub issuer: PartyName,
}

/// What the other side says.
#[derive(Serialize, Deserialize, JsonSchema)]
pub struct Refusal {
    /// The type of its exception.
    pub refused: Option<String>,
}

/// What the other side is asked for, in the protocol of the sample.
#[derive(Serialize, Deserialize)]
enum Asked {
    /// To sign.
    Sign,
}

/// What a buyer is offered, as far as it is of interest.
#[derive(Serialize, Deserialize)]
struct Offer {
    price: u64,
    currency: String,
}

fn refusal(error: Error) -> Result<Refusal> {
    match error.flow_exception() {
        Some(exception) => Ok(Refusal { refused: exception.exception_type().map(str::to_owned) }),
        None => Err(error),
    }
}

fn of_id(id: &str) -> Result<StateAndRef<Iou>> {
    let mut found = Query::of("iou/Iou").filter(format!("id = {}", text(id))).find::<Iou>()?;
    found.pop().ok_or_else(|| FlowException::new(format!("there is no debt {id}")).into())
}

fn done<P: HasKey>(draft: Draft, command: &Command, signers: impl IntoIterator<Item = P>) -> Result<Draft> {
    let value = command.encode().map_err(|error| Error::unexpected(error.to_string()))?;
    let keys = signers.into_iter().map(|party| party.key().spki().to_vec());
    Ok(draft.command(Iou::CONTRACT, command.name(), value, keys))
}

/// Asks a lender, in the words in which he is asked to lend, for his claim on this identity: it would be somebody else's.
#[flow(startable)]
fn issue(input: Issue) -> Result<Refusal> {
    let old = of_id(&input.id)?;
    let new = Iou { lender: on_ledger(&find(&input.to)?)?, ..old.state.clone() };
    let draft = Draft::spending(std::slice::from_ref(&old)).output(Iou::CONTRACT, Iou::NAME, &new)?;
    let signed = done(draft, &Command::Transfer, [&old.state.lender, &new.lender])?.sign()?;
    let session = initiate(&Party::from_name(old.state.lender.name.as_str()))?;
    session.send(&Asked::Sign)?;
    match signed.collect(&[session]) {
        Ok(_) => bail!("{} gives a claim away", old.state.lender),
        Err(error) => refusal(error),
    }
}

/// Pays a debt with money that is made for it: own money, or such as is said to be another's.
#[flow(startable)]
fn settle(input: Settle) -> Result<Refusal> {
    let old = of_id(&input.id)?;
    let us = us_on_ledger();
    let issuer = maxhost_contract::Party { name: find(&input.issuer)?.name().to_owned(), ..us.clone() };
    let (owner, quantity, currency) = ((&us).into(), input.quantity, old.state.currency.clone());
    let cash = Cash { owner, quantity, currency, issuer };
    let made = Draft::new(&notary(None)?).output(Cash::CONTRACT, Cash::NAME, &cash)?;
    let made = command(made, &CashCommand::Issue, [our_key()])?.sign()?.finalise(&[] as &[Session])?;
    let cash = [StateAndRef { reference: format!("{}:0", made.id()), state: cash, notary: old.notary.clone() }];
    let mut draft = Draft::spending(std::slice::from_ref(&old)).inputs(&cash);
    let paid = old.state.paid + input.quantity;
    if paid < old.state.quantity {
        draft = draft.output(Iou::CONTRACT, Iou::NAME, &Iou { paid, ..old.state.clone() })?;
    }
    let draft = pay_from(draft, &cash, &(&old.state.lender).into(), input.quantity)?;
    let settling = Command::Settle { quantity: input.quantity };
    let signed = done(draft, &settling, [&old.state.borrower, &old.state.lender])?.sign()?;
    let session = initiate(&Party::from_name(old.state.lender.name.as_str()))?;
    session.send(&Asked::Sign)?;
    match signed.collect(&[session]) {
        Ok(_) => bail!("{} takes any money", old.state.lender),
        Err(error) => refusal(error),
    }
}

/// Buys what is offered for one less than the price.
#[flow(responds_to = "trade/sell")]
fn pays_less(session: Session) -> Result<()> {
    let offer: Offer = session.receive()?;
    let Some(offered) = session.receive_states::<Asset>()?.pop() else { bail!("nothing was offered") };
    let price = offer.price - 1;
    let cash = cash_wallet::spend(&offer.currency, price)?;
    let owner: AnyParty = us_on_ledger().into();
    let bought = Asset { owner, ..offered.state.clone() };
    let draft = Draft::spending(std::slice::from_ref(&offered)).inputs(&cash);
    let draft = draft.output(Asset::CONTRACT, <Asset as State>::NAME, &bought)?;
    let value = TradeCommand::Move.encode().map_err(|error| Error::unexpected(error.to_string()))?;
    let seller = &offered.state.owner;
    let draft = draft.command(Asset::CONTRACT, TradeCommand::Move.name(), value, [seller.key().spki().to_vec()]);
    let signed = pay_from(draft, &cash, seller, price)?.sign()?;
    signed.collect(&[session])?.finalise(&[session]).map(drop)
}

cordapp! {
    name: "iou",
    version: "6.0.0",
    flows: [issue, settle, pays_less],
}
