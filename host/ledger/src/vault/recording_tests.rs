//! Recording in any order, again and again.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};

use maxhost_model::{PublicKey, SecureHash};
use proptest::prelude::*;

use super::recording::*;
use super::update::{UpdateKind, VaultUpdate};
use crate::fixtures::{key, reference, signing_key};
use crate::keys::{CompositeKey, WeightedKey};
use crate::rules::Rule;
use crate::tx::signature::sign;
use crate::tx::{MAX_SIGNATURES, StateRef, TransactionSignature};

/// A vault in memory. A database holds it under the same rules.
#[derive(Debug, Default, PartialEq, Eq, Clone)]
struct Vault {
    states: BTreeMap<StateRef, (Kept, bool)>,
    spent: BTreeMap<StateRef, SecureHash>,
}

impl Vault {
    fn record(&mut self, tx: &ToRecord, what: StatesToRecord) -> crate::Result<VaultChange> {
        let known = |state: &StateRef| Known {
            in_vault: self.states.get(state).map(|(kept, _)| *kept),
            spent_by: self.spent.get(state).copied(),
        };
        let change = plan_recording(tx, what, known, own, true)?;
        for produced in &change.produced {
            let kept = if produced.consumed_by.is_some() { Kept::Consumed } else { Kept::Unconsumed };
            assert!(self.states.insert(produced.reference, (kept, produced.relevant)).is_none());
        }
        for (state, consumed_by) in &change.referenced {
            let kept = if consumed_by.is_some() { Kept::Consumed } else { Kept::Unconsumed };
            assert!(self.states.insert(*state, (kept, false)).is_none());
        }
        for state in &change.consumed {
            self.states.get_mut(state).unwrap().0 = Kept::Consumed;
        }
        for state in &change.spent {
            assert!(self.spent.insert(*state, tx.id).is_none());
        }
        Ok(change)
    }
}

fn own(candidate: &PublicKey) -> bool {
    *candidate == key(1)
}

fn id(number: u32) -> SecureHash {
    reference(number).tx
}

fn of(byte: u8) -> Described {
    Described { participants: vec![key(byte)], owner: None, fungible: true }
}

fn tx(number: u32, inputs: &[StateRef], outputs: &[u8]) -> ToRecord {
    ToRecord {
        id: id(number),
        inputs: inputs.to_vec(),
        references: vec![],
        outputs: outputs.iter().map(|byte| of(*byte)).collect(),
    }
}

fn out(number: u32, index: u32) -> StateRef {
    StateRef::new(id(number), index)
}

#[test]
fn an_owner_decides_and_else_any_participant() {
    assert!(is_relevant(&of(1), own));
    assert!(!is_relevant(&of(2), own));
    let owned = |byte| Described { owner: Some(key(byte)), ..of(1) };
    assert!(is_relevant(&owned(1), own));
    assert!(!is_relevant(&owned(2), own), "its participants do not matter");
    let parts = [1, 2].map(|byte| WeightedKey { key: key(byte), weight: 1 });
    let joint = CompositeKey::build(parts.to_vec(), None).unwrap();
    assert!(is_relevant(&Described { participants: vec![joint], ..of(2) }, own));
    assert!(!is_relevant(&Described::default(), own));
}

#[test]
fn what_is_recorded_is_what_was_asked_for() {
    let issue = tx(1, &[], &[1, 2]);
    let mut vault = Vault::default();
    assert!(!vault.record(&issue, StatesToRecord::None).unwrap().is_news());
    let change = vault.record(&issue, StatesToRecord::OnlyRelevant).unwrap();
    let produced = Produced { reference: out(1, 0), relevant: true, consumed_by: None, locked: true };
    assert_eq!(change.produced, [produced]);
    assert!(!vault.record(&issue, StatesToRecord::OnlyRelevant).unwrap().is_news());
    let change = vault.record(&issue, StatesToRecord::AllVisible).unwrap();
    let skipped = Produced { reference: out(1, 1), relevant: false, consumed_by: None, locked: false };
    assert_eq!(change.produced, [skipped]);
}

