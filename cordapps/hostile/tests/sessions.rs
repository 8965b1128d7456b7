//! How sessions behave, kept in memory and put away at every wait.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use maxhost_testkit::{Error, Result, TestNetwork};
use serde_json::{Value, json};

const MODES: [&str; 2] = ["never", "every-wait"];

fn networks() -> impl Iterator<Item = TestNetwork> {
    MODES
        .into_iter()
        .map(|mode| TestNetwork::builder().identities(["Alice", "Bob", "Carol"]).evict(mode).build().unwrap())
}

fn kind(outcome: Result<Value>) -> Option<String> {
    outcome.err().as_ref().and_then(Error::flow_failure).map(|failure| failure.kind.clone())
}

#[test]
fn messages_go_both_ways() -> Result<()> {
    for network in networks() {
        let with_bob = json!({"peer": network.party("Bob")});
        assert_eq!(network.start("Alice", "both-send-first", with_bob.clone())?, json!([20, 21]));
        let one = json!({"peer": network.party("Bob"), "value": 7});
        assert_eq!(network.start("Alice", "send-only", one.clone())?, Value::Null);
        assert_eq!(network.start("Alice", "peer-leaves", one)?, json!(7));
        let info = network.start("Alice", "flow-info", with_bob)?;
        assert_eq!(info, json!({"version": 3, "app": "hostile"}));
    }
    Ok(())
}

#[test]
fn one_flow_talks_to_many() -> Result<()> {
    for network in networks() {
        let (bob, carol) = (network.party("Bob"), network.party("Carol"));
        let both = json!({"peers": [bob, carol], "value": 5});
        assert_eq!(network.start("Alice", "fan-out", both.clone())?, json!(2));
        assert_eq!(network.start("Alice", "receive-all", both)?, json!([[5, bob], [6, carol]]));
        let many = network.start("Alice", "many-sessions", json!({"peer": bob, "value": 20}))?;
        assert_eq!(many, json!((1..=20).sum::<u32>()));
        // A party may talk to itself.
        let own = network.start("Bob", "many-sessions", json!({"peer": bob, "value": 3}))?;
        assert_eq!(own, json!(6));
    }
    Ok(())
}

#[test]
fn what_is_not_allowed_is_refused() -> Result<()> {
    let network = TestNetwork::new(["Alice", "Bob"])?;
    let with_bob = json!({"peer": network.party("Bob")});
    assert_eq!(
        kind(network.start("Alice", "same-session-twice", with_bob.clone())).as_deref(),
        Some("illegal-argument")
    );
    assert_eq!(kind(network.start("Alice", "premature-close", with_bob)).as_deref(), Some("premature-close"));
    let nobody = json!({"peer": "O=Nobody, L=London, C=GB"});
    assert_eq!(kind(network.start("Alice", "flow-info", nobody)).as_deref(), Some("illegal-argument"));
    Ok(())
}

#[test]
fn a_closed_session_stays_closed() -> Result<()> {
    for network in networks() {
        let closed = network.start("Alice", "double-close", json!({"peer": network.party("Bob")}))?;
        assert_eq!(closed, json!({"answer": 1, "send": "unexpected-end", "receive": "unexpected-end"}));
    }
    Ok(())
}

#[test]
fn a_wait_ends_with_a_message_or_at_its_deadline() -> Result<()> {
    for network in networks() {
        let wait = |deadline: u64, answer: u64| {
            let arguments = json!({"peer": network.party("Bob"), "deadline_ms": deadline, "answer_ms": answer});
            network.start("Alice", "wait-any-deadline", arguments)
        };
        assert_eq!(wait(60_000, 10)?, json!({"ready": true, "answer": 10}));
        assert_eq!(wait(50, 60_000)?, json!({"ready": false, "answer": null}));
    }
    Ok(())
}

#[test]
fn a_sub_flow_speaks_its_own_protocol() -> Result<()> {
    for network in networks() {
        let protocols = network.start("Alice", "sub-flows", json!({"peer": network.party("Bob")}))?;
        let expected =
            json!({"own": "sub-flows", "initiating": "inner", "inlined": "sub-flows", "own_again": "sub-flows"});
        assert_eq!(protocols, expected);
    }
    Ok(())
}
