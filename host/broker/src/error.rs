//! What can go wrong with a broker.

use std::path::PathBuf;

use maxhost_model::{Code, Problem};
use maxhost_sqlite::{Fault, FaultKind};

/// Every error of a broker. [`BrokerError::is_retriable`] tells those that pass from those that stay.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum BrokerError {
    /// The message is over the limit.
    #[error("the message has {bytes} bytes; {limit} are allowed")]
    TooLarge {
        /// Of the message.
        bytes: usize,
        /// The most there may be.
        limit: usize,
    },
    /// A queue's name has 1 to 255 bytes.
    #[error("'{0}' is no name for a queue: 1 to 255 bytes are allowed")]
    BadQueue(String),
    /// The broker has no space left.
    #[error("the broker has no space left for messages")]
    Full(#[source] Fault),
    /// The broker cannot be reached, or cannot read or write for the moment.
    #[error("the broker is not available: {0}")]
    Unavailable(#[source] Fault),
    /// More waits to be written than is held in memory.
    #[error("more messages wait for the broker than the host holds in memory")]
    Overloaded,
    /// The consumer is gone.
    #[error("the consumer that got this message is gone")]
    Detached,
    /// The connection was closed.
    #[error("the connection to the broker is closed")]
    Closed,
    /// The embedded broker's file cannot be used as it is.
    #[error("{} cannot be used: {source}", .path.display())]
    Unusable {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: Fault,
    },
    /// The embedded broker's file is of another version.
    #[error("{} has schema version {found}; this version of maxhost knows {supported}", .path.display())]
    Incompatible {
        /// Which file.
        path: PathBuf,
        /// The version found.
        found: i64,
        /// The newest version known here.
        supported: i64,
    },
}

impl BrokerError {
    /// Whether the same call may succeed later without anybody changing it.
    #[must_use]
    pub fn is_retriable(&self) -> bool {
        matches!(self, BrokerError::Full(_) | BrokerError::Unavailable(_) | BrokerError::Overloaded)
    }

    /// The failure of an operation on the file as a whole.
    pub(crate) fn of_file(path: &std::path::Path, fault: Fault) -> BrokerError {
        if fault.kind.is_retriable() {
            fault.into()
        } else {
            BrokerError::Unusable { path: path.to_owned(), source: fault }
        }
    }
}

impl From<Fault> for BrokerError {
    fn from(fault: Fault) -> BrokerError {
        match fault.kind {
            FaultKind::Full => BrokerError::Full(fault),
            _ => BrokerError::Unavailable(fault),
        }
    }
}

impl From<BrokerError> for Problem {
    fn from(error: BrokerError) -> Problem {
        let message = error.to_string();
        match error {
            BrokerError::TooLarge { bytes, limit } => Problem::new(Code::MessageTooLarge, message)
                .detail("bytes", bytes.to_string())
                .detail("limit", limit.to_string()),
            BrokerError::Full(_) => Problem::new(Code::DiskFull, message),
            BrokerError::Unavailable(_) => Problem::new(Code::StoreFailed, message),
            BrokerError::Overloaded => Problem::new(Code::Overloaded, message),
            BrokerError::Closed => Problem::new(Code::HostStopping, message),
            BrokerError::Unusable { path, source } => match source.kind {
                FaultKind::ReadOnly | FaultKind::CannotOpen => Problem::new(Code::DirectoryUnwritable, message),
                _ => Problem::new(Code::StoreFailed, message).remedy("restore the file from a backup"),
            }
            .detail("path", path.display().to_string()),
            BrokerError::Incompatible { found, supported, .. } => Problem::new(Code::StoreIncompatible, message)
                .detail("found", found.to_string())
                .detail("supported", supported.to_string()),
            BrokerError::BadQueue(_) | BrokerError::Detached => Problem::new(Code::Internal, message),
        }
    }
}
