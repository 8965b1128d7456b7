//! Transactions, the vault, locks, and what a notary has committed.

use std::collections::BTreeSet;

use bytes::Bytes;
use maxhost_ledger::notary::{NotaryError, Outcome, UniquenessRequest, Verdict};
use maxhost_ledger::time::{TimeWindow, Timestamp};
use maxhost_ledger::tx::StateRef;
use maxhost_ledger::vault::query::{Number, Value};
use maxhost_ledger::vault::recording::{Described, StatesToRecord, TransactionEvent, TransactionStatus};
use maxhost_ledger::vault::selection::SelectionFailure;
use maxhost_model::{FlowRow, KeyAlgorithm, PublicKey, SecureHash};

use super::{Answer, Databases, World, end, hold_the_committer, submit};
use crate::ledger::query::page;
use crate::ledger::{
    ClaimOp, DecidedSoFar, Holding, KnownKey, LedgerOp, LedgerReceipt, ListTransactions, NewParameters, NotaryOp,
    OutputState, Recording, Reservation, StateContent, TokenAmount, TransactionKind, VaultPage,
};
use crate::{Author, Op, StoreError};
use maxhost_ledger::vault::query::{Query, StatusFilter};

pub const CASH: &str = "cash/Cash";

pub fn at(seconds: u64) -> Timestamp {
    Timestamp::from_nanos(seconds * 1_000_000_000)
}

pub fn id(number: u32) -> SecureHash {
    SecureHash::of(&number.to_be_bytes())
}

pub fn key(byte: u8) -> PublicKey {
    PublicKey::from_raw(KeyAlgorithm::Ed25519, &[byte; 32]).unwrap()
}

/// An amount of cash of the owner with this key.
pub fn cash(quantity: u64, currency: &str, owner: u8) -> OutputState {
    let fields = [
        ("quantity".to_owned(), Value::Number(Number::from(quantity))),
        ("currency".to_owned(), Value::text(currency)),
        ("owner".to_owned(), Value::text(format!("O=Owner {owner}, L=London, C=GB"))),
    ];
    let amount = TokenAmount { token: currency.to_owned(), issuer: Some("O=Bank".to_owned()), quantity };
    OutputState {
        described: Described { participants: vec![key(owner)], owner: Some(key(owner)), fungible: true },
        content: StateContent {
            type_name: CASH.to_owned(),
            state: Bytes::from(format!("{quantity} {currency}")),
            notary: "O=Notary, L=Zurich, C=CH".to_owned(),
            constraint: "signature".to_owned(),
            participants: [format!("O=Owner {owner}, L=London, C=GB")].into(),
            fields: fields.into(),
            amount: Some(amount),
            linear_id: None,
        },
    }
}

/// A transaction of the identity whose own key is 1.
pub fn recording(number: u32, inputs: &[StateRef], outputs: Vec<OutputState>) -> Recording {
    Recording {
        event: TransactionEvent::Finalised,
        id: id(number),
        kind: TransactionKind::Ordinary,
        body: Bytes::from(format!("transaction {number}")),
        signatures: Vec::new(),
        inputs: inputs.to_vec(),
        references: Vec::new(),
        outputs,
        what: StatesToRecord::OnlyRelevant,
        parameters: None,
        own_keys: [key(1)].into(),
        flow: None,
        settlement: None,
        at: at(u64::from(number)),
    }
}

pub fn output(number: u32, index: u32) -> StateRef {
    StateRef::new(id(number), index)
}

impl<D: Databases> World<D> {
    pub(super) async fn ledger(&self, author: Author, op: LedgerOp) -> Option<LedgerReceipt> {
        self.commit(author, vec![op.into()]).await.unwrap().ledger.pop().map(|(_, answer)| answer)
    }

    pub async fn record(&self, recording: Recording) -> bool {
        match self.ledger(self.alice, LedgerOp::Record(Box::new(recording))).await {
            Some(LedgerReceipt::Recorded(announced)) => announced,
            other => panic!("not recorded: {other:?}"),
        }
    }

    pub(super) async fn claim_amount(&self, claim: ClaimOp) -> Result<Vec<StateRef>, SelectionFailure> {
        match self.ledger(self.alice, LedgerOp::Claim(Box::new(claim))).await {
            Some(LedgerReceipt::Claimed(claimed)) => claimed,
            other => panic!("not claimed: {other:?}"),
        }
    }

