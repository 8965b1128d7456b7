//! What a start finds: newer schemas, missing rights, wrong passwords, servers that are not there.

use std::time::Duration;

use crate::common::*;
use maxhost_store::{Store, StoreError, assert_outcome};
use maxhost_store_postgres::{
    Layout, PostgresOptions, PostgresStore, SCHEMA_VERSION, begin_incarnation, examine, migrate,
};

const SHORT: Duration = Duration::from_millis(300);

fn code(outcome: Result<Store, StoreError>) -> &'static str {
    maxhost_model::Problem::from(outcome.map(drop).unwrap_err()).code.as_str()
}

#[tokio::test]
async fn a_newer_schema_is_refused() {
    let database = Database::new().await;
    migrate(&database.options()).await.unwrap();
    database.sql(&format!(
        "INSERT INTO maxhost.migration (version, description, success, checksum, execution_time) \
         VALUES ({}, 'of the future', true, '\\x00', 0)",
        SCHEMA_VERSION + 1
    ));
    let refused = PostgresStore::open(database.options()).await;
    assert_outcome!(&refused, Err(StoreError::Incompatible { found, .. }) if *found == SCHEMA_VERSION + 1);
    assert_eq!(code(refused), "store-incompatible");
    assert_outcome!(examine(&database.options(), SHORT).await, Err(StoreError::Incompatible { .. }));
}

/// A rolling upgrade: the tables are brought up to date by the first host of a later release, which only adds to them, while
/// hosts of this one run. They go on and take over from each other; none of them can start any more.
#[tokio::test(flavor = "multi_thread")]
async fn hosts_that_run_go_on_when_a_later_release_adds_to_the_tables() {
    let database = Database::new().await;
    let (one, other) = (
        PostgresStore::open(database.options()).await.unwrap(),
        PostgresStore::open(database.options()).await.unwrap(),
    );
    let row = one.register_identities(&["Alice"]).await.unwrap()[0];
    let alice = claim(&one, row, 1).await;
    let flow = one.next_flow_row();
    one.commit(alice, vec![start(flow), log(flow, 0)]).await.unwrap();
    let tables = "identity flow ended journal initiation outbox sent processed client late_confirm committer audit";
    let adding: Vec<String> = tables
        .split(' ')
        .map(|table| format!("ALTER TABLE maxhost.{table} ADD COLUMN of_the_future bigint NOT NULL DEFAULT 7"))
        .collect();
    database.sql(&format!(
        "BEGIN; CREATE TABLE maxhost.of_the_future (id bigint); {}; \
         INSERT INTO maxhost.migration (version, description, success, checksum, execution_time) \
         VALUES ({}, 'of the future', true, '\\x00', 0); COMMIT",
        adding.join("; "),
        SCHEMA_VERSION + 1
    ));
    one.commit(alice, vec![log(flow, 1), initiate(to(alice), one.next_initiation())]).await.unwrap();
    let alice = claim(&other, row, 2).await;
    other.commit(alice, vec![log(flow, 2)]).await.unwrap();
    assert_eq!(other.journal(flow).await.unwrap().unwrap().log.len(), 3);
    assert_eq!(other.initiations(row, 0, 10).await.unwrap().len(), 1);
    other.commit(alice, vec![end(flow)]).await.unwrap();
    assert!(!other.flow(flow).await.unwrap().is_some_and(|record| record.state.is_live()));
    assert_eq!(code(PostgresStore::open(database.options()).await), "store-incompatible");
    one.close().await;
    other.close().await;
}

#[tokio::test]
async fn many_may_migrate_at_once_and_half_a_migration_is_none() {
    let database = Database::new().await;
    let mut hosts = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let options = database.options();
        hosts.spawn(async move { migrate(&options).await });
    }
    while let Some(host) = hosts.join_next().await {
        assert_eq!(host.unwrap().unwrap().1, SCHEMA_VERSION);
    }
    assert_eq!(migrate(&database.options()).await.unwrap(), (SCHEMA_VERSION, SCHEMA_VERSION));
    // A migration that is cut off is rolled back with everything that it made.
    let database = Database::new().await;
    database.sql("CREATE SCHEMA maxhost; CREATE TABLE maxhost.processed (in_the_way int)");
    assert!(migrate(&database.options()).await.is_err());
    assert_eq!(database.sql("SELECT to_regclass('maxhost.identity') IS NULL"), "t");
    database.sql("DROP TABLE maxhost.processed");
    assert_eq!(migrate(&database.options()).await.unwrap().1, SCHEMA_VERSION);
}

