//! Who may write, and what is left of those who sleep.

use super::*;
use crate::{Conflict, DEATHS_LAST, DEATHS_SLOW, Forgive, IdentityOp, LeftWork, RunId, assert_outcome};

fn request(identity: IdentityRow, generation: i64, epoch: i64) -> ClaimRequest {
    ClaimRequest { identity, token: FencingToken { generation, epoch }, key_fp: None, caution: Caution::None }
}

pub async fn the_database_decides_who_may_write<D: Databases>() {
    let w = World::<D>::new().await;
    let flow = w.start(w.alice).await;
    let old = w.alice;
    let new = claim(&w.store, w.alice.identity, 5).await;
    let run = w.store.run();
    let other = |epoch| Claim { token: FencingToken { generation: 0, epoch }, ..new.claim };
    let forged = [other(4), other(6), Claim { run: RunId(99), ..new.claim }];
    for claim in forged.into_iter().chain([old.claim]) {
        let refused = w.commit(Author { claim, ..new }, vec![log(flow, 0)]).await;
        assert_outcome!(refused, Err(StoreError::Fenced { current, claim: told, .. }) if current == new.claim && told == claim);
    }
    w.commit(new, vec![log(flow, 0)]).await.unwrap();
    let unknown = IdentityRow(77);
    assert_eq!(w.conflict(Author { identity: unknown, ..new }, vec![]).await, Conflict::IdentityUnknown(unknown));
    // Another run writes only after it has claimed, and what the former one had begun is refused.
    let w = World { alice: new, ..w }.reopen().await;
    assert!(w.store.run() > run);
    assert_outcome!(w.commit(new, vec![log(flow, 1)]).await, Err(StoreError::Fenced { .. }));
    w.commit(w.alice, vec![log(flow, 1)]).await.unwrap();
    let record = w.store.identities().await.unwrap().swap_remove(0);
    assert_eq!((record.name.as_str(), record.claim, record.owner()), ("Alice", w.alice.claim, Some(w.store.run())));
}

pub async fn epochs_rise_strictly<D: Databases>() {
    let w = World::<D>::new().await;
    let bob = w.bob.identity;
    let same = w.store.claim(request(bob, 0, 1)).await.unwrap();
    assert_eq!(same, w.bob.claim, "the same claim again is no error");
    let first = w.store.claim(request(bob, 3, 1)).await.unwrap();
    for (generation, epoch) in [(3, 0), (2, 900), (0, 900)] {
        let refused = w.store.claim(request(bob, generation, epoch)).await;
        assert_outcome!(refused, Err(StoreError::Fenced { current, .. }) if current == first);
    }
    // The very same numbers, but by another run: two runs never share an epoch.
    let store = {
        w.store.close().await;
        w.databases.open(&w.settings).await
    };
    assert_outcome!(store.claim(request(bob, 3, 1)).await, Err(StoreError::Fenced { .. }));
    store.claim(request(bob, 3, 2)).await.unwrap();
}

pub async fn a_key_is_recorded_by_the_first_claim<D: Databases>() {
    let w = World::<D>::new().await;
    let alice = w.alice.identity;
    let with_key = |epoch, key| ClaimRequest { key_fp: Some([key; 32]), ..request(alice, 0, epoch) };
    w.store.claim(with_key(2, 7)).await.unwrap();
    assert_outcome!(
        w.store.claim(with_key(3, 8)).await,
        Err(StoreError::Conflict(Conflict::KeyMismatch(identity))) if identity == alice
    );
    w.store.claim(with_key(3, 7)).await.unwrap();
    let record = w.store.identities().await.unwrap().swap_remove(0);
    assert_eq!((record.key_fp, record.unclean), (Some([7; 32]), 3), "three claims since it was last let go");
}

pub async fn claims_succeed_and_fail_alone<D: Databases>() {
    let w = World::<D>::new().await;
    let (alice, bob) = (w.alice.identity, w.bob.identity);
    let requests = vec![request(alice, 0, 9), request(IdentityRow(77), 0, 9), request(bob, 0, 0), request(bob, 0, 2)];
    let claimed = w.store.claim_all(requests).await.unwrap();
    assert_outcome!(&claimed[0], Ok(Claim { token: FencingToken { epoch: 9, .. }, .. }));
    assert_outcome!(&claimed[1], Err(StoreError::Conflict(Conflict::IdentityUnknown(_))));
    assert_outcome!(&claimed[2], Err(StoreError::Fenced { .. }));
    assert_outcome!(&claimed[3], Ok(Claim { token: FencingToken { epoch: 2, .. }, .. }));
    let rows = w.store.register_identities(&["Bob", "Carol", "Alice"]).await.unwrap();
    assert_eq!((rows[0], rows[2]), (bob, alice), "a name that is known keeps its row");
}

