//! Which identities a host of several gives to others, and to whom. Decisions only, without input or output: who looks and who
//! carries them out is [`crate::host::balancing`].
//!
//! Each host decides for what it runs itself, at a slow tick, from what all can see: who owns what, and which hosts there are. It
//! gives identities away for three reasons, in this order:
//!
//! - **pin**: its manifest does not let the identity run here (`placement.only`). At once, also if no host is there that may run it.
//! - **fit**: another host suits the identity better (`placement.apart`, `placement.prefer`).
//! - **share**: this host runs more than its share, and another one fewer.
//!
//! That all decide at the same time and by themselves must neither give one host too much nor send identities to and fro:
//!
//! - An identity goes for its fit or for a share only after it has been here for [`STAY`] ticks. So none comes back before that.
//! - A host is given something only after it has been seen at [`STEADY`] ticks in a row.
//! - Shares: hosts begin to give when one of them has far more or far less than its share, and then go on until the shares are
//!   even. So a balanced cluster is left alone, and so is one that is nearly balanced ([`is_far_over`], [`is_far_under`]). What
//!   hosts that have too few lack is divided among those that have too many, in proportion to what each has too much, so that
//!   together they give what is lacking.
//! - Groups: of the hosts that could give one of a group each does so in its turn, and one at a time.
//! - What is on its way counts for the host that it goes to.
//! - A host that was given something which another one runs afterwards cannot run it, it seems. It is left out for a while, each
//!   time for longer ([`Distrust`]).
//! - At a tick no more than a few go: [`MOST_AT_ONCE`].

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use maxhost_model::{RunId, SecureHash};
use maxhost_ownership::HostInfo;

use crate::cluster::host_rules::{self, Misfit};
use crate::options::HostRules;

/// Ticks that an identity stays with a host before it is given away for its fit or for a share.
pub(crate) const STAY: u64 = 6;
/// Ticks in a row at which a host was seen before it is given something.
const STEADY: u64 = 2;
/// Ticks after which an identity that nobody has taken is not on its way to anybody any more.
const UNDER_WAY: u64 = 3;
/// Identities that are given for their fit, or for a share, at one tick. For a share it is an eighth of what is too much, within
/// these bounds.
const LEAST_AT_ONCE: u32 = 4;
const MOST_AT_ONCE: u32 = 32;
/// Identities that are given at one look because they may not run here.
pub(crate) const MOST_PINNED: usize = 32;
/// Ticks for which a host is left out that did not run what it was given; doubles each time, so often.
const DISTRUST: u64 = 6;
const DISTRUST_DOUBLINGS: u32 = 6;

/// An identity that this host runs.
#[derive(Debug, Clone)]
pub(crate) struct Held {
    /// The fingerprint of its key.
    pub key: SecureHash,
    /// The epoch of this host's claim.
    pub epoch: i64,
    /// What its manifest says of hosts.
    pub rules: HostRules,
    /// Its flows that have not ended: one that has few is given rather than one that has many.
    pub live_flows: u64,
    /// It is about to be let go.
    pub is_leaving: bool,
}

/// What a host sees when it looks.
#[derive(Debug)]
pub(crate) struct View<'a> {
    /// The name of the host that looks.
    pub us: &'a str,
    /// The hosts of the cluster, this one included.
    pub hosts: &'a [HostInfo],
    /// Who owns what, of all hosts.
    pub owners: &'a HashMap<SecureHash, Arc<str>>,
    /// What this host runs.
    pub held: &'a [Held],
    /// All identities of the groups of which this host runs one.
    pub groups: &'a HashMap<Arc<str>, Vec<SecureHash>>,
    /// Whether identities are given for the sake of an even share.
    pub even: bool,
}

/// Why an identity is given away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    /// It may not run here.
    Pin,
    /// Another host suits it better.
    Fit,
    /// Another host runs fewer than its share.
    Share,
}

/// An identity that is to be given away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Move {
    /// The fingerprint of its key.
    pub key: SecureHash,
    /// The host that should take it; `None` if none that may is there.
    pub to: Option<Arc<str>>,
    pub why: Why,
}

