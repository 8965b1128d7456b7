//! How often a flow was begun is told while it lives, after its end, and after a restart of the host.

use maxhost_tests::{ALICE, Host, Network};
use serde_json::json;

async fn attempts(host: &Host, flow: &str) -> u32 {
    host.show(flow).await.attempts
}

/// Waits until the flow has written down more than it had, and tells the label it has come to.
async fn until_further(host: &Host, flow: &str, than: Option<&str>) -> Option<String> {
    let label = |shown: &maxhost_rpc::proto::v1::GetFlowResponse| shown.flow.clone().and_then(|flow| flow.progress);
    let shown = host.until(flow, |shown| label(shown).is_some_and(|label| Some(label.as_str()) != than)).await;
    label(&shown)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_restart_of_the_host_is_one_more_attempt() {
    let network = Network::new().setting("flows.evict=never");
    let mut host = network.run();
    let flow = host.start(ALICE, "beat", json!({"beats": 40, "interval_ms": 100})).await;
    let mut label = until_further(&host, &flow, None).await;
    assert_eq!(attempts(&host, &flow).await, 1);
    for attempt in 2..=3 {
        host.kill_9();
        host = network.run();
        label = until_further(&host, &flow, label.as_deref()).await;
        assert_eq!(attempts(&host, &flow).await, attempt);
    }
    assert_eq!(host.end(&flow).await.result(), json!({"beats": 40}));
    assert_eq!(attempts(&host, &flow).await, 3, "from memory");
    host.kill_9();
    let host = network.run();
    assert_eq!(attempts(&host, &flow).await, 3, "from the database");
    let shown = network.cli(&["flow", "show", &flow]).ok().object();
    assert_eq!(shown["attempts"], 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_return_to_memory_is_one_more_attempt() {
    let network = Network::new().setting("flows.evict=every-wait");
    let host = network.run();
    let flow = host.start(ALICE, "beat", json!({"beats": 5, "interval_ms": 20})).await;
    assert_eq!(host.end(&flow).await.result(), json!({"beats": 5}));
    // Once for the start, and once for the end of each sleep.
    assert_eq!(attempts(&host, &flow).await, 6);

    let asleep = host.start(ALICE, "sleep-forever", json!({})).await;
    host.until_waits(&asleep, "sleep").await;
    let asleep = host.until(&asleep, |shown| !shown.in_memory).await.flow.map(|flow| flow.flow_id).unwrap();
    assert_eq!(attempts(&host, &asleep).await, 1, "it has left memory, and did not come back yet");
    host.kill_9();
    let host = network.run();
    assert_eq!(attempts(&host, &flow).await, 6);
    assert_eq!(attempts(&host, &asleep).await, 1, "nothing has brought it back");
    assert!(host.kill(&asleep).await);
    assert_eq!(attempts(&host, &asleep).await, 1, "it was brought back only to be ended");
    host.until_quiet().await;
}
