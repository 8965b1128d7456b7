//! A broker whose disk is emptied while messages wait in it.

use std::fs;

use maxhost_broker_amqp::test_servers::Artemis;
use maxhost_tests::{ALICE, BOB, CAROL, eventually};
use serde_json::json;

use crate::cluster::{Cluster, WellServers};
use crate::result;

const DATABASE: &str = "wiped";

/// The only host runs no more than the senders, so what they have sent waits in the broker. The broker loses it, and hosts that
/// would take it start: every flow ends.
#[tokio::test(flavor = "multi_thread")]
async fn what_waited_in_a_broker_that_is_wiped_comes_all_the_same() {
    let Some(servers) = WellServers::take().await else { return };
    let mut artemis = Artemis::start().await;
    let mut cluster = Cluster::new(&servers, 0, DATABASE, "/maxhost/wiped");
    cluster.broker = format!("url = \"amqp://{}@{}\"\n", Artemis::USER, artemis.address());
    let configuration = cluster.configure("max-a");
    let text = fs::read_to_string(&configuration).unwrap();
    // It has room for Alice alone, and never lets her go.
    let text = text.replace("slots = 100", "slots = 1").replace("idle_close = \"5 s\"", "idle_close = \"1 h\"");
    fs::write(&configuration, text).unwrap();
    let a = cluster.run_as_configured("max-a");
    let mut pings = Vec::new();
    for peer in [BOB, CAROL] {
        pings.push(a.start(ALICE, "ping", json!({"peer": peer, "count": 3})).await);
    }
    let rows = || {
        let sql = "SELECT (SELECT count(*) FROM maxhost.outbox), (SELECT count(*) FROM maxhost.sent)";
        servers.postgres.sql(DATABASE, sql).unwrap()
    };
    eventually("the broker has both messages", async || match rows() {
        rows if rows == "0|2" => Ok(()),
        other => Err(other),
    })
    .await;

    artemis.kill();
    artemis.wipe();
    artemis.restart().await;
    let b = cluster.run("max-b");
    for ping in &pings {
        assert_eq!(result(&a, ping).await, json!({"rounds": 3}));
    }
    let logs: String =
        ["max-a", "max-b"].map(|host| fs::read_to_string(cluster.folder(host).join("host.log")).unwrap()).concat();
    assert!(logs.contains("the broker has lost what it had"), "{logs}");
    assert!(logs.contains("messages that the broker had confirmed, and may have lost"), "{logs}");
    // What the broker has is kept, and is no work: who has sent it may fall asleep, and is let go.
    cluster.until_owned("max-b", "Bob", |owner| owner.is_none()).await;
    let rows = rows();
    assert!(rows.starts_with("0|") && rows != "0|0", "{rows}");
    drop((a, b));
}
