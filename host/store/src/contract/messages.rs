//! Where messages go, and that each is taken once.

use super::*;
use crate::{
    ClientOp, Conflict, IdentityOp, OutboxContent, OutboxRow, UNTAKEN_BYTES, UNTAKEN_TRIES, Untaken, UntakenCount,
    assert_outcome,
};

pub async fn a_message_is_kept_once_and_dropped_when_nobody_is_there<D: Databases>() {
    let w = World::<D>::new().await;
    let (sender, receiver, dead) = (w.start(w.alice).await, w.start(w.bob).await, w.start(w.bob).await);
    w.commit(w.bob, vec![end(dead)]).await.unwrap();
    let to_bob = |session, seq| deliver(to(w.bob), session, seq);
    let ops = vec![
        log(sender, 0),
        to_bob(receiver.session(0), 0),
        to_bob(dead.session(0), 0),
        to_bob(receiver.session(0), 0),
        to_bob(FlowRow(1 << 40).session(2), 0),
    ];
    let receipt = w.commit(w.alice, ops).await.unwrap();
    assert_eq!(receipt.undelivered[..], [2, 4]);
    let again = w.commit(w.alice, vec![to_bob(receiver.session(0), 0)]).await.unwrap();
    assert!(again.undelivered.is_empty() && again.outboxed.is_empty());
    assert_eq!(w.store.journal(receiver).await.unwrap().unwrap().inbox.len(), 1);
}

pub async fn a_message_for_somebody_elses_flow_is_not_delivered<D: Databases>() {
    let w = World::<D>::new().await;
    let alices = w.start(w.alice).await;
    // A session number says which flow, and whoever sends may name any.
    let forged = deliver(to(w.bob), alices.session(0), 0);
    assert_eq!(w.commit(w.bob, vec![forged.clone()]).await.unwrap().undelivered[..], [0]);
    assert!(w.store.journal(alices).await.unwrap().unwrap().inbox.is_empty());
    // Started in the same batch, it is still in memory.
    let new = w.store.next_flow_row();
    let ops = vec![start(new), deliver(to(w.bob), new.session(0), 0)];
    assert_eq!(w.commit(w.alice, ops).await.unwrap().undelivered[..], [1]);
}

pub async fn an_initiation_waits_until_its_identity_takes_it<D: Databases>() {
    let w = World::<D>::new().await;
    let (alice, bob) = (w.alice.identity, w.bob.identity);
    let sender = w.start(w.alice).await;
    let [to_bob, to_alice] = [w.store.next_initiation(), w.store.next_initiation()];
    let ops = vec![log(sender, 0), initiate(to(w.bob), to_bob), initiate(to(w.alice), to_alice)];
    w.commit(w.alice, ops).await.unwrap();
    assert_eq!(w.conflict(w.alice, vec![initiate(to(w.bob), to_bob)]).await, Conflict::InitiationExists(to_bob));
    let unknown = IdentityRow(99);
    assert_eq!(
        w.conflict(w.alice, vec![initiate(nobody(unknown), w.store.next_initiation())]).await,
        Conflict::IdentityUnknown(unknown)
    );
    assert_eq!(w.store.first_initiations().await.unwrap(), [(alice, to_alice), (bob, to_bob)]);
    assert_eq!(w.store.initiations(bob, 0, 10).await.unwrap(), [(to_bob, text("hello"))]);
    assert!(w.store.initiations(bob, to_bob, 10).await.unwrap().is_empty());

    assert_eq!(w.conflict(w.bob, vec![take(to_alice)]).await, Conflict::InitiationGone(to_alice));
    let responder = w.store.next_flow_row();
    w.commit(w.bob, vec![take(to_bob), start(responder)]).await.unwrap();
    assert_eq!(w.conflict(w.bob, vec![take(to_bob)]).await, Conflict::InitiationGone(to_bob));
    assert_eq!(w.store.first_initiations().await.unwrap(), [(alice, to_alice)]);

    let w = w.reopen().await;
    assert!(w.store.next_initiation() > to_alice.max(to_bob), "a number is never used again");
}