    pub(super) async fn notarise(&self, now: u64, requests: &[UniquenessRequest]) -> Vec<Verdict> {
        let requests = requests.iter().map(|request| ("O=Caller".to_owned(), request.clone())).collect();
        match self.ledger(self.bob, LedgerOp::Notarise(Box::new(NotaryOp { requests, at: at(now) }))).await {
            Some(LedgerReceipt::Notarised(verdicts)) => verdicts,
            other => panic!("not decided: {other:?}"),
        }
    }

    async fn decided(&self, number: u32, now: u64) -> DecidedSoFar {
        self.decided_of(number, &[], now).await
    }

    async fn decided_of(&self, number: u32, states: &[StateRef], now: u64) -> DecidedSoFar {
        let states = states.iter().copied().collect();
        match self.ledger(self.bob, LedgerOp::Outcome { id: id(number), states, at: at(now) }).await {
            Some(LedgerReceipt::Outcome(so_far)) => so_far,
            other => panic!("not told: {other:?}"),
        }
    }

    pub(super) async fn unconsumed(&self) -> BTreeSet<StateRef> {
        let page = self.all(&Query::default()).await;
        page.rows.iter().map(|row| row.row.reference).collect()
    }

    pub(super) async fn all(&self, query: &Query) -> VaultPage {
        page(&*self.store, self.alice.identity, query, None, None, at(0)).await.unwrap()
    }
}

pub(super) fn holding(flow: FlowRow, claim: u8) -> Holding {
    Holding { flow, holder: format!("flow {}", flow.0), claim: [claim; 16], until: at(1_000) }
}

pub(super) fn claim(flow: FlowRow, number: u8, quantity: u64) -> ClaimOp {
    ClaimOp {
        type_name: CASH.to_owned(),
        token: "GBP".to_owned(),
        issuer: None,
        notary: None,
        quantity,
        holding: holding(flow, number),
        now: at(100),
        seed: 7,
    }
}

pub async fn a_recorded_transaction_changes_the_vault_once<D: Databases>() {
    let world = World::<D>::new().await;
    assert!(world.record(recording(1, &[], vec![cash(10, "GBP", 1), cash(5, "GBP", 2)])).await);
    assert!(!world.record(recording(1, &[], vec![cash(10, "GBP", 1), cash(5, "GBP", 2)])).await, "it was there");
    assert_eq!(world.unconsumed().await, [output(1, 0)].into(), "the other is not one's own");
    assert!(world.record(recording(2, &[output(1, 0)], vec![cash(4, "GBP", 2), cash(6, "GBP", 1)])).await);
    assert_eq!(world.unconsumed().await, [output(2, 1)].into());
    // A second consumer contradicts the ledger, and leaves nothing.
    let second = LedgerOp::Record(Box::new(recording(3, &[output(1, 0)], vec![cash(10, "GBP", 1)])));
    match world.commit(world.alice, vec![second.into()]).await {
        Err(StoreError::Ledger(refused)) => assert_eq!(refused.code(), "recording-refused"),
        other => panic!("{other:?}"),
    }
    let (store, alice) = (&world.store, world.alice.identity);
    assert!(store.ledger_transaction(alice, &id(3)).await.unwrap().is_none());
    let kept = store.ledger_transaction(alice, &id(2)).await.unwrap().unwrap();
    assert_eq!((kept.status, kept.body), (TransactionStatus::Verified, Some(Bytes::from("transaction 2"))));
    assert_eq!(store.parents(alice, &id(2)).await.unwrap(), [id(1)]);
    assert_eq!(store.spent_by(alice, &[output(1, 0), output(2, 1)]).await.unwrap(), [(output(1, 0), id(2))]);
    let states = world.all(&Query { status: StatusFilter::All, ..Query::default() }).await.rows;
    for (reference, state, consumed_by) in [(output(2, 1), "6 GBP", None), (output(1, 0), "10 GBP", Some(id(2)))] {
        let found = states.iter().find(|found| found.row.reference == reference).unwrap();
        assert_eq!((&found.state[..], found.consumed_by), (state.as_bytes(), consumed_by));
    }
    let listed = store.ledger_transactions(alice, &ListTransactions { limit: 9, ..Default::default() }).await.unwrap();
    assert_eq!(listed.iter().map(|tx| tx.id).collect::<Vec<_>>(), [id(2), id(1)], "newest first");
    assert!(listed.iter().all(|tx| tx.signatures.is_empty() && tx.body.is_none()), "a list reads what it shows");
    assert!(!store.ledger_transaction(alice, &id(1)).await.unwrap().unwrap().signatures.is_empty());
    let before = ListTransactions { before: Some(listed[0].number), limit: 9, status: None };
    assert_eq!(store.ledger_transactions(alice, &before).await.unwrap()[0].id, id(1));
    assert!(store.ledger_transaction(world.bob.identity, &id(1)).await.unwrap().is_none(), "another's ledger");
}

