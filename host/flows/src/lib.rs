//! Running flows: the identity actor over journal, store and sandbox.
//!
//! ```text
//!  HostApi ─▶ Host ─▶ IdentityEntry ─command─▶ Actor ─spawn─▶ Activation ─▶ FlowCalls ─▶ Machine
//!   (service)          (directory)          (actor)        (life)    (run)     (journal)
//!                                              ▲                       │ flush
//!                                              └──── route ◀── committer ◀── Unit (units)
//! ```
//!
//! `docs/architecture.md` tells the life of one flow through these files.

mod access;
mod activation;
mod admission;
pub mod api;
mod arrival;
mod asked_for;
mod audit;
mod balance;
mod balancing;
mod calls;
mod candidates;
mod clock;
mod commit_tracker;
mod committer;
mod contracts;
mod counters;
mod deadlines;
mod directory;
mod envelope;
mod error;
mod events;
mod fair_queue;
mod flow_code;
mod guest_jobs;
mod guest_threads;
mod host;
mod host_rules;
mod hosting;
mod housekeeping;
mod identity;
mod in_hospital;
mod inbox;
mod keys;
mod late_confirm;
mod ledger_waits;
mod marks;
mod membership;
mod memory;
mod message;
mod notary_queue;
mod offer;
mod oldest;
mod opened;
pub mod options;
mod outbox_notices;
mod outcomes;
mod parameters;
mod parties;
mod parts;
mod placement;
mod queries;
mod random;
mod reach;
mod readmission;
mod registry;
mod relay;
mod resolving;
mod results_read;
mod retry;
mod router;
mod rules;
mod running_flow;
mod scheduler;
mod shared_code;
mod signals;
#[cfg(test)]
mod simulation;
mod spawner;
mod speculation;
mod standing_back;
mod status;
mod supervisor;
mod sync;
mod timers;
mod trouble;
mod turns;
mod unit;
mod waking;
mod watchers;

pub use access::{About, Action, Facts, Permission, Rights, Subject};
pub use api::HostApi;
pub use host::Host;
pub use maxhost_cordapps::CordappRef;
pub use options::{
    ATTACHMENTS, Balancing, Cluster, Eviction, HostOptions, HostRules, IdentityLimits, IdentitySpec, OperatorEvent,
    Passphrase,
};