/// What a unit took out of memory before it failed is there again.
pub async fn an_initiation_that_a_failing_unit_took_still_waits<D: Databases>() {
    let w = World::<D>::new().await;
    let (id, nobodys) = (w.store.next_initiation(), w.store.next_flow_row());
    let gate = hold_the_committer(&w.store, w.alice);
    let asks = submit(&w.store, w.alice, None, vec![initiate(to(w.bob), id)]);
    let fails = submit(&w.store, w.bob, None, vec![take(id), log(nobodys, 0)]);
    drop(gate);
    asks.await.unwrap().unwrap();
    fails.await.unwrap().unwrap_err();
    assert_eq!(w.store.initiations(w.bob.identity, 0, 10).await.unwrap(), [(id, text("hello"))]);
}

pub async fn what_cannot_be_written_to_its_recipient_is_left_for_the_relay<D: Databases>() {
    let w = World::<D>::new().await;
    let (sender, receiver) = (w.start(w.alice).await, w.start(w.bob).await);
    let known = to(w.bob);
    // Bob is let go and claimed anew: what was decided under his former claim may not be written to him.
    let release = IdentityOp::Release { wake_at: None, hand_over: false };
    w.commit(w.bob, vec![release.into()]).await.unwrap();
    let ops = || {
        let (session, id) = (receiver.session(0), w.store.next_initiation());
        vec![log(sender, w.store.next_initiation() as u32), deliver(known, session, 4), initiate(known, id)]
    };
    let asleep = w.commit(w.alice, ops()).await.unwrap();
    let bob = claim(&w.store, w.bob.identity, 2).await;
    let outdated = w.commit(w.alice, ops()).await.unwrap();
    for receipt in [asleep, outdated] {
        assert_eq!((&receipt.outboxed[..], receipt.undelivered.len()), (&[1, 2][..], 0));
    }
    assert!(w.store.journal(receiver).await.unwrap().unwrap().inbox.is_empty());
    assert!(w.store.initiations(bob.identity, 0, 10).await.unwrap().is_empty());
    let rows = w.store.outbox(0, 10).await.unwrap();
    assert!(rows.iter().all(|row| row.identity == w.alice.identity && &*row.destination == "Bob"), "{rows:?}");
    let contents: Vec<_> = rows.into_iter().map(|row| row.content).collect();
    let delivery = OutboxContent::Delivery { session: receiver.session(0), seq: 4, body: text("message 4") };
    let initiation = OutboxContent::Initiation { body: text("hello") };
    assert_eq!(contents, [delivery.clone(), initiation.clone(), delivery, initiation]);
    let held = w.commit(w.alice, vec![deliver(to(bob), receiver.session(0), 4)]).await.unwrap();
    assert_eq!((held.outboxed.len(), held.undelivered.len()), (0, 0));
    assert_eq!(w.store.journal(receiver).await.unwrap().unwrap().inbox.len(), 1);
}

pub async fn a_late_confirmation_is_noted_and_answered_once<D: Databases>() {
    let w = World::<D>::new().await;
    let (ended, other) = (w.start(w.bob).await, w.start(w.bob).await);
    w.commit(w.bob, vec![end(ended)]).await.unwrap();
    let confirm = |flow: FlowRow| {
        let (to, session) = (to(w.bob), flow.session(1));
        vec![MessageOp::Deliver { to, session, seq: 0, body: text("confirm"), confirms: true }.into()]
    };
    assert_eq!(w.commit(w.alice, confirm(ended)).await.unwrap().undelivered[..], [0]);
    assert_eq!(w.commit(w.alice, confirm(ended)).await.unwrap().undelivered[..], [0], "a duplicate");
    assert!(w.commit(w.alice, confirm(other)).await.unwrap().undelivered.is_empty());
    let noted = w.store.late_confirms(w.bob.identity, None, 10).await.unwrap();
    assert_eq!((noted.len(), noted[0].session, &noted[0].body), (1, ended.session(1), &text("confirm")));
    let answer = || vec![MessageOp::AnswerLateConfirm { session: ended.session(1) }.into()];
    assert_eq!(w.conflict(w.alice, answer()).await, Conflict::LateConfirmGone(ended.session(1)));
    w.commit(w.bob, answer()).await.unwrap();
    assert_eq!(w.conflict(w.bob, answer()).await, Conflict::LateConfirmGone(ended.session(1)));
    assert!(w.store.late_confirms(w.bob.identity, None, 10).await.unwrap().is_empty());
}

