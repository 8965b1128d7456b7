//! What is in the log: each line of a flow once, and a peer's error on both sides.

use maxhost_tests::flows::state;
use maxhost_tests::{ALICE, BOB, Network, eventually};
use serde_json::json;

/// Lines of the log with all these words.
fn lines(log: &str, words: &[&str]) -> usize {
    log.lines().filter(|line| words.iter().all(|word| line.contains(word))).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flow_that_comes_back_logs_each_line_once() {
    let network = Network::new().setting("flows.evict=every-wait");
    let host = network.run();
    host.run(ALICE, "talkative", json!({"lines": 10})).await.result();
    assert!(host.status().await.counters["replays"] > 0);
    for number in 1..=10 {
        for line in [format!("before wait {number}."), format!("behind wait {number}.")] {
            assert_eq!(lines(&host.log(), &[&line]), 1, "{line}\n{}", host.log());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_has_one_number_in_the_logs_of_both_sides() {
    let network = Network::new();
    let host = network.run();
    // Alice's flow catches it.
    let provocation = json!({"peer": BOB, "behaviour": "fail", "receives": 1, "catch": true});
    host.run(ALICE, "provoke", provocation).await.result();
    let failed = eventually("Bob's end", async || {
        let flows = host.flows(Some("Bob"), None).await;
        let failed = flows.iter().find(|flow| state(flow.state()) == "failed");
        failed.map(|flow| flow.flow_id.clone()).ok_or_else(|| format!("{flows:?}"))
    })
    .await;
    let error_id = host.end(&failed).await.failure().error_id.unwrap();
    let log = host.log();
    assert_eq!(lines(&log, &["ended in an error", &error_id, "a secret"]), 1, "{log}");
    assert_eq!(lines(&log, &["a peer's error was received", &error_id, ALICE, BOB]), 1, "{log}");
    assert_eq!(lines(&log, &["a secret"]), 1, "on Bob's side only: {log}");
}
