//! Failures, and what stays of flows that have ended.

use futures::future::join_all;
use maxhost_tests::{ALICE, BOB, CAROL, Network};
use serde_json::json;

/// Bytes of text, type and data that each flow fails with.
const LARGE: usize = 9_000_000;

/// How large the host may be after such flows, twenty at once, the memory of their instances included.
const AT_ONCE: u64 = 900 << 20;

/// How much larger the host may become.
const SLACK: u64 = 96 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn large_failures_are_cut_for_everybody() {
    let network = Network::new().setting("flows.shadow_replay=0");
    let host = network.run();
    let wave = || join_all((0..20).map(|_| host.run(ALICE, "throw-large", json!({"amount": LARGE}))));
    for _ in 0..3 {
        wave().await;
    }
    for end in wave().await {
        let failure = end.failure();
        assert_eq!(failure.kind, "flow-exception");
        assert!(failure.message.len() <= 16 << 10, "{} bytes", failure.message.len());
        assert!(failure.message.contains("[cut, 9000000 bytes]"), "the text says that it was cut");
        assert!(failure.message.contains("bytes of data left out"), "and that there was data");
        assert_eq!(failure.exception.map(|exception| exception.len()), Some(1024));
    }
    // Eighty flows have failed with 2 GB. How much the allocator holds on to differs from run to run, so the bound is one
    // that could not hold if the failures were kept.
    let after = host.until_quiet().await.rss_bytes;
    eprintln!("resident after eighty large failures: {after} bytes");
    assert!(after < AT_ONCE, "{after} bytes");

    // A list has room for many.
    let flows = host.flows(Some(ALICE), Some("throw-large")).await;
    assert_eq!(flows.len(), 80);
    let listed = network.cli(&["flow", "list", "--identity", "Alice"]).ok();
    assert!(listed.out.len() < 64 << 10, "{} bytes", listed.out.len());
    let shown = network.cli(&["flow", "show", &flows[0].flow_id]).ok().object();
    assert!(shown["error"]["message"].as_str().unwrap().len() > 10_000, "one flow is shown as it is kept");

    let log = std::fs::metadata(network.path("host.log")).unwrap().len();
    assert!(log < 256 << 10, "the log has {log} bytes");
    let database = std::fs::metadata(network.path("data/maxhost.db")).unwrap().len();
    assert!(database < 16 << 20, "the database has {database} bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_cannot_make_its_error_larger() {
    let network = Network::new();
    let host = network.run();
    let end = host.run(ALICE, "provoke-large", json!({"peer": BOB, "amount": LARGE})).await;
    let failure = end.failure();
    assert_eq!((failure.kind.as_str(), failure.peer.as_deref()), ("flow-exception", Some(BOB)));
    assert!(failure.message.len() <= 16 << 10, "{} bytes", failure.message.len());
    host.until_quiet().await;
    let log = std::fs::metadata(network.path("host.log")).unwrap().len();
    assert!(log < 64 << 10, "the log has {log} bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn ended_flows_keep_a_hundred_sessions() {
    let network = Network::new().setting("flows.shadow_replay=0");
    let host = network.run();
    let sessions = || host.run(ALICE, "unused-sessions", json!({"peer": CAROL, "amount": 5_000}));
    assert_eq!(sessions().await.result(), json!(5_000));
    host.until_quiet().await;
    let before = host.status().await.rss_bytes;
    for _ in 0..4 {
        for end in join_all((0..10).map(|_| sessions())).await {
            assert_eq!(end.result(), json!(5_000));
        }
    }
    let after = host.until_quiet().await.rss_bytes;
    assert!(after < before + SLACK, "{before} bytes before, {after} after");
    let flow = &host.flows(Some(ALICE), Some("unused-sessions")).await[0];
    let shown = host.show(&flow.flow_id).await;
    assert_eq!((shown.sessions.len(), shown.more_sessions), (100, 4_900));
}