#[tokio::test]
async fn who_is_not_let_in_is_told() {
    let server = server();
    let database = Database::new().await;
    let tcp = |url: &str, password| PostgresOptions::new(url, password).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let wrong = dir.path().join("password");
    std::fs::write(&wrong, "wrong\n").unwrap();
    let refused = PostgresStore::open(tcp(&server.tcp_url(&database.name), Some(&wrong))).await;
    assert!(!refused.as_ref().unwrap_err().to_string().contains("wrong\n"));
    assert_eq!(code(refused), "store-denied");
    let right = server.password_file();
    PostgresStore::open(tcp(&server.tcp_url(&database.name), Some(&right))).await.unwrap().close().await;
    assert_eq!(code(PostgresStore::open(tcp(&server.tcp_url("no_such"), Some(&right))).await), "store-denied");
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut away = tcp(&format!("postgres://max@{nobody}/x"), None);
    away.patience = SHORT;
    assert_eq!(code(PostgresStore::open(away).await), "store-unreachable");
}

/// The least rights, as docs/operating.md gives them.
#[tokio::test(flavor = "multi_thread")]
async fn a_role_with_the_least_rights_is_enough() {
    let (server, database) = (server(), Database::new().await);
    let role = format!("least_{}", database.name);
    let options = PostgresOptions::new(&server.url_of(&role, &database.name), None).unwrap();
    database.sql(&format!("CREATE ROLE {role} LOGIN"));
    let mut shared = options;
    shared.layout = Layout::Shared;
    assert_eq!(code(PostgresStore::open(shared.clone()).await), "store-denied");
    assert!(!examine(&shared, SHORT).await.unwrap().trouble.is_empty());

    migrate(&database.options()).await.unwrap();
    assert!(!examine(&shared, SHORT).await.is_ok_and(|found| found.trouble.is_empty()));
    database.sql(&format!(
        "GRANT USAGE ON SCHEMA maxhost TO {role}; \
         GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA maxhost TO {role}; \
         GRANT USAGE ON ALL SEQUENCES IN SCHEMA maxhost TO {role}"
    ));
    let found = examine(&shared, SHORT).await.unwrap();
    assert_eq!((found.trouble, found.version), (vec![], SCHEMA_VERSION));
    let store = PostgresStore::open(shared.clone()).await.unwrap();
    let identity = store.register_identities(&["Alice"]).await.unwrap()[0];
    let alice = claim(&store, identity, 1).await;
    let flow = store.next_flow_row();
    store.commit(alice, vec![start(flow), log(flow, 0)]).await.unwrap();
    store.commit(alice, vec![end_kept(flow, 0)]).await.unwrap();
    assert_eq!(store.purge(10).await.unwrap(), 1);
    store.close().await;
    assert_eq!(database.sql("SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'maxhost\\_i%'"), "0");
    // The layout of a database is for ever.
    assert_eq!(code(PostgresStore::open(database.options()).await), "store-denied");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_identity_has_a_schema_and_a_host_few_connections() {
    let database = Database::new().await;
    let store = PostgresStore::open(database.options()).await.unwrap();
    let names: Vec<String> = (0..120).map(|n| format!("Party {n:03}")).collect();
    let rows = store.register_identities(&names).await.unwrap();
    assert_eq!(store.register_identities(&names).await.unwrap(), rows);
    assert_eq!(database.sql("SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'maxhost\\_i%'"), "120");
    let author = claim(&store, rows[0], 1).await;
    let mut reads = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let store = store.clone();
        reads.spawn(async move { store.identities().await.unwrap().len() });
    }
    store.commit(author, vec![]).await.unwrap();
    while let Some(read) = reads.join_next().await {
        assert_eq!(read.unwrap(), 120);
    }
    let sql = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = '{}' AND application_name = 'maxhost'",
        database.name
    );
    let connections: u32 = database.sql(&sql).parse().unwrap();
    assert!(connections <= 8, "{connections} connections");
    store.close().await;
    assert_eq!(database.sql("SELECT count(*) FROM maxhost.committer"), "0", "a run that ends leaves no row");
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_runs_that_are_gone_are_removed() {
    let database = Database::new().await;
    let store = PostgresStore::open(database.options()).await.unwrap();
    store.register_identities(&["Alice"]).await.unwrap();
    // Killed runs, of which one is still shown as the owner of an identity, and a run of a release that gives no sign of life.
    database.sql(
        "INSERT INTO maxhost.committer (run, seen) SELECT 1000 + n, 0 FROM generate_series(1, 5) n; \
         INSERT INTO maxhost.committer (run) VALUES (2000); UPDATE maxhost.identity SET owner = 1005",
    );
    let runs = || database.sql("SELECT string_agg(run::text, ' ' ORDER BY run) FROM maxhost.committer");
    let own = store.run().0;
    store.purge(1000).await.unwrap();
    assert_eq!(runs(), format!("{own} 1001 1002 1003 1004 1005 2000"), "nobody has been silent for long");
    // Hosts have run for a week.
    database.sql("UPDATE maxhost.database SET lived = lived + 7::int8 * 24 * 60 * 60 * 1000");
    store.purge(3).await.unwrap();
    assert_eq!(runs(), format!("{own} 1004 1005 2000"), "no more at once than it may be");
    store.purge(1000).await.unwrap();
    assert_eq!(runs(), format!("{own} 1005 2000"));
    let alice = claim(&store, store.identities().await.unwrap()[0].row, 1).await;
    store.commit(alice, vec![]).await.unwrap();
    store.purge(1000).await.unwrap();
    assert_eq!(runs(), format!("{own} 2000"), "the run that owned it has lost it");
    store.close().await;
}

