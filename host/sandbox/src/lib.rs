//! Runs CorDapps: compiles components, caches the machine code, and gives every flow run an instance of its own.

pub mod host;

pub use host::{CallError, CallResult, FlowHost, GuestLogLevel, GuestParty, PeerFlowInfo, Tick};

/// What one run is given besides its host.
#[derive(Debug, Clone)]
pub struct RunParameters {
    /// Decides the guest's randomness and the order of its hash maps; the same again on replay.
    pub seed: [u8; 32],
    /// Linear memory the guest may have, bytes.
    pub memory_limit: usize,
    /// Computing time between two waits, in ticks of the engine.
    pub cpu_ticks: u32,
}
