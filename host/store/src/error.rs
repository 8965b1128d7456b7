//! What can go wrong in the store.

use std::path::PathBuf;

use maxhost_model::{Code, FlowRow, IdentityRow, Problem};
use maxhost_sqlite::{Fault, FaultKind};

use crate::conflict::Conflict;
use crate::lock::Holder;

/// Every error of the store. [`StoreError::is_retriable`] tells those that pass from those that stay.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The identity belongs to a later epoch: this host may not write for it any more.
    #[error("identity {} is at epoch {current} and refuses a commit of epoch {epoch}", .identity.0)]
    Fenced {
        /// Whose.
        identity: IdentityRow,
        /// The epoch of the refused unit.
        epoch: i64,
        /// The epoch in the database.
        current: i64,
    },
    /// An earlier unit of the same attempt failed, or the attempt was given up.
    #[error("the attempt that this commit belongs to was given up")]
    Superseded,
    /// The unit contradicts what is there.
    #[error("the commit contradicts the database: {0}")]
    Conflict(#[from] Conflict),
    /// The client id names a flow already.
    #[error("the client id is taken by flow {}", .flow.0)]
    ClientIdTaken {
        /// Which.
        flow: FlowRow,
    },
    /// The message was taken before.
    #[error("the message was taken before")]
    Duplicate,
    /// No space on the disk, or the database may not grow further.
    #[error("there is no space left for the database")]
    Full(#[source] Fault),
    /// The database is locked or short of memory for the moment.
    #[error("the database is busy")]
    Busy(#[source] Fault),
    /// Reading or writing failed.
    #[error("the database could not be read or written: {0}")]
    Io(#[source] Fault),
    /// Too much waits to be committed.
    #[error("more commits wait than the host holds in memory")]
    Overloaded,
    /// A row that cannot be read.
    #[error("table {table} holds a broken row: {key}")]
    Corrupt {
        /// Which table.
        table: &'static str,
        /// Which row, and what is wrong with it.
        key: String,
    },
    /// The file is not a database, or its structure is broken.
    #[error("{} is damaged or is not a database: {source}", .path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What the library said.
        source: Fault,
    },
    /// The file's schema is of another version.
    #[error("{} has schema version {found}; this version of maxhost knows {supported}", .path.display())]
    Incompatible {
        /// Which file.
        path: PathBuf,
        /// The version found.
        found: i64,
        /// The newest version known here.
        supported: i64,
    },
    /// The file or its folder may not be written.
    #[error("{} cannot be written", .path.display())]
    ReadOnly {
        /// Which file or folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: Fault,
    },
    /// Another host holds the data folder.
    #[error("the data folder {} is in use by {holder}", .path.display())]
    Locked {
        /// Which folder.
        path: PathBuf,
        /// By whom.
        holder: Holder,
    },
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
}

impl StoreError {
    /// Whether the same unit may succeed later without anybody changing it.
    #[must_use]
    pub fn is_retriable(&self) -> bool {
        matches!(self, StoreError::Full(_) | StoreError::Busy(_) | StoreError::Io(_) | StoreError::Overloaded)
    }

    /// The failure of an operation on the file as a whole.
    pub(crate) fn of_file(path: &std::path::Path, fault: Fault) -> StoreError {
        match fault.kind {
            FaultKind::ReadOnly | FaultKind::CannotOpen => {
                StoreError::ReadOnly { path: path.to_owned(), source: fault }
            }
            FaultKind::Corrupt | FaultKind::NotADatabase => {
                StoreError::Damaged { path: path.to_owned(), source: fault }
            }
            _ => fault.into(),
        }
    }
}

impl From<Fault> for StoreError {
    fn from(fault: Fault) -> StoreError {
        match fault.kind {
            FaultKind::Full => StoreError::Full(fault),
            FaultKind::Busy => StoreError::Busy(fault),
            FaultKind::Constraint => StoreError::Conflict(Conflict::Constraint),
            FaultKind::Corrupt => StoreError::Corrupt { table: "(unknown)", key: fault.to_string() },
            _ => StoreError::Io(fault),
        }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Problem {
        let message = error.to_string();
        match &error {
            StoreError::Fenced { identity, .. } => {
                Problem::new(Code::IdentityDraining, message).detail("identity_row", identity.0.to_string())
            }
            StoreError::ClientIdTaken { flow } => {
                Problem::new(Code::ClientIdRunning, message).detail("flow_row", flow.0.to_string())
            }
            StoreError::Full(_) => Problem::new(Code::DiskFull, message),
            StoreError::Busy(_) | StoreError::Io(_) => Problem::new(Code::StoreFailed, message),
            StoreError::Overloaded => Problem::new(Code::Overloaded, message),
            StoreError::Corrupt { table, key } => {
                Problem::new(Code::JournalCorrupt, message).detail("table", *table).detail("row", key.as_str())
            }
            StoreError::Damaged { path, .. } => Problem::new(Code::JournalCorrupt, message)
                .remedy("restore the database file from a backup")
                .detail("path", path.display().to_string()),
            StoreError::Incompatible { found, supported, .. } => Problem::new(Code::StoreIncompatible, message)
                .detail("found", found.to_string())
                .detail("supported", supported.to_string()),
            StoreError::ReadOnly { path, .. } => {
                Problem::new(Code::DirectoryUnwritable, message).detail("path", path.display().to_string())
            }
            StoreError::Locked { holder, .. } => {
                let mut problem = Problem::new(Code::DataLocked, message);
                if let Some(pid) = holder.pid {
                    problem = problem.detail("pid", pid.to_string());
                }
                problem
            }
            StoreError::Closed => Problem::new(Code::HostStopping, message),
            StoreError::Superseded | StoreError::Conflict(_) | StoreError::Duplicate => {
                Problem::new(Code::Internal, message)
            }
        }
    }
}

/// What SQLite said through the pool.
pub(crate) fn fault_of(error: sqlx::Error) -> Fault {
    let kind = match &error {
        sqlx::Error::Database(database) => {
            let code = database.code().and_then(|code| code.parse().ok());
            code.map_or(FaultKind::Other, FaultKind::of_code)
        }
        sqlx::Error::PoolTimedOut => FaultKind::Busy,
        sqlx::Error::Io(_) => FaultKind::Io,
        _ => FaultKind::Other,
    };
    Fault::new(kind, error)
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> StoreError {
        match error {
            sqlx::Error::PoolClosed => StoreError::Closed,
            other => fault_of(other).into(),
        }
    }
}
