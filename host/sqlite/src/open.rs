//! Opening the file the way a group committer needs it.

use std::path::Path;
use std::time::Duration;

use maxhost_group_commit::{Fault, FaultKind};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use crate::error::SqliteError;

/// How a connection is set up.
#[derive(Debug, Clone)]
pub struct Tuning {
    /// Bytes of a page; holds for a new file only.
    pub page_bytes: u32,
    /// Bytes of pages that the connection keeps in memory at most.
    pub cache_bytes: usize,
    /// Bytes the database may grow to; beyond it units fail with [`FaultKind::Full`]. `None`: the disk is the limit.
    pub max_bytes: Option<u64>,
    /// How long to wait for a lock that another connection holds.
    pub busy_timeout: Duration,
}

impl Default for Tuning {
    fn default() -> Tuning {
        Tuning { page_bytes: 8192, cache_bytes: 64 << 20, max_bytes: None, busy_timeout: Duration::from_secs(5) }
    }
}

/// Opens (or makes) the file for the one connection that writes: WAL, every commit synced, checkpoints left to
/// [`crate::run`].
///
/// # Errors
/// Whatever SQLite answers; [`FaultKind::ReadOnly`] also when it opened the file but may not write.
pub fn open_writer(path: &Path, tuning: &Tuning) -> Result<Connection, Fault> {
    let (conn, mode) = try_open_writer(path, tuning)?;
    match mode.as_deref() {
        None => Err(Fault::new(FaultKind::ReadOnly, "the database file may not be written")),
        Some(mode) if !mode.eq_ignore_ascii_case("wal") => {
            Err(Fault::new(FaultKind::Other, format!("the file system allows no write-ahead log (mode {mode})")))
        }
        Some(_) => Ok(conn),
    }
}

/// The connection and its journal mode; without one if the file may only be read.
fn try_open_writer(path: &Path, tuning: &Tuning) -> Result<(Connection, Option<String>), SqliteError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags)?;
    conn.busy_timeout(tuning.busy_timeout)?;
    if conn.is_readonly("main")? {
        return Ok((conn, None));
    }
    // The page size must be set before the first page is written, that is before the switch to WAL.
    conn.pragma_update(None, "page_size", tuning.page_bytes)?;
    let mode: String = conn.query_row("PRAGMA journal_mode=WAL", [], |row| row.get(0))?;
    conn.pragma_update(None, "synchronous", "FULL")?;
    conn.pragma_update(None, "wal_autocheckpoint", 0)?;
    common(&conn, tuning)?;
    if let Some(bytes) = tuning.max_bytes {
        let page: i64 = conn.query_row("PRAGMA page_size", [], |row| row.get(0))?;
        let pages = i64::try_from(bytes).unwrap_or(i64::MAX) / page.max(512);
        conn.query_row(&format!("PRAGMA max_page_count={pages}"), [], |row| row.get::<_, i64>(0))?;
    }
    Ok((conn, Some(mode)))
}

/// Opens an existing file for reading only.
///
/// # Errors
/// Whatever SQLite answers.
pub fn open_reader(path: &Path, tuning: &Tuning) -> Result<Connection, Fault> {
    Ok(try_open_reader(path, tuning)?)
}

fn try_open_reader(path: &Path, tuning: &Tuning) -> Result<Connection, SqliteError> {
    // Not opened read-only: a reader of a WAL file takes part in its shared memory. It may change no row.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags)?;
    conn.busy_timeout(tuning.busy_timeout)?;
    conn.pragma_update(None, "query_only", "ON")?;
    common(&conn, tuning)?;
    Ok(conn)
}

fn common(conn: &Connection, tuning: &Tuning) -> Result<(), SqliteError> {
    // Negative: the unit is KiB, not pages.
    let kib = -i64::try_from(tuning.cache_bytes / 1024).unwrap_or(i64::MAX);
    conn.pragma_update(None, "cache_size", kib)?;
    conn.pragma_update(None, "mmap_size", 0)?;
    conn.pragma_update(None, "temp_store", "MEMORY")?;
    conn.pragma_update(None, "foreign_keys", "OFF")?;
    // Statements are prepared once. Without this, one with a partial index or statistics is planned anew whenever what is
    // bound to it changes.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    Ok(())
}
