//! What the rows of the host's database say, whichever SQL database gives them.
//!
//! A crate that implements a database writes its own statements; what a row of theirs says is read here, once for all of
//! them. So a statement gives the columns that the reader names, in that order and in these types: whole numbers of 64 bits,
//! truths, texts and bytes. Which database it is, nothing here knows.
//!
//! Layer 4.

pub mod columns;
pub mod host;
pub mod ledger;

use maxhost_store::PAGE_BYTES;

/// [`PAGE_BYTES`] as a parameter of a statement.
#[must_use]
pub fn page_bytes() -> i64 {
    i64::try_from(PAGE_BYTES).unwrap_or(i64::MAX)
}
