//! Room for messages: what waits for an identity is bounded, and whoever sends to it waits or is told.

use std::fs;

use maxhost_model::Code;
use maxhost_rpc::proto::v1::IdentityState;
use maxhost_tests::{ALICE, BOB, Network, eventually};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn a_flow_waits_until_its_recipient_has_room_and_says_so() {
    let network = Network::new().settings(&["limits.inbound_messages=20", "flows.shadow_replay=0"]);
    let host = network.run();
    let flow = host.start(ALICE, "send-many", json!({"peer": BOB, "amount": 60})).await;
    let shown = host.until_waits(&flow, "recipient").await;
    let waiting = shown.waiting_for.expect("it waits");
    assert_eq!(waiting.parties, [BOB]);
    assert!(waiting.since.is_some() && waiting.until.is_none(), "{waiting:?}");
    // It is tried now and then, so it is not always waiting.
    eventually("the command line says so too", async || {
        let told = network.cli(&["flow", "show", &flow]).ok().object();
        match (&told["state"], &told["waiting_for"]["what"]) == (&json!("suspended"), &json!("recipient")) {
            true => Ok(()),
            false => Err(told.to_string()),
        }
    })
    .await;
    // Others go on meanwhile, and so does it once Bob has looked.
    assert_eq!(host.run(BOB, "ping", json!({"peer": ALICE, "count": 2})).await.result(), json!({"rounds": 2}));
    assert_eq!(host.end(&flow).await.result(), json!(60));
}

/// The same through the broker: messages wait there, and their queue is served on as soon as there is room.
#[tokio::test(flavor = "multi_thread")]
async fn a_recipient_without_room_for_a_while_keeps_its_queue() {
    let network =
        Network::new().settings(&["flows.always_broker=true", "limits.inbound_messages=20", "flows.shadow_replay=0"]);
    let host = network.run();
    let flow = host.start(ALICE, "send-many", json!({"peer": BOB, "amount": 60})).await;
    assert_eq!(host.end(&flow).await.result(), json!(60));
    let left = network.log_lines(&["messages could not be taken from the broker"]);
    assert!(left.is_empty(), "the queue was let go of: {left:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_starts_a_flow_is_told_that_its_recipient_has_no_room() {
    let network = Network::new().settings(&["limits.inbound_messages=4", "flows.idle_close=100ms"]);
    let host = network.run();
    host.until_identity(BOB, IdentityState::Cold).await;
    // Bob cannot be opened, so nobody looks at what waits for him.
    let (keys, aside) = (network.path("keys/bob"), network.path("keys-of-bob"));
    fs::rename(&keys, &aside).unwrap();
    let mut refused = Vec::new();
    let mut started = Vec::new();
    for number in 0..12 {
        match host.start_as(&format!("try {number}"), ALICE, "wait-forever", json!({"peer": BOB})).await {
            Ok(flow) => started.push(flow.flow_id),
            Err(problem) => refused.push(problem),
        }
    }
    assert_eq!((started.len(), refused.len()), (5, 7), "the quota and a quarter: {refused:?}");
    assert!(refused.iter().all(|problem| problem.code == Code::Overloaded), "{refused:?}");
    fs::rename(&aside, &keys).unwrap();
    eventually("Bob answers all of them", async || match host.flows(Some(BOB), Some("never-answers")).await.len() {
        5 => Ok(()),
        others => Err(format!("{others}")),
    })
    .await;
    assert!(host.start_as("one more", ALICE, "wait-forever", json!({"peer": BOB})).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flow_waits_until_the_broker_has_taken_what_waits() {
    let network = Network::new().settings(&[
        "flows.always_broker=true",
        "limits.outbound_messages=4",
        "flows.shadow_replay=0",
        "flows.linger=50ms",
    ]);
    network.run().stop();
    // Four messages for somebody whom the network does not know, which fill the outbox.
    let insert = "WITH RECURSIVE series(value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM series LIMIT 5) \
                  INSERT INTO outbox (id, identity, destination, message_id, body) SELECT 1000 + value, \
                  (SELECT id FROM identity WHERE name = ?1), 'O=Nobody, L=Nowhere, C=FR', randomblob(16), x'0a0142' \
                  FROM series";
    let database = network.database();
    database.execute(insert, [ALICE]).unwrap();
    database.execute("UPDATE meta SET value = 2000 WHERE key = 'outbox'", []).unwrap();
    drop(database);
    let host = network.run();
    let refused = host.start_as("a", ALICE, "wait-forever", json!({"peer": BOB})).await.unwrap_err();
    assert_eq!(refused.code, Code::Overloaded, "{refused:?}");
    // A flow that is there already waits: this one has slept before it sends.
    let flow = host.start(ALICE, "sleep-and-send", json!({"peer": BOB, "amount": 7})).await;
    let shown = host.until_waits(&flow, "broker").await;
    assert!(shown.waiting_for.unwrap().parties.is_empty());
    // Whoever removes them has them gone at the next start.
    host.stop();
    network.database().execute("DELETE FROM outbox", []).unwrap();
    let host = network.run();
    assert_eq!(host.end(&flow).await.result(), json!(7));
}
