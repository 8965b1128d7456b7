//! What the flows of a host have found out about transactions, so that neither the next step nor another flow finds it out
//! again.
//!
//! The id of a transaction commits to all that it says: to the states that it names and to the code that judges it. So what
//! was found good is good for ever, and for each identity of the host; only that is kept. What is part of a ledger is kept for
//! that one identity, because another must have it itself. All is bounded in bytes, and what was not used of late goes.

use std::sync::Arc;

use maxhost_ledger::Result as LedgerResult;
use maxhost_ledger::keys::verify;
use maxhost_ledger::notary::check_notarised_by;
use maxhost_ledger::time::TimeWindow;
use maxhost_ledger::tx::TransactionSignature;
use maxhost_model::{IdentityRow, PublicKey, SecureHash};
use maxhost_store::ledger::OutputState;
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use super::trace::Traced;
use super::transactions::Signed;

/// So many transactions are known to be accepted, and so many signatures to be good; each takes less than a hundred bytes.
const ACCEPTED: u64 = 32_768;
const VERIFIED: u64 = 32_768;
/// Bytes, about, of the descriptions of outputs, of what was read from ledgers, and of what was read from bytes.
const DESCRIBED: u64 = 4 << 20;
const RECORDED: u64 = 4 << 20;
const READ: u64 = 4 << 20;
/// The same, of states that changes of notary have made.
const MOVED: u64 = 4 << 20;
/// How many entries of each there are about; the tables begin with room for some of them.
const ENTRIES: usize = 1_024;
/// A decoded transaction takes so many bytes for each byte of its form, and so many beside.
const DECODED: usize = 4;
const BESIDE: usize = 512;

/// What the flows of one host have found out, in caches that are each bounded in bytes.
pub(crate) struct Findings {
    accepted: Cache<SecureHash, (), Weight>,
    verified: Cache<SecureHash, (), Weight>,
    described: Cache<SecureHash, Arc<[OutputState]>, Weight>,
    recorded: Cache<(IdentityRow, SecureHash), Weighed, Weight>,
    read: Cache<SecureHash, Weighed, Weight>,
    moved: Cache<SecureHash, Arc<[Traced]>, Weight>,
}

/// A transaction with the length of its form.
#[derive(Clone)]
struct Weighed {
    signed: Signed,
    length: usize,
}

/// How many bytes an entry takes.
#[derive(Clone)]
struct Weight;

/// Each weighs one.
impl<K> Weighter<K, ()> for Weight {
    fn weight(&self, _: &K, (): &()) -> u64 {
        1
    }
}

impl<K> Weighter<K, Weighed> for Weight {
    fn weight(&self, _: &K, found: &Weighed) -> u64 {
        (found.length.saturating_mul(DECODED) + BESIDE) as u64
    }
}

impl<K> Weighter<K, Arc<[OutputState]>> for Weight {
    fn weight(&self, _: &K, found: &Arc<[OutputState]>) -> u64 {
        // What is known of a state was found in its bytes.
        found.iter().map(|output| (output.content.state.len().saturating_mul(DECODED) + BESIDE) as u64).sum()
    }
}

impl<K> Weighter<K, Arc<[Traced]>> for Weight {
    fn weight(&self, _: &K, made: &Arc<[Traced]>) -> u64 {
        made.iter().map(|traced| (traced.state.data.bytes().len() + 2 * BESIDE) as u64).sum()
    }
}

impl Findings {
    pub fn new() -> Findings {
        Findings {
            accepted: Cache::with_weighter(ENTRIES, ACCEPTED, Weight),
            verified: Cache::with_weighter(ENTRIES, VERIFIED, Weight),
            described: Cache::with_weighter(ENTRIES, DESCRIBED, Weight),
            recorded: Cache::with_weighter(ENTRIES, RECORDED, Weight),
            read: Cache::with_weighter(ENTRIES, READ, Weight),
            moved: Cache::with_weighter(ENTRIES, MOVED, Weight),
        }
    }

    /// Whether the rules of the ledger and the contracts accept a transaction, under the parameters that it names.
    pub fn is_accepted(&self, id: &SecureHash) -> bool {
        self.accepted.get(id).is_some()
    }

    pub fn accept(&self, id: SecureHash) {
        self.accepted.insert(id, ());
    }

    /// [`Findings::verifies`], for whoever checks a transaction.
    pub fn verifier(&self) -> impl Fn(&PublicKey, &[u8], &[u8]) -> bool {
        |key: &PublicKey, message: &[u8], signature: &[u8]| self.verifies(key, message, signature)
    }

    /// As [`verify`]. A signature that was found good is not checked again: that of a notary covers a batch, and whoever takes
    /// part in a transaction of the batch checks it.
    pub fn verifies(&self, key: &PublicKey, message: &[u8], signature: &[u8]) -> bool {
        let (key_length, length) = (key.spki().len() as u64, message.len() as u64);
        let lengths = [key_length.to_be_bytes(), length.to_be_bytes()].concat();
        let whole = SecureHash::of(&[&lengths[..], key.spki(), message, signature].concat());
        if self.verified.get(&whole).is_some() {
            return true;
        }
        let is_good = verify(key, message, signature);
        if is_good {
            self.verified.insert(whole, ());
        }
        is_good
    }

