//! Payments that follow a list of sanctions: the authority keeps it, and whoever pays fetches it from there.

use cash_contract::Cash;
use cash_wallet::{
    Done, PartyName, finalise_cash, find, is, notary, on_ledger, pay_from, quantity, receive_cash, spend, thrown,
};
use maxhost_contract::{CommandSet, LinearId, State};
use maxhost_sdk::ledger::{Draft, Query, Repeat, StateAndRef, our_key, text};
use maxhost_sdk::prelude::*;
use sanctions_contract::{Command, Receipt, SanctionsList};

/// So often a payment is tried while the authority changes its list.
const ATTEMPTS: u32 = 5;

/// The list of this identity, as it is to be from now on.
#[derive(Serialize, Deserialize, JsonSchema)]
pub struct Publish {
    /// Who may neither pay nor be paid.
    pub names: Vec<PartyName>,
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
    /// Whose list it follows.
    pub authority: PartyName,
}

/// A payment by the list that the payer knows.
#[derive(Serialize, Deserialize, JsonSchema)]
pub struct PayFollowing {
    /// The payment.
    pub payment: Pay,
    /// How long to wait to be told of the list that has replaced it, milliseconds.
    pub patience_ms: u64,
}

/// Whom the authority tells of its list.
#[derive(Serialize, Deserialize, JsonSchema)]
pub struct Tell {
    /// Those who pay by it.
    pub followers: Vec<PartyName>,
}

/// A list that was published.
#[derive(Serialize, Deserialize, JsonSchema)]
pub struct Published {
    /// Id of the transaction.
    pub tx: String,
    /// Id of the list.
    pub id: String,
}

/// What the other side is asked for.
#[derive(Serialize, Deserialize)]
enum Asked {
    /// Its list.
    List,
    /// To take a payment.
    Payment,
}

/// Makes the list of this identity, or changes it.
#[flow(startable)]
fn publish(input: Publish) -> Result<Published> {
    let mut names = Vec::with_capacity(input.names.len());
    for name in &input.names {
        names.push(find(name)?.name().to_owned());
    }
    names.sort();
    names.dedup();
    let (draft, list, doing) = match own_list()? {
        Some(old) => {
            let list = SanctionsList { names, ..old.state.clone() };
            (Draft::spending(std::slice::from_ref(&old)), list, Command::Update)
        }
        None => {
            let mut id = [0; 16];
            id.copy_from_slice(&random(16)?);
            let list = SanctionsList { id: LinearId::from_random(id), authority: on_ledger(&our_identity())?, names };
            (Draft::new(&notary(None)?), list, Command::Publish)
        }
    };
    let draft = draft.output(SanctionsList::CONTRACT, SanctionsList::NAME, &list)?;
    let done = command(draft, &doing)?.sign()?.finalise(&[] as &[Session])?;
    Ok(Published { tx: done.id().to_owned(), id: list.id.to_string() })
}

/// Pays, unless the list of the authority names payer or payee. If the authority changes its list meanwhile, the notary
/// refuses the payment, and it is made again by the new one.
#[flow(startable, version = 2)]
fn pay(input: Pay) -> Result<Done> {
    let Payment { to, authority, receipt, spent } = prepare(&input)?;
    let mut attempt = 1;
    loop {
        match pay_by(&list_of(&authority)?, &receipt, &spent, &to) {
            Err(error) if is(&error, "notary/conflict") && attempt < ATTEMPTS => attempt += 1,
            other => return other,
        }
    }
}

/// Pays by the newest list that this identity knows, without asking the authority for it. If that has changed its list, the
/// notary refuses the payment; it is made again when the authority has told this identity.
#[flow(startable)]
fn pay_following(input: PayFollowing) -> Result<Done> {
    let Payment { to, authority, receipt, spent } = prepare(&input.payment)?;
    let patience = Duration::from_millis(input.patience_ms);
    Repeat::new(ATTEMPTS, patience).with_referenced_states(|| {
        let list = match list_by(&authority)? {
            Some(list) => list,
            None => list_of(&authority)?,
        };
        progress!("pays by {}", list.reference);
        pay_by(&list, &receipt, &spent, &to)
    })
}

