//! One activation of a flow: its time in memory, from its start or from its journal, until it ends or gives up its
//! instance.

mod finish;
mod guest_code;
mod resume;
mod services;
mod shadow;
mod start;

pub(crate) use resume::folds_at_once;

use std::sync::Arc;

use bytes::Bytes;
use maxhost_journal::{Machine, Origin, StartRecord};
use maxhost_model::{Code, ErrorKind, FlowError, Problem};
use maxhost_sandbox::{Outcome, RunParameters, Trap, TrapKind};
use maxhost_store::{FlowOp, FlowState, StoreError};

pub(crate) use self::guest_code::GuestCode;
pub(crate) use self::services::ActivationServices;
use crate::base::counters::Counters;
use crate::base::rules::{Rule, holds};
use crate::base::trouble::{Trouble, reason};
use crate::calls::{FlowCalls, StartUnit, Stop};
use crate::commit::unit::Unit;
use crate::flow::running_flow::RunningFlow;
use crate::guests::flow_code::FlowCode;
use crate::registry::message::{ActivationOutcome, NoRoom};
use crate::registry::opened::Opened;

/// How an activation starts.
pub(crate) enum ActivationStart {
    /// A new flow.
    New { start: Box<StartRecord>, code: FlowCode, unit: StartUnit },
    /// From the database.
    Stored,
    /// From the database, only to be ended.
    Condemned,
}

/// A run that has given up its instance, because its guest wants more memory than is free: so many bytes in all.
struct Starved {
    wanted: u64,
}

/// What an activation needs.
#[derive(Clone)]
pub(crate) struct Activation {
    pub services: Arc<ActivationServices>,
    pub opened: Arc<Opened>,
    pub flow: Arc<RunningFlow>,
}

impl Activation {
    /// Lives. Returns once everything it wrote is answered.
    pub async fn live(self, start: ActivationStart) -> ActivationOutcome {
        let new = matches!(start, ActivationStart::New { .. });
        let mut outcome = match start {
            ActivationStart::New { start, code, unit } => {
                if code.profile().computes() || self.services.placement.is_spent(self.flow.owner) {
                    self.flow.place.run_apart();
                    tokio::task::yield_now().await;
                }
                self.begin(*start, code, unit).await
            }
            ActivationStart::Stored => self.go_on(None, None).await,
            ActivationStart::Condemned => self.go_on(Some(killed()), None).await,
        };
        let outcome = loop {
            match outcome {
                Ok(outcome) => break outcome,
                Err(starved) => outcome = self.wait_for_memory(starved).await,
            }
        };
        if holds(Rule::RunsSettleBeforeTheyLeave) {
            self.flow.settle().await;
        }
        let unwritten = new && !self.flow.is_durable();
        match (outcome, self.flow.take_failure()) {
            // Nothing is in the database that it could be brought back from: a responder is begun anew from its initiation.
            (ActivationOutcome::Retry(problem), None) if unwritten => ActivationOutcome::NotStarted(Some(problem)),
            (outcome, None) => outcome,
            (_, Some(_)) if unwritten => ActivationOutcome::NotStarted(None),
            (_, Some(StoreError::NoRoom { identity, queued, messages, bytes })) => {
                let problem = Problem::from(StoreError::NoRoom { identity, queued, messages, bytes });
                ActivationOutcome::NoRoom(NoRoom { identity, queued, problem })
            }
            (_, Some(error)) => ActivationOutcome::Retry(Problem::from(error)),
        }
    }

    fn machine(&self, start: &StartRecord) -> Machine {
        Machine::start(self.opened.entry.text.clone(), self.flow.row, start, self.services.journal)
    }

    fn run(&self, code: FlowCode, machine: Machine, record: &StartRecord, start: Option<StartUnit>) -> FlowCalls {
        FlowCalls::new(
            self.services.calls.clone(),
            self.opened.clone(),
            self.flow.clone(),
            code,
            machine,
            record,
            start,
        )
    }

    async fn run_guest(&self, mut run: FlowCalls, start: &StartRecord) -> Result<ActivationOutcome, Starved> {
        run.machine.set_attempt(self.flow.begin_attempt());
        let (code, parameters) = (run.code.clone(), self.parameters(start));
        run.busy.begin();
        let (mut run, outcome) = self.services.code.run(&code, run, start, &parameters).await;
        run.memory.give_back();
        run.busy.close(code.profile(), &self.flow.place);
        let outcome = match (run.stop.take(), outcome) {
            (Some(Stop::Memory { wanted }), _) => return Err(self.starved(run, wanted)),
            (Some(stop), _) => return Ok(self.stopped(run, start, stop).await),
            (None, Outcome::Returned(value)) => returned(value, self.services.journal.message),
            (None, Outcome::Failed(failure)) => Err(*failure),
            (None, Outcome::Trapped(Trap { kind: TrapKind::Host, message, .. })) => {
                let trouble = Trouble::Passing(Problem::new(Code::Overloaded, message));
                return Ok(self.stopped(run, start, Stop::Trouble(trouble)).await);
            }
            (None, Outcome::Trapped(trap)) => Err(self.trapped(trap)),
            (None, Outcome::Stopped) => {
                let trouble = Trouble::defect("the run was stopped without a reason");
                return Ok(self.stopped(run, start, Stop::Trouble(trouble)).await);
            }
        };
        Ok(self.finish(run, start, outcome).await)
    }

