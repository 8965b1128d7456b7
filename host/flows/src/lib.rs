//! Running flows: the identity actor over journal, store and sandbox.
//!
//! ```text
//!  HostApi ─▶ Host ─▶ IdentityEntry ─command─▶ Actor ─spawn─▶ Activation ─▶ FlowCalls ─▶ Machine
//!   (service)          (directory)          (actor)        (life)    (run)     (journal)
//!                                              ▲                       │ flush
//!                                              └──── route ◀── committer ◀── Unit (units)
//! ```
//!
//! Each folder is a module that begins with what it is for, and knows modules of lower layers only. `docs/architecture.md` has their
//! order, and tells the life of one flow through these files.

mod activation;
pub mod api;
mod base;
mod calls;
mod cluster;
mod commit;
mod delivery;
mod flow;
mod guests;
mod host;
mod identity;
mod ledger;
pub mod options;
mod queries;
mod registry;
mod relay;
mod reporting;
#[cfg(test)]
mod simulation;

pub use api::HostApi;
pub use api::access::{About, Action, Facts, Permission, Rights, Subject};
pub use host::lifecycle::Host;
pub use maxhost_cordapps::CordappRef;
pub use options::{
    ATTACHMENTS, Balancing, COMPILED_CONTRACTS, Cluster, Eviction, HostOptions, HostRules, IdentityLimits,
    IdentitySpec, OperatorEvent, Passphrase,
};
