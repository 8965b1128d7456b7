#![allow(clippy::unwrap_used)]
use std::collections::BTreeMap;

use super::*;
use crate::cluster::host_rules::tests::{host, rules};

/// Numbers from a seed.
struct Draws(u64);

impl Draws {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    fn below(&mut self, most: usize) -> usize {
        (self.next() % most.max(1) as u64) as usize
    }

    fn one_in(&mut self, of: usize) -> bool {
        self.below(of) == 0
    }
}

fn key(number: usize) -> SecureHash {
    SecureHash::of(&number.to_be_bytes())
}

struct Node {
    name: Arc<str>,
    run: RunId,
    slots: u32,
    draining: bool,
    /// It offers slots, and cannot open what it is given.
    broken: bool,
    balancer: Balancer,
}

struct Identity {
    key: SecureHash,
    rules: HostRules,
    owner: Option<Arc<str>>,
    epoch: i64,
    target: Option<Arc<str>>,
    leaving: bool,
    /// In how many rounds it is let go, or taken.
    delay: usize,
    /// When it was last given away for its fit or for a share.
    given: Option<u64>,
}

/// Hosts that look in some order in each round, and identities that take a while to go from one to another.
struct World {
    draws: Draws,
    round: u64,
    runs: i64,
    nodes: Vec<Node>,
    identities: Vec<Identity>,
    even: bool,
    moves: BTreeMap<&'static str, usize>,
}

impl World {
    fn new(seed: u64, identities: usize) -> World {
        let new = |number| Identity {
            key: key(number),
            rules: HostRules::default(),
            owner: None,
            epoch: 0,
            target: None,
            leaving: false,
            delay: 0,
            given: None,
        };
        let identities = (0..identities).map(new).collect();
        let (nodes, moves) = (Vec::new(), BTreeMap::new());
        World { draws: Draws(seed), round: 0, runs: 0, nodes, identities, even: true, moves }
    }

    fn join(&mut self, name: &str, slots: u32) {
        self.runs += 1;
        let (run, balancer) = (RunId(self.runs), Balancer::default());
        self.nodes.push(Node { name: name.into(), run, slots, draining: false, broken: false, balancer });
    }

    fn lose(&mut self, name: &str) {
        self.nodes.retain(|node| *node.name != *name);
        for identity in &mut self.identities {
            if identity.owner.as_deref() == Some(name) {
                (identity.owner, identity.leaving) = (None, false);
            }
        }
    }

    fn node(&mut self, name: &str) -> &mut Node {
        self.nodes.iter_mut().find(|node| *node.name == *name).unwrap()
    }

    fn owned(&self, name: &str) -> u32 {
        self.identities.iter().filter(|identity| identity.owner.as_deref() == Some(name)).count() as u32
    }

    fn hosts(&self) -> Vec<HostInfo> {
        let info = |node: &Node| {
            let free = if node.draining { 0 } else { node.slots.saturating_sub(self.owned(&node.name)) };
            HostInfo { run: node.run, draining: node.draining, ..host(&node.name, free) }
        };
        self.nodes.iter().map(info).collect()
    }

