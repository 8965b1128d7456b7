//! Units are written whole or not at all, each alone, in order.

use maxhost_group_commit::Bounds;

use super::*;
use crate::{Conflict, assert_outcome};

pub async fn a_failing_unit_fails_alone_and_leaves_nothing<D: Databases>() {
    let w = World::<D>::new().await;
    let (good, bad, other) = (w.start(w.alice).await, w.start(w.alice).await, w.start(w.bob).await);
    w.commit(w.alice, vec![log(bad, 0)]).await.unwrap();
    // Held up by a unit before them, all of these share one transaction.
    let gate = hold_the_committer(&w.store, w.alice);
    let answers = [
        submit(&w.store, w.alice, None, vec![log(good, 0)]),
        submit(&w.store, w.alice, None, vec![deliver(to(w.bob), other.session(0), 7), log(bad, 1), log(bad, 0)]),
        submit(&w.store, w.bob, None, vec![log(other, 0)]),
        submit(&w.store, w.alice, None, vec![end(good), log(good, 1)]),
        submit(&w.store, w.bob, None, vec![deliver(to(w.alice), good.session(0), 0)]),
    ];
    drop(gate);
    let [first, second, third, fourth, fifth] = answers;
    first.await.unwrap().unwrap();
    assert_outcome!(
        second.await.unwrap(),
        Err(StoreError::Conflict(Conflict::SegmentExists { flow, seq: 0 })) if flow == bad
    );
    third.await.unwrap().unwrap();
    assert_outcome!(fourth.await.unwrap(), Err(StoreError::Conflict(Conflict::FlowNotLive(flow))) if flow == good);
    assert!(fifth.await.unwrap().unwrap().undelivered.is_empty());
    for (flow, expected) in [(good, (1, 1)), (bad, (1, 0)), (other, (1, 0))] {
        let journal = w.store.journal(flow).await.unwrap().unwrap();
        assert_eq!((journal.log.len(), journal.inbox.len()), expected);
    }
}

pub async fn after_a_failure_nothing_of_that_attempt_is_written<D: Databases>() {
    let w = World::<D>::new().await;
    let flow = w.start(w.alice).await;
    let attempt = AttemptToken::new();
    let gate = hold_the_committer(&w.store, w.alice);
    let first = submit(&w.store, w.alice, Some(&attempt), vec![log(flow, 0)]);
    let fails = submit(&w.store, w.alice, Some(&attempt), vec![log(flow, 1), take(1)]);
    let same_batch = submit(&w.store, w.alice, Some(&attempt), vec![log(flow, 2)]);
    drop(gate);
    first.await.unwrap().unwrap();
    assert_outcome!(fails.await.unwrap(), Err(StoreError::Conflict(Conflict::InitiationGone(1))));
    assert_outcome!(same_batch.await.unwrap(), Err(StoreError::Superseded));
    assert!(attempt.is_revoked());
    let later = submit(&w.store, w.alice, Some(&attempt), vec![log(flow, 1)]);
    assert_outcome!(later.await.unwrap(), Err(StoreError::Superseded));
    assert_eq!(w.store.journal(flow).await.unwrap().unwrap().log.len(), 1);
    let next_attempt = submit(&w.store, w.alice, Some(&AttemptToken::new()), vec![log(flow, 1)]);
    next_attempt.await.unwrap().unwrap();
}

pub async fn what_builds_on_a_unit_that_was_not_written_is_not_written_either<D: Databases>() {
    let w = World::<D>::new().await;
    let (sender, receiver) = (w.start(w.alice).await, w.start(w.bob).await);
    let (sending, receiving, third) = (AttemptToken::new(), AttemptToken::new(), AttemptToken::new());
    let to_receiver = |seq| deliver(to(w.bob), receiver.session(0), seq);
    let to_sender = |seq| deliver(to(w.alice), sender.session(0), seq);
    let first = submit(&w.store, w.alice, Some(&sending), vec![to_receiver(0)]);
    let built_on_it = submit_after(&w.store, w.bob, Some(&receiving), &[&sending], vec![log(receiver, 0)]);
    assert_outcome!(first.await.unwrap(), Ok(_));
    assert_outcome!(built_on_it.await.unwrap(), Ok(_));

    // The message is refused with the rest of its unit; whoever has read it must not be believed, nor who has read him.
    let fails = submit(&w.store, w.alice, Some(&sending), vec![to_receiver(1), take(77)]);
    let built_on_it = submit_after(&w.store, w.bob, Some(&receiving), &[&sending], vec![to_sender(0)]);
    let built_on_that = submit_after(&w.store, w.alice, Some(&third), &[&receiving], vec![log(sender, 0)]);
    assert_outcome!(fails.await.unwrap(), Err(StoreError::Conflict(_)));
    assert_outcome!(built_on_it.await.unwrap(), Err(StoreError::Superseded));
    assert_outcome!(built_on_that.await.unwrap(), Err(StoreError::Superseded));
    for (flow, expected) in [(receiver, (1, 1)), (sender, (0, 0))] {
        let journal = w.store.journal(flow).await.unwrap().unwrap();
        assert_eq!((journal.log.len(), journal.inbox.len()), expected);
    }
}

pub async fn a_defect_in_done_does_not_stop_the_committer<D: Databases>() {
    let w = World::<D>::new().await;
    let done = Box::new(|_| panic!("on purpose"));
    let (attempt, depends_on) = (None, Default::default());
    w.store.submit(CommitUnit { author: w.alice, attempt, depends_on, ops: Vec::new(), done });
    w.commit(w.alice, vec![]).await.unwrap();
}

pub async fn the_queue_is_bounded_and_says_so_before<D: Databases>() {
    let bounds = Bounds { soft_bytes: 50_000, hard_bytes: 200_000, ..Bounds::default() };
    let w = World::<D>::with(Settings { bounds, ..Settings::default() }).await;
    let flow = w.start(w.alice).await;
    let gate = hold_the_committer(&w.store, w.alice);
    let big = |seq| vec![FlowOp::AppendLog { flow, seq, body: vec![0; 20_000].into() }.into()];
    let mut answers: Vec<_> = (0..9).map(|seq| submit(&w.store, w.alice, None, big(seq))).collect();
    assert!(w.store.is_congested());
    let refused = submit(&w.store, w.alice, None, big(9)).await.unwrap();
    assert_outcome!(&refused, Err(StoreError::Overloaded));
    assert!(refused.unwrap_err().is_retriable());
    let mut congestion = w.store.congestion();
    drop(gate);
    for answer in answers.drain(..) {
        answer.await.unwrap().unwrap();
    }
    congestion.wait_for(|congested| !congested).await.unwrap();
    assert_eq!(w.store.journal(flow).await.unwrap().unwrap().log.len(), 9);
}

pub async fn closing_commits_what_waits_and_refuses_the_rest<D: Databases>() {
    let w = World::<D>::new().await;
    let flow = w.start(w.alice).await;
    let answers: Vec<_> = (0..50).map(|seq| submit(&w.store, w.alice, None, vec![log(flow, seq)])).collect();
    w.store.close().await;
    for answer in answers {
        answer.await.unwrap().unwrap();
    }
    assert_outcome!(w.commit(w.alice, vec![]).await, Err(StoreError::Closed));
    assert_outcome!(w.store.flow(flow).await, Err(StoreError::Closed));
    let w = w.reopen().await;
    assert_eq!(w.store.journal(flow).await.unwrap().unwrap().log.len(), 50);
}