    fn parameters(&self, start: &StartRecord) -> RunParameters {
        let limits = &self.opened.limits;
        // What the identity or the host can never give is the flow's own limit: nobody waits for it.
        let memory = self.services.calls.room.memory.most(limits.memory).min(limits.memory_per_flow);
        RunParameters {
            seed: start.seed,
            memory_limit: usize::try_from(memory).unwrap_or(usize::MAX),
            cpu: limits.cpu_per_run,
        }
    }

    fn trapped(&self, trap: Trap) -> FlowError {
        if let Some(backtrace) = &trap.backtrace {
            tracing::debug!(flow_id = %self.flow.id(), "{backtrace}");
        }
        FlowError::from(trap)
    }

    async fn stopped(&self, mut run: FlowCalls, start: &StartRecord, stop: Stop) -> ActivationOutcome {
        match stop {
            Stop::Evicted => {
                Counters::add(&self.services.counters().evictions);
                // A run that was put away while it did not wait has something to do at once.
                match run.machine.wait() {
                    Some(_) => ActivationOutcome::Evicted { until: run.deadline() },
                    None => ActivationOutcome::Again,
                }
            }
            Stop::Memory { .. } => {
                Counters::add(&self.services.counters().evictions);
                ActivationOutcome::Again
            }
            Stop::Killed => self.abort(run, start, killed()).await,
            Stop::Over(error) => self.abort(run, start, error).await,
            Stop::Diverged(divergence) => self.hospitalise(format!("non-deterministic: {divergence}")).await,
            Stop::CommitFailed => ActivationOutcome::Retry(Problem::new(Code::StoreFailed, "a commit failed")),
            Stop::Trouble(trouble) => {
                if run.start.is_some() {
                    match &trouble {
                        Trouble::Passing(problem) => run.refuse_start(problem),
                        // Only what is written can be in hospital.
                        Trouble::Permanent(_) => run.flush(),
                    }
                }
                self.troubled(trouble).await
            }
        }
    }

    async fn troubled(&self, trouble: Trouble) -> ActivationOutcome {
        match trouble {
            Trouble::Passing(problem) => ActivationOutcome::Retry(problem),
            Trouble::Permanent(problem) => self.hospitalise(reason(&problem)).await,
        }
    }

    fn set_state(&self, state: FlowState, reason: Option<String>) -> FlowOp {
        FlowOp::SetState { flow: self.flow.row, state, reason, attempts: self.flow.attempts(), expect: None }
    }

    /// Parks the flow until a person has looked at it. What it did since its last commit is forgotten.
    async fn hospitalise(&self, reason: String) -> ActivationOutcome {
        let reason = maxhost_model::cut_text(reason, maxhost_model::MAX_FAILURE_TEXT);
        self.flow.settle().await;
        let mut unit = Unit::default();
        unit.op(self.set_state(FlowState::Hospital, Some(reason.clone())));
        unit.submit_for(self.services.committer(), self.opened.author(), &self.flow, |_| {});
        ActivationOutcome::Hospital(reason)
    }
}

fn killed() -> FlowError {
    FlowError::new(ErrorKind::Killed, "the flow was killed by an operator")
}

/// A result is CBOR by the contract with the guest, and no larger than a message; anything else is a defect of the CorDapp.
fn returned(value: Vec<u8>, largest: usize) -> Result<Bytes, FlowError> {
    if value.len() > largest {
        let text = format!("the result has {} bytes, a message at most {largest}", value.len());
        return Err(FlowError::limit("message", text));
    }
    match maxhost_model::check_cbor(&value) {
        Ok(()) => Ok(Bytes::from(value)),
        Err(error) => Err(FlowError::new(ErrorKind::Unexpected, format!("the flow returned no result: {error}"))),
    }
}

pub(crate) fn origin_text(origin: &Origin) -> String {
    match origin {
        Origin::Rpc { user } => format!("rpc:{user}"),
        Origin::Peer(initiation) => format!("peer:{}", initiation.from),
    }
}
