//! What operations on flows do.

use std::collections::HashSet;

use super::*;
use crate::{Conflict, FlowVersion, ResultRead};

pub async fn a_flow_lives_and_dies<D: Databases>() {
    let w = World::<D>::new().await;
    let flow = w.store.next_flow_row();
    let message = |session, seq| deliver(to(w.alice), flow.session(session), seq);
    w.commit(w.alice, vec![start(flow), log(flow, 0), message(0, 0)]).await.unwrap();
    w.commit(w.alice, vec![log(flow, 1), message(3, 0), message(0, 1)]).await.unwrap();

    let journal = w.store.journal(flow).await.unwrap().unwrap();
    assert_eq!(journal.record.state, FlowState::Live);
    assert_eq!(journal.record.identity, w.alice.identity);
    assert_eq!((&*journal.record.name, &journal.record.start), ("ping-pong/ping", &text("start")));
    assert_eq!(journal.record.id, FlowId::new(flow, 0xfeed));
    assert_eq!(journal.log, [(0, text("log 0")), (1, text("log 1"))]);
    let expected = [(0, 0), (0, 1), (3, 0)].map(|(s, n)| (flow.session(s), n, text(&format!("message {n}"))));
    assert_eq!(journal.inbox, expected);

    w.commit(w.alice, vec![end_kept(flow, 5000)]).await.unwrap();
    let journal = w.store.journal(flow).await.unwrap().unwrap();
    assert_eq!((journal.log.len(), journal.inbox.len()), (0, 0));
    assert_eq!(journal.record.state, FlowState::Completed);
    assert_eq!((journal.record.finished, journal.record.expires), (Some(2000), Some(5000)));
    assert_eq!((journal.record.end, journal.record.labels), (Some(text("end")), Some(text("labels"))));

    let dropped = w.start(w.alice).await;
    w.commit(w.alice, vec![log(dropped, 0), end(dropped)]).await.unwrap();
    assert_eq!(w.store.journal(dropped).await.unwrap(), None);
    assert_eq!(w.store.flow(FlowRow(dropped.0 + 1)).await.unwrap(), None);
}

pub async fn a_flow_is_written_only_by_its_identity_while_it_is_live<D: Databases>() {
    let w = World::<D>::new().await;
    let flow = w.start(w.alice).await;
    for op in [log(flow, 0), end(flow), set(flow, FlowState::Paused)] {
        assert_eq!(w.conflict(w.bob, vec![op]).await, Conflict::FlowNotLive(flow));
    }
    w.commit(w.alice, vec![set(flow, FlowState::Hospital)]).await.unwrap();
    let record = w.store.flow(flow).await.unwrap().unwrap();
    assert_eq!((record.state, record.attempts, record.reason.as_deref()), (FlowState::Hospital, 3, Some("why")));
    assert_eq!(w.conflict(w.alice, vec![set(flow, FlowState::Killed)]).await, Conflict::StateNotAllowed);
    w.commit(w.alice, vec![log(flow, 0), end_kept(flow, 9_000_000)]).await.unwrap();
    for op in [log(flow, 1), end(flow), set(flow, FlowState::Live)] {
        assert_eq!(w.conflict(w.alice, vec![op]).await, Conflict::FlowNotLive(flow));
    }
    assert_eq!(w.conflict(w.alice, vec![start(flow)]).await, Conflict::FlowExists(flow));
    for beyond in [FlowRow(FlowRow::MAX.0 + 1), FlowRow(0)] {
        assert_eq!(w.conflict(w.alice, vec![start(beyond)]).await, Conflict::RowOutOfRange(beyond));
    }
}

