//! What can go wrong with ownership.

use std::sync::Arc;

use maxhost_model::{Code, Problem};

/// Every error of an ownership service. [`OwnershipError::is_retriable`] tells those that pass from those that stay.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OwnershipError {
    /// Somebody owns the identity; it may be the asking host itself.
    #[error("{identity} is owned by host {host}")]
    Owned {
        /// Which.
        identity: Arc<str>,
        /// By whom.
        host: Arc<str>,
        /// In which epoch.
        epoch: i64,
    },
    /// The service cannot be reached, or the session with it was lost.
    #[error("the ownership service cannot be reached: {0}")]
    Unavailable(String),
    /// This host has left.
    #[error("this host has left the ownership service")]
    Closed,
}

impl OwnershipError {
    /// Whether the same call may succeed later without anybody changing it.
    #[must_use]
    pub fn is_retriable(&self) -> bool {
        matches!(self, OwnershipError::Unavailable(_))
    }
}

impl From<OwnershipError> for Problem {
    fn from(error: OwnershipError) -> Problem {
        let message = error.to_string();
        match error {
            OwnershipError::Owned { identity, host, .. } => Problem::new(Code::IdentityDraining, message)
                .remedy(format!("ask host {host}, or wait until it lets the identity go"))
                .detail("identity", &*identity)
                .detail("host", &*host),
            OwnershipError::Unavailable(_) => Problem::new(Code::Timeout, message)
                .remedy("check that the ownership service runs and can be reached; the host tries again by itself"),
            OwnershipError::Closed => Problem::new(Code::HostStopping, message),
        }
    }
}
