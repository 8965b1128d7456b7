//! One activation of a flow: its time in memory: from its start, or from its journal, until it ends or gives up its instance.

use std::sync::Arc;

use bytes::Bytes;
use maxhost_journal::{Answer, Flush, JournalError, Machine, Origin, StartRecord, Step};
use maxhost_model::{Code, ErrorKind, FlowError, FlowRow, Problem};
use maxhost_sandbox::{CallError, Invocation, Outcome, RunParameters, Trap, TrapKind};
use maxhost_store::{FlowRecord, FlowState, Keep, Op, StoreError, StoredJournal};
use prost::Message;

use crate::admission::Slot;
use crate::api::{FlowDetail, FlowEvent, FlowPhase, FlowResult, FlowSummary, SessionView};
use crate::apps::FlowDef;
use crate::calls::{FlowCalls, StartUnit, Stop, answer_start, new_error_id};
use crate::core::{Core, Counters, Opened, now, now_millis};
use crate::options::OperatorEvent;
use crate::outcomes::{EndRecord, HeldRecord, SessionRecord, phase_of};
use crate::running_flow::{RunningFlow, Signal};
use crate::unit::Unit;

/// How an activation starts.
pub(crate) enum ActivationStart {
    /// A new flow.
    New { start: Box<StartRecord>, def: Arc<FlowDef>, unit: StartUnit },
    /// From the database.
    Stored,
    /// From the database, only to be ended.
    Condemned,
}

/// How an activation ends.
#[derive(Debug)]
pub(crate) enum ActivationOutcome {
    /// The flow has ended, durably.
    Ended,
    /// It was never started: the first unit was refused.
    NotStarted,
    /// It waits, in the database, until then or for news.
    Evicted { until: Option<u64> },
    /// Trouble that is not its own: to be tried again.
    Retry(Problem),
    /// It needs a person.
    Hospital(String),
}

/// What an activation needs.
#[derive(Clone)]
pub(crate) struct Activation {
    pub core: Arc<Core>,
    pub opened: Arc<Opened>,
    pub port: Arc<RunningFlow>,
}

impl Activation {
    /// Lives. Returns once everything it wrote is answered.
    pub async fn live(self, start: ActivationStart) -> ActivationOutcome {
        let new = matches!(start, ActivationStart::New { .. });
        let outcome = match start {
            ActivationStart::New { start, def, unit } => {
                if def.habit.computes() {
                    self.port.run_apart();
                    tokio::task::yield_now().await;
                }
                self.begin(*start, def, unit).await
            }
            ActivationStart::Stored => self.go_on(false).await,
            ActivationStart::Condemned => self.go_on(true).await,
        };
        self.port.settle().await;
        match (outcome, self.port.take_failure()) {
            (ActivationOutcome::Hospital(reason), None) => ActivationOutcome::Hospital(reason),
            (outcome, None) => outcome,
            (_, Some(_)) if new && !self.port.is_durable() => ActivationOutcome::NotStarted,
            (_, Some(error)) => ActivationOutcome::Retry(Problem::from(error)),
        }
    }

    async fn begin(&self, start: StartRecord, def: Arc<FlowDef>, unit: StartUnit) -> ActivationOutcome {
        let machine = self.machine(&start);
        let mut run = self.run(def, machine, Some(unit));
        // A newcomer that has to wait for a slot is made durable first, so that its starter need not wait with it.
        let slot = match self.core.slots.try_take() {
            Some(slot) => slot,
            None => {
                run.flush();
                match self.slot().await {
                    Some(slot) => slot,
                    None if self.port.is_signalled(Signal::Kill) => return self.abort(run, &start, killed()).await,
                    None => return ActivationOutcome::Evicted { until: None },
                }
            }
        };
        let outcome = self.run_guest(run, &start).await;
        drop(slot);
        outcome
    }

    fn machine(&self, start: &StartRecord) -> Machine {
        Machine::start(self.opened.entry.text.clone(), self.port.row, start, self.core.journal_limits())
    }

    fn run(&self, def: Arc<FlowDef>, machine: Machine, start: Option<StartUnit>) -> FlowCalls {
        FlowCalls::new(self.core.clone(), self.opened.clone(), self.port.clone(), def, machine, start)
    }

