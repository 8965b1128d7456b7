//! `make chaos`: PostgreSQL, three ZooKeeper servers and Artemis on loopback, three Max Nodes and two RPC workers under load, and
//! faults of every kind in an order that a seed decides. Nothing may be lost, doubled or stuck.
//!
//! ```text
//! chaos [--seed N] [--faults N] [--identities N] [--clients N] [--at-once N] [--settle-every N] [--only KIND]... [--json]
//! ```
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

// `bench_cluster` uses the rest of it.
#[allow(dead_code)]
#[path = "../tests/chaos/trial/mod.rs"]
mod trial;

use std::process::ExitCode;

use maxhost_broker_amqp::test_servers::Artemis;
use trial::Options;
use trial::schedule::Kind;

fn options() -> Result<Options, String> {
    let mut options = Options {
        seed: rand::random_range(0..1_000_000),
        faults: 200,
        kinds: Vec::new(),
        identities: 200,
        clients: 24,
        at_once: 3,
        settle_every: 20,
        is_quiet: false,
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        if word == "--json" {
            options.is_quiet = true;
            continue;
        }
        let value = words.next().ok_or(format!("{word} needs a value"))?;
        let number = || value.parse::<u64>().map_err(|_| format!("{word}: '{value}' is no number"));
        let count = || number().and_then(|number| usize::try_from(number).map_err(|error| error.to_string()));
        match word.as_str() {
            "--seed" => options.seed = number()?,
            "--faults" => options.faults = count()?,
            "--identities" => {
                options.identities = u32::try_from(number()?.max(10)).map_err(|error| error.to_string())?
            }
            "--clients" => options.clients = count()?.max(1),
            "--at-once" => options.at_once = count()?.max(1),
            "--settle-every" => options.settle_every = count()?.max(1),
            "--only" => {
                let kind = Kind::ALL.into_iter().find(|kind| kind.word() == value);
                options
                    .kinds
                    .push(kind.ok_or_else(|| format!("there is no fault '{value}', but {}", words_of_kinds()))?);
            }
            _ => return Err(format!("{word} is not known")),
        }
    }
    if options.kinds.is_empty() {
        options.kinds = Kind::ALL.to_vec();
    }
    Ok(options)
}

fn words_of_kinds() -> String {
    Kind::ALL.map(Kind::word).join(" ")
}

#[tokio::main]
async fn main() -> ExitCode {
    let options = match options() {
        Ok(options) => options,
        Err(problem) => {
            eprintln!("{problem}");
            return ExitCode::from(2);
        }
    };
    // Standard error says how it can be had.
    if Artemis::is_missing() {
        return ExitCode::FAILURE;
    }
    let (summary, outcome) = trial::run(&options).await;
    println!("{summary:#}");
    if outcome.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
