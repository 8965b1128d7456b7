//! What a notary is asked (behaviour.md 11.1).

use maxhost_model::{PublicKey, SecureHash, octets};
use serde::{Deserialize, Serialize};

use crate::codec;
use crate::keys::verify;
use crate::refused::{Refused, Result};
use crate::rules::Rule;
use crate::tx::{FilteredTransaction, SignedTransaction, Signer, StateRef};

/// The transaction to notarise, as much of it as the notary is to see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotaryPayload {
    /// All of it, for a notary that validates, and a change of notary for any.
    Full(Box<SignedTransaction>),
    /// A tear-off, for a notary that does not validate.
    Filtered(Box<FilteredTransaction>),
}

impl NotaryPayload {
    /// The id of the transaction.
    #[must_use]
    pub fn id(&self) -> SecureHash {
        match self {
            NotaryPayload::Full(signed) => signed.id(),
            NotaryPayload::Filtered(filtered) => filtered.id(),
        }
    }

    /// The hash of its network parameters, if it is shown.
    #[must_use]
    pub fn parameters(&self) -> Option<&SecureHash> {
        match self {
            NotaryPayload::Full(signed) => signed.core().parameters(),
            NotaryPayload::Filtered(filtered) => filtered.contents().parameters.as_ref(),
        }
    }

    /// Its inputs, as far as they are shown.
    #[must_use]
    pub fn inputs(&self) -> &[StateRef] {
        match self {
            NotaryPayload::Full(signed) => signed.core().inputs(),
            NotaryPayload::Filtered(filtered) => &filtered.contents().inputs,
        }
    }
}

/// The caller's signature over the request: proof of who has asked for what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RequestSignature {
    /// The legal identity's key.
    pub by: PublicKey,
    /// The signature.
    #[serde(with = "octets")]
    pub bytes: Vec<u8>,
}

/// A request to a notary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotaryRequest {
    /// What is to be notarised.
    pub payload: NotaryPayload,
    /// Who asks.
    pub signature: RequestSignature,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope {
    kind: Kind,
    #[serde(with = "octets")]
    payload: Vec<u8>,
    signature: RequestSignature,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Kind {
    Full,
    Filtered,
}

/// What the caller signs.
#[derive(Serialize)]
struct Signable<'a> {
    purpose: &'static str,
    inputs: &'a [StateRef],
    id: &'a SecureHash,
}

fn signable(id: &SecureHash, inputs: &[StateRef]) -> Result<Vec<u8>> {
    let mut inputs = inputs.to_vec();
    inputs.sort_unstable();
    codec::encode("notary request", &Signable { purpose: "maxhost notary request", inputs: &inputs, id })
}

impl NotaryRequest {
    /// Signs a request.
    ///
    /// # Errors
    /// Those of the signer.
    pub fn sign(payload: NotaryPayload, caller: &impl Signer) -> Result<NotaryRequest> {
        let bytes = caller.sign(&signable(&payload.id(), payload.inputs())?)?;
        Ok(NotaryRequest { payload, signature: RequestSignature { by: caller.key().clone(), bytes } })
    }

    /// Checks that this caller signed the request for these inputs and this id.
    ///
    /// # Errors
    /// [`Rule::RequestSignatureInvalid`].
    pub fn check_signature(&self, caller: &PublicKey) -> Result<()> {
        let refuse = |message: &str| Err(Refused::new(Rule::RequestSignatureInvalid, message).of(self.payload.id()));
        if self.signature.by != *caller {
            return refuse("the request is signed by another than the caller");
        }
        if !verify(caller, &signable(&self.payload.id(), self.payload.inputs())?, &self.signature.bytes) {
            return refuse("the signature of the request does not verify");
        }
        Ok(())
    }

    /// Reads the bytes in which it travels.
    ///
    /// # Errors
    /// Those of [`SignedTransaction::decode`] and [`FilteredTransaction::decode`].
    pub fn decode(bytes: &[u8]) -> Result<NotaryRequest> {
        let envelope: Envelope = codec::decode("notary request", bytes)?;
        let payload = match envelope.kind {
            Kind::Full => NotaryPayload::Full(Box::new(SignedTransaction::decode(&envelope.payload)?)),
            Kind::Filtered => NotaryPayload::Filtered(Box::new(FilteredTransaction::decode(&envelope.payload)?)),
        };
        Ok(NotaryRequest { payload, signature: envelope.signature })
    }

    /// The bytes in which it travels.
    ///
    /// # Errors
    /// As [`codec::encode`].
    pub fn encode(&self) -> Result<Vec<u8>> {
        let (kind, payload) = match &self.payload {
            NotaryPayload::Full(signed) => (Kind::Full, signed.encode()?),
            NotaryPayload::Filtered(filtered) => (Kind::Filtered, filtered.encode()?),
        };
        codec::encode("notary request", &Envelope { kind, payload, signature: self.signature.clone() })
    }
}
