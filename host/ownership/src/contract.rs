//! What every ownership service must do. An implementation runs [`run_all`] in a test of its own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::missing_panics_doc)]

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;

use crate::error::OwnershipError;
use crate::ownership::{Change, Changes, Demands, Ownership, SessionState};

const DEADLINE: Duration = Duration::from_secs(30);
/// How long one looks whether something happens that must not.
const A_WHILE: Duration = Duration::from_millis(150);

/// The service under test, and what can be done to a host's connection with it.
#[async_trait]
pub trait Subject: Send + Sync {
    /// A new host of this name.
    async fn join(&self, host: &str) -> Arc<dyn Ownership>;
    /// Cuts a host off, for less time than ends its session.
    async fn disconnect(&self, host: &str);
    /// Ends a host's session, as if it had been cut off for too long; it stays cut off.
    async fn expire(&self, host: &str);
    /// Lets a host reach the service again.
    async fn reconnect(&self, host: &str);
}

/// Runs every test against a subject, one after the other, each with hosts and identities of its own.
pub async fn run_all(subject: &dyn Subject) {
    macro_rules! run {
        ($($test:ident),* $(,)?) => {$(
            println!("contract: {}", stringify!($test));
            $test(subject).await;
        )*};
    }
    run![
        an_identity_has_one_owner,
        the_epoch_rises_with_every_claim,
        only_the_owner_lets_go,
        of_two_that_claim_at_once_one_wins,
        changes_are_told,
        a_short_cut_keeps_what_is_owned,
        a_lost_session_frees_what_it_owned,
        a_demand_lasts_until_somebody_claims,
        a_demand_goes_to_who_has_room,
        a_demand_for_what_is_owned_is_none,
        leaving_frees_everything,
    ];
}

fn unique(word: &str) -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    format!("{word} {}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed))
}

async fn in_time<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.expect("it did not happen in time")
}

async fn join(subject: &dyn Subject) -> Arc<dyn Ownership> {
    subject.join(&unique("host")).await
}

async fn claim(host: &Arc<dyn Ownership>, identity: &str) -> i64 {
    in_time(host.claim(identity, 0)).await.unwrap().epoch
}

async fn owner_of(host: &Arc<dyn Ownership>, identity: &str) -> Option<(String, i64)> {
    let owners = in_time(host.owners()).await.unwrap();
    owners.into_iter().find(|owner| *owner.identity == *identity).map(|owner| (owner.host.to_string(), owner.epoch))
}

async fn state_is(host: &Arc<dyn Ownership>, state: SessionState) {
    in_time(host.session().wait_for(|s| *s == state)).await.unwrap();
}

