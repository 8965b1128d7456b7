//! Ten thousand identities: one session and one watch a host, bounded memory, and a server that can start again.

use std::collections::HashSet;
use std::time::Duration;

use futures::stream::{self, StreamExt};
use maxhost_model::{FencingToken, SecureHash};
use maxhost_ownership::{Ownedness, Ownership, SessionState};
use maxhost_ownership_zookeeper::test_servers::Ensemble;

use crate::support::{Cluster, soon, state_is, until};

const IDENTITIES: u32 = 10_000;
/// What two hosts may take in memory for all of it, in bytes, with what is under way.
const MEMORY: u64 = 64 << 20;

fn identity(n: u32) -> SecureHash {
    SecureHash::of(&n.to_be_bytes())
}

fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

fn counter(said: &str, name: &str) -> u64 {
    let line = said.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("no {name} in {said}"));
    line.trim().parse::<f64>().unwrap() as u64
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_identities_need_one_session_and_one_watch() {
    let mut cluster = Cluster::with_session(Ensemble::start(1).await, Duration::from_secs(60)).await;
    let (one, two) = (cluster.host("one").await, cluster.host("two").await);
    let before = resident();
    let claims = (0..IDENTITIES).map(|n| one.claim(identity(n), FencingToken::UNCLAIMED));
    let tokens: HashSet<FencingToken> =
        stream::iter(claims).buffer_unordered(500).map(|claim| claim.unwrap().token).collect().await;
    assert_eq!(tokens.len(), IDENTITIES as usize, "no epoch is given twice");
    let owners = two.owners().await.unwrap();
    assert_eq!(owners.len(), IDENTITIES as usize);
    assert!(owners.iter().all(|owner| &*owner.host == "one"));
    let grown = resident().saturating_sub(before);
    println!("{grown} bytes for {IDENTITIES} identities");
    assert!(grown < MEMORY, "{grown} bytes for {IDENTITIES} identities and two copies");
    let said = cluster.ensemble.ask(0, "mntr").await.unwrap();
    assert_eq!(counter(&said, "zk_num_alive_connections"), 3, "two hosts, and who asks");
    assert!(counter(&said, "zk_watch_count") <= 4, "{said}");
    // The owner goes, all are free, and each is still wanted.
    one.close().await;
    until("all are free", async || two.wanted().await.unwrap().len() == IDENTITIES as usize).await;
    assert_eq!(two.owner_of(&identity(7)), Ownedness::Free);
    // The end of such a session is one record, which the server can read again.
    cluster.ensemble.kill(0);
    cluster.ensemble.restart(0);
    assert!(cluster.ensemble.serves().await, "the server does not start on what it wrote");
    state_is(&*two, SessionState::Connected).await;
    assert_eq!(soon(async || two.wanted().await).await.unwrap().len(), IDENTITIES as usize);
}