pub async fn what_is_looked_at_is_kept_once<D: Databases>() {
    let world = World::<D>::new().await;
    let (store, alice) = (&world.store, world.alice.identity);
    let list = || Some(cash(7, "EUR", 9).content);
    let looks_at = |number: u32, owner: u8, looked_at: u32, content| Recording {
        references: vec![(output(looked_at, 0), content)],
        ..recording(number, &[], vec![cash(10, "GBP", owner)])
    };
    // What nobody can say anything of is not kept, and is no news.
    for _ in 0..2 {
        world.record(looks_at(1, 1, 9, None)).await;
    }
    assert_eq!(world.unconsumed().await, [output(1, 0)].into());
    world.record(looks_at(2, 1, 9, list())).await;
    world.record(looks_at(3, 1, 9, list())).await;
    // Nothing of one's own is in it.
    world.record(looks_at(4, 2, 8, list())).await;
    let expected = [output(1, 0), output(2, 0), output(3, 0), output(9, 0)];
    assert_eq!(world.unconsumed().await, expected.into());
    let rows = world.all(&Query::default()).await.rows;
    let own: Vec<_> = rows.iter().filter(|row| row.row.relevant).map(|row| row.row.reference).collect();
    assert_eq!(own.len(), 3);
    assert!(!own.contains(&output(9, 0)), "it is somebody else's");
    let changes = store.vault_changes(alice, 0, 10, at(0)).await.unwrap();
    let told: Vec<_> = changes.iter().map(|change| (change.transaction, change.produced.len())).collect();
    assert_eq!(told, [(id(1), 1), (id(2), 2), (id(3), 1)]);
    // It is consumed as any other that the vault has.
    world.record(recording(5, &[output(9, 0)], Vec::new())).await;
    assert!(!world.unconsumed().await.contains(&output(9, 0)));
    world.record(looks_at(6, 1, 9, list())).await;
    assert!(!world.unconsumed().await.contains(&output(9, 0)), "it stays consumed");
}

pub async fn the_newest_of_a_linear_id_is_found<D: Databases>() {
    let world = World::<D>::new().await;
    let version = |owner: u8, linear_id: u8| {
        let mut state = cash(1, "GBP", owner);
        state.content.linear_id = Some(format!("{linear_id:032x}"));
        state
    };
    let newest = async |type_name: &str, linear_id: u8| {
        let linear_id = format!("{linear_id:032x}");
        world.store.newest_linear(world.alice.identity, type_name, &linear_id).await.unwrap()
    };
    assert_eq!(newest(CASH, 1).await, None);
    assert!(world.record(recording(1, &[], vec![version(1, 1), version(1, 2)])).await);
    assert!(world.record(recording(2, &[output(1, 0)], vec![version(1, 1)])).await);
    assert_eq!((newest(CASH, 1).await, newest(CASH, 2).await), (Some(output(2, 0)), Some(output(1, 1))));
    assert_eq!(newest("iou/Iou", 1).await, None, "another type");
    let bob = world.bob.identity;
    assert_eq!(world.store.newest_linear(bob, CASH, &format!("{:032x}", 1)).await.unwrap(), None, "another's vault");
    // It need not be one's own, if it is in the vault.
    let all = Recording { what: StatesToRecord::AllVisible, ..recording(3, &[output(2, 0)], vec![version(2, 1)]) };
    assert!(world.record(all).await);
    assert_eq!(newest(CASH, 1).await, Some(output(3, 0)));
    assert!(world.record(recording(4, &[output(3, 0)], Vec::new())).await);
    assert_eq!(newest(CASH, 1).await, None, "it has come to its end");
}

pub async fn order_and_repetition_make_no_difference<D: Databases>() {
    let world = World::<D>::new().await;
    world.record(recording(2, &[output(1, 0)], vec![cash(6, "GBP", 1)])).await;
    world.record(recording(1, &[], vec![cash(6, "GBP", 1), cash(7, "GBP", 2)])).await;
    assert_eq!(world.unconsumed().await, [output(2, 0)].into(), "what a later one consumed comes in consumed");
    let all =
        Recording { what: StatesToRecord::AllVisible, ..recording(1, &[], vec![cash(6, "GBP", 1), cash(7, "GBP", 2)]) };
    assert!(!world.record(all).await, "no news of the ledger");
    assert_eq!(world.unconsumed().await, [output(1, 1), output(2, 0)].into(), "what was left out comes in");
    let rows = world.all(&Query::default()).await.rows;
    let visible = rows.iter().find(|row| row.row.reference == output(1, 1)).unwrap();
    assert!(!visible.row.relevant);
    let world = world.reopen().await;
    assert_eq!(world.unconsumed().await, [output(1, 1), output(2, 0)].into());
}

