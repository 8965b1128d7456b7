//! What may wait, and what happens at the bound.

use super::*;
use crate::{Queued, Quota, assert_outcome};

fn small() -> Settings {
    let quota = Quota { messages: 20, bytes: 200_000 };
    Settings { quotas: Quotas { inbound: quota, outbound: quota }, ..Settings::default() }
}

fn data(to: Recipient, flow: FlowRow, seq: u32) -> Vec<Op> {
    let (session, body) = (flow.session(0), vec![0; 50_000].into());
    vec![MessageOp::Deliver { to, session, seq, body, confirms: false }.into()]
}

pub async fn what_waits_for_an_identity_is_bounded<D: Databases>() {
    let w = World::<D>::with(small()).await;
    let mut ids = Vec::new();
    for _ in 0..25 {
        let id = w.store.next_initiation();
        w.commit(w.alice, vec![initiate(to(w.bob), id)]).await.unwrap();
        ids.push(id);
    }
    let refused = w.commit(w.alice, vec![initiate(to(w.bob), w.store.next_initiation())]).await;
    assert_outcome!(
        &refused,
        Err(StoreError::NoRoom { identity, queued: Queued::Inbound, messages: 25, .. }) if *identity == w.bob.identity
    );
    assert!(refused.unwrap_err().is_retriable(), "it passes when Bob takes something");
    w.commit(w.bob, vec![initiate(to(w.alice), w.store.next_initiation())]).await.unwrap();
    w.commit(w.bob, vec![take(ids[0])]).await.unwrap();
    w.commit(w.alice, vec![initiate(to(w.bob), w.store.next_initiation())]).await.unwrap();
}

pub async fn a_flow_that_looks_makes_room<D: Databases>() {
    let w = World::<D>::with(small()).await;
    let flow = w.start(w.bob).await;
    for seq in 0..4 {
        w.commit(w.alice, data(to(w.bob), flow, seq)).await.unwrap();
    }
    let no_room = |outcome| {
        assert_outcome!(outcome, Err(StoreError::NoRoom { queued: Queued::Inbound, bytes: 200_000, .. }));
    };
    no_room(w.commit(w.alice, data(to(w.bob), flow, 4)).await);
    w.commit(w.alice, vec![deliver(to(w.bob), flow.session(0), 5)]).await.unwrap();
    w.commit(w.bob, vec![set(flow, FlowState::Hospital)]).await.unwrap();
    assert_outcome!(w.commit(w.alice, data(to(w.bob), flow, 4)).await, Err(StoreError::NoRoom { .. }));
    w.commit(w.bob, vec![log(flow, 0)]).await.unwrap();
    for seq in 6..10 {
        w.commit(w.alice, data(to(w.bob), flow, seq)).await.unwrap();
    }
    no_room(w.commit(w.alice, data(to(w.bob), flow, 10)).await);
    w.commit(w.bob, vec![end(flow)]).await.unwrap();
    let next = w.start(w.bob).await;
    w.commit(w.alice, data(to(w.bob), next, 0)).await.unwrap();
}

pub async fn a_restart_knows_what_waits<D: Databases>() {
    let w = World::<D>::with(small()).await;
    let flow = w.start(w.bob).await;
    for seq in 0..2 {
        w.commit(w.alice, data(to(w.bob), flow, seq)).await.unwrap();
    }
    let id = w.store.next_initiation();
    let body = vec![0; 90_000].into();
    w.commit(w.alice, vec![MessageOp::Initiate { to: to(w.bob), id, body }.into()]).await.unwrap();
    let w = w.reopen().await;
    assert_outcome!(w.commit(w.alice, data(to(w.bob), flow, 2)).await, Err(StoreError::NoRoom { .. }));
    w.commit(w.bob, vec![take(id)]).await.unwrap();
    w.commit(w.alice, data(to(w.bob), flow, 2)).await.unwrap();
    w.commit(w.bob, vec![log(flow, 0)]).await.unwrap();
    let w = w.reopen().await;
    for seq in 3..7 {
        w.commit(w.alice, data(to(w.bob), flow, seq)).await.unwrap();
    }
}

pub async fn what_waits_for_the_broker_is_bounded<D: Databases>() {
    let w = World::<D>::with(small()).await;
    let message = |n: u8| {
        let (destination, body) = (Arc::from("x"), vec![0; 50_000].into());
        vec![MessageOp::Outbox { destination, message_id: [n; 16], body }.into()]
    };
    for n in 0..4 {
        w.commit(w.alice, message(n)).await.unwrap();
    }
    let full = w.commit(w.alice, message(4)).await;
    assert_outcome!(
        full,
        Err(StoreError::NoRoom { identity, queued: Queued::Outbound, .. }) if identity == w.alice.identity
    );
    w.commit(w.bob, message(5)).await.unwrap();
    let w = w.reopen().await;
    assert_outcome!(w.commit(w.alice, message(4)).await, Err(StoreError::NoRoom { .. }));
    let sent = MessageOp::OutboxSent { id: w.store.outbox(0, 1).await.unwrap()[0].id, marker: None };
    w.commit(w.alice, vec![sent.into()]).await.unwrap();
    w.commit(w.alice, message(4)).await.unwrap();
}

/// It is refused before its first write, so its batch is not written twice.
pub async fn a_refused_unit_costs_others_nothing<D: Databases>() {
    let w = World::<D>::with(small()).await;
    let (flow, others) = (w.start(w.bob).await, w.start(w.alice).await);
    for seq in 0..4 {
        w.commit(w.alice, data(to(w.bob), flow, seq)).await.unwrap();
    }
    let gate = hold_the_committer(&w.store, w.alice);
    let first = submit(&w.store, w.alice, None, vec![log(others, 0)]);
    let mut ops = vec![log(others, 1)];
    ops.extend(data(to(w.bob), flow, 4));
    let refused = submit(&w.store, w.alice, None, ops);
    let second = submit(&w.store, w.alice, None, vec![log(others, 1)]);
    drop(gate);
    first.await.unwrap().unwrap();
    assert_outcome!(refused.await.unwrap(), Err(StoreError::NoRoom { .. }));
    second.await.unwrap().unwrap();
}
