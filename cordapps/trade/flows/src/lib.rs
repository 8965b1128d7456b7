//! Delivery versus payment: an asset against cash, in one transaction.

mod terms;

use cash_wallet::{
    Done, Issuers, PartyName, Proposal, amount, find, in_cash, notary, of_one_notary, on_ledger, pay_from,
    pay_unnamed_from, quantity, thrown,
};
use maxhost_contract::{AnyParty, CommandSet, HasKey, LinearId, PublicKey, State};
use maxhost_sdk::ledger::{Draft, Query, StateAndRef, our_key, text};
use maxhost_sdk::prelude::*;
use terms::Price;
use trade_contract::{Asset, Command};

/// The type of an asset's state. The trait says so, because the struct has a field of that name.
const STATE: &str = <Asset as State>::NAME;

/// An asset that is to be made.
#[derive(Serialize, Deserialize, JsonSchema)]
pub struct Issue {
    /// What people call it, for example `bond-1`.
    pub asset: String,
}

/// An asset that is to be sold.
#[derive(Serialize, Deserialize, JsonSchema)]
pub struct Sell {
    /// Who buys.
    pub buyer: PartyName,
    /// Which asset.
    pub asset: String,
    /// For how much, in the smallest unit of the currency.
    pub price: i64,
    /// Three capital letters.
    pub currency: String,
    /// Whether both sides are new keys on the ledger, and not names.
    #[serde(default)]
    pub anonymous: bool,
    /// Whose cash is taken; anybody's whom the network knows if nobody is named.
    #[serde(default)]
    pub issuer: Option<PartyName>,
}

/// The transaction that made an asset, and its id.
#[derive(Serialize, Deserialize, JsonSchema)]
pub struct Made {
    /// Id of the transaction.
    pub tx: String,
    /// Id of the asset.
    pub id: String,
}

/// What a buyer is offered.
#[derive(Serialize, Deserialize)]
struct Offer {
    asset: String,
    price: u64,
    currency: String,
    #[serde(default)]
    anonymous: bool,
    #[serde(default)]
    issuer: Option<Party>,
}

/// Makes an asset that this identity stands behind, and has.
#[flow(startable)]
fn issue(input: Issue) -> Result<Made> {
    let us = our_identity();
    let mut random_id = [0; 16];
    random_id.copy_from_slice(&random(16)?);
    let asset = Asset {
        id: LinearId::from_random(random_id),
        name: input.asset,
        owner: on_ledger(&us)?.into(),
        issuer: on_ledger(&us)?,
    };
    let draft = Draft::new(&notary(None)?).output(Asset::CONTRACT, STATE, &asset)?;
    let made = command(draft, &Command::Issue, [our_key()])?.sign()?.finalise(&[] as &[Session])?;
    Ok(Made { tx: made.id().to_owned(), id: asset.id.to_string() })
}

/// Sells an asset: the buyer builds the one transaction that moves asset and cash, and both sign it.
#[flow(startable, version = 2)]
fn sell(input: Sell) -> Result<Done> {
    let (us, buyer) = (our_identity(), find(&input.buyer)?);
    ensure!(buyer != us, FlowException::new("nobody sells to himself").of_type("trade/to-oneself"));
    let price = quantity(input.price)?;
    let issuer = input.issuer.as_ref().map(find).transpose()?;
    let asset = own(&input.asset)?;
    let session = initiate(&buyer)?;
    let name = asset.state.name.clone();
    let offer = Offer { asset: name, price, currency: input.currency, anonymous: input.anonymous, issuer };
    session.send(&offer)?;
    let owner = asset.state.owner.clone();
    // The price goes to whom the asset is from, or to a new key.
    let mut payee = owner.clone();
    if offer.anonymous {
        payee = session.provide_key()?.party();
        session.request_key()?;
    }
    session.send_states(std::slice::from_ref(&asset))?;
    let our_key = PublicKey::from(our_key());
    if owner.owning_key != our_key {
        session.share_keys(std::slice::from_ref(&owner))?;
    }
    let proposed = session.receive_to_sign()?;
    let proposal = Proposal::of(&proposed)?;
    let wanted = Price { quantity: price, currency: &offer.currency, issuer: offer.issuer.as_ref(), payee: &payee };
    let own_keys = [&our_key, &owner.owning_key, &payee.owning_key];
    Issuers::new().check(terms::sold(&proposal, &asset, &wanted, &own_keys)?)?;
    session.sign_as(&proposed, &[owner])?;
    let sold = session.receive_finality_of(proposed.id())?;
    Ok(Done::of(&sold))
}

