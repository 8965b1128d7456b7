//! The sandbox against real guests: a component made without the SDK (`tests/guest`), and hand-made ones.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod abuse;
mod contract_wat;
mod contracts;
mod load;
mod profile;
mod runs;
mod support;