    /// What a host gives away now.
    fn look(&mut self, name: &Arc<str>) {
        let (hosts, draining) = (self.hosts(), self.node(name).draining);
        let owners: HashMap<SecureHash, Arc<str>> =
            self.identities.iter().filter_map(|identity| Some((identity.key, identity.owner.clone()?))).collect();
        let mine = self.identities.iter().filter(|identity| identity.owner.as_ref() == Some(name));
        let held: Vec<Held> = mine
            .map(|identity| Held {
                key: identity.key,
                epoch: identity.epoch,
                rules: identity.rules.clone(),
                live_flows: u64::from(identity.key.as_bytes()[0] % 3),
                is_leaving: identity.leaving,
            })
            .collect();
        let mut groups: HashMap<Arc<str>, Vec<SecureHash>> = HashMap::new();
        for identity in &self.identities {
            if let Some(group) = &identity.rules.apart {
                groups.entry(group.clone()).or_default().push(identity.key);
            }
        }
        let view = View { us: name, hosts: &hosts, owners: &owners, held: &held, groups: &groups, even: self.even };
        let round = self.round;
        let moves = self.nodes.iter_mut().find(|node| node.name == *name).unwrap().balancer.tick(&view);
        assert!(moves.len() <= 2 * MOST_AT_ONCE as usize + MOST_PINNED, "a few at a time");
        for Move { key, to, why } in moves {
            let identity = self.identities.iter_mut().find(|identity| identity.key == key).unwrap();
            assert!(identity.owner.as_ref() == Some(name) && !identity.leaving, "only what it runs");
            assert!(to.as_ref() != Some(name) && !draining);
            if why != Why::Pin {
                let given = identity.given.replace(round);
                assert!(given.is_none_or(|given| round - given >= STAY), "given again after {given:?}, at {round}");
            }
            let word = match why {
                Why::Pin => "pin",
                Why::Fit => "fit",
                Why::Share => "share",
            };
            *self.moves.entry(word).or_default() += 1;
            (identity.target, identity.leaving, identity.delay) = (to, true, self.draws.below(2));
        }
        if draining {
            let mine = self.identities.iter_mut().filter(|identity| identity.owner.as_ref() == Some(name));
            mine.for_each(|identity| identity.leaving = true);
        }
    }

    /// What is on its way goes on: it is let go, or taken by the host that it was for, or by another.
    fn go_on(&mut self) {
        for number in 0..self.identities.len() {
            let identity = &mut self.identities[number];
            if identity.delay > 0 {
                identity.delay -= 1;
            } else if identity.leaving {
                (identity.owner, identity.leaving) = (None, false);
                identity.delay = self.draws.below(2);
            } else if identity.owner.is_none() {
                self.take(number);
            }
        }
    }

    fn take(&mut self, number: usize) {
        let hosts = self.hosts();
        let (target, rules) = (self.identities[number].target.take(), self.identities[number].rules.clone());
        let able: Vec<Arc<str>> = hosts
            .iter()
            .filter(|host| host_rules::has_room(host) && host_rules::may_run(&rules, host))
            .map(|host| host.name.clone())
            .filter(|name| !self.nodes.iter().any(|node| node.name == *name && node.broken))
            .collect();
        let taker = match target.filter(|target| able.contains(target)) {
            Some(target) => Some(target),
            None if able.is_empty() => None,
            None => Some(able[self.draws.below(able.len())].clone()),
        };
        if let Some(taker) = taker {
            let identity = &mut self.identities[number];
            (identity.owner, identity.epoch) = (Some(taker), identity.epoch + 1);
        }
    }

    fn rounds(&mut self, rounds: usize) {
        for _ in 0..rounds {
            self.round += 1;
            let mut names: Vec<Arc<str>> = self.nodes.iter().map(|node| node.name.clone()).collect();
            while !names.is_empty() {
                let name = names.swap_remove(self.draws.below(names.len()));
                self.look(&name);
                if self.draws.one_in(2) {
                    self.go_on();
                }
            }
            self.go_on();
        }
    }

    fn moved(&self) -> usize {
        self.moves.values().sum()
    }

    fn moved_for(&self, why: &str) -> usize {
        self.moves.get(why).copied().unwrap_or(0)
    }

    /// Nothing moves any more.
    fn is_still(&mut self, what: &str) {
        let before = self.moved();
        self.rounds(60);
        assert_eq!(self.moved(), before, "{what}: {:?}", self.moves);
    }

    fn loads(&self) -> Vec<u32> {
        self.nodes.iter().map(|node| self.owned(&node.name)).collect()
    }
}

