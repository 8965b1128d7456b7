//! Requests for quote on a real host.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;

use maxhost_sdk::prelude::Party;
use maxhost_testkit::{Error, Result, TestNetwork};
use quotes::protocol::{ROUNDS, answer, counter_price, floor_price, list_price};
use serde_json::{Value, json};

/// Where the bargaining with a dealer must end.
fn final_price(item: &str, quantity: u32, dealer: &str) -> u64 {
    let list = list_price(item, quantity, &Party::from_name(dealer));
    let mut price = list;
    for _ in 0..ROUNDS {
        let offer = answer(counter_price(price), floor_price(list));
        price = offer.price;
        if offer.last {
            break;
        }
    }
    price
}

fn request(network: &TestNetwork, dealers: &[&str], item: &str, quantity: u32, deadline_ms: u64) -> Result<Value> {
    let dealers: Vec<String> = dealers.iter().map(|dealer| network.party(dealer)).collect();
    let arguments = json!({"dealers": dealers, "item": item, "quantity": quantity, "deadline_ms": deadline_ms});
    network.start("Alice", "quotes/request", arguments)
}

fn exception(outcome: Result<Value>) -> Option<String> {
    outcome.err().as_ref().and_then(Error::flow_failure).and_then(|failure| failure.exception.clone())
}

#[test]
fn the_best_price_wins() -> Result<()> {
    for mode in ["never", "every-wait"] {
        let network = TestNetwork::builder().identities(["Alice", "Bob", "Carol"]).evict(mode).build()?;
        for item in ["XS1", "XS2", "XS3"] {
            let offers: BTreeMap<u64, String> = ["Bob", "Carol"]
                .map(|dealer| network.party(dealer))
                .map(|dealer| (final_price(item, 10, &dealer), dealer))
                .into();
            let (price, winner) = offers.first_key_value().unwrap();
            let outcome = request(&network, &["Bob", "Carol"], item, 10, 60_000)?;
            assert_eq!(outcome, json!({"winner": winner, "price": price, "answers": 2}), "{item}, evict = {mode}");
        }
    }
    Ok(())
}

#[test]
fn a_deadline_that_has_passed_leaves_no_answer() -> Result<()> {
    let network = TestNetwork::new(["Alice", "Bob"])?;
    assert_eq!(exception(request(&network, &["Bob"], "XS1", 10, 0)).as_deref(), Some("quotes/no-answer"));
    Ok(())
}

#[test]
fn what_cannot_be_asked_is_refused() -> Result<()> {
    let network = TestNetwork::new(["Alice", "Bob"])?;
    assert_eq!(exception(request(&network, &[], "XS1", 10, 1_000)).as_deref(), Some("quotes/no-dealers"));
    assert_eq!(exception(request(&network, &["Bob", "Bob"], "XS1", 10, 1_000)).as_deref(), Some("quotes/dealer-twice"));
    // Bob, asked for nothing, throws; without him there is no offer.
    assert_eq!(exception(request(&network, &["Bob"], "XS1", 0, 60_000)).as_deref(), Some("quotes/no-answer"));
    Ok(())
}

#[test]
fn bargaining_survives_a_power_cut() -> Result<()> {
    let network = TestNetwork::new(["Alice", "Bob", "Carol"])?;
    let dealers = [network.party("Bob"), network.party("Carol")];
    let arguments = json!({"dealers": dealers, "item": "XS1", "quantity": 10, "deadline_ms": 60_000});
    let flow = network.launch("Alice", "quotes/request", arguments)?;
    network.kill_and_restart()?;
    assert_eq!(network.wait(&flow)?["answers"], json!(2));
    Ok(())
}
