//! What must hold of claims, and of who lets go what.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use maxhost_model::{FencingToken, SecureHash};

use super::{Subject, claim, copy_says, identity, in_time, join, owner_of, sleep};
use crate::error::{Lost, OwnershipError, Permanent};
use crate::ownership::Slept;

pub(super) async fn an_identity_has_one_owner(subject: &dyn Subject) {
    let (one, two, identity) = (join(subject).await, join(subject).await, identity());
    assert_eq!(owner_of(&one, identity).await, None);
    let token = claim(&one, identity).await;
    match in_time(two.claim(identity, FencingToken::UNCLAIMED)).await {
        Err(OwnershipError::Lost(Lost::Owned(owner))) => {
            assert_eq!((owner.identity, &*owner.host, owner.token), (identity, one.host(), token));
        }
        other => panic!("{other:?}"),
    }
    // Who owns it is given his claim again: the first answer may have been lost.
    assert_eq!(in_time(one.claim(identity, token)).await.unwrap().token, token);
    for host in [&one, &two] {
        assert_eq!(owner_of(host, identity).await, Some((one.host().to_owned(), token)));
        copy_says(host, identity, Some(one.host())).await;
    }
}

pub(super) async fn tokens_rise_with_every_claim(subject: &dyn Subject) {
    let (one, two, identity) = (join(subject).await, join(subject).await, identity());
    let mut last = FencingToken::UNCLAIMED;
    for round in 0..6 {
        let host = if round % 2 == 0 { &one } else { &two };
        let token = in_time(host.claim(identity, last)).await.unwrap().token;
        assert!(token > last, "round {round}: {token} after {last}");
        last = token;
        if round % 3 == 0 {
            assert!(in_time(host.hand_over(identity, None)).await.unwrap());
        } else {
            assert_eq!(sleep(host, identity).await, Slept::Asleep);
        }
    }
}

pub(super) async fn a_claim_below_the_database_is_refused(subject: &dyn Subject) {
    let (one, identity) = (join(subject).await, identity());
    let token = claim(&one, identity).await;
    sleep(&one, identity).await;
    // A service either rises above what the database has, or says that it cannot.
    let stored = FencingToken { epoch: token.epoch + (1 << 60), ..token };
    match in_time(one.claim(identity, stored)).await {
        Ok(claim) => assert!(claim.token > stored),
        Err(OwnershipError::Permanent(Permanent::Behind { .. })) => {}
        other => panic!("{other:?}"),
    }
    // The generation is its own: it cannot rise above a later one.
    let stored = FencingToken { generation: token.generation + 1, epoch: 1 };
    let other = super::identity();
    match in_time(one.claim(other, stored)).await {
        Err(OwnershipError::Permanent(Permanent::Behind { identity, stored: told, offered })) => {
            assert_eq!((identity, told), (other, stored));
            assert!(offered < stored);
        }
        answer => panic!("{answer:?}"),
    }
    assert_eq!(owner_of(&one, other).await, None, "what cannot be claimed is not kept from others");
}

pub(super) async fn only_the_owner_lets_go(subject: &dyn Subject) {
    let (one, two, identity) = (join(subject).await, join(subject).await, identity());
    assert_eq!(sleep(&one, identity).await, Slept::NotOwner);
    let token = claim(&one, identity).await;
    assert_eq!(sleep(&two, identity).await, Slept::NotOwner);
    assert!(!in_time(two.hand_over(identity, None)).await.unwrap());
    assert_eq!(owner_of(&two, identity).await, Some((one.host().to_owned(), token)));
    assert_eq!(sleep(&one, identity).await, Slept::Asleep);
    assert_eq!(sleep(&one, identity).await, Slept::NotOwner);
    assert!(!in_time(one.hand_over(identity, None)).await.unwrap());
    assert_eq!(owner_of(&two, identity).await, None);
    copy_says(&two, identity, None).await;
}

pub(super) async fn of_two_that_claim_at_once_one_wins(subject: &dyn Subject) {
    const IDENTITIES: usize = 200;
    let (one, two) = (join(subject).await, join(subject).await);
    let mut claims = tokio::task::JoinSet::new();
    for identity in (0..IDENTITIES).map(|_| identity()) {
        for host in [&one, &two] {
            let host = Arc::clone(host);
            claims.spawn(async move { (identity, host.claim(identity, FencingToken::UNCLAIMED).await) });
        }
    }
    let mut won: HashMap<SecureHash, FencingToken> = HashMap::new();
    while let Some(claimed) = in_time(claims.join_next()).await {
        match claimed.unwrap() {
            (identity, Ok(claim)) => assert_eq!(won.insert(identity, claim.token), None, "owned twice"),
            (_, Err(OwnershipError::Lost(Lost::Owned(_)))) => {}
            (_, Err(error)) => panic!("{error:?}"),
        }
    }
    assert_eq!(won.len(), IDENTITIES);
    assert_eq!(won.values().collect::<HashSet<_>>().len(), IDENTITIES, "tokens are used once");
}