/// Claims as soon as it is possible.
async fn claim_soon(host: &Arc<dyn Ownership>, identity: &str) -> i64 {
    in_time(async {
        loop {
            match host.claim(identity, 0).await {
                Ok(claim) => return claim.epoch,
                Err(OwnershipError::Closed) => panic!("closed"),
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    })
    .await
}

async fn an_identity_has_one_owner(subject: &dyn Subject) {
    let (one, two, identity) = (join(subject).await, join(subject).await, unique("identity"));
    assert_eq!(owner_of(&one, &identity).await, None);
    let epoch = claim(&one, &identity).await;
    for host in [&one, &two] {
        match in_time(host.claim(&identity, 0)).await {
            Err(error @ OwnershipError::Owned { .. }) => {
                assert!(!error.is_retriable());
                let OwnershipError::Owned { host, epoch: told, .. } = error else { return };
                assert_eq!((&*host, told), (one.host(), epoch));
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(owner_of(host, &identity).await, Some((one.host().to_owned(), epoch)));
    }
}

async fn the_epoch_rises_with_every_claim(subject: &dyn Subject) {
    let (one, two, identity) = (join(subject).await, join(subject).await, unique("identity"));
    let mut last = 0;
    for round in 0..6 {
        let host = if round % 2 == 0 { &one } else { &two };
        let epoch = claim(host, &identity).await;
        assert!(epoch > last, "round {round}: {epoch} after {last}");
        last = epoch;
        assert!(in_time(host.release(&identity)).await.unwrap());
    }
    // A service that was set up anew must not fall behind what the database remembers.
    let stored = last + 1_000_000;
    let epoch = in_time(one.claim(&identity, stored)).await.unwrap().epoch;
    assert!(epoch > stored);
}

async fn only_the_owner_lets_go(subject: &dyn Subject) {
    let (one, two, identity) = (join(subject).await, join(subject).await, unique("identity"));
    assert!(!in_time(one.release(&identity)).await.unwrap());
    let epoch = claim(&one, &identity).await;
    assert!(!in_time(two.release(&identity)).await.unwrap());
    assert_eq!(owner_of(&two, &identity).await, Some((one.host().to_owned(), epoch)));
    assert!(in_time(one.release(&identity)).await.unwrap());
    assert!(!in_time(one.release(&identity)).await.unwrap());
    assert_eq!(owner_of(&two, &identity).await, None);
}

async fn of_two_that_claim_at_once_one_wins(subject: &dyn Subject) {
    const IDENTITIES: usize = 200;
    let (one, two, prefix) = (join(subject).await, join(subject).await, unique("race"));
    let mut claims = tokio::task::JoinSet::new();
    for n in 0..IDENTITIES {
        for host in [&one, &two] {
            let (host, identity) = (Arc::clone(host), format!("{prefix} {n}"));
            claims.spawn(async move { (identity.clone(), host.claim(&identity, 0).await) });
        }
    }
    let mut won: HashMap<String, i64> = HashMap::new();
    while let Some(claimed) = in_time(claims.join_next()).await {
        match claimed.unwrap() {
            (identity, Ok(claim)) => assert_eq!(won.insert(identity, claim.epoch), None, "owned twice"),
            (_, Err(OwnershipError::Owned { .. })) => {}
            (_, Err(error)) => panic!("{error:?}"),
        }
    }
    assert_eq!(won.len(), IDENTITIES);
    assert_eq!(won.values().collect::<HashSet<_>>().len(), IDENTITIES, "epochs are used once");
}

/// Waits for a change of this identity; others may be told too.
async fn change_of(changes: &mut dyn Changes, identity: &str) -> Change {
    in_time(async {
        loop {
            let change = changes.next().await.expect("the host has left");
            match &change {
                Change::Claimed(owner) | Change::Released(owner) if *owner.identity == *identity => return change,
                Change::Missed => return change,
                _ => {}
            }
        }
    })
    .await
}

async fn changes_are_told(subject: &dyn Subject) {
    let (one, two, identity) = (join(subject).await, join(subject).await, unique("identity"));
    let mut changes = two.changes();
    let epoch = claim(&one, &identity).await;
    match change_of(&mut *changes, &identity).await {
        Change::Claimed(owner) => assert_eq!((&*owner.host, owner.epoch), (one.host(), epoch)),
        other => panic!("{other:?}"),
    }
    in_time(one.release(&identity)).await.unwrap();
    match change_of(&mut *changes, &identity).await {
        Change::Released(owner) => assert_eq!((&*owner.host, owner.epoch), (one.host(), epoch)),
        other => panic!("{other:?}"),
    }
}

async fn a_short_cut_keeps_what_is_owned(subject: &dyn Subject) {
    let (one, two, identity) = (join(subject).await, join(subject).await, unique("identity"));
    let epoch = claim(&one, &identity).await;
    let mut changes = one.changes();
    subject.disconnect(one.host()).await;
    state_is(&one, SessionState::Suspended).await;
    let refused = in_time(one.claim(&unique("identity"), 0)).await.unwrap_err();
    assert!(refused.is_retriable(), "{refused:?}");
    assert_eq!(owner_of(&two, &identity).await, Some((one.host().to_owned(), epoch)));
    subject.reconnect(one.host()).await;
    state_is(&one, SessionState::Connected).await;
    assert_eq!(owner_of(&one, &identity).await, Some((one.host().to_owned(), epoch)));
    assert_eq!(change_of(&mut *changes, &identity).await, Change::Missed);
}

async fn a_lost_session_frees_what_it_owned(subject: &dyn Subject) {
    let (one, two) = (join(subject).await, join(subject).await);
    let identities: Vec<String> = (0..10).map(|_| unique("identity")).collect();
    let mut epochs = HashMap::new();
    for identity in &identities {
        epochs.insert(identity, claim(&one, identity).await);
    }
    let mut changes = two.changes();
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
        let epoch = claim_soon(&two, identity).await;
        assert!(epoch > epochs[identity], "the one that was lost must be fenced");
    }
    subject.reconnect(one.host()).await;
    state_is(&one, SessionState::Connected).await;
    for identity in &identities {
        assert!(!in_time(one.release(identity)).await.unwrap(), "it is another's by now");
        assert_eq!(owner_of(&one, identity).await.map(|(host, _)| host), Some(two.host().to_owned()));
    }
    claim(&one, &unique("identity")).await;
}

/// Whether this identity is asked of a host within a while.
async fn is_asked(demands: &mut dyn Demands, identity: &str) -> bool {
    let asked = async { while *demands.next().await.expect("the host has left").identity != *identity {} };
    tokio::time::timeout(A_WHILE, asked).await.is_ok()
}

async fn asked(demands: &mut dyn Demands, identity: &str) {
    in_time(async { while *demands.next().await.expect("the host has left").identity != *identity {} }).await;
}

async fn a_demand_lasts_until_somebody_claims(subject: &dyn Subject) {
    let (asking, one, identity) = (join(subject).await, join(subject).await, unique("identity"));
    let mut demands = one.demands();
    in_time(one.offer(5)).await.unwrap();
    tokio::join!(asked(&mut *demands, &identity), async { asking.demand(&identity).await.unwrap() });
    in_time(asking.demand(&identity)).await.unwrap();
    assert!(!is_asked(&mut *demands, &identity).await, "asking again does nothing while it is open");
    // A host that comes later is told too.
    let two = join(subject).await;
    in_time(two.offer(5)).await.unwrap();
    asked(&mut *two.demands(), &identity).await;
    claim(&one, &identity).await;
    assert!(!is_asked(&mut *two.demands(), &identity).await, "it is served");
    in_time(one.release(&identity)).await.unwrap();
    tokio::join!(asked(&mut *demands, &identity), async { asking.demand(&identity).await.unwrap() });
    claim(&two, &identity).await;
}

async fn a_demand_goes_to_who_has_room(subject: &dyn Subject) {
    let (asking, full, free) = (join(subject).await, join(subject).await, join(subject).await);
    let identity = unique("identity");
    let (mut to_full, mut to_free) = (full.demands(), free.demands());
    in_time(free.offer(3)).await.unwrap();
    in_time(asking.demand(&identity)).await.unwrap();
    asked(&mut *to_free, &identity).await;
    assert!(!is_asked(&mut *to_full, &identity).await);
    // As soon as there is room the open demand is told.
    tokio::join!(asked(&mut *to_full, &identity), async { full.offer(1).await.unwrap() });
    in_time(full.offer(0)).await.unwrap();
    tokio::join!(asked(&mut *to_full, &identity), async { full.offer(2).await.unwrap() });
    claim(&free, &identity).await;
}

async fn a_demand_for_what_is_owned_is_none(subject: &dyn Subject) {
    let (asking, one, identity) = (join(subject).await, join(subject).await, unique("identity"));
    in_time(one.offer(3)).await.unwrap();
    claim(&one, &identity).await;
    in_time(asking.demand(&identity)).await.unwrap();
    assert!(!is_asked(&mut *one.demands(), &identity).await);
    in_time(one.release(&identity)).await.unwrap();
    assert!(!is_asked(&mut *one.demands(), &identity).await, "who lets go looks himself whether it is wanted");
}

async fn leaving_frees_everything(subject: &dyn Subject) {
    let (one, two, identity) = (join(subject).await, join(subject).await, unique("identity"));
    let epoch = claim(&one, &identity).await;
    let (mut changes, mut demands) = (one.changes(), one.demands());
    in_time(one.close()).await;
    assert_eq!(in_time(one.claim(&identity, 0)).await, Err(OwnershipError::Closed));
    assert_eq!(*one.session().borrow(), SessionState::Closed);
    in_time(async { while changes.next().await.is_some() {} }).await;
    assert!(in_time(demands.next()).await.is_none());
    assert!(claim_soon(&two, &identity).await > epoch);
}
