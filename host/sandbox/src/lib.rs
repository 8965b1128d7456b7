//! Runs CorDapps: compiles components, caches the machine code, and gives every flow run an instance of its own.
//!
//! ```text
//!   bytes ──▶ shape       which world, which imports        (component_shape.rs: refuses before anything is compiled)
//!         ──▶ compile     or take machine code from disk    (machine_code.rs, code_cache.rs)
//!         ──▶ link        our imports and WASI's            (calls.rs, wasi.rs)
//!         ──▶ describe    names, versions, schemas          (descriptor.rs)
//!         ──▶ FlowComponent ──▶ run, run, run               (component.rs, state.rs, outcome.rs)
//! ```
//!
//! A guest computes on a fiber of its own: a call that waits suspends the fiber, not a thread. The epoch of the engine
//! is raised every few milliseconds while there are guests (ticker.rs); a guest that computes that long yields to its neighbours, and one that computes
//! longer than its budget ends. Linear memory is granted up to the run's limit and not a page more. Nothing is shared
//! between two runs but machine code.
//!
//! # WASI
//!
//! A guest imports WASI 0.2 even when it never prints, and guests of some languages import its files and sockets even
//! when they never open any. All of it is there, by `wasmtime-wasi`, with nothing of the machine behind it; time,
//! randomness and waiting are the flow's own (`wasi.rs`).

mod argument_schema;
mod bindings;
mod calls;
mod code_cache;
mod component;
mod component_shape;
pub mod contract;
mod descriptor;
mod engine;
mod erased;
mod error;
pub mod host;
mod key_calls;
mod ledger;
mod ledger_calls;
mod machine_code;
mod outcome;
mod output;
mod pace;
mod party;
mod recording;
mod recording_calls;
mod sandbox;
mod state;
mod thread_time;
mod ticker;
mod waiting_calls;
mod wasi;

use std::time::Duration;

pub use component::{FlowComponent, Invocation};
pub use component_shape::is_contract;
pub use descriptor::{Descriptor, FlowDescriptor};
pub use engine::SandboxOptions;
pub use error::SandboxError;
pub use host::{CallError, CallResult, FlowHost, GuestLogLevel, PeerFlowInfo, Tick};
pub use ledger::{
    AmountWanted, DraftCommand, DraftOutput, GuestKey, GuestNotaryChange, GuestPointer, GuestState, GuestTransaction,
    LedgerAnswer, LedgerCall, ShownParts, TransactionDraft, VaultQuery,
};
pub use outcome::{GuestFailure, Outcome, RunEnd, Trap, TrapKind};
pub use pace::{briefly, in_turns, pace};
pub use party::GuestParty;
pub use recording::RecordingCall;
pub use sandbox::{Inspection, LoadStatistics, Sandbox, inspect, inspect_keeping_code};
pub use thread_time::thread_time;

/// What one run is given besides its host.
#[derive(Debug, Clone)]
pub struct RunParameters {
    /// Decides the guest's randomness and the order of its hash maps; the same again on replay.
    pub seed: [u8; 32],
    /// Linear memory the guest may have, bytes. Never more than [`SandboxOptions::max_memory`] is granted.
    pub memory_limit: usize,
    /// How long the guest may compute between two waits, by the processor's time. It is looked at every tick of the engine.
    pub cpu: Duration,
}
