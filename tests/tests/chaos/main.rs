//! The short form of `make chaos`: faults of the main kinds, each once.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[allow(dead_code)]
mod trial;

use maxhost_broker_amqp::test_servers::Artemis;
use trial::Options;
use trial::schedule::Kind;

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_or_doubled_while_hosts_and_servers_fail() {
    if Artemis::is_missing() {
        return;
    }
    let kinds = vec![
        Kind::NodeKilled,
        Kind::WorkerKilled,
        Kind::NodeHangs,
        Kind::LeaderKilled,
        Kind::BrokerKilled,
        Kind::DatabaseKilled,
        Kind::CutFromDatabase,
        Kind::CommitsLost,
        Kind::Drained,
    ];
    let options = Options {
        seed: rand::random_range(0..1_000_000),
        faults: kinds.len(),
        kinds,
        identities: 20,
        clients: 6,
        at_once: 3,
        settle_every: 100,
        is_quiet: false,
    };
    let (summary, outcome) = trial::run(&options).await;
    println!("{summary:#}");
    outcome.unwrap_or_else(|problem| panic!("seed {}: {problem}", options.seed));
}
