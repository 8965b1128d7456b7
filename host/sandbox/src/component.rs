//! A loaded CorDapp, ready to run any number of flows at once.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;

use crate::RunParameters;
use crate::bindings::{FlowsPre, types};
use crate::descriptor::Descriptor;
use crate::engine::{Linked, Shared};
use crate::erased::ErasedHost;
use crate::error::SandboxError;
use crate::host::FlowHost;
use crate::outcome::{Outcome, RunEnd, Trap, TrapKind, classify};
use crate::state::{CpuBudget, RunState};

/// What `describe` may use: it returns constants.
const DESCRIBE_CPU: Duration = Duration::from_secs(1);
const DESCRIBE_MEMORY: usize = 64 << 20;

/// What a flow is started with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invocation {
    /// Name of a flow of the component.
    pub flow: String,
    /// CBOR; empty for a responder.
    pub arguments: Vec<u8>,
    /// The session a responder was started for.
    pub session: Option<u32>,
}

/// A component, compiled and linked. Each run has an instance of its own, made when it starts and gone when it ends.
pub struct FlowComponent {
    /// SHA-256 of the component's bytes.
    pub hash: [u8; 32],
    /// Size of the component.
    pub bytes: usize,
    /// What it says of itself.
    pub descriptor: Descriptor,
    /// Full names of what it imports.
    pub imports: Vec<String>,
    flows: FlowsPre<RunState>,
    shared: Arc<Shared>,
}

impl FlowComponent {
    /// Takes a linked component and asks it to describe itself.
    pub(crate) fn new(
        hash: [u8; 32],
        bytes: usize,
        imports: Vec<String>,
        linked: Linked,
        shared: Arc<Shared>,
    ) -> Result<FlowComponent, SandboxError> {
        let wrong = |error| SandboxError::WrongWorld { world: "flows", reason: crate::error::chain(&error) };
        let flows = FlowsPre::new(linked).map_err(wrong)?;
        let descriptor = describe(&flows, &shared)?;
        Ok(FlowComponent { hash, bytes, descriptor, imports, flows, shared })
    }

    /// Runs one flow from start to end. Whatever happens to the guest is an [`Outcome`].
    ///
    /// Waits for a slot while all are taken. Dropping the future ends the run and frees its instance at once, wherever
    /// it waits. Must be polled by a tokio runtime.
    pub async fn run<H: FlowHost>(&self, host: H, invocation: Invocation, parameters: &RunParameters) -> RunEnd<H> {
        let end = self.run_erased(Box::new(host), invocation, parameters).await;
        let Some(Ok(host)) = end.host.map(|host| host.into_any().downcast::<H>()) else {
            unreachable!("the host of a run is the one it was given")
        };
        RunEnd { host: *host, outcome: end.outcome, memory_peak: end.memory_peak, computed: end.computed }
    }

    async fn run_erased(
        &self,
        host: Box<dyn ErasedHost>,
        invocation: Invocation,
        parameters: &RunParameters,
    ) -> RunEnd<Option<Box<dyn ErasedHost>>> {
        // Held until the instance is gone, so that there is never one more than there are slots.
        let slot = self.shared.permits.acquire().await;
        let _ticking = self.shared.ticker.ticking();
        let memory_limit = parameters.memory_limit.min(self.shared.max_memory);
        let state = RunState::new(memory_limit, CpuBudget::new(parameters.cpu, self.shared.tick), parameters.seed);
        let mut store = match self.shared.store(state) {
            Ok(store) => store,
            Err(error) => {
                return RunEnd {
                    host: Some(host),
                    outcome: classify(&error, None),
                    memory_peak: 0,
                    computed: Duration::ZERO,
                };
            }
        };
        store.data_mut().enter(host);
        let invocation =
            types::Invocation { flow: invocation.flow, arguments: invocation.arguments, session: invocation.session };
        let result = match self.flows.instantiate_async(&mut store).await {
            Ok(flows) => flows.call_run(&mut store, &invocation).await,
            Err(error) => Err(error),
        };
        let mut state = store.into_data();
        drop(slot);
        state.flush();
        let outcome = match result {
            Ok(Ok(result)) => Outcome::Returned(result),
            Ok(Err(failure)) => Outcome::Failed(Box::new(maxhost_model::FlowError::from(failure).bounded())),
            Err(error) => classify(&error, state.output.last_words()),
        };
        let (memory_peak, computed) = (state.memory.peak(), state.cpu.total());
        RunEnd { host: state.leave(), outcome, memory_peak, computed }
    }
}

impl fmt::Debug for FlowComponent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FlowComponent")
            .field("name", &self.descriptor.name)
            .field("version", &self.descriptor.version)
            .field("hash", &hex::encode(self.hash))
            .finish_non_exhaustive()
    }
}

/// Calls `describe`: without a host, within small limits, without ever yielding.
fn describe(flows: &FlowsPre<RunState>, shared: &Shared) -> Result<Descriptor, SandboxError> {
    let _turn = shared.describing.lock();
    let _ticking = shared.ticker.ticking();
    let cpu = CpuBudget::new(DESCRIBE_CPU, shared.tick);
    let state = RunState::new(DESCRIBE_MEMORY.min(shared.max_memory), cpu, [0; 32]);
    let mut store = shared.store(state).map_err(|error| SandboxError::engine("no store", error))?;
    let answer = async { flows.instantiate_async(&mut store).await?.call_describe(&mut store).await }.now_or_never();
    let mut state = store.into_data();
    state.flush();
    let reason = match answer {
        Some(Ok(descriptor)) => return Descriptor::try_from(descriptor),
        Some(Err(error)) => match classify(&error, state.output.last_words()) {
            Outcome::Trapped(Trap { kind: TrapKind::Host, .. }) => {
                return Err(SandboxError::engine("no instance for `describe`", error));
            }
            Outcome::Trapped(trap) => trap.message.replacen("the flow", "it", 1),
            Outcome::Returned(_) | Outcome::Failed(_) | Outcome::Stopped => "it was ended".to_owned(),
        },
        // Nothing that `describe` can call waits.
        None => "it waits".to_owned(),
    };
    Err(SandboxError::DescribeFailed { reason })
}