    /// Waits for the right to an instance. `None` if there will be none, or the flow is to end.
    async fn slot(&self) -> Option<Slot> {
        if let Some(slot) = self.core.slots.try_take() {
            return Some(slot);
        }
        self.port.show_without_instance(Some(now_millis()));
        let signalled = async {
            while !self.port.has_signal() {
                self.port.wake().await;
            }
        };
        let slot = tokio::select! {
            slot = self.core.slots.take() => slot,
            () = signalled => None,
        };
        self.port.show_without_instance(None);
        slot
    }

    async fn go_on(&self, kill_pending: bool) -> ActivationOutcome {
        let slot = if kill_pending { None } else { self.slot().await };
        let kill_pending = kill_pending || self.port.is_signalled(Signal::Kill);
        if slot.is_none() && !kill_pending {
            return ActivationOutcome::Evicted { until: None };
        }
        let journal = match self.core.store.journal(self.port.row).await {
            Ok(Some(journal)) => journal,
            Ok(None) => return ActivationOutcome::Ended,
            Err(error @ StoreError::Corrupt { .. }) => {
                return self.hospitalise(format!("{}: {error}", Code::JournalCorrupt)).await;
            }
            Err(error) => return ActivationOutcome::Retry(Problem::from(error)),
        };
        if !journal.record.state.is_live() {
            return ActivationOutcome::Ended;
        }
        self.port.set_name(journal.record.id, &journal.record.name, journal.record.client_id.clone());
        let restored =
            StartRecord::decode(&journal.record.start).and_then(|start| Ok((self.restore(&start, &journal)?, start)));
        self.port.note_attempts(journal.record.attempts);
        let (machine, start) = match restored {
            Ok(restored) => restored,
            Err(error) if kill_pending => return self.end_unreadable(&journal.record, &error),
            Err(error) => return self.hospitalise(format!("{}: {error}", Code::JournalCorrupt)).await,
        };
        self.port.note_attempts(machine.attempt());
        let def = match self.code_of(&start).await {
            Ok(def) => def,
            Err(_) if kill_pending => return self.abort_bare(machine, &start, killed()).await,
            Err(problem) => return self.hospitalise(format!("{}: {}", problem.code, problem.message)).await,
        };
        if journal.record.state == FlowState::Hospital && !kill_pending {
            // Back from hospital: spec 2.6, the reason is forgotten when the flow is tried again.
            let mut unit = Unit::default();
            unit.op(self.set_state(FlowState::Live, None));
            unit.submit_for(&self.core, &self.opened, &self.port, |_| {});
        }
        Counters::add(&self.core.counters.replays);
        let run = self.run(def, machine, None);
        let outcome =
            if kill_pending { self.abort(run, &start, killed()).await } else { self.run_guest(run, &start).await };
        drop(slot);
        outcome
    }

    fn restore(&self, start: &StartRecord, journal: &StoredJournal) -> Result<Machine, JournalError> {
        // Not begun anew even if nothing is in it yet: what a start sends was written with it.
        let me = self.opened.entry.text.clone();
        Machine::restore(me, self.port.row, start, self.core.journal_limits(), &journal.log, &journal.inbox)
    }

    /// The code that the flow was started with, whatever is installed now.
    async fn code_of(&self, start: &StartRecord) -> Result<Arc<FlowDef>, Problem> {
        let (core, hash) = (self.core.clone(), start.component);
        let app = match self.core.catalogue.loaded(&hash) {
            Some(app) => app,
            None => tokio::task::spawn_blocking(move || core.catalogue.by_hash(&hash))
                .await
                .map_err(|error| Problem::new(Code::Internal, error.to_string()))??,
        };
        app.flow(&start.flow).cloned().ok_or_else(|| {
            let text = format!("CorDapp {} has no flow '{}'", app.name(), start.flow);
            Problem::new(Code::FlowTypeNotFound, text)
        })
    }

    async fn run_guest(&self, mut run: FlowCalls, start: &StartRecord) -> ActivationOutcome {
        run.machine.set_attempt(self.port.begin_attempt());
        let (def, parameters) = (run.def.clone(), self.parameters(start));
        run.stretch.begin();
        let end = def.component.run(run, invocation(start), &parameters).await;
        let mut run = end.host;
        run.stretch.close(&def.habit, &self.port);
        let outcome = match (run.stop.take(), end.outcome) {
            (Some(stop), _) => return self.stopped(run, start, stop).await,
            (None, Outcome::Returned(value)) => Ok(Bytes::from(value)),
            (None, Outcome::Failed(failure)) => Err(*failure),
            (None, Outcome::Trapped(Trap { kind: TrapKind::Host, message, .. })) => {
                return ActivationOutcome::Retry(Problem::new(Code::Overloaded, message));
            }
            (None, Outcome::Trapped(trap)) => Err(self.trapped(trap)),
            (None, Outcome::Stopped) => {
                return ActivationOutcome::Retry(Problem::new(Code::Internal, "the run was stopped"));
            }
        };
        self.finish(run, start, outcome).await
    }

