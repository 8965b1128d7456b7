//! Room for the write-ahead log, made before it is needed.
//!
//! A commit that makes the log file longer has the file system allocate blocks and note the new length in its own
//! journal before the sync is done; one that overwrites does not, and takes about half the time. SQLite overwrites the
//! log once it was worked off, but begins with an empty file. So zeros are put behind what is used: SQLite takes a log
//! to end at the first frame without the right salt and checksum (<https://sqlite.org/walformat.html>), so they mean
//! nothing to it, neither when it writes nor when it recovers.
//!
//! Invariant: only the thread that commits does this, between two transactions, so the file's end stands still meanwhile.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Bytes that are added at once: short enough to be done between two commits.
const STEP: usize = 512 << 10;
/// With less room than this the log is lengthened even under load: one step costs less than the commits that would do
/// it bit by bit.
const LEAST: u64 = 128 << 10;

/// The room behind the log.
#[derive(Debug)]
pub(crate) struct Reserve {
    path: PathBuf,
    file: Option<File>,
    /// Length of the file.
    have: u64,
    /// Bytes to be ahead of the log when there is time for it.
    ahead: u64,
    /// Longer than this the file is not made.
    longest: u64,
    /// Bytes of the log that are in use.
    used: u64,
    given_up: bool,
}

impl Reserve {
    /// For the log of this database; `None` for a database without a file.
    pub(crate) fn new(database: Option<&str>, ahead: u64, longest: u64) -> Option<Reserve> {
        let path = database.filter(|path| !path.is_empty() && ahead > 0)?;
        let path = Path::new(&format!("{path}-wal")).to_path_buf();
        Some(Reserve { path, file: None, have: 0, ahead, longest, used: 0, given_up: false })
    }

    /// The log is this long now. True if there is so little room left that it should be made at once.
    pub(crate) fn use_up_to(&mut self, bytes: u64) -> bool {
        self.used = bytes;
        self.have = self.have.max(bytes);
        self.is_short_of(LEAST)
    }

    /// Whether an idle moment should be used.
    pub(crate) fn is_due(&self) -> bool {
        self.is_short_of(self.ahead)
    }

    fn is_short_of(&self, room: u64) -> bool {
        !self.given_up && self.have < self.used.saturating_add(room).min(self.longest)
    }

    /// Makes one step of room. Whatever goes wrong is no harm: commits make the log longer themselves then.
    pub(crate) fn extend(&mut self) {
        if let Err(error) = self.try_extend() {
            tracing::debug!(%error, "no room is made for the write-ahead log in advance");
            self.give_up();
        }
    }

    /// No more of it: the disk has better uses for what is left.
    pub(crate) fn give_up(&mut self) {
        self.given_up = true;
        self.file = None;
    }

    fn try_extend(&mut self) -> io::Result<()> {
        let file = match &self.file {
            Some(file) => file,
            None => self.file.insert(OpenOptions::new().write(true).open(&self.path)?),
        };
        let end = file.metadata()?.len();
        if end < self.used.saturating_add(self.ahead) {
            let zeros = vec![0; STEP];
            file.write_all_at(&zeros, end)?;
            file.sync_data()?;
            self.have = end + STEP as u64;
        } else {
            // From an earlier life.
            self.have = end;
        }
        Ok(())
    }
}
