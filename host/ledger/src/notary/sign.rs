//! A notary's signatures: one for each batch (behaviour.md 11.6).

use std::collections::{BTreeMap, BTreeSet};

use maxhost_model::{PublicKey, SecureHash};

use super::uniqueness::BatchStamp;
use crate::keys::{is_fulfilled_by, leaves, verify};
use crate::refused::{Refused, Result};
use crate::rules::Rule;
use crate::time::TimeWindow;
use crate::tx::signature::sign_batch;
use crate::tx::{Core, NotaryRole, NotaryStatement, Signer, TransactionSignature};

/// Signs transactions that are committed: those of one batch with one signature. A transaction that is asked for again is
/// signed for the batch in which it was committed, so a statement is true whenever it is made. The answers are in the order
/// given; a transaction that is given twice is signed once.
///
/// # Errors
/// Those of the signer.
pub fn sign_committed(
    committed: &[(SecureHash, BatchStamp)],
    role: NotaryRole,
    parameters: SecureHash,
    signer: &impl Signer,
    platform_version: u32,
) -> Result<Vec<TransactionSignature>> {
    let mut batches: BTreeMap<BatchStamp, Vec<SecureHash>> = BTreeMap::new();
    let mut place: BTreeMap<SecureHash, TransactionSignature> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for (id, stamp) in committed.iter().filter(|(id, _)| seen.insert(*id)) {
        batches.entry(*stamp).or_default().push(*id);
    }
    for (stamp, ids) in &batches {
        let statement = NotaryStatement { role, committed_at: stamp.at, batch: stamp.batch, parameters };
        let signatures = sign_batch(ids, Some(statement), signer, platform_version)?;
        place.extend(ids.iter().copied().zip(signatures));
    }
    let signed = |(id, _): &(SecureHash, BatchStamp)| {
        let missing = || Refused::new(Rule::NothingSigned, "a committed transaction was not signed").of(*id);
        place.get(id).cloned().ok_or_else(missing)
    };
    committed.iter().map(signed).collect()
}

/// Checks a notary's answer: its signatures fulfil its key and are by no other, each verifies over the transaction and states
/// that the commit was inside of the time-window.
///
/// # Errors
/// [`Rule::SignatureMissing`], [`Rule::SignatureForeign`] for a signature of another key or without a notary's statement,
/// [`Rule::TimeWindowInvalid`], and those of [`TransactionSignature::verify`].
pub fn check_notarised(
    id: &SecureHash,
    notary: &PublicKey,
    window: Option<TimeWindow>,
    signatures: &[TransactionSignature],
) -> Result<()> {
    check_notarised_by(id, notary, window, signatures, verify)
}

/// As [`check_notarised`], by somebody who may know what [`verify`] says of a signature: one covers a whole batch.
///
/// # Errors
/// Those of [`check_notarised`].
pub fn check_notarised_by(
    id: &SecureHash,
    notary: &PublicKey,
    window: Option<TimeWindow>,
    signatures: &[TransactionSignature],
    verify: impl Fn(&PublicKey, &[u8], &[u8]) -> bool,
) -> Result<()> {
    check_fulfilled(id, notary, signatures.iter())?;
    let keys = leaves(notary);
    for signature in signatures {
        signature.verify_by(id, &verify)?;
        if !keys.contains(signature.by()) {
            let refused =
                Refused::new(Rule::SignatureForeign, "a signature in the notary's answer is not the notary's");
            return Err(refused.of(*id).detail("key", signature.by()));
        }
        check_statement(id, window, signature)?;
    }
    Ok(())
}