pub async fn a_confirmation_that_a_flow_has_not_read_outlives_it<D: Databases>() {
    let w = World::<D>::new().await;
    // What comes for the first is written before it ends, what comes for the second perhaps in the same batch.
    let (before, together) = (w.start(w.bob).await, w.start(w.bob).await);
    let confirm = |flow: FlowRow, session: u16, seq: u32| {
        let (to, session) = (to(w.bob), flow.session(session));
        let body = text(&format!("{session:?} {seq}"));
        vec![MessageOp::Deliver { to, session, seq, body, confirms: true }.into()]
    };
    let end = |flow: FlowRow, sessions: &[u16]| {
        let unconfirmed = sessions.iter().map(|session| flow.session(*session)).collect();
        vec![FlowOp::End { flow, state: FlowState::Killed, finished: 2000, keep: None, unconfirmed }.into()]
    };
    // It has read what session 1 was confirmed with; nothing has come for session 3, and of session 4 something later.
    for (session, seq) in [(1, 0), (2, 0), (2, 1), (4, 7)] {
        w.commit(w.alice, confirm(before, session, seq)).await.unwrap();
    }
    let foreign = w.conflict(w.alice, end(before, &[2])).await;
    assert_eq!(foreign, Conflict::FlowNotLive(before));
    assert!(
        w.store.late_confirms(w.bob.identity, None, 10).await.unwrap().is_empty(),
        "nothing of a unit that is refused"
    );
    let receipt = w.commit(w.bob, end(before, &[2, 3, 4])).await.unwrap();
    let told = |flow: FlowRow| (flow.session(2), text(&format!("{:?} 0", flow.session(2))));
    assert_eq!(receipt.unread, [told(before)]);
    let (sent, ended) =
        (submit(&w.store, w.alice, None, confirm(together, 2, 0)), submit(&w.store, w.bob, None, end(together, &[2])));
    assert!(sent.await.unwrap().unwrap().undelivered.is_empty());
    assert_eq!(ended.await.unwrap().unwrap().unread[0], told(together));
    let noted = w.store.late_confirms(w.bob.identity, None, 10).await.unwrap();
    let noted: Vec<_> = noted.into_iter().map(|note| (note.session, note.body)).collect();
    assert_eq!(noted, [told(before), told(together)]);
    for (session, _) in noted {
        w.commit(w.bob, vec![MessageOp::AnswerLateConfirm { session }.into()]).await.unwrap();
    }
    // A copy of the confirmation that comes now finds no flow, as ever.
    assert_eq!(w.commit(w.alice, confirm(before, 2, 0)).await.unwrap().undelivered[..], [0]);
}

pub async fn a_broker_message_is_taken_once<D: Databases>() {
    let w = World::<D>::new().await;
    let flow = w.start(w.bob).await;
    let arrived = || MessageOp::Arrived { message_id: [7; 16] }.into();
    let arrive = |seq| vec![deliver(to(w.bob), flow.session(0), seq), arrived()];
    w.commit(w.bob, arrive(0)).await.unwrap();
    assert_outcome!(w.commit(w.bob, arrive(1)).await, Err(StoreError::Duplicate));
    assert_eq!(w.store.journal(flow).await.unwrap().unwrap().inbox.len(), 1, "the other operations are undone");
    w.commit(w.alice, vec![arrived()]).await.unwrap();
}

fn message(destination: &str, n: u8) -> Op {
    MessageOp::Outbox { destination: Arc::from(destination), message_id: [n; 16], body: text("m") }.into()
}

