//! What is in the log: each line of a flow once.

use maxhost_tests::{ALICE, Network};
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
