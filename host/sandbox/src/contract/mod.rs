//! Contracts: pure code that judges transactions (behaviour.md 10.20).
//!
//! ```text
//!   file ──▶ signatures   who signed which code          (maxhost_ledger::attachment)
//!        ──▶ profile      what it is made of              (profile.rs: refuses before anything is compiled)
//!        ──▶ count calls  how deep they are nested is no matter of the stack (depth.rs)
//!        ──▶ compile      or take machine code from disk  (engine.rs, ../code_cache.rs)
//!        ──▶ describe     contracts, types, commands      (descriptor.rs)
//!        ──▶ ContractComponent ──▶ verify, describe       (instance.rs: a fresh instance each time)
//! ```
//!
//! A contract imports nothing, so there is nothing it could ask: it sees the transaction, and that is all. What it may use
//! is counted in fuel and bytes, which are the same everywhere; what depends on the host (its clock, its stack, its memory)
//! never decides anything, it is a [`LocalError`].

mod bindings;
mod component;
mod depth;
mod description;
mod descriptor;
mod engine;
mod fuel;
mod instance;
mod profile;
mod settings;
mod slots;
mod to_verify;
mod verdict;

pub use component::ContractComponent;
pub use descriptor::{AttributeKind, AttributeType, ContractDescriptor, ContractType, FaultType, StateType};
pub use engine::ContractEngine;
pub use fuel::operator_cost_hash;
pub use profile::check_profile;
pub use settings::EngineSettings;
pub use to_verify::{Attached, ToVerify};
pub use verdict::{ContractFault, LocalError, Usage, Verdict, Verification};