pub async fn changes_are_told_in_their_order<D: Databases>() {
    let world = World::<D>::new().await;
    let (store, alice) = (&world.store, world.alice.identity);
    assert_eq!(store.newest_change(alice).await.unwrap(), 0);
    world.record(recording(1, &[], vec![cash(10, "GBP", 1)])).await;
    world.record(recording(9, &[], vec![cash(10, "GBP", 2)])).await;
    world.record(recording(2, &[output(1, 0)], vec![cash(10, "GBP", 1)])).await;
    let changes = store.vault_changes(alice, 0, 10, at(0)).await.unwrap();
    let told: Vec<_> = changes
        .iter()
        .map(|change| {
            let refs = |rows: &[crate::ledger::VaultRow]| rows.iter().map(|row| row.row.reference).collect::<Vec<_>>();
            (change.transaction, refs(&change.produced), refs(&change.consumed))
        })
        .collect();
    assert_eq!(told, [(id(1), vec![output(1, 0)], vec![]), (id(2), vec![output(2, 0)], vec![output(1, 0)])]);
    let last = store.newest_change(alice).await.unwrap();
    assert_eq!(last, changes[1].number);
    assert_eq!(store.vault_changes(alice, changes[0].number, 10, at(0)).await.unwrap().len(), 1);
    // As it was after the first change.
    let query = Query::default();
    let then = page(&**store, alice, &query, None, Some(changes[0].number), at(0)).await.unwrap();
    assert_eq!(then.rows.iter().map(|row| row.row.reference).collect::<Vec<_>>(), [output(1, 0)]);
}

pub async fn a_claim_is_repeatable_and_ends_with_its_flow<D: Databases>() {
    let world = World::<D>::new().await;
    let (one, two) = (world.start(world.alice).await, world.start(world.alice).await);
    for number in 1..=3 {
        world.record(recording(number, &[], vec![cash(10, "GBP", 1)])).await;
    }
    world.record(recording(4, &[], vec![cash(500, "USD", 1), cash(500, "GBP", 2)])).await;
    let first = world.claim_amount(claim(one, 1, 15)).await.unwrap();
    assert!((2..=3).contains(&first.len()));
    assert_eq!(world.claim_amount(claim(one, 1, 15)).await.unwrap(), first);
    match world.claim_amount(claim(two, 2, 31)).await {
        Err(SelectionFailure::Insufficient { needed: 31, have: 30 }) => {}
        other => panic!("{other:?}"),
    }
    match world.claim_amount(claim(two, 2, 30)).await {
        Err(SelectionFailure::Locked { holders, soonest, .. }) => {
            assert_eq!(holders, [holding(one, 1).holder].into());
            assert_eq!(soonest, Some(at(1_000)));
        }
        other => panic!("{other:?}"),
    }
    let locks = world.store.locks(world.alice.identity, None, 10, at(100)).await.unwrap();
    assert_eq!(locks.len(), first.len());
    assert!(locks.iter().all(|lock| lock.holder == holding(one, 1).holder && first.contains(&lock.reference)));
    let rest = world.store.locks(world.alice.identity, Some(locks[0].reference), 10, at(100)).await.unwrap();
    assert_eq!(rest, locks[1..]);
    assert!(world.store.locks(world.alice.identity, None, 10, at(1_000)).await.unwrap().is_empty(), "leases are over");
    let world = world.reopen().await;
    assert_eq!(world.store.locks(world.alice.identity, None, 10, at(100)).await.unwrap().len(), first.len());
    world.commit(world.alice, vec![end(one)]).await.unwrap();
    assert!(world.store.locks(world.alice.identity, None, 10, at(100)).await.unwrap().is_empty());
    assert_eq!(world.claim_amount(claim(two, 2, 30)).await.unwrap().len(), 3);
}

