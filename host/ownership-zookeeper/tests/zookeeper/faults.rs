//! What happens when servers, lines and hosts fail: real processes, killed and stopped.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use maxhost_model::{FencingToken, Lineage, SecureHash};
use maxhost_ownership::rendezvous::TARGET;
use maxhost_ownership::{Change, Lost, Ownedness, Ownership, OwnershipError, Permanent, SessionState, Slept};
use maxhost_ownership_zookeeper::test_servers::Ensemble;
use maxhost_ownership_zookeeper::{
    Address, ZooKeeperOptions, ZooKeeperOwnership, adopt, enter_database, replace_database, set_up,
};
use maxhost_proxy::Line;

use crate::support::{Cluster, is_lost, run_id, soon, state_is, until};

fn identity(name: &str) -> SecureHash {
    SecureHash::of(name.as_bytes())
}

async fn claim(host: &ZooKeeperOwnership, name: &str) -> FencingToken {
    soon(async || host.claim(identity(name), FencingToken::UNCLAIMED).await).await.unwrap().token
}

/// Claims as soon as it is possible.
async fn claim_soon(host: &ZooKeeperOwnership, name: &str) -> FencingToken {
    let mut token = None;
    until("the identity is free", async || {
        match host.claim(identity(name), FencingToken::UNCLAIMED).await {
            Ok(claim) => token = Some(claim.token),
            Err(OwnershipError::Permanent(error)) => panic!("{error}"),
            Err(_) => {}
        }
        token.is_some()
    })
    .await;
    token.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leader_dies_and_nothing_is_lost() {
    let mut cluster = Cluster::of(Ensemble::start(3).await).await;
    let (one, two) = (cluster.host("one").await, cluster.host("two").await);
    let token = claim(&one, "Alice").await;
    let sessions = [&one, &two].map(|host| host.session().borrow().number);
    let leader = cluster.ensemble.leader().await;
    cluster.ensemble.kill(leader);
    until("the others serve", async || one.demand(identity("Bob")).await.is_ok()).await;
    until(
        "both see it",
        async || matches!(two.owner_of(&identity("Alice")), Ownedness::Owned(owner) if owner.token == token),
    )
    .await;
    assert_eq!([&one, &two].map(|host| host.session().borrow().number), sessions, "no session was lost");
    // Epochs rise over the change of the leader.
    let seen = soon(async || one.demand_version(identity("Alice")).await).await.unwrap();
    let mut answers_lost = 0;
    let slept = soon(async || {
        let slept = one.sleep(identity("Alice"), seen).await;
        answers_lost += u32::from(slept.is_err());
        slept
    });
    match slept.await.unwrap() {
        Slept::Asleep => {}
        // It had been put to sleep, and the answer was lost.
        Slept::NotOwner if answers_lost > 0 => {}
        other => panic!("{other:?}"),
    }
    assert!(soon(async || two.claim(identity("Alice"), token).await).await.unwrap().token > token);
    assert!(soon(async || two.wanted().await).await.unwrap().contains(&identity("Bob")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_quorum_hosts_give_up_and_with_it_they_are_well_again() {
    let mut cluster = Cluster::of(Ensemble::start(3).await).await;
    let (one, two) = (cluster.host("one").await, cluster.host("two").await);
    let token = claim(&one, "Alice").await;
    soon(async || one.demand(identity("Bob")).await).await.unwrap();
    let session = one.session().borrow().number;
    cluster.ensemble.kill(0);
    cluster.ensemble.kill(1);
    // No session can begin before there is a quorum again.
    for host in [&one, &two] {
        state_is(&**host, SessionState::Lost).await;
        let refused = host.claim(identity("Carol"), FencingToken::UNCLAIMED).await.unwrap_err();
        assert!(refused.is_transient(), "{refused:?}");
    }
    cluster.ensemble.restart(0);
    cluster.ensemble.restart(1);
    for host in [&one, &two] {
        state_is(&**host, SessionState::Connected).await;
    }
    assert!(one.session().borrow().number > session);
    assert!(claim_soon(&two, "Alice").await > token);
    let wanted = soon(async || two.wanted().await).await.unwrap();
    assert!(wanted.contains(&identity("Bob")), "a demand outlives the quorum");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_its_leader_keeps_no_session_alive() {
    // The followers answer pings for ten more seconds, so only a beat that goes through the leader tells.
    let cluster = Cluster::with_session(Ensemble::start(3).await, Duration::from_secs(4)).await;
    let host = cluster.host("one").await;
    claim(&host, "Alice").await;
    let leader = cluster.ensemble.leader().await;
    let session = host.session().borrow().number;
    cluster.ensemble.pause(leader);
    is_lost(&*host, session).await;
    cluster.ensemble.resume(leader);
    state_is(&*host, SessionState::Connected).await;
    claim_soon(&host, "Alice").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_gives_up_before_the_servers_give_away_what_it_owns() {
    let cluster = Cluster::of(Ensemble::start(1).await).await;
    let (one, two) = (cluster.host("one").await, cluster.host("two").await);
    let token = claim(&one, "Alice").await;
    let mut changes = two.changes();
    // The line is not cut: nothing comes, and nothing says so.
    cluster.set_line("one", Line::Silent);
    loop {
        match tokio::time::timeout(Duration::from_secs(60), changes.next()).await.unwrap().unwrap() {
            Change::Released(owner) if owner.identity == identity("Alice") => break,
            _ => {}
        }
    }
    // By its own clock, whether or not its tasks have run since.
    let refused = one.claim(identity("Bob"), FencingToken::UNCLAIMED).await.unwrap_err();
    assert!(matches!(refused, OwnershipError::Lost(Lost::SessionOver)) || refused.is_transient(), "{refused:?}");
    assert_eq!(one.owner_of(&identity("Alice")), Ownedness::Unknown);
    state_is(&*one, SessionState::Lost).await;
    assert!(claim(&two, "Alice").await > token);
    cluster.set_line("one", Line::Open);
    state_is(&*one, SessionState::Connected).await;
    match soon(async || one.claim(identity("Alice"), FencingToken::UNCLAIMED).await).await {
        Err(OwnershipError::Lost(Lost::Owned(owner))) => assert_eq!(&*owner.host, "two"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_server_that_goes_on_in_time_costs_nothing() {
    let cluster = Cluster::with_session(Ensemble::start(1).await, Duration::from_secs(30)).await;
    let host = cluster.host("one").await;
    let token = claim(&host, "Alice").await;
    cluster.ensemble.pause(0);
    state_is(&*host, SessionState::Suspended).await;
    let refused = host.claim(identity("Bob"), FencingToken::UNCLAIMED).await.unwrap_err();
    assert!(refused.is_transient(), "{refused:?}");
    cluster.ensemble.resume(0);
    state_is(&*host, SessionState::Connected).await;
    assert_eq!(claim_soon(&host, "Alice").await, token, "it is the same session");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_that_comes_back_has_everything() {
    let mut cluster = Cluster::with_session(Ensemble::start(1).await, Duration::from_secs(60)).await;
    let host = cluster.host("one").await;
    let token = claim(&host, "Alice").await;
    soon(async || host.demand(identity("Bob")).await).await.unwrap();
    let mut changes = host.changes();
    cluster.ensemble.kill(0);
    state_is(&*host, SessionState::Suspended).await;
    cluster.ensemble.restart(0);
    state_is(&*host, SessionState::Connected).await;
    assert_eq!(claim_soon(&host, "Alice").await, token);
    assert_eq!(soon(async || host.wanted().await).await.unwrap(), [identity("Bob")]);
    let missed = async {
        // The claim itself may be told first.
        while changes.next().await.unwrap() != Change::Missed {}
    };
    tokio::time::timeout(Duration::from_secs(60), missed).await.expect("what happened meanwhile was not told");
}

const ADDRESS: &str = "MAXHOST_TEST_ZOOKEEPER";
const NOTE: &str = "MAXHOST_TEST_SESSION_FILE";
/// Longer than a test waits, so that only closing the session can free what it owned.
const LONG_SESSION: Duration = Duration::from_secs(60);

fn restarting(address: &str, note: &str) -> ZooKeeperOptions {
    let address = Address::parse(address).unwrap();
    ZooKeeperOptions {
        session_timeout: LONG_SESSION,
        session_file: Some(note.into()),
        ..ZooKeeperOptions::new(address, "restarting", run_id())
    }
}

/// The process that is killed while it owns an identity.
#[test]
#[ignore = "started by a_restarted_host_does_not_wait_for_its_own_nodes"]
fn owning_process() {
    let (Ok(address), Ok(note)) = (std::env::var(ADDRESS), std::env::var(NOTE)) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let host = ZooKeeperOwnership::join(restarting(&address, &note)).await.unwrap();
        let token = claim(&host, "Alice").await;
        println!("owns {}", token.epoch);
        std::future::pending::<()>().await;
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_host_does_not_wait_for_its_own_nodes() {
    let cluster = Cluster::of(Ensemble::start(1).await).await;
    let other = cluster.host("other").await;
    let dir = tempfile::tempdir().unwrap();
    let (address, note) = (cluster.direct("x").address.to_string(), dir.path().join("session").display().to_string());
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "faults::owning_process", "--ignored", "--nocapture", "--test-threads=1"])
        .env(ADDRESS, &address)
        .env(NOTE, &note)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    let reading = tokio::task::spawn_blocking(move || {
        output.lines().map_while(Result::ok).find_map(|line| line.split_once("owns ").map(|(_, n)| n.to_owned()))
    });
    let epoch: i64 = reading.await.unwrap().expect("the process does not own it").trim().parse().unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    // Its session lives on, and nobody else may take what it owns.
    let refused = soon(async || other.claim(identity("Alice"), FencingToken::UNCLAIMED).await).await.unwrap_err();
    assert!(matches!(refused, OwnershipError::Lost(Lost::Owned(_))), "{refused:?}");
    let joining = ZooKeeperOwnership::join(restarting(&address, &note));
    let again = tokio::time::timeout(LONG_SESSION / 2, joining).await.expect("it waits for its own session").unwrap();
    assert!(claim(&again, "Alice").await.epoch > epoch);
    again.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_set_up_or_not_ours_is_refused() {
    let cluster = Cluster::of(Ensemble::start(1).await).await;
    let refused = |result: Result<ZooKeeperOwnership, OwnershipError>, word: &str| match result {
        Err(OwnershipError::Permanent(error @ Permanent::Refused { .. })) => {
            assert!(error.to_string().contains(word), "{error}");
        }
        other => panic!("{other:?}"),
    };
    let mut elsewhere = cluster.direct("one");
    elsewhere.address.folder = "/maxhost/nowhere".to_owned();
    refused(ZooKeeperOwnership::join(elsewhere).await, "no cluster");
    assert!(matches!(set_up(&cluster.direct("setup"), "x").await, Err(OwnershipError::Permanent(_))), "twice");
    let short = ZooKeeperOptions { session_timeout: Duration::from_secs(5), ..cluster.direct("one") };
    let one = ZooKeeperOwnership::join(short.clone()).await.unwrap();
    refused(ZooKeeperOwnership::join(ZooKeeperOptions { run: run_id(), ..short }).await, "another host named one");
    // A database with claims of a later life of the cluster: only a higher generation rises above them.
    let stored = FencingToken { generation: 4, epoch: 1 << 40 };
    let behind = soon(async || one.claim(identity("Alice"), stored).await).await.unwrap_err();
    assert!(matches!(behind, OwnershipError::Permanent(Permanent::Behind { .. })), "{behind:?}");
    one.close().await;
    assert!(adopt(&cluster.direct("setup"), "other", 5).await.is_err(), "of another cluster");
    adopt(&cluster.direct("setup"), "test", 5).await.unwrap();
    assert!(adopt(&cluster.direct("setup"), "test", 5).await.is_err(), "of no higher generation");
    let one = cluster.host("one").await;
    assert!(soon(async || one.claim(identity("Alice"), stored).await).await.unwrap().token > stored);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_has_one_database_which_never_goes_back() {
    let cluster = Cluster::of(Ensemble::start(1).await).await;
    let options = cluster.direct("one");
    let lineage = |database, incarnation, timeline| Lineage { database, incarnation, timeline };
    // Of hosts that come at once with databases of their own, one names the cluster's.
    let both = [lineage(7, 0, 1), lineage(8, 0, 1)];
    let [seven, eight] =
        futures::future::join_all(both.map(|ours| enter_database(&options, ours))).await.try_into().unwrap();
    let (first, other) = if seven.is_ok() { (7, 8) } else { (8, 7) };
    assert_ne!(seven.is_ok(), eight.is_ok(), "{seven:?} {eight:?}");
    let cases = [
        (lineage(first, 0, 1), None),
        (lineage(other, 5, 5), Some("another database")),
        (lineage(first, 1, 1), None),
        (lineage(first, 0, 1), Some("a later incarnation")),
        (lineage(first, 1, 3), None),
        (lineage(first, 1, 2), Some("a later timeline")),
        // It is not known to this host, and stays what it was for the next.
        (lineage(first, 2, 0), None),
        (lineage(first, 2, 2), Some("a later timeline")),
    ];
    for (ours, refusal) in cases {
        match (enter_database(&options, ours).await, refusal) {
            (Ok(()), None) => {}
            (Err(OwnershipError::Permanent(Permanent::Refused { reason, .. })), Some(refusal)) => {
                assert!(reason.contains(refusal), "{ours:?}: {reason}");
            }
            (entered, _) => panic!("{ours:?}: {entered:?}"),
        }
    }
    replace_database(&options, lineage(other, 0, 0)).await.unwrap();
    enter_database(&options, lineage(other, 0, 1)).await.unwrap();
    assert!(enter_database(&options, lineage(first, 2, 3)).await.is_err());
}

/// A demand that is deleted and made anew has the versions of the former one again, so a host whose copy is old may write what
/// the former one said under a version that fits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_demand_raised_by_a_copy_of_a_former_one_has_no_target() {
    let cluster = Cluster::of(Ensemble::start(1).await).await;
    let (one, two, three) = (cluster.host("one").await, cluster.host("two").await, cluster.host("three").await);
    soon(async || two.offer(10).await).await.unwrap();
    soon(async || three.offer(10).await).await.unwrap();
    let alice = identity("Alice");
    let servers = format!("{}{}", cluster.ensemble.client_address(0), cluster.folder);
    let client = zookeeper_client::Client::connector().connect(&servers).await.unwrap();
    let path = format!("/demand/{}", hex::encode(&alice.as_bytes()[..16]));
    claim(&one, "Alice").await;
    assert!(soon(async || one.hand_over(alice, Some("two")).await).await.unwrap());
    let (former, stat) = client.get_data(&path).await.unwrap();
    assert!(String::from_utf8_lossy(&former).contains("two"));

    // The one named takes her, and lets her sleep; later she is wanted again, as often as before.
    claim(&two, "Alice").await;
    let seen = soon(async || two.demand_version(alice).await).await.unwrap();
    assert_eq!(soon(async || two.sleep(alice, seen).await).await.unwrap(), Slept::Asleep);
    for _ in 0..=stat.version {
        soon(async || one.demand(alice).await).await.unwrap();
    }
    let (anew, present) = client.get_data(&path).await.unwrap();
    assert_eq!(present.version, stat.version);
    // What a host writes that knows the former demand only.
    client.set_data(&path, &former, Some(stat.version)).await.unwrap();
    until("nobody has precedence", async || {
        soon(async || three.owners().await).await.unwrap();
        let demand = tokio::time::timeout(Duration::from_secs(60), three.demands().next()).await.unwrap().unwrap();
        demand.identity == alice && demand.turn < TARGET
    })
    .await;
    // Whoever raises it by what he has read of it writes what is true.
    soon(async || three.demand(alice).await).await.unwrap();
    assert_eq!(client.get_data(&path).await.unwrap().0, anew);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_does_not_take_an_emptied_service_for_its_own() {
    let mut cluster = Cluster::with_session(Ensemble::start(1).await, Duration::from_secs(4)).await;
    let host = cluster.host("one").await;
    claim(&host, "Alice").await;
    cluster.ensemble.kill(0);
    cluster.ensemble.wipe(0);
    cluster.ensemble.restart(0);
    assert!(cluster.ensemble.serves().await);
    state_is(&*host, SessionState::Lost).await;
    match ZooKeeperOwnership::join(cluster.direct("late")).await {
        Err(OwnershipError::Permanent(Permanent::Refused { reason, .. })) => assert!(reason.contains("no cluster")),
        other => panic!("{other:?}"),
    }
    // Nor does it join another cluster in its place, whose epochs begin again.
    set_up(&cluster.direct("setup"), "another").await.unwrap();
    let late = ZooKeeperOwnership::join(cluster.direct("late")).await.unwrap();
    claim(&late, "Alice").await;
    assert_eq!(host.session().borrow().state, SessionState::Lost);
    assert!(host.claim(identity("Bob"), FencingToken::UNCLAIMED).await.is_err());
    assert_eq!(soon(async || late.hosts().await).await.unwrap().len(), 1);
}
