//! Uniqueness against a model: any order, duplication, batching and crash gives the verdicts of the serial order.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;

use maxhost_model::SecureHash;
use proptest::prelude::*;

use super::uniqueness::{BatchStamp, Outcome, Plan, Rows, UniquenessRequest, Verdict, plan_batch};
use super::{ConflictKind, NotaryError};
use crate::fixtures::reference;
use crate::time::{TimeWindow, Timestamp};
use crate::tx::StateRef;

/// What a request comes to, as short as can be told.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Told {
    Yes(Timestamp),
    Spent(BTreeMap<StateRef, (SecureHash, bool)>),
    Window(Timestamp),
}

/// The rules of uniqueness, told once more: one request after the other, nothing clever.
#[derive(Default)]
struct Model {
    spent: BTreeMap<StateRef, SecureHash>,
    committed: BTreeMap<SecureHash, Timestamp>,
    late: BTreeMap<SecureHash, Timestamp>,
}

impl Model {
    fn ask(&mut self, r: &UniquenessRequest, now: Timestamp) -> Told {
        if let Some(at) = self.committed.get(&r.id) {
            return Told::Yes(*at);
        }
        if let Some(at) = self.late.get(&r.id) {
            return Told::Window(*at);
        }
        let hash = |s: &StateRef| self.spent.get(s).map(|by| SecureHash::of(by.as_bytes()));
        let inputs = r.inputs.iter().filter_map(|s| Some((*s, (hash(s)?, true))));
        let references = r.references.iter().filter_map(|s| Some((*s, (hash(s)?, false))));
        let spent: BTreeMap<_, _> = inputs.chain(references).collect();
        if !spent.is_empty() {
            return Told::Spent(spent);
        }
        if let Some(window) = r.window {
            if window.is_over(now) {
                self.late.insert(r.id, now);
            }
            if !window.contains(now) {
                return Told::Window(now);
            }
        }
        self.spent.extend(r.inputs.iter().map(|s| (*s, r.id)));
        self.committed.insert(r.id, now);
        Told::Yes(now)
    }
}

fn told(verdict: &Verdict) -> Told {
    match verdict {
        Ok(committed) => Told::Yes(committed.stamp.at),
        Err(NotaryError::Conflict { states, .. }) => {
            Told::Spent(states.iter().map(|(s, c)| (*s, (c.consumed_by, c.kind == ConflictKind::Input))).collect())
        }
        Err(NotaryError::TimeWindowInvalid { at, .. }) => Told::Window(*at),
        Err(other) => unreachable!("{other}"),
    }
}

/// Rows in memory. A database holds them under the same contract.
#[derive(Default)]
struct Table {
    spent: BTreeMap<StateRef, SecureHash>,
    outcomes: BTreeMap<SecureHash, Outcome>,
}

impl Rows for Table {
    type Error = Infallible;

    fn consumers(&mut self, states: &BTreeSet<StateRef>) -> Result<BTreeMap<StateRef, SecureHash>, Infallible> {
        Ok(states.iter().filter_map(|state| Some((*state, *self.spent.get(state)?))).collect())
    }

    fn outcomes(&mut self, ids: &BTreeSet<SecureHash>) -> Result<BTreeMap<SecureHash, Outcome>, Infallible> {
        Ok(ids.iter().filter_map(|id| Some((*id, *self.outcomes.get(id)?))).collect())
    }
}

impl Table {
    /// Both keys are unique in a database, so a plan that inserts one twice fails there; here the test does.
    fn commit(&mut self, plan: &Plan) {
        for (state, by) in &plan.consumed {
            assert_eq!(self.spent.insert(*state, *by), None, "{state} is consumed twice");
        }
        for (id, outcome) in &plan.decided {
            assert_eq!(self.outcomes.insert(*id, *outcome), None, "{id} is decided twice");
        }
    }
}

fn at(nanos: u64) -> Timestamp {
    Timestamp::from_nanos(nanos)
}

