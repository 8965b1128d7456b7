//! How a flow ends: its last unit, the record that stays of it, and who is told.

use std::sync::Arc;

use bytes::Bytes;
use maxhost_journal::{Answer, Flush, JournalError, Machine, Origin, StartRecord, Step};
use maxhost_model::{ErrorKind, FlowError, FlowRow, SessionId};
use maxhost_sandbox::CallError;
use maxhost_store::{FlowOp, FlowRecord, FlowState, Keep, StoredJournal};
use prost::Message;
use tokio::sync::oneshot;

use super::{Activation, ActivationServices, origin_text};
use crate::api::{FlowDetail, FlowEvent, FlowPhase, FlowResult, FlowSummary, SessionView};
use crate::base::counters::Counters;
use crate::base::random::new_error_id;
use crate::base::rules::{Rule, holds};
use crate::base::trouble::Trouble;
use crate::calls::{FlowCalls, Stop};
use crate::commit::outcomes::{EndRecord, HeldRecord, SessionRecord, phase_of};
use crate::commit::unit::Unit;
use crate::options::OperatorEvent;
use crate::registry::message::{ActivationOutcome, StartFailure, answer_start};

/// Sessions that are kept of a flow that has ended, the first ones; of the others it is kept how many there were.
const KEPT_SESSIONS: usize = 100;

