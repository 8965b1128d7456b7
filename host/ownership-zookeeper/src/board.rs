//! A host's own copy of who owns what and what is wanted.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use maxhost_model::SecureHash;
use maxhost_ownership::{Change, Demand, DemandVersion, HostInfo, Owner, Tellings, rendezvous};

use crate::nodes::{DemandData, Key, Node};

/// The copy. It is brought up to date from events, and read again as a whole after each time without a connection.
#[derive(Debug, Default)]
pub(crate) struct Board {
    /// Whether it says how things are, apart from what is on its way.
    pub complete: bool,
    owners: HashMap<Key, Owner>,
    wishes: HashMap<Key, Wish>,
    hosts: HashMap<String, HostInfo>,
    draining: HashSet<String>,
    scheduler: Option<Arc<str>>,
    tellings: Tellings,
    /// Rises whenever demands that were told before must be told again.
    pub round: u64,
}

/// A demand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wish {
    pub data: DemandData,
    pub version: DemandVersion,
}

impl Wish {
    fn forget_message(&mut self) {
        self.data = self.data.clone().with_message(None);
    }
}

/// What a node was found to say.
#[derive(Debug)]
pub(crate) enum Found {
    Owner(Key, Option<Owner>),
    Wish(Key, Option<Wish>),
    Host(String, Option<HostInfo>),
    Draining(String, bool),
    Scheduler(Option<String>),
}

impl Board {
    /// Forgets everything: the connection is gone.
    pub fn clear(&mut self) {
        self.complete = false;
        self.owners.clear();
        self.wishes.clear();
        self.hosts.clear();
        self.draining.clear();
        self.scheduler = None;
        self.tellings.clear();
        self.round += 1;
    }

    /// Everything was read.
    pub fn replace(&mut self, found: Vec<Found>) {
        self.clear();
        let mut changes = Vec::new();
        // Owners first, so that no demand is told that somebody serves.
        let (wishes, others): (Vec<_>, Vec<_>) = found.into_iter().partition(|found| matches!(found, Found::Wish(..)));
        others.into_iter().chain(wishes).for_each(|found| self.put(found, &mut changes));
        self.complete = true;
    }

    /// A node was read; adds what changed by it.
    pub fn put(&mut self, found: Found, changes: &mut Vec<Change>) {
        match found {
            Found::Owner(key, owner) => self.put_owner(key, owner, changes),
            Found::Wish(key, wish) => self.put_wish(key, wish),
            Found::Host(name, Some(info)) => drop(self.hosts.insert(name, info)),
            Found::Host(name, None) => drop(self.hosts.remove(&name)),
            Found::Draining(name, true) => drop(self.draining.insert(name)),
            Found::Draining(name, false) => drop(self.draining.remove(&name)),
            Found::Scheduler(name) => self.scheduler = name.map(Arc::from),
        }
    }

    fn put_owner(&mut self, key: Key, owner: Option<Owner>, changes: &mut Vec<Change>) {
        let former = match &owner {
            Some(owner) => self.owners.insert(key, owner.clone()),
            None => self.owners.remove(&key),
        };
        if former == owner {
            return;
        }
        if let Some(former) = former {
            changes.push(Change::Released(former));
        }
        match owner {
            Some(owner) => {
                self.tellings.withdraw(&owner.identity);
                // What came with the demand was for whoever opens the identity.
                if let Some(wish) = self.wishes.get_mut(&key) {
                    wish.forget_message();
                }
                changes.push(Change::Claimed(owner));
            }
            None => {
                if let Some(wish) = self.wishes.get(&key) {
                    self.tellings.tell(wish.data.identity);
                }
            }
        }
    }

    fn put_wish(&mut self, key: Key, mut wish: Option<Wish>) {
        if self.owners.contains_key(&key) {
            wish.iter_mut().for_each(Wish::forget_message);
        }
        let former = match &wish {
            Some(wish) => self.wishes.insert(key, wish.clone()),
            None => self.wishes.remove(&key),
        };
        match wish {
            Some(wish) if !self.owners.contains_key(&key) && former.as_ref() != Some(&wish) => {
                self.tellings.tell(wish.data.identity);
            }
            Some(_) => {}
            None => {
                if let Some(former) = former {
                    self.tellings.withdraw(&former.data.identity);
                }
            }
        }
    }

    pub fn owner(&self, identity: &SecureHash) -> Option<&Owner> {
        self.owners.get(&Key::of(identity))
    }

    /// What a demand says, and the version of its node.
    pub fn wish(&self, identity: &SecureHash) -> Option<(DemandData, i32)> {
        let wish = self.wishes.get(&Key::of(identity))?;
        // A version of ZooKeeper has 32 bits.
        Some((wish.data.clone(), i32::try_from(wish.version.bumps).ok()?))
    }