pub async fn the_outbox_keeps_messages_until_the_broker_has_them<D: Databases>() {
    let w = World::<D>::new().await;
    assert_eq!(w.store.oldest_outbox().await.unwrap(), None);
    let begun = std::time::Instant::now();
    w.commit(w.alice, vec![message("x", 1), message("x", 2)]).await.unwrap();
    let age = async || w.store.oldest_outbox().await.unwrap().expect("something waits");
    while age().await < 30 {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    // Times are rounded to milliseconds.
    assert!(age().await <= begun.elapsed().as_millis() as i64 + 2);
    w.commit(w.bob, vec![message("x", 3)]).await.unwrap();
    let rows = w.store.outbox(0, 10).await.unwrap();
    let content = |n| OutboxContent::Message { message_id: [n; 16], body: text("m") };
    assert_eq!(rows.iter().map(|row| row.content.clone()).collect::<Vec<_>>(), [1, 2, 3].map(content));
    assert_eq!((&*rows[2].destination, rows[2].identity), ("x", w.bob.identity));
    let sent = |row: &OutboxRow| vec![MessageOp::OutboxSent { id: row.id, marker: None }.into()];
    w.commit(w.alice, sent(&rows[0])).await.unwrap();
    w.commit(w.alice, sent(&rows[0])).await.unwrap();
    w.commit(w.alice, sent(&rows[2])).await.unwrap();
    let left = w.store.outbox(0, 10).await.unwrap();
    assert_eq!(left, rows[1..], "only its own identity takes a message back");
    w.commit(w.alice, sent(&rows[1])).await.unwrap();
    w.commit(w.bob, sent(&rows[2])).await.unwrap();
    assert_eq!(w.store.oldest_outbox().await.unwrap(), None);
}

pub async fn notes_of_taken_messages_are_forgotten_in_time<D: Databases>() {
    let arrived = || vec![MessageOp::Arrived { message_id: [1; 16] }.into()];
    let w = World::<D>::new().await;
    w.commit(w.alice, arrived()).await.unwrap();
    assert_eq!(w.store.purge(10).await.unwrap(), 0, "for days");
    let w = World::<D>::with(Settings { processed_retention: Duration::ZERO, ..Settings::default() }).await;
    w.commit(w.alice, arrived()).await.unwrap();
    assert_eq!(w.store.purge(10).await.unwrap(), 1);
    w.commit(w.alice, arrived()).await.unwrap();
}

pub async fn orphaned_outbox_rows_are_removed<D: Databases>() {
    let w = World::<D>::with(Settings { processed_retention: Duration::ZERO, ..Settings::default() }).await;
    w.commit(w.alice, vec![message("x", 1), message("x", 2)]).await.unwrap();
    w.commit(w.bob, vec![message("x", 3)]).await.unwrap();
    assert_eq!(w.store.purge(10).await.unwrap(), 0, "both senders are owned");
    let release = IdentityOp::Release { wake_at: None, hand_over: true };
    w.commit(w.alice, vec![release.into()]).await.unwrap();
    assert_eq!(w.store.purge(1).await.unwrap(), 1, "as many as are asked for");
    assert_eq!(w.store.purge(10).await.unwrap(), 1);
    let left = w.store.outbox(0, 10).await.unwrap();
    assert_eq!(left.iter().map(|row| row.identity).collect::<Vec<_>>(), [w.bob.identity]);
    let nothing = ClientOp::Remove { user: String::new(), client_id: "c".to_owned() };
    assert_eq!(w.conflict(w.bob, vec![nothing.into()]).await, Conflict::ClientUnknown);
}

pub async fn a_message_that_cannot_be_taken_is_counted_and_put_aside<D: Databases>() {
    let w = World::<D>::new().await;
    let (alice, bob) = (w.alice.identity, w.bob.identity);
    let untaken = |identity, n: u8, body: Bytes| Untaken {
        identity,
        message_id: [n; 16],
        at: 1_000,
        sender: "Carol".to_owned(),
        reason: "why, with\0and ".repeat(100),
        body,
    };
    for tries in 1..=UNTAKEN_TRIES + 1 {
        let counted = w.store.note_untaken(untaken(alice, 1, text("m"))).await.unwrap();
        assert_eq!(counted, UntakenCount { tries, is_kept: tries >= UNTAKEN_TRIES });
    }
    // The bytes of one identity are bounded; another has room of its own, and what is kept stays.
    let large = Bytes::from(vec![7; usize::try_from(UNTAKEN_BYTES).unwrap()]);
    for tries in 1..=UNTAKEN_TRIES {
        let [first, second] = [untaken(alice, 2, large.clone()), untaken(bob, 2, large.clone())];
        assert_eq!(w.store.note_untaken(first).await.unwrap(), UntakenCount { tries, is_kept: false });
        let is_kept = tries >= UNTAKEN_TRIES;
        assert_eq!(w.store.note_untaken(second).await.unwrap(), UntakenCount { tries, is_kept });
    }
    // Over a restart it is counted on.
    let w = w.reopen().await;
    let counted = w.store.note_untaken(untaken(alice, 1, text("m"))).await.unwrap();
    assert_eq!(counted, UntakenCount { tries: UNTAKEN_TRIES + 2, is_kept: true });
}
