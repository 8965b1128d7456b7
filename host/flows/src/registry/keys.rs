//! How the keys of an identity are opened.

use std::sync::Arc;

use maxhost_model::Problem;
use maxhost_pki::{KeyVault, NetworkMap, OpenIdentity};

use crate::registry::entry::IdentityEntry;

/// Opens the keys of identities.
pub(crate) trait IdentityKeys: Send + Sync {
    /// Opens them. Reads a few files on the calling thread.
    ///
    /// # Errors
    /// A key or a certificate cannot be read, or does not hold.
    fn open(&self, entry: &IdentityEntry) -> Result<Arc<OpenIdentity>, Problem>;
}

/// Keys that are sealed in the folder that an identity's manifest names.
pub(crate) struct SealedKeys {
    pub vault: Arc<KeyVault>,
    pub network: Arc<NetworkMap>,
}

impl IdentityKeys for SealedKeys {
    fn open(&self, entry: &IdentityEntry) -> Result<Arc<OpenIdentity>, Problem> {
        let (spec, now) = (entry.spec.lock().clone(), std::time::SystemTime::now());
        let trust = self.network.trust_root();
        OpenIdentity::open(&self.vault, &spec.keys, &entry.name, trust, now).map(Arc::new).map_err(Problem::from)
    }
}
