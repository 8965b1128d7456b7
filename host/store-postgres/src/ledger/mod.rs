//! The ledgers of identities: each in the schema of its identity, or all in the shared one.
//!
//! The committer decides operations on ledgers in memory, as it does all others: what a batch changes stands in
//! [`pending`], above what was read for it ([`read`]), and is written in the batch's one statement ([`write`]).

/// Arguments for a statement, in their order.
macro_rules! values {
    ($($value:expr),* $(,)?) => {{
        let mut arguments = PgArguments::default();
        $(add(&mut arguments, $value)?;)*
        arguments
    }};
}

mod key_reader;
mod notary_reader;
pub(crate) mod pending;
pub(crate) mod place;
pub(crate) mod read;
mod reader;
mod rows;
pub(crate) mod tables;
pub(crate) mod write;
