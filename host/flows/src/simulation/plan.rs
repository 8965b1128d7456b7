//! What happens in one simulated world: who talks with whom, or deals with money, in what order, and what goes wrong.

use std::time::Duration;

use maxhost_model::{ErrorKind, FlowError};

use super::deals::{self, Deal};
use super::rng::Rng;
use super::{OWNERS, PARTIES};
use crate::options::Eviction;

/// Bytes of a message: from the shortest to more than waits in memory for one flow in these tests.
const SIZES: [usize; 5] = [40, 80, 1_500, 3_000, 6_000];

/// One in so many worlds of money has wrong clocks.
const WRONG_CLOCKS: usize = 4;
/// How often the disk of half of these fails.
const MISHAPS_OF_A_BAD_DISK: u32 = 60;

/// One step of a conversation, which both sides know.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Move {
    /// The initiator sends so many bytes.
    There(usize),
    /// The responder does.
    Back(usize),
    /// The initiator sleeps, milliseconds.
    InitiatorSleeps(u64),
    /// The responder does.
    ResponderSleeps(u64),
    /// The initiator waits for the session until a deadline, milliseconds ahead.
    InitiatorLooks(u64),
    /// The responder wants so many bytes of memory.
    ResponderGrows(u64),
}

/// One session.
#[derive(Debug, Clone)]
pub(crate) struct Talk {
    /// The responder's identity.
    pub with: usize,
    pub moves: Vec<Move>,
}

impl Talk {
    /// Whether anything is said in it.
    pub fn is_spoken(&self) -> bool {
        self.moves.iter().any(|one| matches!(one, Move::There(_) | Move::Back(_)))
    }

    /// Whether its initiator asks it for anything, without which no responder is started.
    pub fn is_opened(&self) -> bool {
        self.is_spoken() || self.moves.iter().any(|one| matches!(one, Move::InitiatorLooks(_)))
    }
}

/// A flow that is started from outside.
#[derive(Debug, Clone)]
pub(crate) struct Root {
    pub identity: usize,
    pub talks: Vec<Talk>,
    /// What it does with money, one after the other. It talks, or does this.
    pub deals: Vec<Deal>,
    /// Whoever starts it gives it a client id.
    pub named: bool,
    /// It fails after so many of its moves or deals.
    pub fails_after: Option<usize>,
    /// It is killed after so many steps of the world.
    pub killed_after: Option<usize>,
}

impl Root {
    /// How many messages its initiator receives.
    pub fn received(&self) -> u64 {
        let back = |talk: &Talk| talk.moves.iter().filter(|one| matches!(one, Move::Back(_))).count() as u64;
        self.talks.iter().map(back).sum()
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub identities: usize,
    /// The last identity answers no protocol.
    pub mute: bool,
    pub roots: Vec<Root>,
    pub eviction: Eviction,
    pub slots: u32,
    /// Flows of one identity in memory at most.
    pub flows: u32,
    /// Memory of all guests.
    pub memory: u64,
    /// The share of flows that are run again before they end.
    pub shadow_replay: f64,
    pub always_broker: bool,
    /// The host claims its identities when it starts, not when they are opened.
    pub claims_first: bool,
    /// It is one of several that share their identities; nothing is seen of the others.
    pub shares: bool,
    pub idle_close: Duration,
    /// Mishaps of the store, of readers, of keys and of guests.
    pub mishaps: u32,
    /// Defects of the host.
    pub defects: u32,
    /// Steps of the world at which the host is killed.
    pub crashes: Vec<usize>,
    /// The wall clock is set now and then.
    pub clock_jumps: bool,
    /// Steps of the world at which a flow is killed that is drawn from those that live.
    pub kills: Vec<usize>,
    /// So many flows are killed while they wait for what a notary decides.
    pub kills_of_waiting: usize,
    /// The wall clock is set at any step of the world, once in so many, and is wrong by some minutes.
    pub clock_settings: Option<usize>,
    /// A notary has room for so many requests of one caller, and for two in a batch; one identity has more at once.
    pub notary_room: Option<usize>,
}

impl Plan {
    /// Whether this identity answers no protocol.
    pub fn is_mute(&self, identity: usize) -> bool {
        self.mute && identity + 1 == self.identities
    }

    /// Whether one of the root's sessions is rejected.
    pub fn is_refused(&self, root: &Root) -> bool {
        root.talks.iter().any(|talk| talk.is_opened() && self.is_mute(talk.with))
    }

