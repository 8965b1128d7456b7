//! What can go wrong with ownership, split by what the caller does about it.

use std::error::Error;
use std::sync::Arc;

use maxhost_model::{Code, FencingToken, Problem, SecureHash};

use crate::owner::Owner;

/// An error of an ownership service.
#[derive(Debug, Clone, thiserror::Error)]
pub enum OwnershipError {
    /// The same call may succeed later without anybody changing anything.
    #[error(transparent)]
    Transient(#[from] Transient),
    /// This host does not own the identity (any more): it stops everything that it does for it, and repeats nothing.
    #[error(transparent)]
    Lost(#[from] Lost),
    /// The same call never succeeds until somebody mends something.
    #[error(transparent)]
    Permanent(#[from] Permanent),
}

/// An error that passes.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Transient {
    /// The service cannot be reached, or did not answer in time. Whether the call was carried out is not known.
    #[error("the ownership service cannot be reached: {reason}")]
    Unavailable {
        /// What failed.
        reason: String,
        /// The error beneath, if there is one.
        #[source]
        source: Option<Arc<dyn Error + Send + Sync>>,
    },
}

impl Transient {
    /// The service cannot be reached for this reason.
    #[must_use]
    pub fn unavailable(reason: impl Into<String>) -> Transient {
        Transient::Unavailable { reason: reason.into(), source: None }
    }
}

/// The identity is not this host's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Lost {
    /// Another host owns the identity.
    #[error("identity {} is owned by host {}", .0.identity, .0.host)]
    Owned(Owner),
    /// The session in which the identity was claimed is over.
    #[error("the session with the ownership service is over, and with it all that this host owned")]
    SessionOver,
}

/// An error that stays.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Permanent {
    /// This host has left.
    #[error("this host has left the ownership service")]
    Closed,
    /// The database has a claim that this service can never rise above: the service was wiped or restored, or it is
    /// another cluster's, or a host that is alone was given the database of a cluster.
    #[error("identity {identity} has claim {stored} in the database, and the ownership service gives only {offered}")]
    Behind {
        /// The identity.
        identity: SecureHash,
        /// The token in the database.
        stored: FencingToken,
        /// What the service would have given.
        offered: FencingToken,
    },
    /// The service refuses this host, or is not set up for it.
    #[error("the ownership service refuses this host: {reason}")]
    Refused {
        /// What is wrong.
        reason: String,
        /// The error beneath, if there is one.
        #[source]
        source: Option<Arc<dyn Error + Send + Sync>>,
    },
}

impl Permanent {
    /// The service refuses this host for this reason.
    #[must_use]
    pub fn refused(reason: impl Into<String>) -> Permanent {
        Permanent::Refused { reason: reason.into(), source: None }
    }
}

impl OwnershipError {
    /// Whether the same call may succeed later without anybody changing anything.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, OwnershipError::Transient(_))
    }
}

impl From<OwnershipError> for Problem {
    fn from(error: OwnershipError) -> Problem {
        let message = error.to_string();
        match error {
            OwnershipError::Transient(_) => Problem::new(Code::Timeout, message)
                .remedy("check that the ownership service runs and can be reached; the host tries again by itself"),
            OwnershipError::Lost(Lost::Owned(owner)) => Problem::new(Code::IdentityDraining, message)
                .remedy(format!("ask host {}, or wait until it lets the identity go", owner.host))
                .detail("identity", owner.identity.to_string())
                .detail("host", &*owner.host),
            OwnershipError::Lost(Lost::SessionOver) => Problem::new(Code::IdentityDraining, message)
                .remedy("try again: another host takes the identity over, or this one claims it anew"),
            OwnershipError::Permanent(Permanent::Closed) => Problem::new(Code::HostStopping, message),
            OwnershipError::Permanent(Permanent::Behind { identity, stored, offered }) => {
                Problem::new(Code::OwnershipRefused, message)
                    .remedy("give the host the ownership service that this database was used with")
                    .detail("identity", identity.to_string())
                    .detail("stored", stored.to_string())
                    .detail("offered", offered.to_string())
            }
            OwnershipError::Permanent(Permanent::Refused { .. }) => Problem::new(Code::OwnershipRefused, message),
        }
    }
}
