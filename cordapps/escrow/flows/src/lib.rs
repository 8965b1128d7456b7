//! Cash in escrow: locked by the buyer, paid to the seller by the buyer, or taken back when the time is up.

use cash_contract::Cash;
use cash_wallet::{
    PartyName, finalise_cash, find, moved, on_ledger, outputs, pay_from, payment, quantity, receive_cash, spend, thrown,
};
use escrow_contract::{Command, Escrow};
use maxhost_contract::{CommandSet, LinearId, State, Timestamp as LedgerTime};
use maxhost_sdk::ledger::{Draft, Query, StateAndRef, Together, Transaction, lock_together, our_key, text};
use maxhost_sdk::prelude::*;

/// So long the notary takes back what may be reclaimed.
const RECLAIMABLE_FOR: Duration = Duration::from_secs(24 * 3600);

/// Cash that is to be locked for a seller.
#[derive(Serialize, Deserialize, JsonSchema)]
pub struct Lock {
    /// For whom.
    pub seller: PartyName,
    /// How much, in the smallest unit of the currency.
    pub quantity: i64,
    /// Three capital letters.
    pub currency: String,
    /// From then on it may be taken back: RFC 3339.
    pub until: String,
}

/// An escrow of which this identity is the buyer.
#[derive(Serialize, Deserialize, JsonSchema)]
pub struct Which {
    /// Its id.
    pub id: String,
}

/// The transaction that did it, and the escrow.
#[derive(Serialize, Deserialize, JsonSchema)]
pub struct Done {
    /// Id of the transaction.
    pub tx: String,
    /// Id of the escrow.
    pub id: String,
}

impl Done {
    fn of(transaction: &Transaction, escrow: &Escrow) -> Done {
        Done { tx: transaction.id().to_owned(), id: escrow.id.to_string() }
    }
}

/// Locks cash for a seller until a point in time.
#[flow(startable, version = 2)]
fn lock(input: Lock) -> Result<Done> {
    let quantity = quantity(input.quantity)?;
    let (us, seller) = (our_identity(), find(&input.seller)?);
    ensure!(seller != us, FlowException::new("nobody buys from himself").of_type("escrow/to-oneself"));
    let until: LedgerTime =
        input.until.parse().map_err(|_| thrown("escrow/until-invalid", "a time is written as in RFC 3339"))?;
    ensure!(
        until.as_unix_nanos() > now().as_unix_nanos(),
        FlowException::new("the time is up already").of_type("escrow/until-invalid")
    );
    let mut id = [0; 16];
    id.copy_from_slice(&random(16)?);
    let escrow = Escrow {
        id: LinearId::from_random(id),
        buyer: on_ledger(&us)?,
        seller: on_ledger(&seller)?,
        quantity,
        currency: input.currency,
        until,
    };
    let spent = spend(&escrow.currency, quantity)?;
    let locked = payment(&spent, &(&escrow.buyer).into(), quantity);
    // Only the change stays free.
    let draft = Draft::spending(&spent)
        .together(|draft| outputs(draft.output(Escrow::CONTRACT, Escrow::NAME, &escrow)?, &locked.paid))?;
    let draft = moved(outputs(draft, &locked.change)?, &spent)?;
    let signed = command(draft, &Command::Lock)?.sign()?;
    let session = initiate(&seller)?;
    Ok(Done::of(&finalise_cash(&signed, &[session])?, &escrow))
}

/// Pays the seller with what is locked.
#[flow(startable, version = 2)]
fn release(input: Which) -> Result<Done> {
    let (escrow, together) = of_ours(&input.id)?;
    let cash = together.of::<Cash>("cash/Cash")?;
    let draft = pay_from(Draft::spending_together(&together), &cash, &(&escrow.seller).into(), escrow.quantity)?;
    let signed = command(draft, &Command::Release)?.sign()?;
    Ok(Done::of(&finalise_cash(&signed, &[initiate(&named(&escrow))?])?, &escrow))
}

/// Takes back what is locked, when the time is up: the notary refuses it before.
#[flow(startable, version = 2)]
fn reclaim(input: Which) -> Result<Done> {
    let (escrow, together) = of_ours(&input.id)?;
    let cash = together.of::<Cash>("cash/Cash")?;
    let until = Timestamp::from_unix_nanos(escrow.until.as_unix_nanos());
    let draft = pay_from(Draft::spending_together(&together), &cash, &(&escrow.buyer).into(), escrow.quantity)?
        .from(until)
        .until(until.max(now()) + RECLAIMABLE_FOR);
    let signed = command(draft, &Command::Reclaim)?.sign()?;
    Ok(Done::of(&finalise_cash(&signed, &[initiate(&named(&escrow))?])?, &escrow))
}

/// Learns that cash is locked for it.
#[flow(responds_to = "lock", version = 2)]
fn learns_of_lock(session: Session) -> Result<()> {
    receive_cash(&session).map(drop)
}

/// Is paid.
#[flow(responds_to = "release", version = 2)]
fn takes_release(session: Session) -> Result<()> {
    receive_cash(&session).map(drop)
}

/// Learns that the buyer has taken the cash back.
#[flow(responds_to = "reclaim", version = 2)]
fn learns_of_reclaim(session: Session) -> Result<()> {
    receive_cash(&session).map(drop)
}

fn named(escrow: &Escrow) -> Party {
    Party::from_name(escrow.seller.name.as_str())
}

/// An escrow of this identity, held for this flow with the cash in it.
fn of_ours(id: &str) -> Result<(Escrow, Together)> {
    let mut found = Query::of("escrow/Escrow").filter(format!("id = {}", text(id))).find::<Escrow>()?;
    let escrow: StateAndRef<Escrow> =
        found.pop().ok_or_else(|| thrown("escrow/not-found", &format!("there is no escrow with the id '{id}'")))?;
    ensure!(
        escrow.state.buyer.name == our_identity().name(),
        FlowException::new("only the buyer releases it or takes it back").of_type("escrow/not-buyer")
    );
    let together = lock_together(&escrow)?;
    Ok((escrow.state, together))
}

fn command(draft: Draft, command: &Command) -> Result<Draft> {
    let value = command.encode().map_err(|error| Error::unexpected(error.to_string()))?;
    Ok(draft.command(Escrow::CONTRACT, command.name(), value, [our_key()]))
}

cordapp! { flows: [lock, learns_of_lock, release, takes_release, reclaim, learns_of_reclaim] }