    /// Checks a notary's answer, as [`maxhost_ledger::notary::check_notarised`] does.
    pub fn check_notarised(
        &self,
        id: &SecureHash,
        notary: &PublicKey,
        window: Option<TimeWindow>,
        signatures: &[TransactionSignature],
    ) -> LedgerResult<()> {
        check_notarised_by(id, notary, window, signatures, self.verifier())
    }

    /// What its contracts say of the outputs of a transaction.
    pub fn outputs(&self, id: &SecureHash) -> Option<Arc<[OutputState]>> {
        self.described.get(id)
    }

    pub fn describe(&self, id: SecureHash, outputs: Arc<[OutputState]>) {
        self.described.insert(id, outputs);
    }

    /// The states that a change of notary makes.
    pub fn moved(&self, id: &SecureHash) -> Option<Arc<[Traced]>> {
        self.moved.get(id)
    }

    /// Keeps them, of a change that was found good.
    pub fn keep_moved(&self, id: SecureHash, made: Arc<[Traced]>) {
        self.moved.insert(id, made);
    }

    /// A transaction that is part of an identity's ledger.
    pub fn recorded(&self, identity: IdentityRow, id: &SecureHash) -> Option<Signed> {
        self.recorded.get(&(identity, *id)).map(|found| found.signed)
    }

    /// Keeps a transaction that was read as a part of an identity's ledger: `length` bytes of it.
    pub fn record(&self, identity: IdentityRow, signed: &Signed, length: usize) {
        self.recorded.insert((identity, signed.id()), Weighed { signed: signed.clone(), length });
    }

    /// Reads a transaction from the bytes in which it travels. The same bytes are read once.
    pub fn decode(&self, bytes: &[u8]) -> LedgerResult<Signed> {
        let form = SecureHash::of(bytes);
        if let Some(found) = self.read.get(&form) {
            return Ok(found.signed);
        }
        let signed = Signed::decode(bytes)?;
        self.read.insert(form, Weighed { signed: signed.clone(), length: bytes.len() });
        Ok(signed)
    }

    /// Keeps what was just encoded: these bytes decode to it.
    pub fn encoded(&self, bytes: &[u8], signed: &Signed) {
        self.read.insert(SecureHash::of(bytes), Weighed { signed: signed.clone(), length: bytes.len() });
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::{BTreeMap, BTreeSet};

    use maxhost_ledger::keys::{Scheme, SigningKey};
    use maxhost_ledger::vault::recording::Described;
    use maxhost_store::ledger::StateContent;

    use super::*;

    fn output(bytes: usize) -> OutputState {
        let content = StateContent {
            type_name: "cash/Cash".to_owned(),
            state: vec![0; bytes].into(),
            notary: String::new(),
            constraint: String::new(),
            participants: BTreeSet::new(),
            fields: BTreeMap::new(),
            amount: None,
            linear_id: None,
        };
        OutputState { described: Described::default(), content }
    }

    #[test]
    fn what_is_kept_is_bounded_in_bytes() {
        let findings = Findings::new();
        for number in 0..40_000u32 {
            let id = SecureHash::of(&number.to_be_bytes());
            findings.accept(id);
            findings.describe(id, vec![output(1_000)].into());
            assert!(findings.described.weight() <= DESCRIBED);
        }
        assert!(findings.accepted.weight() <= ACCEPTED);
        assert!(findings.described.len() as u64 * 4_000 <= DESCRIBED, "{} kept", findings.described.len());
        let large = SecureHash::of(b"large");
        findings.describe(large, vec![output(DESCRIBED as usize)].into());
        assert!(findings.outputs(&large).is_none(), "what is larger than all that may be kept is not kept");
    }

    #[test]
    fn a_signature_that_is_good_for_one_message_is_good_for_no_other() {
        let findings = Findings::new();
        let keys = [1, 2].map(|byte| SigningKey::from_seed(Scheme::Ed25519, &[byte; 32]).unwrap());
        let signature = keys[0].sign(b"message");
        for _ in 0..2 {
            assert!(findings.verifies(keys[0].public(), b"message", &signature));
            assert!(!findings.verifies(keys[1].public(), b"message", &signature));
            assert!(!findings.verifies(keys[0].public(), b"messag", &[b"e", &signature[..]].concat()));
            assert!(!findings.verifies(keys[0].public(), b"another", &signature));
            assert_eq!(findings.verified.len(), 1, "only what is good is kept");
        }
        for number in 0..VERIFIED + 1_000 {
            findings.verified.insert(SecureHash::of(&number.to_be_bytes()), ());
        }
        assert!(findings.verified.weight() <= VERIFIED);
    }
}
