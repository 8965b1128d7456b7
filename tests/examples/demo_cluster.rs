//! `make demo-cluster`: a database server, ZooKeeper and a broker on loopback, two RPC workers, and Max Nodes that come, die, hang
//! and go while flows run. Shows that each flow that was started ends once, with the right result, down to no Max Node and back.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../tests/hosts/cluster.rs"]
#[allow(dead_code)]
mod cluster;

use std::collections::HashSet;
use std::io::Write;
use std::time::{Duration, Instant};

use cluster::{Cluster, Servers};
use maxhost_rpc::Client;
use maxhost_rpc::proto::v1 as pb;
use maxhost_tests::{End, Host, eventually, flows};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

/// Parties of the network beside the four that each has.
const PARTIES: u32 = 20;
/// Rounds of a ping-pong flow: each is a commit here and one at the other side.
const ROUNDS: u32 = 40;
/// The longest that a start is repeated for.
const PATIENCE: Duration = Duration::from_secs(120);
/// Longer than a session lasts without a sign of life.
const HANGS: Duration = Duration::from_secs(9);

fn say(text: &str) {
    println!("{text}");
    let _ = std::io::stdout().flush();
}

fn step(text: &str) {
    say(&format!("\n== {text}"));
}

fn party(number: u32) -> String {
    format!("O=Party {number:05}, L=London, C=GB")
}

/// One flow of the demonstration: a ping-pong between two parties under a number of its own.
async fn start(client: Client, number: u32) -> pb::StartedFlow {
    let (from, to) = (party(number % PARTIES + 1), party((number + 7) % PARTIES + 1));
    let request = flows::request(&from, "ping", &json!({"peer": to, "count": ROUNDS}));
    let request = pb::StartFlowRequest { client_id: Some(format!("payment-{number}")), ..request };
    let deadline = Instant::now() + PATIENCE;
    loop {
        match client.start_flow(request.clone()).await {
            Ok(started) => return started.flow.unwrap(),
            // Under its client id it is the same start whenever it is repeated.
            Err(_) if Instant::now() < deadline => tokio::time::sleep(Duration::from_millis(100)).await,
            Err(problem) => panic!("flow {number} was not started: {problem}"),
        }
    }
}

fn start_all(workers: &[&Host], numbers: std::ops::Range<u32>) -> Vec<JoinHandle<pb::StartedFlow>> {
    let client = |number: u32| workers[number as usize % workers.len()].client().clone();
    numbers.map(|number| tokio::spawn(start(client(number), number))).collect()
}

/// Waits for the starts and for the ends of the flows; each has the right result.
async fn all_end(worker: &Host, starts: Vec<JoinHandle<pb::StartedFlow>>) -> Vec<String> {
    let mut ids = Vec::new();
    for start in starts {
        ids.push(start.await.unwrap().flow_id);
    }
    for id in &ids {
        let end = eventually(&format!("the end of {id}"), async || {
            let shown = worker.show(id).await.flow.unwrap();
            let end = End::of(&shown);
            if end.result.is_some() || end.error.is_some() { Ok(end) } else { Err(format!("{shown:?}")) }
        })
        .await;
        assert_eq!(end.result(), json!({"rounds": ROUNDS}), "flow {id}");
    }
    ids
}

fn signal(host: &Host, signal: libc::c_int) {
    let pid = libc::pid_t::try_from(host.pid()).unwrap();
    // SAFETY: sends a signal; touches no memory. The process is a child that was not waited for, so the number is its.
    assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
}

fn show(cluster: &Cluster<'_>) -> Value {
    let status = cluster.ask("rpc-1", &["cluster", "status"]).remove(0);
    for host in status["hosts"].as_array().unwrap() {
        let word = |field: &str| host[field].as_str().unwrap_or_default().to_owned();
        say(&format!(
            "   {:<6} {:<5} {}  {} identities",
            word("host"),
            host["roles"][0].as_str().unwrap(),
            word("state"),
            host["identities"]
        ));
    }
    say(&format!("   demand: {} slots; owned: {}", status["demand"], status["identities"]["owned"]));
    status
}

async fn until_quiet(cluster: &Cluster<'_>) {
    eventually("all sleep", async || {
        let status = cluster.ask("rpc-1", &["cluster", "status"]).remove(0);
        let quiet = status["demand"] == 0 && status["identities"]["owned"] == 0;
        if quiet { Ok(()) } else { Err(status.to_string()) }
    })
    .await;
}

#[tokio::main]
async fn main() {
    let begun = Instant::now();
    step("PostgreSQL, ZooKeeper and Artemis start, on loopback");
    let servers = Servers::start().await;
    let cluster = Cluster::new(&servers, PARTIES, "demo", "/maxhost/demo");

    step("two RPC workers, and no Max Node");
    let (one, two) = (cluster.run_as("rpc-1", "rpc"), cluster.run_as("rpc-2", "rpc"));
    show(&cluster);

    step("20 flows are asked for: nobody runs them yet, so there is demand");
    let starts = start_all(&[&one, &two], 0..20);
    eventually("demand", async || {
        let status = cluster.ask("rpc-1", &["cluster", "status"]).remove(0);
        if status["demand"].as_u64().is_some_and(|slots| slots >= 10) { Ok(()) } else { Err(status.to_string()) }
    })
    .await;
    show(&cluster);

    step("three Max Nodes come");
    let first = cluster.run_as("max-1", "flows");
    let second = cluster.run_as("max-2", "flows");
    let third = cluster.run_as("max-3", "flows");
    let mut ended = all_end(&two, starts).await;
    say(&format!("   {} flows have ended, each with its result", ended.len()));
    show(&cluster);

    step("60 more; max-1 dies by kill -9, and max-2 hangs (SIGSTOP) for longer than its session");
    let starts = start_all(&[&one, &two], 20..80);
    tokio::time::sleep(Duration::from_millis(700)).await;
    first.kill_9();
    signal(&second, libc::SIGSTOP);
    show(&cluster);
    tokio::time::sleep(HANGS).await;
    signal(&second, libc::SIGCONT);
    say("   max-2 comes back, too late: what it still writes for what others own by now is refused");
    ended.extend(all_end(&one, starts).await);
    say(&format!("   {} flows have ended, each with its result", ended.len()));
    show(&cluster);

    step("nothing is lost, and nothing doubled");
    let different: HashSet<&String> = ended.iter().collect();
    assert_eq!(different.len(), 80);
    for number in 0..80 {
        let again = start(two.client().clone(), number).await;
        assert!(!again.new && again.flow_id == ended[number as usize], "number {number} was started twice");
    }
    say("   80 numbers, 80 flows; each that is asked for again is the flow that it was");

    step("nothing is left to do: all identities sleep, and the Max Nodes go");
    until_quiet(&cluster).await;
    for host in [second, third] {
        host.stop();
    }
    show(&cluster);

    step("down to none, a flow is asked for; one Max Node comes");
    let asked = Instant::now();
    let starts = start_all(&[&one], 80..81);
    let last = cluster.run_as("max-4", "flows");
    all_end(&two, starts).await;
    say(&format!(
        "   it has ended, {:.1} s after it was asked for, the start of the process included",
        asked.elapsed().as_secs_f64()
    ));
    show(&cluster);
    last.stop();
    say(&format!("\nAll is well, after {:.0} s.", begun.elapsed().as_secs_f64()));
}
