//! Signatures over transactions, alone or in batches, and what a notary states with its own (behaviour.md 10.13, 11.6).

use maxhost_model::{PublicKey, SecureHash, octets};
use serde::{Deserialize, Serialize};

use crate::codec;
use crate::keys::{Scheme, SigningKey, verify};
use crate::merkle::{MerkleTree, PartialTree};
use crate::refused::{Refused, Result};
use crate::rules::Rule;
use crate::time::Timestamp;

/// What a signer says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignatureMetadata {
    /// The platform version of the signing node.
    pub platform_version: u32,
    /// The number of the scheme; see [`Scheme`].
    pub scheme: u8,
}

/// What a notary has done with the transactions of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NotaryRole {
    /// It has checked that no input was spent before.
    Uniqueness,
    /// It has also verified the transactions and all they come from.
    Validated,
}

/// What a notary states about a batch, and signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NotaryStatement {
    /// What it has done.
    pub role: NotaryRole,
    /// Its clock when the batch was committed.
    pub committed_at: Timestamp,
    /// The number of the batch, rising from 1.
    pub batch: u64,
    /// The hash of the network parameters that were in force for the notary.
    pub parameters: SecureHash,
}

/// The bytes of a signature, in the form of the key's scheme.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
struct SignatureBytes(#[serde(with = "octets")] Vec<u8>);

/// A signature over one transaction, or over a batch that it is in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TransactionSignature {
    by: PublicKey,
    bytes: SignatureBytes,
    metadata: SignatureMetadata,
    /// For a batch: the tree over the hashes of its transaction ids, of which that of this transaction is shown.
    proof: Option<PartialTree>,
    notary: Option<NotaryStatement>,
}

/// What is signed. The purpose keeps a signature made for a transaction from being one over anything else.
#[derive(Serialize)]
struct Payload<'a> {
    purpose: &'static str,
    /// Whether `root` is that of a batch, and not a transaction id.
    batch: bool,
    root: &'a SecureHash,
    metadata: &'a SignatureMetadata,
    notary: &'a Option<NotaryStatement>,
}

const PURPOSE: &str = "maxhost transaction";

fn payload(
    root: &SecureHash,
    batch: bool,
    metadata: &SignatureMetadata,
    notary: &Option<NotaryStatement>,
) -> Result<Vec<u8>> {
    codec::encode("signature payload", &Payload { purpose: PURPOSE, batch, root, metadata, notary })
}

/// The leaf of a transaction in the tree of a batch: H(id), so that others in the batch do not learn the id.
#[must_use]
pub fn batch_leaf(id: &SecureHash) -> SecureHash {
    SecureHash::of(id.as_bytes())
}

/// Something that signs payloads: a key in memory, or one that is kept elsewhere.
pub trait Signer {
    /// The key that the signature will verify with.
    fn key(&self) -> &PublicKey;

    /// Signs a message in the form that [`verify`] takes.
    ///
    /// # Errors
    /// What keeps the key from signing.
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>>;
}

