//! The parties of the network, as flows and clients ask for them.

use std::sync::Arc;

use maxhost_model::{Party, X500Name};
use maxhost_pki::{NetworkMap, VerifiedParty};
use maxhost_sandbox::pace;

use crate::base::trouble::Trouble;

/// The verified network map. Clones are one and the same.
#[derive(Clone)]
pub(crate) struct Parties(Arc<NetworkMap>);

impl Parties {
    pub fn of(network: Arc<NetworkMap>) -> Parties {
        Parties(network)
    }

    /// A party by its canonical name: hosted here, or known to the network.
    ///
    /// # Errors
    /// What the network says of it cannot be read now, or is not valid.
    pub fn party(&self, name: &X500Name) -> Result<Option<Party>, Trouble> {
        match self.0.party(name) {
            Ok(found) => Ok(found.map(|verified| verified.party)),
            Err(error) if error.is_retriable() => Err(Trouble::Passing(error.into())),
            Err(error) => Err(Trouble::Permanent(error.into())),
        }
    }

    /// The verified parties whose name fits, sorted by name. Blocking; where work is done in turns, others go first between two
    /// of them.
    pub fn matching(&self, fits: impl Fn(&X500Name) -> bool) -> Vec<VerifiedParty> {
        let left_out = |name: &X500Name, error| {
            tracing::warn!(%name, %error, "a party is not on the map: what its node published does not verify");
        };
        self.0.matching(fits, left_out, pace)
    }
}
