//! Finding an identity by a part of its name.

use crate::x500::X500Name;

/// What a user wrote to name an identity: a whole X.500 name, or any part of one, whatever its case.
#[derive(Debug, Clone)]
pub struct NameQuery {
    whole: Option<X500Name>,
    folded: String,
}

/// What a query fits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// No name.
    Nobody,
    /// Exactly one.
    One(X500Name),
    /// More than one, in order.
    Several(Vec<X500Name>),
}

impl NameQuery {
    /// Prepares a query, to be held against many names.
    #[must_use]
    pub fn new(query: &str) -> NameQuery {
        NameQuery { whole: X500Name::parse(query).ok(), folded: query.trim().to_lowercase() }
    }

    /// The name, if the query is a whole one: it can be looked up, and no other name fits.
    #[must_use]
    pub fn whole(&self) -> Option<&X500Name> {
        self.whole.as_ref()
    }

    /// Whether the query fits this name. A whole name fits itself only; anything else fits if the canonical text, and
    /// so any of its values, contains it.
    #[must_use]
    pub fn matches(&self, name: &X500Name) -> bool {
        match &self.whole {
            Some(whole) => whole == name,
            None => name.as_str().to_lowercase().contains(&self.folded),
        }
    }

    /// The one name that fits, as commands demand it.
    #[must_use]
    pub fn pick<'a>(&self, names: impl IntoIterator<Item = &'a X500Name>) -> Found {
        let mut fitting: Vec<X500Name> = names.into_iter().filter(|name| self.matches(name)).cloned().collect();
        fitting.sort();
        fitting.dedup();
        match fitting.len() {
            0 => Found::Nobody,
            1 => fitting.pop().map_or(Found::Nobody, Found::One),
            _ => Found::Several(fitting),
        }
    }
}

/// Corda's `partiesFromName` (docs/behaviour.md 7.4): `exact` asks that a value equals the query; otherwise a value contains it,
/// whatever its case.
#[must_use]
pub fn has_component(name: &X500Name, query: &str, exact: bool) -> bool {
    if exact {
        return name.attributes().any(|(_, value)| value == query);
    }
    let folded = query.to_lowercase();
    name.attributes().any(|(_, value)| value.to_lowercase().contains(&folded))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn names() -> Vec<X500Name> {
        ["O=Alice, L=London, C=GB", "O=Alice Bank, L=Paris, C=FR", "O=Bob, L=New York, C=US"]
            .map(|text| X500Name::parse(text).unwrap())
            .into()
    }

    #[test]
    fn a_part_or_a_whole_name_picks_one() {
        let names = names();
        assert_eq!(NameQuery::new("bob").pick(&names), Found::One(names[2].clone()));
        assert_eq!(NameQuery::new("c=GB,l=London,o=Alice").pick(&names), Found::One(names[0].clone()));
        assert_eq!(NameQuery::new("O=Alice,").pick(&names), Found::One(names[0].clone()));
        assert_eq!(NameQuery::new("alice").pick(&names), Found::Several(names[..2].to_vec()));
        assert_eq!(NameQuery::new("O=Alice, L=Rome, C=IT").pick(&names), Found::Nobody);
        assert_eq!(NameQuery::new("Carol").pick(&names), Found::Nobody);
    }

    #[test]
    fn parties_from_name_looks_at_values() {
        let alice = &names()[0];
        assert!(has_component(alice, "Alice", true));
        assert!(has_component(alice, "GB", true));
        assert!(!has_component(alice, "alice", true));
        assert!(has_component(alice, "LOND", false));
        assert!(!has_component(alice, "O=Alice", false));
    }
}