    pub fn owners(&self) -> Vec<Owner> {
        self.owners.values().cloned().collect()
    }

    pub fn wanted(&self) -> Vec<SecureHash> {
        self.tellings.iter().copied().collect()
    }

    /// The identities that are wanted, whether somebody owns them or not.
    pub fn demanded(&self) -> Vec<SecureHash> {
        self.wishes.values().map(|wish| wish.data.identity).collect()
    }

    pub fn hosts(&self) -> Vec<HostInfo> {
        let shown = |host: &HostInfo| HostInfo { draining: self.is_draining(&host.name), ..host.clone() };
        let mut hosts: Vec<HostInfo> = self.hosts.values().map(shown).collect();
        hosts.sort_by(|a, b| a.name.cmp(&b.name));
        hosts
    }

    /// Whether the host of this name is to give up what it owns.
    pub fn is_draining(&self, host: &str) -> bool {
        self.draining.contains(host)
    }

    /// The name of the scheduler; `None` if there is none, or nothing is known.
    pub fn scheduler(&self) -> Option<&Arc<str>> {
        self.scheduler.as_ref()
    }

    /// The next demand for a host that was told everything up to `told`, and its number.
    pub fn next_demand(&self, host: &str, told: u64) -> Option<(u64, Demand)> {
        let (number, identity) = self.tellings.after(told)?;
        let wish = self.wishes.get(&Key::of(&identity));
        let target = wish.and_then(|wish| wish.data.target());
        let weights = self.hosts.values().map(|info| (&*info.name, info.free_slots));
        let turn = rendezvous::turn(&identity, host, weights, target)?;
        Some((number, Demand { identity, turn, message: wish.and_then(|wish| wish.data.message()) }))
    }
}

/// A node that is to be looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Look {
    /// It has changed, and has to be read.
    Read(Node),
    /// The last that happened to it is that it was deleted, so there is nothing to read.
    Gone(Node),
}

/// Nodes that have changed, each with whether its last change was its end. Several changes of one node count once, so this is
/// bounded by the number of nodes however fast events come.
#[derive(Debug, Default)]
pub(crate) struct Dirty(HashMap<Node, bool>);

