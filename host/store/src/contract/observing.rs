//! States that are not one's own: what an observer's vault has of them.

use maxhost_ledger::tx::StateRef;
use maxhost_ledger::vault::locks::NotAvailable;
use maxhost_ledger::vault::query::{EXTERNAL_ID, Query, Relevancy, Status, StatusFilter, Value, of_external_ids};
use maxhost_ledger::vault::recording::StatesToRecord;
use maxhost_ledger::vault::selection::SelectionFailure;

use super::ledger::{at, cash, claim, holding, id, output, recording};
use super::{Databases, World};
use crate::StoreError;
use crate::ledger::{LedgerOp, LedgerReceipt, Recording, Reservation};

fn query(status: StatusFilter, relevancy: Relevancy) -> Query {
    let filter = relevancy.criterion().unwrap_or_else(|| Query::default().filter);
    Query { status, filter, ..Query::default() }
}

/// What the vault has: each state, whether it is one's own, and whether it is consumed.
async fn vault<D: Databases>(world: &World<D>) -> Vec<(StateRef, bool, bool)> {
    let rows = world.all(&query(StatusFilter::All, Relevancy::All)).await.rows;
    let each = rows.iter().map(|row| (row.row.reference, row.row.relevant, row.row.status == Status::Consumed));
    let mut each: Vec<_> = each.collect();
    each.sort();
    each
}

fn sorted(mut states: Vec<(StateRef, bool, bool)>) -> Vec<(StateRef, bool, bool)> {
    states.sort();
    states
}

async fn reserve<D: Databases>(world: &World<D>, reservation: Reservation) -> Result<(), NotAvailable> {
    match world.ledger(world.alice, LedgerOp::Reserve(Box::new(reservation))).await {
        Some(LedgerReceipt::Reserved(reserved)) => reserved,
        other => panic!("not decided: {other:?}"),
    }
}

/// Cash of Alice and of somebody else, of which all is recorded.
fn all_of(number: u32, inputs: &[StateRef]) -> Recording {
    let outputs = vec![cash(10, "GBP", 1), cash(70, "GBP", 2)];
    Recording { what: StatesToRecord::AllVisible, ..recording(number, inputs, outputs) }
}

pub async fn what_is_not_ones_own_is_found_and_neither_selected_nor_locked<D: Databases>() {
    let world = World::<D>::new().await;
    let flow = world.start(world.alice).await;
    world.record(all_of(1, &[])).await;
    let found = async |relevancy| {
        let rows = world.all(&query(StatusFilter::Unconsumed, relevancy)).await.rows;
        rows.iter().map(|row| row.row.reference).collect::<Vec<_>>()
    };
    assert_eq!(found(Relevancy::All).await, [output(1, 0), output(1, 1)]);
    assert_eq!(found(Relevancy::Relevant).await, [output(1, 0)]);
    assert_eq!(found(Relevancy::NotRelevant).await, [output(1, 1)]);
    let more = world.claim_amount(claim(flow, 1, 11)).await;
    assert_eq!(more, Err(SelectionFailure::Insufficient { needed: 11, have: 10 }), "another's money is none");
    for states in [vec![output(1, 1)], vec![output(1, 0), output(1, 1)]] {
        let reservation = Reservation { states: states.into_iter().collect(), holding: holding(flow, 2), now: at(100) };
        assert_eq!(reserve(&world, reservation).await, Err(NotAvailable([output(1, 1)].into())));
    }
    let locks = world.store.locks(world.alice.identity, None, 10, at(0)).await.unwrap();
    assert!(locks.is_empty(), "{locks:?}");
    // What a flow records it holds only as far as it is its identity's own.
    world.record(Recording { flow: Some(holding(flow, 3)), ..all_of(2, &[]) }).await;
    let locks = world.store.locks(world.alice.identity, None, 10, at(0)).await.unwrap();
    assert_eq!(locks.iter().map(|lock| lock.reference).collect::<Vec<_>>(), [output(2, 0)]);
}

pub async fn a_choice_of_states_grows_and_never_shrinks<D: Databases>() {
    use StatesToRecord::{AllVisible, None, OnlyRelevant};
    let mut world = World::<D>::new().await;
    let (own, others) = ((output(1, 0), true, false), (output(1, 1), false, false));
    let steps = [
        (None, vec![]),
        (OnlyRelevant, vec![own]),
        (None, vec![own]),
        (AllVisible, vec![own, others]),
        (OnlyRelevant, vec![own, others]),
        (AllVisible, vec![own, others]),
        (None, vec![own, others]),
    ];
    for (number, (what, expected)) in steps.into_iter().enumerate() {
        let announced = world.record(Recording { what, ..all_of(1, &[]) }).await;
        assert_eq!(announced, number == 0, "it becomes part of the ledger once");
        assert_eq!(vault(&world).await, sorted(expected), "step {number}");
        world = world.reopen().await;
    }
    // Each state is told of once.
    let changes = world.store.vault_changes(world.alice.identity, 0, 10, at(0)).await.unwrap();
    let produced: Vec<_> = changes.iter().flat_map(|change| &change.produced).map(|row| row.row.reference).collect();
    assert_eq!(produced, [output(1, 0), output(1, 1)]);
    // Whatever is recorded of what consumes them, both are consumed, and stay so when they are recorded again.
    world.record(Recording { what: None, ..all_of(2, &[output(1, 0), output(1, 1)]) }).await;
    let consumed = sorted(vec![(output(1, 0), true, true), (output(1, 1), false, true)]);
    assert_eq!(vault(&world).await, consumed);
    world.record(all_of(1, &[])).await;
    assert_eq!(vault(&world).await, consumed);
}

