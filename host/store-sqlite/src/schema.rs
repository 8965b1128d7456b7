//! Opening the file and bringing its schema up to date.

use std::path::Path;
use std::sync::LazyLock;

use maxhost_group_commit::{Fault, FaultKind};
use maxhost_model::Lineage;
use maxhost_sqlite::{SqliteError, Tuning, open_writer};
use maxhost_store::StoreError;
use rusqlite::Connection;
use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{Connection as _, Error, SqlSafeStr as _};
use tokio::runtime::Handle;

use crate::reader::fault_of;

/// The newest version of the schema that this build knows: the number of its last migration.
pub const SCHEMA_VERSION: i64 = 15;

/// Number, description and text of each migration.
const FILES: &[(i64, &str, &str)] = &include!(concat!(env!("OUT_DIR"), "/migrations.rs"));

static MIGRATIONS: LazyLock<Migrator> = LazyLock::new(|| {
    let migration = |&(number, description, text): &(i64, &'static str, &'static str)| {
        Migration::new(number, description.into(), MigrationType::Simple, text.into_sql_str(), false)
    };
    Migrator::with_migrations(FILES.iter().map(migration).collect())
});

/// Where the migrations that were run are noted.
const MIGRATIONS_TABLE: &str = "_sqlx_migrations";

/// Marks a file as ours ("MaxH"), so that another program's database is not taken for an empty one.
const APPLICATION_ID: i64 = 0x4d61_7848;

/// Opens (or makes) the file, migrates it, and returns the connection that will write.
pub(crate) async fn prepare(path: &Path, tuning: &Tuning) -> Result<Connection, StoreError> {
    let (file, tuning, runtime) = (path.to_owned(), tuning.clone(), Handle::current());
    // On a thread that may block, which also keeps the migrator's future, bound to its connection, from travelling.
    tokio::task::spawn_blocking(move || {
        let of_file = |fault: Fault| StoreError::of_file(&file, fault);
        let conn = open_writer(&file, &tuning).map_err(of_file)?;
        claim(&conn).map_err(of_file)?;
        runtime.block_on(migrate(&file))?;
        check_marks(&conn, &file)?;
        Ok(conn)
    })
    .await
    .map_err(|error| StoreError::Io(Fault::new(FaultKind::Other, error)))?
}

/// Refuses a database that another program made.
fn claim(conn: &Connection) -> Result<(), Fault> {
    if !is_ours(conn)? {
        conn.pragma_update(None, "application_id", APPLICATION_ID).map_err(SqliteError::from)?;
    }
    Ok(())
}

/// False for a database that nothing is in yet; an error for one that another program made.
pub(crate) fn is_ours(conn: &Connection) -> Result<bool, Fault> {
    let id: i64 = conn.query_row("PRAGMA application_id", [], |row| row.get(0)).map_err(SqliteError::from)?;
    if id == APPLICATION_ID {
        return Ok(true);
    }
    let count = "SELECT count(*) FROM sqlite_schema";
    let tables: i64 = conn.query_row(count, [], |row| row.get(0)).map_err(SqliteError::from)?;
    if id != 0 || tables != 0 {
        return Err(Fault::new(FaultKind::NotADatabase, "it is the database of another program"));
    }
    Ok(false)
}

/// The version of the schema; 0 if no migration was run yet. Refuses what [`prepare`] refuses.
pub(crate) fn version(conn: &Connection, path: &Path) -> Result<i64, StoreError> {
    let of_file = |error: rusqlite::Error| StoreError::of_file(path, SqliteError::from(error).into());
    if !conn.table_exists(None, MIGRATIONS_TABLE).map_err(of_file)? {
        return Ok(0);
    }
    let sql = format!("SELECT version, checksum FROM {MIGRATIONS_TABLE} ORDER BY version");
    let mut statement = conn.prepare(&sql).map_err(of_file)?;
    let mut rows = statement.query([]).map_err(of_file)?;
    let mut version = 0;
    while let Some(row) = rows.next().map_err(of_file)? {
        let checksum: Vec<u8> = row.get(1).map_err(of_file)?;
        version = row.get(0).map_err(of_file)?;
        if !MIGRATIONS.iter().any(|known| known.version == version && *known.checksum == *checksum) {
            let supported = SCHEMA_VERSION;
            return Err(StoreError::Incompatible { path: path.to_owned(), found: version, supported });
        }
    }
    Ok(version)
}

/// Looks whether rows lie above the marks below which they must lie. Each mark is moved in the transaction that writes the
/// first row above it, so they disagree only if the file and its write-ahead log are of different moments.
pub(crate) fn check_marks(conn: &Connection, path: &Path) -> Result<(), StoreError> {
    let number = |sql: &str, key: &str| {
        conn.query_row(sql, [key], |row| row.get::<_, Option<i64>>(0))
            .map_err(|error| StoreError::of_file(path, SqliteError::from(error).into()))
    };
    for (key, table, newest) in [
        ("flow", "flow", "SELECT max(id) FROM flow WHERE ?1 IS NOT NULL"),
        ("flow", "ended", "SELECT max(id) FROM ended WHERE ?1 IS NOT NULL"),
        ("flow", "journal", "SELECT max(flow) FROM journal WHERE ?1 IS NOT NULL"),
        ("initiation", "initiation", "SELECT max(id) FROM initiation WHERE ?1 IS NOT NULL"),
        ("outbox", "outbox", "SELECT max(id) FROM outbox WHERE ?1 IS NOT NULL"),
    ] {
        let mark = number("SELECT max(value) FROM meta WHERE key = ?1", key)?.unwrap_or(0);
        if let Some(found) = number(newest, key)?.filter(|found| *found >= mark) {
            return Err(StoreError::Mixed { path: path.to_owned(), table, found, mark });
        }
    }
    Ok(())
}