#[test]
fn a_host_that_joins_takes_its_share_and_then_nothing_moves() {
    for (hosts, identities, slots) in [(1, 60, 500), (3, 300, 500), (9, 900, 200), (16, 1_280, 120)] {
        for seed in 0..3 {
            let mut world = World::new(seed, identities);
            (0..hosts).for_each(|number| world.join(&format!("max-{number}"), slots));
            // As the order by which hosts take what is wanted has it: about as many each.
            world.rounds(30);
            world.is_still("before");
            world.join("new", slots);
            // What all lack then, not only the new one: others have come to fewer than a share by chance.
            let share = identities / (hosts + 1);
            let lacking: usize = world.loads().iter().map(|load| share.saturating_sub(*load as usize)).sum();
            world.rounds(150);
            let (loads, moved) = (world.loads(), world.moved());
            let theirs = loads[hosts] as usize;
            assert!((share * 9 / 10..=share * 11 / 10).contains(&theirs), "{hosts}: {theirs} of {share}, {loads:?}");
            assert!(moved <= lacking + lacking / 5 + 2, "{moved} moves for {lacking}, seed {seed}");
            world.is_still("after");
        }
    }
}

#[test]
fn shares_go_by_slots() {
    let mut world = World::new(3, 400);
    world.join("small", 400);
    world.rounds(10);
    world.join("large", 1_200);
    world.rounds(150);
    let loads = world.loads();
    assert!((95..=105).contains(&loads[0]) && loads[0] + loads[1] == 400, "{loads:?}");
    world.is_still("after");
}

#[test]
fn few_identities_are_left_where_they_are() {
    let mut world = World::new(1, 16);
    world.join("a", 500);
    world.rounds(10);
    world.join("b", 500);
    world.is_still("with sixteen nothing would be gained");
}

#[test]
fn identities_that_come_and_go_set_nothing_in_motion() {
    for seed in 0..10 {
        let mut world = World::new(seed, 400);
        ["a", "b", "c", "d"].iter().for_each(|name| world.join(name, 500));
        world.rounds(20);
        let before = world.moved();
        for _ in 0..200 {
            // Some sleep, and wake where the order has it.
            for _ in 0..8 {
                let number = world.draws.below(400);
                let identity = &mut world.identities[number];
                (identity.owner, identity.leaving, identity.given) = (None, false, None);
            }
            world.rounds(1);
        }
        assert_eq!(world.moved(), before, "seed {seed}: {:?}", world.loads());
    }
}

#[test]
fn a_host_that_cannot_run_what_it_is_given_is_left_alone() {
    let mut world = World::new(5, 300);
    ["a", "b"].iter().for_each(|name| world.join(name, 500));
    world.rounds(20);
    world.join("broken", 500);
    world.node("broken").broken = true;
    world.rounds(200);
    let first = world.moved();
    assert!(first > 0 && first <= 300, "{first}");
    world.rounds(400);
    let later = world.moved() - first;
    assert!(later <= first / 2, "it is tried more and more seldom: {first}, and later {later}");
    // Mended, it gets its share.
    world.node("broken").broken = false;
    world.rounds(900);
    assert!(world.owned("broken") >= 85, "{:?}", world.loads());
}

#[test]
fn a_pin_that_changes_moves_the_identity_and_shares_can_be_switched_off() {
    let mut world = World::new(2, 120);
    world.even = false;
    world.join("a", 500);
    world.rounds(10);
    ["b", "c"].iter().for_each(|name| world.join(name, 500));
    world.is_still("shares are off");
    world.identities[0].rules = rules(&["b"], &[], None);
    world.identities[1].rules = rules(&["gone"], &[], None);
    world.identities[2].rules = rules(&[], &["c"], None);
    world.rounds(12);
    let owner = |world: &World, number: usize| world.identities[number].owner.as_deref().map(str::to_owned);
    assert_eq!(owner(&world, 0).as_deref(), Some("b"));
    assert_eq!(owner(&world, 1), None, "nobody else runs it");
    assert_eq!(owner(&world, 2).as_deref(), Some("c"));
    world.is_still("after the moves");
    world.identities[0].rules = rules(&["c"], &[], None);
    world.identities[1].rules = HostRules::default();
    world.rounds(8);
    assert_eq!(owner(&world, 0).as_deref(), Some("c"));
    assert!(owner(&world, 1).is_some());
    // A host that is preferred goes and comes back.
    world.lose("c");
    world.rounds(8);
    assert!(owner(&world, 2).is_some() && owner(&world, 0).is_none());
    world.join("c", 500);
    world.rounds(20);
    assert_eq!([owner(&world, 0), owner(&world, 2)], [Some("c".to_owned()), Some("c".to_owned())]);
    assert_eq!(world.moved_for("share"), 0);
}