    fn parameters(&self, start: &StartRecord) -> RunParameters {
        let limits = &self.opened.limits;
        let ticks = limits.cpu_per_run.as_micros() / self.core.tick.as_micros().max(1);
        RunParameters {
            seed: start.seed,
            memory_limit: usize::try_from(limits.memory_per_flow).unwrap_or(usize::MAX),
            cpu_ticks: u32::try_from(ticks).unwrap_or(u32::MAX).max(1),
        }
    }

    fn trapped(&self, trap: Trap) -> FlowError {
        if let Some(backtrace) = &trap.backtrace {
            tracing::debug!(flow_id = %self.port.id(), "{backtrace}");
        }
        FlowError::from(trap)
    }

    /// The guest has returned, or failed: the rest of the activation needs no instance.
    async fn finish(
        &self,
        mut run: FlowCalls,
        start: &StartRecord,
        outcome: Result<Bytes, FlowError>,
    ) -> ActivationOutcome {
        let shadowed = self.is_shadowed();
        if shadowed {
            // What it has sent leaves with the log that says so; only the word of its end waits for the comparison.
            run.flush();
        }
        let mut step = match run.machine.finish(outcome, new_error_id()) {
            Ok(step) => step,
            Err(divergence) => return self.stopped(run, start, Stop::Diverged(divergence)).await,
        };
        let outcome = loop {
            match step {
                Step::Done(Ok(Answer::Message(value))) => break Ok(value),
                Step::Done(Err(error)) | Step::Over(error) => break Err(error),
                Step::Done(Ok(other)) => {
                    let text = format!("the flow ended with {other:?}");
                    return ActivationOutcome::Retry(Problem::new(Code::Internal, text));
                }
                Step::Blocked => match run.suspend().await {
                    Ok(()) => {
                        if shadowed {
                            run.flush();
                        }
                        step = run.machine.resume(now());
                    }
                    Err(CallError::Failure(error)) => break Err(*error),
                    Err(CallError::Stop) => {
                        let stop = run.stop.take().unwrap_or(Stop::Evicted);
                        return self.stopped(run, start, stop).await;
                    }
                },
            }
        };
        if shadowed && !matches!(&outcome, Err(error) if error.kind == ErrorKind::Killed) {
            return self.end_shadowed(run, start, outcome).await;
        }
        self.end(run, start, outcome)
    }

    async fn stopped(&self, run: FlowCalls, start: &StartRecord, stop: Stop) -> ActivationOutcome {
        match stop {
            Stop::Evicted => {
                Counters::add(&self.core.counters.evictions);
                ActivationOutcome::Evicted { until: run.machine.wait_until() }
            }
            Stop::Killed => self.abort(run, start, killed()).await,
            Stop::Over(error) => self.abort(run, start, error).await,
            Stop::Diverged(divergence) => self.hospitalise(format!("non-deterministic: {divergence}")).await,
            Stop::CommitFailed => ActivationOutcome::Retry(Problem::new(Code::StoreFailed, "a commit failed")),
            Stop::Trouble(problem) => ActivationOutcome::Retry(problem),
        }
    }

    async fn abort(&self, mut run: FlowCalls, start: &StartRecord, error: FlowError) -> ActivationOutcome {
        let error = run.machine.abort(error, new_error_id());
        self.end(run, start, Err(error))
    }

    /// Ends a flow whose code is gone.
    async fn abort_bare(&self, mut machine: Machine, start: &StartRecord, error: FlowError) -> ActivationOutcome {
        let error = machine.abort(error, new_error_id());
        let mut unit = Unit::default();
        unit.last_words(&self.core, machine.flush(now()));
        self.submit_end(unit, &machine, start, Err(error), None);
        ActivationOutcome::Ended
    }

