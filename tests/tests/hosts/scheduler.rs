//! The scheduler of a cluster: an identity that sleeps wakes when its time has come, though the host that let it sleep is gone
//! and the scheduler dies and then hangs.

use std::time::Instant;

use maxhost_tests::{ALICE, Host, eventually};
use serde_json::json;

use crate::cluster::{Cluster, WellServers};
use crate::signal;

/// Long enough to fall asleep, and for two hosts to follow as the scheduler.
const INTERVAL_MS: u64 = 35_000;

/// Waits until a worker knows this scheduler.
async fn until_scheduler(cluster: &Cluster<'_>, asked: &str, fits: impl Fn(&str) -> bool) -> String {
    eventually("the scheduler", async || {
        let status = cluster.ask(asked, &["cluster", "status"]).remove(0);
        let known = status["scheduler"].as_str().filter(|known| fits(known)).map(str::to_owned);
        known.ok_or_else(|| status.to_string())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn identities_that_are_due_wake_whatever_becomes_of_the_scheduler() {
    let Some(servers) = WellServers::take().await else { return };
    let cluster = Cluster::new(&servers, 0, "due", "/maxhost/due");
    let mut workers: Vec<(&str, Host)> = ["rpc-1", "rpc-2"].map(|name| (name, cluster.run_as(name, "rpc"))).into();
    let elected = until_scheduler(&cluster, "rpc-1", |_| true).await;
    assert_eq!(until_scheduler(&cluster, "rpc-2", |_| true).await, elected, "there is one");

    // The only Max Node lets Alice sleep, and is gone.
    let node = cluster.run_as("max-1", "flows");
    let beat = workers[0].1.start(ALICE, "beat", json!({"beats": 2, "interval_ms": INTERVAL_MS})).await;
    eventually("Alice sleeps", async || {
        let status = cluster.ask("rpc-1", &["cluster", "status"]).remove(0);
        if status["identities"]["owned"] == 0 && status["demand"] == 0 { Ok(()) } else { Err(status.to_string()) }
    })
    .await;
    node.kill_9();

    // The scheduler dies, and the other worker follows.
    let dying = workers.iter().position(|(name, _)| *name == elected).unwrap();
    let (name, host) = workers.remove(dying);
    host.kill_9();
    let died = Instant::now();
    let other = workers[0].0;
    until_scheduler(&cluster, other, |known| known == other).await;
    println!("another scheduler followed one that died after {} ms", died.elapsed().as_millis());

    // It is back, and the one that followed hangs.
    let back = cluster.run_as(name, "rpc");
    signal(&workers[0].1, libc::SIGSTOP);
    let hung = Instant::now();
    until_scheduler(&cluster, name, |known| known == name).await;
    println!("another scheduler followed one that hung after {} ms", hung.elapsed().as_millis());
    eventually("demand for Alice", async || {
        let status = cluster.ask(name, &["cluster", "status"]).remove(0);
        if status["demand"] == 1 { Ok(()) } else { Err(status.to_string()) }
    })
    .await;

    // It comes back too late, and knows who is the scheduler now.
    signal(&workers[0].1, libc::SIGCONT);
    until_scheduler(&cluster, other, |known| known == name).await;
    let node = cluster.run_as("max-2", "flows");
    assert_eq!(back.end(&beat).await.result(), json!({"beats": 2}));
    drop(node);
}
