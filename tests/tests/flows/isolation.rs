//! No leakage: whatever runs beside it, a flow sees only its own memory.

use futures::future::join_all;
use maxhost_tests::{Host, Network};
use serde_json::json;

const IDENTITIES: u32 = 100;
const FLOWS_EACH: u32 = 10;

fn party(number: u32) -> String {
    format!("O=Party {number:05}, L=London, C=GB")
}

/// Ten flows of each identity, all at once: every identity has several at the same time.
async fn counters_of_all(host: &Host) {
    let flows = (1..=IDENTITIES).flat_map(|identity| (1..=FLOWS_EACH).map(move |times| (identity, times)));
    let ends = flows.map(|(identity, times)| async move {
        let end = host.run(&party(identity), "hostile/statics", json!({ "times": times })).await;
        assert_eq!(end.result(), json!({"static": times, "thread_local": times}), "{}", party(identity));
    });
    join_all(ends).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_flows_of_a_hundred_identities_see_only_their_own_memory() {
    let network = Network::with_parties(IDENTITIES).setting("flows.evict=never");
    let host = network.run();
    counters_of_all(&host).await;
    let status = host.until_quiet().await;
    assert_eq!(status.flows["completed"], u64::from(IDENTITIES * FLOWS_EACH));
    assert_eq!(status.counters["shadow_replays"], u64::from(IDENTITIES * FLOWS_EACH));
    assert_eq!((status.flows["hospital"], status.flows["failed"]), (0, 0));
    assert_eq!(status.identities["active"], u64::from(IDENTITIES));
    host.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn nor_do_they_see_more_after_they_left_memory_and_came_back() {
    let network = Network::with_parties(IDENTITIES).setting("flows.evict=every-wait");
    let host = network.run();
    counters_of_all(&host).await;
    let status = host.until_quiet().await;
    // A wait of a millisecond may be over before the flow could be put away; most are not.
    let waits = u64::from(IDENTITIES * (1..=FLOWS_EACH).sum::<u32>());
    assert!(
        status.counters["evictions"] > waits / 2 && status.counters["replays"] > waits / 2,
        "{:?}",
        status.counters
    );
    assert_eq!((status.flows["hospital"], status.flows["failed"]), (0, 0));
    host.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn nor_after_the_host_was_killed_in_the_middle() {
    let network = Network::with_parties(IDENTITIES).setting("flows.evict=random:5");
    let host = network.run();
    let identities = [1, 2, 3, 50, 100];
    let starts = identities.iter().flat_map(|&identity| {
        let host = &host;
        (0..2).map(move |_| async move { host.start(&party(identity), "statics", json!({"times": 200})).await })
    });
    let flows = join_all(starts).await;
    host.kill_9();
    let host = network.run();
    for flow in &flows {
        assert_eq!(host.end(flow).await.result(), json!({"static": 200, "thread_local": 200}));
    }
    host.stop();
}