    /// Ends a flow whose journal cannot be read: its peers cannot be told.
    fn end_unreadable(&self, stored: &FlowRecord, error: &JournalError) -> ActivationOutcome {
        let error = FlowError::new(ErrorKind::Killed, format!("killed; its journal was unreadable: {error}"));
        match StartRecord::decode(&stored.start) {
            Ok(start) => self.submit_end(Unit::default(), &self.machine(&start), &start, Err(error), None),
            Err(_) => self.end_without_start(stored, &error),
        }
        ActivationOutcome::Ended
    }

    /// Not even the start is readable: what the flow's row says is all there is to tell.
    fn end_without_start(&self, stored: &FlowRecord, error: &FlowError) {
        let finished = now_millis() as i64;
        let attempts = self.port.attempts().max(1);
        let record = EndRecord { error: Some(error.into()), attempts, ..EndRecord::default() };
        let mut unit = Unit::default();
        unit.op(Op::EndFlow {
            flow: self.port.row,
            state: FlowState::Killed,
            finished,
            keep: Some(self.keep(&record)),
        });
        let summary = FlowSummary {
            flow_id: stored.id,
            identity: self.opened.entry.text.to_string(),
            flow: stored.name.clone(),
            client_id: stored.client_id.clone(),
            phase: FlowPhase::Killed,
            started_ms: stored.started,
            finished_ms: Some(finished),
            progress: None,
            result: Some(record.result()),
            reason: None,
        };
        let detail = FlowDetail {
            summary,
            cordapp: String::new(),
            component_hash: String::new(),
            origin: String::new(),
            waiting_for: None,
            sessions: Vec::new(),
            journal_entries: 0,
            journal_bytes: 0,
            attempts,
            labels: None,
            in_memory: false,
        };
        let (core, row, detail) = (self.core.clone(), self.port.row, Arc::new(detail));
        unit.submit_for(&self.core, &self.opened, &self.port, move |result| {
            if result.is_ok() {
                tell_end(&core, row, &detail);
            }
        });
    }

    fn keep(&self, record: &EndRecord) -> Keep {
        let retention = i64::try_from(self.core.options.retention.as_millis()).unwrap_or(i64::MAX);
        Keep { expires: (now_millis() as i64).saturating_add(retention), end: record.encode_to_vec().into() }
    }

    fn end(&self, mut run: FlowCalls, start: &StartRecord, outcome: Result<Bytes, FlowError>) -> ActivationOutcome {
        let mut unit = Unit::default();
        let reply = run.take_start(&mut unit);
        let flush: Flush = run.machine.flush(now());
        unit.last_words(&self.core, flush);
        run.build_on(&mut unit);
        self.submit_end(unit, &run.machine, start, outcome, reply);
        ActivationOutcome::Ended
    }

    fn submit_end(
        &self,
        mut unit: Unit,
        machine: &Machine,
        start: &StartRecord,
        outcome: Result<Bytes, FlowError>,
        reply: Option<tokio::sync::oneshot::Sender<Result<(), crate::calls::StartFailure>>>,
    ) {
        let phase = phase_of(&outcome);
        let record = EndRecord { attempts: self.port.attempts().max(1), ..end_record(machine, &outcome) };
        let finished = now_millis() as i64;
        // Whoever started a flow by RPC may come back for its result; a responder that did its work leaves nothing.
        let keeps = matches!(start.origin, Origin::Rpc { .. }) || outcome.is_err();
        unit.op(Op::EndFlow {
            flow: self.port.row,
            state: match phase {
                FlowPhase::Completed => FlowState::Completed,
                FlowPhase::Killed => FlowState::Killed,
                _ => FlowState::Failed,
            },
            finished,
            keep: keeps.then(|| self.keep(&record)),
        });
        let detail = Arc::new(self.detail(machine, start, phase, finished, &record));
        let (core, row) = (self.core.clone(), self.port.row);
        unit.submit_for(&self.core, &self.opened, &self.port, move |result| {
            if result.is_ok() {
                tell_end(&core, row, &detail);
            }
            answer_start(reply, result);
        });
    }

