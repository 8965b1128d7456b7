//! What the tests of this database share: one server a test program, a database a test.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use maxhost_postgres_server::Server;
use maxhost_store::Store;
pub use maxhost_store::contract::*;
use maxhost_store_postgres::{PostgresOptions, PostgresStore};

/// The server of this test program. Nobody may stop it.
pub fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| Server::start("").unwrap())
}

/// A new database on a server.
pub fn database(server: &Server) -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let name = format!("test_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
    server.create_database(&name).unwrap();
    name
}

/// A database of a test.
pub struct Database {
    pub name: String,
}

impl Database {
    pub fn options(&self) -> PostgresOptions {
        PostgresOptions::new(&server().url(&self.name), None).unwrap()
    }

    /// How a suite wants it opened.
    pub fn options_for(&self, settings: &Settings) -> PostgresOptions {
        let Settings { bounds, quotas, processed_retention, audit } = settings.clone();
        let mut options = self.options();
        (options.bounds, options.quotas) = (bounds, quotas);
        (options.processed_retention, options.audit) = (processed_retention, audit);
        options
    }

    pub fn sql(&self, sql: &str) -> String {
        server().sql(&self.name, sql).unwrap()
    }
}

#[async_trait]
impl Databases for Database {
    async fn new() -> Database {
        Database { name: tokio::task::spawn_blocking(|| database(server())).await.unwrap() }
    }

    async fn open(&self, settings: &Settings) -> Store {
        PostgresStore::open(self.options_for(settings)).await.unwrap()
    }
}
