//! A host that keeps its session with ZooKeeper and is cut from the database alone, and then from the broker alone.

use std::fs;
use std::net::Ipv4Addr;

use maxhost_proxy::{Line, Proxy};
use maxhost_tests::{ALICE, BOB, eventually};
use serde_json::json;

use crate::cluster::{Cluster, WellServers};
use crate::{result, start};

const DATABASE: &str = "cut_off";

/// Waits until a host says so of `max-a`.
async fn until_state(cluster: &Cluster<'_>, asked: &str, state: &str) {
    eventually(&format!("max-a is {state} for {asked}"), async || {
        let hosts = cluster.ask(asked, &["host", "list"]);
        let is_it = |host: &serde_json::Value| host["host"] == "max-a" && host["state"] == state;
        if hosts.iter().any(is_it) { Ok(()) } else { Err(format!("{hosts:?}")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_alone_is_cut_from_database_or_broker_gives_its_identities_up() {
    let Some(servers) = WellServers::take().await else { return };
    let database = Proxy::to((Ipv4Addr::LOCALHOST, servers.postgres.port()).into()).await.unwrap();
    let broker = Proxy::to(servers.artemis.address()).await.unwrap();
    let cluster = Cluster::new(&servers, 0, DATABASE, "/maxhost/cut_off");
    let file = cluster.configure("max-a");
    let by_line = format!(
        "postgres://{}@{}/{DATABASE}\"\npassword_file = \"{}",
        maxhost_postgres_server::ROLE,
        database.address(),
        servers.postgres.password_file().display()
    );
    let text = fs::read_to_string(&file)
        .unwrap()
        .replace(&servers.postgres.url(DATABASE), &by_line)
        .replace(&servers.artemis.address().to_string(), &broker.address().to_string());
    fs::write(&file, text).unwrap();
    let (a, b) = (cluster.run_as_configured("max-a"), cluster.run("max-b"));

    // Without the broker it goes on with what needs no messages, so that has to last.
    for (part, line, beats) in [(&database, Line::Silent, 60), (&broker, Line::Cut, 200)] {
        let beat = start(&[&b, &a], ALICE, "beat", json!({"beats": beats, "interval_ms": 100})).await;
        cluster.ask("max-b", &["identity", "move", "Alice", "--to", "max-a"]);
        part.set(line);
        // Nothing is mended yet, and all goes on at the other host, messages too.
        cluster.until_owned("max-b", "Alice", |owner| owner == Some("max-b")).await;
        until_state(&cluster, "max-b", "suspended").await;
        assert_eq!(result(&b, &beat).await, json!({"beats": beats}));
        let ping = start(&[&b], ALICE, "ping", json!({"peer": BOB, "count": 3})).await;
        assert_eq!(result(&b, &ping).await, json!({"rounds": 3}));

        // The host takes identities again, without having been started again.
        part.set(Line::Open);
        until_state(&cluster, "max-b", "up").await;
        let moved = cluster.ask("max-b", &["identity", "move", "Alice", "--to", "max-a"]).remove(0);
        assert_eq!(moved["host"], "max-a", "{moved}");
        let ping = start(&[&a], ALICE, "ping", json!({"peer": BOB, "count": 3})).await;
        assert_eq!(result(&a, &ping).await, json!({"rounds": 3}));
    }
    drop((a, b));
}
