//! The owner of an identity, as everybody sees it.

use std::sync::Arc;

use maxhost_model::{FencingToken, SecureHash};

/// Who owns an identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// The fingerprint of the identity's key.
    pub identity: SecureHash,
    /// The name of the host that owns it.
    pub host: Arc<str>,
    /// The token of that host's claim.
    pub token: FencingToken,
}