impl Signer for SigningKey {
    fn key(&self) -> &PublicKey {
        self.public()
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>> {
        Ok(SigningKey::sign(self, message))
    }
}

/// Signs one transaction.
///
/// # Errors
/// Those of the signer.
pub fn sign(id: &SecureHash, signer: &impl Signer, platform_version: u32) -> Result<TransactionSignature> {
    let metadata = SignatureMetadata { platform_version, scheme: Scheme::of(signer.key()).number() };
    let bytes = signer.sign(&payload(id, false, &metadata, &None)?)?;
    Ok(TransactionSignature {
        by: signer.key().clone(),
        bytes: SignatureBytes(bytes),
        metadata,
        proof: None,
        notary: None,
    })
}

/// Signs a batch with one signature, and gives each transaction its own proof, in the order of the ids. A notary states
/// what it has done; others sign batches without a statement.
///
/// # Errors
/// [`Rule::NothingSigned`] for an empty batch; those of the signer.
pub fn sign_batch(
    ids: &[SecureHash],
    statement: Option<NotaryStatement>,
    signer: &impl Signer,
    platform_version: u32,
) -> Result<Vec<TransactionSignature>> {
    if ids.is_empty() {
        return Err(Refused::new(Rule::NothingSigned, "a batch to sign is empty"));
    }
    let leaves: Vec<SecureHash> = ids.iter().map(batch_leaf).collect();
    let tree = MerkleTree::new(&leaves)?;
    let metadata = SignatureMetadata { platform_version, scheme: Scheme::of(signer.key()).number() };
    let bytes = SignatureBytes(signer.sign(&payload(&tree.root(), true, &metadata, &statement)?)?);
    let signature = |at: usize| {
        Ok(TransactionSignature {
            by: signer.key().clone(),
            bytes: bytes.clone(),
            metadata,
            proof: Some(tree.partial_at(&[at].into())?),
            notary: statement,
        })
    };
    (0..ids.len()).map(signature).collect()
}

impl TransactionSignature {
    /// The key that signed.
    #[must_use]
    pub fn by(&self) -> &PublicKey {
        &self.by
    }

    /// The signature itself.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes.0
    }

    /// What the signer says of itself.
    #[must_use]
    pub fn metadata(&self) -> &SignatureMetadata {
        &self.metadata
    }

    /// What a notary states, in a notary's signature.
    #[must_use]
    pub fn notary_statement(&self) -> Option<&NotaryStatement> {
        self.notary.as_ref()
    }

    /// Checks everything but the signature itself, and returns the message that it is over. Of a batch it is the same
    /// for all its transactions, so whoever has verified {key, message, signature} once may keep that.
    ///
    /// # Errors
    /// [`Rule::SchemeMismatch`] if the metadata name another scheme than that of the key; [`Rule::SignatureForeign`] if
    /// the proof does not show this transaction and nothing else, or a notary's statement comes without a batch.
    pub fn message(&self, id: &SecureHash) -> Result<Vec<u8>> {
        let scheme = Scheme::from_number(self.metadata.scheme);
        if scheme != Some(Scheme::of(&self.by)) && scheme != Some(Scheme::Composite) {
            let message = format!("the metadata name scheme {}, and the key is of another", self.metadata.scheme);
            return Err(Refused::new(Rule::SchemeMismatch, message).of(*id).detail("key", &self.by));
        }
        let foreign = |message: &str| Refused::new(Rule::SignatureForeign, message).of(*id).detail("key", &self.by);
        match &self.proof {
            None if self.notary.is_some() => Err(foreign("a notary's statement is over a batch, and this is none")),
            None => payload(id, false, &self.metadata, &self.notary),
            Some(tree) => {
                if tree.shown() != [batch_leaf(id)] {
                    return Err(foreign("the batch that was signed does not show this transaction"));
                }
                payload(&tree.root(), true, &self.metadata, &self.notary)
            }
        }
    }

    /// Checks the signature over this transaction.
    ///
    /// # Errors
    /// Those of [`TransactionSignature::message`]; [`Rule::SignatureInvalid`] if it does not verify.
    pub fn verify(&self, id: &SecureHash) -> Result<()> {
        self.verify_by(id, verify)
    }

