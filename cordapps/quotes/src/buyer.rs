//! The buyer's side.

use std::collections::BTreeSet;

use maxhost_sdk::prelude::*;

use crate::protocol::{Offer, ROUNDS, ToDealer, counter_price};

/// What is wanted, and of whom.
#[derive(Serialize, Deserialize, JsonSchema)]
pub struct Request {
    /// Whom to ask; each once.
    pub dealers: Vec<Party>,
    /// What is wanted.
    pub item: String,
    /// How much of it.
    pub quantity: u32,
    /// How long to wait for all dealers together, milliseconds.
    pub deadline_ms: u64,
}

/// The best offer.
#[derive(Serialize, Deserialize, JsonSchema)]
pub struct Outcome {
    /// Who made it.
    pub winner: Party,
    /// For the whole quantity.
    pub price: u64,
    /// How many dealers made an offer.
    pub answers: u32,
}

/// Where the talk with one dealer stands.
struct Talk {
    dealer: Party,
    session: Session,
    /// The dealer's last offer.
    price: Option<u64>,
    rounds: u32,
    /// There is more to expect of this dealer.
    open: bool,
}

/// Asks several dealers for a price at once, bargains with each, and buys from the cheapest; all before one deadline.
#[flow(startable)]
pub fn request(request: Request) -> Result<Outcome> {
    let deadline = now() + Duration::from_millis(request.deadline_ms);
    let mut talks = open_talks(&request)?;
    let asked = ToDealer::Request { item: request.item.clone(), quantity: request.quantity };
    send_all(talks.iter().map(|talk| talk.session), &asked)?;

    while let Some(ready) = next_answer(&talks, deadline)? {
        if let Some(talk) = talks.iter_mut().find(|talk| talk.session == ready) {
            bargain(talk)?;
        }
        progress!("{} of {} dealers have answered", answers(&talks), talks.len());
    }
    let Some((winner, price)) = best(&talks) else {
        bail!(
            FlowException::new(format!("no dealer offered {} within {} ms", request.item, request.deadline_ms))
                .of_type("quotes/no-answer")
        );
    };
    tell(&talks, winner);
    Ok(Outcome { winner: winner.dealer.clone(), price, answers: answers(&talks) })
}

fn open_talks(request: &Request) -> Result<Vec<Talk>> {
    ensure!(!request.dealers.is_empty(), FlowException::new("no dealer is named").of_type("quotes/no-dealers"));
    let different: BTreeSet<&Party> = request.dealers.iter().collect();
    ensure!(
        different.len() == request.dealers.len(),
        FlowException::new("a dealer is named twice").of_type("quotes/dealer-twice")
    );
    let open = |dealer: &Party| {
        Ok(Talk { dealer: dealer.clone(), session: initiate(dealer)?, price: None, rounds: 0, open: true })
    };
    request.dealers.iter().map(open).collect()
}

/// The next dealer that has something to say; `None` when all are done or it is too late.
fn next_answer(talks: &[Talk], deadline: Timestamp) -> Result<Option<Session>> {
    let open: Vec<Session> = talks.iter().filter(|talk| talk.open).map(|talk| talk.session).collect();
    if open.is_empty() { Ok(None) } else { wait_any(open, deadline) }
}

/// Takes a dealer's offer, and asks for a better one as long as there is hope. A dealer that fails or leaves is no reason
/// for the others to lose a deal.
fn bargain(talk: &mut Talk) -> Result<()> {
    let offer: Offer = match talk.session.receive() {
        Ok(offer) => offer,
        Err(error) => {
            warn!("{} is out: {error}", talk.dealer);
            (talk.open, talk.price) = (false, None);
            return Ok(());
        }
    };
    talk.price = Some(offer.price);
    if offer.last || talk.rounds == ROUNDS {
        talk.open = false;
        return Ok(());
    }
    talk.rounds += 1;
    talk.session.send(&ToDealer::Counter { price: counter_price(offer.price) })
}

/// The cheapest offer; of equal ones the dealer named first.
fn best(talks: &[Talk]) -> Option<(&Talk, u64)> {
    talks.iter().filter_map(|talk| Some((talk, talk.price?))).min_by_key(|(_, price)| *price)
}

fn answers(talks: &[Talk]) -> u32 {
    talks.iter().map(|talk| u32::from(talk.price.is_some())).sum()
}

/// Tells every dealer how it ended. One that has left meanwhile need not know.
fn tell(talks: &[Talk], winner: &Talk) {
    for talk in talks.iter().filter(|talk| talk.price.is_some() || talk.open) {
        let verdict = if talk.session == winner.session { ToDealer::Won } else { ToDealer::Lost };
        if let Err(error) = talk.session.send(&verdict) {
            warn!("{} does not learn that it has {verdict:?}: {error}", talk.dealer);
        }
    }
}
