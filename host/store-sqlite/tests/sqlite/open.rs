//! Opening: new and old files, files that are something else, and numbers that are never used again.

use crate::common::*;
use maxhost_model::{Code, Problem};
use maxhost_store::{StoreError, assert_outcome};
use maxhost_store_sqlite::{SCHEMA_VERSION, SqliteOptions, SqliteStore, examine};

#[tokio::test]
async fn a_new_file_is_migrated_and_opens_again() {
    let f = World::<File>::new().await;
    let f = f.reopen().await;
    let names: Vec<String> = f.store.identities().await.unwrap().into_iter().map(|i| i.name).collect();
    assert_eq!(names, ["Alice", "Bob"]);
    let conn = f.databases.connect();
    let pragma = |name: &str| conn.query_row(&format!("PRAGMA {name}"), [], |row| row.get::<_, String>(0)).unwrap();
    assert_eq!(pragma("journal_mode"), "wal");
    assert_eq!(pragma("integrity_check"), "ok");
}

#[tokio::test]
async fn a_newer_schema_is_refused() {
    let f = World::<File>::new().await;
    let path = f.databases.path();
    f.store.close().await;
    make_newer(&path);
    let Err(error) = SqliteStore::open(SqliteOptions::new(&path)).await else { panic!("opened") };
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
    let Err(error) = SqliteStore::open(SqliteOptions::new(&path)).await else { panic!("opened") };
    assert_outcome!(&error, StoreError::Damaged { .. });
    assert!(!error.is_retriable());
    assert_eq!(std::fs::read(&path).unwrap(), vec![b'x'; 20_000]);
}

#[tokio::test]
async fn another_programs_database_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("host.db");
    rusqlite::Connection::open(&path).unwrap().execute_batch("CREATE TABLE songs (title TEXT)").unwrap();
    let Err(error) = SqliteStore::open(SqliteOptions::new(&path)).await else { panic!("opened") };
    assert_outcome!(&error, StoreError::Damaged { .. });
    assert!(error.to_string().contains("another program"), "{error}");
}

#[tokio::test]
async fn a_folder_that_cannot_be_written_is_named() {
    // Nobody may make files here, not even root.
    let path = std::path::Path::new("/proc/self/host.db");
    let Err(error) = SqliteStore::open(SqliteOptions::new(path)).await else { panic!("opened") };
    assert_outcome!(&error, StoreError::ReadOnly { .. });
    assert_eq!(Problem::from(error).code, Code::DirectoryUnwritable);
}

#[tokio::test]
async fn a_broken_row_is_told_and_others_are_unharmed() {
    let f = World::<File>::new().await;
    let (tag, stream, whole) = (f.start(f.alice).await, f.start(f.alice).await, f.start(f.alice).await);
    for flow in [tag, stream, whole] {
        f.commit(f.alice, vec![log(flow, 0)]).await.unwrap();
    }
    let conn = f.databases.connect();
    conn.execute("UPDATE flow SET tag = x'0102' WHERE id = ?1", [tag.0]).unwrap();
    conn.execute("UPDATE journal SET stream = 70000 WHERE flow = ?1", [stream.0]).unwrap();
    assert_outcome!(f.store.journal(stream).await, Err(StoreError::Corrupt { table: "journal", .. }));
    assert_outcome!(f.store.flow(tag).await, Err(StoreError::Corrupt { table: "flow", key }) if key.starts_with(&tag.0.to_string()));
    assert_eq!(f.store.journal(whole).await.unwrap().unwrap().log.len(), 1);
    assert_eq!(f.store.live_flows().await.unwrap().len(), 3);
}

/// A database copied back beside the write-ahead log of another moment: SQLite takes the two for one.
#[tokio::test]
async fn a_mixture_of_two_copies_is_told() {
    let w = World::<File>::new().await;
    w.start(w.alice).await;
    let path = w.databases.path();
    let beside = |name: &str| path.with_file_name(format!("host.db{name}"));
    w.store.close().await;
    let old = std::fs::read(&path).unwrap();
    let w = w.reopen().await;
    for _ in 0..3_000 {
        let flow = w.store.next_flow_row();
        w.commit(w.alice, vec![start(flow)]).await.unwrap();
    }
    // The marks as they were, under rows of today: what such a mixture looks like from inside.
    w.store.close().await;
    let conn = w.databases.connect();
    conn.execute("UPDATE meta SET value = 1 WHERE key = 'flow'", []).unwrap();
    drop(conn);
    let Err(error) = SqliteStore::open(SqliteOptions::new(&path)).await else { panic!("opened") };
    assert_outcome!(&error, StoreError::Mixed { table: "flow", mark: 1, found, .. } if *found > 3_000);
    assert_outcome!(examine(&path, std::time::Duration::from_secs(60)), Err(StoreError::Mixed { .. }));
    let problem = Problem::from(error);
    let remedy = problem.remedy;
    assert!(remedy.contains("-wal") && remedy.contains("-shm"), "{remedy}");
    // What the remedy says.
    for name in ["-wal", "-shm"] {
        let _ = std::fs::remove_file(beside(name));
    }
    std::fs::write(&path, old).unwrap();
    let w = w.reopen().await;
    assert_eq!(w.store.live_flows().await.unwrap().len(), 1);
}

#[tokio::test]
async fn claims_written_behind_the_committers_back_fence_it() {
    let w = World::<File>::new().await;
    w.commit(w.alice, vec![]).await.unwrap();
    w.databases.connect().execute("UPDATE identity SET epoch = 9 WHERE name = 'Alice'", []).unwrap();
    assert_outcome!(w.commit(w.alice, vec![]).await, Err(StoreError::Fenced { current, .. }) if current.token.epoch == 9);
    w.commit(w.bob, vec![]).await.unwrap();
}

#[tokio::test]
async fn closing_works_off_the_log() {
    let w = World::<File>::new().await;
    w.start(w.alice).await;
    w.store.close().await;
    let wal = std::fs::metadata(w.databases.dir.path().join("host.db-wal")).map_or(0, |file| file.len());
    assert_eq!(wal, 0, "the write-ahead log is worked off");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_thousand_live_flows_are_scanned() {
    const FLOWS: usize = 200_000;
    let w = World::<File>::new().await;
    for chunk in 0..FLOWS / 500 {
        let ops = (0..500).map(|_| start(w.store.next_flow_row())).collect();
        let answer = submit(&w.store, if chunk % 2 == 0 { w.alice } else { w.bob }, None, ops);
        if chunk % 20 == 19 {
            answer.await.unwrap().unwrap();
        }
    }
    w.commit(w.alice, vec![]).await.unwrap();
    let flows = w.store.live_flows().await.unwrap();
    assert_eq!(flows.len(), FLOWS);
    assert!(flows.windows(2).all(|pair| pair[0].row < pair[1].row));
    let some: Vec<_> = flows.iter().step_by(10).map(|flow| flow.row).collect();
    assert_eq!(w.store.heads(&some).await.unwrap().len(), some.len());
}
