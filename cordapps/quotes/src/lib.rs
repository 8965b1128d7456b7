//! A request for quote: several dealers are asked at once, bargained with for some rounds, and the best price wins.
//!
//! [`request`](buyer) is the buyer's side, [`quote`](dealer) a dealer's; [`protocol`] is what they say to each other and
//! how a dealer makes up its prices.

use maxhost_sdk::prelude::*;

pub mod buyer;
pub mod dealer;
pub mod protocol;

cordapp! { flows: [buyer::request, dealer::quote] }
