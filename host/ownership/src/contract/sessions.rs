//! What must hold of changes, and of sessions that are cut or lost.

use std::collections::{HashMap, HashSet};

use maxhost_model::{FencingToken, SecureHash};

use super::{Subject, claim, claim_soon, copy_says, identity, in_time, join, owner_of, sleep, state_is};
use crate::ownership::{Change, Changes, Ownedness, SessionState, Slept};

/// Waits for a change of this identity; others may be told too.
async fn change_of(changes: &mut dyn Changes, identity: SecureHash) -> Change {
    in_time(async {
        loop {
            let change = changes.next().await.expect("the host has left");
            match &change {
                Change::Claimed(owner) | Change::Released(owner) if owner.identity == identity => return change,
                Change::Missed => return change,
                _ => {}
            }
        }
    })
    .await
}

pub(super) async fn changes_are_told(subject: &dyn Subject) {
    let (one, two, identity) = (join(subject).await, join(subject).await, identity());
    let mut changes = two.changes();
    let token = claim(&one, identity).await;
    match change_of(&mut *changes, identity).await {
        Change::Claimed(owner) => assert_eq!((&*owner.host, owner.token), (one.host(), token)),
        other => panic!("{other:?}"),
    }
    assert_eq!(sleep(&one, identity).await, Slept::Asleep);
    match change_of(&mut *changes, identity).await {
        Change::Released(owner) => assert_eq!((&*owner.host, owner.token), (one.host(), token)),
        other => panic!("{other:?}"),
    }
}

pub(super) async fn a_short_cut_keeps_what_is_owned(subject: &dyn Subject) {
    let (one, two, identity) = (join(subject).await, join(subject).await, identity());
    let token = claim(&one, identity).await;
    // The claim is known, so its own change comes no more.
    assert_eq!(owner_of(&one, identity).await, Some((one.host().to_owned(), token)));
    let mut changes = one.changes();
    let session = one.session().borrow().number;
    subject.disconnect(one.host()).await;
    state_is(&one, SessionState::Suspended).await;
    assert_eq!(one.owner_of(&identity), Ownedness::Unknown);
    let refused = in_time(one.claim(super::identity(), FencingToken::UNCLAIMED)).await.unwrap_err();
    assert!(refused.is_transient(), "{refused:?}");
    assert_eq!(owner_of(&two, identity).await, Some((one.host().to_owned(), token)));
    subject.reconnect(one.host()).await;
    state_is(&one, SessionState::Connected).await;
    assert_eq!(one.session().borrow().number, session);
    assert_eq!(owner_of(&one, identity).await, Some((one.host().to_owned(), token)));
    assert_eq!(change_of(&mut *changes, identity).await, Change::Missed);
    copy_says(&one, identity, Some(one.host())).await;
    // What happens from then on is told again.
    loop {
        let later = super::identity();
        let token = claim(&two, later).await;
        match change_of(&mut *changes, later).await {
            Change::Claimed(owner) => break assert_eq!((&*owner.host, owner.token), (two.host(), token)),
            // On a slow machine the connection may have been lost once more.
            Change::Missed => {}
            other => panic!("{other:?}"),
        }
    }
}

pub(super) async fn a_lost_session_frees_what_it_owned(subject: &dyn Subject) {
    let (one, two) = (join(subject).await, join(subject).await);
    let identities: Vec<SecureHash> = (0..10).map(|_| identity()).collect();
    let mut tokens = HashMap::new();
    let mut changes = two.changes();
    for identity in &identities {
        tokens.insert(identity, claim(&one, *identity).await);
        // Only who has been told of an owner is told that he is gone: a claim that comes and goes unseen is no change.
        if matches!(change_of(&mut *changes, *identity).await, Change::Missed) {
            assert!(owner_of(&two, *identity).await.is_some());
        }
    }
    let session = one.session().borrow().number;
    subject.expire(one.host()).await;
    state_is(&one, SessionState::Lost).await;
    let mut released = HashSet::new();
    while released.len() < identities.len() {
        match in_time(changes.next()).await.unwrap() {
            Change::Released(owner) if *owner.host == *one.host() => {
                released.insert(owner.identity);
            }
            Change::Missed => break,
            _ => {}
        }
    }
    for identity in &identities {
        let token = claim_soon(&two, *identity).await;
        assert!(token > tokens[identity], "the one that was lost must be fenced");
    }
    subject.reconnect(one.host()).await;
    state_is(&one, SessionState::Connected).await;
    assert!(one.session().borrow().number > session, "who missed the loss sees it by the number");
    for identity in &identities {
        // What comes late of the session that is over does not touch the new owner.
        assert_eq!(sleep(&one, *identity).await, Slept::NotOwner);
        assert!(!in_time(one.hand_over(*identity, None)).await.unwrap());
        assert_eq!(owner_of(&one, *identity).await.map(|(host, _)| host), Some(two.host().to_owned()));
    }
    claim(&one, identity()).await;
}
