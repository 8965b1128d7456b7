//! Several hosts as processes of their own share identities: over a real PostgreSQL server, a real ZooKeeper server and a
//! real Artemis broker or RabbitMQ, on loopback.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod clocks;
mod cluster;
mod cut_off;
mod databases;
mod messages;
mod placement;
mod rabbitmq;
mod roles;
mod scheduler;
mod shared_manifests;
mod stopped;
mod tokens;
mod wiped;

use maxhost_rpc::proto::v1::GetFlowResponse;
use maxhost_tests::{ALICE, BOB, CAROL, End, Host, cli, eventually};
use serde_json::json;

use cluster::{Cluster, WellServers};

/// Starts a flow at the first of the hosts that runs the identity, or can.
async fn start(hosts: &[&Host], identity: &str, flow: &str, arguments: serde_json::Value) -> String {
    eventually(&format!("{flow} of {identity} starts"), async || {
        let mut problems = Vec::new();
        for host in hosts {
            match host.try_start(maxhost_tests::flows::request(identity, flow, &arguments)).await {
                Ok(started) => return Ok(started.flow_id),
                Err(problem) => problems.push(problem.to_string()),
            }
        }
        Err(problems.join("; "))
    })
    .await
}

/// The result of a flow, wherever it runs.
async fn result(host: &Host, flow: &str) -> serde_json::Value {
    let is_over = |shown: &GetFlowResponse| shown.flow.as_ref().is_some_and(|flow| End::of(flow).is_over());
    End::of(&host.until(flow, is_over).await.flow.unwrap()).result()
}

