//! Limits make newcomers wait, and lose nothing.

use futures::future::join_all;
use maxhost_tests::flows::state;
use maxhost_tests::{ALICE, BOB, CAROL, Network};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn newcomers_wait_for_room_in_their_identity() {
    let network = Network::new().setting("flows.evict=never").limits("alice", "flows = 2");
    let host = network.run();
    let flows = join_all((0..20).map(|_| host.start(ALICE, "beat", json!({"beats": 2, "interval_ms": 30})))).await;
    let most = async {
        let mut most = 0;
        for flow in &flows {
            most = most.max(host.status().await.instances);
            assert_eq!(host.end(flow).await.result(), json!({"beats": 2}));
        }
        most
    };
    assert!(most.await <= 2);
    // The limit is Alice's.
    assert_eq!(host.run(BOB, "beat", json!({"beats": 1, "interval_ms": 1})).await.result(), json!({"beats": 1}));
}

#[tokio::test(flavor = "multi_thread")]
async fn responders_wait_for_room_too_and_no_session_is_lost() {
    let network = Network::new().limits("bob", "flows = 1");
    let host = network.run();
    let pings = (0..30).map(|_| host.run(ALICE, "ping", json!({"peer": BOB, "count": 3})));
    for end in join_all(pings).await {
        assert_eq!(end.result(), json!({"rounds": 3}));
    }
    let many = host.run(ALICE, "many-sessions", json!({"peer": BOB, "value": 30})).await;
    assert_eq!(many.result(), json!(465));
    host.until_quiet().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flow_that_waits_makes_room_for_the_one_it_waits_for() {
    // Alice has room for one flow, and talks to herself.
    let network = Network::new().setting("flows.linger=100 ms").limits("alice", "flows = 1");
    let host = network.run();
    let end = host.run(ALICE, "ping", json!({"peer": ALICE, "count": 3})).await;
    assert_eq!(end.result(), json!({"rounds": 3}));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_with_few_instances_runs_many_flows() {
    let network = Network::new().settings(&["limits.instances=3", "flows.evict=never"]);
    let host = network.run();
    let pings = (0..40).map(|_| host.run(ALICE, "ping", json!({"peer": BOB, "count": 3})));
    for end in join_all(pings).await {
        assert_eq!(end.result(), json!({"rounds": 3}));
    }
    let status = host.until_quiet().await;
    // Those who waited gave their instances up, though none had to for its own sake.
    assert!(status.counters["evictions"] > 0, "{:?}", status.counters);
}

#[tokio::test(flavor = "multi_thread")]
async fn flows_that_wait_for_room_are_there_after_a_crash() {
    let network = Network::new().setting("flows.evict=never").limits("alice", "flows = 1");
    let host = network.run();
    let flows = join_all((0..5).map(|_| host.start(ALICE, "beat", json!({"beats": 4, "interval_ms": 50})))).await;
    host.kill_9();
    let host = network.run();
    for flow in &flows {
        assert_eq!(host.end(flow).await.result(), json!({"beats": 4}));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flow_that_waits_for_an_instance_says_so() {
    let network = Network::new().setting("limits.instances=1").limits("alice", "cpu_per_run = \"100 s\"");
    let host = network.run();
    // It gives its instance up to the one that spins, and then wants it back.
    let evicted = host.start(BOB, "beat", json!({"beats": 2, "interval_ms": 1_000})).await;
    let holder = host.start(ALICE, "spin", json!({})).await;
    host.until_state(&holder, "running").await;
    let newcomer = host.start(CAROL, "statics", json!({"times": 1})).await;
    for flow in [&newcomer, &evicted] {
        let shown = host.until_waits(flow, "instance").await;
        assert_eq!((state(shown.flow.unwrap().state()), shown.in_memory), ("suspended", false));
        let listed = network.cli(&["flow", "list", "--state", "suspended"]).ok().objects();
        assert!(listed.iter().any(|listed| listed["flow_id"] == **flow), "{listed:?}");
    }
    let status = host.status().await;
    assert_eq!((status.flows["running"], status.flows["suspended"], status.instances), (1, 2, 1));
    assert!(host.kill(&holder).await);
    assert_eq!(host.end(&newcomer).await.result()["static"], 1);
    assert_eq!(host.end(&evicted).await.result(), json!({"beats": 2}));
}
