//! Some states, of which a rule often wants exactly one.

use alloc::format;
use alloc::vec::Vec;
use core::ops::Deref;

use crate::Rejection;

/// A list that knows what its elements are, so that it can say which of them are too many.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Many<T> {
    what: &'static str,
    items: Vec<T>,
}

impl<T> Many<T> {
    pub(crate) fn new(what: &'static str, items: Vec<T>) -> Many<T> {
        Many { what, items }
    }

    /// The only one.
    ///
    /// # Errors
    /// `tx/not-one` if there are none or several.
    pub fn only(self) -> Result<T, Rejection> {
        let (what, count) = (self.what, self.items.len());
        let mut items = self.items.into_iter();
        match (items.next(), items.next()) {
            (Some(one), None) => Ok(one),
            _ => Err(Rejection::with_text(
                "tx/not-one",
                format!("there must be exactly one {what}, and there are {count}"),
            )),
        }
    }

    /// The first; there is at least one.
    ///
    /// # Errors
    /// `tx/none` if there are none.
    pub fn first(&self) -> Result<&T, Rejection> {
        self.items.first().ok_or_else(|| {
            Rejection::with_text("tx/none", format!("there must be at least one {}, and there is none", self.what))
        })
    }

    /// All of them.
    #[must_use]
    pub fn into_vec(self) -> Vec<T> {
        self.items
    }
}

impl<T> Deref for Many<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.items
    }
}

impl<T> IntoIterator for Many<T> {
    type Item = T;
    type IntoIter = alloc::vec::IntoIter<T>;

    fn into_iter(self) -> Self::IntoIter {
        self.items.into_iter()
    }
}

impl<'a, T> IntoIterator for &'a Many<T> {
    type Item = &'a T;
    type IntoIter = core::slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.items.iter()
    }
}