impl Activation {
    /// The guest has returned, or failed: the rest of the activation needs no instance.
    pub(super) async fn finish(
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
                    let text = format!("the flow ended with {other:?}").chars().take(200).collect::<String>();
                    return self.stopped(run, start, Stop::Trouble(Trouble::defect(text))).await;
                }
                Step::Blocked => match run.suspend().await {
                    Ok(()) => {
                        if shadowed {
                            run.flush();
                        }
                        step = run.resume();
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

    pub(super) async fn abort(&self, mut run: FlowCalls, start: &StartRecord, error: FlowError) -> ActivationOutcome {
        let error = run.machine.abort(error, new_error_id());
        self.end(run, start, Err(error))
    }

    /// Ends a flow whose code is gone.
    pub(super) async fn abort_bare(
        &self,
        mut machine: Machine,
        start: &StartRecord,
        error: FlowError,
    ) -> ActivationOutcome {
        let error = machine.abort(error, new_error_id());
        let mut unit = Unit::default();
        unit.last_words(self.services.committer(), machine.flush(self.services.calls.now()));
        self.submit_end(unit, &machine, start, Err(error), None);
        ActivationOutcome::Ended
    }

    /// Ends a flow whose journal cannot be read. Nobody knows what it has sent, so its peers cannot be told, except for
    /// responders to which it has sent nothing since it had asked for them.
    pub(super) fn end_unreadable(&self, stored: &StoredJournal, error: &JournalError) -> ActivationOutcome {
        let error = FlowError::new(ErrorKind::Killed, format!("killed; its journal was unreadable: {error}"));
        // It may have read their confirmations. Who is told of the end once more, or too late, takes no notice.
        let first = stored.inbox.iter().filter(|(_, seq, _)| *seq == 0);
        let unconfirmed = first.map(|(session, ..)| *session).collect();
        match StartRecord::decode(&stored.record.start) {
            Ok(start) => {
                let machine = self.machine(&start);
                self.submit_end_of(Unit::default(), &machine, &start, Err(error), None, unconfirmed);
            }
            Err(_) => self.end_without_start(&stored.record, &error, unconfirmed),
        }
        ActivationOutcome::Ended
    }

    /// Not even the start is readable: what the flow's row says is all there is to tell.
    fn end_without_start(&self, stored: &FlowRecord, error: &FlowError, unconfirmed: Vec<SessionId>) {
        let finished = self.services.calls.now_millis() as i64;
        let attempts = self.flow.attempts().max(1);
        let record = EndRecord { error: Some(error.into()), attempts, ..EndRecord::default() };
        self.flow.note_failed_end();
        let mut unit = Unit::default();
        unit.op(FlowOp::End {
            flow: self.flow.row,
            state: FlowState::Killed,
            finished,
            keep: Some(self.keep(&record, None)),
            unconfirmed,
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
            more_sessions: 0,
            journal_entries: 0,
            journal_bytes: 0,
            attempts,
            labels: None,
            in_memory: false,
        };
        let (services, row, detail) = (self.services.clone(), self.flow.row, Arc::new(detail));
        unit.submit_for(self.services.committer(), self.opened.author(), &self.flow, move |result| {
            if result.is_ok() {
                tell_end(&services, row, &detail);
            }
        });
    }

    fn keep(&self, record: &EndRecord, labels: Option<Bytes>) -> Keep {
        let retention = i64::try_from(self.services.retention.as_millis()).unwrap_or(i64::MAX);
        Keep {
            expires: (self.services.calls.now_millis() as i64).saturating_add(retention),
            end: record.encode_to_vec().into(),
            labels,
        }
    }

    pub(super) fn end(
        &self,
        mut run: FlowCalls,
        start: &StartRecord,
        outcome: Result<Bytes, FlowError>,
    ) -> ActivationOutcome {
        let mut unit = Unit::default();
        let reply = run.take_start(&mut unit);
        let flush: Flush = run.machine.flush(self.services.calls.now());
        unit.last_words(self.services.committer(), flush);
        run.take_ledger_ops(&mut unit);
        run.build_on(&mut unit);
        self.submit_end(unit, &run.machine, start, outcome, reply);
        ActivationOutcome::Ended
    }

    pub(super) fn submit_end(
        &self,
        unit: Unit,
        machine: &Machine,
        start: &StartRecord,
        outcome: Result<Bytes, FlowError>,
        reply: Option<oneshot::Sender<Result<(), StartFailure>>>,
    ) {
        let unconfirmed = machine.unconfirmed().into_iter().map(|(session, _)| session);
        let unconfirmed = unconfirmed.filter(|_| holds(Rule::UnreadConfirmationsAreNoted)).collect();
        self.submit_end_of(unit, machine, start, outcome, reply, unconfirmed);
    }

    fn submit_end_of(
        &self,
        mut unit: Unit,
        machine: &Machine,
        start: &StartRecord,
        outcome: Result<Bytes, FlowError>,
        reply: Option<oneshot::Sender<Result<(), StartFailure>>>,
        unconfirmed: Vec<SessionId>,
    ) {
        if outcome.is_err() {
            self.flow.note_failed_end();
        }
        let phase = phase_of(&outcome);
        let record = EndRecord { attempts: self.flow.attempts().max(1), ..end_record(machine, &outcome) };
        let finished = self.services.calls.now_millis() as i64;
        // Whoever started a flow by RPC may come back for its result; a responder that did its work leaves nothing.
        let keeps = matches!(start.origin, Origin::Rpc { .. }) || outcome.is_err();
        unit.op(FlowOp::End {
            flow: self.flow.row,
            state: match phase {
                FlowPhase::Completed => FlowState::Completed,
                FlowPhase::Killed => FlowState::Killed,
                _ => FlowState::Failed,
            },
            finished,
            keep: keeps.then(|| self.keep(&record, machine.latest_labels().encode())),
            unconfirmed,
        });
        let detail = Arc::new(self.detail(machine, start, phase, finished, &record));
        let (services, row) = (self.services.clone(), self.flow.row);
        unit.submit_for(self.services.committer(), self.opened.author(), &self.flow, move |result| {
            if result.is_ok() {
                tell_end(&services, row, &detail);
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
            flow_id: self.flow.id(),
            identity: self.opened.entry.text.to_string(),
            flow: format!("{}/{}", start.cordapp, start.flow),
            client_id: self.flow.client_id().map(str::to_owned),
            phase,
            started_ms: (start.started / 1_000_000) as i64,
            finished_ms: Some(finished),
            progress: record.progress.clone(),
            result: Some(record.result()),
            reason: None,
        };
        let summaries = machine.summaries();
        let sessions = summaries.iter().take(KEPT_SESSIONS).map(|session| SessionView {
            peer: session.peer.to_string(),
            state: session.state.to_owned(),
            unread: session.unread,
        });
        FlowDetail {
            summary,
            cordapp: format!("{} {}", start.cordapp, start.cordapp_version),
            component_hash: hex::encode(start.component),
            origin: origin_text(&start.origin),
            waiting_for: None,
            sessions: sessions.collect(),
            more_sessions: more_than_kept(summaries.len()),
            journal_entries: machine.entries(),
            journal_bytes: machine.bytes(),
            attempts: record.attempts,
            labels: record.labels,
            in_memory: false,
        }
    }
}

fn end_record(machine: &Machine, outcome: &Result<Bytes, FlowError>) -> EndRecord {
    let summaries = machine.summaries();
    let more_sessions = more_than_kept(summaries.len());
    let sessions = summaries.into_iter().take(KEPT_SESSIONS);
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
        more_sessions,
        held: if outcome.is_err() { held(machine) } else { Vec::new() },
        ..EndRecord::default()
    }
}

fn more_than_kept(sessions: usize) -> u32 {
    u32::try_from(sessions.saturating_sub(KEPT_SESSIONS)).unwrap_or(u32::MAX)
}

fn held(machine: &Machine) -> Vec<HeldRecord> {
    let unconfirmed = machine.unconfirmed().into_iter().filter(|(_, payloads)| !payloads.is_empty());
    unconfirmed.map(|(session, payloads)| HeldRecord { session: session.index().into(), payloads }).collect()
}

/// The end is durable: whoever asks or follows learns of it.
fn tell_end(services: &ActivationServices, row: FlowRow, detail: &Arc<FlowDetail>) {
    announce(services, detail);
    services.outcomes.remember(row, detail.clone());
    services.committer().watchers.close(row, || FlowEvent::Ended { summary: Box::new(detail.summary.clone()) });
}

fn announce(services: &ActivationServices, detail: &FlowDetail) {
    let summary = &detail.summary;
    let counter = match summary.phase {
        FlowPhase::Completed => &services.counters().completed,
        FlowPhase::Killed => &services.counters().killed,
        _ => &services.counters().failed,
    };
    Counters::add(counter);
    let error = match &summary.result {
        Some(FlowResult::Error(error)) => Some(error.clone().brief().to_string()),
        _ => None,
    };
    services.events.emit(OperatorEvent::FlowEnded {
        identity: summary.identity.clone(),
        flow_id: summary.flow_id.to_string(),
        flow: summary.flow.clone(),
        state: summary.phase.as_str(),
        error,
    });
}
