//! What must hold of demands, and of hosts that leave them behind.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use maxhost_model::{FencingToken, SecureHash};

use super::{A_WHILE, Subject, claim, claim_soon, copy_says, identity, in_time, join, owner_of, sleep};
use crate::error::{OwnershipError, Permanent};
use crate::ownership::{DEMAND_MESSAGE_BYTES, Demand, Demands, Ownership, SessionState, Slept};
use crate::rendezvous::TARGET;

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

pub(super) async fn a_demand_outlives_its_owner(subject: &dyn Subject) {
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
    let unasked = super::identity();
    let three = join(subject).await;
    claim(&three, unasked).await;
    subject.expire(three.host()).await;
    asked(&mut *demands, unasked).await;
}

pub(super) async fn a_sleep_ends_the_demand_it_has_seen_and_no_other(subject: &dyn Subject) {
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

pub(super) async fn a_demand_made_anew_has_another_version(subject: &dyn Subject) {
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

pub(super) async fn a_demand_is_told_again_when_it_is_raised(subject: &dyn Subject) {
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

pub(super) async fn a_demand_goes_to_who_has_room(subject: &dyn Subject) {
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

pub(super) async fn a_demand_brings_the_message_that_was_raised_last(subject: &dyn Subject) {
    let (asking, one, identity) = (join(subject).await, join(subject).await, identity());
    in_time(one.offer(5)).await.unwrap();
    let mut demands = one.demands();
    let longest: Arc<[u8]> = vec![0xff; DEMAND_MESSAGE_BYTES].into();
    let too_long: Arc<[u8]> = vec![0; DEMAND_MESSAGE_BYTES + 1].into();
    for (raised, told) in
        [(&longest, Some(&*longest)), (&too_long, None), (&Arc::from(*b"second"), Some(&b"second"[..]))]
    {
        in_time(asking.demand_with(identity, raised.clone())).await.unwrap();
        assert_eq!(asked(&mut *demands, identity).await.message.as_deref(), told);
    }
    // Whoever raises it without one has it forgotten.
    in_time(one.demand(identity)).await.unwrap();
    assert_eq!(asked(&mut *demands, identity).await.message, None);
    in_time(asking.demand_with(identity, longest)).await.unwrap();
    assert!(asked(&mut *demands, identity).await.message.is_some());
    claim(&one, identity).await;
    assert!(in_time(one.hand_over(identity, None)).await.unwrap());
    assert_eq!(asked(&mut *demands, identity).await.message, None);
    claim(&one, identity).await;
    assert_eq!(sleep(&one, identity).await, Slept::Asleep);
}

pub(super) async fn a_demand_for_what_is_owned_waits_for_the_owner_to_go(subject: &dyn Subject) {
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

pub(super) async fn a_hand_over_keeps_the_demand_and_names_a_target(subject: &dyn Subject) {
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

pub(super) async fn whoever_raises_a_demand_meanwhile_takes_no_target_away(subject: &dyn Subject) {
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

pub(super) async fn a_demand_made_anew_has_no_target_of_the_former_one(subject: &dyn Subject) {
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

pub(super) async fn leaving_frees_everything_and_keeps_demands(subject: &dyn Subject) {
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