/// Checks that a transaction is notarised, if it needs a notary: of its signatures those that the notary has made with a
/// statement fulfil its key, and state that the commit was inside of the time-window. A plain signature of the notary's key is
/// that of a party and says nothing about inputs. Whether the signatures verify is looked at elsewhere
/// ([`crate::tx::SignedTransaction::check_signatures`]).
///
/// # Errors
/// [`Rule::SignatureMissing`], [`Rule::TimeWindowInvalid`].
pub fn check_final(core: &Core, signatures: &[TransactionSignature]) -> Result<()> {
    let Some(notary) = core.notary().filter(|_| core.needs_notary()) else { return Ok(()) };
    let (id, keys) = (core.id(), leaves(&notary.owning_key));
    let of_notary =
        |signature: &&TransactionSignature| signature.notary_statement().is_some() && keys.contains(signature.by());
    check_fulfilled(&id, &notary.owning_key, signatures.iter().filter(of_notary))?;
    let window = core.time_window();
    signatures.iter().filter(of_notary).try_for_each(|signature| check_statement(&id, window, signature))
}

fn check_fulfilled<'a>(
    id: &SecureHash,
    notary: &PublicKey,
    signatures: impl Iterator<Item = &'a TransactionSignature>,
) -> Result<()> {
    if is_fulfilled_by(notary, &signatures.map(TransactionSignature::by).collect()) {
        return Ok(());
    }
    let message = format!("the notary's key {notary} is not fulfilled by signatures that state what it has done");
    Err(Refused::new(Rule::SignatureMissing, message).of(*id).detail("keys", notary))
}

