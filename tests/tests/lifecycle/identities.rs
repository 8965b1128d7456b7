//! Identities come and go on a running host, sleep and wake.

use std::fs;

use maxhost_model::Code;
use maxhost_rpc::proto::v1::{IdentityState, WaitingFor};
use maxhost_tests::{ALICE, BOB, CAROL, Network, eventually};
use serde_json::json;

const DAVE: &str = "O=Dave, L=Oslo, C=NO";

async fn until_gone(host: &maxhost_tests::Host, name: &str) {
    eventually(&format!("{name} gone"), async || match host.identity(name).await {
        Err(problem) if problem.code == Code::IdentityNotFound => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_identity_works_at_once_and_a_removed_one_is_gone() {
    let network = Network::new();
    let host = network.run();
    let new = network.cli(&["identity", "new", DAVE]).ok().object();
    assert_eq!((&new["name"], &new["flows"], &new["reason"]), (&json!(DAVE), &json!(0), &json!(null)));
    assert!(["cold", "active"].contains(&new["state"].as_str().unwrap()), "{new}");
    let cordapps = new["cordapps"].as_array().unwrap();
    let other = network.cli(&["identity", "show", ALICE]).ok().object();
    assert_eq!(cordapps.len(), other["cordapps"].as_array().unwrap().len(), "what the others run: {new}");
    for cordapp in cordapps {
        assert!(cordapp["name"].is_string() && cordapp["version"].is_string(), "{new}");
        assert_eq!(cordapp["hash"].as_str().map(str::len), Some(64), "{new}");
    }
    host.event("identity-added", |event| event["identity"] == DAVE);

    assert_eq!(host.run(DAVE, "ping", json!({"peer": ALICE, "count": 2})).await.result(), json!({"rounds": 2}));
    // Others find him as soon as the network map is read again.
    eventually("Dave in the network", async || {
        let parties = network.cli(&["network", "parties", "Dave"]).ok().objects();
        if parties.len() == 1 { Ok(()) } else { Err(format!("{parties:?}")) }
    })
    .await;
    assert_eq!(host.run(ALICE, "ping", json!({"peer": DAVE, "count": 2})).await.result(), json!({"rounds": 2}));

    let removed = network.cli(&["identity", "remove", "Dave", "--yes"]).ok().object();
    assert_eq!((&removed["name"], &removed["removed"]), (&json!(DAVE), &json!(true)));
    network.cli(&["identity", "show", "Dave"]).fails(3, "identity-not-found");
    network.cli(&["flow", "start", "--identity", "Dave", "ping"]).fails(3, "identity-not-found");
    assert_eq!(host.run(ALICE, "ping", json!({"peer": BOB, "count": 1})).await.result(), json!({"rounds": 1}));
}

#[tokio::test(flavor = "multi_thread")]
async fn flows_of_a_removed_identity_wait_until_it_is_back() {
    let network = Network::new();
    let host = network.run();
    let beat = host.start(BOB, "beat", json!({"beats": 15, "interval_ms": 100})).await;
    let ping = host.start(ALICE, "wait-forever", json!({"peer": BOB})).await;
    host.until(&beat, |shown| shown.journal.is_some_and(|journal| journal.entries >= 3)).await;
    let (manifest, aside) = (network.path("identities/bob.toml"), network.path("bob.toml"));
    fs::rename(&manifest, &aside).unwrap();
    until_gone(&host, BOB).await;
    host.event("identity-removed", |event| event["identity"] == BOB);
    // His flow is still his.
    let shown = network.cli(&["flow", "show", &beat]).ok().object();
    assert_eq!((&shown["identity"], &shown["state"]), (&json!(BOB), &json!("suspended")), "{shown}");
    // What talks to him waits; what does not goes on.
    assert_eq!(host.state(&ping).await, "suspended");
    assert_eq!(host.run(ALICE, "statics", json!({"times": 1})).await.result()["static"], 1);

    fs::rename(&aside, &manifest).unwrap();
    host.until_identity(BOB, IdentityState::Active).await;
    assert_eq!(host.end(&beat).await.result(), json!({"beats": 15}));
    assert!(host.kill(&ping).await);
    host.until_quiet().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_sleeps_and_wakes_by_a_call_a_message_and_a_timer() {
    let network = Network::new().settings(&["flows.idle_close=200 ms", "flows.linger=50 ms"]);
    let host = network.run();
    assert_eq!(host.status().await.identities["cold"], 4);
    // A call wakes Alice, her message wakes Bob.
    assert_eq!(host.run(ALICE, "ping", json!({"peer": BOB, "count": 2})).await.result(), json!({"rounds": 2}));
    for name in [ALICE, BOB] {
        host.event("identity-opened", |event| event["identity"] == name);
        host.event("identity-closed", |event| event["identity"] == name);
        host.until_identity(name, IdentityState::Cold).await;
    }
    // A timer: the identity sleeps while its flow does.
    let beat = host.start(ALICE, "beat", json!({"beats": 3, "interval_ms": 1_000})).await;
    let asleep = host.until_identity(ALICE, IdentityState::Cold).await;
    assert_eq!(asleep.flows, 1);
    let sleeps = |waiting: &WaitingFor| waiting.what == "sleep";
    host.until(&beat, |shown| !shown.in_memory && shown.waiting_for.as_ref().is_some_and(sleeps)).await;
    assert_eq!(host.end(&beat).await.result(), json!({"beats": 3}));
    // And it was brought back for each beat.
    let status = host.until_quiet().await;
    assert!(status.counters["replays"] >= 2, "{:?}", status.counters);
    // Asking does not wake.
    host.until_identity(ALICE, IdentityState::Cold).await;
    let _shown = network.cli(&["identity", "show", "Alice"]).ok();
    assert_eq!(host.identity(ALICE).await.unwrap().state(), IdentityState::Cold);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_flow_wakes_by_a_message_after_its_identity_slept() {
    let network = Network::new().settings(&["flows.idle_close=100 ms", "flows.linger=20 ms"]);
    let host = network.run();
    let arguments = json!({"peer": BOB, "behaviour": {"reply-after": 1_500}});
    let flow = host.start(ALICE, "provoke", arguments).await;
    host.until_identity(ALICE, IdentityState::Cold).await;
    assert_eq!(host.end(&flow).await.result(), json!({"received": ["late"], "caught": null}));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flow_of_a_sleeping_identity_can_be_killed_and_its_id_asked_for() {
    let network = Network::new().settings(&["flows.idle_close=100 ms", "flows.linger=20 ms"]);
    let host = network.run();
    let flow = host.start_as("asleep", ALICE, "sleep-forever", json!({})).await.unwrap();
    host.until_identity(ALICE, IdentityState::Cold).await;
    let again = host.start_as("asleep", ALICE, "sleep-forever", json!({})).await.unwrap();
    assert_eq!((again.flow_id, again.new), (flow.flow_id.clone(), false));
    host.until_identity(ALICE, IdentityState::Cold).await;
    assert!(host.kill(&flow.flow_id).await);
    assert_eq!(host.state(&flow.flow_id).await, "killed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_never_suspends_holds_up_no_change_of_manifests() {
    let network = Network::new().limits("alice", "cpu_per_run = \"1000 s\"");
    let host = network.run();
    let spin = host.start(ALICE, "spin", json!({})).await;
    host.until_state(&spin, "running").await;
    let (alice, carol) = (network.path("identities/alice.toml"), network.path("identities/carol.toml"));
    let saved = fs::read(&alice).unwrap();
    fs::remove_file(&alice).unwrap();
    fs::remove_file(carol).unwrap();
    until_gone(&host, CAROL).await;
    // It is cut, too, and goes on when its identity is back.
    until_gone(&host, ALICE).await;
    assert_eq!(host.run(BOB, "statics", json!({"times": 1})).await.result()["static"], 1);
    fs::write(&alice, saved).unwrap();
    host.until_identity(ALICE, IdentityState::Active).await;
    host.until_state(&spin, "running").await;
    assert!(host.kill(&spin).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_that_comes_and_goes_while_its_identity_is_let_go_of_ends_as_it_is() {
    let network = Network::new();
    let host = network.run();
    let alice = network.path("identities/alice.toml");
    let saved = fs::read(&alice).unwrap();
    let beat = host.start(ALICE, "beat", json!({"beats": 30, "interval_ms": 100})).await;
    for _ in 0..20 {
        fs::remove_file(&alice).unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(30)).await;
        fs::write(&alice, &saved).unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(30)).await;
    }
    assert_eq!(host.end(&beat).await.result(), json!({"beats": 30}));
    fs::remove_file(&alice).unwrap();
    until_gone(&host, ALICE).await;
    assert_eq!(host.run(BOB, "statics", json!({"times": 1})).await.result()["static"], 1);
    fs::write(&alice, saved).unwrap();
    eventually("Alice is back", async || host.identity(ALICE).await.map_err(|problem| problem.to_string())).await;
    assert_eq!(host.run(ALICE, "ping", json!({"peer": BOB, "count": 1})).await.result(), json!({"rounds": 1}));
}
