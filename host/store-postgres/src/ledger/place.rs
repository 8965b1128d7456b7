//! Where the tables of a ledger lie.

use std::collections::BTreeMap;
use std::fmt;

use maxhost_model::IdentityRow;

use crate::options::Layout;

/// A schema with the tables of a ledger: that of an identity, or the one that all share. It writes as the schema's name,
/// in which there is nothing but a number, so it needs no quoting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Place(Option<IdentityRow>);

impl Place {
    pub(crate) fn of(layout: Layout, identity: IdentityRow) -> Place {
        match layout {
            Layout::Schemas => Place(Some(identity)),
            Layout::Shared => Place(None),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(identity) => write!(f, "maxhost_i{}", identity.0),
            None => f.write_str("maxhost"),
        }
    }
}

/// Things of identities, by where their ledgers lie.
pub(crate) fn by_place<T>(
    layout: Layout,
    things: impl IntoIterator<Item = T>,
    identity: impl Fn(&T) -> IdentityRow,
) -> BTreeMap<Place, Vec<T>> {
    let mut places: BTreeMap<Place, Vec<T>> = BTreeMap::new();
    for thing in things {
        places.entry(Place::of(layout, identity(&thing))).or_default().push(thing);
    }
    places
}
