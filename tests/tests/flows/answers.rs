//! Whoever cannot be served is told once, with a reason that is the right one.

use std::fs;

use maxhost_rpc::proto::v1::IdentityState;
use maxhost_tests::{ALICE, BOB, CAROL, Network, eventually};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn a_protocol_that_nobody_answers_is_rejected_once_however_the_peer_is_found() {
    let network = Network::new().settings(&["flows.idle_close=100ms", "flows.shadow_replay=0.0"]);
    let host = network.run();
    for round in 1..=20 {
        if round % 2 == 1 {
            host.until_identity(BOB, IdentityState::Cold).await;
        }
        let end = host.run(ALICE, "unanswered", json!({"peer": BOB, "receive": true})).await;
        let failure = end.failure();
        assert_eq!((failure.kind.as_str(), failure.peer.as_deref()), ("unexpected-end", Some(BOB)), "{failure:?}");
        let id = failure.error_id.unwrap();
        eventually("the line of the log", async || {
            let lines = network.log_lines(&["rejected a session"]);
            if lines.len() < round { Err(format!("{lines:#?}")) } else { Ok(()) }
        })
        .await;
        let lines = network.log_lines(&["rejected a session"]);
        assert_eq!(lines.len(), round, "round {round}: {lines:#?}");
        assert_eq!(network.log_lines(&["rejected a session", &id]).len(), 1, "{id}: {lines:#?}");
    }
    host.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_party_whose_node_info_is_broken_is_refused_by_name_and_nothing_is_tried_for_ever() {
    let network = Network::new();
    let host = network.run();
    assert_eq!(host.run(ALICE, "find", json!({"name": CAROL})).await.result(), json!(true));
    assert_eq!(host.run(ALICE, "find", json!({"name": "O=Nobody, L=London, C=GB"})).await.result(), json!(false));
    host.stop();
    // The file of a party whose signature does not hold any more.
    let infos = network.path("network/node-infos");
    let of_carol = fs::read_dir(&infos).unwrap().map(|entry| entry.unwrap().path()).find(|file| {
        let bytes = fs::read(file).unwrap();
        bytes.windows(5).any(|window| window == b"Carol") && !bytes.windows(5).any(|window| window == b"Alice")
    });
    let file = of_carol.expect("Carol has a node info");
    let mut bytes = fs::read(&file).unwrap();
    let last = bytes.len() - 20;
    bytes[last] ^= 0x55;
    fs::write(&file, bytes).unwrap();
    let host = network.run();
    for flow in ["find", "ping"] {
        let arguments = match flow {
            "find" => json!({"name": CAROL}),
            _ => json!({"peer": CAROL, "count": 1}),
        };
        let failure = host.run(ALICE, flow, arguments).await.failure();
        assert_eq!(failure.kind, "illegal-argument", "{flow}: {failure:?}");
        assert!(failure.message.contains("Carol") && failure.message.contains("cannot be used"), "{flow}: {failure:?}");
    }
    let counters = host.status().await.counters;
    assert_eq!((counters["hospitalised"], counters["replays"]), (0, 0), "nothing was tried again");
    assert_eq!(host.run(ALICE, "ping", json!({"peer": BOB, "count": 1})).await.result(), json!({"rounds": 1}));
    host.stop();
}
