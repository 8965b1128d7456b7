//! The rules of vaults: what is recorded, who holds what, how states are selected and found (behaviour.md 12).

pub mod query;