#[test]
fn an_old_transaction_does_not_bring_a_spent_state_back() {
    let (issue, spend) = (tx(1, &[], &[1]), tx(2, &[out(1, 0)], &[2]));
    let mut vault = Vault::default();
    vault.record(&spend, StatesToRecord::OnlyRelevant).unwrap();
    let change = vault.record(&issue, StatesToRecord::OnlyRelevant).unwrap();
    assert_eq!(change.produced[0].consumed_by, Some(id(2)));
    assert!(!change.produced[0].locked);
    assert_eq!(vault.states[&out(1, 0)].0, Kept::Consumed);
    let other = tx(3, &[out(1, 0)], &[1]);
    let before = vault.clone();
    assert_eq!(vault.record(&other, StatesToRecord::OnlyRelevant).unwrap_err().rule(), Rule::RecordingInvalid);
    assert_eq!(vault, before);
}

#[test]
fn references_are_kept_with_what_is_ones_own() {
    let looks = |outputs: &[u8]| ToRecord { references: vec![out(7, 0)], ..tx(1, &[], outputs) };
    let change = Vault::default().record(&looks(&[2]), StatesToRecord::OnlyRelevant).unwrap();
    assert!(change.referenced.is_empty());
    let mut vault = Vault::default();
    let change = vault.record(&looks(&[1]), StatesToRecord::OnlyRelevant).unwrap();
    assert_eq!(change.referenced, [(out(7, 0), None)]);
    assert!(!vault.record(&looks(&[1]), StatesToRecord::OnlyRelevant).unwrap().is_news());
}

#[test]
fn a_batch_is_sorted_by_what_it_depends_on() {
    let batch = [tx(3, &[out(2, 0)], &[1]), tx(1, &[], &[1]), tx(2, &[out(1, 0)], &[1])];
    assert_eq!(topological(&batch).unwrap(), [1, 2, 0]);
    let circle = [tx(1, &[out(2, 0)], &[1]), tx(2, &[out(1, 0)], &[1])];
    assert_eq!(topological(&circle).unwrap_err().rule(), Rule::RecordingInvalid);
    assert_eq!(topological(&[tx(1, &[], &[1]), tx(1, &[], &[1])]).unwrap_err().rule(), Rule::RecordingInvalid);
    assert_eq!(topological(&[tx(1, &[out(1, 0)], &[1])]).unwrap_err().rule(), Rule::RecordingInvalid);
}

fn update(consumed: &[u32], produced: &[u32]) -> VaultUpdate {
    let set = |numbers: &[u32]| numbers.iter().copied().map(reference).collect();
    VaultUpdate { consumed: set(consumed), produced: set(produced), ..VaultUpdate::default() }
}

#[test]
fn updates_of_different_kinds_do_not_add_up() {
    let moved = VaultUpdate { kind: UpdateKind::NotaryChange, ..update(&[1], &[2]) };
    assert_eq!(update(&[3], &[]).plus(&moved).unwrap_err().rule(), Rule::RecordingInvalid);
    assert_eq!(update(&[], &[]).plus(&moved).unwrap(), moved);
    assert_eq!(moved.plus(&update(&[], &[])).unwrap(), moved);
    assert_eq!(update(&[], &[1, 2]).plus(&update(&[1], &[3])).unwrap(), update(&[], &[2, 3]));
}

fn events() -> impl Strategy<Value = Vec<(TransactionEvent, u8)>> {
    use TransactionEvent::{Downloaded, Finalised, Refused, SentToNotary};
    let event = proptest::sample::select(vec![Downloaded, SentToNotary, Finalised, Refused]);
    proptest::collection::vec((event, 1_u8..4), 0..12)
}

/// Peers may send a transaction with as many needless signatures as one may have, again and again.
#[test]
fn signatures_do_not_pile_up() {
    let by = |byte: u8| sign(&id(1), &signing_key(byte), 140).unwrap();
    // What only looks like another signature counts as one.
    let needless = |first: u32| -> Vec<TransactionSignature> {
        let numbered = (first..).take(MAX_SIGNATURES);
        numbered.map(|number| sign(&id(number), &signing_key(9), 140).unwrap()).collect()
    };
    let (row, _) = after(None, TransactionEvent::Downloaded, &needless(0));
    let (row, news) = after(row, TransactionEvent::Finalised, &[by(1), by(2)]);
    assert!(news);
    let signatures = row.clone().unwrap().signatures;
    assert_eq!(signatures.len(), MAX_SIGNATURES);
    assert!([by(1), by(2)].iter().all(|needed| signatures.contains(needed)));
    let (again, _) = after(row.clone(), TransactionEvent::Finalised, &needless(5_000));
    assert_eq!(again, row, "it has all that it needs");
}

