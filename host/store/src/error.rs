//! What can go wrong in the store.

use std::path::PathBuf;
use std::time::Duration;

use maxhost_group_commit::{Fault, FaultKind};
use maxhost_ledger::{Refused, Rule};
use maxhost_model::{Claim, Code, FlowRow, IdentityRow, Problem};

use crate::backlog::Queued;
use crate::claim::DEATHS_LAST;
use crate::conflict::Conflict;
use crate::lock::Holder;

/// Every error of the store. [`StoreError::is_retriable`] tells those that pass from those that stay.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The identity is held under another claim: work that began under this one may not be written any more.
    #[error("identity {} is held under claim {current} and refuses claim {claim}", .identity.0)]
    Fenced {
        /// The identity that is not held.
        identity: IdentityRow,
        /// The refused claim.
        claim: Claim,
        /// The claim in the database.
        current: Claim,
    },
    /// What waits for an identity, or for the broker from it, is as much as may wait: later there may be room.
    #[error("identity {} has {bytes} bytes in {messages} messages {queued}, and no more may wait", .identity.0)]
    NoRoom {
        /// Whose quota it is: the recipient's, or the sender's for the outbox.
        identity: IdentityRow,
        /// Where the messages wait.
        queued: Queued,
        /// Messages that wait.
        messages: u64,
        /// Bytes that wait.
        bytes: u64,
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
        /// The flow that has the client id.
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
    /// Rows of the database contradict each other: it was put together from two copies.
    #[error(
        "{} is a mixture of two copies: table {table} has row {found}, but numbers from {mark} on were never given out",
        .path.display()
    )]
    Mixed {
        /// Which file.
        path: PathBuf,
        /// Which table.
        table: &'static str,
        /// The number of the row.
        found: i64,
        /// The mark below which all rows must lie.
        mark: i64,
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
    /// The server does not answer.
    #[error("the database server {place} cannot be reached: {source}")]
    Unreachable {
        /// The server and the database, without a password.
        place: String,
        /// What was tried last.
        #[source]
        source: Fault,
    },
    /// The server refuses the role, its password, the database or a right that is needed.
    #[error("the database server {place} refuses the host: {source}")]
    Denied {
        /// The server and the database, without a password.
        place: String,
        /// What the server said.
        #[source]
        source: Fault,
    },
    /// The server may lose what it has confirmed: when it crashes, or when a standby takes over.
    #[error("the database server {place} may lose what was committed: {reason}")]
    MayLose {
        /// The server and the database, without a password.
        place: String,
        /// What about it, in a sentence or several.
        reason: String,
    },
    /// The clock of this machine and the database server's differ too much: deadlines that it writes or reads would come too
    /// early or too late.
    #[error(
        "the clock of this machine is {} ms {} that of the database server {place}; {} ms are allowed",
        .ahead.unsigned_abs(), if *.ahead < 0 { "behind" } else { "ahead of" }, .limit.as_millis()
    )]
    ClockOff {
        /// The server and the database, without a password.
        place: String,
        /// How many milliseconds this machine is ahead; below zero if it is behind.
        ahead: i64,
        /// What is allowed, to either side.
        limit: Duration,
    },
    /// Identities of the database live in others that this host does not know.
    #[error("identities of {place} were moved to database {databases}, which this host does not know")]
    UnknownDatabase {
        /// The server and the database, without a password.
        place: String,
        /// The numbers of the databases, separated by commas.
        databases: String,
    },
    /// A database does not go together with the others of a host.
    #[error("the database {place} does not go together with the others: {reason}")]
    Unfit {
        /// The server and the database, without a password.
        place: String,
        /// What about it.
        reason: String,
    },
    /// The database has lost what it had committed. Nothing more is written by this run.
    #[error("the database has lost commits: {0}")]
    WentBack(#[source] Fault),
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
    /// A rule of the ledger refuses it.
    #[error("{0}")]
    Ledger(Refused),
    /// A stand-in for a database keeps no ledgers: a defect wherever it is met.
    #[error("this stand-in for a database keeps no ledgers")]
    NoLedgers,
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
}

impl StoreError {
    /// Whether the same unit may succeed later without anybody changing it.
    #[must_use]
    pub fn is_retriable(&self) -> bool {
        matches!(
            self,
            StoreError::Full(_)
                | StoreError::Busy(_)
                | StoreError::Io(_)
                | StoreError::Overloaded
                | StoreError::ClockOff { .. }
                | StoreError::NoRoom { .. }
        )
    }

    /// The failure of an operation on the file as a whole.
    #[must_use]
    pub fn of_file(path: &std::path::Path, fault: Fault) -> StoreError {
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
            FaultKind::WentBack => StoreError::WentBack(fault),
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
            StoreError::NoRoom { identity, .. } => {
                Problem::new(Code::Overloaded, message).detail("identity_row", identity.0.to_string())
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
            StoreError::Mixed { path, .. } => {
                let file = path.display();
                Problem::new(Code::JournalCorrupt, message)
                    .remedy(format!(
                        "stop the host, remove {file}-wal and {file}-shm, and put back the database file alone, or put \
                         back the database file together with the -wal file of the same moment"
                    ))
                    .detail("path", file.to_string())
            }
            StoreError::Incompatible { found, supported, .. } => Problem::new(Code::StoreIncompatible, message)
                .detail("found", found.to_string())
                .detail("supported", supported.to_string()),
            StoreError::Unreachable { .. } => Problem::new(Code::StoreUnreachable, message),
            StoreError::Denied { .. } => Problem::new(Code::StoreDenied, message),
            StoreError::MayLose { .. } => Problem::new(Code::StoreMayLose, message),
            StoreError::ClockOff { .. } => Problem::new(Code::ClockOff, message),
            StoreError::WentBack(_) => Problem::new(Code::StoreWentBack, message),
            StoreError::UnknownDatabase { .. } => Problem::new(Code::DatabaseUnknown, message),
            StoreError::Unfit { .. } => Problem::new(Code::DatabaseUnfit, message),
            StoreError::Conflict(Conflict::OwnersDied { identity, deaths }) => {
                let problem = match *deaths < DEATHS_LAST {
                    true => Problem::new(Code::IdentityDraining, message).remedy(
                        "try again: hosts wait for half a minute before one of them tries the identity once more",
                    ),
                    false => Problem::new(Code::IdentityUnclean, message),
                };
                problem.detail("identity_row", identity.0.to_string()).detail("deaths", deaths.to_string())
            }
            StoreError::Conflict(Conflict::IdentityMoved(identity)) => {
                Problem::new(Code::IdentityMoved, message).detail("identity_row", identity.0.to_string())
            }
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
            StoreError::Ledger(refused) => {
                let code = match refused.rule() {
                    Rule::QueryInvalid => Code::QueryInvalid,
                    Rule::CursorInvalid => Code::CursorInvalid,
                    _ => Code::LedgerRefused,
                };
                let problem = Problem::new(code, refused.message()).detail("rule", refused.code());
                let problem = match code {
                    Code::QueryInvalid if !refused.details().contains_key("position") => problem
                        .remedy("correct what the message names; docs/behaviour.md 12.5 to 12.8 has the language"),
                    _ => problem,
                };
                refused.details().iter().fold(problem, |problem, (key, value)| problem.detail(key, value.as_str()))
            }
            StoreError::Closed => Problem::new(Code::HostStopping, message),
            StoreError::Superseded | StoreError::Conflict(_) | StoreError::Duplicate | StoreError::NoLedgers => {
                Problem::new(Code::Internal, message)
            }
        }
    }
}