/// One request of each of these transactions is fixed by its number, as the id of a transaction fixes its contents.
fn transactions() -> impl Strategy<Value = Vec<UniquenessRequest>> {
    // Also with one of them twice.
    let states = || proptest::collection::vec(0_u32..8, 0..3);
    let window = proptest::option::weighted(0.5, (0_u64..12, 1_u64..8));
    proptest::collection::vec((states(), states(), window), 1..10).prop_map(|all| {
        type Drawn = (Vec<u32>, Vec<u32>, Option<(u64, u64)>);
        let request = |(number, (inputs, references, window)): (u32, Drawn)| UniquenessRequest {
            id: SecureHash::of(&[&b"tx"[..], &number.to_be_bytes()].concat()),
            references: references.iter().filter(|n| !inputs.contains(n)).map(|n| reference(*n)).collect(),
            inputs: inputs.into_iter().map(reference).collect(),
            window: window.map(|(from, length)| TimeWindow::between(at(from), at(from + length)).unwrap()),
        };
        (0_u32..).zip(all).map(request).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    /// Any list of requests, with repeats, cut into any batches, some of which crash before their commit and come again.
    #[test]
    fn batches_give_the_verdicts_of_the_serial_order(
        transactions in transactions(),
        order in proptest::collection::vec(any::<prop::sample::Index>(), 1..40),
        sizes in proptest::collection::vec((1_usize..8, any::<bool>(), 0_u64..4), 40),
    ) {
        let requests: Vec<UniquenessRequest> =
            order.iter().map(|index| transactions[index.index(transactions.len())].clone()).collect();
        let (mut model, mut table) = (Model::default(), Table::default());
        let (mut rest, mut now, mut number) = (requests.as_slice(), 0, 0);
        for (size, crash, pause) in sizes {
            let (batch, after) = rest.split_at(size.min(rest.len()));
            (rest, now, number) = (after, now + pause, number + 1);
            if crash {
                // Decided, lost before the commit, and asked again.
                let _ = plan_batch(batch, BatchStamp { batch: number, at: at(now) }, &mut table).unwrap();
                (now, number) = (now + 1, number + 1);
            }
            let plan = plan_batch(batch, BatchStamp { batch: number, at: at(now) }, &mut table).unwrap();
            table.commit(&plan);
            let expected: Vec<Told> = batch.iter().map(|request| model.ask(request, at(now))).collect();
            prop_assert_eq!(plan.verdicts.iter().map(told).collect::<Vec<_>>(), expected);
        }
        prop_assert_eq!(&table.spent, &model.spent);
    }

    /// What was once answered for ever is answered again, whatever came between.
    #[test]
    fn verdicts_are_stable(transactions in transactions(), again in proptest::collection::vec(any::<prop::sample::Index>(), 20)) {
        let mut table = Table::default();
        let mut first: BTreeMap<SecureHash, Told> = BTreeMap::new();
        for (step, index) in again.iter().enumerate() {
            let request = transactions[index.index(transactions.len())].clone();
            let stamp = BatchStamp { batch: step as u64 + 1, at: at(step as u64) };
            let plan = plan_batch(std::slice::from_ref(&request), stamp, &mut table).unwrap();
            table.commit(&plan);
            let verdict = &plan.verdicts[0];
            if let Some(before) = first.get(&request.id) {
                prop_assert_eq!(before, &told(verdict));
            }
            if !verdict.as_ref().is_err_and(NotaryError::is_transient) {
                // A conflict may only name more states as time goes on; that it is one stays.
                if !matches!(told(verdict), Told::Spent(_)) {
                    first.insert(request.id, told(verdict));
                }
            }
        }
    }
}

fn request(number: u8, inputs: &[u32], references: &[u32]) -> UniquenessRequest {
    UniquenessRequest {
        id: SecureHash::of(&[number]),
        inputs: inputs.iter().copied().map(reference).collect(),
        references: references.iter().copied().map(reference).collect(),
        window: None,
    }
}

fn ask(table: &mut Table, requests: &[UniquenessRequest]) -> Vec<Told> {
    let plan = plan_batch(requests, BatchStamp { batch: 1, at: at(1) }, table).unwrap();
    table.commit(&plan);
    plan.verdicts.iter().map(told).collect()
}

#[test]
fn a_reference_that_is_spent_later_does_not_undo_a_commit() {
    let mut table = Table::default();
    let reader = request(1, &[1], &[2]);
    let spender = request(2, &[2], &[]);
    let yes = Told::Yes(at(1));
    assert_eq!(ask(&mut table, &[reader.clone(), spender]), [yes.clone(), yes.clone()]);
    assert_eq!(ask(&mut table, std::slice::from_ref(&reader)), [yes]);
    let late = request(3, &[3], &[2]);
    assert!(matches!(ask(&mut table, &[late])[0], Told::Spent(_)));
}

#[test]
fn a_conflict_comes_before_a_window_and_both_may_be_told_in_one_batch() {
    let mut table = Table::default();
    let window = Some(TimeWindow::until_only(at(1)));
    let first = request(1, &[1], &[]);
    let second = UniquenessRequest { window, ..request(2, &[1], &[]) };
    let third = UniquenessRequest { window, ..request(3, &[2], &[]) };
    let told = ask(&mut table, &[first, second, third]);
    assert_eq!(told[0], Told::Yes(at(1)));
    assert!(matches!(told[1], Told::Spent(_)));
    assert_eq!(told[2], Told::Window(at(1)));
}
