//! What a unit does, and that it does it whole or not at all.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::sync::Arc;

use common::*;
use maxhost_model::{FlowRow, IdentityRow};
use maxhost_store::{AttemptToken, Bounds, CommitUnit, Conflict, FlowState, Op, Store, StoreError, StoreOptions};

#[tokio::test]
async fn a_flow_lives_and_dies() {
    let f = Fixture::new().await;
    let flow = f.store.next_flow_row();
    f.commit(f.alice, vec![start(flow), log(flow, 0), deliver(flow.session(0), 0)]).await.unwrap();
    f.commit(f.alice, vec![log(flow, 1), deliver(flow.session(3), 0), deliver(flow.session(0), 1)]).await.unwrap();

    let journal = f.store.journal(flow).await.unwrap().unwrap();
    assert_eq!(journal.record.state, FlowState::Live);
    assert_eq!(journal.record.identity, f.alice);
    assert_eq!((&*journal.record.name, journal.record.start), ("ping-pong/ping", text("start")));
    assert_eq!(journal.log, [(0, text("log 0")), (1, text("log 1"))]);
    let expected = [(0, 0), (0, 1), (3, 0)].map(|(s, n)| (flow.session(s), n, text(&format!("message {n}"))));
    assert_eq!(journal.inbox, expected);

    f.commit(f.alice, vec![end_kept(flow, 5000)]).await.unwrap();
    let journal = f.store.journal(flow).await.unwrap().unwrap();
    assert_eq!((journal.log.len(), journal.inbox.len()), (0, 0));
    assert_eq!(journal.record.state, FlowState::Completed);
    assert_eq!((journal.record.finished, journal.record.expires), (Some(2000), Some(5000)));
    assert_eq!(journal.record.end, Some(text("end")));

    let dropped = f.start(f.alice).await;
    f.commit(f.alice, vec![log(dropped, 0), end(dropped)]).await.unwrap();
    assert_eq!(f.store.journal(dropped).await.unwrap(), None);
}

#[tokio::test]
async fn a_failing_unit_fails_alone_and_leaves_nothing() {
    let f = Fixture::new().await;
    let (good, bad, other) = (f.start(f.alice).await, f.start(f.alice).await, f.start(f.bob).await);
    f.commit(f.alice, vec![log(bad, 0)]).await.unwrap();
    // Held up by a unit before them, all of these share one transaction.
    let gate = hold_the_committer(&f.store, f.alice);
    let answers = [
        submit(&f.store, f.alice, None, vec![log(good, 0)]),
        submit(&f.store, f.alice, None, vec![deliver(other.session(0), 7), log(bad, 1), log(bad, 0)]),
        submit(&f.store, f.bob, None, vec![log(other, 0)]),
        submit(&f.store, f.alice, None, vec![end(good), log(good, 1)]),
        submit(&f.store, f.bob, None, vec![deliver(good.session(0), 0)]),
    ];
    drop(gate);
    let [first, second, third, fourth, fifth] = answers;
    first.await.unwrap().unwrap();
    assert_outcome!(second.await.unwrap(), Err(StoreError::Conflict(Conflict::SegmentExists { flow, seq: 0 })) if flow == bad);
    third.await.unwrap().unwrap();
    assert_outcome!(fourth.await.unwrap(), Err(StoreError::Conflict(Conflict::FlowNotLive(flow))) if flow == good);
    assert!(fifth.await.unwrap().unwrap().undelivered.is_empty());

    let segments = |journal: Option<maxhost_store::StoredJournal>| {
        let journal = journal.unwrap();
        (journal.log.len(), journal.inbox.len())
    };
    assert_eq!(segments(f.store.journal(good).await.unwrap()), (1, 1));
    assert_eq!(segments(f.store.journal(bad).await.unwrap()), (1, 0));
    assert_eq!(segments(f.store.journal(other).await.unwrap()), (1, 0));
}