pub async fn a_change_that_was_decided_on_an_older_version_is_refused<D: Databases>() {
    let w = World::<D>::new().await;
    let flow = w.start(w.alice).await;
    let pause = |expect| {
        let (state, reason) = (FlowState::Paused, None);
        vec![FlowOp::SetState { flow, state, reason, attempts: 0, expect: Some(expect) }.into()]
    };
    let version = async || w.store.journal(flow).await.unwrap().unwrap().version();
    let first = version().await;
    assert_eq!(first, FlowVersion { segment: None, revision: 0 });
    w.commit(w.alice, vec![log(flow, 0)]).await.unwrap();
    assert_eq!(w.conflict(w.alice, pause(first)).await, Conflict::FlowMovedOn(flow));
    let second = version().await;
    assert!(second > first);
    w.commit(w.alice, pause(second)).await.unwrap();
    assert_eq!(w.conflict(w.alice, pause(second)).await, Conflict::FlowMovedOn(flow), "it was paused since");
    assert_eq!(version().await, FlowVersion { segment: Some(0), revision: 1 });
    // Started, changed and looked at in one batch.
    let new = w.store.next_flow_row();
    let expect = Some(FlowVersion { segment: Some(0), revision: 1 });
    let again = FlowOp::SetState { flow: new, state: FlowState::Live, reason: None, attempts: 7, expect };
    w.commit(w.alice, vec![start(new), log(new, 0), set(new, FlowState::Paused), again.into()]).await.unwrap();
    let record = w.store.flow(new).await.unwrap().unwrap();
    assert_eq!((record.state, record.attempts, record.revision), (FlowState::Live, 7, 2));
}

pub async fn what_was_kept_is_forgotten_in_time<D: Databases>() {
    let w = World::<D>::new().await;
    let mut flows = Vec::new();
    // Ended at 2000: three to be kept for no time at all, two for an hour, whatever the clock on the wall says.
    for (n, expires) in [2000, 2000, 1000, 3_602_000, 3_602_000].into_iter().enumerate() {
        let flow = w.store.next_flow_row();
        let ops = vec![start_with_client(flow, &format!("c{n}"), "ann"), end_kept(flow, expires)];
        w.commit(w.alice, ops).await.unwrap();
        flows.push(flow);
    }
    assert_eq!(w.store.purge(2).await.unwrap(), 2);
    assert_eq!(w.store.purge(2).await.unwrap(), 1);
    assert_eq!(w.store.purge(2).await.unwrap(), 0);
    let left = w.store.flows(&flows).await.unwrap();
    assert_eq!(left.iter().map(|flow| flow.row).collect::<Vec<_>>(), flows[3..]);
    assert_eq!(w.store.clients(w.alice.identity, "ann", "", 10).await.unwrap().len(), 2);
    let w = w.reopen().await;
    assert_eq!(w.store.purge(10).await.unwrap(), 0, "a restart makes nothing old");
    assert_eq!(w.store.flows(&flows).await.unwrap().len(), 2);
}

pub async fn a_row_is_never_used_again<D: Databases>() {
    let mut w = World::<D>::new().await;
    let mut used = HashSet::new();
    for round in 0..3 {
        for _ in 0..700 {
            assert!(used.insert(w.store.next_flow_row()), "round {round}");
        }
        let flow = w.store.next_flow_row();
        assert!(used.insert(flow));
        w.commit(w.alice, vec![start(flow)]).await.unwrap();
        w.commit(w.alice, vec![end(flow)]).await.unwrap();
        w = w.reopen().await;
        let next = w.store.next_flow_row();
        assert!(next > flow, "round {round}: {next:?} after {flow:?}, whose row is gone");
        used.insert(next);
    }
}

pub async fn a_result_is_read_once<D: Databases>() {
    let w = World::<D>::new().await;
    let flow = w.start(w.alice).await;
    let read = |at| w.store.note_results_read(vec![ResultRead { flow, at }]);
    read(1).await.unwrap();
    w.commit(w.alice, vec![end_kept(flow, 9_000_000)]).await.unwrap();
    assert_eq!(w.store.flow(flow).await.unwrap().unwrap().result_read, None, "it had no result then");
    read(3).await.unwrap();
    read(4).await.unwrap();
    assert_eq!(w.store.flow(flow).await.unwrap().unwrap().result_read, Some(3));
}
