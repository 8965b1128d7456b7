//! The keys of an identity besides its legal one, and whose keys others are.
//!
//! An own key is derived from the identity's key and a nonce (`maxhost_pki::OpenIdentity::fresh_key`). The nonce is noted in
//! the commit of the step that makes the key, and nothing of that step leaves the host before, so no transaction can name an
//! own key that this identity could not sign with.

use std::collections::{BTreeMap, BTreeSet};

use maxhost_ledger::keys::leaves;
use maxhost_ledger::refused::Refused;
use maxhost_ledger::tx::Signer;
use maxhost_ledger::{Result as LedgerResult, Rule};
use maxhost_model::{Code, Party, Problem, PublicKey, SecureHash, X500Name};
use maxhost_pki::PrivateKey;
use maxhost_sandbox::{CallResult, GuestKey, GuestParty};
use maxhost_store::ledger::{KnownKey, LedgerOp, OutputState};

use super::environment::{IdentitySigner, LedgerEnvironment};
use super::protocol::Encoded;
use super::refusal;
use super::transactions::failed;
use crate::base::trouble::Trouble;
use crate::calls::FlowCalls;

/// Bytes of a nonce.
const NONCE: usize = 32;

/// One of the identity's own keys, to sign with.
pub(crate) enum OwnSigner<'a> {
    /// That of the legal identity.
    Legal(IdentitySigner<'a>),
    /// Another one.
    Fresh(Box<PrivateKey>),
}

impl Signer for OwnSigner<'_> {
    fn key(&self) -> &PublicKey {
        match self {
            OwnSigner::Legal(legal) => legal.key(),
            OwnSigner::Fresh(key) => key.public(),
        }
    }

    fn sign(&self, message: &[u8]) -> LedgerResult<Vec<u8>> {
        match self {
            OwnSigner::Legal(legal) => legal.sign(message),
            OwnSigner::Fresh(key) => {
                key.sign(message).map_err(|error| Refused::new(Rule::KeyInvalid, error.to_string()))
            }
        }
    }
}

/// A key that a guest hands in.
pub(super) fn given_key(spki: &[u8]) -> CallResult<PublicKey> {
    Ok(PublicKey::from_spki(spki).map_err(|error| refusal::argument(format!("a key: {error}")))?)
}

/// A key as a guest gets it.
pub(super) fn guest_key(spki: Vec<u8>) -> GuestKey {
    GuestKey { fingerprint: SecureHash::of(&spki).to_string(), spki }
}

impl LedgerEnvironment {
    /// The own key of a nonce.
    pub fn own_key(&self, nonce: &[u8; NONCE]) -> Result<PrivateKey, Trouble> {
        self.opened.keys.fresh_key(nonce).map_err(|error| Trouble::Permanent(error.into()))
    }

    /// What is known of these keys. The legal one of this identity is not among them.
    pub async fn known_keys(&self, keys: &BTreeSet<PublicKey>) -> Result<BTreeMap<PublicKey, KnownKey>, Trouble> {
        let us = &self.us().owning_key;
        let asked: Vec<SecureHash> = keys.iter().filter(|key| *key != us).map(PublicKey::fingerprint).collect();
        if asked.is_empty() {
            return Ok(BTreeMap::new());
        }
        let found = self.services.committer.store.known_keys(self.opened.entry.row, &asked).await.map_err(failed)?;
        Ok(found.into_iter().map(|known| (known.key.clone(), known)).collect())
    }

