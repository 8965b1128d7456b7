//! Keys that parties give each other: a new one for a transaction, or those that the other side has and cannot place.
//!
//! ```text
//!   request-key ── NewKey(challenge) ──────▶ provide-key: makes a key, notes it, and states that it is its own
//!               ◀── [statement] ────────────
//!   receive-keys ─ SharedKeys(challenge) ──▶ share-keys: states that these are its own
//!               ◀── [statement, …] ─────────
//! ```
//!
//! Whoever asks draws a challenge, so that a statement of another time or for another party answers nothing. What is stated is
//! checked and noted in the commit of one step, and nobody states anything of keys that are not his own.

use std::collections::BTreeSet;

use maxhost_ledger::Rule;
use maxhost_ledger::keys::{Challenge, KeyQuestion, KeyStatement, SignedKeyStatement};
use maxhost_ledger::refused::Refused;
use maxhost_ledger::tx::Signer;
use maxhost_ledger::tx::TransactionSignature;
use maxhost_ledger::tx::signature::sign;
use maxhost_ledger::vault::query::check_key_external_id;
use maxhost_model::network::PLATFORM_VERSION;
use maxhost_model::{FlowError, PublicKey, X500Name};
use maxhost_sandbox::{CallResult, GuestKey};
use maxhost_store::ledger::{KnownKey, LedgerOp};

use super::environment::LedgerEnvironment;
use super::key_ids::given_external_id;
use super::keys::{OwnSigner, given_key, guest_key};
use super::protocol::{Encoded, ToKeyOwner, ToVendor};
use super::refusal;
use super::steps::StepResult;
use crate::calls::FlowCalls;

/// The most keys that are shared at once.
const MAX_KEYS: usize = 100;

/// Whether a key that comes must be one that was never seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Age {
    New,
    Any,
}

fn challenge_of(Encoded(bytes): Encoded) -> Result<Challenge, FlowError> {
    let length = bytes.len();
    bytes.try_into().map_err(|_| refusal::protocol(format!("a challenge of {length} bytes, not 32")))
}

fn name_of(peer: &str) -> Result<X500Name, FlowError> {
    X500Name::parse(peer).map_err(|error| refusal::protocol(error.to_string()))
}

impl LedgerEnvironment {
    /// States that a key is this identity's own, to this requester.
    fn statement_on(
        &self,
        key: &impl Signer,
        requester: &X500Name,
        challenge: Challenge,
    ) -> maxhost_ledger::Result<Encoded> {
        let statement = KeyStatement {
            network: self.network(),
            key: key.key().clone(),
            party: self.us().clone(),
            requester: requester.clone(),
            challenge,
        };
        statement.sign(key, &self.signer())?.encode().map(Encoded)
    }

    /// Checks what a peer states of its keys, and notes those that are not known yet.
    async fn learn(
        &self,
        peer: &X500Name,
        challenge: &Challenge,
        stated: &[Encoded],
        age: Age,
    ) -> StepResult<Vec<Encoded>> {
        let Some(party) = self.party(peer)? else {
            return Ok(Err(refusal::protocol(format!("the network has no party {peer}"))));
        };
        let (network, requester) = (self.network(), &self.us().name);
        let asked = KeyQuestion { network: &network, party: &party, requester, challenge };
        let mut keys: Vec<PublicKey> = Vec::with_capacity(stated.len());
        for Encoded(bytes) in stated {
            let key = SignedKeyStatement::decode(bytes).and_then(|statement| statement.check(asked).cloned());
            match key {
                Ok(key) => keys.push(key),
                Err(refused) => return Ok(Err(refusal::refused(&refused))),
            }
        }
        let known = self.known_keys(&keys.iter().cloned().collect()).await?;
        let mut ops = Vec::new();
        for key in &keys {
            let refuse = |rule: Rule, message: String| {
                Ok(Err(refusal::refused(&Refused::new(rule, message).detail("key", key))))
            };
            match known.get(key) {
                Some(known) if known.party != peer.as_str() => {
                    return refuse(Rule::KeyOfAnother, format!("the key {key} is known to be that of {}", known.party));
                }
                // Who asks himself has noted the key when he made it.
                Some(known) if age == Age::New && known.nonce.is_none() => {
                    return refuse(Rule::KeyNotFresh, format!("the key {key} was given before"));
                }
                Some(_) => {}
                None => {
                    let party = peer.to_string();
                    let learnt = KnownKey { key: key.clone(), party, nonce: None, at: self.now() };
                    ops.push(LedgerOp::AddKey(Box::new(learnt)));
                }
            }
        }
        let keys = keys.iter().map(|key| Encoded(key.spki().to_vec())).collect();
        Ok(Ok((keys, ops)))
    }

