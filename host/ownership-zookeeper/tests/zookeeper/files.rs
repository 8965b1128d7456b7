//! Files that hosts share: what changes is told to every host, once, also what changed while nobody could listen; and ten
//! thousand of them take bounded time and memory.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, StreamExt};
use maxhost_ownership::{Ownership, OwnershipError};
use maxhost_ownership_zookeeper::test_servers::Ensemble;
use maxhost_ownership_zookeeper::{FileChange, FileFeed, FileName, Folder, LARGEST_FILE, Put, SharedFiles};
use maxhost_proxy::Line;

use crate::support::{Cluster, soon};

const FILES: u32 = 10_000;
/// What a host's knowledge of so many files may take in memory, with what is under way.
const MEMORY: u64 = 32 << 20;

fn manifest(name: &str) -> FileName {
    FileName::new(Folder::Identities, name).unwrap()
}

fn keys(name: &str) -> FileName {
    FileName::new(Folder::Keys, name).unwrap()
}

async fn editor(cluster: &Cluster) -> SharedFiles {
    SharedFiles::open(cluster.direct("editor"), "test").await.unwrap()
}

/// What is told until these changes have come; nothing else may come.
async fn told(feed: &mut FileFeed, expected: &[FileChange]) {
    let mut missing = expected.to_vec();
    while !missing.is_empty() {
        let waiting = tokio::time::timeout(Duration::from_secs(90), soon(async || feed.next().await));
        let news = waiting.await.unwrap_or_else(|_| panic!("not told: {missing:?}")).unwrap();
        for change in news.changes {
            let place = missing.iter().position(|missing| *missing == change);
            missing.remove(place.unwrap_or_else(|| panic!("told, and not expected: {change:?}; missing: {missing:?}")));
        }
    }
}

/// Reads all there is for now.
async fn catch_up(feed: &mut FileFeed) -> BTreeMap<FileName, Vec<u8>> {
    let mut all = BTreeMap::new();
    loop {
        let news = soon(async || feed.next().await).await.unwrap();
        for change in news.changes {
            match change {
                FileChange::Present(file, bytes) => drop(all.insert(file, bytes)),
                FileChange::Absent(file) => panic!("{file:?} is gone"),
            }
        }
        if news.caught_up {
            return all;
        }
    }
}

fn present(file: &FileName, bytes: &[u8]) -> FileChange {
    FileChange::Present(file.clone(), bytes.to_vec())
}

