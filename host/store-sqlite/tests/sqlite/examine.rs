//! A look at the file from outside: it tells what is wrong, disturbs nobody and leaves everything as it was.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use crate::common::*;
use maxhost_store::{FlowState, StoreError, assert_outcome};
use maxhost_store_sqlite::{Examination, SCHEMA_VERSION, examine};

const TIME: Duration = Duration::from_secs(60);

/// Everything in a folder that is data: not the shared memory, and not the zeros that a host puts behind its log.
fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    let files = entries.map(|entry| {
        let (name, mut bytes) = (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap());
        if name.ends_with("-wal") {
            bytes.truncate(bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1));
        }
        (name, bytes)
    });
    files.filter(|(name, _)| !name.ends_with("-shm")).collect()
}

/// Two live flows, one of them in hospital, and one that has ended.
async fn filled() -> World<File> {
    let f = World::<File>::new().await;
    f.start(f.alice).await;
    let held = f.start(f.alice).await;
    f.commit(f.alice, vec![set(held, FlowState::Hospital)]).await.unwrap();
    let ended = f.start(f.bob).await;
    f.commit(f.bob, vec![end(ended)]).await.unwrap();
    f
}

const FOUND: Examination = Examination { version: SCHEMA_VERSION, live: 2, hospital: 1, complete: true };

#[tokio::test]
async fn a_sound_file_is_left_as_it_is_with_a_host_and_without() {
    let f = filled().await;
    let path = f.databases.dir.path().join("host.db");
    let before = files(f.databases.dir.path());
    assert!(before["host.db-wal"].len() > 1_000, "what was written is still in the log");
    assert_eq!(examine(&path, TIME).unwrap(), Some(FOUND));
    assert_eq!(files(f.databases.dir.path()), before);
    // What a killed host leaves.
    let dead = tempfile::tempdir().unwrap();
    for (name, bytes) in &before {
        std::fs::write(dead.path().join(name), bytes).unwrap();
    }
    assert_eq!(examine(&dead.path().join("host.db"), TIME).unwrap(), Some(FOUND));
    assert_eq!(files(dead.path()), before);
    // The host goes on, and has all it wrote.
    f.start(f.alice).await;
    f.store.close().await;
    let before = files(f.databases.dir.path());
    assert_eq!(before.keys().collect::<Vec<_>>(), ["host.db"]);
    assert_eq!(examine(&path, TIME).unwrap(), Some(Examination { live: 3, ..FOUND }));
    assert_eq!(files(f.databases.dir.path()), before);
    assert!(!f.databases.dir.path().join("host.db-shm").exists());
}

#[tokio::test]
async fn a_host_that_writes_and_one_who_looks_do_not_disturb_each_other() {
    let f = filled().await;
    let path = f.databases.dir.path().join("host.db");
    let looking = std::thread::spawn(move || {
        for _ in 0..20 {
            assert!(examine(&path, TIME).unwrap().unwrap().complete);
        }
    });
    while !looking.is_finished() {
        f.start(f.alice).await;
    }
    looking.join().unwrap();
    let f = f.reopen().await;
    assert!(f.store.live_flows().await.unwrap().len() > 2);
}

#[tokio::test]
async fn a_damaged_file_is_told() {
    let f = filled().await;
    let path = f.databases.dir.path().join("host.db");
    for _ in 0..50 {
        f.start(f.alice).await;
    }
    f.store.close().await;
    let sound = std::fs::read(&path).unwrap();
    let page = u16::from_be_bytes([sound[16], sound[17]]) as usize;
    let mut damaged = 0;
    for number in 1..sound.len() / page {
        let mut bytes = sound.clone();
        bytes[number * page..number * page + 64].fill(0xa5);
        std::fs::write(&path, bytes).unwrap();
        match examine(&path, TIME) {
            Err(StoreError::Damaged { path: told, .. }) => {
                assert_eq!(told, path);
                damaged += 1;
            }
            // A page that is in use by nothing.
            Ok(Some(found)) => assert!(found.complete),
            other => panic!("page {number}: {other:?}"),
        }
    }
    assert!(damaged > 5, "{damaged}");
    std::fs::write(&path, "this is no database, however long it is made".repeat(100)).unwrap();
    assert_outcome!(examine(&path, TIME), Err(StoreError::Damaged { .. }));
}

#[tokio::test]
async fn the_file_of_another_version_or_program_is_told() {
    let f = filled().await;
    let path = f.databases.dir.path().join("host.db");
    f.store.close().await;
    make_newer(&path);
    assert_outcome!(
        examine(&path, TIME),
        Err(StoreError::Incompatible { found, .. }) if found == SCHEMA_VERSION + 1
    );
    let path = f.databases.dir.path().join("other.db");
    rusqlite::Connection::open(&path).unwrap().execute_batch("CREATE TABLE t (x)").unwrap();
    let Err(error) = examine(&path, TIME) else { panic!("taken for ours") };
    assert!(error.to_string().contains("another program"), "{error}");
}

#[tokio::test]
async fn what_is_not_there_yet_is_nothing_wrong_and_a_look_ends_in_time() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(examine(&dir.path().join("none.db"), TIME).unwrap(), None);
    std::fs::write(dir.path().join("empty.db"), "").unwrap();
    assert_eq!(examine(&dir.path().join("empty.db"), TIME).unwrap(), None);

    let f = World::<File>::new().await;
    for _ in 0..20 {
        let flows: Vec<_> = (0..100).map(|_| start(f.store.next_flow_row())).collect();
        f.commit(f.alice, flows).await.unwrap();
    }
    let path = f.databases.dir.path().join("host.db");
    let found = examine(&path, Duration::ZERO).unwrap().unwrap();
    assert_eq!((found.complete, found.live), (false, 2_000));
}

#[tokio::test]
async fn names_that_mean_something_in_a_uri_are_names() {
    let f = filled().await;
    f.store.close().await;
    let odd = f.databases.dir.path().join("a b?c#d%41.db");
    std::fs::rename(f.databases.dir.path().join("host.db"), &odd).unwrap();
    assert_eq!(examine(&odd, TIME).unwrap(), Some(FOUND));
}
