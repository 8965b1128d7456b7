//! What is in flight: nobody selects it, and somebody settles it.

use std::collections::BTreeSet;

use maxhost_ledger::tx::StateRef;
use maxhost_ledger::vault::query::Query;
use maxhost_ledger::vault::recording::{StatesToRecord, TransactionEvent, TransactionStatus};
use maxhost_ledger::vault::selection::SelectionFailure;

use super::ledger::{cash, claim, holding, id, output, recording};
use super::{Databases, World, end};
use crate::ledger::{LedgerOp, Part, Recording, Settlement, Unsettled};

pub async fn what_is_in_flight_is_not_selected_until_it_is_settled<D: Databases>() {
    let world = World::<D>::new().await;
    let flow = world.start(world.alice).await;
    world.record(recording(1, &[], vec![cash(10, "GBP", 1)])).await;
    let sent = |number| {
        let event = TransactionEvent::SentToNotary;
        Recording { event, ..recording(number, &[output(1, 0)], vec![cash(10, "GBP", 1)]) }
    };
    assert!(!world.record(sent(2)).await);
    let kept = world.store.ledger_transaction(world.alice.identity, &id(2)).await.unwrap().unwrap();
    assert_eq!(kept.status, TransactionStatus::InFlight);
    let shown = world.all(&Query::default()).await;
    assert_eq!(shown.rows.iter().map(|row| row.in_flight).collect::<Vec<_>>(), [Some(id(2))]);
    // It is there, and held: whoever waits gets it, or what becomes of it.
    match world.claim_amount(claim(flow, 1, 10)).await {
        Err(SelectionFailure::Locked { needed: 10, amount: 10, holders, soonest: None }) => {
            assert_eq!(holders, [format!("transaction {}", id(2))].into());
        }
        other => panic!("{other:?}"),
    }
    let more = world.claim_amount(claim(flow, 1, 11)).await;
    assert_eq!(more, Err(SelectionFailure::Insufficient { needed: 11, have: 10 }));
    assert_eq!(world.unconsumed().await, [output(1, 0)].into(), "it is not consumed yet");
    world.record(Recording { event: TransactionEvent::Refused, ..sent(2) }).await;
    assert!(world.store.ledger_transaction(world.alice.identity, &id(2)).await.unwrap().is_none());
    assert_eq!(world.claim_amount(claim(flow, 1, 10)).await.unwrap(), [output(1, 0)]);
    world.record(sent(3)).await;
    assert!(world.record(recording(3, &[output(1, 0)], vec![cash(10, "GBP", 1)])).await);
    world.record(Recording { event: TransactionEvent::Refused, ..sent(3) }).await;
    let kept = world.store.ledger_transaction(world.alice.identity, &id(3)).await.unwrap().unwrap();
    assert_eq!(kept.status, TransactionStatus::Verified, "verified is for ever");
    assert_eq!(world.unconsumed().await, [output(3, 0)].into());
}