#[test]
fn a_group_runs_together_on_one_host_and_apart_on_several() {
    for seed in 0..20 {
        let mut world = World::new(seed, 40);
        for number in 0..5 {
            world.identities[number].rules = rules(&[], &[], Some("notary"));
        }
        world.join("a", 500);
        world.rounds(10);
        assert_eq!(world.owned("a"), 40);
        world.is_still("alone");
        let largest = |world: &World| {
            let on = |node: &Node| {
                let here = |identity: &&Identity| identity.owner.as_ref() == Some(&node.name);
                world.identities[..5].iter().filter(here).count()
            };
            world.nodes.iter().map(on).max().unwrap()
        };
        world.join("b", 500);
        world.rounds(80);
        assert_eq!(largest(&world), 3, "seed {seed}");
        ["c", "d", "e"].iter().for_each(|name| world.join(name, 500));
        world.rounds(150);
        assert_eq!(largest(&world), 1, "seed {seed}");
        assert!(world.moved_for("fit") <= 25, "{:?}", world.moves);
        world.is_still("apart");
        world.lose("c");
        world.rounds(60);
        assert_eq!(largest(&world), 2, "seed {seed}");
        world.is_still("with one less");
    }
}

/// Rules of some identities, hosts that join, are lost and drain, as a seed has it.
fn any_world(seed: u64) {
    let mut world = World::new(seed, 0);
    let count = 50 + world.draws.below(350);
    world.identities = World::new(seed, count).identities;
    for number in 0..count {
        let host = format!("max-{}", world.draws.below(6));
        world.identities[number].rules = match world.draws.below(12) {
            0 => rules(&[&host], &[], None),
            1 => rules(&[&host, "max-0"], &[&host], None),
            2 => rules(&[], &[&host], None),
            3 => rules(&[], &[], Some(["one", "two", "three"][world.draws.below(3)])),
            4 => rules(&[], &[&host], Some("four")),
            _ => HostRules::default(),
        };
    }
    (0..3).for_each(|number| world.join(&format!("max-{number}"), 400));
    world.rounds(40);
    for _ in 0..6 {
        let before = world.moved_for("share");
        let name = format!("max-{}", world.draws.below(6));
        let is_there = world.nodes.iter().any(|node| *node.name == *name);
        match world.draws.below(3) {
            _ if !is_there => {
                let slots = 300 + world.draws.below(300) as u32;
                world.join(&name, slots);
            }
            0 if world.nodes.len() > 2 => world.lose(&name),
            _ => {
                let node = world.node(&name);
                node.draining = !node.draining;
            }
        }
        let rounds = 20 + world.draws.below(60);
        world.rounds(rounds);
        let moved = world.moved_for("share") - before;
        assert!(moved <= count, "{moved} moves of {count} identities for one event, seed {seed}");
    }
    world.nodes.iter_mut().for_each(|node| node.draining = false);
    world.rounds(200);
    world.is_still(&format!("seed {seed}"));
    let hosts = world.hosts();
    for identity in &world.identities {
        let owner = identity.owner.as_deref().map(|owner| hosts.iter().find(|host| *host.name == *owner).unwrap());
        match owner {
            Some(host) => assert!(host_rules::may_run(&identity.rules, host), "seed {seed}"),
            None => assert!(!hosts.iter().any(|host| host_rules::may_run(&identity.rules, host)), "seed {seed}"),
        }
    }
}

#[test]
fn whatever_joins_and_leaves_the_cluster_comes_to_rest() {
    (0..25).for_each(any_world);
}
