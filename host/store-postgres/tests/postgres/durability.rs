//! Servers that could lose what they have confirmed are refused, unless that is allowed.

use std::time::Duration;

use crate::common::*;
use maxhost_model::Problem;
use maxhost_postgres_server::Server;
use maxhost_store::StoreError;
use maxhost_store_postgres::{PostgresOptions, PostgresStore, examine};

const DEADLINE: Duration = Duration::from_secs(60);

/// Opens a database and closes it again.
async fn try_open(options: &PostgresOptions) -> Result<(), StoreError> {
    PostgresStore::open(options.clone()).await?.close().await;
    Ok(())
}

fn allowing_loss(options: &PostgresOptions) -> PostgresOptions {
    let mut options = options.clone();
    options.allow_loss = true;
    options
}

/// What a server is refused for.
async fn refusal(options: &PostgresOptions) -> String {
    let problem = Problem::from(try_open(options).await.expect_err("it is refused"));
    assert_eq!(problem.code.as_str(), "store-may-lose", "{problem}");
    assert!(problem.remedy.contains("store.allow_loss"), "{}", problem.remedy);
    problem.message
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(DEADLINE, waiting).await.unwrap_or_else(|_| panic!("not in time: {what}"));
}

fn count_attached(server: &Server) -> String {
    server.sql("postgres", "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'").unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_that_no_commit_waits_for_is_noticed() {
    let server = tokio::task::spawn_blocking(|| Server::start("").unwrap()).await.unwrap();
    server.sql("postgres", "CREATE ROLE plain LOGIN").unwrap();
    let name = database(&server);
    server.sql(&name, &format!("GRANT ALL ON DATABASE {name} TO plain")).unwrap();
    let options = PostgresOptions::new(&server.url(&name), None).unwrap();
    // A role that may not see whom the server replicates to sees that it does.
    let plain = PostgresOptions::new(&server.url_of("plain", &name), None).unwrap();
    let allowed = allowing_loss(&options);
    try_open(&options).await.expect("a single server is good");
    assert!(examine(&options, DEADLINE).await.unwrap().trouble.is_empty());

    let (server, standby) = tokio::task::spawn_blocking(move || {
        let standby = server.standby().unwrap();
        (server, standby)
    })
    .await
    .unwrap();
    until("the standby is attached", async || count_attached(&server) == "1").await;
    for options in [&options, &plain] {
        let refused = refusal(options).await;
        assert!(refused.contains("synchronous_standby_names is empty"), "{refused}");
    }
    let trouble = examine(&options, DEADLINE).await.unwrap().trouble;
    assert!(trouble.len() == 1 && trouble[0].contains("1 standby follows"), "{trouble:?}");
    try_open(&allowed).await.expect("what is allowed is used");

    // Commits wait for it now.
    server.sql("postgres", "ALTER SYSTEM SET synchronous_standby_names = 'standby'").unwrap();
    server.sql("postgres", "SELECT pg_reload_conf()").unwrap();
    until("the server has read it", async || try_open(&options).await.is_ok()).await;
    assert!(examine(&options, DEADLINE).await.unwrap().trouble.is_empty());
    drop(standby);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_does_not_write_to_its_disk_is_refused() {
    for setting in ["fsync = off", "full_page_writes = off"] {
        let server = tokio::task::spawn_blocking(move || Server::start(setting).unwrap()).await.unwrap();
        let options = PostgresOptions::new(&server.url(&database(&server)), None).unwrap();
        assert!(refusal(&options).await.contains("a power cut"), "{setting}");
        assert_eq!(examine(&options, DEADLINE).await.unwrap().trouble.len(), 1, "{setting}");
        try_open(&allowing_loss(&options)).await.expect("what is allowed is used");
    }
}