/// Hazard 16: numbers that were given out before a database was put back are not given out again.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_was_put_back_gives_out_new_numbers() {
    let database = Database::new().await;
    let store = PostgresStore::open(database.options()).await.unwrap();
    let (flow, initiation) = (store.next_flow_row(), store.next_initiation());
    let before = store.lineage();
    assert!(before.database > 0 && before.incarnation == 0 && before.timeline == 1, "{before:?}");
    store.close().await;
    // As a copy from before the first block was taken.
    database.sql("UPDATE maxhost.number SET next = 1 WHERE kind <> 'run'");
    assert_eq!(begin_incarnation(&database.options()).await.unwrap(), 1);
    let store = PostgresStore::open(database.options()).await.unwrap();
    let after = store.lineage();
    assert_eq!((after.database, after.incarnation), (before.database, 1));
    assert_eq!((after.behind(&before), before.behind(&after)), (None, Some("incarnation")));
    let identity = store.register_identities(&["Alice"]).await.unwrap()[0];
    let alice = claim(&store, identity, 1).await;
    let next = store.next_flow_row();
    assert!(next.0 >> 36 == 1 && next > flow && store.next_initiation() > initiation, "{next:?}");
    store.commit(alice, vec![start(next)]).await.unwrap();
    assert_eq!(store.flow(next).await.unwrap().unwrap().id.row(), next);
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn code_that_hosts_share_stays_while_somebody_uses_it() {
    let database = Database::new().await;
    let hosts = [
        PostgresStore::open(database.options()).await.unwrap(),
        PostgresStore::open(database.options()).await.unwrap(),
    ];
    let [one, two] = [0, 1].map(|host: usize| hosts[host].components().unwrap());
    assert_eq!(hosts[0].lineage(), hosts[1].lineage());
    let hash = |number: u8| [number; 32];
    assert_eq!(two.component(&hash(1)).await.unwrap(), None);
    // What two offer at once is there once.
    let (first, code, again) = (hash(1), "code 1".into(), "code 1".into());
    tokio::try_join!(one.put_component(&first, code), two.put_component(&first, again)).unwrap();
    for number in 2..=5 {
        one.put_component(&hash(number), format!("code {number}").into()).await.unwrap();
    }
    assert_eq!(two.component(&hash(1)).await.unwrap().as_deref(), Some(&b"code 1"[..]));
    assert_eq!(two.unused_components(0).await.unwrap(), Vec::<[u8; 32]>::new(), "all are of today");

    database
        .sql("UPDATE maxhost.component SET used_at = now() - interval '25 hours' - get_byte(hash, 0) * interval '1 s'");
    assert_eq!(one.unused_components(2).await.unwrap(), [hash(3), hash(4), hash(5)]);
    // Used again between the look and the removal.
    assert_eq!(two.use_components(&[hash(4), hash(9)]).await.unwrap(), [hash(4)].into());
    assert_eq!(one.remove_components(&[hash(3), hash(4), hash(5)]).await.unwrap(), 2);
    let left = two.use_components(&(0..=9).map(hash).collect::<Vec<_>>()).await.unwrap();
    assert_eq!(left, [hash(1), hash(2), hash(4)].into());
    for host in hosts {
        host.close().await;
    }
}
