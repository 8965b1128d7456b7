//! Which key may take the place of another in a signature constraint (behaviour.md 10.16).

use maxhost_model::PublicKey;

use crate::keys::CompositeKey;

/// A key with its parts, and where each stands among the successions of publishers' keys: read once, because a transaction may have
/// many constraints on both sides.
#[derive(Debug)]
pub struct KeyInSuccession {
    /// The key, where it is a plain one, or one that cannot be read.
    plain: Option<(PublicKey, Option<Place>)>,
    threshold: u32,
    /// Its parts with their weights.
    parts: Vec<(u32, KeyInSuccession)>,
}

/// Which list, and where in it: the oldest key comes first.
#[derive(Debug, Clone, Copy)]
struct Place {
    list: usize,
    at: usize,
}

impl Place {
    fn of(key: &PublicKey, successions: &[Vec<PublicKey>]) -> Option<Place> {
        successions.iter().enumerate().find_map(|(list, keys)| {
            let at = keys.iter().position(|one| one == key)?;
            Some(Place { list, at })
        })
    }
}

impl KeyInSuccession {
    /// Reads a key. Successions are lists, oldest first, of which no two have one key.
    #[must_use]
    pub fn read(key: &PublicKey, successions: &[Vec<PublicKey>]) -> KeyInSuccession {
        match CompositeKey::from_public_key(key) {
            Ok(composite) => KeyInSuccession {
                plain: None,
                threshold: composite.threshold(),
                parts: composite
                    .children()
                    .iter()
                    .map(|part| (part.weight, Self::read(&part.key, successions)))
                    .collect(),
            },
            Err(_) => KeyInSuccession {
                plain: Some((key.clone(), Place::of(key, successions))),
                threshold: 0,
                parts: Vec::new(),
            },
        }
    }

    /// Whether this key is another one, or its successor; of composite keys, whether each part is that of the other one or its
    /// successor, with the same weight. A key that was replaced takes nobody's place: it may have been replaced because it was
    /// stolen, and a state that has left it would be its thief's again.
    #[must_use]
    pub fn takes_place_of(&self, older: &KeyInSuccession) -> bool {
        match (&self.plain, &older.plain) {
            (Some((key, place)), Some((old, former))) => {
                let succeeds = |(place, former): (Place, Place)| place.list == former.list && place.at >= former.at;
                key == old || place.zip(*former).is_some_and(succeeds)
            }
            (None, None) => {
                self.threshold == older.threshold && self.parts.len() == older.parts.len() && self.parts_fit(older)
            }
            _ => false,
        }
    }

    /// Whether there is another part here for each of the older key. What fits one may be needed for another, so who has a part
    /// already takes another one if he can.
    fn parts_fit(&self, older: &KeyInSuccession) -> bool {
        let fitting = |(weight, old): &(u32, KeyInSuccession)| {
            let fits = |(_, part): &(usize, &(u32, KeyInSuccession))| part.0 == *weight && part.1.takes_place_of(old);
            self.parts.iter().enumerate().filter(fits).map(|(at, _)| at).collect::<Vec<usize>>()
        };
        let fitting: Vec<Vec<usize>> = older.parts.iter().map(fitting).collect();
        let mut taken = vec![None; self.parts.len()];
        (0..fitting.len()).all(|old| takes_one(old, &fitting, &mut taken, &mut vec![false; self.parts.len()]))
    }
}

/// Gives a part to an older one, and another to whoever has it, if need be. `seen`: parts that were looked at for it.
fn takes_one(old: usize, fitting: &[Vec<usize>], taken: &mut [Option<usize>], seen: &mut [bool]) -> bool {
    for part in &fitting[old] {
        if std::mem::replace(&mut seen[*part], true) {
            continue;
        }
        if taken[*part].is_none_or(|other| takes_one(other, fitting, taken, seen)) {
            taken[*part] = Some(old);
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::fixtures::key;
    use crate::keys::WeightedKey;

    fn composite(parts: &[(u8, u32)], threshold: u32) -> PublicKey {
        of(&parts.iter().map(|(byte, weight)| (key(*byte), *weight)).collect::<Vec<_>>(), threshold)
    }

    fn of(parts: &[(PublicKey, u32)], threshold: u32) -> PublicKey {
        let parts = parts.iter().map(|(key, weight)| WeightedKey { key: key.clone(), weight: *weight });
        CompositeKey::build(parts.collect(), Some(threshold)).unwrap()
    }

    #[test]
    fn a_successor_takes_the_place_of_a_key_and_never_the_other_way() {
        let lists = [vec![key(1), key(2), key(3)], vec![key(4), key(5)]];
        let takes = |newer: &PublicKey, older: &PublicKey| {
            KeyInSuccession::read(newer, &lists).takes_place_of(&KeyInSuccession::read(older, &lists))
        };
        assert!(
            takes(&key(1), &key(1)) && takes(&key(2), &key(1)) && takes(&key(3), &key(1)) && takes(&key(9), &key(9))
        );
        assert!(
            !takes(&key(1), &key(2))
                && !takes(&key(5), &key(1))
                && !takes(&key(9), &key(1))
                && !takes(&key(1), &key(9))
        );

        let both = |one, other| composite(&[(one, 1), (other, 1)], 2);
        assert!(takes(&both(2, 5), &both(1, 4)) && takes(&both(5, 1), &both(1, 4)));
        assert!(!takes(&both(1, 5), &both(2, 4)), "one part goes back");
        assert!(!takes(&both(2, 9), &both(1, 4)) && !takes(&both(2, 4), &key(1)) && !takes(&key(2), &both(1, 4)));
        // The part that fits both is left to the one that needs it.
        assert!(takes(&both(1, 3), &both(1, 2)) && takes(&both(2, 3), &both(1, 2)) && takes(&both(2, 3), &both(1, 3)));
        assert!(!takes(&both(1, 2), &both(1, 3)) && !takes(&both(1, 3), &both(2, 3)));
        // Weights and the threshold stay.
        let weighed = |one, other, threshold| composite(&[(one, 2), (other, 1)], threshold);
        assert!(takes(&weighed(2, 5, 2), &weighed(1, 4, 2)));
        assert!(!takes(&weighed(5, 2, 2), &weighed(1, 4, 2)) && !takes(&weighed(2, 5, 3), &weighed(1, 4, 2)));
        assert!(!takes(&weighed(2, 1, 2), &weighed(1, 2, 2)), "who has the weight is another");
        // The same within a part: what one part gains does not make up for what another one loses.
        let either = |one: u8, other: u8| composite(&[(one, 1), (other, 1)], 1);
        let nested = |one: u8, other: u8| of(&[(either(one, 7), 1), (either(other, 8), 1)], 2);
        assert!(takes(&nested(2, 3), &nested(1, 2)) && takes(&nested(2, 3), &nested(2, 1)));
        assert!(!takes(&nested(2, 1), &nested(1, 2)) && !takes(&nested(1, 3), &nested(2, 1)));
    }
}