fn check_statement(id: &SecureHash, window: Option<TimeWindow>, signature: &TransactionSignature) -> Result<()> {
    let statement = signature
        .notary_statement()
        .ok_or_else(|| Refused::new(Rule::SignatureForeign, "a notary's signature states what it has done").of(*id))?;
    match window.filter(|window| !window.contains(statement.committed_at)) {
        None => Ok(()),
        Some(window) => {
            let message =
                format!("it was committed at {}, outside of the time-window {window}", statement.committed_at);
            Err(Refused::new(Rule::TimeWindowInvalid, message).of(*id))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use super::*;
    use crate::fixtures::{NOTARY_KEY, command, contents, key, network, parameters_hash, reference, signing_key, wire};
    use crate::time::Timestamp;
    use crate::tx::{Contents, SignedTransaction, signature};

    fn stamp(batch: u64, at: u64) -> BatchStamp {
        BatchStamp { batch, at: Timestamp::from_nanos(at) }
    }

    #[test]
    fn a_batch_has_one_signature_and_a_repeat_that_of_its_own_batch() {
        let ids: Vec<SecureHash> = (0..4).map(|number| reference(number).tx).collect();
        let committed =
            [(ids[0], stamp(2, 20)), (ids[1], stamp(2, 20)), (ids[2], stamp(1, 10)), (ids[0], stamp(2, 20))];
        let signer = signing_key(NOTARY_KEY);
        let signed = sign_committed(&committed, NotaryRole::Uniqueness, parameters_hash(), &signer, 140).unwrap();
        assert_eq!(signed.len(), 4);
        assert_eq!(signed[0].bytes(), signed[1].bytes());
        assert_ne!(signed[0].bytes(), signed[2].bytes());
        assert_eq!(signed[0], signed[3]);
        let notary = key(NOTARY_KEY);
        for ((id, stamp), signature) in committed.iter().zip(&signed) {
            check_notarised(id, &notary, None, std::slice::from_ref(signature)).unwrap();
            assert_eq!(signature.notary_statement().unwrap().committed_at, stamp.at);
        }
    }

    #[test]
    fn an_answer_is_checked() {
        let id = network();
        let signer = signing_key(NOTARY_KEY);
        let signed =
            sign_committed(&[(id, stamp(1, 10))], NotaryRole::Uniqueness, parameters_hash(), &signer, 140).unwrap();
        let rule = |key: &PublicKey, window, signatures: &[TransactionSignature]| {
            check_notarised(&id, key, window, signatures).err().map(|refused| refused.rule())
        };
        let notary = key(NOTARY_KEY);
        let until = |nanos| Some(TimeWindow::until_only(Timestamp::from_nanos(nanos)));
        assert_eq!(rule(&notary, until(11), &signed), None);
        assert_eq!(rule(&notary, until(10), &signed), Some(Rule::TimeWindowInvalid));
        assert_eq!(rule(&key(1), None, &signed), Some(Rule::SignatureMissing));
        assert_eq!(rule(&notary, None, &[]), Some(Rule::SignatureMissing));
        let plain = signature::sign(&id, &signer, 140).unwrap();
        assert_eq!(rule(&notary, None, &[plain]), Some(Rule::SignatureForeign));
        let other = sign_committed(
            &[(parameters_hash(), stamp(1, 10))],
            NotaryRole::Uniqueness,
            parameters_hash(),
            &signer,
            140,
        );
        assert_eq!(rule(&notary, None, &other.unwrap()), Some(Rule::SignatureForeign));
    }

    /// A party may be the notary: what it signs as the one does not count as the other.
    #[test]
    fn a_plain_signature_of_the_notarys_key_is_no_notarisation() {
        let mut contents = contents();
        contents.time_window = Some(TimeWindow::until_only(Timestamp::from_nanos(11)));
        contents.commands = vec![command(&[NOTARY_KEY])];
        let signer = signing_key(NOTARY_KEY);
        let core = |contents: &Contents| Core::Wire(Arc::new(wire(contents)));
        let rule = |core: &Core, signatures: &[TransactionSignature]| {
            check_final(core, signatures).err().map(|refused| refused.rule())
        };
        let spends = core(&contents);
        let id = spends.id();
        let committed = |at| {
            sign_committed(&[(id, stamp(1, at))], NotaryRole::Uniqueness, parameters_hash(), &signer, 140)
                .unwrap()
                .remove(0)
        };
        let plain = signature::sign(&id, &signer, 140).unwrap();
        assert_eq!(rule(&spends, std::slice::from_ref(&plain)), Some(Rule::SignatureMissing));
        assert_eq!(rule(&spends, &[plain.clone(), committed(10)]), None);
        assert_eq!(rule(&spends, &[committed(11)]), Some(Rule::TimeWindowInvalid));
        // Nor has the party signed when the notary has.
        let parties = spends.party_keys();
        let signed = |signatures: &[TransactionSignature]| {
            let signed = SignedTransaction::new(spends.clone(), signatures.to_vec()).unwrap();
            signed.verify_signatures(&parties).err().map(|refused| refused.rule())
        };
        assert_eq!(signed(&[committed(10)]), Some(Rule::SignatureMissing));
        assert_eq!(signed(&[committed(10), plain.clone()]), None);
        // Another's statement is not the notary's.
        let other =
            sign_committed(&[(id, stamp(1, 10))], NotaryRole::Uniqueness, parameters_hash(), &signing_key(1), 140);
        assert_eq!(rule(&spends, &other.unwrap()), Some(Rule::SignatureMissing));
        // What needs no notary needs no statement.
        (contents.inputs, contents.time_window) = (Vec::new(), None);
        assert_eq!(rule(&core(&contents), &[plain]), None);
    }

    /// Whoever passes an answer on can put anything behind it.
    #[test]
    fn every_signature_of_an_answer_is_the_notarys_and_verifies() {
        let id = network();
        let commit = |byte| {
            let (committed, signer) = ([(id, stamp(1, 10))], signing_key(byte));
            sign_committed(&committed, NotaryRole::Uniqueness, parameters_hash(), &signer, 140).unwrap().remove(0)
        };
        let good = commit(NOTARY_KEY);
        let rule = |more: TransactionSignature| {
            let answer = [good.clone(), more];
            check_notarised(&id, &key(NOTARY_KEY), None, &answer).err().map(|refused| refused.rule())
        };
        assert_eq!(rule(good.clone()), None);
        let plain_of_another = signature::sign(&parameters_hash(), &signing_key(1), 140).unwrap();
        assert_eq!(rule(plain_of_another), Some(Rule::SignatureInvalid));
        assert_eq!(rule(commit(1)), Some(Rule::SignatureForeign), "another's statement");
        let plain = signature::sign(&id, &signing_key(1), 140).unwrap();
        assert_eq!(rule(plain), Some(Rule::SignatureForeign), "a party's signature");
    }
}