/// An identity that was given away and has not arrived.
#[derive(Debug)]
struct Sent {
    to: Arc<str>,
    run: RunId,
    /// Under which epoch it was held.
    epoch: i64,
    at: u64,
}

/// Of a host that did not run what it was given.
#[derive(Debug, Default)]
struct Distrust {
    times: u32,
    until: u64,
}

/// What a host remembers from tick to tick.
#[derive(Debug, Default)]
pub(crate) struct Balancer {
    tick: u64,
    /// Since which tick each run of a host has been there without a gap.
    seen_since: HashMap<RunId, u64>,
    /// Since which tick this host has each identity, under which epoch.
    held_since: HashMap<SecureHash, (i64, u64)>,
    sent: HashMap<SecureHash, Sent>,
    distrust: HashMap<RunId, Distrust>,
    /// It has begun to give away what it has too much.
    is_giving: bool,
}

/// A host and what it has, with what is on its way to it.
struct Load<'a> {
    host: &'a HostInfo,
    owned: u32,
    free: u32,
}

impl Load<'_> {
    /// How many identities it runs at most.
    fn slots(&self) -> u32 {
        self.owned.saturating_add(self.free)
    }

    /// How full it is, to choose between hosts.
    fn fill(&self) -> f64 {
        f64::from(self.owned) / f64::from(self.slots().max(1))
    }
}

/// How things will be when what is decided has happened.
struct Plan<'a> {
    view: &'a View<'a>,
    ours: &'a HostInfo,
    /// Hosts that take identities and are known well enough, by name. This host is among them if it takes some.
    loads: Vec<Load<'a>>,
    /// How many of each group are on each host.
    groups: HashMap<Arc<str>, HashMap<Arc<str>, u32>>,
    moves: Vec<Move>,
}

/// Far more than a share: a quarter and eight more.
fn is_far_over(owned: u32, share: f64) -> bool {
    f64::from(owned) > 1.25 * share + 8.0
}

/// Far less than a share: less than three quarters of it, and eight less than that.
fn is_far_under(owned: u32, share: f64) -> bool {
    f64::from(owned) < 0.75 * share - 8.0
}

