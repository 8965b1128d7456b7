//! The network parameters that identities know: those in force, and those of the past that are kept in their ledgers
//! (docs/behaviour.md 10.23). What was read is remembered; who has kept what is told by the database alone.

use std::sync::Arc;

use bytes::Bytes;
use maxhost_ledger::tx::LedgerRules;
use maxhost_ledger::{Refused, Rule};
use maxhost_model::network::NotaryInfo;
use maxhost_model::{Code, IdentityRow, Party, Problem, SecureHash};
use maxhost_pki::{NetworkMap, ProvenParameters};
use maxhost_store::Store;
use quick_cache::sync::Cache;

use crate::base::trouble::Trouble;

/// So many are remembered, of at most a mebibyte each: a network has few, and uses one at a time.
const REMEMBERED: usize = 16;
/// Of so many it is remembered that an identity has kept them; each takes less than a hundred bytes.
const KEPT: usize = 8_192;

/// Network parameters, as far as transactions are judged by them.
#[derive(Debug)]
pub(crate) struct KnownParameters {
    /// By which transactions name them.
    pub hash: SecureHash,
    /// Counts changes.
    pub epoch: u32,
    /// What they say of transactions.
    pub rules: LedgerRules,
    /// The notaries among them, and which of them validate.
    notaries: Vec<NotaryInfo>,
}

impl KnownParameters {
    /// Whether this notary validates; `None` if it is none by these parameters.
    pub fn validates(&self, notary: &Party) -> Option<bool> {
        self.notaries.iter().find(|one| one.party == *notary).map(|one| one.validating)
    }
}

/// The parameters that the identities of a host know.
pub(crate) struct ParametersOfNetwork {
    network: Arc<NetworkMap>,
    store: Store,
    /// The network is one for development: contracts may be unsigned.
    development: bool,
    read: Cache<SecureHash, Arc<KnownParameters>>,
    /// In whose ledgers the database has shown them.
    kept: Cache<(IdentityRow, SecureHash), ()>,
}

impl ParametersOfNetwork {
    pub fn new(network: Arc<NetworkMap>, store: Store, development: bool) -> ParametersOfNetwork {
        let (read, kept) = (Cache::new(REMEMBERED), Cache::new(KEPT));
        ParametersOfNetwork { network, store, development, read, kept }
    }

    /// Those in force.
    ///
    /// # Errors
    /// They contradict themselves.
    pub fn in_force(&self) -> Result<Arc<KnownParameters>, Trouble> {
        let proven = self.network.parameters();
        match self.read.get(&proven.hash()) {
            Some(known) => Ok(known),
            None => self.remember(&proven),
        }
    }

    /// Those with this hash: in force, or in the ledger of the identity.
    ///
    /// # Errors
    /// The database cannot be read, or has what was never put there.
    pub async fn of(&self, identity: IdentityRow, hash: &SecureHash) -> Result<Option<Arc<KnownParameters>>, Trouble> {
        if *hash == self.network.parameters().hash() {
            return self.in_force().map(Some);
        }
        if self.kept.get(&(identity, *hash)).is_some()
            && let Some(known) = self.read.get(hash)
        {
            return Ok(Some(known));
        }
        let Some(body) = self.in_ledger(identity, hash).await? else { return Ok(None) };
        let unreadable = |error: &dyn std::fmt::Display| {
            Trouble::defect(format!("the network parameters {hash} in the ledger cannot be read: {error}"))
        };
        let proven = self.verify(&body).map_err(|error| unreadable(&error.message))?;
        match proven.hash() == *hash {
            true => self.remember(&proven).map(Some),
            false => Err(unreadable(&"they have another hash")),
        }
    }

    /// Those that a transaction names, or why it cannot be judged by them.
    ///
    /// # Errors
    /// As [`ParametersOfNetwork::of`].
    pub async fn named(
        &self,
        identity: IdentityRow,
        hash: Option<&SecureHash>,
    ) -> Result<Result<Arc<KnownParameters>, Refused>, Trouble> {
        let Some(hash) = hash else {
            return Ok(Err(Refused::new(Rule::ParametersMissing, "no hash of network parameters is given")));
        };
        Ok(self.of(identity, hash).await?.ok_or_else(|| unknown(hash)))
    }

    /// Whether the identity has these in its ledger.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn is_kept(&self, identity: IdentityRow, hash: &SecureHash) -> Result<bool, Trouble> {
        Ok(self.kept.get(&(identity, *hash)).is_some() || self.in_ledger(identity, hash).await?.is_some())
    }

    /// What proves these to others.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn proof(&self, identity: IdentityRow, hash: &SecureHash) -> Result<Option<Bytes>, Trouble> {
        let present = self.network.parameters();
        if *hash == present.hash() {
            return Ok(Some(Bytes::copy_from_slice(present.proof())));
        }
        self.in_ledger(identity, hash).await
    }

    /// Verifies that the operator of the network made what somebody gives as parameters.
    ///
    /// # Errors
    /// He did not, or they break a rule of parameters.
    pub fn verify(&self, proof: &[u8]) -> Result<ProvenParameters, Problem> {
        ProvenParameters::verify(proof, self.network.trust_root()).map_err(Problem::from)
    }

    async fn in_ledger(&self, identity: IdentityRow, hash: &SecureHash) -> Result<Option<Bytes>, Trouble> {
        let found = self.store.kept_parameters(identity, hash).await.map_err(Problem::from)?;
        if found.is_some() {
            self.kept.insert((identity, *hash), ());
        }
        Ok(found)
    }

    fn remember(&self, proven: &ProvenParameters) -> Result<Arc<KnownParameters>, Trouble> {
        let parameters = proven.parameters();
        let rules = LedgerRules::of(parameters, self.development)
            .map_err(|refused| Trouble::Permanent(Problem::new(Code::NetworkInvalid, refused.to_string())))?;
        let (hash, epoch, notaries) = (proven.hash(), parameters.epoch, parameters.notaries.clone());
        let known = Arc::new(KnownParameters { hash, epoch, rules, notaries });
        self.read.insert(known.hash, known.clone());
        Ok(known)
    }
}

/// Why a transaction is refused that names parameters which are not known.
pub(crate) fn unknown(hash: &SecureHash) -> Refused {
    let message = format!("the network parameters {hash} are not known here");
    Refused::new(Rule::ParametersUnknown, message).detail("parameters", hash)
}