pub async fn what_cannot_be_spent_by_itself_is_not_selected<D: Databases>() {
    let world = World::<D>::new().await;
    let flow = world.start(world.alice).await;
    let mut held = cash(50, "GBP", 1);
    held.content.amount = None;
    world.record(recording(1, &[], vec![held, cash(10, "GBP", 1)])).await;
    match world.claim_amount(claim(flow, 1, 11)).await {
        Err(SelectionFailure::Insufficient { needed: 11, have: 10 }) => {}
        other => panic!("{other:?}"),
    }
    assert_eq!(world.claim_amount(claim(flow, 2, 10)).await.unwrap(), [output(1, 1)]);
    // It is in the vault all the same, and can be had by its name.
    assert_eq!(world.unconsumed().await, [output(1, 0), output(1, 1)].into());
    let reservation = Reservation { states: [output(1, 0)].into(), holding: holding(flow, 3), now: at(100) };
    match world.ledger(world.alice, LedgerOp::Reserve(Box::new(reservation))).await {
        Some(LedgerReceipt::Reserved(Ok(()))) => {}
        other => panic!("not reserved: {other:?}"),
    }
}

pub async fn states_are_reserved_together_or_not_at_all<D: Databases>() {
    let world = World::<D>::new().await;
    let (one, two) = (world.start(world.alice).await, world.start(world.alice).await);
    for number in 1..=3 {
        world.record(recording(number, &[], vec![cash(10, "GBP", 1)])).await;
    }
    let reserve = async |flow, states: &[StateRef]| {
        let states = states.iter().copied().collect();
        let op = LedgerOp::Reserve(Box::new(Reservation { states, holding: holding(flow, 9), now: at(100) }));
        match world.ledger(world.alice, op).await {
            Some(LedgerReceipt::Reserved(reserved)) => reserved.map_err(|missing| missing.0),
            other => panic!("{other:?}"),
        }
    };
    reserve(one, &[output(1, 0), output(2, 0)]).await.unwrap();
    assert_eq!(reserve(two, &[output(2, 0), output(3, 0)]).await, Err([output(2, 0)].into()));
    assert_eq!(reserve(two, &[output(8, 0)]).await, Err([output(8, 0)].into()));
    reserve(two, &[output(3, 0)]).await.unwrap();
    reserve(one, &[output(1, 0)]).await.unwrap();
    let release =
        LedgerOp::Release { holder: holding(one, 9).holder, states: Some([output(1, 0), output(3, 0)].into()) };
    world.ledger(world.alice, release).await;
    let locked: Vec<StateRef> = world
        .store
        .locks(world.alice.identity, None, 9, at(100))
        .await
        .unwrap()
        .iter()
        .map(|lock| lock.reference)
        .collect();
    assert_eq!(locked.into_iter().collect::<BTreeSet<_>>(), [output(2, 0), output(3, 0)].into(), "another's stays");
    world.ledger(world.alice, LedgerOp::Release { holder: holding(one, 9).holder, states: None }).await;
    reserve(two, &[output(1, 0), output(2, 0), output(3, 0)]).await.unwrap();
}

pub async fn what_a_flow_makes_it_holds_from_the_start<D: Databases>() {
    let world = World::<D>::new().await;
    let (one, two) = (world.start(world.alice).await, world.start(world.alice).await);
    let mine = Recording { flow: Some(holding(one, 3)), ..recording(1, &[], vec![cash(10, "GBP", 1)]) };
    world.record(mine).await;
    assert!(matches!(world.claim_amount(claim(two, 2, 5)).await, Err(SelectionFailure::Locked { .. })));
    assert_eq!(world.claim_amount(claim(one, 1, 5)).await.unwrap(), [output(1, 0)]);
}