    /// Whether it deals with money.
    pub fn is_about_money(&self) -> bool {
        self.roots.iter().any(|root| !root.deals.is_empty())
    }

    /// Whether flows are killed that are drawn from those that live.
    pub fn kills_any(&self) -> bool {
        !self.kills.is_empty() || self.kills_of_waiting > 0
    }

    /// Whether a flow is killed.
    pub fn is_anyone_killed(&self) -> bool {
        self.kills_any() || self.roots.iter().any(|root| root.killed_after.is_some())
    }

    /// Whether flows end otherwise than by themselves.
    pub fn has_kills(&self) -> bool {
        self.is_anyone_killed() || self.roots.iter().any(|root| root.fails_after.is_some())
    }

    /// Whether a deal, or whoever takes part in it, may be told this.
    pub fn may_refuse(&self, error: &FlowError) -> bool {
        let pays_twice = |root: &Root| root.deals.iter().any(|deal| matches!(deal, Deal::PayTwice { .. }));
        match error.exception.as_deref() {
            // Others have it, or have spent it, or the notary is still asked about it.
            Some("vault/insufficient" | "vault/locked" | "vault/timed-out") => true,
            Some("notary/conflict") => self.roots.iter().any(pays_twice),
            Some("notary/time-window") => self.clock_jumps,
            _ => self.has_kills() && error.kind == ErrorKind::UnexpectedEnd,
        }
    }

    /// A world of money.
    pub fn with_money(rng: &Rng) -> Plan {
        let plan = Plan::random(rng);
        if rng.one_in(WRONG_CLOCKS) {
            return plan.with_wrong_clocks(rng);
        }
        let (calm, double_spends) = (plan.mishaps == 0, rng.one_in(2));
        let root = |first: bool| {
            let identity = rng.below(OWNERS);
            let mut deals: Vec<Deal> =
                (0..rng.between(1, 4)).map(|_| Deal::random(rng, identity, double_spends)).collect();
            if first || rng.one_in(2) {
                deals.insert(0, Deal::issue(rng, identity));
            }
            Root {
                identity,
                talks: Vec::new(),
                named: rng.one_in(2),
                fails_after: (!calm && rng.one_in(12)).then(|| rng.below(deals.len() + 1)),
                killed_after: (!calm && rng.one_in(8)).then(|| rng.below(1_500)),
                deals,
            }
        };
        let roots = (0..rng.between(2, 4)).map(|index| root(index == 0)).collect();
        let crashes = plan.crashes_with_money();
        let mut kills: Vec<usize> = match calm || !rng.one_in(4) {
            true => Vec::new(),
            false => (0..rng.between(1, 3)).map(|_| rng.below(2_000)).collect(),
        };
        kills.sort_unstable();
        let notary_room = rng.one_in(3).then(|| rng.between(1, 2));
        let plan = Plan {
            identities: PARTIES.len(),
            mute: false,
            roots,
            crashes,
            kills,
            memory: 1 << 20,
            notary_room,
            ..plan
        };
        if notary_room.is_some() { plan.with_crowd(rng, calm) } else { plan }
    }

    /// A world of money in which the wall clock of the host is set while everybody is at work, and some of those who have a
    /// payment in flight are killed while its notary decides: what a notary has told of its clock must hold for what it decides
    /// later. In half of them the disk fails again and again: who has asked a notary ahead of it and is not written asks for something
    /// else then, because the clock is another. Nothing else ends its flows, and most of them get far. Where the notary has little
    /// room, one identity has more requests at once, so that a request waits while others ask what was decided about it. The host is
    /// killed as in other worlds, and begins again with a clock that is as wrong as before.
    fn with_wrong_clocks(self, rng: &Rng) -> Plan {
        let notary_room = rng.one_in(2).then(|| rng.between(1, 2));
        let (one, notary) = (rng.below(OWNERS), deals::notary(rng));
        let root = |_| {
            let (identity, notary) = match notary_room {
                Some(_) => (one, notary),
                None => (rng.below(OWNERS), deals::notary(rng)),
            };
            let deals = Deal::of_payer(rng, identity, notary);
            Root { identity, talks: Vec::new(), deals, named: rng.one_in(2), fails_after: None, killed_after: None }
        };
        let roots = (0..rng.between(2, 4)).map(root).collect();
        let room_for_flows = |few: u32| if notary_room.is_some() { 100 } else { few };
        Plan {
            identities: PARTIES.len(),
            mute: false,
            roots,
            slots: room_for_flows(self.slots),
            flows: room_for_flows(self.flows),
            memory: 1 << 20,
            crashes: self.crashes_with_money(),
            clock_jumps: true,
            mishaps: if rng.one_in(2) { MISHAPS_OF_A_BAD_DISK } else { self.mishaps },
            kills_of_waiting: rng.between(1, 4),
            clock_settings: Some(rng.between(10, 60)),
            notary_room,
            ..self
        }
    }

