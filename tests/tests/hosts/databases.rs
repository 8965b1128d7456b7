//! Identities of a cluster live in two databases, and one moves while its hosts run and its mover is killed.

use std::process::{Child, Stdio};
use std::sync::Arc;

use maxhost_postgres_server::Server;
use maxhost_rpc::proto::v1 as pb;
use maxhost_tests::{ALICE, BOB, CAROL, Host, cli, eventually};
use serde_json::{Value, json};

use crate::cluster::{Cluster, WellServers};
use crate::{result, start};

const FIRST: &str = "moves";
const ARCHIVE: &str = "moves_archive";

/// What an identity has of the currency.
async fn money(host: &Host, identity: &str) -> Value {
    let (identity, types) = (identity.to_owned(), vec!["cash/Cash".to_owned()]);
    let query = pb::VaultQueryRequest { identity, types, ..pb::VaultQueryRequest::default() };
    let request = pb::VaultSumRequest { query: Some(query), field: "quantity".to_owned(), by: None };
    let sums = host.client().sum(request).await.unwrap().sums;
    sums.first().and_then(|sum| serde_json::from_str(&sum.sum).ok()).unwrap_or_default()
}

/// A payee records a payment when it is told of it, which the payer does not wait for.
async fn until_money(host: &Host, expected: [(&str, u64); 2]) {
    eventually("the payment", async || {
        let mut seen = Vec::new();
        for (identity, _) in expected {
            seen.push(money(host, identity).await);
        }
        let arrived = seen.iter().zip(expected).all(|(seen, (_, expected))| *seen == json!(expected));
        if arrived { Ok(()) } else { Err(format!("{seen:?}")) }
    })
    .await;
}

/// Holds whoever writes to a database's journals up, until it is dropped.
struct Barrier {
    server: Arc<Server>,
    held: Option<std::thread::JoinHandle<()>>,
}

impl Barrier {
    async fn before(server: &Arc<Server>, database: &'static str) -> Barrier {
        let held = Arc::clone(server);
        let held = std::thread::spawn(move || {
            let sql = "BEGIN; LOCK TABLE maxhost.journal IN SHARE MODE; SELECT pg_sleep(600) AS barrier";
            assert!(held.sql(database, sql).is_err(), "it is ended from outside");
        });
        let barrier = Barrier { server: Arc::clone(server), held: Some(held) };
        barrier.until(database, "query LIKE '%AS barrier' AND wait_event = 'PgSleep'").await;
        barrier
    }

    /// Waits for a connection of this kind.
    async fn until(&self, database: &str, condition: &str) {
        let sql = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = '{database}' AND pid <> pg_backend_pid() AND {condition}"
        );
        eventually(condition, async || match self.server.sql(database, &sql).unwrap().as_str() {
            "0" => Err("there is none".to_owned()),
            _ => Ok(()),
        })
        .await;
    }
}

impl Drop for Barrier {
    fn drop(&mut self) {
        let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                   WHERE query LIKE '%AS barrier' AND pid <> pg_backend_pid()";
        let ended = self.server.sql("postgres", sql);
        let joined = self.held.take().map(std::thread::JoinHandle::join);
        assert!(std::thread::panicking() || (ended.is_ok() && joined.is_none_or(|joined| joined.is_ok())));
    }
}

