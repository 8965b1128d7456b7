//! The schema: which version a database has, and bringing it up to date.

use std::path::PathBuf;

use futures::future::BoxFuture;
use maxhost_group_commit::{Fault, FaultKind};
use maxhost_store::StoreError;
use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{Connection, SqlSafeStr as _};
use tokio::runtime::Handle;

use crate::error::{is_lost, of_server};
use crate::options::PostgresOptions;

/// The newest version of the schema that this build knows: the number of its last migration.
pub const SCHEMA_VERSION: i64 = 19;

/// The oldest server that is used: its `server_version_num`.
const OLDEST_SERVER: u32 = 150_000;

/// Number, description and text of each migration.
const FILES: &[(i64, &str, &str)] = &include!(concat!(env!("OUT_DIR"), "/migrations.rs"));

fn migrations() -> Migrator {
    let migration = |&(number, description, text): &(i64, &'static str, &'static str)| {
        Migration::new(number, description.into(), MigrationType::Simple, text.into_sql_str(), false)
    };
    let mut migrations = Migrator::with_migrations(FILES.iter().map(migration).collect());
    migrations.dangerous_set_table_name("maxhost.migration");
    migrations
}

/// The version of the schema; 0 if there is none yet.
///
/// # Errors
/// [`StoreError::Incompatible`] if a newer or another program made it, [`StoreError::Denied`], and what keeps it from
/// being read.
pub(crate) async fn version(conn: &mut PgConnection, place: &str) -> Result<i64, StoreError> {
    let of = |error| of_server(place, error);
    if conn.server_version_num().is_some_and(|version| version < OLDEST_SERVER) {
        let source = Fault::new(FaultKind::CannotOpen, "the server is older than PostgreSQL 15");
        return Err(StoreError::Denied { place: place.to_owned(), source });
    }
    let there: bool = sqlx::query_scalar("SELECT to_regclass('maxhost.migration') IS NOT NULL")
        .fetch_one(&mut *conn)
        .await
        .map_err(of)?;
    if !there {
        return Ok(0);
    }
    let found: Vec<(i64, Vec<u8>, bool)> =
        sqlx::query_as("SELECT version, checksum, success FROM maxhost.migration ORDER BY version")
            .fetch_all(conn)
            .await
            .map_err(of)?;
    let migrations = migrations();
    let mut version = 0;
    for (number, checksum, success) in found {
        let known = migrations.iter().any(|known| known.version == number && *known.checksum == *checksum);
        if !known {
            let (path, supported) = (PathBuf::from(place), SCHEMA_VERSION);
            return Err(StoreError::Incompatible { path, found: number, supported });
        }
        if success {
            version = number;
        }
    }
    Ok(version)
}

/// Brings the schema up to date, one migration after the other, each whole or not at all. Hosts that do so at the same
/// time wait for each other. A role that may not make tables needs a schema that is up to date.
///
/// # Errors
/// As [`version`].
pub(crate) async fn migrate(options: &PostgresOptions, conn: &mut PgConnection) -> Result<(), StoreError> {
    let place = options.place();
    if version(conn, &place).await? == SCHEMA_VERSION {
        return Ok(());
    }
    // Waiting for another host to migrate may take long.
    let (options, runtime) = (options.reading().options([("lock_timeout", "0")]), Handle::current());
    // On a thread that may block: the migrator's future is bound to its connection and cannot travel.
    tokio::task::spawn_blocking(move || runtime.block_on(run_migrations(&options, &place)))
        .await
        .map_err(|error| StoreError::Io(Fault::new(FaultKind::Other, error)))?
}

async fn run_migrations(options: &PgConnectOptions, place: &str) -> Result<(), StoreError> {
    let of = |error| of_server(place, error);
    let mut conn = PgConnection::connect_with(options).await.map_err(of)?;
    let there: bool =
        sqlx::query_scalar("SELECT to_regnamespace('maxhost') IS NOT NULL").fetch_one(&mut conn).await.map_err(of)?;
    if !there {
        // Two hosts may come to this at once, and the second finds what the first has made.
        let made = sqlx::query("CREATE SCHEMA IF NOT EXISTS maxhost").execute(&mut conn).await;
        if let Err(error) = made
            && !matches!(&error, sqlx::Error::Database(error) if error.is_unique_violation())
        {
            return Err(of(error));
        }
    }
    let migrated = migrations().run(&mut conn).await;
    conn.close().await.map_err(of)?;
    migrated.map_err(|error| match error {
        MigrateError::VersionMissing(found) | MigrateError::VersionMismatch(found) => {
            StoreError::Incompatible { path: PathBuf::from(place), found, supported: SCHEMA_VERSION }
        }
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => of(error),
        other => StoreError::Io(Fault::new(FaultKind::Other, other)),
    })
}

/// A connection for a start; a server that is starting or away is waited for.
pub(crate) fn connect(options: &PostgresOptions) -> BoxFuture<'_, Result<PgConnection, StoreError>> {
    // In a box, so that it is compiled here, once, and not wherever it is awaited.
    Box::pin(connect_unboxed(options))
}

async fn connect_unboxed(options: &PostgresOptions) -> Result<PgConnection, StoreError> {
    let (began, reading) = (std::time::Instant::now(), options.reading());
    loop {
        let attempt = PgConnection::connect_with(&reading);
        let error = match tokio::time::timeout(crate::session::CONNECT, attempt).await {
            Ok(Ok(conn)) => return Ok(conn),
            Ok(Err(error)) => error,
            Err(_) => crate::persist::no_answer(),
        };
        if !is_lost(&error) || began.elapsed() >= options.patience {
            return Err(of_server(&options.place(), error));
        }
        tokio::time::sleep(crate::persist::PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_version_is_that_of_the_last_migration() {
        assert_eq!(migrations().iter().map(|migration| migration.version).max(), Some(SCHEMA_VERSION));
    }

    #[test]
    fn migrations_have_the_names_and_checksums_that_databases_have_noted() {
        let migrations = migrations();
        let first = migrations.iter().next().unwrap();
        assert_eq!((first.version, &*first.description, first.no_tx), (1, "journal", false));
        assert_eq!(first.checksum[..8], [0x71, 0xc4, 0xc6, 0xb2, 0xec, 0x90, 0x9b, 0xcf]);
        let ninth = migrations.iter().find(|migration| migration.version == 9).unwrap();
        assert_eq!(&*ninth.description, "network parameters");
    }
}