proptest! {
    /// Transactions of a tree of payments, recorded in any order, some again, some only in part: each state is consumed if
    /// and only if a recorded transaction consumes it, and the vault is that of the natural order.
    #[test]
    fn order_and_repetition_make_no_difference(
        owners in proptest::collection::vec((0_u8..3, 0_u8..3), 6),
        order in proptest::collection::vec((0_usize..6, any::<bool>()), 0..20),
    ) {
        // Transaction n + 1 consumes the first output of transaction n.
        let all: Vec<ToRecord> = (0_u32..).zip(&owners).map(|(n, (a, b))| {
            let inputs: Vec<StateRef> = if n == 0 { vec![] } else { vec![out(n - 1, 0)] };
            tx(n, &inputs, &[*a, *b])
        }).collect();
        let (mut vault, mut recorded) = (Vault::default(), BTreeSet::new());
        for (at, whole) in order {
            let what = if whole { StatesToRecord::OnlyRelevant } else { StatesToRecord::None };
            vault.record(&all[at], what).unwrap();
            recorded.insert(all[at].id);
            for (state, (kept, _)) in &vault.states {
                let spent = all.iter().any(|tx| recorded.contains(&tx.id) && tx.inputs.contains(state));
                prop_assert_eq!(*kept == Kept::Consumed, spent);
            }
        }
        for tx in all.iter().rev() {
            vault.record(tx, StatesToRecord::OnlyRelevant).unwrap();
        }
        let mut natural = Vault::default();
        for tx in &all {
            natural.record(tx, StatesToRecord::OnlyRelevant).unwrap();
        }
        prop_assert_eq!(vault, natural);
    }

    /// Whatever happens in whatever order: what was finalised once is verified for ever, with the union of signatures, and
    /// exactly one finaliser sees that it has become so.
    #[test]
    fn exactly_one_verified_row(events in events()) {
        let (mut row, mut announced) = (None, 0);
        let (mut finalised, mut seen) = (false, BTreeSet::new());
        for (event, by) in events {
            let signature: TransactionSignature = sign(&id(1), &signing_key(by), 140).unwrap();
            let (next, news) = after(row, event, std::slice::from_ref(&signature));
            announced += u32::from(news);
            finalised |= event == TransactionEvent::Finalised;
            match &next {
                None => {
                    prop_assert!(!finalised);
                    seen.clear();
                }
                Some(_) => drop(seen.insert(by)),
            }
            let signers: BTreeSet<u8> = next.iter().flat_map(|row: &TransactionRow| &row.signatures).map(|s| {
                (1..4).find(|byte| key(*byte) == *s.by()).unwrap()
            }).collect();
            prop_assert_eq!(&signers, &seen);
            prop_assert_eq!(finalised, next.as_ref().is_some_and(|row| row.status == TransactionStatus::Verified));
            row = next;
        }
        prop_assert_eq!(announced, u32::from(finalised));
    }

    /// Changes add up in any grouping.
    #[test]
    fn updates_add_up_associatively(life in proptest::collection::vec((0_u32..9, 1_usize..4), 9)) {
        // Each state is produced in one update and consumed in a later one.
        let mut updates: Vec<(Vec<u32>, Vec<u32>)> = vec![Default::default(); 12];
        for (state, (born, length)) in (0_u32..).zip(life) {
            updates[born as usize].1.push(state);
            updates[born as usize + length].0.push(state);
        }
        let updates: Vec<VaultUpdate> = updates.iter().map(|(c, p)| update(c, p)).collect();
        let sum = |updates: &[VaultUpdate]| updates.iter().try_fold(VaultUpdate::default(), |a, b| a.plus(b)).unwrap();
        for at in 0..updates.len() {
            prop_assert_eq!(sum(&updates[..at]).plus(&sum(&updates[at..])).unwrap(), sum(&updates));
        }
    }
}