fn mover(cluster: &Cluster<'_>, host: &str) -> Child {
    let mut command = cluster.command(host, &["db", "move", "Alice", "--to", "archive"]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_moves_to_another_database_while_its_hosts_run() {
    let Some(servers) = WellServers::take().await else { return };
    let mut cluster = Cluster::new(&servers, 0, FIRST, "/maxhost/moves");
    servers.postgres.create_database(ARCHIVE).unwrap();
    let archive = servers.postgres.url(ARCHIVE);
    let sql = |database: &str, sql: &str| servers.postgres.sql(database, sql).unwrap();

    // A database that a host does not know is nobody's new place.
    let a = cluster.run("max-a");
    cluster.more = format!("[store.databases]\narchive = \"{archive}\"\n");
    cluster.configure("max-b");
    let refused = |host: &str, words: &[&str], exit: i32, code: &str| {
        cli::answer(cluster.command(host, words), None).fails(exit, code)
    };
    let to_archive = ["db", "move", "Alice", "--to", "archive"];
    let error = refused("max-b", &to_archive, 4, "database-unknown");
    assert!(error["message"].as_str().unwrap().contains("max-a"), "{error}");
    refused("max-a", &to_archive, 4, "database-unknown");
    refused("max-b", &["db", "move", "Nobody", "--to", "archive"], 3, "identity-not-found");
    a.stop();
    let (a, b) = (cluster.run("max-a"), cluster.run("max-b"));

    // Money, and flows that are in the middle of something with identities that stay.
    let issued = a.start(ALICE, "cash/issue", json!({"quantity": 100, "currency": "GBP"})).await;
    let _ = a.end(&issued).await.result();
    let beat = start(&[&a], ALICE, "beat", json!({"beats": 60, "interval_ms": 100})).await;
    let ping = start(&[&a], ALICE, "ping", json!({"peer": CAROL, "count": 500})).await;
    let other = start(&[&b, &a], BOB, "ping", json!({"peer": ALICE, "count": 500})).await;
    a.until(&ping, |shown| shown.journal.is_some_and(|journal| journal.entries > 3)).await;

    // The mover is killed while it copies: nobody can run Alice, and nothing is lost.
    {
        let barrier = Barrier::before(&servers.postgres, ARCHIVE).await;
        let mut mover = mover(&cluster, "max-b");
        barrier.until(ARCHIVE, "wait_event_type = 'Lock'").await;
        mover.kill().unwrap();
        mover.wait().unwrap();
    }
    let alice = "SELECT coalesce(owner, 0), moving FROM maxhost.identity WHERE name LIKE 'O=Alice%'";
    assert_eq!(sql(FIRST, alice), "0|1");

    // Begun again, it goes on. By address, as by name.
    let moved = cluster.ask("max-a", &["db", "move", "Alice", "--to", &archive]).remove(0);
    assert_eq!((&moved["identity"], &moved["ok"]), (&json!(ALICE), &json!(true)), "{moved}");
    let again = cluster.ask("max-b", &to_archive).remove(0);
    assert!(again["detail"].as_str().unwrap().contains("already"), "{again}");
    let rounds = json!({"rounds": 500});
    assert_eq!((result(&a, &ping).await, result(&b, &other).await), (rounds.clone(), rounds));
    assert_eq!(result(&b, &beat).await, json!({"beats": 60}));
    assert_eq!(sql(ARCHIVE, "SELECT name FROM maxhost.identity WHERE moved_to IS NULL"), ALICE);
    assert_eq!(sql(ARCHIVE, "SELECT count(*) FROM maxhost.ended"), "3");

    // She pays from there, and goes on there when her host is killed.
    assert_eq!(money(&b, ALICE).await, json!(100));
    let pay = start(&[&a, &b], ALICE, "cash/pay", json!({"to": BOB, "quantity": 40, "currency": "GBP"})).await;
    let _ = b.end(&pay).await.result();
    until_money(&b, [(ALICE, 60), (BOB, 40)]).await;
    let beat = start(&[&a, &b], ALICE, "beat", json!({"beats": 30, "interval_ms": 100})).await;
    let owner = cluster.until_owned("max-a", "Alice", |owner| owner.is_some()).await.unwrap();
    let (dies, stays) = if owner == "max-a" { (a, b) } else { (b, a) };
    dies.kill_9();
    assert_eq!(result(&stays, &beat).await, json!({"beats": 30}));

    // A host that does not have her database does not start, and back in the first one she is as she was.
    let more = std::mem::take(&mut cluster.more);
    cluster.configure("max-c");
    cli::answer(cluster.command("max-c", &["run"]), None).fails(4, "database-unknown");
    cluster.more = more;
    let host = stays.ready()["host"].as_str().unwrap().to_owned();
    let back = cluster.ask(&host, &["db", "move", "Alice", "--to", "first"]).remove(0);
    assert_eq!(back["ok"], true, "{back}");
    let pay = start(&[&stays], BOB, "cash/pay", json!({"to": ALICE, "quantity": 10, "currency": "GBP"})).await;
    let _ = stays.end(&pay).await.result();
    until_money(&stays, [(ALICE, 70), (BOB, 30)]).await;
    let trail = cluster.ask(&host, &["audit", "list", "--since", "1h", "--limit", "1000"]);
    let moves = trail.iter().filter(|row| row["action"] == "db-move" && row["identity"] == ALICE).count();
    assert_eq!(moves, 2, "{trail:?}");
}
