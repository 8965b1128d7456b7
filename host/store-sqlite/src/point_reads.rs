//! Reads that look up a few rows by their keys, done by whoever asks, where it asks.
//!
//! To hand a read to a thread of the pool and to get its answer takes several times as long as SQLite needs to find a row whose
//! pages the system has in memory, and a payment has some ten such reads. What takes longer belongs to the pool all the same: more
//! rows than a few, what is large, and everything for a while after a read was seen to wait for the disk. The pool has the last
//! word, too: what fails here is read there, and fails there.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use maxhost_sqlite::{Tuning, open_reader};
use rusqlite::Connection;

/// So many rows one read may look up.
pub(crate) const MOST_ROWS: usize = 16;
/// What one row may bring, bytes.
pub(crate) const MOST_BYTES: i64 = 64 << 10;
/// A read that takes longer is taken to have waited for the disk.
const LONG: Duration = Duration::from_millis(2);
/// So many reads then go to the pool.
const REST: u32 = 64;
/// Bytes of pages that a connection keeps.
const CACHE: usize = 512 << 10;

/// The connections of such reads.
pub(crate) struct PointReads {
    path: PathBuf,
    connections: Mutex<Connections>,
    /// So many reads are left to the pool.
    resting: AtomicU32,
}

struct Connections {
    idle: Vec<Connection>,
    /// There may be so many more.
    left: u32,
    closed: bool,
}

impl PointReads {
    /// At most so many at once on this file. None is opened yet.
    pub(crate) fn new(path: &Path, most: u32) -> PointReads {
        let connections = Mutex::new(Connections { idle: Vec::new(), left: most, closed: false });
        PointReads { path: path.to_owned(), connections, resting: AtomicU32::new(0) }
    }

    /// What a read finds; `None` if the pool is to read it.
    pub(crate) fn read<T>(&self, read: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Option<T> {
        let rest = |left: u32| left.checked_sub(1);
        if self.resting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, rest).is_ok() {
            return None;
        }
        let connection = self.take()?;
        let began = Instant::now();
        let found = read(&connection);
        if began.elapsed() > LONG {
            self.resting.store(REST, Ordering::Relaxed);
        }
        self.give_back(connection);
        found.ok()
    }

    /// Nothing is read here any more.
    pub(crate) fn close(&self) {
        let mut connections = self.connections();
        connections.closed = true;
        let idle = std::mem::take(&mut connections.idle);
        drop(connections);
        drop(idle);
    }

    fn connections(&self) -> MutexGuard<'_, Connections> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Option<Connection> {
        {
            let mut connections = self.connections();
            if connections.closed {
                return None;
            }
            if let Some(idle) = connections.idle.pop() {
                return Some(idle);
            }
            connections.left = connections.left.checked_sub(1)?;
        }
        // Nobody waits here for a lock: the pool does.
        let tuning = Tuning { cache_bytes: CACHE, busy_timeout: Duration::ZERO, ..Tuning::default() };
        let opened = open_reader(&self.path, &tuning).ok();
        if opened.is_none() {
            self.connections().left += 1;
            self.resting.store(REST, Ordering::Relaxed);
        }
        opened
    }

    fn give_back(&self, connection: Connection) {
        let mut connections = self.connections();
        if !connections.closed {
            connections.idle.push(connection);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn count(conn: &Connection) -> rusqlite::Result<i64> {
        conn.prepare_cached("SELECT count(*) FROM t")?.query_row([], |row| row.get(0))
    }

    fn file() -> (tempfile::TempDir, PathBuf, Connection) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        let writer = maxhost_sqlite::open_writer(&path, &Tuning::default()).unwrap();
        writer.execute_batch("CREATE TABLE t (x INTEGER); INSERT INTO t VALUES (1)").unwrap();
        (folder, path, writer)
    }

    #[test]
    fn what_was_committed_is_found_and_what_fails_is_left_to_the_pool() {
        let (_folder, path, writer) = file();
        let reads = PointReads::new(&path, 2);
        assert_eq!(reads.read(count), Some(1));
        writer.execute_batch("INSERT INTO t VALUES (2)").unwrap();
        assert_eq!(reads.read(count), Some(2));
        assert_eq!(reads.read(|conn| conn.execute("DELETE FROM t", [])), None, "nothing is written here");
        assert_eq!(reads.read(count), Some(2));
        reads.close();
        assert_eq!(reads.read(count), None);
    }

    #[test]
    fn there_are_only_so_many_at_once() {
        let (_folder, path, _writer) = file();
        let reads = PointReads::new(&path, 1);
        let inner = reads.read(|_| Ok(reads.read(count)));
        assert_eq!(inner, Some(None));
        assert_eq!(reads.read(count), Some(1));
    }

    #[test]
    fn after_a_long_read_the_pool_reads_for_a_while() {
        let (_folder, path, _writer) = file();
        let reads = PointReads::new(&path, 1);
        let long = reads.read(|conn| {
            let began = Instant::now();
            while began.elapsed() <= LONG * 2 {}
            count(conn)
        });
        assert_eq!(long, Some(1), "its answer counts");
        assert_eq!((0..REST).filter_map(|_| reads.read(count)).count(), 0);
        assert_eq!(reads.read(count), Some(1));
    }

    #[test]
    fn a_file_that_is_not_there_is_the_pool_s_trouble() {
        let folder = tempfile::tempdir().unwrap();
        let reads = PointReads::new(&folder.path().join("none.db"), 1);
        assert_eq!(reads.read(count), None);
        assert!(!folder.path().join("none.db").exists());
    }
}