    /// States for a requester that these keys are this identity's own.
    async fn states_of(
        &self,
        keys: &BTreeSet<PublicKey>,
        requester: &X500Name,
        challenge: Challenge,
    ) -> StepResult<Vec<Encoded>> {
        let signers = self.signers_among(keys).await?;
        let mut own: Vec<&OwnSigner<'_>> = signers.iter().collect();
        own.retain(|signer| matches!(signer, OwnSigner::Fresh(_)));
        if let Some(key) = keys.iter().find(|key| !own.iter().any(|signer| signer.key() == *key)) {
            let message = format!("the key {key} is none of those that this identity has made");
            return Ok(Err(refusal::refused(&Refused::new(Rule::KeyNotOwn, message).detail("key", key))));
        }
        let stated: maxhost_ledger::Result<Vec<Encoded>> =
            own.into_iter().map(|signer| self.statement_on(signer, requester, challenge)).collect();
        Ok(stated.map(|stated| (stated, Vec::new())).map_err(|refused| refusal::refused(&refused)))
    }

    /// The signatures of these keys, each of which must be an own one.
    async fn sign_as(&self, bytes: &[u8], keys: &BTreeSet<PublicKey>) -> StepResult<Vec<TransactionSignature>> {
        let signed = match self.given(bytes) {
            Ok(signed) => signed,
            Err(error) => return Ok(Err(error)),
        };
        let signers = self.signers_among(keys).await?;
        let not_own = keys.iter().find(|key| !signers.iter().any(|signer| signer.key() == *key));
        if let Some(key) = not_own {
            let message = format!("the key {key} is none of this identity's own");
            let refused = Refused::new(Rule::KeyNotOwn, message).of(signed.id()).detail("key", key);
            return Ok(Err(refusal::refused(&refused)));
        }
        let signatures = signers.iter().map(|signer| sign(&signed.id(), signer, PLATFORM_VERSION));
        let signatures: maxhost_ledger::Result<Vec<TransactionSignature>> = signatures.collect();
        Ok(signatures.map(|all| (all, Vec::new())).map_err(|refused| refusal::refused(&refused)))
    }
}

impl FlowCalls {
    /// Asks the other side of a session for a new key of its own.
    pub(crate) async fn request_key(&mut self, session: u32) -> CallResult<GuestKey> {
        let challenge = self.drawn();
        self.ask_for_key(session, challenge, &ToKeyOwner::NewKey(Encoded(challenge.to_vec()))).await
    }

    /// As [`FlowCalls::request_key`], for what the other side knows by an external id.
    pub(crate) async fn request_key_for(&mut self, session: u32, external_id: String) -> CallResult<GuestKey> {
        let external_id = given_external_id(external_id)?;
        let challenge = self.drawn();
        let request = ToKeyOwner::NewKeyFor { challenge: Encoded(challenge.to_vec()), external_id };
        self.ask_for_key(session, challenge, &request).await
    }

    async fn ask_for_key(&mut self, session: u32, challenge: Challenge, request: &ToKeyOwner) -> CallResult<GuestKey> {
        let stated: Vec<Encoded> = self.ask_peer(session, request).await?;
        if stated.len() != 1 {
            return Err(refusal::protocol(format!("{} keys came, and one was asked for", stated.len())).into());
        }
        let mut keys = self.learn_from(session, challenge, stated, Age::New).await?;
        match keys.pop() {
            Some(key) => Ok(key),
            None => Err(refusal::protocol("no key came").into()),
        }
    }

    /// The other side of [`FlowCalls::request_key`]: makes a key and gives it.
    pub(crate) async fn provide_key(&mut self, session: u32) -> CallResult<GuestKey> {
        let (nonce, peer) = (self.drawn(), name_of(&self.peer_of(session)?)?);
        let challenge = match self.hear(session).await? {
            ToKeyOwner::NewKey(challenge) => challenge,
            ToKeyOwner::NewKeyFor { .. } => {
                let text = "a new key for an external id was asked for: 'provide-key-for' makes one";
                return Err(refusal::protocol(text).into());
            }
            ToKeyOwner::SharedKeys(_) => {
                return Err(refusal::protocol("a request for a new key was expected").into());
            }
        };
        self.give_key(session, nonce, peer, challenge, None).await
    }

    /// The other side of [`FlowCalls::request_key_for`], and of [`FlowCalls::request_key`]: makes a key for an external id, and
    /// gives it. `None`: for the one that is asked for, if there is one. Whoever asks for another is refused. Gives the external
    /// id that the key has.
    pub(crate) async fn provide_key_for(
        &mut self,
        session: u32,
        external_id: Option<String>,
    ) -> CallResult<(GuestKey, Option<String>)> {
        let chosen = external_id.map(given_external_id).transpose()?;
        let (nonce, peer) = (self.drawn(), name_of(&self.peer_of(session)?)?);
        let (challenge, asked) = match self.hear(session).await? {
            ToKeyOwner::NewKey(challenge) => (challenge, None),
            ToKeyOwner::NewKeyFor { challenge, external_id } => match check_key_external_id(&external_id) {
                Ok(()) => (challenge, Some(external_id)),
                Err(wrong) => return Err(refusal::protocol(wrong).into()),
            },
            ToKeyOwner::SharedKeys(_) => {
                return Err(refusal::protocol("a request for a new key was expected").into());
            }
        };
        let external_id = match (chosen, asked) {
            (Some(chosen), Some(asked)) if chosen != asked => {
                // The peer hears this, and is not told for what the key would have been.
                let text = format!("a key for the external id '{asked}' was asked for, and none for it is given here");
                return Err(refusal::protocol(text).into());
            }
            (chosen, asked) => chosen.or(asked),
        };
        let key = self.give_key(session, nonce, peer, challenge, external_id.clone()).await?;
        Ok((key, external_id))
    }