#[tokio::test]
async fn the_database_decides_who_may_write() {
    let f = Fixture::new().await;
    let flow = f.start(f.alice).await;
    f.store.raise_epoch(f.alice, 5).await.unwrap();
    f.store.raise_epoch(f.alice, 5).await.unwrap();
    assert_outcome!(f.store.raise_epoch(f.alice, 4).await, Err(StoreError::Fenced { current: 5, epoch: 4, .. }));
    for stale in [0, 4, 6] {
        let refused = f.store.commit(f.alice, stale, vec![log(flow, 0)]).await;
        assert_outcome!(refused, Err(StoreError::Fenced { current: 5, epoch, .. }) if epoch == stale);
    }
    f.store.commit(f.alice, 5, vec![log(flow, 0)]).await.unwrap();
    assert_outcome!(
        f.store.commit(IdentityRow(77), 0, vec![]).await,
        Err(StoreError::Conflict(Conflict::IdentityUnknown(IdentityRow(77))))
    );
    let f = f.reopen().await;
    assert_eq!(f.store.identities().await.unwrap()[0].epoch, 5);
    assert_outcome!(f.commit(f.alice, vec![]).await, Err(StoreError::Fenced { .. }));
}

#[tokio::test]
async fn an_epoch_raised_behind_the_committers_back_fences_it() {
    let f = Fixture::new().await;
    f.commit(f.alice, vec![]).await.unwrap();
    let other = rusqlite::Connection::open(f.dir.path().join("host.db")).unwrap();
    other.execute("UPDATE identity SET epoch = 9 WHERE name = 'Alice'", []).unwrap();
    assert_outcome!(f.commit(f.alice, vec![]).await, Err(StoreError::Fenced { current: 9, .. }));
    f.commit(f.bob, vec![]).await.unwrap();
}

