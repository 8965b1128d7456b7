//! A look at a database file from outside, whether a host uses it at the moment or not. The file is not changed, and
//! nobody waits for the one who looks.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use maxhost_group_commit::{Fault, FaultKind};
use maxhost_sqlite::SqliteError;
use maxhost_store::StoreError;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use crate::schema;

/// Steps of SQLite's machine between two looks at the clock: some milliseconds at the most.
const STEPS: i32 = 10_000;
/// KiB of pages kept in memory.
const CACHE: i64 = 8 * 1024;
/// How long to wait for a lock. In WAL mode readers wait only while somebody recovers the log.
const BUSY: Duration = Duration::from_secs(1);

/// What a look at a database showed that has nothing wrong with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Examination {
    /// Version of its schema; a host migrates an older one when it starts.
    pub version: i64,
    /// Flows that have not ended.
    pub live: u64,
    /// Those of them that are in hospital.
    pub hospital: u64,
    /// False if the structure of the file could not be checked to its end in the time that was given.
    pub complete: bool,
}

/// Looks whether a file is a database of ours, of a version that we know, and sound; the last as far as `time` allows.
/// `None` if there is no such file or nothing is in it: a host makes it.
///
/// # Errors
/// [`StoreError::Damaged`], [`StoreError::Incompatible`]; [`StoreError::ReadOnly`] if it may not be read, and the retriable
/// ones if it cannot be read now; [`StoreError::Mixed`] if it was put together from two copies.
pub fn examine(path: &Path, time: Duration) -> Result<Option<Examination>, StoreError> {
    if std::fs::metadata(path).map_or(true, |file| file.len() == 0) {
        return match path.try_exists() {
            Ok(_) => Ok(None),
            Err(error) => Err(StoreError::of_file(path, Fault::new(FaultKind::CannotOpen, error))),
        };
    }
    let log = log_of(path);
    let quiet = !log.exists();
    match look(path, quiet, time) {
        // A host that started meanwhile writes into the file, which a look at a quiet file does not expect.
        Err(StoreError::Damaged { .. }) if quiet && log.exists() => look(path, false, time),
        found => found,
    }
    .map(Some)
}

/// The write-ahead log of a database: it is there while somebody has the database open, and after a crash.
fn log_of(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push("-wal");
    name.into()
}

fn look(path: &Path, quiet: bool, time: Duration) -> Result<Examination, StoreError> {
    let of_file = |fault: Fault| StoreError::of_file(path, fault);
    let conn = open(path, quiet).map_err(|error| of_file(error.into()))?;
    if !schema::is_ours(&conn).map_err(of_file)? {
        return Ok(Examination { version: 0, live: 0, hospital: 0, complete: true });
    }
    let version = schema::version(&conn, path)?;
    let complete = check(&conn, Instant::now() + time).map_err(of_file)?;
    let (live, hospital) = match version {
        0 => (0, 0),
        _ => conn
            .query_row("SELECT count(*), coalesce(sum(state = 2), 0) FROM flow WHERE state <= 2", [], |row| {
                Ok((row.get::<_, i64>(0)?.unsigned_abs(), row.get::<_, i64>(1)?.unsigned_abs()))
            })
            .map_err(|error| of_file(SqliteError::from(error).into()))?,
    };
    if version > 0 {
        schema::check_marks(&conn, path)?;
    }
    Ok(Examination { version, live, hospital, complete })
}

/// A file that nobody has open is read as it is, so that no log appears beside it. Otherwise the reader takes part in
/// the log, and leaves it alone when it goes.
fn open(path: &Path, quiet: bool) -> Result<Connection, SqliteError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = match quiet {
        true => Connection::open_with_flags(immutable(path), flags | OpenFlags::SQLITE_OPEN_URI)?,
        false => Connection::open_with_flags(path, flags)?,
    };
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    conn.busy_timeout(BUSY)?;
    conn.pragma_update(None, "query_only", "ON")?;
    conn.pragma_update(None, "cache_size", -CACHE)?;
    Ok(conn)
}

/// The file as a URI (<https://sqlite.org/uri.html>) that promises that nobody writes it.
fn immutable(path: &Path) -> String {
    let mut uri = "file:".to_owned();
    for &byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'/' | b'.' | b'-' | b'_' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => uri.push(char::from(byte)),
            _ => uri.push_str(&format!("%{byte:02x}")),
        }
    }
    uri + "?immutable=1"
}

/// Checks the structure of the file. False if the time was over before the end; an error if something is wrong.
fn check(conn: &Connection, deadline: Instant) -> Result<bool, Fault> {
    let sqlite = |error: rusqlite::Error| Fault::from(SqliteError::from(error));
    conn.progress_handler(STEPS, Some(move || Instant::now() >= deadline)).map_err(sqlite)?;
    let found = conn.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0));
    conn.progress_handler(0, None::<fn() -> bool>).map_err(sqlite)?;
    match found {
        Ok(found) if found == "ok" => Ok(true),
        Ok(found) => Err(Fault::new(FaultKind::Corrupt, found)),
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted) => Ok(false),
        Err(error) => Err(sqlite(error)),
    }
}
