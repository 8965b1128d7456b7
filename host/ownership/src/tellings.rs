//! The order in which open demands are told to the hosts.

use std::collections::{BTreeMap, HashMap};

use maxhost_model::SecureHash;

/// The demands whose identity nobody owns, each with a number that says when it was last to be told. A listener
/// remembers the number of the last one it was told, so what it has to be told next is found without looking at all.
#[derive(Debug, Default)]
pub struct Tellings {
    last: u64,
    by_number: BTreeMap<u64, SecureHash>,
    numbers: HashMap<SecureHash, u64>,
}

impl Tellings {
    /// Tells a demand, or tells it again: it comes after all that were told so far.
    pub fn tell(&mut self, identity: SecureHash) {
        self.withdraw(&identity);
        self.last += 1;
        self.by_number.insert(self.last, identity);
        self.numbers.insert(identity, self.last);
    }

    /// Takes a demand back: it is over, or somebody serves it.
    pub fn withdraw(&mut self, identity: &SecureHash) {
        if let Some(number) = self.numbers.remove(identity) {
            self.by_number.remove(&number);
        }
    }

    /// Takes all back. Numbers go on, so what is told from now on is new to every listener.
    pub fn clear(&mut self) {
        self.by_number.clear();
        self.numbers.clear();
    }

    /// The next demand to tell to a listener that was told everything up to `number`, which is 0 at first.
    #[must_use]
    pub fn after(&self, number: u64) -> Option<(u64, SecureHash)> {
        self.by_number.range(number + 1..).next().map(|(number, identity)| (*number, *identity))
    }

    /// Whether this demand is told at present.
    #[must_use]
    pub fn contains(&self, identity: &SecureHash) -> bool {
        self.numbers.contains_key(identity)
    }

    /// All of them, in the order in which they are told.
    pub fn iter(&self) -> impl Iterator<Item = &SecureHash> {
        self.by_number.values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_is_told_each_once_and_again_when_it_is_told_anew() {
        let [a, b] = [b"a", b"b"].map(|name| SecureHash::of(name));
        let mut tellings = Tellings::default();
        let mut told = 0;
        let mut heard = |tellings: &Tellings| {
            let (number, identity) = tellings.after(told)?;
            told = number;
            Some(identity)
        };
        tellings.tell(a);
        tellings.tell(b);
        assert_eq!([heard(&tellings), heard(&tellings), heard(&tellings)], [Some(a), Some(b), None]);
        tellings.tell(a);
        assert_eq!([heard(&tellings), heard(&tellings)], [Some(a), None]);
        tellings.withdraw(&b);
        assert_eq!((tellings.contains(&b), tellings.iter().count()), (false, 1));
        tellings.clear();
        tellings.tell(b);
        assert_eq!([heard(&tellings), heard(&tellings)], [Some(b), None]);
    }
}