pub async fn owners_that_died_are_counted_and_make_claimers_careful<D: Databases>() {
    let w = World::<D>::new().await;
    let alice = w.alice.identity;
    let careful = |epoch, deaths| ClaimRequest { caution: Caution::WaitedSince(deaths), ..request(alice, 0, epoch) };
    let deaths = async || w.store.identities().await.unwrap()[0].unclean;
    let died = |claimed: Result<Claim, StoreError>| match claimed {
        Err(StoreError::Conflict(Conflict::OwnersDied { identity, deaths })) if identity == alice => deaths,
        other => panic!("{other:?}"),
    };
    // The first claim is that of the world. Each counts until it ends in order.
    for epoch in 2..=3 {
        w.store.claim(careful(epoch, 0)).await.unwrap();
    }
    assert_eq!(deaths().await, DEATHS_SLOW);
    let third = w.store.claim(careful(3, 0)).await.unwrap();
    // From then on whoever claims has waited since this very number.
    for seen in [0, 2, 4] {
        assert_eq!(died(w.store.claim(careful(4, seen)).await), DEATHS_SLOW);
    }
    assert_eq!(deaths().await, DEATHS_SLOW, "who was refused does not count");
    w.store.claim(careful(4, 3)).await.unwrap();
    assert_eq!(died(w.store.claim(careful(5, 3)).await), 4, "somebody else has tried meanwhile");
    w.store.claim(careful(5, 4)).await.unwrap();
    w.store.claim(careful(6, 5)).await.unwrap();
    assert_eq!(died(w.store.claim(careful(7, DEATHS_LAST)).await), DEATHS_LAST, "nobody tries any more");
    // One that is alive does not count, and then it is the turn of whoever has waited.
    w.store.forgive(alice, Forgive::Survived).await.unwrap();
    let seventh = w.store.claim(careful(7, 5)).await.unwrap();
    // Only who has it can say that it is well.
    w.store.forgive(alice, Forgive::Healthy(third)).await.unwrap();
    assert_eq!(deaths().await, DEATHS_LAST);
    w.store.forgive(alice, Forgive::Healthy(seventh)).await.unwrap();
    assert_eq!(deaths().await, 0);
    w.store.forgive(alice, Forgive::Survived).await.unwrap();
    assert_eq!(deaths().await, 0, "there are never fewer than none");
    // A host that is alone claims whatever became of it before, and somebody may ask that it be tried again.
    for epoch in 8..20 {
        w.store.claim(request(alice, 0, epoch)).await.unwrap();
    }
    assert_eq!(died(w.store.claim(careful(20, 12)).await), 12);
    w.store.forgive(alice, Forgive::Asked).await.unwrap();
    w.store.claim(careful(20, 0)).await.unwrap();
}

fn release(hand_over: bool) -> Op {
    IdentityOp::Release { wake_at: Some(5_000), hand_over }.into()
}

