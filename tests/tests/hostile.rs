//! What one flow does to itself hurts nobody else: each abuse ends its own flow with a word for it, a load on other
//! identities keeps its pace, and the host's memory returns.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures::future::join_all;
use maxhost_tests::{ALICE, BOB, CAROL, Host, Network, eventually};
use serde_json::{Value, json};

/// How much larger the host may be after the abuse than before it: allocators and caches keep some.
const SLACK: u64 = 48 << 20;
/// The longest that one ping-pong of the load may take while others misbehave, on two busy processors.
const PACE: Duration = Duration::from_secs(10);

/// Flow, arguments, kind, limit.
fn abuses() -> Vec<(&'static str, Value, &'static str, Option<&'static str>)> {
    vec![
        ("spin", json!({}), "limit", Some("cpu")),
        ("eat-memory", json!({}), "limit", Some("memory")),
        ("recurse", json!({}), "limit", Some("stack")),
        ("panic", json!({}), "unexpected", None),
        ("flood-log", json!({}), "limit", Some("log")),
        ("flood-journal", json!({}), "limit", Some("journal")),
        ("huge-message", json!({"peer": CAROL, "bytes": 20_000_000}), "limit", Some("message")),
    ]
}

/// Ping-pongs between Alice and Bob until it is told to stop: how many there were, and how long the longest took.
async fn load(host: Arc<Host>, stop: Arc<AtomicBool>) -> (u32, Duration) {
    let (mut count, mut longest) = (0, Duration::ZERO);
    while !stop.load(Ordering::Relaxed) {
        let begun = Instant::now();
        let end = host.run(ALICE, "ping", json!({"peer": BOB, "count": 3})).await;
        assert_eq!(end.result(), json!({"rounds": 3}));
        longest = longest.max(begun.elapsed());
        count += 1;
    }
    (count, longest)
}

async fn abuse(host: &Host) {
    for (flow, arguments, kind, limit) in abuses() {
        let end = host.run(CAROL, flow, arguments).await;
        assert_eq!(end.state, "failed", "{flow}");
        let failure = end.failure();
        assert_eq!((failure.kind.as_str(), failure.limit.as_deref()), (kind, limit), "{flow}: {failure:?}");
        assert!(failure.error_id.is_some() && !failure.message.is_empty(), "{flow}: {failure:?}");
    }
}

async fn rss(host: &Host) -> u64 {
    host.status().await.rss_bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn each_abuse_ends_alone_while_others_keep_their_pace() {
    let network = Network::new()
        .setting("limits.journal_entries=5000")
        .limits("carol", "cpu_per_run = \"1500 ms\"\nmemory_per_flow = \"64 MiB\"");
    let host = Arc::new(network.run());
    // Once, so that what is kept for good is there before it is measured.
    abuse(&host).await;
    host.run(ALICE, "ping", json!({"peer": BOB, "count": 3})).await.result();
    host.until_quiet().await;
    let before = rss(&host).await;

    let stop = Arc::new(AtomicBool::new(false));
    let loads: Vec<_> = (0..4).map(|_| tokio::spawn(load(host.clone(), stop.clone()))).collect();
    for _ in 0..2 {
        // All at once, twice each.
        join_all([abuse(&host), abuse(&host)]).await;
    }
    stop.store(true, Ordering::Relaxed);
    let mut pings = 0;
    for load in loads {
        let (count, longest) = load.await.unwrap();
        assert!(longest < PACE, "one ping-pong took {longest:?}");
        pings += count;
    }
    assert!(pings >= 20, "only {pings} ping-pongs while others misbehaved");

    let status = host.until_quiet().await;
    assert_eq!(status.flows["hospital"], 0);
    assert_eq!(status.flows["failed"], 5 * abuses().len() as u64, "{:?}", status.flows);
    eventually("the memory's return", async || {
        let after = rss(&host).await;
        if after <= before + SLACK { Ok(()) } else { Err(format!("{before} bytes before, {after} after")) }
    })
    .await;
    // Who misbehaved may go on.
    assert_eq!(host.run(CAROL, "statics", json!({"times": 2})).await.result()["static"], 2);
}

/// Starts so many flows that sleep, waits until all of them do, and gives what the host then has; then kills them.
async fn resident_with(host: &Host, count: u64, flow: &str, arguments: &Value) -> u64 {
    let flows = join_all((0..count).map(|_| host.start(ALICE, flow, arguments.clone()))).await;
    for flow in &flows {
        host.until_waits(flow, "sleep").await;
    }
    assert_eq!(host.status().await.instances, count);
    let resident = rss(host).await;
    for killed in join_all(flows.iter().map(|flow| host.kill(flow))).await {
        assert!(killed);
    }
    host.until_quiet().await;
    resident
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_is_taken_by_those_who_use_it_and_given_back() {
    const FLOWS: u64 = 60;
    const EACH: u64 = 6;
    let network = Network::new().settings(&["flows.evict=never", "flows.shadow_replay=0"]);
    let host = network.run();
    // First, so that what is kept for good is there before it is measured: code, and pages of the pool of instances.
    resident_with(&host, 300, "sleep-forever", &json!({})).await;
    let before = rss(&host).await;
    let hold = json!({ "mebibytes": EACH, "milliseconds": 300_000 });
    let held = resident_with(&host, FLOWS, "hold-memory", &hold).await;
    assert!(held >= before + ((FLOWS * EACH) << 20) / 2, "{before} bytes before, {held} while it is held");
    eventually("the memory's return", async || {
        let after = rss(&host).await;
        if after <= before + SLACK { Ok(()) } else { Err(format!("{before} bytes before, {after} after")) }
    })
    .await;
}