async fn put(files: &SharedFiles, file: &FileName, bytes: &[u8]) -> Put {
    soon(async || files.put(file, bytes).await).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_are_told_to_every_host_and_what_was_missed_is_found() {
    let cluster = Cluster::of(Ensemble::start(1).await).await;
    let hosts = [cluster.host("one").await, cluster.host("two").await];
    let mut feeds = hosts.each_ref().map(|host| host.files());
    for feed in &mut feeds {
        assert!(catch_up(feed).await.is_empty());
    }
    // A service that has no folder, because it was emptied, takes nothing from a host that has a copy.
    feeds[0].has([manifest("zoe")]);
    assert!(catch_up(&mut feeds[0]).await.is_empty());
    let files = editor(&cluster).await;
    assert_eq!(files.list(Folder::Identities).await.unwrap(), None, "nobody made the folder");
    for _ in 0..2 {
        files.make_folders().await.unwrap();
    }
    let [alice, bob, carol] = ["alice", "bob", "carol"].map(manifest);
    let key = keys("alice");
    assert_eq!(files.put(&key, b"sealed").await.unwrap(), Put::Created);
    assert_eq!(files.put(&alice, b"1").await.unwrap(), Put::Created);
    for feed in &mut feeds {
        told(feed, &[present(&key, b"sealed"), present(&alice, b"1")]).await;
    }
    assert_eq!(files.put(&alice, b"1").await.unwrap(), Put::Unchanged);
    assert_eq!(files.put(&alice, b"2").await.unwrap(), Put::Changed);
    assert!(files.create(&bob, b"b").await.unwrap());
    assert!(!files.create(&bob, b"other").await.unwrap(), "somebody else has it");
    for feed in &mut feeds {
        told(feed, &[present(&alice, b"2"), present(&bob, b"b")]).await;
    }

    // While a host is cut off: it is told what is another now, and nothing else. So it is after a lost session.
    for (round, expires) in [(3, false), (4, true)] {
        cluster.set_line("one", Line::Cut);
        if expires {
            maxhost_ownership::contract::Subject::expire(&cluster, "one").await;
        }
        let text = round.to_string().into_bytes();
        assert_eq!(put(&files, &alice, &text).await, Put::Changed);
        assert!(files.remove(&bob).await.unwrap());
        assert!(!files.remove(&bob).await.unwrap(), "it is gone");
        put(&files, &carol, &text).await;
        cluster.set_line("one", Line::Open);
        let changes = [FileChange::Absent(bob.clone()), present(&alice, &text), present(&carol, &text)];
        told(&mut feeds[1], &changes).await;
        // The copy from before is compared with the folder when that is listed.
        let zoe = (!expires).then(|| FileChange::Absent(manifest("zoe")));
        told(&mut feeds[0], &zoe.into_iter().chain(changes).collect::<Vec<_>>()).await;
        put(&files, &bob, b"b").await;
        for feed in &mut feeds {
            told(feed, &[present(&bob, b"b")]).await;
        }
    }

    // What could not be acted on is told again; what a host has from before is told when it is gone.
    feeds[0].again(alice.clone());
    told(&mut feeds[0], &[present(&alice, b"4")]).await;
    feeds[1].has([manifest("dave"), alice.clone()]);
    told(&mut feeds[1], &[FileChange::Absent(manifest("dave"))]).await;

    // The largest is told whole, and a larger one is refused.
    let largest = vec![7; LARGEST_FILE];
    files.put(&carol, &largest).await.unwrap();
    told(&mut feeds[1], &[present(&carol, &largest)]).await;
    let error = files.put(&carol, &vec![7; LARGEST_FILE + 1]).await.unwrap_err();
    assert!(matches!(error, OwnershipError::Permanent(_)) && error.to_string().contains("262145 bytes"), "{error}");
    assert_eq!(files.read(&carol).await.unwrap().map(|bytes| bytes.len()), Some(LARGEST_FILE));

    let error = SharedFiles::open(cluster.direct("stranger"), "another").await.err().unwrap();
    assert!(error.to_string().contains("another network"), "{error}");
    hosts[0].close().await;
    assert!(matches!(feeds[0].next().await, Err(OwnershipError::Permanent(_))), "it follows nothing any more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_are_followed_over_a_change_of_the_leader() {
    let mut cluster = Cluster::of(Ensemble::start(3).await).await;
    let host = cluster.host("one").await;
    let mut feed = host.files();
    let files = editor(&cluster).await;
    files.make_folders().await.unwrap();
    put(&files, &manifest("alice"), b"1").await;
    put(&files, &manifest("bob"), b"b").await;
    assert_eq!(catch_up(&mut feed).await.len(), 2);
    let leader = cluster.ensemble.leader().await;
    cluster.ensemble.kill(leader);
    let files = {
        drop(files);
        soon(async || SharedFiles::open(cluster.direct("editor"), "test").await).await.unwrap()
    };
    put(&files, &manifest("alice"), b"2").await;
    told(&mut feed, &[present(&manifest("alice"), b"2")]).await;
}

fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_files_are_read_once_and_one_change_is_one_read() {
    let cluster = Cluster::with_session(Ensemble::start(1).await, Duration::from_secs(60)).await;
    let host = cluster.host("one").await;
    let files = Arc::new(editor(&cluster).await);
    files.make_folders().await.unwrap();
    let text = |n: u32| format!("name = \"O=Party {n:05}, L=London, C=GB\"\nkeys = \"../keys/party-{n:05}\"\n");
    let puts = (0..FILES).map(|n| {
        let files = Arc::clone(&files);
        async move { files.create(&manifest(&format!("party-{n:05}")), text(n).as_bytes()).await.unwrap() }
    });
    assert!(stream::iter(puts).buffer_unordered(200).all(async |created| created).await);

    let (before, mut feed) = (resident(), host.files());
    let mut read = 0;
    loop {
        let news = feed.next().await.unwrap();
        assert!(news.changes.len() <= 64, "{} files at once", news.changes.len());
        read += news.changes.len();
        if news.caught_up {
            break;
        }
    }
    assert_eq!(read, FILES as usize);
    let grown = resident().saturating_sub(before);
    println!("{grown} bytes for {FILES} files");
    assert!(grown < MEMORY, "{grown} bytes for {FILES} files");

    // Packets that the server received, with those of beats and of who asks.
    let packets = async || {
        let said = cluster.ensemble.ask(0, "mntr").await.unwrap();
        let line = said.lines().find_map(|line| line.strip_prefix("zk_packets_received")).unwrap();
        line.trim().parse::<u64>().unwrap()
    };
    let earlier = packets().await;
    let changed = manifest("party-00007");
    files.put(&changed, b"other").await.unwrap();
    told(&mut feed, &[present(&changed, b"other")]).await;
    let sent = packets().await - earlier;
    assert!(sent < 200, "{sent} requests after one change");
}
