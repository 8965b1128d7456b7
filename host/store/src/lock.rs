//! One host a data folder: a lock file that the operating system lets go of when its holder ends, however it ends.

use std::fmt;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use maxhost_group_commit::{Fault, FaultKind};

use crate::error::StoreError;

const FILE: &str = "host.lock";
/// A command that only asks who holds the lock has it for a moment itself.
const PATIENCE: Duration = Duration::from_millis(300);
/// The file is one short line or two; more is not read.
const MAX_BYTES: u64 = 4096;

/// Who holds a data folder, as far as it wrote it down.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Holder {
    /// Process number.
    pub pid: Option<u32>,
    /// Where it listens.
    pub endpoint: Option<String>,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.pid, &self.endpoint) {
            (Some(pid), Some(endpoint)) => write!(f, "process {pid}, which listens on {endpoint}"),
            (Some(pid), None) => write!(f, "process {pid}"),
            _ => f.write_str("another process"),
        }
    }
}

/// The right to use a data folder; given back when dropped or when the process ends.
#[derive(Debug)]
pub struct DataLock {
    file: File,
    path: PathBuf,
    endpoint: Option<String>,
}

impl DataLock {
    /// Takes the folder.
    ///
    /// Waits up to 300 ms, so that a command that only looks does not get in the way of a host that starts.
    ///
    /// # Errors
    /// [`StoreError::Locked`] with the holder; [`StoreError::ReadOnly`] if the file cannot be written.
    pub fn acquire(dir: &Path) -> Result<DataLock, StoreError> {
        let path = dir.join(FILE);
        let unwritable = |error: std::io::Error| unwritable(&path, error);
        // Not truncated on opening: until the lock is ours, the text in it is another's.
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(unwritable)?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(10));
                }
                Err(TryLockError::WouldBlock) => {
                    return Err(StoreError::Locked { path: dir.to_owned(), holder: read_holder(&file) });
                }
                Err(TryLockError::Error(error)) => return Err(unwritable(error)),
            }
        }
        let mut lock = DataLock { file, path, endpoint: None };
        lock.write()?;
        Ok(lock)
    }

    /// Writes down where the holder listens, for commands that look for it.
    ///
    /// # Errors
    /// [`StoreError::ReadOnly`] or [`StoreError::Io`] if the file cannot be written.
    pub fn set_endpoint(&mut self, endpoint: &str) -> Result<(), StoreError> {
        self.endpoint = Some(endpoint.to_owned());
        self.write()
    }

    /// Who holds the folder now; `None` if nobody does.
    ///
    /// # Errors
    /// The lock is there and cannot be read, so it cannot be told: it is another user's, for instance.
    pub fn holder(dir: &Path) -> std::io::Result<Option<Holder>> {
        let file = match File::open(dir.join(FILE)) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        Ok(match file.try_lock_shared() {
            Ok(()) => None,
            Err(_) => Some(read_holder(&file)),
        })
    }

    /// Whether the lock is still what keeps others out: whoever removes or replaces its file lets another host in. A file
    /// that is gone is made and locked again, if nobody else has done so meanwhile; true if that was done.
    ///
    /// # Errors
    /// [`StoreError::Locked`] if another host has the folder now; what [`DataLock::acquire`] fails of if it cannot be told.
    pub fn keep(&mut self) -> Result<bool, StoreError> {
        use std::os::unix::fs::MetadataExt;
        let ours = self.file.metadata().map_err(|error| unwritable(&self.path, error))?;
        let is_ours = |found: &std::fs::Metadata| (found.dev(), found.ino()) == (ours.dev(), ours.ino());
        match std::fs::metadata(&self.path) {
            Ok(found) if is_ours(&found) => return Ok(false),
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(unwritable(&self.path, error)),
        }
        let dir = self.path.parent().unwrap_or(Path::new(".")).to_owned();
        let mut taken = DataLock::acquire(&dir)?;
        taken.endpoint.clone_from(&self.endpoint);
        taken.write()?;
        *self = taken;
        Ok(true)
    }

    fn write(&mut self) -> Result<(), StoreError> {
        let mut text = format!("{}\n", std::process::id());
        if let Some(endpoint) = &self.endpoint {
            text.push_str(endpoint);
            text.push('\n');
        }
        let written = (|| {
            self.file.set_len(0)?;
            self.file.seek(SeekFrom::Start(0))?;
            self.file.write_all(text.as_bytes())?;
            self.file.flush()
        })();
        written.map_err(|error| unwritable(&self.path, error))
    }
}

fn unwritable(path: &Path, error: std::io::Error) -> StoreError {
    if error.kind() == std::io::ErrorKind::StorageFull {
        return StoreError::Full(Fault::new(FaultKind::Full, error));
    }
    StoreError::ReadOnly { path: path.to_owned(), source: Fault::new(FaultKind::ReadOnly, error) }
}

fn read_holder(mut file: &File) -> Holder {
    let mut text = String::new();
    if file.seek(SeekFrom::Start(0)).and_then(|_| file.take(MAX_BYTES).read_to_string(&mut text)).is_err() {
        return Holder::default();
    }
    let mut lines = text.lines();
    Holder { pid: lines.next().and_then(|line| line.parse().ok()), endpoint: lines.next().map(str::to_owned) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    #[test]
    fn the_second_is_refused_and_told_who_holds_it() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(DataLock::holder(dir.path()).unwrap(), None);
        let mut first = DataLock::acquire(dir.path()).unwrap();
        first.set_endpoint("http://127.0.0.1:7777").unwrap();
        let expected = Holder { pid: Some(std::process::id()), endpoint: Some("http://127.0.0.1:7777".to_owned()) };
        match DataLock::acquire(dir.path()) {
            Err(StoreError::Locked { holder, .. }) => assert_eq!(holder, expected),
            other => panic!("{other:?}"),
        }
        assert_eq!(DataLock::holder(dir.path()).unwrap(), Some(expected));
        drop(first);
        assert_eq!(DataLock::holder(dir.path()).unwrap(), None);
        DataLock::acquire(dir.path()).unwrap();
    }

    #[test]
    fn a_folder_that_is_not_there_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(DataLock::acquire(&dir.path().join("gone")), Err(StoreError::ReadOnly { .. })));
    }
}
