//! How errors travel between flows.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use maxhost_testkit::{FlowFailure, Result, TestNetwork};
use serde_json::{Value, json};

fn failure(network: &TestNetwork, flow: &str, arguments: Value) -> FlowFailure {
    match network.start("Alice", flow, arguments) {
        Err(error) => error.flow_failure().cloned().unwrap_or_else(|| panic!("{flow}: {error}")),
        Ok(result) => panic!("{flow} ended with {result}"),
    }
}

fn provoke(network: &TestNetwork, behaviour: Value, receives: u32) -> Result<Value> {
    let arguments = json!({"peer": network.party("Bob"), "behaviour": behaviour, "receives": receives, "catch": true});
    network.start("Alice", "provoke", arguments)
}

#[test]
fn an_exception_reaches_the_peer_and_an_error_only_its_number() -> Result<()> {
    for mode in ["never", "every-wait"] {
        let network = TestNetwork::builder().identities(["Alice", "Bob"]).evict(mode).build()?;
        let bob = network.party("Bob");
        let thrown = provoke(&network, json!("throw-typed"), 1)?;
        let expected = json!({
            "kind": "flow-exception", "message": "thrown on purpose", "exception": "hostile/thrown", "data": "some data",
            "peer": bob, "has_error_id": true,
        });
        assert_eq!(thrown["caught"], expected, "evict = {mode}");
        for behaviour in ["fail", "panic"] {
            let failed = provoke(&network, json!(behaviour), 1)?;
            assert_eq!(failed["caught"]["kind"], "unexpected-end", "{behaviour}, evict = {mode}");
            assert_eq!(failed["caught"]["has_error_id"], true, "{behaviour}");
            assert!(!failed.to_string().contains("secret"), "{failed}");
        }
        for behaviour in ["end", "wrong-type"] {
            let failed = provoke(&network, json!(behaviour), 1)?;
            assert_eq!(failed["caught"]["kind"], "unexpected-end", "{behaviour}: {failed}");
        }
    }
    Ok(())
}

#[test]
fn what_was_sent_before_the_error_arrives_before_it() -> Result<()> {
    let network = TestNetwork::new(["Alice", "Bob"])?;
    let late = provoke(&network, json!({"reply-after": 30}), 1)?;
    assert_eq!(late, json!({"received": ["late"], "caught": null}));
    let thrown = provoke(&network, json!("reply-then-throw"), 2)?;
    assert_eq!(
        (&thrown["received"], &thrown["caught"]["kind"]),
        (&json!(["first an answer"]), &json!("flow-exception"))
    );
    let closed = provoke(&network, json!({"reply-then-close": 50}), 2)?;
    assert_eq!((&closed["received"], &closed["caught"]["kind"]), (&json!(["closing"]), &json!("unexpected-end")));
    Ok(())
}

#[test]
fn an_error_that_nobody_catches_ends_the_flow() -> Result<()> {
    let network = TestNetwork::new(["Alice", "Bob"])?;
    let with_bob = json!({"peer": network.party("Bob")});

    let thrown = failure(&network, "throw-on-start", with_bob.clone());
    assert_eq!((thrown.kind.as_str(), thrown.peer), ("flow-exception", Some(network.party("Bob"))));
    assert_eq!(thrown.message, "thrown on start");
    for flow in ["panic-on-start", "end-on-start"] {
        assert_eq!(failure(&network, flow, with_bob.clone()).kind, "unexpected-end", "{flow}");
    }

    let own = failure(&network, "hostile/throw", json!({}));
    assert_eq!((own.kind.as_str(), own.peer, own.message.as_str()), ("flow-exception", None, "thrown on purpose"));
    let own = failure(&network, "hostile/fail", json!({}));
    assert_eq!((own.kind.as_str(), own.message.as_str()), ("unexpected", "invalid digit found in string"));
    Ok(())
}

#[test]
fn a_received_exception_does_not_travel_on_as_itself() -> Result<()> {
    let network = TestNetwork::new(["Alice", "Bob", "Carol"])?;
    let relay = |rethrow: bool| {
        let arguments = json!({
            "via": network.party("Bob"), "target": network.party("Carol"), "behaviour": "throw", "rethrow": rethrow,
        });
        network.start("Alice", "relay", arguments)
    };
    assert_eq!(relay(false)?["caught"]["kind"], "unexpected-end");
    let rethrown = relay(true)?;
    assert_eq!(rethrown["caught"]["kind"], "flow-exception");
    assert_eq!(rethrown["caught"]["message"], "relayed: thrown on purpose");
    assert_eq!(rethrown["caught"]["peer"], json!(network.party("Bob")));
    Ok(())
}

#[test]
fn a_flow_that_caught_an_exception_goes_on() -> Result<()> {
    let network = TestNetwork::new(["Alice", "Bob"])?;
    let recovered = network.start("Alice", "recover", json!({"peer": network.party("Bob")}))?;
    assert_eq!(recovered["received"], json!(["late"]));
    assert_eq!(recovered["caught"]["kind"], "flow-exception");
    Ok(())
}

#[test]
fn a_protocol_that_nobody_answers_is_rejected_even_if_nobody_listens() -> Result<()> {
    let network = TestNetwork::new(["Alice", "Bob"])?;
    for receive in [true, false] {
        let rejected = failure(&network, "unanswered", json!({"peer": network.party("Bob"), "receive": receive}));
        assert_eq!(rejected.kind, "unexpected-end", "receive = {receive}: {rejected}");
        assert!(rejected.message.contains("is not registered"), "receive = {receive}: {rejected}");
    }
    Ok(())
}
