//! The comparison: a flow that has ended is run once more from its journal, and must come to the same end.

use std::sync::Arc;

use bytes::Bytes;
use maxhost_journal::{Answer, Flush, StartRecord, Step};
use maxhost_model::{Code, FlowError, Problem};
use maxhost_sandbox::{Outcome, Trap, TrapKind};
use maxhost_store::SizedJournal;

use super::{Activation, returned};
use crate::base::counters::Counters;
use crate::base::random::new_error_id;
use crate::base::trouble::Trouble;
use crate::calls::{FlowCalls, Stop};
use crate::commit::unit::Unit;
use crate::guests::admission::SMALL_JOURNAL;
use crate::guests::flow_code::FlowCode;
use crate::registry::message::{ActivationOutcome, answer_start};

impl Activation {
    pub(super) fn is_shadowed(&self) -> bool {
        let share = self.services.shadow_replay;
        if share >= 1.0 {
            return true;
        }
        // Spread evenly over the rows.
        let hash = (self.flow.row.0 as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        share > 0.0 && (hash as f64) < share * f64::from(u32::MAX)
    }

    /// Runs the finished flow once more from its journal, and ends it only if it does the same again.
    pub(super) async fn end_shadowed(
        &self,
        mut run: FlowCalls,
        start: &StartRecord,
        outcome: Result<Bytes, FlowError>,
    ) -> ActivationOutcome {
        let mut last = run.machine.flush(self.services.calls.now());
        let mut log = Unit::default();
        let reply = run.take_start(&mut log);
        if last.segment.is_some() {
            // Never the log alone: replayed after a crash, the flow would not send again what the log says is sent.
            log.flush(self.services.committer(), self.flow.row, std::mem::take(&mut last));
        }
        run.take_ledger_ops(&mut log);
        if !log.is_empty() {
            run.build_on(&mut log);
            log.submit_for(self.services.committer(), self.opened.author(), &self.flow, move |result| {
                answer_start(reply, result)
            });
        }
        self.flow.settle().await;
        let difference = match self.replay_again(start, &run.code).await {
            Ok(again) => differs(&outcome, &again),
            Err(Stop::Diverged(divergence)) => Some(divergence.to_string()),
            // Cannot be compared now: no reason to hold the flow back.
            Err(stop) => {
                tracing::debug!(flow_id = %self.flow.id(), ?stop, "the flow could not be run again for comparison");
                return self.end_compared(run, start, outcome, last);
            }
        };
        Counters::add(&self.services.counters().shadow_replays);
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
        unit.last_words(
            self.services.committer(),
            Flush { segment: None, outgoing: last.outgoing, progress: last.progress },
        );
        run.build_on(&mut unit);
        self.submit_end(unit, &run.machine, start, outcome, None);
        ActivationOutcome::Ended
    }

    async fn replay_again(&self, start: &StartRecord, code: &FlowCode) -> Result<Result<Bytes, FlowError>, Stop> {
        let trouble = |text: String| Stop::Trouble(Trouble::Permanent(Problem::new(Code::JournalCorrupt, text)));
        let mut room = None;
        let read = match self.services.store().journal_within(self.flow.row, SMALL_JOURNAL).await {
            Ok(Some(SizedJournal::Larger(bytes))) => {
                room = self.services.calls.room.journals.try_take(self.flow.owner, bytes);
                if room.is_none() {
                    return Err(Stop::Evicted);
                }
                self.services.store().journal(self.flow.row).await
            }
            Ok(Some(SizedJournal::Whole(journal))) => Ok(Some(*journal)),
            Ok(None) => Ok(None),
            Err(error) => Err(error),
        };
        let journal =
            read.map_err(|error| trouble(error.to_string()))?.ok_or_else(|| trouble("no journal".to_owned()))?;
        let restored = self.restore(start.clone(), &Arc::new(journal)).await;
        let (machine, start) = restored.map_err(|error| trouble(error.to_string()))?;
        let mut run = self.run(code.clone(), machine, &start, None);
        (run.shadow, run.journal_room) = (true, room);
        let (mut run, outcome) = self.services.code.run(code, run, &start, &self.parameters(&start)).await;
        run.memory.give_back();
        if let Some(stop) = run.stop.take() {
            return match stop {
                Stop::Over(error) => Ok(Err(error)),
                stop => Err(stop),
            };
        }
        let outcome = match outcome {
            Outcome::Returned(value) => returned(value, self.services.journal.message),
            Outcome::Failed(failure) => Err(*failure),
            // The host has no instance for the comparison: nothing is known of the flow.
            Outcome::Trapped(Trap { kind: TrapKind::Host, message, .. }) => return Err(trouble(message)),
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
        Ok(value) => match maxhost_model::cbor_to_json_text(value) {
            Ok(json) => json.text.chars().take(200).collect(),
            Err(_) => format!("{} bytes", value.len()),
        },
        Err(error) => error.clone().brief().to_string(),
    }
}