/// Buys what is offered, if it is the seller's and there is enough cash.
#[flow(responds_to = "sell", version = 2)]
fn buy(session: Session) -> Result<()> {
    let offer: Offer = session.receive()?;
    let keys = match offer.anonymous {
        true => Some((session.request_key()?.party(), session.provide_key()?.party())),
        false => None,
    };
    let asset = offered(&session, &offer)?;
    let mut wanted = amount(&offer.currency, offer.price);
    if let Some(issuer) = &offer.issuer {
        wanted = wanted.issued_by(issuer);
    }
    let cash = of_one_notary(&wanted).map_err(in_cash)?;
    let seller = asset.state.owner.clone();
    let buyer: AnyParty = match &keys {
        Some((_, ours)) => ours.clone(),
        None => on_ledger(&our_identity())?.into(),
    };
    let draft = Draft::spending(std::slice::from_ref(&asset)).inputs(&cash);
    let bought = Asset { owner: buyer, ..asset.state.clone() };
    let draft = draft.output(Asset::CONTRACT, STATE, &bought)?;
    let draft = command(draft, &Command::Move, [seller.key().spki().to_vec()])?;
    let draft = match keys {
        Some((payee, _)) => pay_unnamed_from(draft, &cash, &payee, offer.price)?,
        None => pay_from(draft, &cash, &seller, offer.price)?,
    };
    let signed = draft.sign()?;
    let sessions = [session];
    signed.collect(&sessions)?.finalise(&sessions).map(drop)
}

/// The asset that is offered: the seller's own, so that nobody is sold what he has, and of an issuer whom the network knows.
fn offered(session: &Session, offer: &Offer) -> Result<StateAndRef<Asset>> {
    let mut given = session.receive_states::<Asset>()?;
    let (Some(asset), true) = (given.pop(), given.is_empty()) else { bail!("one asset was to be offered") };
    ensure!(asset.state.name == offer.asset, "another asset came than was offered");
    let owner = &asset.state.owner.owning_key;
    let is_sellers = *owner == on_ledger(&session.counterparty())?.owning_key
        || session.receive_keys()?.iter().any(|key| key.key() == owner);
    ensure!(is_sellers, FlowException::new("the asset is not the seller's").of_type("trade/not-sellers"));
    ensure!(
        Issuers::new().know(&asset.state.issuer)?,
        FlowException::new(format!("it is not {} who stands behind the asset", asset.state.issuer))
            .of_type("trade/issuer-unknown")
    );
    Ok(asset)
}

fn own(name: &str) -> Result<StateAndRef<Asset>> {
    let mut found = Query::of("trade/Asset").own().filter(format!("name = {}", text(name))).find::<Asset>()?;
    found.pop().ok_or_else(|| thrown("trade/not-found", &format!("there is no asset '{name}' here")))
}

fn command(draft: Draft, command: &Command, signers: impl IntoIterator<Item = Vec<u8>>) -> Result<Draft> {
    let value = command.encode().map_err(|error| Error::unexpected(error.to_string()))?;
    Ok(draft.command(Asset::CONTRACT, command.name(), value, signers))
}

cordapp! { flows: [issue, sell, buy] }
