//! `make bench-cluster`: measures what several hosts cost and how fast they follow each other, over PostgreSQL, three ZooKeeper
//! servers and Artemis on loopback. `docs/benchmarks.md` says what each figure means.
//!
//! ```text
//! bench_cluster [--identities N] [--only GROUP]...     groups: broker idle wake zero failover drain
//! ```
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../../tests/chaos/trial/deployment.rs"]
#[allow(dead_code)]
mod deployment;
#[path = "../../bench/src/figures.rs"]
#[allow(dead_code)]
mod figures;
mod life;
mod steps;
mod usage;

use std::process::ExitCode;

use deployment::{Deployment, Plan};
use figures::Report;
use maxhost_broker_amqp::test_servers::Artemis;
use maxhost_tests::cli;

const GROUPS: [&str; 6] = ["broker", "idle", "wake", "zero", "failover", "drain"];

/// One of the numbered identities, from 1.
fn party(number: u32) -> String {
    format!("O=Party {number:05}, L=London, C=GB")
}

#[tokio::main]
async fn main() -> ExitCode {
    let (mut identities, mut only) = (1_000, Vec::new());
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match (word.as_str(), words.next()) {
            ("--identities", Some(count)) if count.parse::<u32>().is_ok_and(|count| count >= 100) => {
                identities = count.parse().unwrap();
            }
            ("--only", Some(group)) if GROUPS.contains(&group.as_str()) => only.push(group),
            _ => {
                eprintln!("usage: bench_cluster [--identities N] [--only GROUP]...   groups: {}", GROUPS.join(" "));
                return ExitCode::from(2);
            }
        }
    }
    // Standard error says how it can be had.
    if Artemis::is_missing() {
        return ExitCode::FAILURE;
    }
    let is_wanted = |group: &str| only.is_empty() || only.iter().any(|wanted| wanted == group);
    let mut report = Report::default();
    if is_wanted("broker") {
        let plan = Plan { nodes: 2, nodes_answer: true, workers: 0, parties: 40, has_lines: false };
        steps::measure(&Deployment::start(plan).await, &mut report).await;
    }
    if GROUPS[1..].iter().any(|group| is_wanted(group)) {
        let plan = Plan { nodes: 3, nodes_answer: false, workers: 1, parties: identities, has_lines: false };
        let deployment = Deployment::start(plan).await;
        life::measure(&deployment, identities, &is_wanted, &mut report).await;
        deployment.keep_logs(&cli::target().join("bench-cluster")).await;
    }
    report.write(&cli::target().join("bench-cluster.json"), false).unwrap();
    match report.missed() {
        0 => {}
        missed => println!("\n{missed} figures miss their goal; docs/benchmarks.md says what bounds them"),
    }
    ExitCode::SUCCESS
}
