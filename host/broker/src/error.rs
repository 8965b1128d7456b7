//! What can go wrong with a broker, split by whether it passes.

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;

use maxhost_model::{Code, Problem};

use crate::queue_name::QueueName;

/// The error beneath one of a broker, whichever library it is of.
pub type Cause = Arc<dyn Error + Send + Sync>;

/// An error of a broker.
#[derive(Debug, Clone, thiserror::Error)]
pub enum BrokerError {
    /// The same call may succeed later without anybody changing anything.
    #[error(transparent)]
    Transient(#[from] Transient),
    /// The same call never succeeds.
    #[error(transparent)]
    Permanent(#[from] Permanent),
}

/// An error that passes.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Transient {
    /// The queue holds as much as it may. It concerns this destination only; others take messages.
    #[error("queue {queue} has no room for {bytes} bytes: it holds {held} of at most {limit}")]
    QueueFull {
        /// The queue.
        queue: QueueName,
        /// What the message needs.
        bytes: u64,
        /// What the queue holds.
        held: u64,
        /// The most it may hold.
        limit: u64,
    },
    /// The broker has no space left for any queue.
    #[error("the broker has no space left for messages")]
    NoSpace(#[source] Cause),
    /// The broker cannot be reached, or cannot read or write for the moment.
    #[error("the broker is not available: {0}")]
    Unavailable(#[source] Cause),
    /// More waits to be written than is held in memory.
    #[error("more messages wait for the broker than the host holds in memory")]
    Overloaded,
    /// The broker did not answer in time. Whether it took the message is not known: it must be sent again.
    #[error("the broker did not confirm a message in time")]
    TimedOut,
}

/// An error that stays.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Permanent {
    /// The message is over the limit.
    #[error("the message has {bytes} bytes; {limit} are allowed")]
    TooLarge {
        /// Of the message.
        bytes: usize,
        /// The most there may be.
        limit: usize,
    },
    /// The consumer is gone. What it did not acknowledge is delivered again to the next one.
    #[error("the consumer that got this message is gone")]
    Detached,
    /// The connection was closed.
    #[error("the connection to the broker is closed")]
    Closed,
    /// The broker refuses this host, or would lose messages.
    #[error("the broker cannot be used: {reason}")]
    Refused {
        /// What is wrong.
        reason: String,
    },
    /// The embedded broker's file cannot be used as it is.
    #[error("{} cannot be used: {source}", .path.display())]
    Unusable {
        /// Which file.
        path: PathBuf,
        /// Whether the file can neither be opened nor written by this user.
        unwritable: bool,
        /// The error beneath.
        source: Cause,
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
    /// Whether the same call may succeed later without anybody changing anything.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, BrokerError::Transient(_))
    }
}

impl From<BrokerError> for Problem {
    fn from(error: BrokerError) -> Problem {
        let message = error.to_string();
        match error {
            BrokerError::Transient(error) => match error {
                Transient::QueueFull { queue, limit, .. } => Problem::new(Code::Overloaded, message)
                    .remedy("wait until the recipient has taken what waits for it")
                    .detail("queue", queue.to_string())
                    .detail("limit", limit.to_string()),
                Transient::NoSpace(_) => Problem::new(Code::DiskFull, message),
                Transient::Unavailable(_) => Problem::new(Code::BrokerUnavailable, message),
                Transient::Overloaded => Problem::new(Code::Overloaded, message),
                Transient::TimedOut => Problem::new(Code::Timeout, message),
            },
            BrokerError::Permanent(error) => match error {
                Permanent::TooLarge { bytes, limit } => Problem::new(Code::MessageTooLarge, message)
                    .detail("bytes", bytes.to_string())
                    .detail("limit", limit.to_string()),
                Permanent::Closed => Problem::new(Code::HostStopping, message),
                Permanent::Unusable { path, unwritable, .. } => match unwritable {
                    true => Problem::new(Code::DirectoryUnwritable, message),
                    false => Problem::new(Code::StoreFailed, message).remedy("restore the file from a backup"),
                }
                .detail("path", path.display().to_string()),
                Permanent::Incompatible { found, supported, .. } => Problem::new(Code::StoreIncompatible, message)
                    .detail("found", found.to_string())
                    .detail("supported", supported.to_string()),
                Permanent::Refused { .. } => Problem::new(Code::BrokerRefused, message),
                Permanent::Detached => Problem::new(Code::Internal, message),
            },
        }
    }
}