fn signal(host: &Host, signal: libc::c_int) {
    let pid = libc::pid_t::try_from(host.pid()).unwrap();
    // SAFETY: sends a signal; touches no memory. The process is a child that was not waited for, so the number is its.
    assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_share_identities_and_take_over_from_each_other() {
    let Some(servers) = WellServers::take().await else { return };
    let cluster = Cluster::new(&servers, 6, "shared", "/maxhost/shared");
    let (a, b) = (cluster.run("max-a"), cluster.run("max-b"));
    assert_eq!((&a.ready()["host"], &a.ready()["roles"]), (&json!("max-a"), &json!(["flows", "rpc"])));

    // Who named another database would own identities without what they have done.
    servers.postgres.create_database("elsewhere").unwrap();
    let elsewhere = cluster.configure("max-z");
    let [ours, other] = ["shared", "elsewhere"].map(|database| servers.postgres.url(database));
    let text = std::fs::read_to_string(&elsewhere).unwrap().replace(&ours, &other);
    std::fs::write(&elsewhere, text).unwrap();
    let error = cli::answer(cluster.command("max-z", &["run"]), None).fails(4, "ownership-refused");
    assert!(error["message"].as_str().unwrap().contains("another database"), "{error}");

    // Identities of two hosts talk through the broker.
    let ping = a.start(ALICE, "ping", json!({"peer": BOB, "count": 5})).await;
    let pong = start(&[&b, &a], CAROL, "ping", json!({"peer": ALICE, "count": 5})).await;
    assert_eq!((result(&a, &ping).await, result(&b, &pong).await), (json!({"rounds": 5}), json!({"rounds": 5})));
    assert_eq!(cluster.owner("max-b", "Alice").as_deref(), Some("max-a"));
    let hosts = cluster.ask("max-b", &["host", "list"]);
    let shown: Vec<_> =
        hosts.iter().map(|host| (host["host"].as_str().unwrap(), host["state"].as_str().unwrap())).collect();
    assert_eq!(shown, [("max-a", "up"), ("max-b", "up")]);
    let status = &cluster.ask("max-a", &["cluster", "status"])[0];
    for part in ["broker", "store", "ownership"] {
        assert_eq!(status[part]["ok"], true, "{status}");
    }
    // Messages alone wake identities, and both hosts take their share.
    let mut pings = Vec::new();
    for party in 1..=6 {
        let party = format!("O=Party {party:05}, L=London, C=GB");
        pings.push(start(&[&a], ALICE, "ping", json!({"peer": party, "count": 2})).await);
    }
    for ping in &pings {
        assert_eq!(result(&b, ping).await, json!({"rounds": 2}));
    }

    // A host is killed: what it ran ends at the other.
    let beat = start(&[&a], ALICE, "beat", json!({"beats": 40, "interval_ms": 100})).await;
    let ping = start(&[&a], ALICE, "ping", json!({"peer": CAROL, "count": 60})).await;
    a.until(&beat, |shown| shown.journal.is_some_and(|journal| journal.entries > 3)).await;
    a.kill_9();
    cluster.until_owned("max-b", "Alice", |owner| owner == Some("max-b")).await;
    assert_eq!((result(&b, &beat).await, result(&b, &ping).await), (json!({"beats": 40}), json!({"rounds": 60})));

    // It is back, and the other is asked to stop: it hands over.
    let a = cluster.run("max-a");
    let beat = start(&[&b], ALICE, "beat", json!({"beats": 40, "interval_ms": 100})).await;
    b.until(&beat, |shown| shown.journal.is_some_and(|journal| journal.entries > 3)).await;
    b.stop();
    cluster.until_owned("max-a", "Alice", |owner| owner == Some("max-a")).await;
    assert_eq!(result(&a, &beat).await, json!({"beats": 40}));

    // A host hangs for longer than its session, and comes back.
    let b = cluster.run("max-b");
    let beat = start(&[&a], ALICE, "beat", json!({"beats": 60, "interval_ms": 100})).await;
    a.until(&beat, |shown| shown.journal.is_some_and(|journal| journal.entries > 3)).await;
    signal(&a, libc::SIGSTOP);
    cluster.until_owned("max-b", "Alice", |owner| owner == Some("max-b")).await;
    signal(&a, libc::SIGCONT);
    assert_eq!(result(&b, &beat).await, json!({"beats": 60}));
    // It is well again without a restart, and knows who runs Alice.
    eventually("the host that hung is in the cluster", async || {
        let hosts = cluster.ask("max-a", &["host", "list"]);
        let is_up = |name: &str| hosts.iter().any(|host| host["host"] == name && host["state"] == "up");
        if is_up("max-a") && is_up("max-b") { Ok(()) } else { Err(format!("{hosts:?}")) }
    })
    .await;
    let beat = start(&[&a, &b], BOB, "beat", json!({"beats": 2, "interval_ms": 10})).await;
    assert_eq!(result(&a, &beat).await, json!({"beats": 2}));
    let ping = start(&[&b, &a], ALICE, "ping", json!({"peer": BOB, "count": 3})).await;
    assert_eq!(result(&b, &ping).await, json!({"rounds": 3}));

    // A host that is asked to drain gives up what it runs. She has to be at work until it is asked, which two commands come before.
    let beat = start(&[&b, &a], ALICE, "beat", json!({"beats": 100, "interval_ms": 100})).await;
    let owner = cluster.until_owned("max-a", "Alice", |owner| owner.is_some()).await.unwrap();
    let other = if owner == "max-a" { "max-b" } else { "max-a" };
    assert_eq!(cluster.ask(other, &["host", "drain", &owner])[0]["state"], "draining");
    cluster.until_owned(other, "Alice", |owner| owner == Some(other)).await;
    assert_eq!(result(&a, &beat).await, json!({"beats": 100}));
    assert_eq!(cluster.ask(other, &["host", "undrain", &owner])[0]["state"], "up");

    // Who asked for it is in the audit trail, which all hosts share.
    eventually("the acts are in the trail", async || {
        let rows = cluster.ask(&owner, &["audit", "list", "--since", "1h", "--limit", "1000"]);
        let is_told = |detail: String| {
            let is_it = |row: &&serde_json::Value| row["action"] == "SetDraining" && row["detail"] == detail.as_str();
            rows.iter().find(is_it).is_some_and(|row| row["host"] == other && row["user"] == "local")
        };
        if is_told(format!("{owner}: drain")) && is_told(format!("{owner}: undrain")) {
            Ok(())
        } else {
            Err(format!("{rows:?}"))
        }
    })
    .await;

    // One is moved while it works, and one that sleeps; who cannot take it is named.
    let beat = start(&[&b, &a], ALICE, "beat", json!({"beats": 30, "interval_ms": 100})).await;
    for target in ["max-a", "max-b"] {
        let moved = cluster.ask("max-a", &["identity", "move", "Alice", "--to", target]).remove(0);
        assert_eq!((&moved["identity"], &moved["host"]), (&json!(ALICE), &json!(target)));
        assert_eq!(cluster.owner("max-b", "Alice").as_deref(), Some(target));
    }
    assert_eq!(result(&a, &beat).await, json!({"beats": 30}));
    let listed = cluster.ask("max-a", &["identity", "list", "Alice", "--hosts"]);
    assert_eq!(listed[0]["host"], "max-b");
    let refused = cli::answer(cluster.command("max-a", &["identity", "move", "Alice", "--to", "max-z"]), None);
    refused.fails(3, "host-not-found");
    cluster.ask("max-a", &["host", "drain", "max-a"]);
    let refused = cli::answer(cluster.command("max-b", &["identity", "move", "Alice", "--to", "max-a"]), None);
    assert!(refused.error()["message"].as_str().unwrap().contains("takes nothing"), "{}", refused.error());
    cluster.ask("max-a", &["host", "undrain", "max-a"]);

    // Nothing is left to do: all go to sleep, and nobody owns anything.
    eventually("all are asleep", async || {
        let status = cluster.ask("max-a", &["cluster", "status"]).remove(0);
        if status["identities"]["owned"] == 0 && status["demand"] == 0 { Ok(()) } else { Err(status.to_string()) }
    })
    .await;
    drop((a, b));

    // Hosts of another network do not join it, whatever their database.
    let other = Cluster::new(&servers, 0, "other", "/maxhost/shared");
    other.configure("max-c");
    let refused = cli::answer(other.command("max-c", &["run"]), None);
    let error = refused.fails(4, "ownership-refused");
    assert!(error["message"].as_str().unwrap().contains("another network"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flow_goes_on_at_a_host_that_has_never_had_its_code() {
    let Some(servers) = WellServers::take().await else { return };
    let cluster = Cluster::new(&servers, 0, "code", "/maxhost/code");
    let a = cluster.run("max-a");
    let hash = |host: &Host, identity| {
        let shown = cluster.ask(host.ready()["host"].as_str().unwrap(), &["identity", "show", identity]).remove(0);
        let cordapps = shown["cordapps"].as_array().unwrap();
        let heartbeat = cordapps.iter().find(|cordapp| cordapp["name"] == "heartbeat").unwrap();
        heartbeat["hash"].as_str().unwrap().to_owned()
    };
    cluster.install_another_build("max-d", "heartbeat");
    let d = cluster.run_as_configured("max-d");
    let (old, new) = (hash(&a, ALICE), hash(&d, ALICE));
    assert_ne!(old, new);
    // The flow begins where the old code is: the other host takes nothing yet.
    cluster.ask("max-d", &["host", "drain", "max-d"]);
    let beat = start(&[&a], ALICE, "beat", json!({"beats": 1, "interval_ms": 20_000})).await;
    assert_eq!(cluster.owner("max-a", "Alice").as_deref(), Some("max-a"));
    cluster.ask("max-d", &["host", "undrain", "max-d"]);
    a.kill_9();
    assert_eq!(result(&d, &beat).await, json!({"beats": 1}));
    assert!(cluster.folder("max-d").join(format!("data/components/{old}.wasm")).is_file());
}
