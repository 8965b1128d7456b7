//! The initiations of an identity that has no room for them. They are in the database; here is whose turn it is. Peers take turns,
//! so one that opens very many sessions delays the others by no more than a fair share.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use maxhost_journal::Initiation;
use prost::Message;

use crate::base::fair_queue::FairQueue;

/// So many are known by number and peer; each takes some hundred bytes. What waits for an identity has such a bound too
/// (`limits.inbound_messages`), so beyond it are those of a host that allows more.
const MOST: usize = 100_000;
/// Those that are in memory as a whole have so many bytes at most, and one. The others are read again in their turn.
const BYTES: usize = 4 << 20;

/// Initiations that wait, in the turns of their peers.
#[derive(Default)]
pub(super) struct WaitingInitiations {
    turns: FairQueue<i64>,
    /// All of `turns`, as far as they are in memory.
    known: HashMap<i64, Option<Initiation>>,
    bytes: usize,
    /// The database may have more than are known.
    more: bool,
}

impl WaitingInitiations {
    pub fn is_empty(&self) -> bool {
        self.turns.is_empty()
    }

    /// Adds one behind those of the same peer, unless it is there. False if there are too many: it is looked for again when half of
    /// them are taken.
    pub fn add(&mut self, id: i64, initiation: Initiation) -> bool {
        if self.turns.len() >= MOST {
            self.more = true;
            return false;
        }
        let Entry::Vacant(free) = self.known.entry(id) else { return true };
        free.insert(None);
        self.turns.push(&initiation.from.as_str().into(), 1, id);
        self.keep(id, initiation);
        true
    }

    /// Whose turn it is, and whether that is in memory as a whole.
    pub fn whose_turn(&mut self) -> Option<(i64, bool)> {
        let (_, id) = self.turns.peek()?;
        Some((*id, self.known.get(id).is_some_and(Option::is_some)))
    }

    /// What was read again of one that waits. It is kept if there is room, or if it is the next one.
    pub fn keep(&mut self, id: i64, initiation: Initiation) {
        let size = initiation.encoded_len();
        let mut is_next = || self.turns.peek().is_some_and(|(_, next)| *next == id);
        let fits = self.bytes.saturating_add(size) <= BYTES;
        if let Some(kept) = self.known.get_mut(&id).filter(|kept| kept.is_none())
            && (fits || is_next())
        {
            self.bytes = self.bytes.saturating_add(size);
            *kept = Some(initiation);
        }
    }

    /// Takes the next one, if it is in memory; else it is forgotten.
    pub fn take(&mut self) -> Option<(i64, Initiation)> {
        let (_, id) = self.turns.pop()?;
        let initiation = self.known.remove(&id)??;
        self.bytes = self.bytes.saturating_sub(initiation.encoded_len());
        Some((id, initiation))
    }

    /// Whether those that found no room here are to be looked for now. It is told once.
    pub fn wants_more(&mut self) -> bool {
        let wants = self.more && self.turns.len() <= MOST / 2;
        self.more &= !wants;
        wants
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn from(peer: &str, payload: usize) -> Initiation {
        let payload = Some(Bytes::from(vec![0; payload]));
        Initiation { from: peer.to_owned(), payload, ..Initiation::default() }
    }

    #[test]
    fn peers_take_turns_whatever_one_of_them_opens() {
        let mut waiting = WaitingInitiations::default();
        for id in 0..500 {
            assert!(waiting.add(id, from("flooding", 10)));
        }
        assert!(waiting.add(7, from("flooding", 10)), "it is there");
        for id in 0..100 {
            assert_eq!(waiting.take().map(|(id, _)| id), Some(id));
        }
        waiting.add(500, from("single", 10));
        waiting.add(501, from("other", 10));
        let next: Vec<i64> = (0..4).filter_map(|_| waiting.take()).map(|(id, _)| id).collect();
        assert_eq!(next, [500, 501, 100, 101]);
        assert_eq!(std::iter::from_fn(|| waiting.take()).count(), 398);
        assert!(waiting.is_empty() && waiting.known.is_empty() && waiting.bytes == 0);
    }

    #[test]
    fn memory_has_as_many_as_it_may_and_the_next_one() {
        let mut waiting = WaitingInitiations::default();
        for id in 0..6 {
            waiting.add(id, from("large", 1 << 20));
        }
        let whole = |waiting: &WaitingInitiations| waiting.known.values().filter(|one| one.is_some()).count();
        assert_eq!(whole(&waiting), 3, "four are a little more than 4 MiB");
        for id in 0..3 {
            assert_eq!(waiting.take().map(|(id, _)| id), Some(id));
        }
        assert_eq!(waiting.whose_turn(), Some((3, false)));
        for id in 3..6 {
            waiting.keep(id, from("large", 5 << 20));
        }
        assert_eq!((waiting.whose_turn(), whole(&waiting)), (Some((3, true)), 1), "the next one in any case");
        waiting.keep(9, from("large", 1));
        assert_eq!(waiting.take().map(|(id, _)| id), Some(3));
        assert_eq!(waiting.take(), None, "what is not in memory is forgotten");
        assert_eq!(waiting.whose_turn(), Some((5, false)));
    }

    #[test]
    fn what_finds_no_room_is_looked_for_when_half_is_taken() {
        let mut waiting = WaitingInitiations::default();
        for id in 0..MOST as i64 {
            assert!(waiting.add(id, from("flooding", 0)));
        }
        assert!(!waiting.add(MOST as i64, from("flooding", 0)) && !waiting.wants_more());
        for _ in 0..MOST / 2 - 1 {
            waiting.take();
        }
        assert!(!waiting.wants_more());
        waiting.take();
        assert!(waiting.wants_more() && !waiting.wants_more());
        assert!(waiting.add(MOST as i64, from("flooding", 0)));
    }
}
