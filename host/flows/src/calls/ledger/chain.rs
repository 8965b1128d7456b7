//! A back-chain while it is got: which transactions it has, which of them are here, and in which order they are verified. Of
//! a transaction this keeps its id and places of those whose states it names, and nothing of its body.

use std::collections::{HashMap, VecDeque};

use maxhost_model::SecureHash;

/// The transactions of one back-chain, each with its stage, and the queue of those that have to be asked for.
#[derive(Debug, Default)]
pub(super) struct Chain {
    links: Vec<Link>,
    places: HashMap<SecureHash, u32>,
    wanted: VecDeque<u32>,
}

#[derive(Debug)]
struct Link {
    id: SecureHash,
    stage: Stage,
    parents: Box<[u32]>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// It is not here.
    Wanted,
    /// Its body is in the database, unverified.
    Here,
    /// It is part of the ledger.
    Verified,
}

impl Chain {
    /// These are needed. One that is known already is not wanted again.
    pub fn want(&mut self, ids: impl IntoIterator<Item = SecureHash>) {
        for id in ids {
            self.place(id);
        }
    }

    fn place(&mut self, id: SecureHash) -> u32 {
        let next = u32::try_from(self.links.len()).unwrap_or(u32::MAX);
        let place = *self.places.entry(id).or_insert(next);
        if place == next {
            self.links.push(Link { id, stage: Stage::Wanted, parents: Box::default() });
            self.wanted.push_back(place);
        }
        place
    }

    fn link(&mut self, id: &SecureHash) -> Option<&mut Link> {
        let place = *self.places.get(id)?;
        self.links.get_mut(place as usize)
    }

    /// How many transactions there are, as far as they are known.
    pub fn len(&self) -> usize {
        self.links.len()
    }

    /// The next that are wanted, at most so many. They stay wanted.
    pub fn next(&mut self, most: usize) -> Vec<SecureHash> {
        let links = &self.links;
        let is_wanted = |place: &u32| links.get(*place as usize).is_some_and(|link| link.stage == Stage::Wanted);
        while self.wanted.front().is_some_and(|place| !is_wanted(place)) {
            self.wanted.pop_front();
        }
        let next = self.wanted.iter().filter(|place| is_wanted(place)).take(most);
        next.filter_map(|place| self.links.get(*place as usize)).map(|link| link.id).collect()
    }

    /// The body of a transaction is here; those that it names are needed.
    pub fn take(&mut self, id: SecureHash, parents: impl IntoIterator<Item = SecureHash>) {
        self.place(id);
        let parents: Box<[u32]> = parents.into_iter().map(|parent| self.place(parent)).collect();
        if let Some(link) = self.link(&id).filter(|link| link.stage != Stage::Verified) {
            link.parents = parents;
            link.stage = Stage::Here;
        }
    }

    /// A transaction is part of the ledger.
    pub fn is_verified(&mut self, id: &SecureHash) {
        if let Some(link) = self.link(id) {
            link.stage = Stage::Verified;
        }
    }

    /// A transaction is not here any more.
    pub fn is_lost(&mut self, id: &SecureHash) {
        let Some(place) = self.places.get(id).copied() else { return };
        if let Some(link) = self.links.get_mut(place as usize) {
            link.stage = Stage::Wanted;
            self.wanted.push_back(place);
        }
    }

    /// Whether it is a part of the chain, and verified.
    pub fn has_verified(&self, id: &SecureHash) -> bool {
        let link = self.places.get(id).and_then(|place| self.links.get(*place as usize));
        link.is_some_and(|link| link.stage == Stage::Verified)
    }

    /// Those that are here and not verified.
    pub fn unverified(&self) -> Vec<SecureHash> {
        self.links.iter().filter(|link| link.stage == Stage::Here).map(|link| link.id).collect()
    }

