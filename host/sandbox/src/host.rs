//! What a flow asks of its host, as a trait: the sandbox translates WIT calls into it and knows nothing of journals,
//! sessions or databases.

use std::future::Future;

use maxhost_model::{ErrorKind, FlowError};

use crate::ledger::{LedgerAnswer, LedgerCall};
use crate::party::GuestParty;

/// Why a call did not answer.
#[derive(Debug)]
pub enum CallError {
    /// Goes into the guest as its `failure`: the author may catch it.
    Failure(Box<FlowError>),
    /// The run is over at this call: the instance is torn down without telling the guest. The host knows why (evicted,
    /// killed, replay did not match, the store failed).
    Stop,
}

impl From<FlowError> for CallError {
    fn from(error: FlowError) -> CallError {
        CallError::Failure(Box::new(error))
    }
}

/// The answer to a call.
pub type CallResult<T> = Result<T, CallError>;

/// What a peer told of its side of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerFlowInfo {
    /// Version of its flow.
    pub version: u32,
    /// Its CorDapp.
    pub app: String,
}

/// How important a guest's log line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GuestLogLevel {
    /// For the author.
    Debug,
    /// Shown unless the operator asks for warnings only.
    Info,
    /// Needs a look some day.
    Warn,
    /// Needs a look now. Panic texts arrive with this level.
    Error,
}

/// What the host wants of a guest that is busy computing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tick {
    /// Go on.
    Continue,
    /// End the run here, as [`CallError::Stop`] would.
    Stop,
}

/// The host's side of one flow run. One value lives in each instance; methods are called one at a time, in the order of
/// the guest's program. Those that return a future may suspend the guest for as long as they like.
///
/// Nothing in here may panic, and nothing may block the thread: the calls run on the guest's own stack, of which host
/// code has no more than about 200 KiB.
pub trait FlowHost: Send + 'static {
    /// The identity this flow runs as.
    fn our_identity(&mut self) -> GuestParty;
    /// Public id of the flow.
    fn flow_id(&mut self) -> String;
    /// Exact look-up.
    fn party(&mut self, name: String) -> impl Future<Output = CallResult<Option<GuestParty>>> + Send;
    /// Look-up by part of a name.
    fn parties(&mut self, query: String, exact: bool) -> impl Future<Output = CallResult<Vec<GuestParty>>> + Send;
    /// A new session; local.
    fn open_session(&mut self, protocol: String, party: String) -> impl Future<Output = CallResult<u32>> + Send;
    /// The other side.
    fn counterparty(&mut self, session: u32) -> CallResult<GuestParty>;
    /// Sends; buffered until the next wait.
    fn send(&mut self, session: u32, payload: Vec<u8>) -> impl Future<Output = CallResult<()>> + Send;
    /// Next message.
    fn receive(&mut self, session: u32) -> impl Future<Output = CallResult<Vec<u8>>> + Send;
    /// Next message, or `None` when the peer ended in order.
    fn receive_or_end(&mut self, session: u32) -> impl Future<Output = CallResult<Option<Vec<u8>>>> + Send;
    /// One suspension.
    fn send_and_receive(&mut self, session: u32, payload: Vec<u8>) -> impl Future<Output = CallResult<Vec<u8>>> + Send;
    /// Several at once.
    fn send_all(&mut self, messages: Vec<(u32, Vec<u8>)>) -> impl Future<Output = CallResult<()>> + Send;
    /// One from each.
    fn receive_all(&mut self, sessions: Vec<u32>) -> impl Future<Output = CallResult<Vec<Vec<u8>>>> + Send;
    /// The first session with something to receive, or `None` at the deadline (milliseconds since 1970).
    fn wait_any(
        &mut self,
        sessions: Vec<u32>,
        deadline: Option<u64>,
    ) -> impl Future<Output = CallResult<Option<u32>>> + Send;
    /// Ends sessions.
    fn close(&mut self, sessions: Vec<u32>) -> impl Future<Output = CallResult<()>> + Send;
    /// What the peer said of its side.
    fn counterparty_flow_info(&mut self, session: u32) -> impl Future<Output = CallResult<PeerFlowInfo>> + Send;
    /// Waits for so many milliseconds, five minutes at the most.
    fn sleep(&mut self, milliseconds: u64) -> impl Future<Output = CallResult<()>> + Send;
    /// Logical time, nanoseconds since 1970. Also answers the guest's WASI clocks.
    fn now(&mut self) -> u64;
    /// Reproducible randomness. Also answers WASI random (not the seeds of hash maps, which come from
    /// [`RunParameters::seed`](crate::RunParameters)).
    fn random(&mut self, length: u32) -> CallResult<Vec<u8>>;
    /// A log line. `Stop` when the flow has logged too much.
    fn log(&mut self, level: GuestLogLevel, message: String) -> CallResult<()>;
    /// A progress label. `Stop` when the flow has used up its journal.
    fn progress(&mut self, label: String) -> impl Future<Output = CallResult<()>> + Send;
    /// The guest wants so many more bytes of memory. Does not return before it may have them; `Stop` when it may not.
    fn memory(&mut self, bytes: u64) -> impl Future<Output = CallResult<()>> + Send;
    /// A call to the identity's ledger; refused by a host that has none.
    fn ledger(&mut self, call: LedgerCall) -> impl Future<Output = CallResult<LedgerAnswer>> + Send {
        let _ = call;
        let error = FlowError::new(ErrorKind::IllegalState, "there is no ledger here");
        std::future::ready(Err(error.into()))
    }
    /// Whether the guest has really waited since this was last asked: only then may it compute anew for as long as its
    /// budget says.
    fn take_waited(&mut self) -> bool;
    /// Called whenever the guest has computed for a whole tick of the engine, a few milliseconds, without a wait.
    fn tick(&mut self) -> Tick;
}
