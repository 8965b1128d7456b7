//! A dealer's side.

use maxhost_sdk::prelude::*;

use crate::protocol::{Offer, ToDealer, answer, floor_price, list_price};

/// Quotes a price, gives way down to a floor, and learns whether it sold.
#[flow(responds_to = "request")]
pub fn quote(session: Session) -> Result<()> {
    let ToDealer::Request { item, quantity } = session.receive()? else {
        bail!("a conversation begins with a request");
    };
    ensure!(quantity > 0, FlowException::new(format!("no {item} is asked for")).of_type("quotes/nothing-wanted"));
    let list = list_price(&item, quantity, &our_identity());
    let mut offer = Offer { price: list, last: false };
    loop {
        progress!("offered {quantity} {item} for {}", offer.price);
        match session.send_and_receive(&offer)? {
            ToDealer::Counter { price } => offer = answer(price, floor_price(list)),
            ToDealer::Won => {
                info!("sold {quantity} {item} for {} to {}", offer.price, session.counterparty());
                return Ok(());
            }
            ToDealer::Lost => return Ok(()),
            ToDealer::Request { .. } => bail!("a conversation has one request"),
        }
    }
}
