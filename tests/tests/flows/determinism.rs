//! A replay sees what the first run saw; a flow that does something else is parked, with both shown.

use std::collections::HashSet;
use std::path::PathBuf;

use bytes::Bytes;
use futures::future::join_all;
use maxhost_journal::StartRecord;
use maxhost_model::FlowId;
use maxhost_tests::flows::with;
use maxhost_tests::{ALICE, BOB, Host, Network, cli, eventually};
use serde_json::{Value, json};

fn observations(result: &Value) -> &Vec<Value> {
    result["observations"].as_array().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn order_time_randomness_and_nan_bits_are_the_same_on_replay() {
    let network = Network::new().setting("flows.evict=every-wait");
    let host = network.run();
    // The flow itself compares what each replay sees with what its peer keeps of the first run.
    let ends = join_all((0..10).map(|_| host.run(ALICE, "determinism", with(BOB)))).await;
    let results: Vec<Value> = ends.into_iter().map(|end| end.result()).collect();
    let all: Vec<&Value> = results.iter().flat_map(observations).collect();
    assert_eq!(all.len(), 50);
    let distinct = |field: &str| all.iter().map(|seen| seen[field].to_string()).collect::<HashSet<String>>().len();
    // Another draw each time, and another order of maps in each run.
    assert_eq!((distinct("random"), distinct("flow_id")), (50, 10));
    assert!(distinct("hash_map_order") >= 10 && distinct("hash_of_constant") >= 10);
    // One NaN is as good as another, and all are one.
    assert_eq!(distinct("nan_bits"), 1);
    for seen in &all {
        let (now, system): (u64, u64) = (seen["now"].as_u64().unwrap(), seen["system_time"].as_u64().unwrap());
        assert!(now.abs_diff(system) < 1_000_000_000, "both clocks are the flow's: {seen}");
    }
    let status = host.until_quiet().await;
    assert_eq!(status.flows["hospital"], 0);
    // Each flow waits eight times, and was run again for the comparison as well: the replays were there to be seen.
    assert!(status.counters["replays"] > 40, "{:?}", status.counters);
    assert!(status.counters["shadow_replays"] >= status.flows["completed"], "{status:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nor_does_a_crash_in_the_middle_show() {
    let network = Network::new().setting("flows.evict=random:11");
    let host = network.run();
    let flows = join_all((0..20).map(|_| host.start(ALICE, "determinism", with(BOB)))).await;
    host.kill_9();
    let host = network.run();
    for flow in &flows {
        assert_eq!(observations(&host.end(flow).await.result()).len(), 5);
    }
    assert_eq!(host.until_quiet().await.flows["hospital"], 0);
}

/// Changes what a flow begins with, while no host runs: its next replay does something else than its first run.
fn rewrite_start(network: &Network, flow: &str, change: impl FnOnce(&mut StartRecord)) {
    let row = flow.parse::<FlowId>().unwrap().row().0;
    let database = network.database();
    let body: Vec<u8> =
        database.query_row("SELECT start_body FROM flow WHERE id = ?1", [row], |row| row.get(0)).unwrap();
    let mut start = StartRecord::decode(&Bytes::from(body)).unwrap();
    change(&mut start);
    let body = start.encode().to_vec();
    assert_eq!(database.execute("UPDATE flow SET start_body = ?1 WHERE id = ?2", (body, row)).unwrap(), 1);
}

async fn is_parked(network: &Network, host: &Host, flow: &str, expected: &str, actual: &str) {
    // After a restart the flow is in hospital before it is tried again, so its state alone says nothing yet.
    eventually("the flow was tried", async || match host.status().await.counters["hospitalised"] {
        1 => Ok(()),
        count => Err(format!("{count} flows went to hospital")),
    })
    .await;
    host.until_state(flow, "hospital").await;
    let shown = network.cli(&["flow", "show", flow]).ok().object();
    assert_eq!((&shown["state"], &shown["finished"]), (&json!("hospital"), &Value::Null));
    let reason = shown["reason"].as_str().unwrap();
    assert!(reason.starts_with("non-deterministic"), "{reason}");
    let (before, after) = reason.split_once("got").unwrap_or_else(|| panic!("no actual request in: {reason}"));
    assert!(before.contains("expected") && before.contains(expected), "{reason}");
    assert!(after.contains(actual), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flow_that_asks_for_something_else_is_parked_and_can_be_killed() {
    let network = Network::new();
    let host = network.run();
    let beat = json!({"beats": 10, "interval_ms": 200});
    let odd = host.start(ALICE, "beat", beat.clone()).await;
    let even = host.start(ALICE, "beat", beat).await;
    for flow in [&odd, &even] {
        host.until(flow, |shown| shown.journal.is_some_and(|journal| journal.entries >= 2)).await;
    }
    host.kill_9();
    let other = json!({"beats": 10, "interval_ms": 777});
    rewrite_start(&network, &odd, |start| start.arguments = maxhost_model::json_to_cbor(&other).unwrap().into());

    let host = network.run();
    is_parked(&network, &host, &odd, "200", "777").await;
    // The others go on, of the same identity too.
    assert_eq!(host.end(&even).await.result(), json!({"beats": 10}));
    assert_eq!(host.run(ALICE, "ping", json!({"peer": BOB, "count": 1})).await.result(), json!({"rounds": 1}));
    // It is not tried again by itself, but after a restart, with the same result.
    assert_eq!(host.state(&odd).await, "hospital");
    host.kill_9();
    let host = network.run();
    is_parked(&network, &host, &odd, "200", "777").await;
    assert!(host.kill(&odd).await);
    let end = host.end(&odd).await;
    assert_eq!((end.state.as_str(), end.failure().kind.as_str()), ("killed", "killed"));
    host.until_quiet().await;
}

/// Another build of the CorDapp `hostile`, whose flow `nondeterministic` behaves differently; `make build` makes it too.
fn altered() -> PathBuf {
    let built = cli::target().join("guests/wasm32-wasip2/release/hostile_altered.wasm");
    assert!(built.is_file(), "there is no {}: run `make build`", built.display());
    built
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cordapp_that_behaves_differently_parks_its_flows() {
    let altered = altered().display().to_string();
    let network = Network::new();
    let host = network.run();
    let flow = host.start(ALICE, "nondeterministic", json!({})).await;
    host.until(&flow, |shown| shown.journal.is_some_and(|journal| journal.entries >= 5)).await;
    // A new build of the same version does not touch the flows that run: they end on the code they began with.
    let replaced = network.cli(&["cordapp", "install", "--replace", &altered]).ok().object();
    let replayed = host.status().await.counters["replays"];
    host.kill_9();
    let host = network.run();
    host.until(&flow, |shown| shown.journal.is_some_and(|journal| journal.entries >= 20)).await;
    assert_ne!(host.state(&flow).await, "hospital", "{replayed}");
    host.kill_9();
    // So it is put on the other code by force.
    let hash = hash_of(&replaced);
    rewrite_start(&network, &flow, |start| start.component = hash);
    let host = network.run();
    is_parked(&network, &host, &flow, "10", "20").await;
    assert_eq!(host.run(ALICE, "statics", json!({"times": 1})).await.result()["static"], 1);
    assert!(host.kill(&flow).await);
}

fn hash_of(component: &Value) -> [u8; 32] {
    let text = component["hash"].as_str().unwrap();
    std::array::from_fn(|byte| u8::from_str_radix(&text[2 * byte..2 * byte + 2], 16).unwrap())
}