impl<'a> Plan<'a> {
    /// `None` if this host is not among the hosts, so that it knows nothing of itself.
    fn new(
        view: &'a View<'a>,
        sent: &HashMap<SecureHash, Sent>,
        is_known: impl Fn(&HostInfo) -> bool,
    ) -> Option<Plan<'a>> {
        let ours = view.hosts.iter().find(|host| *host.name == *view.us)?;
        let mut owned: HashMap<&str, u32> = HashMap::new();
        view.owners.values().for_each(|host| *owned.entry(host).or_default() += 1);
        let loads = view.hosts.iter().filter(|host| host_rules::takes_identities(host) && is_known(host));
        let loads =
            loads.map(|host| Load { host, owned: owned.get(&*host.name).copied().unwrap_or(0), free: host.free_slots });
        let mut plan = Plan { view, ours, loads: loads.collect(), groups: HashMap::new(), moves: Vec::new() };
        for (group, members) in view.groups {
            let counts = plan.groups.entry(group.clone()).or_default();
            for key in members {
                let place = sent.get(key).map(|sent| &sent.to).or_else(|| view.owners.get(key));
                place.into_iter().for_each(|host| *counts.entry(host.clone()).or_default() += 1);
            }
        }
        for (key, sent) in sent {
            plan.count(view.owners.get(key).map(|host| &**host), &sent.to);
        }
        Some(plan)
    }

    /// An identity goes from one host to another.
    fn count(&mut self, from: Option<&str>, to: &str) {
        for load in &mut self.loads {
            if from == Some(&*load.host.name) {
                (load.owned, load.free) = (load.owned.saturating_sub(1), load.free.saturating_add(1));
            }
            if *load.host.name == *to {
                (load.owned, load.free) = (load.owned.saturating_add(1), load.free.saturating_sub(1));
            }
        }
    }

    fn give(&mut self, held: &Held, to: Option<Arc<str>>, why: Why) {
        if let Some(to) = &to {
            self.count(Some(self.view.us), to);
        }
        if let Some(counts) = held.rules.apart.as_ref().and_then(|group| self.groups.get_mut(group)) {
            counts.entry(self.ours.name.clone()).and_modify(|count| *count = count.saturating_sub(1));
            to.iter().for_each(|to| *counts.entry(to.clone()).or_default() += 1);
        }
        self.moves.push(Move { key: held.key, to, why });
    }

    /// How badly a host suits an identity that this one has.
    fn misfit(&self, held: &Held, host: &HostInfo) -> Misfit {
        let counts = held.rules.apart.as_ref().and_then(|group| self.groups.get(group));
        let there = counts.and_then(|counts| counts.get(&host.name)).copied().unwrap_or(0);
        let companions = if *host.name == *self.view.us { there.saturating_sub(1) } else { there };
        host_rules::misfit(&held.rules, host, companions)
    }

    /// The hosts that may be given an identity: others, with room, that may run it.
    fn receivers(&self, held: &Held) -> impl Iterator<Item = &Load<'a>> {
        let fits = |load: &&Load<'_>| {
            *load.host.name != *self.view.us
                && load.free > 0
                && host_rules::has_room(load.host)
                && host_rules::may_run(&held.rules, load.host)
        };
        self.loads.iter().filter(fits)
    }

    /// The host that suits an identity best, and of several the one that is least full.
    fn best(&self, held: &Held) -> Option<(Misfit, Arc<str>)> {
        let ranked = self.receivers(held).map(|load| (self.misfit(held, load.host), load));
        let best = ranked.min_by(|(a, one), (b, other)| {
            let by_fill = || one.fill().total_cmp(&other.fill());
            a.cmp(b).then_with(by_fill).then_with(|| one.host.name.cmp(&other.host.name))
        });
        best.map(|(misfit, load)| (misfit, load.host.name.clone()))
    }

    /// Gives away what may not run here.
    fn give_pinned(&mut self) {
        let view = self.view;
        let is_elsewhere = |held: &&Held| !held.is_leaving && !host_rules::may_run(&held.rules, self.ours);
        for held in view.held.iter().filter(is_elsewhere).take(MOST_PINNED).collect::<Vec<_>>() {
            let to = self.best(held).map(|(_, host)| host);
            self.give(held, to, Why::Pin);
        }
    }
}

impl Balancer {
    /// What is to be given away because its manifest says so, between two ticks: a manifest has changed.
    pub fn look_at_pins(&mut self, view: &View<'_>) -> Vec<Move> {
        // Nothing else need be known of a host that alone may run it.
        let Some(mut plan) = Plan::new(view, &self.sent, |_| true) else { return Vec::new() };
        plan.give_pinned();
        self.note_moves(view, plan.moves)
    }

    /// What is to be given away at this tick.
    pub fn tick(&mut self, view: &View<'_>) -> Vec<Move> {
        self.tick += 1;
        self.note_view(view);
        let mut moves = self.look_at_pins(view);
        let is_known = |host: &HostInfo| *host.name == *view.us || self.is_steady(host);
        if let Some(mut plan) = Plan::new(view, &self.sent, is_known)
            && host_rules::takes_identities(plan.ours)
        {
            self.give_to_better(&mut plan);
            self.is_giving = view.even && self.give_share(&mut plan);
            moves.extend(self.note_moves(view, plan.moves));
        }
        moves
    }