pub async fn a_notary_commits_each_state_once<D: Databases>() {
    let world = World::<D>::new().await;
    let request = |number: u32, inputs: &[StateRef], until: Option<u64>| UniquenessRequest {
        id: id(number),
        inputs: inputs.to_vec(),
        references: Vec::new(),
        window: until.map(|until| TimeWindow::until_only(at(until))),
    };
    let (first, second) = (request(1, &[output(0, 0)], None), request(2, &[output(0, 0), output(0, 1)], None));
    let verdicts = world.notarise(10, &[first.clone(), second.clone(), first.clone()]).await;
    let stamp = verdicts[0].as_ref().unwrap().stamp;
    assert_eq!((stamp.batch, stamp.at), (1, at(10)));
    assert!(matches!(&verdicts[1], Err(NotaryError::Conflict { states, .. }) if states.len() == 1));
    assert_eq!(verdicts[2], verdicts[0], "in one batch too");
    let late = request(3, &[output(0, 1)], Some(5));
    let verdicts = world.notarise(9, &[late.clone(), first.clone(), second.clone()]).await;
    assert!(
        matches!(&verdicts[0], Err(NotaryError::TimeWindowInvalid { at: told, .. }) if *told == at(10)),
        "its clock does not go back"
    );
    assert_eq!(verdicts[1].as_ref().unwrap().stamp, stamp, "the batch of the first time");
    assert!(verdicts[2].is_err());
    let world = world.reopen().await;
    let other = request(4, &[output(0, 1)], Some(50));
    let verdicts = world.notarise(20, &[late, other]).await;
    assert!(
        matches!(&verdicts[0], Err(NotaryError::TimeWindowInvalid { at: told, .. }) if *told == at(10)),
        "for ever"
    );
    assert_eq!(verdicts[1].as_ref().unwrap().stamp.batch, 3);
    // Whoever asks what was decided is told a time, and can rely on it: nothing is decided at an earlier one.
    assert_eq!(world.decided(1, 60).await, DecidedSoFar::Outcome(Outcome::Committed(stamp)));
    assert_eq!(world.decided(5, 60).await, DecidedSoFar::Nothing(at(60)));
    assert_eq!(world.decided(5, 55).await, DecidedSoFar::Nothing(at(60)));
    // What another has consumed is nothing that it will ever commit.
    assert_eq!(world.decided_of(6, &[output(0, 0), output(0, 2)], 60).await, DecidedSoFar::Conflict);
    assert_eq!(world.decided_of(6, &[output(0, 2)], 60).await, DecidedSoFar::Nothing(at(60)));
    assert_eq!(world.decided_of(1, &[output(0, 0)], 60).await, DecidedSoFar::Outcome(Outcome::Committed(stamp)));
    let world = world.reopen().await;
    assert_eq!(world.decided_of(6, &[output(0, 0)], 60).await, DecidedSoFar::Conflict);
    let verdicts = world.notarise(30, &[request(5, &[output(0, 2)], Some(60))]).await;
    assert!(matches!(&verdicts[0], Err(NotaryError::TimeWindowInvalid { at: told, .. }) if *told == at(60)));
    assert_eq!(world.decided(5, 61).await, DecidedSoFar::Outcome(Outcome::TooLate(at(60))));
    let counts = world.store.notary_counts(world.bob.identity).await.unwrap().unwrap();
    assert_eq!((counts.committed, counts.conflicts, counts.states), (2, 2, 2));
    assert!(world.store.notary_counts(world.alice.identity).await.unwrap().is_none());
}

pub async fn a_unit_that_fails_leaves_nothing_in_the_ledger<D: Databases>() {
    let world = World::<D>::new().await;
    let ops =
        vec![LedgerOp::Record(Box::new(recording(1, &[], vec![cash(10, "GBP", 1)]))).into(), end(FlowRow(4_000_000))];
    assert!(world.commit(world.alice, ops).await.is_err());
    assert!(world.store.ledger_transaction(world.alice.identity, &id(1)).await.unwrap().is_none());
    assert!(world.unconsumed().await.is_empty());
    assert!(world.record(recording(1, &[], vec![cash(10, "GBP", 1)])).await);
}

/// What is known of a key stays known, and stays as it was; of what is not known nothing is said.
pub async fn a_key_is_kept_with_whose_it_is<D: Databases>() {
    let world = World::<D>::new().await;
    let known = |byte: u8, party: &str, nonce: Option<[u8; 32]>| KnownKey {
        key: key(byte),
        party: format!("O={party}, L=London, C=GB"),
        nonce,
        at: at(u64::from(byte)),
    };
    let (own, bobs) = (known(10, "Alice", Some([7; 32])), known(11, "Bob", None));
    let add = |known: &KnownKey| -> Op { LedgerOp::AddKey(Box::new(known.clone())).into() };
    let all: Vec<SecureHash> = [10, 11, 12].map(|byte| key(byte).fingerprint()).into();
    let asked = async |world: &World<D>, of: Author| world.store.known_keys(of.identity, &all).await.unwrap();
    assert!(asked(&world, world.alice).await.is_empty());
    // Another identity's ledger is in use, this one's is not: neither knows anything.
    world.commit(world.bob, vec![add(&known(12, "Bob", Some([8; 32])))]).await.unwrap();
    assert!(asked(&world, world.alice).await.is_empty());

    let spoilt = vec![add(&own), end(FlowRow(4_000_000))];
    assert!(world.commit(world.alice, spoilt).await.is_err());
    assert!(asked(&world, world.alice).await.is_empty(), "what was undone never was");
    world.commit(world.alice, vec![add(&own), add(&bobs), add(&known(11, "Eve", None))]).await.unwrap();
    world.commit(world.alice, vec![add(&known(10, "Eve", None)), add(&known(11, "Eve", None))]).await.unwrap();
    let world = world.reopen().await;
    let mut found = asked(&world, world.alice).await;
    found.sort_by_key(|known| known.at);
    assert_eq!(found, [own, bobs]);
    assert_eq!(asked(&world, world.bob).await.len(), 1);
    assert!(world.store.known_keys(world.alice.identity, &[]).await.unwrap().is_empty());
}

