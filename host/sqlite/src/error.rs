//! What SQLite answers, as the faults that group commit knows.

use maxhost_group_commit::{Failure, Fault, FaultKind};

/// A failure of SQLite. It becomes a [`Fault`], which says what one does about it, on its way out of this crate.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct SqliteError(#[from] rusqlite::Error);

impl SqliteError {
    /// What one does about it.
    #[must_use]
    pub fn kind(&self) -> FaultKind {
        self.0.sqlite_error().map_or(FaultKind::Other, |error| kind_of_code(error.extended_code))
    }
}

impl From<SqliteError> for Fault {
    fn from(error: SqliteError) -> Fault {
        Fault::new(error.kind(), error.0)
    }
}

impl<E: From<Fault>> From<SqliteError> for Failure<E> {
    fn from(error: SqliteError) -> Failure<E> {
        Fault::from(error).into()
    }
}

/// The kind of a result code of SQLite, plain or extended (<https://sqlite.org/rescode.html>).
#[must_use]
pub fn kind_of_code(code: i32) -> FaultKind {
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
            assert_eq!(kind_of_code(code), kind, "{code}");
        }
    }
}
