//! The identity actor: running flows over journal, store and sandbox.

pub mod api;
pub mod options;