pub async fn what_an_observer_gets_late_comes_in_consumed<D: Databases>() {
    let world = World::<D>::new().await;
    let of_others = |number, inputs: &[StateRef]| recording(number, inputs, vec![cash(5, "GBP", 2), cash(6, "GBP", 3)]);
    // The second is recorded before all of the first is wanted.
    world.record(of_others(1, &[])).await;
    world.record(of_others(2, &[output(1, 1)])).await;
    assert!(vault(&world).await.is_empty());
    world.record(Recording { what: StatesToRecord::AllVisible, ..of_others(1, &[]) }).await;
    assert_eq!(vault(&world).await, sorted(vec![(output(1, 0), false, false), (output(1, 1), false, true)]));
    // A transaction that is recorded as usual consumes what is there, whoever's it is, and adds nothing.
    world.record(of_others(3, &[output(1, 0)])).await;
    assert_eq!(vault(&world).await, sorted(vec![(output(1, 0), false, true), (output(1, 1), false, true)]));
    let shown = world.store.vault_changes(world.alice.identity, 0, 10, at(0)).await.unwrap();
    assert_eq!(shown.last().map(|change| change.transaction), Some(id(3)));
}

pub async fn states_are_found_by_their_external_id<D: Databases>() {
    let world = World::<D>::new().await;
    let named = |id: &str, owner| {
        let mut state = cash(1, "GBP", owner);
        state.content.fields.insert(EXTERNAL_ID.to_owned(), Value::text(id));
        state
    };
    world.record(recording(1, &[], vec![named("a'1", 1), named("b", 1), cash(1, "GBP", 1), named("b", 1)])).await;
    let found = async |ids: &[&str]| {
        let ids: Vec<String> = ids.iter().map(|id| (*id).to_owned()).collect();
        let filter = of_external_ids(&ids).unwrap().unwrap();
        let mut rows = world.all(&Query { filter, ..Query::default() }).await.rows;
        rows.sort_by_key(|row| row.row.reference);
        rows.iter().map(|row| row.row.reference.index).collect::<Vec<_>>()
    };
    assert_eq!(found(&["b"]).await, [1, 3]);
    assert_eq!(found(&["a'1", "b", "c"]).await, [0, 1, 3]);
    assert_eq!(found(&["c"]).await, Vec::<u32>::new());
}

pub async fn what_has_consumed_a_state_is_known_whether_or_not_the_vault_has_it<D: Databases>() {
    let world = World::<D>::new().await;
    let (store, alice) = (&world.store, world.alice.identity);
    world.record(recording(1, &[], vec![cash(10, "GBP", 1), cash(5, "GBP", 2), cash(6, "GBP", 1)])).await;
    world.record(recording(2, &[output(1, 0), output(1, 1)], Vec::new())).await;
    // One that comes when it has been consumed.
    world.record(recording(4, &[output(3, 0)], Vec::new())).await;
    world.record(recording(3, &[], vec![cash(7, "GBP", 1)])).await;
    assert_eq!(world.unconsumed().await, [output(1, 2)].into());
    let consumed = [(output(1, 0), id(2)), (output(1, 1), id(2)), (output(3, 0), id(4))];
    let few = [output(1, 0), output(1, 1), output(1, 2), output(3, 0)];
    let many: Vec<StateRef> = (0..500).map(|index| output(1, index)).chain([output(3, 0)]).collect();
    for asked in [&few[..], &many[..]] {
        assert_eq!(store.spent_by(alice, asked).await.unwrap(), consumed);
        assert!(store.spent_by(world.bob.identity, asked).await.unwrap().is_empty(), "another's ledger");
    }
    for (number, (state, _)) in (10..).zip(consumed) {
        let second = LedgerOp::Record(Box::new(recording(number, &[state], Vec::new())));
        match world.commit(world.alice, vec![second.into()]).await {
            Err(StoreError::Ledger(refused)) => assert_eq!(refused.code(), "recording-refused"),
            other => panic!("{state}: {other:?}"),
        }
    }
}
