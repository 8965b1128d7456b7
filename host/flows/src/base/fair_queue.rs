//! A queue whose users take turns: whoever puts much into it delays the others by no more than a fair share.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

/// What waits, in a lane for each user. Things of one user keep their order. Each thing has a cost, and the next one is of the user
/// who has been served least: a user who comes when others have been served for long begins where they are now, so nothing is
/// saved up. A lane that has become empty stays until the others have caught up with it, so that nobody gets more by asking for one
/// thing at a time. With a cost of one each, users take turns one by one.
#[derive(Debug)]
pub(crate) struct FairQueue<T> {
    lanes: HashMap<Arc<str>, Lane<T>>,
    /// All lanes, by their [`Turn`].
    turns: BTreeSet<(Turn, Arc<str>)>,
    /// How much whoever was served last had been served before.
    now: u64,
    /// Counts turns that were given out.
    given: u64,
    len: usize,
}

/// How much a lane has been served, and then since when it has waited.
type Turn = (u64, u64);

#[derive(Debug)]
struct Lane<T> {
    waiting: VecDeque<(u64, T)>,
    turn: Turn,
}

impl<T> Default for FairQueue<T> {
    fn default() -> FairQueue<T> {
        FairQueue { lanes: HashMap::new(), turns: BTreeSet::new(), now: 0, given: 0, len: 0 }
    }
}

impl<T> FairQueue<T> {
    /// How many things wait.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds a thing behind those of the same user. A cost of nothing counts as one.
    pub fn push(&mut self, user: &Arc<str>, cost: u64, thing: T) {
        let served = match self.lanes.get(user) {
            Some(lane) if !lane.waiting.is_empty() => None,
            Some(lane) => Some(lane.turn.0.max(self.now)),
            None => Some(self.now),
        };
        if let Some(served) = served {
            self.give_turn(user, served);
        }
        if let Some(lane) = self.lanes.get_mut(user) {
            lane.waiting.push_back((cost.max(1), thing));
            self.len += 1;
        }
    }

    /// The next thing, and whose it is.
    pub fn peek(&mut self) -> Option<(&Arc<str>, &T)> {
        let user = self.next_user()?;
        let (user, lane) = self.lanes.get_key_value(&user)?;
        lane.waiting.front().map(|(_, thing)| (user, thing))
    }

    /// Takes the next thing.
    pub fn pop(&mut self) -> Option<(Arc<str>, T)> {
        let user = self.next_user()?;
        let lane = self.lanes.get_mut(&user)?;
        let (cost, thing) = lane.waiting.pop_front()?;
        let served = lane.turn.0;
        self.now = served;
        self.len -= 1;
        match self.len {
            // Nobody waits, so nobody has been kept waiting.
            0 => self.clear(),
            _ => self.give_turn(&user, served.saturating_add(cost)),
        }
        Some((user, thing))
    }

    /// Takes everything out.
    pub fn clear(&mut self) {
        *self = FairQueue::default();
    }

    /// Whose turn it is. Lanes on the way there that are empty are forgotten: everybody has caught up with them.
    fn next_user(&mut self) -> Option<Arc<str>> {
        while let Some((_, user)) = self.turns.first() {
            if self.lanes.get(user).is_some_and(|lane| !lane.waiting.is_empty()) {
                return Some(user.clone());
            }
            if let Some((_, user)) = self.turns.pop_first() {
                self.lanes.remove(&user);
            }
        }
        None
    }

