//! What the platform's flows know of the network, and the key they sign with.

use std::sync::Arc;

use futures::future::BoxFuture;
use maxhost_ledger::Rule;
use maxhost_ledger::refused::Refused;
use maxhost_ledger::time::Timestamp;
use maxhost_ledger::tx::Signer;
use maxhost_model::{Party, Problem, PublicKey, SecureHash};
use maxhost_pki::OpenIdentity;

use crate::base::trouble::Trouble;
use crate::calls::CallServices;
use crate::ledger::parameters::KnownParameters;
use crate::registry::opened::Opened;

/// Contracts are asked about so many states where it is asked for.
const FEW_STATES: usize = 8;

/// What the ledger's rules need of the world, for one identity.
#[derive(Clone)]
pub(crate) struct LedgerEnvironment {
    pub services: Arc<CallServices>,
    pub opened: Arc<Opened>,
}

impl LedgerEnvironment {
    /// Does work that takes long, on the account of the identity: see [`crate::guests::placement::Placement::work`].
    pub fn work<R: Send + 'static>(
        &self,
        work: impl FnOnce() -> R + Send + 'static,
    ) -> BoxFuture<'static, Result<R, Trouble>> {
        self.services.placement.work(self.opened.entry.row, work)
    }

    /// Asks contracts about so many states. About few it is tried at once, where the flow is polled
    /// ([`crate::guests::placement::Placement::try_here`]); if that has trouble, for one because it takes long, they are asked in the
    /// identity's turns. They are pure, so it makes no difference how often they are asked.
    pub async fn ask_contracts<R: Send + 'static>(
        &self,
        states: usize,
        ask: impl Fn() -> Result<R, Problem> + Send + 'static,
    ) -> Result<R, Trouble> {
        if states <= FEW_STATES
            && let Some(answer) = self.services.placement.try_here(self.opened.entry.row, &ask)
        {
            return Ok(answer);
        }
        self.work(ask).await?.map_err(Trouble::Passing)
    }

    /// SHA-256 of the root certificate of the network.
    pub fn network(&self) -> SecureHash {
        SecureHash::of(self.services.network.trust_root().der())
    }

    /// The hash of the parameters in force.
    pub fn parameters(&self) -> SecureHash {
        self.services.network.parameters().hash()
    }

    /// The rules of the parameters in force.
    pub fn in_force(&self) -> Result<Arc<KnownParameters>, Trouble> {
        self.services.parameters.in_force()
    }

    /// The identity.
    pub fn us(&self) -> &Party {
        self.opened.keys.party()
    }

    /// What signs for the identity.
    pub fn signer(&self) -> IdentitySigner<'_> {
        IdentitySigner(&self.opened.keys)
    }

    /// The time, for records and leases.
    pub fn now(&self) -> Timestamp {
        Timestamp::from_nanos(self.services.now())
    }

    /// The notaries of the network.
    pub fn notaries(&self) -> Vec<Party> {
        self.services.network.parameters().parameters().notaries.iter().map(|notary| notary.party.clone()).collect()
    }
}

/// The key of an open identity.
pub(crate) struct IdentitySigner<'a>(&'a OpenIdentity);

impl Signer for IdentitySigner<'_> {
    fn key(&self) -> &PublicKey {
        &self.0.party().owning_key
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Refused> {
        self.0.sign(message).map_err(|error| Refused::new(Rule::KeyInvalid, error.to_string()))
    }
}