/// Network parameters are kept once, as they came first, and for the identity alone whose unit has kept them.
pub async fn network_parameters_are_kept_for_an_identity<D: Databases>() {
    let world = World::<D>::new().await;
    let [first, second] = [b"first", b"other"].map(|parameters| SecureHash::of(parameters));
    let keep = |hash: SecureHash, body: &'static [u8]| -> Op {
        LedgerOp::KeepParameters(Box::new(NewParameters { hash, body: Bytes::from_static(body), at: at(1) })).into()
    };
    let kept = async |world: &World<D>, of: Author, hash| {
        world.store.kept_parameters(of.identity, &hash).await.unwrap().map(Vec::from)
    };
    assert_eq!(kept(&world, world.alice, first).await, None, "no ledger is in use yet");

    let spoilt = vec![keep(first, b"spoilt"), end(FlowRow(4_000_000))];
    assert!(world.commit(world.alice, spoilt).await.is_err());
    assert_eq!(kept(&world, world.alice, first).await, None, "what was undone never was");
    world.commit(world.alice, vec![keep(first, b"signed"), keep(first, b"again"), keep(second, b"")]).await.unwrap();
    world.commit(world.alice, vec![keep(first, b"later")]).await.unwrap();
    world.commit(world.bob, vec![keep(second, b"of bob")]).await.unwrap();
    let world = world.reopen().await;
    assert_eq!(kept(&world, world.alice, first).await.as_deref(), Some(&b"signed"[..]));
    assert_eq!(kept(&world, world.alice, second).await.as_deref(), Some(&b""[..]));
    assert_eq!(kept(&world, world.bob, first).await, None);
    assert_eq!(kept(&world, world.bob, second).await.as_deref(), Some(&b"of bob"[..]));
}

/// What units of one batch decide stands on what those before them in it have changed.
pub async fn units_of_one_batch_see_each_other<D: Databases>() {
    let world = World::<D>::new().await;
    let (one, two) = (world.start(world.alice).await, world.start(world.alice).await);
    let record = |recording| -> Op { LedgerOp::Record(Box::new(recording)).into() };
    let claimed = |flow, number| -> Op { LedgerOp::Claim(Box::new(claim(flow, number, 10))).into() };
    let in_flight = |number: u32| {
        let event = TransactionEvent::SentToNotary;
        Recording { event, ..recording(number, &[output(1, 0)], vec![cash(10, "GBP", 1)]) }
    };
    let refused = |number| Recording { event: TransactionEvent::Refused, ..in_flight(number) };
    world.record(recording(1, &[], vec![cash(10, "GBP", 1)])).await;
    world.record(in_flight(7)).await;

    let gate = hold_the_committer(&world.store, world.alice);
    let send = |ops| submit(&world.store, world.alice, None, ops);
    // One that goes and comes back at once, and stays in flight until it is refused.
    let back = [send(vec![record(refused(7))]), send(vec![record(in_flight(7))])];
    let none = send(vec![claimed(one, 1)]);
    let free = send(vec![record(refused(7))]);
    let undone = send(vec![claimed(one, 1), end(FlowRow(4_000_000))]);
    let first = send(vec![claimed(one, 1)]);
    let locked = send(vec![claimed(two, 2)]);
    let again = send(vec![claimed(one, 1)]);
    let ended = send(vec![end(one)]);
    let second = send(vec![claimed(two, 2)]);
    let spent = send(vec![record(recording(2, &[output(1, 0)], vec![cash(4, "GBP", 1), cash(6, "GBP", 2)]))]);
    let twice = send(vec![record(recording(3, &[output(1, 0)], vec![cash(10, "GBP", 1)]))]);
    let next = send(vec![record(recording(4, &[output(2, 0)], vec![cash(4, "GBP", 1)]))]);
    drop(gate);

    for answer in back.into_iter().chain([free, ended, spent, next]) {
        answer.await.unwrap().unwrap();
    }
    let answer = async |answer: Answer| match answer.await.unwrap().unwrap().ledger.pop() {
        Some((_, LedgerReceipt::Claimed(claimed))) => claimed,
        other => panic!("not claimed: {other:?}"),
    };
    assert!(answer(none).await.is_err(), "it is an input of one in flight");
    assert!(undone.await.unwrap().is_err());
    assert_eq!(answer(first).await.unwrap(), [output(1, 0)], "what was undone holds nothing");
    assert!(matches!(answer(locked).await, Err(SelectionFailure::Locked { .. })));
    assert_eq!(answer(again).await.unwrap(), [output(1, 0)]);
    assert_eq!(answer(second).await.unwrap(), [output(1, 0)], "its holder had ended");
    assert!(matches!(twice.await.unwrap(), Err(StoreError::Ledger(_))), "it was spent");
    let world = world.reopen().await;
    assert_eq!(world.unconsumed().await, [output(4, 0)].into());
    let changes = world.store.vault_changes(world.alice.identity, 0, 10, at(0)).await.unwrap();
    assert_eq!(changes.iter().map(|change| change.transaction).collect::<Vec<_>>(), [id(1), id(2), id(4)]);
    assert!(world.store.ledger_transaction(world.alice.identity, &id(7)).await.unwrap().is_none());
    assert!(world.store.locks(world.alice.identity, None, 9, at(100)).await.unwrap().is_empty());
}