    /// Makes a key from a nonce, and gives it to whoever has asked with this challenge.
    async fn give_key(
        &mut self,
        session: u32,
        nonce: [u8; 32],
        peer: X500Name,
        challenge: Encoded,
        external_id: Option<String>,
    ) -> CallResult<GuestKey> {
        let (challenge, environment) = (challenge_of(challenge)?, self.environment());
        let what = match &external_id {
            None => format!("make a key for {peer}"),
            Some(id) => format!("make a key for {peer} and the external id '{id}'"),
        };
        let (key, stated): (Encoded, Encoded) = self
            .step(&what, async move {
                let signer = OwnSigner::Fresh(Box::new(environment.own_key(&nonce)?));
                let key = signer.key().clone();
                let stated = match environment.statement_on(&signer, &peer, challenge) {
                    Ok(stated) => stated,
                    Err(refused) => return Ok(Err(refusal::refused(&refused))),
                };
                let spki = Encoded(key.spki().to_vec());
                let assigned = external_id.map(|id| environment.to_assign(&key, id));
                let ops = std::iter::once(environment.to_keep(key, nonce)).chain(assigned).collect();
                Ok(Ok(((spki, stated), ops)))
            })
            .await?;
        self.tell(session, &[stated]).await?;
        Ok(guest_key(key.0))
    }

    /// Tells the other side of a session, which runs [`FlowCalls::receive_keys`], that these keys are this identity's own.
    pub(crate) async fn share_keys(&mut self, session: u32, keys: &[Vec<u8>]) -> CallResult<()> {
        let keys = self.own_given(keys)?;
        let peer = name_of(&self.peer_of(session)?)?;
        let ToKeyOwner::SharedKeys(challenge) = self.hear(session).await? else {
            return Err(refusal::protocol("a request for keys that are known was expected").into());
        };
        let (challenge, environment) = (challenge_of(challenge)?, self.environment());
        let stated: Vec<Encoded> = self
            .step(&format!("tell {peer} about {} keys", keys.len()), async move {
                environment.states_of(&keys, &peer, challenge).await
            })
            .await?;
        self.tell(session, &stated).await
    }

    /// Learns from the other side of a session that keys are its own.
    pub(crate) async fn receive_keys(&mut self, session: u32) -> CallResult<Vec<GuestKey>> {
        let challenge = self.drawn();
        let stated: Vec<Encoded> = self.ask_peer(session, &ToKeyOwner::SharedKeys(Encoded(challenge.to_vec()))).await?;
        if stated.len() > MAX_KEYS {
            return Err(refusal::protocol(format!("{} keys came at once, {MAX_KEYS} may", stated.len())).into());
        }
        self.learn_from(session, challenge, stated, Age::Any).await
    }

    async fn learn_from(
        &mut self,
        session: u32,
        challenge: Challenge,
        stated: Vec<Encoded>,
        age: Age,
    ) -> CallResult<Vec<GuestKey>> {
        let (peer, environment) = (name_of(&self.peer_of(session)?)?, self.environment());
        let keys: Vec<Encoded> = self
            .step(&format!("check what {peer} says of {} keys", stated.len()), async move {
                environment.learn(&peer, &challenge, &stated, age).await
            })
            .await?;
        Ok(keys.into_iter().map(|key| guest_key(key.0)).collect())
    }

    /// Signs a transaction that was got with [`FlowCalls::receive_to_sign`] with these keys, and gives the signatures. Each
    /// must be missing and the identity's own.
    pub(crate) async fn return_signatures(&mut self, session: u32, bytes: Vec<u8>, keys: &[Vec<u8>]) -> CallResult<()> {
        let keys = self.own_given(keys)?;
        let ((signed, _), environment) = (self.given_ordinary(&bytes)?, self.environment());
        let missing = environment.missing(&signed);
        if keys.is_empty() || !keys.is_subset(&missing) {
            return Err(refusal::argument("a key is named that need not sign any more, or none at all").into());
        }
        let signatures: Vec<TransactionSignature> = self
            .step(&format!("sign {} with {} keys", signed.id(), keys.len()), async move {
                environment.sign_as(&bytes, &keys).await
            })
            .await?;
        self.tell(session, &ToVendor::Signed(signatures)).await
    }

    fn own_given(&self, keys: &[Vec<u8>]) -> CallResult<BTreeSet<PublicKey>> {
        if keys.len() > MAX_KEYS {
            return Err(refusal::argument(format!("{} keys at once, at most {MAX_KEYS}", keys.len())).into());
        }
        keys.iter().map(|key| given_key(key)).collect()
    }
}
