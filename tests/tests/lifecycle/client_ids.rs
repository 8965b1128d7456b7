//! Starts with a client id: however often repeated, one flow; its end is kept until it is forgotten.

use futures::future::join_all;
use maxhost_model::Code;
use maxhost_rpc::proto::v1 as pb;
use maxhost_tests::{ALICE, BOB, Network};
use serde_json::json;

fn ping() -> serde_json::Value {
    json!({"peer": BOB, "count": 2})
}

#[tokio::test(flavor = "multi_thread")]
async fn many_starts_at_once_make_one_flow() {
    let network = Network::new();
    let host = network.run();
    let starts = join_all((0..20).map(|_| host.start_as("order-1", ALICE, "ping", ping()))).await;
    let starts: Vec<pb::StartedFlow> = starts.into_iter().map(Result::unwrap).collect();
    assert_eq!(starts.iter().filter(|start| start.new).count(), 1);
    assert!(starts.iter().all(|start| start.flow_id == starts[0].flow_id));
    assert_eq!(host.end(&starts[0].flow_id).await.result(), json!({"rounds": 2}));
    assert_eq!(host.flows(Some("Alice"), None).await.len(), 1);
    // Another identity, or another id, is another flow.
    let other = host.start_as("order-1", BOB, "ping", json!({"peer": ALICE, "count": 1})).await.unwrap();
    let another = host.start_as("order-2", ALICE, "ping", ping()).await.unwrap();
    assert!(other.new && another.new && other.flow_id != another.flow_id);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_is_kept_over_a_crash_until_it_is_forgotten() {
    let network = Network::new();
    let host = network.run();
    let good = host.start_as("good", ALICE, "ping", ping()).await.unwrap();
    let bad = host.start_as("bad", ALICE, "throw", json!({})).await.unwrap();
    host.end(&good.flow_id).await.result();
    let failure = host.end(&bad.flow_id).await.failure();
    host.kill_9();

    let host = network.run();
    for (client_id, flow) in [("good", &good), ("bad", &bad)] {
        // What is asked a second time does not matter: the first start counts.
        let again = host.start_as(client_id, ALICE, "ping", json!({"count": "nonsense"})).await.unwrap();
        assert_eq!((&again.flow_id, again.new), (&flow.flow_id, false), "{client_id}");
    }
    for other in ["no-such-flow", "pong"] {
        let again = host.start_as("good", ALICE, other, json!({})).await.unwrap();
        assert_eq!((&again.flow_id, again.flow.as_str()), (&good.flow_id, "ping-pong/ping"), "{other}");
    }
    assert_eq!(host.end(&good.flow_id).await.result(), json!({"rounds": 2}));
    assert_eq!(host.end(&bad.flow_id).await.failure(), failure);
    let finished = host.client().finished_client_ids(pb::FinishedClientIdsRequest { identity: None }).await.unwrap();
    let finished: Vec<(String, bool)> =
        finished.finished.into_iter().map(|finished| (finished.client_id, finished.succeeded)).collect();
    assert_eq!(finished, [("bad".to_owned(), false), ("good".to_owned(), true)]);

    let forgotten = network.cli(&["flow", "forget", "good"]).ok().object();
    assert_eq!((&forgotten["client_id"], &forgotten["removed"]), (&json!("good"), &json!(true)));
    network.cli(&["flow", "forget", "good"]).fails(3, "client-id-not-found");
    assert_eq!(host.try_show(&good.flow_id).await.unwrap_err().code, Code::FlowNotFound);
    let new = host.start_as("good", ALICE, "ping", ping()).await.unwrap();
    assert!(new.new && new.flow_id != good.flow_id);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_is_the_same_start_after_a_crash_in_the_middle() {
    let network = Network::new();
    let host = network.run();
    let beat = json!({"beats": 10, "interval_ms": 100});
    let first = host.start_as("slow", ALICE, "beat", beat.clone()).await.unwrap();
    host.kill_9();
    let host = network.run();
    let again = host.start_as("slow", ALICE, "beat", beat).await.unwrap();
    assert_eq!((again.flow_id.as_str(), again.new), (first.flow_id.as_str(), false));
    assert_eq!(host.end(&first.flow_id).await.result(), json!({"beats": 10}));
    assert_eq!(host.flows(None, None).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_is_refused() {
    let network = Network::new();
    let host = network.run();
    for client_id in ["", &"x".repeat(513)] {
        let refused = host.start_as(client_id, ALICE, "ping", ping()).await.unwrap_err();
        assert_eq!(refused.code, Code::ClientIdInvalid, "{} characters", client_id.len());
    }
    let refused = host.start_as("a\0b", ALICE, "ping", ping()).await.unwrap_err();
    assert_eq!(refused.code, Code::ClientIdInvalid, "not every database can hold a NUL character");
    host.start_as(&"é".repeat(512), ALICE, "ping", ping()).await.unwrap();

    let running = host.start_as("running", ALICE, "sleep-forever", json!({})).await.unwrap();
    let forgotten = pb::RemoveClientIdRequest { client_id: "a\0b".to_owned(), identity: None };
    assert!(!host.client().remove_client_id(forgotten).await.unwrap().removed);
    network.cli(&["flow", "forget", "running"]).fails(4, "client-id-running");
    assert!(host.kill(&running.flow_id).await);
    let killed = host.start_as("running", ALICE, "sleep-forever", json!({})).await.unwrap();
    assert_eq!((killed.flow_id, killed.new), (running.flow_id, false));
    let _forgotten = network.cli(&["flow", "forget", "running"]).ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_id_of_several_identities_is_forgotten_for_the_one_that_is_named() {
    let network = Network::new();
    let host = network.run();
    for (identity, peer) in [(ALICE, BOB), (BOB, ALICE)] {
        let flow = host.start_as("both", identity, "ping", json!({"peer": peer, "count": 1})).await.unwrap();
        host.end(&flow.flow_id).await.result();
    }
    let refused = network.cli(&["flow", "forget", "both"]).fails(4, "identity-ambiguous");
    let message = refused["message"].as_str().unwrap();
    assert!(message.contains(ALICE) && message.contains(BOB), "{message}");
    assert!(refused["remedy"].as_str().unwrap().contains("--identity"), "{refused}");
    assert_eq!(network.sql("SELECT count(*) FROM client WHERE client_id = 'both'"), "2", "nothing is forgotten");
    let _forgotten = network.cli(&["flow", "forget", "both", "--identity", "Bob"]).ok();
    network.cli(&["flow", "forget", "both", "--identity", "Bob"]).fails(3, "client-id-not-found");
    let _forgotten = network.cli(&["flow", "forget", "both"]).ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_id_of_another_user_is_not_shared() {
    let network = Network::new();
    let host = network.run();
    let flow = host.start_as("theirs", ALICE, "ping", ping()).await.unwrap();
    host.end(&flow.flow_id).await.result();
    host.stop();
    // There is one user as yet: another one is made in the database.
    for table in ["client", "ended"] {
        assert_eq!(network.sql(&format!("UPDATE {table} SET \"user\" = 'somebody else'")), "");
    }
    let host = network.run();
    let finished = host.client().finished_client_ids(pb::FinishedClientIdsRequest { identity: None }).await.unwrap();
    assert!(finished.finished.is_empty(), "what others started is not shown");
    network.cli(&["flow", "forget", "theirs"]).fails(3, "client-id-not-found");
    // A client id is a name that its user gives: another user may give the same one.
    let ours = host.start_as("theirs", ALICE, "ping", ping()).await.unwrap();
    assert!(ours.new && ours.flow_id != flow.flow_id);
    host.end(&ours.flow_id).await.result();
    let finished = host.client().finished_client_ids(pb::FinishedClientIdsRequest { identity: None }).await.unwrap();
    assert_eq!(finished.finished.len(), 1);
    assert_eq!(network.sql("SELECT count(*) FROM client WHERE client_id = 'theirs'"), "2");
}
