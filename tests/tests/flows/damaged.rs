//! What the database has of a message may be damaged: its sender is told, and nobody waits for ever.

use std::fs;

use maxhost_tests::{ALICE, BOB, CAROL, Host, Network, eventually};
use serde_json::json;

/// Runs a host on which Bob is in quarantine, until an initiation of Alice's waits for him. Gives Alice's flow.
async fn an_initiation_waits_for_bob(network: &Network) -> String {
    fs::rename(network.path("keys/bob"), network.path("keys/bob.away")).unwrap();
    let host = network.run();
    let flow = host.start(ALICE, "ping", json!({"peer": BOB, "count": 1})).await;
    eventually("an initiation waits", async || match &*network.sql("SELECT count(*) FROM initiation") {
        "1" => Ok(()),
        other => Err(other.to_owned()),
    })
    .await;
    host.stop();
    fs::rename(network.path("keys/bob.away"), network.path("keys/bob")).unwrap();
    flow
}

async fn until_put_aside(network: &Network) {
    eventually("it is put aside", async || {
        let (waiting, aside) =
            ("SELECT count(*) FROM initiation", "SELECT count(*) FROM untaken WHERE body IS NOT NULL");
        match (&*network.sql(waiting), &*network.sql(aside)) {
            ("0", "1") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    assert_eq!(network.log_lines(&["message-put-aside", "initiation", "damaged"]).len(), 1);
}

async fn bob_works(host: &Host) {
    let end = host.run(CAROL, "ping", json!({"peer": BOB, "count": 1})).await;
    assert_eq!(end.result(), json!({"rounds": 1}));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sender_of_a_damaged_initiation_is_told() {
    for mode in ["never", "every-wait", "random:7"] {
        let network = Network::new().setting(&format!("flows.evict={mode}"));
        let flow = an_initiation_waits_for_bob(&network).await;
        let _ = network.sql("UPDATE initiation SET body = substr(body, 1, length(body) - 5)");
        let host = network.run();
        let failure = host.end(&flow).await.failure();
        assert_eq!(failure.kind, "unexpected-end", "{mode}: {failure:?}");
        assert!(failure.message.contains("damaged"), "{mode}: {failure:?}");
        until_put_aside(&network).await;
        bob_works(&host).await;
        host.stop();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_initiation_of_which_nothing_is_left_is_put_aside() {
    let network = Network::new();
    let flow = an_initiation_waits_for_bob(&network).await;
    let _ = network.sql("UPDATE initiation SET body = substr(body, 1, 3)");
    let host = network.run();
    until_put_aside(&network).await;
    bob_works(&host).await;
    // Nobody can tell whom to answer.
    assert!(host.kill(&flow).await);
    host.stop();
    let host = network.run();
    bob_works(&host).await;
    assert_eq!(network.log_lines(&["message-put-aside"]).len(), 1, "it is told once");
    host.stop();
}