    fn detail(
        &self,
        machine: &Machine,
        start: &StartRecord,
        phase: FlowPhase,
        finished: i64,
        record: &EndRecord,
    ) -> FlowDetail {
        let summary = FlowSummary {
            flow_id: self.port.id(),
            identity: self.opened.entry.text.to_string(),
            flow: format!("{}/{}", start.cordapp, start.flow),
            client_id: self.port.client_id().map(str::to_owned),
            phase,
            started_ms: (start.started / 1_000_000) as i64,
            finished_ms: Some(finished),
            progress: record.progress.clone(),
            result: Some(record.result()),
            reason: None,
        };
        let sessions = machine.summaries().into_iter().map(|session| SessionView {
            peer: session.peer.to_string(),
            state: session.state.to_owned(),
            unread: session.unread,
        });
        FlowDetail {
            summary,
            cordapp: format!("{} {}", start.cordapp, start.cordapp_version),
            component_hash: crate::apps::hex(&start.component),
            origin: origin_text(&start.origin),
            waiting_for: None,
            sessions: sessions.collect(),
            journal_entries: machine.entries(),
            journal_bytes: machine.bytes(),
            attempts: record.attempts,
            labels: record.labels,
            in_memory: false,
        }
    }

    fn set_state(&self, state: FlowState, reason: Option<String>) -> Op {
        Op::SetState { flow: self.port.row, state, reason, attempts: self.port.attempts() }
    }

    /// Parks the flow until a person has looked at it. What it did since its last commit is forgotten.
    async fn hospitalise(&self, reason: String) -> ActivationOutcome {
        self.port.settle().await;
        let mut unit = Unit::default();
        unit.op(self.set_state(FlowState::Hospital, Some(reason.clone())));
        unit.submit_for(&self.core, &self.opened, &self.port, |_| {});
        ActivationOutcome::Hospital(reason)
    }

