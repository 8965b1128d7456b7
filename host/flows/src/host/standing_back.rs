//! A host that alone is cut from the database or the broker gives up what it runs, so that others run it, and takes nothing
//! until it reaches them again. [`crate::cluster::reach`] says when.
//!
//! It closes identities as when its session is over: nothing is repeated and nothing of them is kept. What it has handed to its
//! committer may still be written when the database answers, unless somebody has claimed the identity by then: the database
//! compares the claim. So nobody waits for a part that is cut. An identity's actor may have to, until its units are answered;
//! therefore it is this task that ends the ownership, with the demand kept, and the actor goes when it can. Until then it is in
//! the way of every other actor of the identity on this host.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::stream::{self, StreamExt};
use maxhost_model::SecureHash;
use maxhost_ownership::{HostInfo, Ownedness, Reach};

use crate::cluster::membership::Membership;
use crate::cluster::reach::{Part, Reached};
use crate::host::parts::Parts;

/// How often it is looked what this host reaches.
const LOOK: Duration = Duration::from_millis(500);
/// A broker that says nothing for so long is missed: it says something every five seconds.
const BROKER_SAYS_SOMETHING: Duration = Duration::from_secs(6);
/// A session that is shorter counts as one of this length: a database is asked once a second, and may take two to answer.
const SHORTEST: Duration = Duration::from_secs(6);
/// Identities that are handed over at once.
const HANDED_OVER: usize = 32;

/// Looks what this host reaches, tells the others, and stands back when it has to, until the host stops.
pub(crate) async fn follow(parts: Arc<Parts>) {
    let Some(membership) = parts.membership.as_deref().filter(|membership| !membership.runs_none()) else { return };
    let session_timeout = membership.session_timeout().max(SHORTEST);
    let mut reached = Reached::new(session_timeout);
    let mut told = None;
    loop {
        reached.look(shared_parts(&parts, session_timeout), Instant::now());
        tell(&parts, membership, &reached, &mut told).await;
        if (reached.is_cut() || membership.stands_back())
            && let Some(others) = others(&parts).await
        {
            let stands_back = reached.stands_back(membership.stands_back(), &others);
            if stands_back != membership.stands_back() {
                change(membership, &reached, stands_back);
                tell(&parts, membership, &reached, &mut told).await;
            }
        }
        if membership.stands_back() {
            give_up(&parts).await;
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = parts.stopping.cancelled() => return,
        }
    }
}

/// The parts that hosts share, beside the ownership service; none of those that are in this process.
fn shared_parts(parts: &Parts, session_timeout: Duration) -> Vec<Part> {
    let doubted_after = session_timeout / 2;
    let databases =
        parts.store.last_answers().into_iter().map(|(name, answered)| Part { name, answered, doubted_after });
    let broker = parts.broker.last_heard().map(|answered| Part {
        name: "broker".to_owned(),
        answered,
        doubted_after: doubted_after.max(BROKER_SAYS_SOMETHING),
    });
    databases.chain(broker).collect()
}

/// Tells the others what this host reaches, unless they know. What could not be told is told when it is looked again.
async fn tell(parts: &Parts, membership: &Membership, reached: &Reached, told: &mut Option<Reach>) {
    let reach = Reach { missed: reached.missed(), stands_back: membership.stands_back() };
    if told.as_ref() == Some(&reach) {
        return;
    }
    match parts.ownership.tell_reach(reach.clone()).await {
        Ok(()) => *told = Some(reach),
        Err(error) => tracing::debug!(%error, "the others do not know what this host reaches; told again"),
    }
}

/// The other hosts; `None` if they cannot be asked for now.
async fn others(parts: &Parts) -> Option<Vec<HostInfo>> {
    match parts.ownership.hosts().await {
        Ok(hosts) => Some(hosts.into_iter().filter(|host| *host.name != *parts.ownership.host()).collect()),
        Err(error) => {
            tracing::debug!(%error, "it is not known what other hosts reach");
            None
        }
    }
}

fn change(membership: &Membership, reached: &Reached, stands_back: bool) {
    let missed = reached.missed().join(", ");
    match stands_back {
        true => tracing::warn!(
            missed,
            "this host does not reach what another host reaches: it gives up the identities that it runs, and takes none"
        ),
        false if missed.is_empty() => {
            tracing::info!("this host reaches everything again, and takes identities")
        }
        false => tracing::info!(missed, "no other host reaches more than this one: it takes identities"),
    }
    membership.set_standing_back(stands_back);
    if !stands_back {
        membership.look_for_work();
    }
}

/// Loses what this host holds, and ends every ownership that it has: also of identities that were about to be opened.
async fn give_up(parts: &Parts) {
    let entries = parts.directory.all();
    for entry in &entries {
        if entry.is_held() {
            parts.waking.lose(entry, "this host stands back");
        }
    }
    let us = parts.ownership.host();
    let is_ours = |key: &SecureHash| match parts.ownership.owner_of(key) {
        Ownedness::Owned(owner) => *owner.host == *us,
        Ownedness::Free | Ownedness::Unknown => false,
    };
    let owned: Vec<SecureHash> = entries.iter().filter_map(|entry| entry.key()).filter(is_ours).collect();
    let hand_over = |key: SecureHash| async move {
        // What is still owned when it is looked again is handed over then.
        if let Err(error) = parts.ownership.hand_over(key, None).await {
            tracing::debug!(identity = %key, %error, "an identity could not be handed over; tried again");
        }
    };
    stream::iter(owned).map(hand_over).buffer_unordered(HANDED_OVER).collect::<()>().await;
}
