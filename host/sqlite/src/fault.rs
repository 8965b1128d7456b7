//! What SQLite can answer, sorted by what one does about it.

use std::error::Error;
use std::sync::Arc;

/// The kind of a failure, by SQLite's result code (<https://sqlite.org/rescode.html>).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// No space on the disk, or the database has reached its largest size.
    Full,
    /// Another connection holds the lock, or there was no memory: later it goes.
    Busy,
    /// Reading or writing failed.
    Io,
    /// The file or its folder may not be written.
    ReadOnly,
    /// The file cannot be opened or made.
    CannotOpen,
    /// The file's structure is broken.
    Corrupt,
    /// The file is something else.
    NotADatabase,
    /// A row contradicts what is there.
    Constraint,
    /// Anything else: a defect of the program.
    Other,
}

impl FaultKind {
    /// Of a result code, plain or extended.
    #[must_use]
    pub fn of_code(code: i32) -> FaultKind {
        // A shared-memory file that cannot grow is reported as an I/O error, but what lacks is space.
        const IOERR_SHMSIZE: i32 = 10 | (19 << 8);
        match (code, code & 0xff) {
            (IOERR_SHMSIZE, _) | (_, 13) => FaultKind::Full,
            (_, 5 | 6 | 7 | 9 | 15) => FaultKind::Busy,
            (_, 8) => FaultKind::ReadOnly,
            (_, 10) => FaultKind::Io,
            (_, 11) => FaultKind::Corrupt,
            (_, 14) => FaultKind::CannotOpen,
            (_, 19) => FaultKind::Constraint,
            (_, 26) => FaultKind::NotADatabase,
            _ => FaultKind::Other,
        }
    }

    /// Whether the same work may succeed later without anybody changing it.
    #[must_use]
    pub fn is_retriable(self) -> bool {
        matches!(self, FaultKind::Full | FaultKind::Busy | FaultKind::Io)
    }
}

/// A failure of the database, cheap to hand to every unit of a batch.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{source}")]
pub struct Fault {
    /// What to do about it.
    pub kind: FaultKind,
    /// What the library said.
    #[source]
    pub source: Arc<dyn Error + Send + Sync>,
}

impl Fault {
    /// Of this kind, caused by this.
    pub fn new(kind: FaultKind, source: impl Into<Box<dyn Error + Send + Sync>>) -> Fault {
        Fault { kind, source: Arc::from(source.into()) }
    }
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Fault {
        let kind = error.sqlite_error().map_or(FaultKind::Other, |e| FaultKind::of_code(e.extended_code));
        Fault { kind, source: Arc::new(error) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_sorted_by_what_one_does() {
        for (code, kind) in [
            (13, FaultKind::Full),
            (10 | (19 << 8), FaultKind::Full),
            (5, FaultKind::Busy),
            (10 | (4 << 8), FaultKind::Io),
            (1555, FaultKind::Constraint),
            (26, FaultKind::NotADatabase),
            (1, FaultKind::Other),
        ] {
            assert_eq!(FaultKind::of_code(code), kind, "{code}");
        }
        assert!(FaultKind::Full.is_retriable() && !FaultKind::Corrupt.is_retriable());
    }
}