    fn is_shadowed(&self) -> bool {
        let share = self.core.options.shadow_replay;
        if share >= 1.0 {
            return true;
        }
        // Spread evenly over the rows.
        let hash = (self.port.row.0 as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        share > 0.0 && (hash as f64) < share * f64::from(u32::MAX)
    }

    /// Runs the finished flow once more from its journal, and ends it only if it does the same again.
    async fn end_shadowed(
        &self,
        mut run: FlowCalls,
        start: &StartRecord,
        outcome: Result<Bytes, FlowError>,
    ) -> ActivationOutcome {
        let mut last = run.machine.flush(now());
        let mut log = Unit::default();
        let reply = run.take_start(&mut log);
        if last.segment.is_some() {
            // Never the log alone: replayed after a crash, the flow would not send again what the log says is sent.
            log.flush(&self.core, self.port.row, std::mem::take(&mut last));
        }
        if !log.is_empty() {
            run.build_on(&mut log);
            log.submit_for(&self.core, &self.opened, &self.port, move |result| answer_start(reply, result));
        }
        self.port.settle().await;
        let difference = match self.replay_again(start, &run.def).await {
            Ok(again) => differs(&outcome, &again),
            Err(Stop::Diverged(divergence)) => Some(divergence.to_string()),
            // Cannot be compared now: no reason to hold the flow back.
            Err(stop) => {
                tracing::debug!(flow_id = %self.port.id(), ?stop, "the flow could not be run again for comparison");
                return self.end_compared(run, start, outcome, last);
            }
        };
        Counters::add(&self.core.counters.shadow_replays);
        if let Some(difference) = difference {
            return self.hospitalise(format!("non-deterministic: {difference}")).await;
        }
        self.end_compared(run, start, outcome, last)
    }

    fn end_compared(
        &self,
        mut run: FlowCalls,
        start: &StartRecord,
        outcome: Result<Bytes, FlowError>,
        last: Flush,
    ) -> ActivationOutcome {
        let mut unit = Unit::default();
        unit.last_words(&self.core, Flush { segment: None, outgoing: last.outgoing, progress: last.progress });
        run.build_on(&mut unit);
        self.submit_end(unit, &run.machine, start, outcome, None);
        ActivationOutcome::Ended
    }

    async fn replay_again(&self, start: &StartRecord, def: &Arc<FlowDef>) -> Result<Result<Bytes, FlowError>, Stop> {
        let trouble = |text: String| Stop::Trouble(Problem::new(Code::JournalCorrupt, text));
        let journal = self.core.store.journal(self.port.row).await.map_err(|error| trouble(error.to_string()))?;
        let journal = journal.ok_or_else(|| trouble("no journal".to_owned()))?;
        let machine = self.restore(start, &journal).map_err(|error| trouble(error.to_string()))?;
        let mut run = self.run(def.clone(), machine, None);
        run.shadow = true;
        let end = def.component.run(run, invocation(start), &self.parameters(start)).await;
        let mut run = end.host;
        if let Some(stop) = run.stop.take() {
            return match stop {
                Stop::Over(error) => Ok(Err(error)),
                stop => Err(stop),
            };
        }
        let outcome = match end.outcome {
            Outcome::Returned(value) => Ok(Bytes::from(value)),
            Outcome::Failed(failure) => Err(*failure),
            Outcome::Trapped(trap) => Err(FlowError::from(trap)),
            Outcome::Stopped => return Err(Stop::Evicted),
        };
        match run.machine.finish(outcome, new_error_id()).map_err(Stop::Diverged)? {
            Step::Done(Ok(Answer::Message(value))) => Ok(Ok(value)),
            Step::Done(Err(error)) | Step::Over(error) => Ok(Err(error)),
            Step::Done(_) | Step::Blocked => Err(Stop::Evicted),
        }
    }
}

/// Results must be equal; of errors the kind: their numbers are drawn anew, their texts may hold addresses.
fn differs(first: &Result<Bytes, FlowError>, again: &Result<Bytes, FlowError>) -> Option<String> {
    match (first, again) {
        (Ok(first), Ok(again)) if first == again => None,
        (Err(first), Err(again)) if first.kind == again.kind => None,
        (first, again) => Some(format!("expected the end {}, got {}", brief(first), brief(again))),
    }
}

fn brief(outcome: &Result<Bytes, FlowError>) -> String {
    match outcome {
        Ok(value) => match maxhost_model::cbor_to_json(value) {
            Ok(json) => json.to_string().chars().take(200).collect(),
            Err(_) => format!("{} bytes", value.len()),
        },
        Err(error) => error.to_string(),
    }
}

fn killed() -> FlowError {
    FlowError::new(ErrorKind::Killed, "the flow was killed by an operator")
}

fn invocation(start: &StartRecord) -> Invocation {
    Invocation {
        flow: start.flow.clone(),
        arguments: start.arguments.to_vec(),
        session: matches!(start.origin, Origin::Peer(_)).then_some(0),
    }
}

pub(crate) fn origin_text(origin: &Origin) -> String {
    match origin {
        Origin::Rpc { user } => format!("rpc:{user}"),
        Origin::Peer(initiation) => format!("peer:{}", initiation.from),
    }
}

fn end_record(machine: &Machine, outcome: &Result<Bytes, FlowError>) -> EndRecord {
    let sessions = machine.summaries().into_iter();
    EndRecord {
        value: outcome.as_ref().ok().cloned(),
        error: outcome.as_ref().err().map(Into::into),
        progress: machine.label().map(str::to_owned),
        entries: machine.entries(),
        bytes: machine.bytes(),
        labels: Some(machine.labels()),
        sessions: sessions
            .map(|session| SessionRecord { peer: session.peer.to_string(), state: session.state.to_owned() })
            .collect(),
        held: if outcome.is_err() { held(machine) } else { Vec::new() },
        ..EndRecord::default()
    }
}

fn held(machine: &Machine) -> Vec<HeldRecord> {
    let unconfirmed = machine.unconfirmed().into_iter().filter(|(_, payloads)| !payloads.is_empty());
    unconfirmed.map(|(session, payloads)| HeldRecord { session: session.index().into(), payloads }).collect()
}

/// The end is durable: whoever asks or follows learns of it.
fn tell_end(core: &Core, row: FlowRow, detail: &Arc<FlowDetail>) {
    announce(core, detail);
    core.outcomes.remember(row, detail.clone());
    core.watchers.close(row, || FlowEvent::Ended { summary: Box::new(detail.summary.clone()) });
}

fn announce(core: &Core, detail: &FlowDetail) {
    let summary = &detail.summary;
    let counter = match summary.phase {
        FlowPhase::Completed => &core.counters.completed,
        FlowPhase::Killed => &core.counters.killed,
        _ => &core.counters.failed,
    };
    Counters::add(counter);
    let error = match &summary.result {
        Some(FlowResult::Error(error)) => Some(error.to_string()),
        _ => None,
    };
    core.emit(OperatorEvent::FlowEnded {
        identity: summary.identity.clone(),
        flow_id: summary.flow_id.to_string(),
        flow: summary.flow.clone(),
        state: summary.phase.as_str(),
        error,
    });
}
