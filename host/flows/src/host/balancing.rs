//! Gives identities to hosts that suit them better, or that run fewer: looks at a slow tick, and when a manifest says something else
//! of hosts. [`crate::cluster::balance`] decides; an identity is handed over as `host move` has it done, so nothing that it does is lost.
//! `docs/cluster.md` has the rules.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use maxhost_model::SecureHash;
use maxhost_ownership::{HostInfo, SessionState};
use tokio::time::Instant;

use crate::api::IdentityPhase;
use crate::base::counters::Counters;
use crate::cluster::balance::{Balancer, Held, MOST_PINNED, Move, View, Why};
use crate::host::parts::Parts;
use crate::options::Balancing;
use crate::registry::entry::IdentityEntry;
use crate::registry::marks::Mark;

/// How soon it is looked again when many have to go because they may not run here.
const AGAIN: Duration = Duration::from_secs(1);

/// What the ownership service tells of the cluster.
struct Cluster {
    hosts: Vec<HostInfo>,
    owners: HashMap<SecureHash, Arc<str>>,
}

/// Gives identities away until the host stops. A host that runs none has none to give.
pub(crate) async fn run(parts: Arc<Parts>) {
    let Some(membership) = parts.membership.as_deref().filter(|membership| !membership.runs_none()) else { return };
    let Balancing { even, interval } = membership.balancing();
    let mut balancer = Balancer::default();
    let mut next = Instant::now() + interval;
    let mut again = Duration::MAX;
    loop {
        let is_tick = tokio::select! {
            () = tokio::time::sleep_until(next) => true,
            () = membership.until_rules_change() => false,
            () = tokio::time::sleep(again) => false,
            () = parts.stopping.cancelled() => return,
        };
        if is_tick {
            next = Instant::now() + interval;
        }
        again = Duration::MAX;
        // What it has goes without this, or nobody can be asked to take it.
        if membership.takes_nothing() || parts.ownership.session().borrow().state != SessionState::Connected {
            continue;
        }
        match look(&parts).await {
            Ok(cluster) => {
                let moves = decide(&parts, &cluster, &mut balancer, (is_tick, even));
                if moves.iter().filter(|this| this.why == Why::Pin).count() >= MOST_PINNED {
                    again = AGAIN;
                }
                moves.into_iter().for_each(|this| give(&parts, this));
                if is_tick {
                    Counters::add(&parts.counters.balance_ticks);
                }
            }
            Err(reason) => {
                tracing::debug!(reason, "it is not known who runs what; looked again");
                again = if is_tick { Duration::MAX } else { AGAIN };
            }
        }
    }
}

async fn look(parts: &Parts) -> Result<Cluster, String> {
    let owners = parts.ownership.owners().await.map_err(|error| error.to_string())?;
    let hosts = parts.ownership.hosts().await.map_err(|error| error.to_string())?;
    Ok(Cluster { hosts, owners: owners.into_iter().map(|owner| (owner.identity, owner.host)).collect() })
}

fn decide(parts: &Parts, cluster: &Cluster, balancer: &mut Balancer, (is_tick, even): (bool, bool)) -> Vec<Move> {
    let held: Vec<Held> = parts.directory.all().iter().filter_map(held).collect();
    let mut groups: HashMap<Arc<str>, Vec<SecureHash>> = HashMap::new();
    for group in held.iter().filter_map(|held| held.rules.apart.as_ref()) {
        groups
            .entry(group.clone())
            .or_insert_with(|| parts.directory.group(group).iter().filter_map(|entry| entry.key()).collect());
    }
    let Cluster { hosts, owners } = cluster;
    let view = View { us: parts.ownership.host(), hosts, owners, held: &held, groups: &groups, even };
    if is_tick { balancer.tick(&view) } else { balancer.look_at_pins(&view) }
}

/// What an identity is for the decision; `None` if this host does not run it.
fn held(entry: &Arc<IdentityEntry>) -> Option<Held> {
    let key = entry.held_as()?;
    // One without an actor is not in order, and somebody is looking after that.
    entry.mailbox()?;
    // One lock after the other, never two at once.
    let epoch = entry.claim.lock().token.epoch;
    let rules = entry.spec.lock().hosts.clone();
    Some(Held {
        key,
        epoch,
        rules,
        live_flows: entry.live_flows.load(std::sync::atomic::Ordering::Relaxed),
        is_leaving: entry.phase() == IdentityPhase::Draining,
    })
}

fn give(parts: &Parts, Move { key, to, why }: Move) {
    let Some(entry) = parts.directory.by_key(&key).filter(|entry| entry.is_held()) else { return };
    let counter = match why {
        Why::Share => &parts.counters.balance_moves,
        Why::Pin | Why::Fit => &parts.counters.placement_moves,
    };
    Counters::add(counter);
    match (&to, why) {
        (Some(host), Why::Share) => tracing::debug!(identity = %entry.text, %host, "handed over: it runs fewer"),
        (Some(host), Why::Fit) => {
            tracing::info!(identity = %entry.text, %host, "handed over: it suits the identity better")
        }
        (Some(host), Why::Pin) => tracing::info!(identity = %entry.text, %host, "handed over: it may not run here"),
        (None, _) => tracing::warn!(
            identity = %entry.text,
            "given up: its manifest does not let it run here, and no host is there that may run it"
        ),
    }
    match to {
        Some(host) => {
            let from = entry.claim.lock().token;
            entry.move_to(host.to_string(), Some(from));
        }
        None => entry.marks.set(Mark::Drain),
    }
}
