//! The messages, and the arithmetic of prices.

use maxhost_sdk::prelude::*;

/// How often a buyer bargains with each dealer.
pub const ROUNDS: u32 = 3;

/// From the buyer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToDealer {
    /// What do you want for it? The first message.
    Request {
        /// What is wanted.
        item: String,
        /// How much of it.
        quantity: u32,
    },
    /// Would you do it for this?
    Counter {
        /// For the whole quantity.
        price: u64,
    },
    /// Your last offer is taken.
    Won,
    /// Another dealer was better.
    Lost,
}

/// From a dealer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// For the whole quantity.
    pub price: u64,
    /// There will be no better one.
    pub last: bool,
}

/// What a dealer asks for at first: decided by item, quantity and its name.
#[must_use]
pub fn list_price(item: &str, quantity: u32, dealer: &Party) -> u64 {
    let unit = 100 + hash(item.bytes().chain([0]).chain(dealer.name().bytes())) % 100;
    unit * u64::from(quantity)
}

/// What a dealer goes down to: nine tenths of its list price.
#[must_use]
pub fn floor_price(list_price: u64) -> u64 {
    list_price - list_price / 10
}

/// What a buyer answers an offer with: three per cent less.
#[must_use]
pub fn counter_price(offered: u64) -> u64 {
    offered - offered * 3 / 100
}

/// What a dealer answers a counter-offer with: it agrees down to its floor.
#[must_use]
pub fn answer(countered: u64, floor: u64) -> Offer {
    Offer { price: countered.max(floor), last: countered <= floor }
}

/// FNV-1a: the same everywhere, which is all that is asked of it.
fn hash(bytes: impl Iterator<Item = u8>) -> u64 {
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dealer_goes_down_to_its_floor_and_no_further() {
        assert_eq!(answer(95, 90), Offer { price: 95, last: false });
        assert_eq!(answer(89, 90), Offer { price: 90, last: true });
    }

    #[test]
    fn prices_depend_on_who_and_what() {
        let (bob, carol) = (Party::from_name("O=Bob, L=New York, C=US"), Party::from_name("O=Carol, L=Paris, C=FR"));
        assert_ne!(list_price("XS1", 10, &bob), list_price("XS1", 10, &carol));
        assert_ne!(list_price("XS1", 10, &bob), list_price("XS2", 10, &bob));
        assert_eq!(list_price("XS1", 20, &bob), 2 * list_price("XS1", 10, &bob));
        assert!(list_price("XS1", u32::MAX, &bob) > u64::from(u32::MAX));
    }
}
