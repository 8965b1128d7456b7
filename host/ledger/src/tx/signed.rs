//! A transaction with its signatures (behaviour.md 10.13).

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};

use maxhost_model::{Party, PublicKey, SecureHash, octets};
use serde::{Deserialize, Serialize};

use super::header::Header;
use super::notary_change::NotaryChange;
use super::signature::TransactionSignature;
use super::state::StateRef;
use super::wire::WireTransaction;
use crate::codec;
use crate::keys::{is_fulfilled_by, verify};
use crate::refused::{Refused, Result};
use crate::rules::Rule;
use crate::time::TimeWindow;

/// The most signatures that a transaction may carry: a bound on the time that checking them takes.
pub const MAX_SIGNATURES: usize = 1024;

/// What is signed: an ordinary transaction, or a change of notary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Core {
    /// An ordinary transaction.
    Wire(Arc<WireTransaction>),
    /// A change of notary.
    NotaryChange(Arc<NotaryChange>),
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

    /// Which kind it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Core::Wire(_) => Kind::Ordinary,
            Core::NotaryChange(_) => Kind::NotaryChange,
        }
    }

    /// Reads the bytes in which a transaction of this kind travels, without signatures.
    ///
    /// # Errors
    /// Those of [`WireTransaction::decode`] and of [`NotaryChange::decode`].
    pub fn decode(kind: Kind, bytes: &[u8]) -> Result<Core> {
        Ok(match kind {
            Kind::Ordinary => Core::Wire(Arc::new(WireTransaction::decode(bytes)?)),
            Kind::NotaryChange => Core::NotaryChange(Arc::new(NotaryChange::decode(bytes)?)),
        })
    }

    /// As [`Core::decode`], for bytes that were read before as a transaction of this id.
    ///
    /// # Errors
    /// Those of [`WireTransaction::decode_known`] and of [`NotaryChange::decode`].
    pub fn decode_known(kind: Kind, id: &SecureHash, bytes: &[u8]) -> Result<Core> {
        match kind {
            Kind::Ordinary => Ok(Core::Wire(Arc::new(WireTransaction::decode_known(id, bytes)?))),
            Kind::NotaryChange => Core::decode(kind, bytes),
        }
    }

    /// The bytes in which it travels, without signatures.
    ///
    /// # Errors
    /// As [`codec::encode`].
    pub fn encode(&self) -> Result<Vec<u8>> {
        match self {
            Core::Wire(wire) => wire.encode(),
            Core::NotaryChange(change) => change.encode(),
        }
    }

    /// Its header.
    #[must_use]
    pub fn header(&self) -> &Header {
        match self {
            Core::Wire(wire) => &wire.contents().header,
            Core::NotaryChange(change) => &change.contents().header,
        }
    }

    /// The states that it consumes.
    #[must_use]
    pub fn inputs(&self) -> &[StateRef] {
        match self {
            Core::Wire(wire) => &wire.contents().inputs,
            Core::NotaryChange(change) => &change.contents().inputs,
        }
    }

    /// The states that it looks at.
    #[must_use]
    pub fn references(&self) -> &[StateRef] {
        match self {
            Core::Wire(wire) => &wire.contents().references,
            Core::NotaryChange(_) => &[],
        }
    }

    /// What is attached to it.
    #[must_use]
    pub fn attachments(&self) -> &[SecureHash] {
        match self {
            Core::Wire(wire) => &wire.contents().attachments,
            Core::NotaryChange(_) => &[],
        }
    }

    /// The notary that it names: the old one, for a change of notary.
    #[must_use]
    pub fn notary(&self) -> Option<&Party> {
        match self {
            Core::Wire(wire) => wire.contents().notary.as_ref(),
            Core::NotaryChange(change) => Some(&change.contents().notary),
        }
    }

    /// The hash of the network parameters that it names.
    #[must_use]
    pub fn parameters(&self) -> Option<&SecureHash> {
        match self {
            Core::Wire(wire) => wire.contents().parameters.as_ref(),
            Core::NotaryChange(change) => Some(&change.contents().parameters),
        }
    }

    /// When it may be notarised.
    #[must_use]
    pub fn time_window(&self) -> Option<TimeWindow> {
        match self {
            Core::Wire(wire) => wire.contents().time_window,
            Core::NotaryChange(change) => Some(change.time_window()),
        }
    }

    /// Whether a notary must sign it.
    #[must_use]
    pub fn needs_notary(&self) -> bool {
        match self {
            Core::Wire(wire) => wire.needs_notary(),
            Core::NotaryChange(_) => true,
        }
    }

    /// The keys of the parties that must sign, as far as it tells by itself: for a change of notary those of the participants
    /// of its states. Whether its notary has notarised it is another matter ([`crate::notary::check_final`]).
    #[must_use]
    pub fn party_keys(&self) -> BTreeSet<PublicKey> {
        match self {
            Core::Wire(wire) => wire.party_keys(),
            Core::NotaryChange(_) => BTreeSet::new(),
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

/// The kinds of transactions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// An ordinary one.
    Ordinary,
    /// A change of notary.
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
        SignedTransaction::new(Core::decode(envelope.kind, &envelope.transaction)?, envelope.signatures)
    }

    /// The bytes in which it travels.
    ///
    /// # Errors
    /// As [`codec::encode`].
    pub fn encode(&self) -> Result<Vec<u8>> {
        let (kind, transaction) = (self.core.kind(), self.core.encode()?);
        codec::encode("signed transaction", &Envelope { kind, transaction, signatures: self.signatures.clone() })
    }

    /// The bytes in which a transaction of this kind travels, from those that it was stored as, and its signatures.
    ///
    /// # Errors
    /// As [`codec::encode`].
    pub fn joined(kind: Kind, body: &[u8], signatures: Vec<TransactionSignature>) -> Result<Vec<u8>> {
        let transaction = body.to_vec();
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

    /// The keys that have signed as parties, whether or not their signatures verify. What a notary states about a transaction
    /// is no signature of a party, even if the notary is a party too.
    #[must_use]
    pub fn signers(&self) -> BTreeSet<&PublicKey> {
        let of_parties = self.signatures.iter().filter(|signature| signature.notary_statement().is_none());
        of_parties.map(TransactionSignature::by).collect()
    }

    /// Those of the keys of parties that the signers do not fulfil.
    #[must_use]
    pub fn missing<'a>(&self, required: impl IntoIterator<Item = &'a PublicKey>) -> BTreeSet<PublicKey> {
        let signers = self.signers();
        required.into_iter().filter(|key| !is_fulfilled_by(key, &signers)).cloned().collect()
    }

    /// Checks that each of these parties has signed, and that each signature present verifies. What is missing is told before
    /// what does not verify. For an ordinary transaction the parties are [`WireTransaction::party_keys`]; for a change of
    /// notary the participants of its states.
    ///
    /// # Errors
    /// [`Rule::SignatureMissing`] with the keys in `keys`; those of [`TransactionSignature::verify`].
    pub fn verify_signatures(&self, parties: &BTreeSet<PublicKey>) -> Result<()> {
        self.verify_signatures_by(parties, verify)
    }

    /// As [`SignedTransaction::verify_signatures`], by somebody who may know what [`verify`] says of a signature.
    ///
    /// # Errors
    /// Those of [`SignedTransaction::verify_signatures`].
    pub fn verify_signatures_by(
        &self,
        parties: &BTreeSet<PublicKey>,
        verify: impl Fn(&PublicKey, &[u8], &[u8]) -> bool,
    ) -> Result<()> {
        let missing = self.missing(parties);
        if !missing.is_empty() {
            let keys: Vec<String> = missing.iter().map(ToString::to_string).collect();
            let message = format!("{} required keys have not signed: {}", keys.len(), keys.join(", "));
            return Err(Refused::new(Rule::SignatureMissing, message).of(self.id()).detail("keys", keys.join(",")));
        }
        self.check_signatures_by(verify)
    }

    /// Checks that each signature present verifies. What was found good is not checked again.
    ///
    /// # Errors
    /// As [`TransactionSignature::verify`].
    pub fn check_signatures(&self) -> Result<()> {
        self.check_signatures_by(verify)
    }

    /// As [`SignedTransaction::check_signatures`], by somebody who may know what [`verify`] says of a signature.
    ///
    /// # Errors
    /// Those of [`SignedTransaction::check_signatures`].
    pub fn check_signatures_by(&self, verify: impl Fn(&PublicKey, &[u8], &[u8]) -> bool) -> Result<()> {
        if self.checked.get().is_some() {
            return Ok(());
        }
        let id = self.id();
        self.signatures.iter().try_for_each(|signature| signature.verify_by(&id, &verify))?;
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
