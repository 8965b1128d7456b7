//! What the tests of this database share.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use maxhost_store::Store;
pub use maxhost_store::contract::*;
use maxhost_store_sqlite::{SCHEMA_VERSION, SqliteOptions, SqliteStore};

/// A database in a folder of its own.
pub struct File {
    pub dir: tempfile::TempDir,
}

impl File {
    pub fn path(&self) -> PathBuf {
        file(self.dir.path())
    }

    pub fn connect(&self) -> rusqlite::Connection {
        rusqlite::Connection::open(self.path()).unwrap()
    }
}

#[async_trait]
impl Databases for File {
    async fn new() -> File {
        File { dir: tempfile::tempdir().unwrap() }
    }

    async fn open(&self, settings: &Settings) -> Store {
        let Settings { bounds, quotas, processed_retention, audit } = settings.clone();
        let options = SqliteOptions { bounds, quotas, processed_retention, audit, ..SqliteOptions::new(self.path()) };
        SqliteStore::open(options).await.unwrap()
    }
}

pub fn file(dir: &Path) -> PathBuf {
    dir.join("host.db")
}

pub async fn open(dir: &Path) -> Store {
    SqliteStore::open(SqliteOptions::new(file(dir))).await.unwrap()
}

/// Makes the file one of a later version of this program.
pub fn make_newer(path: &Path) {
    let conn = rusqlite::Connection::open(path).unwrap();
    conn.execute(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
         VALUES (?1, 'of the future', 1, x'00', 0)",
        [SCHEMA_VERSION + 1],
    )
    .unwrap();
}
