//! What every ownership service must do. An implementation runs [`run_all`] in a test of its own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::missing_panics_doc)]

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use maxhost_model::{FencingToken, SecureHash};

use crate::error::{Lost, OwnershipError, Permanent};
use crate::ownership::{Change, Changes, Demand, Demands, Ownedness, Ownership, Reach, SessionState, Slept};
use crate::rendezvous::TARGET;
use crate::roles::Roles;

const DEADLINE: Duration = Duration::from_secs(60);
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
        tokens_rise_with_every_claim,
        a_claim_below_the_database_is_refused,
        only_the_owner_lets_go,
        of_two_that_claim_at_once_one_wins,
        changes_are_told,
        a_short_cut_keeps_what_is_owned,
        a_lost_session_frees_what_it_owned,
        a_demand_outlives_its_owner,
        a_sleep_ends_the_demand_it_has_seen_and_no_other,
        a_demand_made_anew_has_another_version,
        a_demand_is_told_again_when_it_is_raised,
        a_demand_goes_to_who_has_room,
        a_demand_for_what_is_owned_waits_for_the_owner_to_go,
        a_hand_over_keeps_the_demand_and_names_a_target,
        whoever_raises_a_demand_meanwhile_takes_no_target_away,
        a_demand_made_anew_has_no_target_of_the_former_one,
        hosts_are_listed,
        a_host_is_asked_to_drain_and_knows_it,
        one_host_is_the_scheduler,
        a_scheduler_whose_session_is_over_makes_room,
        leaving_frees_everything_and_keeps_demands,
    ];
}

fn unique(word: &str) -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    format!("{word} {}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed))
}

fn identity() -> SecureHash {
    SecureHash::of(unique("identity").as_bytes())
}

async fn in_time<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.expect("it did not happen in time")
}

async fn join(subject: &dyn Subject) -> Arc<dyn Ownership> {
    subject.join(&unique("host")).await
}

async fn claim(host: &Arc<dyn Ownership>, identity: SecureHash) -> FencingToken {
    let claim = in_time(host.claim(identity, FencingToken::UNCLAIMED)).await.unwrap();
    assert_eq!(claim.run, host.run());
    claim.token
}

/// Lets an identity sleep, with the demand that there is.
async fn sleep(host: &Arc<dyn Ownership>, identity: SecureHash) -> Slept {
    let seen = in_time(host.demand_version(identity)).await.unwrap();
    in_time(host.sleep(identity, seen)).await.unwrap()
}

async fn owner_of(host: &Arc<dyn Ownership>, identity: SecureHash) -> Option<(String, FencingToken)> {
    let owners = in_time(host.owners()).await.unwrap();
    owners.into_iter().find(|owner| owner.identity == identity).map(|owner| (owner.host.to_string(), owner.token))
}