/// Tells those who pay by the list of this identity which it is.
#[flow(startable)]
fn tell(input: Tell) -> Result<()> {
    let Some(list) = own_list()? else { return Err(thrown("sanctions/no-list", "this party keeps no list")) };
    for follower in &input.followers {
        initiate(&find(follower)?)?.send_states(std::slice::from_ref(&list))?;
    }
    Ok(())
}

/// Learns of a list: with it comes what it has replaced.
#[flow(responds_to = "tell")]
fn is_told(session: Session) -> Result<()> {
    session.receive_states::<SanctionsList>().map(drop)
}

/// A payment that is to be made.
struct Payment {
    to: Party,
    authority: Party,
    receipt: Receipt,
    spent: Vec<StateAndRef<Cash>>,
}

fn prepare(input: &Pay) -> Result<Payment> {
    let quantity = quantity(input.quantity)?;
    let (us, to, authority) = (our_identity(), find(&input.to)?, find(&input.authority)?);
    ensure!(to != us, FlowException::new("nobody pays himself").of_type("sanctions/to-oneself"));
    let receipt = Receipt {
        payer: on_ledger(&us)?,
        payee: on_ledger(&to)?,
        quantity,
        currency: input.currency.clone(),
        authority: on_ledger(&authority)?,
    };
    let spent = spend(&input.currency, quantity)?;
    Ok(Payment { to, authority, receipt, spent })
}

fn pay_by(
    list: &StateAndRef<SanctionsList>,
    receipt: &Receipt,
    spent: &[StateAndRef<Cash>],
    to: &Party,
) -> Result<Done> {
    for party in [&receipt.payer, &receipt.payee] {
        ensure!(
            !list.state.names.contains(&party.name),
            FlowException::new(format!("{} is on the list of {}", party.name, receipt.authority.name))
                .of_type("sanctions/sanctioned")
        );
    }
    let draft = Draft::spending(spent).reference(list);
    let draft = pay_from(draft, spent, &(&receipt.payee).into(), receipt.quantity)?;
    let draft = draft.output(Receipt::CONTRACT, Receipt::NAME, receipt)?;
    let signed = command(draft, &Command::Pay)?.sign()?;
    let session = initiate(to)?;
    session.send(&Asked::Payment)?;
    Ok(Done::of(&finalise_cash(&signed, &[session])?))
}

/// Gives the own list, or takes a payment.
#[flow(responds_to = "pay", version = 2)]
fn takes_part(session: Session) -> Result<()> {
    take_part(session)
}

/// As `takes_part`.
#[flow(responds_to = "pay-following")]
fn takes_part_following(session: Session) -> Result<()> {
    take_part(session)
}

fn take_part(session: Session) -> Result<()> {
    match session.receive()? {
        Asked::List => match own_list()? {
            Some(list) => session.send_states(&[list]),
            None => Err(thrown("sanctions/no-list", "this party keeps no list")),
        },
        Asked::Payment => receive_cash(&session).map(drop),
    }
}

/// The newest list of an authority, with what it comes from.
fn list_of(authority: &Party) -> Result<StateAndRef<SanctionsList>> {
    let list = if *authority == our_identity() {
        own_list()?
    } else {
        let session = initiate(authority)?;
        session.send(&Asked::List)?;
        session.receive_states::<SanctionsList>()?.pop()
    };
    match list {
        Some(list) if list.state.authority.name == authority.name() => Ok(list),
        _ => Err(thrown("sanctions/no-list", &format!("{authority} keeps no list"))),
    }
}

/// The list that this identity keeps.
fn own_list() -> Result<Option<StateAndRef<SanctionsList>>> {
    list_by(&our_identity())
}

/// The newest list of an authority that is in the vault: the own one, or one that a payment has followed.
fn list_by(authority: &Party) -> Result<Option<StateAndRef<SanctionsList>>> {
    let theirs = format!("authority = {}", text(authority.name()));
    Ok(Query::of("sanctions/SanctionsList").filter(theirs).find::<SanctionsList>()?.pop())
}

fn command(draft: Draft, command: &Command) -> Result<Draft> {
    let value = command.encode().map_err(|error| Error::unexpected(error.to_string()))?;
    Ok(draft.command(SanctionsList::CONTRACT, command.name(), value, [our_key()]))
}

cordapp! { flows: [publish, pay, takes_part, pay_following, takes_part_following, tell, is_told] }