    /// As [`TransactionSignature::verify`], by somebody who may know what [`verify`] says of this key, message and signature.
    ///
    /// # Errors
    /// Those of [`TransactionSignature::verify`].
    pub fn verify_by(&self, id: &SecureHash, verify: impl Fn(&PublicKey, &[u8], &[u8]) -> bool) -> Result<()> {
        if verify(&self.by, &self.message(id)?, self.bytes()) {
            return Ok(());
        }
        let message = format!("the signature of {} does not verify", self.by);
        Err(Refused::new(Rule::SignatureInvalid, message).of(*id).detail("key", &self.by))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn key(scheme: Scheme, byte: u8) -> SigningKey {
        SigningKey::from_seed(scheme, &[byte; 32]).unwrap()
    }

    fn id(number: u32) -> SecureHash {
        SecureHash::of(&number.to_be_bytes())
    }

    fn statement() -> NotaryStatement {
        NotaryStatement {
            role: NotaryRole::Uniqueness,
            committed_at: Timestamp::from_nanos(7),
            batch: 1,
            parameters: SecureHash::of(b"parameters"),
        }
    }

    #[test]
    fn every_scheme_signs_and_verifies() {
        for scheme in [Scheme::Ed25519, Scheme::EcdsaSecp256k1, Scheme::EcdsaSecp256r1] {
            let signature = sign(&id(1), &key(scheme, 3), 140).unwrap();
            signature.verify(&id(1)).unwrap();
            assert_eq!(signature.verify(&id(2)).unwrap_err().rule(), Rule::SignatureInvalid);
            let bytes = codec::encode("signature", &signature).unwrap();
            assert_eq!(codec::decode::<TransactionSignature>("signature", &bytes).unwrap(), signature);
        }
    }

    #[test]
    fn nothing_that_was_signed_can_be_changed() {
        let key = key(Scheme::Ed25519, 3);
        let whole = sign_batch(&[id(1), id(2), id(3)], Some(statement()), &key, 140).unwrap().remove(0);
        whole.verify(&id(1)).unwrap();
        let changed = |change: fn(&mut TransactionSignature)| {
            let mut signature = whole.clone();
            change(&mut signature);
            signature.verify(&id(1)).unwrap_err().rule()
        };
        assert_eq!(changed(|s| s.metadata.platform_version = 1), Rule::SignatureInvalid);
        assert_eq!(changed(|s| s.metadata.scheme = 1), Rule::SchemeMismatch);
        assert_eq!(changed(|s| s.metadata.scheme = 5), Rule::SchemeMismatch);
        assert_eq!(changed(|s| s.metadata.scheme = 6), Rule::SignatureInvalid);
        assert_eq!(changed(|s| s.notary = None), Rule::SignatureInvalid);
        assert_eq!(changed(|s| s.notary.as_mut().unwrap().batch = 2), Rule::SignatureInvalid);
        assert_eq!(changed(|s| s.notary.as_mut().unwrap().role = NotaryRole::Validated), Rule::SignatureInvalid);
        assert_eq!(changed(|s| s.proof = None), Rule::SignatureForeign);
        assert_eq!(
            changed(|s| {
                s.proof = None;
                s.notary = None;
            }),
            Rule::SignatureInvalid
        );
        assert_eq!(changed(|s| s.bytes.0[5] ^= 1), Rule::SignatureInvalid);
        assert_eq!(changed(|s| s.bytes.0.clear()), Rule::SignatureInvalid);
        assert_eq!(whole.verify(&id(2)).unwrap_err().rule(), Rule::SignatureForeign);
    }

    #[test]
    fn a_batch_root_is_no_transaction_id() {
        let key = key(Scheme::Ed25519, 3);
        let mut alone = sign_batch(&[id(1)], None, &key, 140).unwrap().remove(0);
        alone.verify(&id(1)).unwrap();
        alone.proof = None;
        assert_eq!(alone.verify(&batch_leaf(&id(1))).unwrap_err().rule(), Rule::SignatureInvalid);
        assert_eq!(sign_batch(&[], None, &key, 140).unwrap_err().rule(), Rule::NothingSigned);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn a_batch_covers_its_own_and_no_others(count in 1_u32..20, other in 0_u32..40) {
            let key = key(Scheme::Ed25519, 9);
            let ids: Vec<SecureHash> = (0..count).map(id).collect();
            let signatures = sign_batch(&ids, Some(statement()), &key, 140).unwrap();
            let message = signatures[0].message(&ids[0]).unwrap();
            for (signature, own) in signatures.iter().zip(&ids) {
                signature.verify(own).unwrap();
                prop_assert_eq!(&signature.message(own).unwrap(), &message);
                if id(other) != *own {
                    prop_assert_eq!(signature.verify(&id(other)).unwrap_err().rule(), Rule::SignatureForeign);
                }
            }
        }
    }
}
