//! Many at once: hosts that register the same names, claims by the thousand, and rows that come and go.

use std::time::{Duration, Instant};

use maxhost_model::IdentityRow;
use maxhost_postgres_server::Server;
use maxhost_store::{Caution, ClaimRequest, FencingToken, MessageOp, Op, Store};
use maxhost_store_postgres::{PostgresOptions, PostgresStore};
use sqlx::Connection;

use crate::common::*;

fn names(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|n| format!("{prefix} {n:04}")).collect()
}

/// Hazard 36: hosts that start at the same time register the same names, each in the order of its own manifests.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hosts_that_register_the_same_names_at_once_never_wait_in_a_circle() {
    const HOSTS: usize = 3;
    let database = Database::new().await;
    let mut stores = Vec::new();
    for _ in 0..HOSTS {
        stores.push(PostgresStore::open(database.options()).await.unwrap());
    }
    for round in 0..4 {
        let names = names(&format!("Party of round {round}"), 500);
        let begin = std::sync::Arc::new(tokio::sync::Barrier::new(HOSTS));
        let registering = stores.iter().enumerate().map(|(host, store)| {
            let (store, begin, mut names) = (store.clone(), begin.clone(), names.clone());
            match host {
                0 => {}
                1 => names.reverse(),
                _ => names.sort_by_key(|name| name.chars().rev().collect::<String>()),
            }
            tokio::spawn(async move {
                begin.wait().await;
                let rows = store.register_identities(&names).await.unwrap();
                let mut rows: Vec<(String, IdentityRow)> = names.into_iter().zip(rows).collect();
                rows.sort();
                rows
            })
        });
        let mut found = Vec::new();
        for registered in registering.collect::<Vec<_>>() {
            found.push(registered.await.unwrap());
        }
        assert!(found.iter().all(|rows| *rows == found[0]), "a name has one number, whoever registers it");
    }
    let sql = format!("SELECT deadlocks FROM pg_stat_database WHERE datname = '{}'", database.name);
    assert_eq!(database.sql(&sql), "0");
    for store in stores {
        store.close().await;
    }
}

/// Hazard 35: a host that takes over a thousand identities, some of whose rows are locked, goes on writing for those it has.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_claims_at_once_hold_up_no_commit() {
    const LOCKED: usize = 20;
    let database = Database::new().await;
    let store = PostgresStore::open(database.options()).await.unwrap();
    let row = store.register_identities(&["Alice"]).await.unwrap()[0];
    let alice = claim(&store, row, 1).await;
    let flow = store.next_flow_row();
    store.commit(alice, vec![start(flow)]).await.unwrap();
    let rows = store.register_identities(&names("Party", 1_000)).await.unwrap();
    let ids: Vec<i64> = rows[..LOCKED].iter().map(|row| row.0).collect();
    let mut locker = sqlx::PgConnection::connect(&server().url(&database.name)).await.unwrap();
    let mut locked = locker.begin().await.unwrap();
    sqlx::query("SELECT FROM maxhost.identity WHERE id = ANY($1) FOR NO KEY UPDATE")
        .bind(&ids)
        .execute(&mut *locked)
        .await
        .unwrap();
    let claiming = rows.iter().map(|row| {
        let token = FencingToken { generation: 1, epoch: 5 };
        let request = ClaimRequest { identity: *row, token, key_fp: None, caution: Caution::None };
        let store = store.clone();
        tokio::spawn(async move { store.claim(request).await })
    });
    let mut claiming: Vec<_> = claiming.collect();
    let others = claiming.split_off(LOCKED);
    for seq in 0..50 {
        store.commit(alice, vec![log(flow, seq)]).await.unwrap();
    }
    assert!(claiming.iter().all(|claim| !claim.is_finished()), "the commits have waited for the claims");
    for claim in others {
        claim.await.unwrap().unwrap();
    }
    assert!(claiming.iter().all(|claim| !claim.is_finished()), "their rows are locked");
    locked.rollback().await.unwrap();
    for claim in claiming {
        claim.await.unwrap().unwrap();
    }
    assert_eq!(database.sql("SELECT count(*) FROM maxhost.identity WHERE epoch = 5 AND unclean = 1"), "1000");
    store.close().await;
}

/// Rows that somebody else has to take away, as they come with every message.
async fn come_and_go(store: &Store, author: maxhost_store::Author, count: usize) {
    let message = |n: usize| -> Op {
        let message_id = (n as u128).to_be_bytes();
        MessageOp::Outbox { destination: "x".into(), message_id, body: text(&"m".repeat(200)) }.into()
    };
    for first in (0..count).step_by(500) {
        store.commit(author, (first..first + 500).map(message).collect()).await.unwrap();
    }
    loop {
        let rows = store.outbox(0, 500).await.unwrap();
        if rows.is_empty() {
            return;
        }
        let sent = rows.iter().map(|row| MessageOp::OutboxSent { id: row.id, marker: None }.into());
        store.commit(author, sent.collect()).await.unwrap();
    }
}

/// Hazard 43: tables whose rows come and go do not grow, however many there were.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_whose_rows_come_and_go_stay_small() {
    let server = tokio::task::spawn_blocking(|| {
        let server = Server::start("autovacuum_naptime = 1").unwrap();
        server.create_database("own").unwrap();
        server
    })
    .await
    .unwrap();
    let sql = |text: &str| server.sql("own", text).unwrap();
    let store = PostgresStore::open(PostgresOptions::new(&server.url("own"), None).unwrap()).await.unwrap();
    let row = store.register_identities(&["Alice"]).await.unwrap()[0];
    let alice = claim(&store, row, 1).await;
    let number = |text: &str| sql(text).parse::<u64>().unwrap();
    let vacuums = || number("SELECT autovacuum_count FROM pg_stat_user_tables WHERE relname = 'outbox'");
    let size = || number("SELECT pg_total_relation_size('maxhost.outbox')");
    let mut sizes = Vec::new();
    for _ in 0..5 {
        let before = vacuums();
        come_and_go(&store, alice, 6_000).await;
        let deadline = Instant::now() + Duration::from_secs(60);
        while vacuums() == before {
            assert!(Instant::now() < deadline, "the table is not cleaned up");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        sizes.push(size());
    }
    // What died after a cleaning had begun waits for the next.
    assert!(sizes[4] < sizes[0] * 3, "{sizes:?}");
    // The same is set for all tables of this kind, whatever the server's own settings.
    let set = "SELECT string_agg(relname, ' ' ORDER BY relname) FROM pg_class WHERE relnamespace = 'maxhost'::regnamespace \
               AND array_to_string(reloptions, ' ') LIKE '%autovacuum_vacuum_threshold%'";
    assert_eq!(sql(set), "committer flow initiation journal notary outbox sent");
    store.close().await;
}