    /// What signs with those of these keys that are the identity's own; of a composite key with its parts.
    pub async fn signers_among(&self, keys: &BTreeSet<PublicKey>) -> Result<Vec<OwnSigner<'_>>, Trouble> {
        let single: BTreeSet<PublicKey> = keys.iter().flat_map(leaves).collect();
        let mut signers = Vec::new();
        if single.contains(&self.us().owning_key) {
            signers.push(OwnSigner::Legal(self.signer()));
        }
        for (key, known) in self.known_keys(&single).await? {
            let Some(nonce) = known.nonce else { continue };
            let own = self.own_key(&nonce)?;
            if *own.public() != key {
                let text = format!("the key {key} was derived from another key of {} than it has now", self.us().name);
                return Err(Trouble::Permanent(Problem::new(Code::KeysInvalid, text)));
            }
            signers.push(OwnSigner::Fresh(Box::new(own)));
        }
        Ok(signers)
    }

    /// The keys in states that no name in them explains: neither the own legal one nor that of a party that a state names.
    pub fn unnamed(&self, outputs: &[OutputState]) -> BTreeSet<PublicKey> {
        let mut keys = BTreeSet::new();
        for OutputState { described, content } in outputs {
            let mut here: BTreeSet<PublicKey> =
                described.participants.iter().chain(&described.owner).flat_map(leaves).collect();
            here.remove(&self.us().owning_key);
            // Names are looked for only if keys are left: most states name nobody besides this identity and one other.
            for name in content.participants.iter().filter(|one| one.contains('=')) {
                if here.is_empty() {
                    break;
                }
                if let Some(party) = X500Name::parse(name).ok().and_then(|name| self.party(&name).ok().flatten()) {
                    here.remove(&party.owning_key);
                }
            }
            keys.extend(here);
        }
        keys
    }

    /// The identity's own keys that states may have: its legal one, and those of the others that these states name.
    pub async fn own_keys(&self, outputs: &[OutputState]) -> Result<BTreeSet<PublicKey>, Trouble> {
        let known = self.known_keys(&self.unnamed(outputs)).await?;
        let fresh = known.into_iter().filter(|(_, known)| known.nonce.is_some()).map(|(key, _)| key);
        Ok(fresh.chain([self.us().owning_key.clone()]).collect())
    }

    /// A party of the network.
    pub fn party(&self, name: &X500Name) -> Result<Option<Party>, Trouble> {
        self.services.parties.party(name)
    }

    /// The party of a key that is known, or of a legal key of the network, with its legal key; without a key if the network
    /// does not have the party any more.
    async fn party_of(&self, key: &PublicKey) -> Result<Option<(String, Vec<u8>)>, Trouble> {
        let us = self.us();
        if us.owning_key == *key {
            return Ok(Some((us.name.to_string(), key.spki().to_vec())));
        }
        let Some(known) = self.known_keys(&[key.clone()].into()).await?.remove(key) else {
            let legal = match self.services.network.by_fingerprint(&key.fingerprint()) {
                Ok(Some(found)) => Some((found.party.name.to_string(), key.spki().to_vec())),
                Ok(None) => None,
                Err(error) if error.is_retriable() => return Err(Trouble::Passing(error.into())),
                // What is not valid names nobody.
                Err(_) => None,
            };
            return Ok(legal);
        };
        let legal = match X500Name::parse(&known.party) {
            Ok(name) => self.party(&name)?,
            Err(_) => None,
        };
        let spki = legal.map(|party| party.owning_key.spki().to_vec()).unwrap_or_default();
        Ok(Some((known.party, spki)))
    }
}

impl FlowCalls {
    /// Bytes that are the same again when the flow is run again.
    pub(super) fn drawn(&mut self) -> [u8; NONCE] {
        let mut bytes = [0; NONCE];
        bytes.copy_from_slice(&self.machine.random(NONCE));
        bytes
    }

    /// Makes a key of the identity's own.
    pub(crate) async fn fresh_key(&mut self) -> CallResult<GuestKey> {
        let (nonce, environment) = (self.drawn(), self.environment());
        let key: Encoded = self
            .step("make a fresh key", async move {
                let key = environment.own_key(&nonce)?.public().clone();
                Ok(Ok((Encoded(key.spki().to_vec()), vec![environment.to_keep(key, nonce)])))
            })
            .await?;
        Ok(guest_key(key.0))
    }

    /// Whose key this is, as far as this identity has been told.
    pub(crate) async fn party_of_key(&mut self, spki: &[u8]) -> CallResult<Option<GuestParty>> {
        let (key, environment) = (given_key(spki)?, self.environment());
        let found: Option<(String, Encoded)> = self
            .step(&format!("ask whose key {key} is"), async move {
                let party = environment.party_of(&key).await?;
                Ok(Ok((party.map(|(name, key)| (name, Encoded(key))), Vec::new())))
            })
            .await?;
        Ok(found.map(|(name, key)| GuestParty { name, owning_key: key.0 }))
    }
}

impl LedgerEnvironment {
    /// A key of the identity's own, for its ledger.
    pub fn to_keep(&self, key: PublicKey, nonce: [u8; NONCE]) -> LedgerOp {
        let party = self.us().name.to_string();
        LedgerOp::AddKey(Box::new(KnownKey { key, party, nonce: Some(nonce), at: self.now() }))
    }
}