impl Dirty {
    /// Something has happened to the node of this path: it was deleted, or something else. Events of a node come in the order of
    /// what happened, and before any answer that shows it.
    pub fn mark(&mut self, path: &str, is_gone: bool) {
        if let Some(node) = Node::parse(path) {
            self.0.insert(node, is_gone);
        }
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Some of them, at most so many, which is two or more. Owners come before all others, so that a demand is not told
    /// that a claim, already known, has served. One that has gone is followed by its demand: letting an identity go may end the
    /// demand in the same transaction, whose events come one by one, and a demand that has ended must not be told in between. Of an
    /// identity that somebody owns the demand is looked at only if something has happened to it.
    pub fn take(&mut self, most: usize) -> Vec<Look> {
        let owner = |(node, is_gone): (&Node, &bool)| match node {
            Node::Owner(key) => Some((*key, *is_gone)),
            Node::Demand(_) | Node::Host(_) | Node::Draining(_) | Node::Scheduler => None,
        };
        let owners: Vec<(Key, bool)> = self.0.iter().filter_map(owner).take(most / 2).collect();
        let mut taken = Vec::with_capacity(most.min(self.0.len() + owners.len()));
        for (key, is_gone) in &owners {
            taken.extend(self.look_at(Node::Owner(*key)));
            let demand = Node::Demand(*key);
            match self.look_at(demand.clone()) {
                None if *is_gone => taken.push(Look::Read(demand)),
                look => taken.extend(look),
            }
        }
        if taken.is_empty() {
            let others: Vec<Node> = self.0.keys().take(most).cloned().collect();
            taken.extend(others.into_iter().filter_map(|node| self.look_at(node)));
        }
        taken
    }

    fn look_at(&mut self, node: Node) -> Option<Look> {
        self.0.remove(&node).map(|is_gone| if is_gone { Look::Gone(node) } else { Look::Read(node) })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use maxhost_model::{FencingToken, RunId};
    use maxhost_ownership::Roles;

    use super::*;

    fn alice() -> SecureHash {
        SecureHash::of(b"Alice")
    }

    fn wish(bumps: i64) -> Found {
        let data = DemandData::new(alice());
        Found::Wish(Key::of(&alice()), Some(Wish { data, version: DemandVersion { created: 1, bumps } }))
    }

    fn owner(epoch: i64) -> Owner {
        Owner { identity: alice(), host: "a".into(), token: FencingToken { generation: 1, epoch } }
    }

    fn owned(owner: Option<Owner>) -> Found {
        Found::Owner(Key::of(&alice()), owner)
    }

    fn host() -> Found {
        Found::Host(
            "s".to_owned(),
            Some(HostInfo {
                name: "me".into(),
                run: RunId(1),
                free_slots: 3,
                since_ms: 0,
                draining: false,
                roles: Roles::BOTH,
                labels: Arc::default(),
                reach: None,
            }),
        )
    }

    #[test]
    fn a_demand_is_told_while_nobody_serves_it() {
        let mut board = Board::default();
        board.replace(vec![wish(0), owned(Some(owner(5))), host()]);
        assert!(board.complete && board.next_demand("me", 0).is_none());
        // Wanted by somebody and served: there must be room for it all the same.
        assert_eq!((board.wanted(), board.demanded()), (vec![], vec![alice()]));
        let mut changes = Vec::new();
        board.put(wish(1), &mut changes);
        assert!(board.next_demand("me", 0).is_none() && changes.is_empty());
        board.put(owned(None), &mut changes);
        assert_eq!(changes, [Change::Released(owner(5))]);
        let (told, demand) = board.next_demand("me", 0).unwrap();
        assert_eq!(demand.identity, alice());
        assert_eq!((board.wanted(), board.demanded()), (vec![alice()], vec![alice()]));
        board.put(wish(1), &mut changes);
        assert!(board.next_demand("me", told).is_none(), "nothing is new");
        board.put(wish(2), &mut changes);
        assert!(board.next_demand("me", told).is_some());
        board.put(Found::Wish(Key::of(&alice()), None), &mut changes);
        assert!(board.next_demand("me", 0).is_none());
    }

    #[test]
    fn an_owner_that_follows_another_unseen_is_two_changes() {
        let (mut board, mut changes) = (Board::default(), Vec::new());
        board.put(owned(Some(owner(5))), &mut changes);
        board.put(owned(Some(owner(5))), &mut changes);
        board.put(owned(Some(owner(9))), &mut changes);
        let expected = [Change::Claimed(owner(5)), Change::Released(owner(5)), Change::Claimed(owner(9))];
        assert_eq!(changes, expected);
    }

    #[test]
    fn marks_of_one_node_count_once_and_owners_come_first() {
        let mut dirty = Dirty::default();
        let (key, other) = (Key::of(&alice()), Key::of(&SecureHash::of(b"Bob")));
        for _ in 0..1000 {
            dirty.mark(&key.demand_path(), false);
            dirty.mark(&key.owner_path(), false);
            dirty.mark(&other.demand_path(), false);
            dirty.mark("/cluster", false);
        }
        let read = |nodes: &[Node]| nodes.iter().cloned().map(Look::Read).collect::<Vec<_>>();
        assert_eq!(dirty.take(10), read(&[Node::Owner(key), Node::Demand(key)]));
        assert_eq!(dirty.take(10), read(&[Node::Demand(other)]));
        assert!(dirty.is_empty());
    }

    #[test]
    fn what_is_gone_is_not_read_unless_it_is_there_again() {
        let mut dirty = Dirty::default();
        let key = Key::of(&alice());
        dirty.mark(&key.owner_path(), false);
        dirty.mark(&key.owner_path(), true);
        dirty.mark(&key.demand_path(), true);
        assert_eq!(dirty.take(10), [Look::Gone(Node::Owner(key)), Look::Gone(Node::Demand(key))]);
        dirty.mark(&key.owner_path(), true);
        dirty.mark(&key.owner_path(), false);
        // Nothing has happened to the demand of one that is owned.
        assert_eq!(dirty.take(10), [Look::Read(Node::Owner(key))]);
        assert!(dirty.is_empty());
    }

    #[test]
    fn an_owner_that_has_gone_is_followed_by_its_demand() {
        let mut dirty = Dirty::default();
        let key = Key::of(&alice());
        // Of the two events of letting it go, the second has not come yet.
        dirty.mark(&key.owner_path(), true);
        assert_eq!(dirty.take(10), [Look::Gone(Node::Owner(key)), Look::Read(Node::Demand(key))]);
        // Both are found to be gone, and put under one lock.
        let (mut board, mut changes) = (Board::default(), Vec::new());
        board.replace(vec![wish(0), owned(Some(owner(5))), host()]);
        board.put(owned(None), &mut changes);
        board.put(Found::Wish(key, None), &mut changes);
        assert!(board.next_demand("me", 0).is_none());
    }
}