/// Waits until a host's own copy says who owns an identity.
async fn copy_says(host: &Arc<dyn Ownership>, identity: SecureHash, expected: Option<&str>) {
    in_time(async {
        loop {
            let said = match host.owner_of(&identity) {
                Ownedness::Owned(owner) => Some(owner.host.to_string()),
                Ownedness::Free => None,
                Ownedness::Unknown => Some("unknown".to_owned()),
            };
            if said.as_deref() == expected {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

async fn state_is(host: &Arc<dyn Ownership>, state: SessionState) {
    in_time(host.session().wait_for(|session| session.state == state)).await.unwrap();
}

/// Claims as soon as it is possible.
async fn claim_soon(host: &Arc<dyn Ownership>, identity: SecureHash) -> FencingToken {
    in_time(async {
        loop {
            match host.claim(identity, FencingToken::UNCLAIMED).await {
                Ok(claim) => return claim.token,
                Err(OwnershipError::Permanent(error)) => panic!("{error}"),
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    })
    .await
}

async fn an_identity_has_one_owner(subject: &dyn Subject) {
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

async fn tokens_rise_with_every_claim(subject: &dyn Subject) {
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

async fn a_claim_below_the_database_is_refused(subject: &dyn Subject) {
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
    let other = self::identity();
    match in_time(one.claim(other, stored)).await {
        Err(OwnershipError::Permanent(Permanent::Behind { identity, stored: told, offered })) => {
            assert_eq!((identity, told), (other, stored));
            assert!(offered < stored);
        }
        answer => panic!("{answer:?}"),
    }
    assert_eq!(owner_of(&one, other).await, None, "what cannot be claimed is not kept from others");
}

async fn only_the_owner_lets_go(subject: &dyn Subject) {
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

async fn of_two_that_claim_at_once_one_wins(subject: &dyn Subject) {
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

async fn changes_are_told(subject: &dyn Subject) {
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

async fn a_short_cut_keeps_what_is_owned(subject: &dyn Subject) {
    let (one, two, identity) = (join(subject).await, join(subject).await, identity());
    let token = claim(&one, identity).await;
    // The claim is known, so its own change comes no more.
    assert_eq!(owner_of(&one, identity).await, Some((one.host().to_owned(), token)));
    let mut changes = one.changes();
    let session = one.session().borrow().number;
    subject.disconnect(one.host()).await;
    state_is(&one, SessionState::Suspended).await;
    assert_eq!(one.owner_of(&identity), Ownedness::Unknown);
    let refused = in_time(one.claim(self::identity(), FencingToken::UNCLAIMED)).await.unwrap_err();
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
        let later = self::identity();
        let token = claim(&two, later).await;
        match change_of(&mut *changes, later).await {
            Change::Claimed(owner) => break assert_eq!((&*owner.host, owner.token), (two.host(), token)),
            // On a slow machine the connection may have been lost once more.
            Change::Missed => {}
            other => panic!("{other:?}"),
        }
    }
}

async fn a_lost_session_frees_what_it_owned(subject: &dyn Subject) {
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

/// The demand for this identity, if it is told within a while.
async fn is_asked(demands: &mut dyn Demands, identity: SecureHash) -> bool {
    tokio::time::timeout(A_WHILE, told(demands, identity)).await.is_ok()
}

async fn told(demands: &mut dyn Demands, identity: SecureHash) -> Demand {
    loop {
        let demand = demands.next().await.expect("the host has left");
        if demand.identity == identity {
            return demand;
        }
    }
}

/// Waits until a host is asked to serve an identity in such a turn. It may be asked in another before, by what its copy of the
/// owners and demands was a moment ago: a demand is told again when that has changed.
async fn asked_in_turn(demands: &mut dyn Demands, identity: SecureHash, fits: impl Fn(Duration) -> bool) {
    in_time(async { while !fits(asked(demands, identity).await.turn) {} }).await;
}

async fn asked(demands: &mut dyn Demands, identity: SecureHash) -> Demand {
    in_time(told(demands, identity)).await
}

async fn is_wanted(host: &Arc<dyn Ownership>, identity: SecureHash) -> bool {
    in_time(host.wanted()).await.unwrap().contains(&identity)
}

async fn a_demand_outlives_its_owner(subject: &dyn Subject) {
    let (one, two, identity) = (join(subject).await, join(subject).await, identity());
    let mut demands = two.demands();
    in_time(two.offer(5)).await.unwrap();
    in_time(two.demand(identity)).await.unwrap();
    asked(&mut *demands, identity).await;
    assert!(is_wanted(&two, identity).await);
    let first = claim(&one, identity).await;
    assert!(!is_wanted(&two, identity).await, "it is served");
    assert!(in_time(one.demand_version(identity)).await.unwrap().is_some(), "a claim does not end the demand");
    // The owner dies. Nobody asks again, and the others are told all the same.
    subject.expire(one.host()).await;
    asked(&mut *demands, identity).await;
    assert!(claim_soon(&two, identity).await > first);
    // Also one that was claimed without having been asked for.
    let unasked = self::identity();
    let three = join(subject).await;
    claim(&three, unasked).await;
    subject.expire(three.host()).await;
    asked(&mut *demands, unasked).await;
}

async fn a_sleep_ends_the_demand_it_has_seen_and_no_other(subject: &dyn Subject) {
    let (asking, one, identity) = (join(subject).await, join(subject).await, identity());
    let mut demands = one.demands();
    in_time(one.offer(5)).await.unwrap();
    claim(&one, identity).await;
    let seen = in_time(one.demand_version(identity)).await.unwrap();
    in_time(asking.demand(identity)).await.unwrap();
    assert_eq!(in_time(one.sleep(identity, seen)).await.unwrap(), Slept::Wanted);
    assert_eq!(owner_of(&one, identity).await, None);
    asked(&mut *demands, identity).await;
    claim(&one, identity).await;
    assert_eq!(sleep(&one, identity).await, Slept::Asleep);
    assert!(in_time(one.demand_version(identity)).await.unwrap().is_none());
    assert!(!is_asked(&mut *demands, identity).await, "nobody wants it");
    assert!(!is_wanted(&one, identity).await);
}

async fn a_demand_made_anew_has_another_version(subject: &dyn Subject) {
    let (one, identity) = (join(subject).await, identity());
    let mut seen = HashSet::new();
    for _ in 0..4 {
        claim(&one, identity).await;
        for _ in 0..2 {
            let version = in_time(one.demand_version(identity)).await.unwrap().unwrap();
            assert!(seen.insert((version.created, version.bumps)), "{version:?} was there before");
            in_time(one.demand(identity)).await.unwrap();
        }
        // A version of an earlier life ends nothing.
        let version = in_time(one.demand_version(identity)).await.unwrap();
        assert_eq!(in_time(one.sleep(identity, version)).await.unwrap(), Slept::Asleep);
        claim(&one, identity).await;
        assert_eq!(in_time(one.sleep(identity, version)).await.unwrap(), Slept::Wanted);
    }
}

async fn a_demand_is_told_again_when_it_is_raised(subject: &dyn Subject) {
    let (asking, one, identity) = (join(subject).await, join(subject).await, identity());
    let mut demands = one.demands();
    in_time(one.offer(5)).await.unwrap();
    in_time(asking.demand(identity)).await.unwrap();
    asked(&mut *demands, identity).await;
    assert!(!is_asked(&mut *demands, identity).await, "it is told once");
    in_time(asking.demand(identity)).await.unwrap();
    asked(&mut *demands, identity).await;
    // A host that comes later is told too.
    let two = join(subject).await;
    in_time(two.offer(5)).await.unwrap();
    asked(&mut *two.demands(), identity).await;
    claim(&one, identity).await;
    copy_says(&two, identity, Some(one.host())).await;
    assert!(!is_asked(&mut *two.demands(), identity).await, "it is served");
    sleep(&one, identity).await;
}

async fn a_demand_goes_to_who_has_room(subject: &dyn Subject) {
    let (asking, full, free) = (join(subject).await, join(subject).await, join(subject).await);
    let identity = identity();
    let (mut to_full, mut to_free) = (full.demands(), free.demands());
    in_time(free.offer(3)).await.unwrap();
    in_time(asking.demand(identity)).await.unwrap();
    asked(&mut *to_free, identity).await;
    assert!(!is_asked(&mut *to_full, identity).await);
    // As soon as there is room the open demand is told.
    tokio::join!(asked(&mut *to_full, identity), async { full.offer(1).await.unwrap() });
    in_time(full.offer(0)).await.unwrap();
    tokio::join!(asked(&mut *to_full, identity), async { full.offer(2).await.unwrap() });
    claim(&free, identity).await;
    sleep(&free, identity).await;
}

async fn a_demand_for_what_is_owned_waits_for_the_owner_to_go(subject: &dyn Subject) {
    let (asking, one, two, identity) = (join(subject).await, join(subject).await, join(subject).await, identity());
    in_time(two.offer(3)).await.unwrap();
    claim(&one, identity).await;
    copy_says(&two, identity, Some(one.host())).await;
    let mut demands = two.demands();
    in_time(asking.demand(identity)).await.unwrap();
    assert!(!is_asked(&mut *demands, identity).await, "somebody serves it");
    assert!(in_time(one.hand_over(identity, None)).await.unwrap());
    asked(&mut *demands, identity).await;
    claim(&two, identity).await;
    sleep(&two, identity).await;
}

async fn a_hand_over_keeps_the_demand_and_names_a_target(subject: &dyn Subject) {
    let (one, two, three, identity) = (join(subject).await, join(subject).await, join(subject).await, identity());
    in_time(two.offer(10)).await.unwrap();
    in_time(three.offer(10)).await.unwrap();
    for (target, other) in [(&two, &three), (&three, &two)] {
        let (mut to_target, mut to_other) = (target.demands(), other.demands());
        let token = claim_soon(&one, identity).await;
        assert!(in_time(one.hand_over(identity, Some(target.host()))).await.unwrap());
        asked_in_turn(&mut *to_target, identity, |turn| turn.is_zero()).await;
        asked_in_turn(&mut *to_other, identity, |turn| turn >= TARGET).await;
        assert!(claim(target, identity).await > token);
        // Whoever took it over may let it sleep; the target is forgotten with that.
        assert_eq!(sleep(target, identity).await, Slept::Asleep);
        in_time(one.demand(identity)).await.unwrap();
        asked_in_turn(&mut *to_other, identity, |turn| turn < TARGET).await;
        claim(target, identity).await;
        assert!(in_time(target.hand_over(identity, Some(one.host()))).await.unwrap());
        // A target without slots keeps nobody waiting.
        asked_in_turn(&mut *to_other, identity, |turn| turn < TARGET).await;
    }
    claim(&one, identity).await;
    let demanded = in_time(one.demanded()).await.unwrap();
    assert!(demanded.contains(&identity), "a demand lasts while its identity is owned");
    assert!(!in_time(one.wanted()).await.unwrap().contains(&identity));
    sleep(&one, identity).await;
    assert!(!in_time(one.demanded()).await.unwrap().contains(&identity), "a sleep ends it");
}

async fn whoever_raises_a_demand_meanwhile_takes_no_target_away(subject: &dyn Subject) {
    let (one, two, three, identity) = (join(subject).await, join(subject).await, join(subject).await, identity());
    in_time(two.offer(10)).await.unwrap();
    in_time(three.offer(10)).await.unwrap();
    for _ in 0..20 {
        claim_soon(&one, identity).await;
        // What those who raise it have seen of the demand may be older than what its owner says of it at this moment.
        let (handed, by_target, by_other) = in_time(async {
            tokio::join!(one.hand_over(identity, Some(two.host())), two.demand(identity), three.demand(identity))
        })
        .await;
        assert!(handed.unwrap() && by_target.is_ok() && by_other.is_ok());
        // Whoever has read all owners has seen all that was there then.
        in_time(three.owners()).await.unwrap();
        let turn = asked(&mut *three.demands(), identity).await.turn;
        assert!(turn >= TARGET, "the target is forgotten, it is the turn of another after {turn:?}");
        claim_soon(&two, identity).await;
        sleep(&two, identity).await;
    }
}

async fn a_demand_made_anew_has_no_target_of_the_former_one(subject: &dyn Subject) {
    let (one, two, three, identity) = (join(subject).await, join(subject).await, join(subject).await, identity());
    in_time(two.offer(10)).await.unwrap();
    in_time(three.offer(10)).await.unwrap();
    for _ in 0..10 {
        claim_soon(&one, identity).await;
        assert!(in_time(one.hand_over(identity, Some(two.host()))).await.unwrap());
        claim_soon(&two, identity).await;
        let seen = in_time(two.demand_version(identity)).await.unwrap();
        // Those who raise the demand know the one that ends at this moment, whose target is `two`.
        let (slept, by_one, by_three) =
            in_time(async { tokio::join!(two.sleep(identity, seen), one.demand(identity), three.demand(identity)) })
                .await;
        assert!(by_one.is_ok() && by_three.is_ok());
        if slept.unwrap() == Slept::Asleep {
            // Whoever has read all owners has seen all that was there then.
            in_time(three.owners()).await.unwrap();
            let turn = asked(&mut *three.demands(), identity).await.turn;
            assert!(turn < TARGET, "the target of a former demand has its turn before others, who wait for {turn:?}");
        }
        claim_soon(&three, identity).await;
        sleep(&three, identity).await;
    }
}

async fn hosts_are_listed(subject: &dyn Subject) {
    let (one, two) = (join(subject).await, join(subject).await);
    in_time(one.offer(7)).await.unwrap();
    let hosts = in_time(two.hosts()).await.unwrap();
    let found = |host: &Arc<dyn Ownership>| hosts.iter().find(|info| *info.name == *host.host()).cloned().unwrap();
    assert_eq!((found(&one).run, found(&one).free_slots), (one.run(), 7));
    assert_eq!((found(&two).run, found(&two).free_slots), (two.run(), 0));
    assert_ne!(one.run(), two.run());
    assert_eq!(found(&one).roles, Roles::BOTH);
    assert_eq!(found(&one).reach, None, "it has not told");
    let known = two.known_hosts().unwrap();
    assert!(known.iter().any(|info| *info.name == *one.host() && info.free_slots == 7), "{known:?}");
    for (missed, stands_back) in [(vec!["broker".to_owned()], true), (Vec::new(), false)] {
        let reach = Reach { missed, stands_back };
        in_time(one.tell_reach(reach.clone())).await.unwrap();
        let hosts = in_time(two.hosts()).await.unwrap();
        let told = hosts.iter().find(|info| *info.name == *one.host()).unwrap();
        assert_eq!((told.reach.as_ref(), told.free_slots), (Some(&reach), 7));
    }
    in_time(one.close()).await;
    assert_eq!(one.known_hosts(), None, "who has left knows of nobody");
    in_time(async {
        while two.hosts().await.unwrap().iter().any(|info| *info.name == *one.host()) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

async fn leaving_frees_everything_and_keeps_demands(subject: &dyn Subject) {
    let (one, two, identity) = (join(subject).await, join(subject).await, identity());
    let token = claim(&one, identity).await;
    let (mut changes, mut demands) = (one.changes(), one.demands());
    in_time(two.offer(1)).await.unwrap();
    in_time(one.close()).await;
    let refused = in_time(one.claim(identity, FencingToken::UNCLAIMED)).await.unwrap_err();
    assert!(matches!(refused, OwnershipError::Permanent(Permanent::Closed)), "{refused:?}");
    assert_eq!(one.session().borrow().state, SessionState::Closed);
    in_time(async { while changes.next().await.is_some() {} }).await;
    assert!(in_time(demands.next()).await.is_none());
    asked(&mut *two.demands(), identity).await;
    assert!(claim_soon(&two, identity).await > token);
    sleep(&two, identity).await;
}

async fn a_host_is_asked_to_drain_and_knows_it(subject: &dyn Subject) {
    let (a_name, b_name) = (unique("a"), unique("b"));
    let (a, b) = (subject.join(&a_name).await, subject.join(&b_name).await);
    let (mut a_drains, b_drains) = (a.draining(), b.draining());
    for wish in [true, false, true] {
        assert!(b.set_draining(&a_name, wish).await.unwrap());
        // Asked twice is no error.
        assert!(!b.set_draining(&a_name, wish).await.unwrap());
        tokio::time::timeout(DEADLINE, a_drains.wait_for(|draining| *draining == wish)).await.unwrap().unwrap();
        let hosts = b.hosts().await.unwrap();
        let of = |name: &str| hosts.iter().find(|host| *host.name == *name).unwrap().draining;
        assert_eq!((of(&a_name), of(&b_name)), (wish, false));
    }
    assert!(!*b_drains.borrow());
    // The wish stays while the host is away, and can be taken back meanwhile.
    a.close().await;
    assert!(b.set_draining(&a_name, false).await.unwrap());
    assert!(!b.set_draining(&a_name, false).await.unwrap());
    let back = subject.join(&a_name).await;
    assert!(!*back.draining().borrow());
}

/// Waits until a host knows who is the scheduler.
async fn knows_scheduler(host: &Arc<dyn Ownership>, expected: Option<&str>) {
    let mut scheduler = host.scheduler();
    in_time(scheduler.wait_for(|scheduler| scheduler.as_deref() == expected)).await.unwrap();
}

async fn one_host_is_the_scheduler(subject: &dyn Subject) {
    let (one, two) = (join(subject).await, join(subject).await);
    knows_scheduler(&two, None).await;
    let (first, second) = tokio::join!(one.campaign(), two.campaign());
    let is_first = first.unwrap();
    assert_ne!(is_first, second.unwrap(), "of two that try at once one is elected");
    let (elected, other) = if is_first { (&one, &two) } else { (&two, &one) };
    knows_scheduler(elected, Some(elected.host())).await;
    knows_scheduler(other, Some(elected.host())).await;
    assert!(elected.campaign().await.unwrap(), "it stays the scheduler");
    // Who is not the scheduler has nothing to give up.
    other.resign().await.unwrap();
    assert!(!other.campaign().await.unwrap());
    elected.resign().await.unwrap();
    knows_scheduler(other, None).await;
    assert!(other.campaign().await.unwrap());
    knows_scheduler(elected, Some(other.host())).await;
    in_time(other.close()).await;
    knows_scheduler(elected, None).await;
}

async fn a_scheduler_whose_session_is_over_makes_room(subject: &dyn Subject) {
    let (name, other) = (unique("scheduler"), join(subject).await);
    let lost = subject.join(&name).await;
    assert!(lost.campaign().await.unwrap());
    knows_scheduler(&other, Some(&name)).await;
    // A short cut changes nothing.
    subject.disconnect(&name).await;
    state_is(&lost, SessionState::Suspended).await;
    assert!(in_time(lost.campaign()).await.is_err());
    assert!(!in_time(other.campaign()).await.unwrap());
    subject.reconnect(&name).await;
    state_is(&lost, SessionState::Connected).await;
    assert!(in_time(lost.campaign()).await.unwrap());
    subject.expire(&name).await;
    knows_scheduler(&other, None).await;
    assert!(in_time(other.campaign()).await.unwrap());
    // It comes back too late, and takes nothing from its successor.
    subject.reconnect(&name).await;
    state_is(&lost, SessionState::Connected).await;
    in_time(lost.resign()).await.unwrap();
    assert!(!in_time(lost.campaign()).await.unwrap());
    knows_scheduler(&lost, Some(other.host())).await;
    in_time(other.resign()).await.unwrap();
    knows_scheduler(&lost, None).await;
}
