//! Running flows: the identity actor over journal, store and sandbox.
//!
//! ```text
//!  HostApi ─▶ Host ─▶ IdentityEntry ─mail─▶ Actor ─spawn─▶ Life ─▶ GuestRun ─▶ Machine
//!   (service)          (directory)          (actor)        (life)    (run)     (journal)
//!                                              ▲                       │ flush
//!                                              └──── route ◀── committer ◀── Unit (units)
//! ```
//!
//! `docs/architecture.md` tells the life of one flow through these files.

mod actor;
mod admission;
mod ahead;
pub mod api;
mod apps;
mod bounce;
mod core;
mod directory;
mod ends;
mod envelope;
mod host;
mod life;
mod mail;
pub mod options;
mod port;
mod problems;
mod relay;
mod routes;
mod run;
mod schema;
mod service;
mod threads;
mod timers;
mod units;
mod watch;

pub use api::HostApi;
pub use host::Host;
pub use options::{CordappRef, Eviction, HostOptions, IdentityLimits, IdentitySpec, OperatorEvent, Passphrase};