pub async fn an_identity_is_let_go_only_without_work<D: Databases>() {
    let w = World::<D>::new().await;
    let bob = w.bob.identity;
    let [first, second] = [w.store.next_initiation(), w.store.next_initiation()];
    w.commit(w.alice, vec![initiate(to(w.bob), first)]).await.unwrap();
    assert_eq!(w.conflict(w.bob, vec![release(false)]).await, Conflict::WorkLeft(bob));
    w.commit(w.bob, vec![take(first)]).await.unwrap();
    let left = MessageOp::Outbox { destination: Arc::from("x"), message_id: [1; 16], body: text("m") };
    w.commit(w.bob, vec![left.into()]).await.unwrap();
    assert_eq!(w.conflict(w.bob, vec![release(false)]).await, Conflict::WorkLeft(bob));
    let sent = MessageOp::OutboxSent { id: w.store.outbox(0, 1).await.unwrap()[0].id, marker: None };
    assert_eq!(w.conflict(w.bob, vec![release(false), sent.clone().into()]).await, Conflict::ReleaseNotLast(bob));
    // What comes and what goes in the same batch counts.
    let gate = hold_the_committer(&w.store, w.alice);
    let initiates = submit(&w.store, w.alice, None, vec![initiate(to(w.bob), second)]);
    let too_early = submit(&w.store, w.bob, None, vec![sent.into(), release(false)]);
    drop(gate);
    initiates.await.unwrap().unwrap();
    assert_outcome!(too_early.await.unwrap(), Err(StoreError::Conflict(Conflict::WorkLeft(_))));
    w.commit(w.bob, vec![release(true)]).await.unwrap();
    let record = w.store.identities().await.unwrap().swap_remove(1);
    assert_eq!((record.owner(), record.wake_at, record.unclean), (None, Some(5_000), 0));
    assert_outcome!(w.commit(w.bob, vec![]).await, Err(StoreError::Fenced { .. }));
    let nobodys = Author { claim: record.claim, ..w.bob };
    assert_outcome!(w.commit(nobodys, vec![]).await, Err(StoreError::Fenced { .. }));
    assert_outcome!(w.store.claim(request(bob, 0, 1)).await, Err(StoreError::Fenced { .. }));
    let again = claim(&w.store, bob, 2).await;
    w.commit(again, vec![take(second)]).await.unwrap();
    assert_eq!(w.store.identities().await.unwrap()[1].wake_at, None, "who is owned is awake");
}

pub async fn a_unit_that_lets_go_and_fails_has_let_nothing_go<D: Databases>() {
    let w = World::<D>::new().await;
    let flow = w.start(w.bob).await;
    let gate = hold_the_committer(&w.store, w.alice);
    let fails = submit(&w.store, w.bob, None, vec![log(flow, 0), take(77), release(false)]);
    let writes = submit(&w.store, w.bob, None, vec![log(flow, 0)]);
    let goes = submit(&w.store, w.bob, None, vec![release(false)]);
    let late = submit(&w.store, w.bob, None, vec![log(flow, 1)]);
    drop(gate);
    fails.await.unwrap().unwrap_err();
    writes.await.unwrap().unwrap();
    goes.await.unwrap().unwrap();
    assert_outcome!(late.await.unwrap(), Err(StoreError::Fenced { .. }));
}

pub async fn work_of_sleepers_is_found_from_rows<D: Databases>() {
    let w = World::<D>::new().await;
    let more = w.store.register_identities(&["Carol", "Dave", "Eve"]).await.unwrap();
    let (carol, dave) = (claim(&w.store, more[0], 1).await, claim(&w.store, more[1], 1).await);
    let ended = w.start(carol).await;
    w.commit(carol, vec![end(ended)]).await.unwrap();
    let (confirmed, body) = (ended.session(0), text("confirm"));
    let confirm = MessageOp::Deliver { to: to(carol), session: confirmed, seq: 0, body, confirms: true };
    w.commit(w.alice, vec![confirm.into(), initiate(to(w.bob), w.store.next_initiation())]).await.unwrap();
    let left = MessageOp::Outbox { destination: Arc::from("x"), message_id: [1; 16], body: text("m") };
    w.commit(w.bob, vec![left.into()]).await.unwrap();
    w.commit(dave, vec![release(false)]).await.unwrap();
    // A database that does not know says that there may be anything.
    let (of_bob, of_carol) = (w.store.left_rows(w.bob.identity).await, w.store.left_rows(carol.identity).await);
    let of_bob = of_bob.unwrap();
    assert!(of_bob.initiations && of_bob.outbox && of_carol.unwrap().late_confirms);
    let lives = w.start(carol).await;
    assert!(w.store.left_rows(carol.identity).await.unwrap().flows);
    w.commit(carol, vec![end(lives)]).await.unwrap();
    let none = |identity| LeftWork { identity, initiations: false, late_confirms: false, outbox: false, due: false };
    let bobs = LeftWork { initiations: true, outbox: true, ..none(w.bob.identity) };
    let carols = LeftWork { late_confirms: true, ..none(carol.identity) };
    assert_eq!(w.store.left_work(4_999).await.unwrap(), [bobs.clone(), carols.clone()]);
    assert_eq!(w.store.due(4_999).await.unwrap(), (vec![], Some(5_000)));
    assert_eq!(w.store.due(5_000).await.unwrap(), (vec![(dave.identity, 5_000)], None));
    let daves = LeftWork { due: true, ..none(dave.identity) };
    assert_eq!(w.store.left_work(5_000).await.unwrap(), [bobs, carols, daves]);
}
