//! A transaction with its signatures (behaviour.md 10.13).

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};

use maxhost_model::{PublicKey, SecureHash, octets};
use serde::{Deserialize, Serialize};

use super::notary_change::NotaryChange;
use super::signature::TransactionSignature;
use super::wire::WireTransaction;
use crate::codec;
use crate::keys::is_fulfilled_by;
use crate::refused::{Refused, Result};
use crate::rules::Rule;

/// The most signatures that a transaction may carry: a bound on the time that checking them takes.
pub const MAX_SIGNATURES: usize = 1024;

/// What is signed: an ordinary transaction, or a change of notary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Core {
    /// An ordinary transaction.
    Wire(Arc<WireTransaction>),
    /// A change of notary.
    NotaryChange(Box<NotaryChange>),
}

impl Core {
    /// The id.
    #[must_use]
    pub fn id(&self) -> SecureHash {
        match self {
            Core::Wire(wire) => wire.id(),
            Core::NotaryChange(change) => change.id(),
        }
    }
}

/// A transaction and at least one signature. Nothing about the signatures is verified by having one of these.
#[derive(Debug, Clone)]
pub struct SignedTransaction {
    core: Core,
    signatures: Vec<TransactionSignature>,
    /// Set once all signatures were found good. Clones share it; neither they nor this can get other signatures.
    checked: Arc<OnceLock<()>>,
}

/// The form in which it travels.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope {
    kind: Kind,
    #[serde(with = "octets")]
    transaction: Vec<u8>,
    signatures: Vec<TransactionSignature>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Kind {
    Ordinary,
    NotaryChange,
}

impl SignedTransaction {
    /// Joins a transaction and its signatures.
    ///
    /// # Errors
    /// [`Rule::NothingSigned`] without a signature, [`Rule::SignaturesTooMany`] with more than [`MAX_SIGNATURES`].
    pub fn new(core: Core, signatures: Vec<TransactionSignature>) -> Result<SignedTransaction> {
        if signatures.is_empty() {
            return Err(Refused::new(Rule::NothingSigned, "a signed transaction has a signature").of(core.id()));
        }
        if signatures.len() > MAX_SIGNATURES {
            let message = format!("there are more than {MAX_SIGNATURES} signatures");
            return Err(Refused::new(Rule::SignaturesTooMany, message).of(core.id()));
        }
        Ok(SignedTransaction { core, signatures, checked: Arc::default() })
    }

    /// Reads the bytes in which it travels.
    ///
    /// # Errors
    /// Those of [`WireTransaction::decode`] and of [`SignedTransaction::new`].
    pub fn decode(bytes: &[u8]) -> Result<SignedTransaction> {
        let envelope: Envelope = codec::decode("signed transaction", bytes)?;
        let core = match envelope.kind {
            Kind::Ordinary => Core::Wire(Arc::new(WireTransaction::decode(&envelope.transaction)?)),
            Kind::NotaryChange => Core::NotaryChange(Box::new(NotaryChange::decode(&envelope.transaction)?)),
        };
        SignedTransaction::new(core, envelope.signatures)
    }

    /// The bytes in which it travels.
    ///
    /// # Errors
    /// As [`codec::encode`].
    pub fn encode(&self) -> Result<Vec<u8>> {
        let (kind, transaction) = match &self.core {
            Core::Wire(wire) => (Kind::Ordinary, wire.encode()?),
            Core::NotaryChange(change) => (Kind::NotaryChange, change.encode()?),
        };
        codec::encode("signed transaction", &Envelope { kind, transaction, signatures: self.signatures.clone() })
    }

    /// The bytes in which an ordinary transaction travels, from those that it was stored as, and its signatures.
    ///
    /// # Errors
    /// As [`codec::encode`].
    pub fn joined(body: &[u8], signatures: Vec<TransactionSignature>) -> Result<Vec<u8>> {
        let (kind, transaction) = (Kind::Ordinary, body.to_vec());
        codec::encode("signed transaction", &Envelope { kind, transaction, signatures })
    }

    /// What is signed.
    #[must_use]
    pub fn core(&self) -> &Core {
        &self.core
    }

    /// The id.
    #[must_use]
    pub fn id(&self) -> SecureHash {
        self.core.id()
    }

    /// The signatures.
    #[must_use]
    pub fn signatures(&self) -> &[TransactionSignature] {
        &self.signatures
    }

    /// With further signatures; one that is there already is not added again.
    ///
    /// # Errors
    /// [`Rule::SignaturesTooMany`].
    pub fn plus(&self, more: impl IntoIterator<Item = TransactionSignature>) -> Result<SignedTransaction> {
        let mut signatures = self.signatures.clone();
        for signature in more {
            if !signatures.contains(&signature) {
                signatures.push(signature);
            }
        }
        SignedTransaction::new(self.core.clone(), signatures)
    }

    /// The keys that have signed, whether or not their signatures verify.
    #[must_use]
    pub fn signers(&self) -> BTreeSet<&PublicKey> {
        self.signatures.iter().map(TransactionSignature::by).collect()
    }

    /// Those of the required keys that the signers do not fulfil.
    #[must_use]
    pub fn missing<'a>(&self, required: impl IntoIterator<Item = &'a PublicKey>) -> BTreeSet<PublicKey> {
        let signers = self.signers();
        required.into_iter().filter(|key| !is_fulfilled_by(key, &signers)).cloned().collect()
    }

    /// Checks that each required key has signed, but for those excepted, and that each signature present verifies. What
    /// is missing is told before what does not verify. For an ordinary transaction `required` is
    /// [`WireTransaction::required_keys`]; for a change of notary the participants of its states besides.
    ///
    /// # Errors
    /// [`Rule::SignatureMissing`] with the keys in `keys`; those of [`TransactionSignature::verify`].
    pub fn verify_signatures_except(&self, required: &BTreeSet<PublicKey>, except: &BTreeSet<PublicKey>) -> Result<()> {
        let missing = self.missing(required.iter().filter(|key| !except.contains(key)));
        if !missing.is_empty() {
            let keys: Vec<String> = missing.iter().map(ToString::to_string).collect();
            let message = format!("{} required keys have not signed: {}", keys.len(), keys.join(", "));
            return Err(Refused::new(Rule::SignatureMissing, message).of(self.id()).detail("keys", keys.join(",")));
        }
        self.check_signatures()
    }

    /// Checks that each required key has signed, and that each signature present verifies.
    ///
    /// # Errors
    /// As [`SignedTransaction::verify_signatures_except`].
    pub fn verify_signatures(&self, required: &BTreeSet<PublicKey>) -> Result<()> {
        self.verify_signatures_except(required, &BTreeSet::new())
    }

    /// Checks that each signature present verifies. What was found good is not checked again.
    ///
    /// # Errors
    /// As [`TransactionSignature::verify`].
    pub fn check_signatures(&self) -> Result<()> {
        if self.checked.get().is_some() {
            return Ok(());
        }
        let id = self.id();
        self.signatures.iter().try_for_each(|signature| signature.verify(&id))?;
        self.checked.get_or_init(|| ());
        Ok(())
    }
}

/// By id and signatures.
impl PartialEq for SignedTransaction {
    fn eq(&self, other: &SignedTransaction) -> bool {
        self.id() == other.id() && self.signatures == other.signatures
    }
}

impl Eq for SignedTransaction {}