    /// Those that are here and not verified, each behind those of them that it names; `None` if there is a circle.
    pub fn oldest_first(&self) -> Option<Vec<SecureHash>> {
        let is_here = |place: u32| self.links.get(place as usize).is_some_and(|link| link.stage == Stage::Here);
        let here: Vec<u32> = (0..).take(self.links.len()).filter(|place| is_here(*place)).collect();
        let parents_of = |place: u32| self.links.get(place as usize).into_iter().flat_map(|link| link.parents.iter());
        // For each how many it waits for; its children stand in one list, from a start on.
        let mut waiting = vec![0_u32; self.links.len()];
        let mut starts = vec![0_u32; self.links.len() + 1];
        for place in &here {
            for parent in parents_of(*place).filter(|parent| is_here(**parent)) {
                waiting[*place as usize] += 1;
                starts[*parent as usize + 1] += 1;
            }
        }
        for place in 1..starts.len() {
            starts[place] += starts[place - 1];
        }
        let mut children = vec![0_u32; starts.last().map_or(0, |total| *total as usize)];
        let mut filled = starts.clone();
        for place in &here {
            for parent in parents_of(*place).filter(|parent| is_here(**parent)) {
                let at = &mut filled[*parent as usize];
                children[*at as usize] = *place;
                *at += 1;
            }
        }
        let mut ready: VecDeque<u32> =
            here.iter().rev().copied().filter(|place| waiting[*place as usize] == 0).collect();
        let mut order = Vec::with_capacity(here.len());
        while let Some(place) = ready.pop_front() {
            order.push(self.links[place as usize].id);
            for child in &children[starts[place as usize] as usize..starts[place as usize + 1] as usize] {
                let left = &mut waiting[*child as usize];
                *left -= 1;
                if *left == 0 {
                    ready.push_back(*child);
                }
            }
        }
        (order.len() == here.len()).then_some(order)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u32) -> SecureHash {
        SecureHash::of(&number.to_be_bytes())
    }

    fn chain(links: &[(u32, &[u32])]) -> Chain {
        let mut chain = Chain::default();
        for (one, parents) in links {
            chain.take(id(*one), parents.iter().map(|parent| id(*parent)));
        }
        chain
    }

    #[test]
    fn ancestors_come_first_and_circles_are_found() {
        let ids = |numbers: &[u32]| numbers.iter().map(|number| id(*number)).collect::<Vec<_>>();
        assert_eq!(chain(&[(3, &[2, 1]), (2, &[1]), (1, &[])]).oldest_first(), Some(ids(&[1, 2, 3])));
        assert_eq!(chain(&[(1, &[2]), (2, &[1])]).oldest_first(), None);
        assert_eq!(chain(&[]).oldest_first(), Some(vec![]));
        let mut part = chain(&[(3, &[2]), (2, &[1, 9])]);
        part.is_verified(&id(2));
        assert_eq!(part.oldest_first(), Some(ids(&[3])), "what is verified is waited for by nobody");
    }

    #[test]
    fn a_transaction_is_wanted_until_it_is_here_or_verified() {
        let mut chain = chain(&[(5, &[4, 3])]);
        assert_eq!(chain.next(10), [id(4), id(3)]);
        assert_eq!(chain.next(1), [id(4)]);
        chain.is_verified(&id(3));
        chain.take(id(4), [id(3), id(2)]);
        assert_eq!(chain.next(10), [id(2)]);
        chain.take(id(2), []);
        assert!(chain.next(10).is_empty() && chain.has_verified(&id(3)) && !chain.has_verified(&id(4)));
        chain.is_lost(&id(2));
        assert_eq!(chain.next(10), [id(2)]);
        chain.take(id(2), []);
        assert_eq!(chain.oldest_first(), Some(vec![id(2), id(4), id(5)]));
        assert_eq!(chain.len(), 4);
    }

    #[test]
    fn a_long_chain_is_sorted_in_one_go() {
        let mut chain = Chain::default();
        for number in (1..=50_000_u32).rev() {
            chain.take(id(number), [id(number - 1), id(number.saturating_sub(7))]);
        }
        chain.is_verified(&id(0));
        let order = chain.oldest_first().unwrap_or_default();
        assert_eq!((order.len(), order.first(), order.last()), (50_000, Some(&id(1)), Some(&id(50_000))));
    }
}
