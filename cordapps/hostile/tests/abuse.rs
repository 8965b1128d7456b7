//! What ends a flow ends that flow alone, with an error that says why.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use maxhost_testkit::{FlowFailure, Result, TestNetwork};
use serde_json::{Value, json};

fn failure(network: &TestNetwork, flow: &str, arguments: Value) -> FlowFailure {
    match network.start("Alice", flow, arguments) {
        Err(error) => error.flow_failure().cloned().unwrap_or_else(|| panic!("{flow}: {error}")),
        Ok(result) => panic!("{flow} ended with {result}"),
    }
}

#[test]
fn each_abuse_ends_in_an_error_that_names_it() -> Result<()> {
    let network = TestNetwork::new(["Alice", "Bob"])?;
    let limits = [
        ("spin", "cpu"),
        ("eat-memory", "memory"),
        ("recurse", "stack"),
        ("flood-log", "log"),
        ("flood-journal", "journal"),
    ];
    for (flow, limit) in limits {
        let failure = failure(&network, flow, json!({}));
        assert_eq!((failure.kind.as_str(), failure.limit.as_deref()), ("limit", Some(limit)), "{flow}: {failure}");
    }
    let failure = failure(&network, "hostile/panic", json!({}));
    assert_eq!(failure.kind, "unexpected");
    assert!(failure.message.contains("this panic is on purpose"), "{failure}");
    // And the host is as well as before.
    assert_eq!(network.start("Alice", "statics", json!({"times": 2}))?, json!({"static": 2, "thread_local": 2}));
    Ok(())
}

#[test]
fn a_message_may_be_large_but_not_too_large() -> Result<()> {
    let network = TestNetwork::new(["Alice", "Bob"])?;
    let huge = |bytes: usize| json!({"peer": network.party("Bob"), "bytes": bytes});
    assert_eq!(network.start("Alice", "huge-message", huge(1_000_000))?, json!(1_000_000));
    let failure = failure(&network, "huge-message", huge(20_000_000));
    assert_eq!((failure.kind.as_str(), failure.limit.as_deref()), ("limit", Some("message")), "{failure}");
    Ok(())
}

#[test]
fn what_waits_for_ever_can_be_killed() -> Result<()> {
    let network = TestNetwork::new(["Alice", "Bob"])?;
    for (flow, arguments) in [("sleep-forever", json!({})), ("wait-forever", json!({"peer": network.party("Bob")}))] {
        let id = network.launch("Alice", flow, arguments)?;
        network.wait_until(&id, |shown| shown["waiting_for"].is_object())?;
        network.kill_flow(&id)?;
        let error = network.wait(&id).unwrap_err();
        assert_eq!(error.flow_failure().map(|failure| failure.kind.as_str()), Some("killed"), "{flow}: {error}");
    }
    Ok(())
}

#[test]
fn every_run_has_its_own_state() -> Result<()> {
    for mode in ["never", "every-wait"] {
        let network = TestNetwork::builder().identities(["Alice", "Bob"]).evict(mode).build()?;
        let runs: Vec<String> = (0..10)
            .map(|run| network.launch(["Alice", "Bob"][run % 2], "statics", json!({"times": 3})))
            .collect::<Result<_>>()?;
        for run in runs {
            assert_eq!(network.wait(&run)?, json!({"static": 3, "thread_local": 3}), "evict = {mode}");
        }
    }
    Ok(())
}

#[test]
fn a_replay_sees_what_the_first_run_saw() -> Result<()> {
    for mode in ["never", "every-wait", "random:3"] {
        let network = TestNetwork::builder().identities(["Alice", "Bob"]).evict(mode).build()?;
        let result = network.start("Alice", "determinism", json!({"peer": network.party("Bob")}))?;
        let observations = result["observations"].as_array().unwrap();
        assert_eq!(observations.len(), 5, "evict = {mode}");
        let randoms: std::collections::HashSet<String> =
            observations.iter().map(|observation| observation["random"].to_string()).collect();
        assert_eq!(randoms.len(), 5, "each draw is another");
    }
    Ok(())
}