    /// Takes in who is there, what this host has, and what has become of what it gave away.
    fn note_view(&mut self, view: &View<'_>) {
        let tick = self.tick;
        let runs: HashSet<RunId> =
            view.hosts.iter().filter(|host| host_rules::takes_identities(host)).map(|host| host.run).collect();
        self.seen_since.retain(|run, _| runs.contains(run));
        for run in &runs {
            self.seen_since.entry(*run).or_insert(tick);
        }
        self.distrust.retain(|run, _| runs.contains(run));
        let held: HashMap<SecureHash, i64> = view.held.iter().map(|held| (held.key, held.epoch)).collect();
        self.held_since.retain(|key, (epoch, _)| held.get(key) == Some(epoch));
        for (key, epoch) in &held {
            self.held_since.entry(*key).or_insert((*epoch, tick));
        }
        let mut arrived = Vec::new();
        self.sent.retain(|key, sent| {
            match view.owners.get(key) {
                Some(owner) if *owner == sent.to => arrived.push((sent.run, true)),
                Some(owner) if **owner != *view.us || held.get(key).is_some_and(|epoch| *epoch != sent.epoch) => {
                    arrived.push((sent.run, false));
                }
                _ => return tick - sent.at < UNDER_WAY,
            }
            false
        });
        arrived.into_iter().for_each(|(run, is_there)| self.note_arrival(run, is_there));
    }

    fn note_arrival(&mut self, run: RunId, is_there: bool) {
        if is_there {
            self.distrust.remove(&run);
            return;
        }
        let distrust = self.distrust.entry(run).or_default();
        // Of what was given at one tick it is told once.
        if distrust.until <= self.tick {
            distrust.until = self.tick + (DISTRUST << distrust.times.min(DISTRUST_DOUBLINGS));
            distrust.times = distrust.times.saturating_add(1);
        }
    }

    fn note_moves(&mut self, view: &View<'_>, moves: Vec<Move>) -> Vec<Move> {
        for Move { key, to, .. } in &moves {
            let epoch = view.held.iter().find(|held| held.key == *key).map_or(0, |held| held.epoch);
            let run = to.as_ref().and_then(|to| view.hosts.iter().find(|host| host.name == *to)).map(|host| host.run);
            if let (Some(to), Some(run)) = (to, run) {
                self.sent.insert(*key, Sent { to: to.clone(), run, epoch, at: self.tick });
            }
        }
        moves
    }

    /// Whether a host has been there for a while, and runs what it is given.
    fn is_steady(&self, host: &HostInfo) -> bool {
        let is_trusted = self.distrust.get(&host.run).is_none_or(|distrust| distrust.until <= self.tick);
        is_trusted && self.seen_since.get(&host.run).is_some_and(|since| self.tick - since >= STEADY)
    }

    /// What may be given away for its fit or for a share, with the least to do first.
    fn movable<'v>(&self, view: &'v View<'_>) -> Vec<&'v Held> {
        let has_stayed = |held: &&Held| {
            let since = self.held_since.get(&held.key).map_or(self.tick, |(_, since)| *since);
            !held.is_leaving && !self.sent.contains_key(&held.key) && self.tick - since >= STAY
        };
        let mut movable: Vec<&Held> = view.held.iter().filter(has_stayed).collect();
        movable.sort_by_key(|held| (held.live_flows, held.key));
        movable
    }

    /// Gives identities to hosts that suit them better.
    fn give_to_better(&self, plan: &mut Plan<'_>) {
        let mut groups = HashSet::new();
        let mut given: HashMap<Arc<str>, u32> = HashMap::new();
        let mut left = MOST_AT_ONCE;
        for held in self.movable(plan.view) {
            if left == 0 || held.rules.is_empty() {
                continue;
            }
            let ours = plan.misfit(held, plan.ours);
            let Some((best, to)) = plan.best(held).filter(|(best, _)| *best < ours) else { continue };
            if best.companions < ours.companions
                && let Some(group) = &held.rules.apart
            {
                if groups.contains(group) || !self.is_our_turn(plan, group, best.companions) {
                    continue;
                }
                groups.insert(group.clone());
            }
            // Others may give to it too.
            let room = plan.loads.iter().find(|load| load.host.name == to).map_or(0, |load| load.free);
            let most = (room / u32::try_from(plan.loads.len()).unwrap_or(u32::MAX).max(1)).max(1);
            let so_far = given.entry(to.clone()).or_default();
            if *so_far >= most {
                continue;
            }
            *so_far += 1;
            left -= 1;
            plan.give(held, Some(to), Why::Fit);
        }
    }

