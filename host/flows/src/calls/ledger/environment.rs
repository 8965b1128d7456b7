//! What the platform's flows know of the network, and the key they sign with.

use std::sync::Arc;

use maxhost_ledger::Rule;
use maxhost_ledger::notary::Parameters;
use maxhost_ledger::refused::Refused;
use maxhost_ledger::time::Timestamp;
use maxhost_ledger::tx::{LedgerRules, Signer};
use maxhost_model::{Code, Party, Problem, PublicKey, SecureHash};
use maxhost_pki::OpenIdentity;

use crate::calls::CallServices;
use crate::opened::Opened;
use crate::trouble::Trouble;

/// What the ledger's rules need of the world, for one identity.
#[derive(Clone)]
pub(crate) struct LedgerEnvironment {
    pub services: Arc<CallServices>,
    pub opened: Arc<Opened>,
}

impl LedgerEnvironment {
    /// SHA-256 of the root certificate of the network.
    pub fn network(&self) -> SecureHash {
        SecureHash::of(self.services.network.trust_root().der())
    }

    /// The hash of the parameters in force.
    pub fn parameters(&self) -> SecureHash {
        self.services.network.parameters().hash()
    }

    /// The rules of the parameters in force.
    pub fn current_rules(&self) -> Result<LedgerRules, Trouble> {
        let parameters = self.services.network.parameters();
        LedgerRules::of(&parameters, Vec::new(), self.services.development)
            .map_err(|refused| Trouble::Permanent(Problem::new(Code::NetworkInvalid, refused.to_string())))
    }

    /// The rules of the parameters that a transaction names.
    pub fn rules_of(&self, hash: Option<&SecureHash>) -> Result<Result<LedgerRules, Refused>, Trouble> {
        match hash {
            Some(hash) if *hash == self.parameters() => Ok(Ok(self.current_rules()?)),
            Some(hash) => {
                let message = format!("the network parameters {hash} are not known here");
                Ok(Err(Refused::new(Rule::ParametersUnknown, message).detail("parameters", hash)))
            }
            None => Ok(Err(Refused::new(Rule::ParametersMissing, "no hash of network parameters is given"))),
        }
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
        self.services.network.parameters().notaries.iter().map(|notary| notary.party.clone()).collect()
    }

    /// Whether this notary validates; `None` if it is none of the network's.
    pub fn validates(&self, notary: &Party) -> Option<bool> {
        let parameters = self.services.network.parameters();
        parameters.notaries.iter().find(|one| one.party == *notary).map(|one| one.validating)
    }
}

impl Parameters for LedgerEnvironment {
    fn rules(&self, hash: &SecureHash) -> Option<Arc<LedgerRules>> {
        match self.rules_of(Some(hash)) {
            Ok(Ok(rules)) => Some(Arc::new(rules)),
            _ => None,
        }
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