#[tokio::test]
async fn after_a_failure_nothing_of_that_attempt_is_written() {
    let f = Fixture::new().await;
    let flow = f.start(f.alice).await;
    let attempt = AttemptToken::new();
    let gate = hold_the_committer(&f.store, f.alice);
    let first = submit(&f.store, f.alice, Some(&attempt), vec![log(flow, 0)]);
    let fails = submit(&f.store, f.alice, Some(&attempt), vec![log(flow, 1), Op::TakeInitiation { id: 1 }]);
    let same_batch = submit(&f.store, f.alice, Some(&attempt), vec![log(flow, 2)]);
    drop(gate);
    first.await.unwrap().unwrap();
    assert_outcome!(fails.await.unwrap(), Err(StoreError::Conflict(Conflict::InitiationGone(1))));
    assert_outcome!(same_batch.await.unwrap(), Err(StoreError::Superseded));
    assert!(attempt.is_revoked());
    let later = submit(&f.store, f.alice, Some(&attempt), vec![log(flow, 1)]);
    assert_outcome!(later.await.unwrap(), Err(StoreError::Superseded));
    assert_eq!(f.store.journal(flow).await.unwrap().unwrap().log.len(), 1);
    let next_attempt = submit(&f.store, f.alice, Some(&AttemptToken::new()), vec![log(flow, 1)]);
    next_attempt.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_client_id_names_one_flow_of_its_identity() {
    let f = Fixture::new().await;
    let [first, second, third] = [(); 3].map(|()| f.store.next_flow_row());
    f.commit(f.alice, vec![start_with_client(first, "order-1", "ann")]).await.unwrap();
    let taken = f.commit(f.alice, vec![start_with_client(second, "order-1", "ann"), log(second, 0)]).await;
    assert_outcome!(taken, Err(StoreError::ClientIdTaken { flow }) if flow == first);
    assert_eq!(f.store.flow(second).await.unwrap(), None);
    f.commit(f.bob, vec![start_with_client(third, "order-1", "ben")]).await.unwrap();

    assert_eq!(f.store.client(f.alice, "order-1").await.unwrap(), Some((Some("ann".to_owned()), first)));
    assert_eq!(f.store.client(f.alice, "order-2").await.unwrap(), None);
    let remove = || vec![Op::RemoveClient { client_id: "order-1".to_owned() }];
    assert_outcome!(f.commit(f.alice, remove()).await, Err(StoreError::Conflict(Conflict::ClientRunning(flow))) if flow == first);
    f.commit(f.alice, vec![end_kept(first, 9000)]).await.unwrap();
    let clients = f.store.clients(f.alice, Some("ann")).await.unwrap();
    assert_eq!((clients.len(), clients[0].state), (1, FlowState::Completed));
    assert!(f.store.clients(f.alice, Some("ben")).await.unwrap().is_empty());
    f.commit(f.alice, remove()).await.unwrap();
    assert_outcome!(f.commit(f.alice, remove()).await, Err(StoreError::Conflict(Conflict::ClientUnknown)));
    assert_eq!(f.store.flow(first).await.unwrap(), None);
    let again = f.store.next_flow_row();
    f.commit(f.alice, vec![start_with_client(again, "order-1", "ann")]).await.unwrap();
    f.commit(f.alice, vec![end(again)]).await.unwrap();
    assert_eq!(f.store.client(f.alice, "order-1").await.unwrap(), None, "not kept: the client id is free again");
}

#[tokio::test]
async fn a_message_is_kept_once_and_dropped_when_nobody_is_there() {
    let f = Fixture::new().await;
    let (sender, receiver, dead) = (f.start(f.alice).await, f.start(f.bob).await, f.start(f.bob).await);
    f.commit(f.bob, vec![end(dead)]).await.unwrap();
    let ops = vec![
        log(sender, 0),
        deliver(receiver.session(0), 0),
        deliver(dead.session(0), 0),
        deliver(receiver.session(0), 0),
        deliver(FlowRow(1 << 40).session(2), 0),
    ];
    let receipt = f.commit(f.alice, ops).await.unwrap();
    assert_eq!(receipt.undelivered[..], [2, 4]);
    let again = f.commit(f.alice, vec![deliver(receiver.session(0), 0)]).await.unwrap();
    assert!(again.undelivered.is_empty());
    assert_eq!(f.store.journal(receiver).await.unwrap().unwrap().inbox.len(), 1);
}

#[tokio::test]
async fn a_flow_is_written_only_by_its_identity_while_it_is_live() {
    let f = Fixture::new().await;
    let flow = f.start(f.alice).await;
    let foreign = [log(flow, 0), end(flow), set(flow, FlowState::Paused)];
    for op in foreign {
        assert_outcome!(f.commit(f.bob, vec![op]).await, Err(StoreError::Conflict(Conflict::FlowNotLive(_))));
    }
    f.commit(f.alice, vec![set(flow, FlowState::Hospital)]).await.unwrap();
    let record = f.store.flow(flow).await.unwrap().unwrap();
    assert_eq!((record.state, record.attempts, record.reason.as_deref()), (FlowState::Hospital, 3, Some("why")));
    assert_outcome!(
        f.commit(f.alice, vec![set(flow, FlowState::Killed)]).await,
        Err(StoreError::Conflict(Conflict::StateNotAllowed))
    );
    f.commit(f.alice, vec![log(flow, 0), end_kept(flow, 1)]).await.unwrap();
    for op in [log(flow, 1), end(flow), set(flow, FlowState::Live)] {
        assert_outcome!(f.commit(f.alice, vec![op]).await, Err(StoreError::Conflict(Conflict::FlowNotLive(_))));
    }
    assert_outcome!(f.commit(f.alice, vec![start(flow)]).await, Err(StoreError::Conflict(Conflict::FlowExists(_))));
    let beyond = FlowRow(FlowRow::MAX.0 + 1);
    assert_outcome!(
        f.commit(f.alice, vec![start(beyond)]).await,
        Err(StoreError::Conflict(Conflict::RowOutOfRange(_)))
    );
}

fn set(flow: FlowRow, state: FlowState) -> Op {
    Op::SetState { flow, state, reason: Some("why".to_owned()), attempts: 3 }
}

#[tokio::test]
async fn an_initiation_waits_until_its_identity_takes_it() {
    let f = Fixture::new().await;
    let sender = f.start(f.alice).await;
    let initiate = |to, id| Op::Initiate { to, id, body: text("hello") };
    let [to_bob, to_alice] = [f.store.next_initiation(), f.store.next_initiation()];
    f.commit(f.alice, vec![log(sender, 0), initiate(f.bob, to_bob), initiate(f.alice, to_alice)]).await.unwrap();
    assert_outcome!(
        f.commit(f.alice, vec![initiate(f.bob, to_bob)]).await,
        Err(StoreError::Conflict(Conflict::InitiationExists(id))) if id == to_bob
    );
    assert_outcome!(
        f.commit(f.alice, vec![initiate(IdentityRow(99), f.store.next_initiation())]).await,
        Err(StoreError::Conflict(Conflict::IdentityUnknown(_)))
    );
    assert_eq!(f.store.identities_with_initiations().await.unwrap(), [f.alice, f.bob]);
    assert_eq!(f.store.initiations(f.bob, 0, 10).await.unwrap(), [(to_bob, text("hello"))]);
    assert!(f.store.initiations(f.bob, to_bob, 10).await.unwrap().is_empty());

    let take = |id| Op::TakeInitiation { id };
    assert_outcome!(f.commit(f.bob, vec![take(to_alice)]).await, Err(StoreError::Conflict(_)));
    let responder = f.store.next_flow_row();
    f.commit(f.bob, vec![take(to_bob), start(responder)]).await.unwrap();
    assert_outcome!(f.commit(f.bob, vec![take(to_bob)]).await, Err(StoreError::Conflict(Conflict::InitiationGone(_))));
    assert_eq!(f.store.identities_with_initiations().await.unwrap(), [f.alice]);

    let f = f.reopen().await;
    let next = f.store.next_initiation();
    assert!(next > to_alice.max(to_bob), "a number is never used again");
}

#[tokio::test]
async fn what_builds_on_a_unit_that_was_not_written_is_not_written_either() {
    let f = Fixture::new().await;
    let (sender, receiver) = (f.start(f.alice).await, f.start(f.bob).await);
    let (sending, receiving, third) = (AttemptToken::new(), AttemptToken::new(), AttemptToken::new());
    let good = vec![deliver(receiver.session(0), 0)];
    let first = submit(&f.store, f.alice, Some(&sending), good);
    let built_on_it = submit_after(&f.store, f.bob, &receiving, &sending, vec![log(receiver, 0)]);
    assert_outcome!(first.await.unwrap(), Ok(_));
    assert_outcome!(built_on_it.await.unwrap(), Ok(_));

    // The message is refused with the rest of its unit; whoever has read it must not be believed, nor who has read him.
    let bad = vec![deliver(receiver.session(0), 1), Op::TakeInitiation { id: 77 }];
    let fails = submit(&f.store, f.alice, Some(&sending), bad);
    let built_on_it = submit_after(&f.store, f.bob, &receiving, &sending, vec![deliver(sender.session(0), 0)]);
    let built_on_that = submit_after(&f.store, f.alice, &third, &receiving, vec![log(sender, 0)]);
    assert_outcome!(fails.await.unwrap(), Err(StoreError::Conflict(_)));
    assert_outcome!(built_on_it.await.unwrap(), Err(StoreError::Superseded));
    assert_outcome!(built_on_that.await.unwrap(), Err(StoreError::Superseded));
    let journal = f.store.journal(receiver).await.unwrap().unwrap();
    assert_eq!((journal.log.len(), journal.inbox.len()), (1, 1));
    let journal = f.store.journal(sender).await.unwrap().unwrap();
    assert_eq!((journal.log.len(), journal.inbox.len()), (0, 0));
}

#[tokio::test]
async fn a_broker_message_is_taken_once() {
    let f = Fixture::new().await;
    let flow = f.start(f.bob).await;
    let arrive = |seq| vec![deliver(flow.session(0), seq), Op::Arrived { message_id: [7; 16] }];
    f.commit(f.bob, arrive(0)).await.unwrap();
    assert_outcome!(f.commit(f.bob, arrive(1)).await, Err(StoreError::Duplicate));
    assert_eq!(f.store.journal(flow).await.unwrap().unwrap().inbox.len(), 1, "the other operations are undone");
    f.commit(f.alice, vec![Op::Arrived { message_id: [7; 16] }]).await.unwrap();
}

#[tokio::test]
async fn the_outbox_keeps_messages_until_the_broker_has_them() {
    let f = Fixture::new().await;
    let message = |n: u8| Op::Outbox { destination: Arc::from("p2p.inbound.x"), message_id: [n; 16], body: text("m") };
    f.commit(f.alice, vec![message(1), message(2)]).await.unwrap();
    f.commit(f.bob, vec![message(3)]).await.unwrap();
    let rows = f.store.outbox(0, 10).await.unwrap();
    assert_eq!(rows.iter().map(|row| row.message_id[0]).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!((&*rows[2].destination, rows[2].identity), ("p2p.inbound.x", f.bob));
    let sent = |row: &maxhost_store::OutboxRow| vec![Op::OutboxSent { id: row.id }];
    f.commit(f.alice, sent(&rows[0])).await.unwrap();
    f.commit(f.alice, sent(&rows[0])).await.unwrap();
    f.commit(f.alice, sent(&rows[2])).await.unwrap();
    let left = f.store.outbox(0, 10).await.unwrap();
    assert_eq!(left, rows[1..], "only its own identity takes a message back");
}

#[tokio::test]
async fn what_has_expired_is_forgotten() {
    let f = Fixture::new().await;
    let mut flows = Vec::new();
    for n in 0..5 {
        let flow = f.store.next_flow_row();
        f.commit(f.alice, vec![start_with_client(flow, &format!("c{n}"), "ann"), end_kept(flow, 100 + n)])
            .await
            .unwrap();
        flows.push(flow);
    }
    assert_eq!(f.store.purge(102, 2).await.unwrap(), 2);
    assert_eq!(f.store.purge(102, 2).await.unwrap(), 1);
    assert_eq!(f.store.purge(102, 2).await.unwrap(), 0);
    assert_eq!(f.store.flows(&flows).await.unwrap().len(), 2);
    assert_eq!(f.store.clients(f.alice, None).await.unwrap().len(), 2);
    f.commit(f.alice, vec![Op::Arrived { message_id: [1; 16] }]).await.unwrap();
    assert_eq!(f.store.purge(0, 10).await.unwrap(), 0, "a note of a taken message is kept for days");
    assert_eq!(f.store.purge(i64::MAX / 2, 10).await.unwrap(), 3);
}

#[tokio::test]
async fn a_defect_in_done_does_not_stop_the_committer() {
    let f = Fixture::new().await;
    let done = Box::new(|_| panic!("on purpose"));
    f.store.submit(CommitUnit {
        identity: f.alice,
        epoch: EPOCH,
        attempt: None,
        depends_on: Default::default(),
        ops: Vec::new(),
        done,
    });
    f.commit(f.alice, vec![]).await.unwrap();
}

#[tokio::test]
async fn the_queue_is_bounded_and_says_so_before() {
    let dir = tempfile::tempdir().unwrap();
    let bounds = Bounds { soft_bytes: 50_000, hard_bytes: 200_000, ..Bounds::default() };
    let store = Store::open(StoreOptions { bounds, ..StoreOptions::new(dir.path().join("host.db")) }).await.unwrap();
    let alice = store.register_identities(&["Alice"]).await.unwrap()[0];
    let flow = store.next_flow_row();
    store.commit(alice, EPOCH, vec![start(flow)]).await.unwrap();
    let gate = hold_the_committer(&store, alice);
    let big = |seq| vec![Op::AppendLog { flow, seq, body: vec![0; 20_000].into() }];
    let mut answers: Vec<_> = (0..9).map(|seq| submit(&store, alice, None, big(seq))).collect();
    assert!(store.is_congested());
    let refused = submit(&store, alice, None, big(9)).await.unwrap();
    assert_outcome!(&refused, Err(StoreError::Overloaded));
    assert!(refused.unwrap_err().is_retriable());
    let mut congestion = store.congestion();
    drop(gate);
    for answer in answers.drain(..) {
        answer.await.unwrap().unwrap();
    }
    congestion.wait_for(|congested| !congested).await.unwrap();
    assert_eq!(store.journal(flow).await.unwrap().unwrap().log.len(), 9);
}

#[tokio::test]
async fn closing_commits_what_waits_and_refuses_the_rest() {
    let f = Fixture::new().await;
    let flow = f.start(f.alice).await;
    let handle = f.store.clone();
    let answers: Vec<_> = (0..50).map(|seq| submit(&f.store, f.alice, None, vec![log(flow, seq)])).collect();
    f.store.close().await;
    for answer in answers {
        answer.await.unwrap().unwrap();
    }
    assert_outcome!(handle.commit(f.alice, EPOCH, vec![]).await, Err(StoreError::Closed));
    assert_outcome!(handle.flow(flow).await, Err(StoreError::Closed));
    let wal = std::fs::metadata(f.dir.path().join("host.db-wal")).map_or(0, |file| file.len());
    assert_eq!(wal, 0, "the write-ahead log is worked off");
}