    /// Whether it is this host's turn to give one of a group, of all that could to a host with so many of them.
    fn is_our_turn(&self, plan: &Plan<'_>, group: &Arc<str>, least: u32) -> bool {
        let Some(counts) = plan.groups.get(group) else { return true };
        let mut could: Vec<&str> =
            counts.iter().filter(|(_, count)| **count > least + 1).map(|(host, _)| &**host).collect();
        could.sort_unstable();
        let place = could.iter().position(|host| *host == plan.view.us).unwrap_or(0) as u64;
        (self.tick + place).is_multiple_of(could.len().max(1) as u64)
    }

    /// Gives away what is more than this host's share. True if there may be more to give.
    fn give_share(&self, plan: &mut Plan<'_>) -> bool {
        let total: u64 = plan.loads.iter().map(|load| u64::from(load.owned)).sum();
        let slots: u64 = plan.loads.iter().map(|load| u64::from(load.slots())).sum();
        let share = |load: &Load<'_>| total as f64 * f64::from(load.slots()) / slots.max(1) as f64;
        let over = |load: &Load<'_>| f64::from(load.owned) - share(load).ceil();
        let lacks = |load: &Load<'_>| match host_rules::has_room(load.host) {
            true => (share(load).floor() - f64::from(load.owned)).clamp(0.0, f64::from(load.free)),
            false => 0.0,
        };
        let us = plan.view.us;
        let Some(ours) = plan.loads.iter().find(|load| *load.host.name == *us) else { return false };
        let excess = over(ours);
        let lacking: f64 = plan.loads.iter().filter(|load| *load.host.name != *us).map(lacks).sum();
        if excess < 1.0 || lacking < 1.0 {
            return false;
        }
        let is_far_off = |load: &Load<'_>| {
            is_far_over(load.owned, share(load)) || (lacks(load) > 0.0 && is_far_under(load.owned, share(load)))
        };
        if !self.is_giving && !plan.loads.iter().any(is_far_off) {
            return false;
        }
        let all_excess: f64 = plan.loads.iter().map(|load| over(load).max(0.0)).sum();
        let due = lacking * excess / all_excess.max(1.0);
        // Rounded up as often as the rest says, so that all together give what is lacking.
        let rest = if due.fract() > draw(us, self.tick) { 1 } else { 0 };
        let at_once = (excess as u32).div_ceil(8).clamp(LEAST_AT_ONCE, MOST_AT_ONCE);
        let due = (due as u32 + rest).min(excess as u32).min(at_once);
        let wanted: HashMap<Arc<str>, f64> =
            plan.loads.iter().map(|load| (load.host.name.clone(), share(load).floor())).collect();
        let mut given = 0;
        for held in self.movable(plan.view) {
            if given == due {
                break;
            }
            if plan.moves.iter().any(|other| other.key == held.key) {
                continue;
            }
            let ours = plan.misfit(held, plan.ours);
            let lack = |load: &Load<'_>| wanted.get(&load.host.name).map_or(0.0, |share| share - f64::from(load.owned));
            let suits = |load: &&Load<'_>| lack(load) >= 1.0 && plan.misfit(held, load.host) <= ours;
            let most_lacking = plan.receivers(held).filter(suits).max_by(|one, other| {
                lack(one).total_cmp(&lack(other)).then_with(|| other.host.name.cmp(&one.host.name))
            });
            let Some(to) = most_lacking.map(|load| load.host.name.clone()) else { continue };
            plan.give(held, Some(to), Why::Share);
            given += 1;
        }
        // If nothing of what it has can go, it begins anew when it is far off.
        given > 0 || due == 0 || !self.sent.is_empty()
    }
}

/// A number from 0 to 1 that another host has another one of, and another tick.
fn draw(us: &str, tick: u64) -> f64 {
    let mut hasher = DefaultHasher::new();
    (us, tick).hash(&mut hasher);
    (hasher.finish() >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests;
