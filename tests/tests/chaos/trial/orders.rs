//! What is asked of the hosts: flows under client ids, each with the result that it must have.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

/// The currency of all payments.
pub const CURRENCY: &str = "GBP";
/// What each payer gets at first.
pub const ISSUED: i64 = 1_000;
/// The most that is paid at once.
const MOST: i64 = 5;

/// A flow that is started under a name of its own.
#[derive(Debug, Clone)]
pub struct Order {
    pub name: String,
    pub from: String,
    pub flow: &'static str,
    pub arguments: Value,
    pub what: What,
}

/// What an order is to bring about.
#[derive(Debug, Clone, PartialEq)]
pub enum What {
    /// This result.
    Result(Value),
    /// Money that was not there before.
    Issue { to: u32 },
    /// Money of another.
    Payment { from: u32, to: u32, amount: i64 },
}

/// One of the numbered identities, from 0.
pub fn party(number: u32) -> String {
    format!("O=Party {:05}, L=London, C=GB", number + 1)
}

/// The first money of a payer.
pub fn issue(seed: u64, payer: u32) -> Order {
    Order {
        name: format!("{seed}-issue-{payer}"),
        from: party(payer),
        flow: "cash/issue",
        arguments: json!({"quantity": ISSUED, "currency": CURRENCY}),
        what: What::Issue { to: payer },
    }
}

/// The order of this number, among so many identities of which the first ones pay. The same for the same seed.
pub fn order(seed: u64, number: u64, identities: u32, payers: u32) -> Order {
    let mut rng = ChaCha8Rng::seed_from_u64(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ number);
    let name = format!("{seed}-{number}");
    match rng.random_range(0..10) {
        0..3 => {
            let (from, to) = two(&mut rng, payers, identities);
            let amount = rng.random_range(1..=MOST);
            let arguments = json!({"to": party(to), "quantity": amount, "currency": CURRENCY});
            Order { name, from: party(from), flow: "cash/pay", arguments, what: What::Payment { from, to, amount } }
        }
        3..5 => {
            let beats = rng.random_range(1..=4);
            let arguments = json!({"beats": beats, "interval_ms": rng.random_range(50..2_500)});
            let (from, what) = (party(rng.random_range(0..identities)), What::Result(json!({"beats": beats})));
            Order { name, from, flow: "heartbeat/beat", arguments, what }
        }
        _ => {
            let (from, to) = two(&mut rng, identities, identities);
            let rounds = rng.random_range(1..=12);
            let arguments = json!({"peer": party(to), "count": rounds});
            let what = What::Result(json!({"rounds": rounds}));
            Order { name, from: party(from), flow: "ping-pong/ping", arguments, what }
        }
    }
}

/// Two different numbers: one below the first bound, one below the second.
fn two(rng: &mut ChaCha8Rng, first: u32, second: u32) -> (u32, u32) {
    let one = rng.random_range(0..first);
    let other = rng.random_range(0..second - 1);
    (one, if other >= one { other + 1 } else { other })
}
