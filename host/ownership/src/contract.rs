//! What every ownership service must do. An implementation runs [`run_all`] in a test of its own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::missing_panics_doc)]

mod claims;
mod demands;
mod hosts;
mod sessions;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use maxhost_model::{FencingToken, SecureHash};

use crate::error::OwnershipError;
use crate::ownership::{Ownedness, Ownership, SessionState, Slept};

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
        ($($file:ident :: $test:ident),* $(,)?) => {$(
            println!("contract: {}", stringify!($test));
            $file::$test(subject).await;
        )*};
    }
    run![
        claims::an_identity_has_one_owner,
        claims::tokens_rise_with_every_claim,
        claims::a_claim_below_the_database_is_refused,
        claims::only_the_owner_lets_go,
        claims::of_two_that_claim_at_once_one_wins,
        sessions::changes_are_told,
        sessions::a_short_cut_keeps_what_is_owned,
        sessions::a_lost_session_frees_what_it_owned,
        demands::a_demand_outlives_its_owner,
        demands::a_sleep_ends_the_demand_it_has_seen_and_no_other,
        demands::a_demand_made_anew_has_another_version,
        demands::a_demand_is_told_again_when_it_is_raised,
        demands::a_demand_goes_to_who_has_room,
        demands::a_demand_brings_the_message_that_was_raised_last,
        demands::a_demand_for_what_is_owned_waits_for_the_owner_to_go,
        demands::a_hand_over_keeps_the_demand_and_names_a_target,
        demands::whoever_raises_a_demand_meanwhile_takes_no_target_away,
        demands::a_demand_made_anew_has_no_target_of_the_former_one,
        hosts::hosts_are_listed,
        hosts::a_host_is_asked_to_drain_and_knows_it,
        hosts::one_host_is_the_scheduler,
        hosts::a_scheduler_whose_session_is_over_makes_room,
        demands::leaving_frees_everything_and_keeps_demands,
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