    /// Where a world of talks would have its crashes: worlds of money take more steps.
    fn crashes_with_money(&self) -> Vec<usize> {
        self.crashes.iter().map(|step| step * 4).collect()
    }

    /// Several more flows of one identity ask one notary at once. Nothing but the notary's room is scarce.
    fn with_crowd(mut self, rng: &Rng, calm: bool) -> Plan {
        let (identity, notary) = (rng.below(OWNERS), deals::notary(rng));
        let one = |_| Root {
            identity,
            talks: Vec::new(),
            deals: Deal::of_crowd(rng, identity, notary),
            named: rng.one_in(2),
            fails_after: None,
            killed_after: (!calm && rng.one_in(12)).then(|| rng.below(3_000)),
        };
        self.roots.extend((0..rng.between(4, 6)).map(one));
        Plan { slots: 100, flows: 100, ..self }
    }

    /// A world of talks.
    pub fn random(rng: &Rng) -> Plan {
        let identities = rng.between(1, 3);
        let mute = identities > 1 && rng.one_in(6);
        let calm = rng.one_in(3);
        let roots = (0..rng.between(1, 3)).map(|_| root(rng, identities, calm)).collect();
        let crashes = if calm || !rng.one_in(3) { 0 } else { rng.between(1, 3) };
        let mut crashes: Vec<usize> = (0..crashes).map(|_| rng.below(600)).collect();
        crashes.sort_unstable();
        Plan {
            identities,
            mute,
            roots,
            eviction: match rng.below(5) {
                0 => Eviction::Never,
                1 => Eviction::EveryWait,
                2 => Eviction::AfterLinger(Duration::from_millis(rng.below(40) as u64)),
                _ => Eviction::Random(rng.next()),
            },
            slots: if rng.one_in(3) { rng.between(1, 2) as u32 } else { 100 },
            flows: if rng.one_in(3) { rng.between(1, 2) as u32 } else { 100 },
            memory: if rng.one_in(4) { rng.between(100, 200) as u64 } else { 1 << 20 },
            shadow_replay: if rng.one_in(6) { 1.0 } else { 0.0 },
            always_broker: rng.one_in(5),
            claims_first: !rng.one_in(4),
            shares: false,
            idle_close: Duration::from_millis(if rng.one_in(2) { 5 } else { 60_000 }),
            mishaps: if calm { 0 } else { rng.between(1, 6) as u32 },
            defects: if calm || !rng.one_in(4) { 0 } else { rng.between(1, 2) as u32 },
            crashes,
            clock_jumps: rng.one_in(3),
            kills: Vec::new(),
            kills_of_waiting: 0,
            clock_settings: None,
            notary_room: None,
        }
    }
}

fn root(rng: &Rng, identities: usize, calm: bool) -> Root {
    let talks: Vec<Talk> = (0..rng.between(1, 2)).map(|_| talk(rng, identities)).collect();
    let moves: usize = talks.iter().map(|talk| talk.moves.len()).sum();
    Root {
        identity: rng.below(identities),
        talks,
        deals: Vec::new(),
        named: rng.one_in(2),
        fails_after: (!calm && rng.one_in(6)).then(|| rng.below(moves + 1)),
        killed_after: (!calm && rng.one_in(8)).then(|| rng.below(400)),
    }
}

fn talk(rng: &Rng, identities: usize) -> Talk {
    let one = |rng: &Rng| match rng.below(18) {
        0..=5 => Move::There(SIZES[rng.below(SIZES.len())]),
        6..=11 => Move::Back(SIZES[rng.below(SIZES.len())]),
        12 => Move::InitiatorSleeps(rng.below(200) as u64),
        13 => Move::ResponderSleeps(rng.below(200) as u64),
        14 => Move::ResponderGrows(rng.between(5, 15) as u64),
        _ => Move::InitiatorLooks(rng.below(100) as u64),
    };
    Talk { with: rng.below(identities), moves: (0..rng.between(1, 6)).map(|_| one(rng)).collect() }
}
