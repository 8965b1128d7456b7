//! What a database can answer, sorted by what one does about it.

use std::error::Error;
use std::sync::Arc;

/// The kind of a failure.
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
    /// The database has lost what it had committed: it was restored, or a standby that was behind took over.
    WentBack,
    /// Anything else: a defect of the program.
    Other,
}

impl FaultKind {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_is_told_from_what_stays() {
        assert!(FaultKind::Full.is_retriable() && FaultKind::Busy.is_retriable());
        assert!(!FaultKind::Corrupt.is_retriable() && !FaultKind::Other.is_retriable());
    }
}
