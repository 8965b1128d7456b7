//! A kill works from every state, within a second, and the peers are told.

use std::time::{Duration, Instant};

use futures::future::join_all;
use maxhost_model::Code;
use maxhost_tests::flows::{state, with};
use maxhost_tests::{ALICE, BOB, CAROL, Host, Network, eventually};
use serde_json::{Value, json};

/// The longest a kill may take, on two busy processors.
const SOON: Duration = Duration::from_secs(1);

/// A network where nobody hosts Carol: who waits for her waits for ever.
fn without_carol() -> Network {
    let network = Network::new();
    std::fs::remove_file(network.path("identities/carol.toml")).unwrap();
    network
}

async fn kill_soon(host: &Host, flow: &str, what: &str) {
    let begun = Instant::now();
    assert!(host.kill(flow).await, "{what}");
    let end = host.end(flow).await;
    let took = begun.elapsed();
    assert_eq!((end.state.as_str(), end.failure().kind.as_str()), ("killed", "killed"), "{what}");
    assert!(took < SOON, "{what}: {took:?}");
    assert!(!host.kill(flow).await, "{what}: there is nothing to kill twice");
}

fn waits() -> Vec<(&'static str, &'static str, Value)> {
    let deadline = json!({"peer": CAROL, "deadline_ms": 600_000, "answer_ms": 1});
    vec![
        ("sleep", "sleep-forever", json!({})),
        ("receive", "wait-forever", with(BOB)),
        ("receive", "wait-forever", with(CAROL)),
        ("receive-all", "receive-all", json!({"peers": [BOB, CAROL], "value": 1})),
        ("wait-any", "wait-any-deadline", deadline),
        ("flow-info", "flow-info", with(CAROL)),
        ("confirmation", "send-only", json!({"peer": CAROL, "value": 1})),
    ]
}

async fn kills_from_every_wait(evict: &str) {
    let network = without_carol().setting(&format!("flows.evict={evict}"));
    let host = network.run();
    for (what, flow, arguments) in waits() {
        let id = host.start(ALICE, flow, arguments).await;
        let shown = host.until_waits(&id, what).await;
        if evict == "every-wait" {
            host.until(&id, |shown| !shown.in_memory).await;
        } else {
            assert!(shown.in_memory, "{what}");
        }
        kill_soon(&host, &id, &format!("{flow} in {what}, evict = {evict}")).await;
    }
    // The peer of wait-forever learned of it.
    let told = eventually("the peer's end", async || {
        let flows = host.flows(Some("Bob"), Some("never-answers")).await;
        match flows.first() {
            Some(flow) if state(flow.state()) == "failed" => Ok(flow.flow_id.clone()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    assert_eq!(host.end(&told).await.failure().kind, "unexpected-end");
    host.until_quiet().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn flows_in_memory_can_be_killed_from_every_wait() {
    kills_from_every_wait("never").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn flows_that_left_memory_can_be_killed_from_every_wait() {
    kills_from_every_wait("every-wait").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flow_that_computes_can_be_killed() {
    let network = Network::new().limits("alice", "cpu_per_run = \"100 s\"");
    let host = network.run();
    let id = host.start(ALICE, "spin", json!({})).await;
    host.until_state(&id, "running").await;
    kill_soon(&host, &id, "spin").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flow_that_waits_for_room_can_be_killed() {
    // Of the identity: Alice may have one flow in memory.
    let network = Network::new().setting("flows.evict=never").limits("alice", "flows = 1\ncpu_per_run = \"100 s\"");
    let host = network.run();
    let holder = host.start(ALICE, "spin", json!({})).await;
    let newcomer = host.start(ALICE, "sleep-forever", json!({})).await;
    let shown = host.until_waits(&newcomer, "slot").await;
    assert!(!shown.in_memory);
    kill_soon(&host, &newcomer, "waiting for the identity's room").await;
    kill_soon(&host, &holder, "the holder").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flow_that_waits_for_an_instance_can_be_killed() {
    let network = Network::new().setting("limits.instances=1").limits("alice", "cpu_per_run = \"100 s\"");
    let host = network.run();
    let holder = host.start(ALICE, "spin", json!({})).await;
    host.until_state(&holder, "running").await;
    let newcomer = host.start(BOB, "sleep-forever", json!({})).await;
    kill_soon(&host, &newcomer, "waiting for an instance").await;
    kill_soon(&host, &holder, "the holder").await;
    // And the instance is free again.
    assert_eq!(host.run(BOB, "statics", json!({"times": 1})).await.result()["static"], 1);
}

/// A kill may meet a flow while it gives up its instance, while it is brought back, or after its end.
#[tokio::test(flavor = "multi_thread")]
async fn no_kill_is_lost_whenever_it_comes() {
    let network = Network::new().setting("flows.evict=every-wait");
    let host = network.run();
    let flows = join_all((0..60).map(|_| host.start(ALICE, "beat", json!({"beats": 60, "interval_ms": 2})))).await;
    let kills = flows.iter().enumerate().map(|(number, flow)| {
        let host = &host;
        async move {
            // Spread over the life of the flows, not to wait for anything.
            tokio::time::sleep(Duration::from_millis(number as u64 * 3)).await;
            let killed = host.kill(flow).await;
            let end = host.end(flow).await;
            assert_eq!(end.state, if killed { "killed" } else { "completed" });
        }
    });
    join_all(kills).await;
    assert_eq!(host.until_quiet().await.flows["hospital"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_responder_can_be_killed_and_its_initiator_is_told() {
    let network = Network::new();
    let host = network.run();
    let initiator = host.start(ALICE, "wait-forever", with(BOB)).await;
    let responder = eventually("a responder", async || {
        host.flows(Some("Bob"), None).await.first().map(|flow| flow.flow_id.clone()).ok_or_else(String::new)
    })
    .await;
    host.until_waits(&responder, "receive").await;
    kill_soon(&host, &responder, "a responder").await;
    let failure = host.end(&initiator).await.failure();
    assert_eq!((failure.kind.as_str(), failure.peer.as_deref()), ("unexpected-end", Some(BOB)));
    assert!(failure.error_id.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_ended_cannot_be_killed_and_stays_as_it_ended() {
    let network = Network::new();
    let host = network.run();
    let id = host.start(ALICE, "statics", json!({"times": 1})).await;
    host.end(&id).await.result();
    let shown = network.cli(&["flow", "kill", &id]).ok().object();
    assert_eq!((&shown["killed"], &shown["state"]), (&json!(false), &json!("completed")));
    network.cli(&["flow", "kill", "00000000-0000-8000-8000-000000000001"]).fails(3, "flow-not-found");
    network.cli(&["flow", "kill", "9b2d4f6a-1c3e-4a5b-8d7f-0e1c2a3b4d5e"]).fails(3, "flow-not-found");
    network.cli(&["flow", "kill", "x"]).fails(4, "flow-id-invalid");

    let id = host.start(ALICE, "sleep-forever", json!({})).await;
    let shown = network.cli(&["flow", "kill", &id]).ok().object();
    assert_eq!(
        (&shown["killed"], &shown["state"], &shown["error"]["kind"]),
        (&json!(true), &json!("killed"), &json!("killed"))
    );
    network.cli(&["flow", "watch", &id]).fails(1, "flow-killed");
    host.kill_9();
    let host = network.run();
    assert_eq!(host.state(&id).await, "killed");
    assert_eq!(host.try_show("x").await.unwrap_err().code, Code::FlowIdInvalid);
}