/// Which database it is. A file cannot tell whether it was put back.
pub(crate) fn lineage(conn: &Connection, path: &Path) -> Result<Lineage, StoreError> {
    let database = conn
        .query_row("SELECT value FROM meta WHERE key = 'database'", [], |row| row.get(0))
        .map_err(|error| StoreError::of_file(path, SqliteError::from(error).into()))?;
    Ok(Lineage { database, incarnation: 0, timeline: 0 })
}

async fn migrate(path: &Path) -> Result<(), StoreError> {
    let of_file = |error: Error| StoreError::of_file(path, fault_of(error));
    let mut conn =
        SqliteConnection::connect_with(&SqliteConnectOptions::new().filename(path)).await.map_err(of_file)?;
    let migrated = MIGRATIONS.run(&mut conn).await;
    conn.close().await.map_err(of_file)?;
    migrated.map_err(|error| match error {
        MigrateError::VersionMissing(found) | MigrateError::VersionMismatch(found) => {
            StoreError::Incompatible { path: path.to_owned(), found, supported: SCHEMA_VERSION }
        }
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => of_file(error),
        other => StoreError::of_file(path, Fault::new(FaultKind::Other, other)),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn flows_of_an_older_file_are_kept_live_and_ended() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("host.db");
        let options = SqliteConnectOptions::new().filename(&path).create_if_missing(true);
        let mut conn = SqliteConnection::connect_with(&options).await.unwrap();
        MIGRATIONS.run_to(1, &mut conn).await.unwrap();
        conn.close().await.unwrap();
        let conn = Connection::open(&path).unwrap();
        conn.execute_batch(
            "INSERT INTO flow (id, identity, state, attempts, started, tag, name, reason, start_body) \
             VALUES (1, 7, 2, 3, 10, x'01', 'a/b', 'why', x'aa'); \
             INSERT INTO flow (id, identity, state, started, finished, expires, tag, name, user, client_id, start_body, \
             end_body) VALUES (2, 7, 4, 11, 12, 13, x'02', 'a/b', 'me', 'mine', x'bb', x'cc');",
        )
        .unwrap();
        migrate(&path).await.unwrap();
        let text = |sql: &str| conn.query_row(sql, [], |row| row.get::<_, String>(0)).unwrap();
        let live = "SELECT group_concat(concat_ws(' ', id, identity, state, attempts, started, hex(tag), name, reason, \
                    hex(start_body))) FROM flow";
        assert_eq!(text(live), "1 7 2 3 10 01 a/b why AA");
        let ended = "SELECT group_concat(concat_ws(' ', id, identity, state, attempts, started, finished, expires, \
                     hex(tag), name, user, client_id, hex(start_body), hex(end_body))) FROM ended";
        assert_eq!(text(ended), "2 7 4 0 11 12 13 02 a/b me mine BB CC");
        assert_eq!(text("PRAGMA integrity_check"), "ok");
    }

    #[tokio::test]
    async fn requests_that_an_older_version_has_logged_are_kept_without_an_answer() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("host.db");
        let options = SqliteConnectOptions::new().filename(&path).create_if_missing(true);
        let mut conn = SqliteConnection::connect_with(&options).await.unwrap();
        MIGRATIONS.run_to(13, &mut conn).await.unwrap();
        conn.close().await.unwrap();
        let conn = Connection::open(&path).unwrap();
        conn.execute_batch(
            "INSERT INTO notary_request (identity, id, caller, states, batch, at) VALUES (7, x'aa', 'O=Alice', 2, 3, 9)",
        )
        .unwrap();
        migrate(&path).await.unwrap();
        let sql = "SELECT group_concat(concat_ws(' ', number, identity, hex(id), caller, states, batch, at, \
                   answered IS NULL, conflicting IS NULL, conflicts IS NULL)) \
                   FROM notary_request INDEXED BY notary_request_id WHERE identity = 7 AND id = x'aa' AND answered IS NOT 0";
        let found: String = conn.query_row(sql, [], |row| row.get(0)).unwrap();
        assert_eq!(found, "1 7 AA O=Alice 2 3 9 1 1 1");
    }

    #[test]
    fn the_version_is_that_of_the_last_migration() {
        assert_eq!(MIGRATIONS.iter().map(|migration| migration.version).max(), Some(SCHEMA_VERSION));
    }

    #[test]
    fn migrations_have_the_names_and_checksums_that_databases_have_noted() {
        let first = MIGRATIONS.iter().next().unwrap();
        assert_eq!((first.version, &*first.description, first.no_tx), (1, "journal", false));
        assert_eq!(first.checksum[..8], [0x0d, 0xf6, 0xaa, 0x10, 0x9b, 0x41, 0x72, 0xbb]);
        let ninth = MIGRATIONS.iter().find(|migration| migration.version == 9).unwrap();
        assert_eq!(&*ninth.description, "network parameters");
    }
}
