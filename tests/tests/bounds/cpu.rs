//! The time to compute.

use std::time::{Duration, Instant};

use futures::future::join_all;
use maxhost_tests::{ALICE, BOB, CAROL, Host, Network};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn waits_that_do_not_wait_give_no_time() {
    let network = Network::new()
        .settings(&["flows.shadow_replay=0", "limits.journal_entries=100000000"])
        .limits("alice", "cpu_per_run = \"300 ms\"");
    let host = network.run();
    let failure = host.run(ALICE, "spin-with-waits", json!({})).await.failure();
    assert_eq!((failure.kind.as_str(), failure.limit.as_deref()), ("limit", Some("cpu")), "{failure:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flow_that_computes_is_put_away_where_it_is() {
    let network = Network::new().limits("alice", "cpu_per_run = \"100 s\"");
    let host = network.run();
    let flow = host.start(ALICE, "spin", json!({})).await;
    // The host stops as fast as without it, and the flow goes on when it is started again.
    assert!(host.stop() < Duration::from_secs(5), "it did not wait for the flow");
    let host = network.run();
    host.until_state(&flow, "running").await;
    assert!(host.kill(&flow).await);
}

/// Steps of ping-pong that Alice and Bob make while others do what they do: the time of the median.
async fn pace(host: &Host) -> Duration {
    let mut times = Vec::new();
    for _ in 0..15 {
        let begun = Instant::now();
        let end = host.run(ALICE, "ping", json!({"peer": BOB, "count": 20})).await;
        assert_eq!(end.result(), json!({"rounds": 20}));
        times.push(begun.elapsed());
    }
    times.sort_unstable();
    times[times.len() / 2]
}

#[tokio::test(flavor = "multi_thread")]
async fn spinning_flows_leave_others_their_pace() {
    let network = Network::new()
        .settings(&["flows.shadow_replay=0"])
        .limits("carol", "flows = 1000\ncpu_per_run = \"600 s\"\nmemory = \"4 GiB\"");
    let host = network.run();
    pace(&host).await;
    let alone = pace(&host).await;
    for (flow, count) in [("spin", 60), ("spin-briefly", 60)] {
        let spinning = join_all((0..count).map(|_| host.start(CAROL, flow, json!({})))).await;
        let beside = pace(&host).await;
        for killed in join_all(spinning.iter().map(|flow| host.kill(flow))).await {
            assert!(killed);
        }
        host.until_quiet().await;
        // A machine with two processors that are busy with other things measures coarsely. Without turns by identity one
        // ping-pong of 20 rounds beside 60 flows takes seconds.
        let most = (alone * 10).max(Duration::from_millis(500));
        assert!(beside < most, "{flow}: {alone:?} alone, {beside:?} beside {count} flows");
    }
}

/// Issues of money by Alice while others do what they do: the time of the median.
async fn pace_of_issues(host: &Host) -> Duration {
    let mut times = Vec::new();
    for _ in 0..5 {
        let begun = Instant::now();
        host.run(ALICE, "cash/issue", json!({"quantity": 1, "currency": "GBP"})).await.result();
        times.push(begun.elapsed());
    }
    times.sort_unstable();
    times[times.len() / 2]
}

#[tokio::test(flavor = "multi_thread")]
async fn flows_that_verify_leave_others_their_pace() {
    let network = Network::new().settings(&["flows.shadow_replay=0"]).limits("carol", "flows = 1000");
    let host = network.run();
    pace_of_issues(&host).await;
    let alone = pace_of_issues(&host).await;
    // Each has Carol run a contract that computes until its fuel is used up, half a second.
    let looping = json!({"peer": CAROL, "how": "looping-contract"});
    let looping = join_all((0..60).map(|_| host.start(BOB, "hostile/bad-transaction", looping.clone()))).await;
    let beside = pace_of_issues(&host).await;
    let mut ended = 0;
    for flow in &looping {
        ended += u32::from(host.state(flow).await == "completed");
    }
    assert!(ended < 60, "they were all done before");
    // Without turns by identity an issue waits until contracts of all the others have run.
    let most = (alone * 10).max(Duration::from_millis(1_500));
    assert!(beside < most, "{alone:?} alone, {beside:?} beside 60 flows, of which {ended} were done");
    join_all(looping.iter().map(|flow| host.kill(flow))).await;
    assert_eq!(host.until_quiet().await.flows["hospital"], 0);
}
