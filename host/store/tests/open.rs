//! Opening: new and old files, files that are something else, and numbers that are never used again.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::collections::HashSet;

use common::*;
use maxhost_model::{Code, Problem};
use maxhost_store::{SCHEMA_VERSION, Store, StoreError, StoreOptions};

#[tokio::test]
async fn a_new_file_is_migrated_and_opens_again() {
    let f = Fixture::new().await;
    let f = f.reopen().await;
    let names: Vec<String> = f.store.identities().await.unwrap().into_iter().map(|i| i.name).collect();
    assert_eq!(names, ["Alice", "Bob"]);
    let rows = f.store.register_identities(&["Bob", "Carol", "Alice"]).await.unwrap();
    assert_eq!((rows[0], rows[2]), (f.bob, f.alice));
    let conn = rusqlite::Connection::open(f.dir.path().join("host.db")).unwrap();
    let pragma = |name: &str| conn.query_row(&format!("PRAGMA {name}"), [], |row| row.get::<_, String>(0)).unwrap();
    assert_eq!(pragma("journal_mode"), "wal");
    assert_eq!(pragma("integrity_check"), "ok");
}

#[tokio::test]
async fn a_row_is_never_used_again() {
    let mut f = Fixture::new().await;
    let mut used = HashSet::new();
    for round in 0..4 {
        for _ in 0..700 {
            assert!(used.insert(f.store.next_flow_row()), "round {round}");
        }
        let flow = f.store.next_flow_row();
        assert!(used.insert(flow));
        f.commit(f.alice, vec![start(flow)]).await.unwrap();
        f.commit(f.alice, vec![end(flow)]).await.unwrap();
        let highest = flow;
        f = f.reopen().await;
        let next = f.store.next_flow_row();
        assert!(next > highest, "round {round}: {next:?} after {highest:?}, whose row is gone");
        used.insert(next);
    }
}

#[tokio::test]
async fn a_newer_schema_is_refused() {
    let f = Fixture::new().await;
    let path = f.dir.path().join("host.db");
    f.store.close().await;
    make_newer(&path);
    let Err(error) = Store::open(StoreOptions::new(&path)).await else { panic!("opened") };
    assert_outcome!(&error, StoreError::Incompatible { found, .. } if *found == SCHEMA_VERSION + 1);
    let problem = Problem::from(error);
    assert_eq!(problem.code, Code::StoreIncompatible);
    assert_eq!(problem.details["found"], (SCHEMA_VERSION + 1).to_string());
}

#[tokio::test]
async fn a_file_that_is_no_database_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("host.db");
    std::fs::write(&path, vec![b'x'; 20_000]).unwrap();
    let Err(error) = Store::open(StoreOptions::new(&path)).await else { panic!("opened") };
    assert_outcome!(&error, StoreError::Damaged { .. });
    assert!(!error.is_retriable());
    assert_eq!(std::fs::read(&path).unwrap(), vec![b'x'; 20_000]);
}

#[tokio::test]
async fn another_programs_database_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("host.db");
    rusqlite::Connection::open(&path).unwrap().execute_batch("CREATE TABLE songs (title TEXT)").unwrap();
    let Err(error) = Store::open(StoreOptions::new(&path)).await else { panic!("opened") };
    assert_outcome!(&error, StoreError::Damaged { .. });
    assert!(error.to_string().contains("another program"), "{error}");
}

#[tokio::test]
async fn a_folder_that_cannot_be_written_is_named() {
    // Nobody may make files here, not even root.
    let path = std::path::Path::new("/proc/self/host.db");
    let Err(error) = Store::open(StoreOptions::new(path)).await else { panic!("opened") };
    assert_outcome!(&error, StoreError::ReadOnly { .. });
    assert_eq!(Problem::from(error).code, Code::DirectoryUnwritable);
}

#[tokio::test]
async fn a_broken_row_is_told_and_others_are_unharmed() {
    let f = Fixture::new().await;
    let (tag, lane, whole) = (f.start(f.alice).await, f.start(f.alice).await, f.start(f.alice).await);
    for flow in [tag, lane, whole] {
        f.commit(f.alice, vec![log(flow, 0)]).await.unwrap();
    }
    let conn = rusqlite::Connection::open(f.dir.path().join("host.db")).unwrap();
    conn.execute("UPDATE flow SET tag = x'0102' WHERE id = ?1", [tag.0]).unwrap();
    conn.execute("UPDATE journal SET lane = 70000 WHERE flow = ?1", [lane.0]).unwrap();
    assert_outcome!(f.store.journal(lane).await, Err(StoreError::Corrupt { table: "journal", .. }));
    assert_outcome!(f.store.flow(tag).await, Err(StoreError::Corrupt { table: "flow", key }) if key.starts_with(&tag.0.to_string()));
    assert_eq!(f.store.journal(whole).await.unwrap().unwrap().log.len(), 1);
    assert_eq!(f.store.live_flows().await.unwrap().len(), 3);
}