/// Chains are read by what fits a message; what was only downloaded can go again, and nothing else can.
pub async fn a_chain_is_read_in_pieces_and_what_is_unverified_is_forgotten<D: Databases>() {
    let world = World::<D>::new().await;
    let (store, alice) = (&world.store, world.alice.identity);
    let nothing = store.ledger_ancestors(alice, &[id(1)], 9).await.unwrap();
    assert!(nothing.is_empty() && store.ledger_bodies(alice, &[id(1)], 9).await.unwrap().is_empty());
    world.record(recording(1, &[], vec![cash(10, "GBP", 1)])).await;
    world.record(recording(2, &[output(1, 0)], vec![cash(4, "GBP", 1), cash(6, "GBP", 1)])).await;
    let downloaded = |number, inputs: &[StateRef]| {
        let event = TransactionEvent::Downloaded;
        Recording { event, outputs: Vec::new(), ..recording(number, inputs, Vec::new()) }
    };
    assert!(!world.record(downloaded(3, &[output(2, 0)])).await, "its bytes alone are no news");
    world.record(downloaded(4, &[output(3, 0), output(2, 1)])).await;

    let walked = store.ledger_ancestors(alice, &[id(4)], 9).await.unwrap();
    assert_eq!((walked.len(), walked[0], walked[3]), (4, id(4), id(1)), "breadth first, each once: {walked:?}");
    assert_eq!(store.ledger_ancestors(alice, &[id(4)], 2).await.unwrap().len(), 2);
    assert!(store.ledger_ancestors(world.bob.identity, &[id(4)], 9).await.unwrap().is_empty());
    let named: BTreeSet<_> = store.parents_of(alice, &[id(4), id(2), id(9)]).await.unwrap().into_iter().collect();
    assert_eq!(named, [id(1), id(2), id(3)].into());

    let statuses = store.ledger_statuses(alice, &[id(4), id(9), id(1)]).await.unwrap();
    assert_eq!(statuses, [(id(4), TransactionStatus::Unverified), (id(1), TransactionStatus::Verified)]);
    let asked = [id(2), id(9), id(4), id(1)];
    let bodies = async |bytes| -> Vec<SecureHash> {
        store.ledger_bodies(alice, &asked, bytes).await.unwrap().iter().map(|found| found.id).collect()
    };
    let one = store.ledger_bodies(alice, &asked, 0).await.unwrap();
    assert_eq!((one.len(), one[0].body.clone()), (1, Some(Bytes::from("transaction 2"))), "never none");
    let size = one[0].signatures.len() + "transaction 2".len();
    assert_eq!(bodies(2 * size).await, [id(2), id(4)]);
    assert_eq!(bodies(3 * size - 1).await, [id(2), id(4)]);
    assert_eq!(bodies(usize::MAX).await, [id(2), id(4), id(1)]);

    world.ledger(world.alice, LedgerOp::Forget(vec![id(4), id(2), id(9)])).await;
    let kept = async |number| store.ledger_transaction(alice, &id(number)).await.unwrap().map(|found| found.status);
    assert_eq!((kept(4).await, kept(3).await), (None, Some(TransactionStatus::Unverified)));
    assert_eq!(kept(2).await, Some(TransactionStatus::Verified), "what is verified stays");
    // What was downloaded becomes part of the ledger, once.
    assert!(world.record(recording(3, &[output(2, 0)], vec![cash(4, "GBP", 1)])).await);
    let world = world.reopen().await;
    assert_eq!(world.unconsumed().await, [output(2, 1), output(3, 0)].into());
    let found = world.store.ledger_bodies(world.alice.identity, &[id(3)], 9).await.unwrap();
    assert_eq!(found[0].body, Some(Bytes::from("transaction 3")));
}
