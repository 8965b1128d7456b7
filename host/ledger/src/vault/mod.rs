//! The rules of vaults: what is recorded, who holds what, how states are selected and found (behaviour.md 12).

pub mod description;
pub mod locks;
pub mod query;
pub mod recording;
pub mod selection;
pub mod update;

#[cfg(test)]
mod recording_tests;