    fn give_turn(&mut self, user: &Arc<str>, served: u64) {
        let turn = (served, self.given);
        self.given += 1;
        match self.lanes.get_mut(user) {
            Some(lane) => {
                self.turns.remove(&(lane.turn, user.clone()));
                lane.turn = turn;
            }
            None => drop(self.lanes.insert(user.clone(), Lane { waiting: VecDeque::new(), turn })),
        }
        self.turns.insert((turn, user.clone()));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn queue(of: &[(&str, u64)]) -> FairQueue<usize> {
        let mut queue = FairQueue::default();
        for (number, (user, cost)) in of.iter().enumerate() {
            queue.push(&Arc::from(*user), *cost, number);
        }
        queue
    }

    fn users(queue: &mut FairQueue<usize>) -> String {
        std::iter::from_fn(|| queue.pop()).map(|(user, _)| user.to_string()).collect()
    }

    #[test]
    fn users_take_turns_and_each_keeps_its_order() {
        let mut of = vec![("a", 1); 6];
        of.extend([("b", 1), ("c", 1), ("b", 1)]);
        let mut fair = queue(&of);
        assert_eq!(fair.len(), 9);
        assert_eq!(fair.peek().map(|(user, number)| (user.to_string(), *number)), Some(("a".to_owned(), 0)));
        let order: Vec<usize> = std::iter::from_fn(|| fair.pop()).map(|(_, number)| number).collect();
        assert_eq!(order, [0, 6, 7, 1, 8, 2, 3, 4, 5]);
        assert!(fair.is_empty() && fair.peek().is_none() && fair.lanes.is_empty() && fair.turns.is_empty());
    }

    #[test]
    fn whoever_comes_late_is_next_and_saves_nothing_up() {
        let mut fair = queue(&[("a", 1); 100]);
        (0..50).for_each(|_| drop(fair.pop()));
        (0..4).for_each(|_| fair.push(&Arc::from("b"), 1, 0));
        let order = users(&mut fair);
        assert_eq!(&order[..9], "babababaa", "{order}");
    }

    #[test]
    fn what_costs_much_is_paid_for_with_turns() {
        let mut of = vec![("a", 10); 3];
        of.extend([("b", 1); 12]);
        assert_eq!(users(&mut queue(&of)), "abbbbbbbbbbabba");
        // One at a time is no way around it: the lane is empty, and not forgotten.
        let mut fair = queue(&[("a", 10), ("b", 1), ("b", 1), ("b", 1)]);
        assert_eq!(fair.pop().map(|(user, _)| user.to_string()).as_deref(), Some("a"));
        fair.push(&Arc::from("a"), 10, 9);
        assert_eq!(users(&mut fair), "bbba");
        // Nor does it last for longer than somebody waits.
        let mut fair = queue(&[("a", 1_000_000), ("b", 1)]);
        assert_eq!(users(&mut fair), "ab");
        fair.push(&Arc::from("a"), 1, 0);
        fair.push(&Arc::from("b"), 1, 0);
        assert_eq!(users(&mut fair), "ab");
    }

    /// Whatever came before: from when somebody waits until he is served, no other is served more than once and what one thing
    /// costs beyond him.
    #[test]
    fn nobody_waits_for_more_than_a_fair_share() {
        let mut state = 7_u64;
        let mut random = move |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        let (mut fair, mut waits) = (FairQueue::default(), BTreeMap::<String, BTreeMap<String, u64>>::new());
        for step in 0..20_000 {
            let user = ["a", "a", "a", "b", "c"][random(5) as usize];
            if random(100) < 48 {
                let cost = if user == "a" { 1 + random(20) } else { 1 };
                fair.push(&Arc::from(user), cost, cost as usize);
                waits.entry(user.to_owned()).or_default();
            } else if let Some((user, cost)) = fair.pop() {
                let is_left = fair.lanes.get(&user).is_some_and(|lane| !lane.waiting.is_empty());
                waits.remove(&*user);
                for (waiting, served) in &mut waits {
                    let served = served.entry(user.to_string()).or_default();
                    *served += cost as u64;
                    assert!(*served <= 41, "step {step}: {waiting} waits while {user} got {served}");
                }
                if is_left {
                    waits.insert(user.to_string(), BTreeMap::new());
                }
            }
        }
        assert!(fair.len() < 20_000);
    }
}
