//! The scheduler of a cluster: one of the hosts that answer clients, elected by the ownership service. It raises demand for
//! identities that sleep and whose time has come.
//!
//! Whoever lets an identity sleep rings for it in time, but he may be gone by then. What a scheduler does too often, or two do at
//! once, does no harm: a demand that there is already is raised once more. So nothing is lost when a scheduler that hung goes
//! on for a moment beside its successor.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use maxhost_model::IdentityRow;
use maxhost_ownership::Ownedness;

use crate::cluster::membership::Membership;
use crate::host::parts::Parts;

/// How often a scheduler looks who is due, if nobody is due sooner: an identity may have fallen asleep since.
const LOOK: Duration = Duration::from_secs(2);
/// It does not look again sooner than after this.
const SOONEST: Duration = Duration::from_millis(20);
/// How long a look may take before the scheduler makes room for another.
const PATIENCE: Duration = Duration::from_secs(5);
/// How soon a host tries again to become the scheduler while there is none.
const AGAIN: Duration = Duration::from_secs(1);
/// How long one that cannot do the work leaves it to others.
const STANDS_BACK: Duration = Duration::from_secs(10);
/// How often a host looks whether there still is a scheduler, beside being told.
const SWEEP: Duration = Duration::from_secs(30);

/// Becomes the scheduler when there is none, and does its work, until the host stops.
pub(crate) async fn run(parts: Arc<Parts>) {
    let Some(membership) = parts.membership.as_deref().filter(|membership| membership.may_schedule()) else { return };
    let mut known = parts.ownership.scheduler();
    let (mut rung, mut was_elected) = (HashMap::new(), false);
    loop {
        let now_known = known.borrow_and_update().clone();
        let (elected, mut pause) = match now_known {
            Some(name) => (*name == *parts.ownership.host(), SWEEP),
            None => (campaign(&parts).await, AGAIN),
        };
        if elected && !was_elected {
            tracing::info!("this host is the scheduler of the cluster");
            rung.clear();
            membership.look_for_work();
        }
        was_elected = elected;
        let mut stands_back = false;
        if elected {
            match tokio::time::timeout(PATIENCE, ring_for_due(&parts, membership, &mut rung)).await {
                Ok(Ok(next)) => pause = next.map_or(LOOK, |next| next.clamp(SOONEST, LOOK)),
                failed => {
                    let reason = failed.map_or_else(|_| "no answer".to_owned(), |looked| format!("{looked:?}"));
                    tracing::warn!(reason, "the scheduler cannot read the database, and makes room for another");
                    resign(&parts).await;
                    (pause, stands_back, was_elected) = (STANDS_BACK, true, false);
                }
            }
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            changed = known.changed(), if !stands_back => if changed.is_err() { return },
            () = membership.until_room_is_made(), if elected && !stands_back => {
                tracing::warn!("the scheduler cannot look for work, and makes room for another");
                resign(&parts).await;
                was_elected = false;
                // Shortly, because the reason may be one that concerns all hosts, and then nobody else does better.
                tokio::select! {
                    () = tokio::time::sleep(LOOK) => {}
                    () = parts.stopping.cancelled() => return,
                }
            }
            () = parts.stopping.cancelled() => return,
        }
    }
}

async fn resign(parts: &Parts) {
    if let Err(error) = parts.ownership.resign().await {
        tracing::debug!(%error, "the scheduler could not resign");
    }
}

async fn campaign(parts: &Parts) -> bool {
    parts.ownership.campaign().await.unwrap_or_else(|error| {
        tracing::debug!(%error, "nobody can be elected scheduler now");
        false
    })
}

/// Rings for identities that are due and that nobody runs, each once for the time at which it is due: whoever does not hear it
/// is rung for by the sweeps. Says how long it is until the next one is due.
async fn ring_for_due(
    parts: &Parts,
    membership: &Membership,
    rung: &mut HashMap<IdentityRow, i64>,
) -> Result<Option<Duration>, maxhost_store::StoreError> {
    let now = i64::try_from(parts.now_millis()).unwrap_or(i64::MAX);
    let (due, next) = parts.store.due(now).await?;
    let before = std::mem::take(rung);
    for (row, at) in due {
        rung.insert(row, at);
        if before.get(&row) == Some(&at) {
            continue;
        }
        let Some(key) = parts.directory.by_row(row).and_then(|entry| entry.key()) else { continue };
        if matches!(parts.ownership.owner_of(&key), Ownedness::Free) {
            membership.ring(key);
        }
    }
    Ok(next.and_then(|at| u64::try_from(at - now).ok()).map(Duration::from_millis))
}
