//! Two hosts whose broker is RabbitMQ.

use maxhost_broker_amqp::test_servers::RabbitMq;
use maxhost_tests::{ALICE, BOB, CAROL, cli};
use serde_json::json;

use crate::cluster::{Cluster, WellServers};
use crate::{result, start};

/// Identities of two hosts talk, and what one has run goes on at the other when it is killed.
#[tokio::test(flavor = "multi_thread")]
async fn hosts_share_identities_over_rabbitmq() {
    if RabbitMq::is_missing() {
        return;
    }
    let Some(servers) = WellServers::take().await else { return };
    let rabbit = RabbitMq::start().await;
    let mut cluster = Cluster::new(&servers, 0, "rabbit", "/maxhost/rabbit");
    cluster.broker = format!("url = \"amqp://{}@{}\"\n", RabbitMq::USER.0, rabbit.address());
    cluster.configure("max-a");
    let error = cli::answer(cluster.command("max-a", &["run"]), None).fails(4, "broker-refused");
    assert!(error["message"].as_str().unwrap().contains("broker.management"), "{error}");

    cluster.broker += &format!("management = \"{}\"\n", rabbit.management());
    let (a, b) = (cluster.run("max-a"), cluster.run("max-b"));
    let ping = a.start(ALICE, "ping", json!({"peer": BOB, "count": 5})).await;
    let pong = start(&[&b, &a], CAROL, "ping", json!({"peer": ALICE, "count": 5})).await;
    assert_eq!((result(&a, &ping).await, result(&b, &pong).await), (json!({"rounds": 5}), json!({"rounds": 5})));
    let status = &cluster.ask("max-b", &["cluster", "status"])[0];
    assert_eq!(status["broker"]["ok"], true, "{status}");

    let ping = start(&[&a], ALICE, "ping", json!({"peer": CAROL, "count": 60})).await;
    a.until(&ping, |shown| shown.journal.is_some_and(|journal| journal.entries > 3)).await;
    a.kill_9();
    assert_eq!(result(&b, &ping).await, json!({"rounds": 60}));
}