/// Two transactions in flight consume the same state: it is free when both are settled, in whichever order.
pub async fn what_is_in_flight_twice_is_free_when_both_are_settled<D: Databases>() {
    let world = World::<D>::new().await;
    let flow = world.start(world.alice).await;
    world.record(recording(1, &[], vec![cash(10, "GBP", 1), cash(5, "GBP", 1)])).await;
    let sent = |number, inputs: &[StateRef]| {
        let event = TransactionEvent::SentToNotary;
        Recording { event, ..recording(number, inputs, vec![cash(10, "GBP", 1)]) }
    };
    let (both, one) = (vec![output(1, 0), output(1, 1)], vec![output(1, 0)]);
    let refused = async |number, inputs: &[StateRef]| {
        world.record(Recording { event: TransactionEvent::Refused, ..sent(number, inputs) }).await
    };
    let transaction = |number| BTreeSet::from([format!("transaction {}", id(number))]);
    let held = async || match world.claim_amount(claim(flow, 1, 15)).await {
        Err(SelectionFailure::Locked { amount, holders, .. }) => (amount, holders),
        other => panic!("{other:?}"),
    };
    // The first is settled first.
    world.record(sent(2, &both)).await;
    world.record(sent(3, &one)).await;
    assert_eq!(held().await, (15, transaction(2)));
    refused(2, &both).await;
    assert_eq!(held().await, (10, transaction(3)));
    refused(2, &both).await;
    assert_eq!(held().await, (10, transaction(3)), "it is settled once");
    refused(3, &one).await;
    let mut claimed = world.claim_amount(claim(flow, 2, 15)).await.unwrap();
    claimed.sort_unstable();
    assert_eq!(claimed, both);
    world.ledger(world.alice, LedgerOp::Release { holder: holding(flow, 2).holder, states: None }).await;
    // The second is.
    world.record(sent(4, &both)).await;
    world.record(sent(5, &one)).await;
    refused(5, &one).await;
    assert_eq!(held().await, (15, transaction(4)));
    refused(4, &both).await;
    assert_eq!(world.claim_amount(claim(flow, 3, 15)).await.unwrap().len(), 2);
    world.ledger(world.alice, LedgerOp::Release { holder: holding(flow, 3).holder, states: None }).await;
    // It is consumed by one of them: what the other had in flight is nothing any more.
    world.record(sent(6, &both)).await;
    world.record(sent(7, &one)).await;
    assert!(world.record(recording(7, &one, vec![cash(10, "GBP", 1)])).await);
    refused(6, &both).await;
    assert_eq!(world.unconsumed().await, [output(1, 1), output(7, 0)].into());
    assert_eq!(world.claim_amount(claim(flow, 4, 15)).await.unwrap().len(), 2);
}

pub async fn what_is_in_flight_is_somebodys_to_settle<D: Databases>() {
    let world = World::<D>::new().await;
    let (one, two) = (world.start(world.alice).await, world.start(world.alice).await);
    world.record(recording(1, &[], vec![cash(10, "GBP", 1)])).await;
    let sent = Recording {
        event: TransactionEvent::SentToNotary,
        settlement: Some(Settlement { flow: one, part: Part::Giving, states: StatesToRecord::AllVisible }),
        ..recording(2, &[output(1, 0)], vec![cash(10, "GBP", 1)])
    };
    world.record(sent).await;
    let unsettled = async |world: &World<D>| {
        let (alice, bob) = (world.alice.identity, world.bob.identity);
        let found = world.store.unsettled(alice, 9).await.unwrap();
        let whose = world.store.with_unsettled(&[bob, alice]).await.unwrap();
        assert_eq!(whose, if found.is_empty() { vec![] } else { vec![alice] });
        found
    };
    assert!(unsettled(&world).await.is_empty(), "its flow lives");
    // A chain that it is a part of brings it once more.
    let event = TransactionEvent::Downloaded;
    world.record(Recording { event, ..recording(2, &[output(1, 0)], Vec::new()) }).await;
    world.commit(world.alice, vec![end(one)]).await.unwrap();
    let world = world.reopen().await;
    let left = |part, states| [Unsettled { id: id(2), part, states }];
    assert_eq!(unsettled(&world).await, left(Part::Giving, StatesToRecord::AllVisible));
    assert!(world.store.left_rows(world.alice.identity).await.unwrap().unsettled);
    let settlement = Settlement { flow: two, part: Part::Asking, states: StatesToRecord::None };
    world.ledger(world.alice, LedgerOp::Settle { id: id(2), settlement }).await;
    assert!(unsettled(&world).await.is_empty());
    world.commit(world.alice, vec![end(two)]).await.unwrap();
    assert_eq!(unsettled(&world).await, left(Part::Asking, StatesToRecord::None));
    assert!(world.record(recording(2, &[output(1, 0)], vec![cash(10, "GBP", 1)])).await);
    assert!(unsettled(&world).await.is_empty());
}
