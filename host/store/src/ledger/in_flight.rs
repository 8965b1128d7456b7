//! Which transactions in flight have a state as an input. Mostly none or one; more if somebody spends it twice, and then it is free
//! when the last of them is settled.

use maxhost_model::SecureHash;

/// Bytes of an id.
const ID: usize = 32;

/// The transactions in flight that a state is an input of, in the order in which they came. A column of the state's row has their
/// ids one after the other.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InFlight(Vec<SecureHash>);

impl InFlight {
    /// So many are noted at most. Who has signed that a state is spent more often than that finds it free when these are settled,
    /// and its notary decides as ever.
    pub const MOST: usize = 16;

    /// From a column; nothing if there is none. `None`: it is damaged.
    #[must_use]
    pub fn from_column(column: Option<&[u8]>) -> Option<InFlight> {
        let bytes = column.unwrap_or_default();
        let ids = bytes.chunks(ID).map(|id| id.try_into().ok().map(SecureHash::from_bytes));
        ids.collect::<Option<Vec<SecureHash>>>().map(InFlight)
    }

    /// For a column.
    #[must_use]
    pub fn column(&self) -> Option<Vec<u8>> {
        let bytes = || self.0.iter().flat_map(|id| id.as_bytes()).copied().collect();
        (!self.0.is_empty()).then(bytes)
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The first of them: the one that is shown.
    #[must_use]
    pub fn first(&self) -> Option<SecureHash> {
        self.0.first().copied()
    }

    /// Notes one.
    pub fn add(&mut self, id: &SecureHash) {
        if self.0.len() < InFlight::MOST && !self.0.contains(id) {
            self.0.push(*id);
        }
    }

    /// One is settled.
    pub fn remove(&mut self, id: &SecureHash) {
        self.0.retain(|one| one != id);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn id(number: u8) -> SecureHash {
        SecureHash::from_bytes([number; ID])
    }

    #[test]
    fn a_column_has_all_that_are_noted_and_no_more_than_are_allowed() {
        let mut marks = InFlight::from_column(None).unwrap();
        assert!(marks.is_empty() && marks.column().is_none() && marks.first().is_none());
        for number in [1, 2, 1] {
            marks.add(&id(number));
        }
        let column = marks.column().unwrap();
        assert_eq!(column, [[1; ID], [2; ID]].concat());
        assert_eq!(InFlight::from_column(Some(&column)).unwrap(), marks);
        assert_eq!(
            InFlight::from_column(Some(&column[..ID])).unwrap().first(),
            Some(id(1)),
            "as former releases wrote it"
        );
        assert!(InFlight::from_column(Some(&column[1..])).is_none(), "it is damaged");
        marks.remove(&id(1));
        marks.remove(&id(9));
        assert_eq!(marks.first(), Some(id(2)));
        for number in 0..100 {
            marks.add(&id(number));
        }
        assert_eq!(marks.column().unwrap().len(), InFlight::MOST * ID);
    }
}
