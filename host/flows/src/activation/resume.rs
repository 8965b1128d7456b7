//! How a flow comes back from its journal, and what it waits for before: an instance, and memory for its guest.

use std::sync::Arc;
use std::time::Duration;

use maxhost_journal::{JournalError, Machine, StartRecord};
use maxhost_model::{Code, FlowError, Problem};
use maxhost_store::{FlowState, SizedJournal, StoreError, StoredJournal};

use super::{Activation, Starved, killed};
use crate::base::counters::Counters;
use crate::base::trouble::reason;
use crate::calls::FlowCalls;
use crate::commit::unit::Unit;
use crate::flow::running_flow::{Lack, Signal};
use crate::guests::admission::{SMALL_JOURNAL, Slot};
use crate::guests::flow_code::{FlowCode, NO_COMPONENT};
use crate::guests::memory::Grant;
use crate::registry::message::ActivationOutcome;

/// A larger journal is folded on a thread that may block.
const FOLDED_HERE: usize = 256 << 10;
/// How often a flow that waits for memory looks whether it can ever have it: limits change.
const LOOK: Duration = Duration::from_secs(5);

/// Whether a journal is so short that it is folded where it is asked for.
pub(crate) fn folds_at_once(journal: &StoredJournal) -> bool {
    let log: usize = journal.log.iter().map(|(_, body)| body.len()).sum();
    let inbox: usize = journal.inbox.iter().map(|(_, _, body)| body.len()).sum();
    log + inbox <= FOLDED_HERE
}

impl Activation {
    /// Waits for the right to an instance. `None` if there will be none, or the flow is to end.
    pub(super) async fn slot(&self) -> Option<Slot> {
        if let Some(slot) = self.services.calls.room.slots.try_take() {
            return Some(slot);
        }
        self.flow.show_lack(Some((Lack::Instance, self.services.calls.now_millis())));
        let slot = tokio::select! {
            biased;
            slot = self.services.calls.room.slots.take() => slot,
            () = self.signalled() => None,
        };
        self.flow.show_lack(None);
        slot
    }

    async fn signalled(&self) {
        while !self.flow.has_urgent_signal() {
            self.flow.wake().await;
        }
    }

    /// The instance is gone. What the run has read is made durable, so that the next run finds it.
    pub(super) fn starved(&self, mut run: FlowCalls, wanted: u64) -> Starved {
        Counters::add(&self.services.counters().evictions);
        run.flush();
        if run.has_read_ahead() {
            let mut unit = Unit::default();
            unit.op(self.set_state(FlowState::Live, None));
            run.build_on(&mut unit);
            unit.submit_for(self.services.committer(), self.opened.author(), &self.flow, |_| {});
        }
        Starved { wanted }
    }

    /// Waits, without an instance, for as much memory as the guest had asked for, and brings the flow back with it.
    pub(super) async fn wait_for_memory(&self, starved: Starved) -> Result<ActivationOutcome, Starved> {
        self.flow.settle().await;
        let mut grant = self.services.calls.room.memory.grant(self.flow.owner, self.opened.limits.memory);
        self.flow.show_lack(Some((Lack::Memory, self.services.calls.now_millis())));
        let granted = loop {
            let look = self.services.calls.clock.monotonic() + LOOK;
            tokio::select! {
                biased;
                granted = grant.reserve(starved.wanted) => break Some(granted),
                () = self.signalled() => break None,
                () = self.services.calls.clock.sleep_until(look) => {}
            }
        };
        self.flow.show_lack(None);
        match granted {
            Some(true) => self.go_on(None, Some(grant)).await,
            Some(false) => {
                let text = format!("the flow asked for {} bytes of memory, more than there are", starved.wanted);
                self.go_on(Some(FlowError::limit("memory", text)), None).await
            }
            None if self.flow.is_signalled(Signal::Kill) => self.go_on(Some(killed()), None).await,
            None => Ok(ActivationOutcome::Again),
        }
    }

    /// Brings the flow back: to run, or only to end with this error.
    pub(super) async fn go_on(
        &self,
        end: Option<FlowError>,
        memory: Option<Grant>,
    ) -> Result<ActivationOutcome, Starved> {
        let mut slot = if end.is_some() { None } else { self.slot().await };
        let mut end = end.or_else(|| self.flow.is_signalled(Signal::Kill).then(killed));
        if slot.is_none() && end.is_none() {
            return Ok(ActivationOutcome::Again);
        }
        self.flow.reads_journal();
        let (row, mut journal_room) = (self.flow.row, None);
        let read = match self.services.store().journal_within(row, SMALL_JOURNAL).await {
            Ok(Some(SizedJournal::Larger(bytes))) => {
                // Who waits for room has no instance.
                drop(slot.take());
                journal_room = self.journal_room(bytes, &mut end).await;
                if journal_room.is_some() && end.is_none() {
                    slot = self.slot().await;
                    end = end.or_else(|| self.flow.is_signalled(Signal::Kill).then(killed));
                }
                if journal_room.is_none() || (slot.is_none() && end.is_none()) {
                    return Ok(ActivationOutcome::Again);
                }
                self.flow.reads_journal();
                self.services.store().journal(row).await
            }
            Ok(Some(SizedJournal::Whole(journal))) => Ok(Some(*journal)),
            Ok(None) => Ok(None),
            Err(error) => Err(error),
        };
        let journal = match read {
            Ok(Some(journal)) => Arc::new(journal),
            Ok(None) => return Ok(ActivationOutcome::Ended),
            Err(error @ StoreError::Corrupt { .. }) => {
                return Ok(self.hospitalise(format!("{}: {error}", Code::JournalCorrupt)).await);
            }
            Err(error) => return Ok(self.troubled(Problem::from(error).into()).await),
        };
        let record = &journal.record;
        if !record.state.is_live() {
            return Ok(ActivationOutcome::Ended);
        }
        self.flow.set_name(record.id, &record.name, record.client_id.clone());
        self.flow.note_attempts(record.attempts);
        let restored = match StartRecord::decode(&record.start) {
            Ok(start) => self.restore(start, &journal).await,
            Err(error) => Err(error),
        };
        let (machine, start) = match (restored, &end) {
            (Ok(restored), _) => restored,
            (Err(error), Some(_)) => return Ok(self.end_unreadable(&journal, &error)),
            (Err(error), None) => return Ok(self.hospitalise(format!("{}: {error}", Code::JournalCorrupt)).await),
        };
        self.flow.note_attempts(machine.attempt());
        let code = match (self.code_of(&start).await, &end) {
            (Ok(code), _) => code,
            (Err(_), Some(error)) => return Ok(self.abort_bare(machine, &start, error.clone()).await),
            (Err(problem), None) => {
                return Ok(self.hospitalise(reason(&problem)).await);
            }
        };
        if record.state == FlowState::Hospital && end.is_none() {
            // Back from hospital (`docs/behaviour.md`, section 4): the reason is forgotten when the flow is tried again.
            let mut unit = Unit::default();
            unit.op(self.set_state(FlowState::Live, None));
            unit.submit_for(self.services.committer(), self.opened.author(), &self.flow, |_| {});
        }
        Counters::add(&self.services.counters().replays);
        // What the machine needs of it, it has.
        drop(journal);
        let mut run = self.run(code, machine, &start, None);
        run.journal_room = journal_room;
        if let Some(memory) = memory {
            run.memory = memory;
        }
        let outcome = match end {
            Some(error) => Ok(self.abort(run, &start, error).await),
            None => self.run_guest(run, &start).await,
        };
        drop(slot);
        outcome
    }

    /// Waits for room for the flow's journal; a flow that is killed meanwhile is to end. `None`: it is to be looked at again.
    async fn journal_room(&self, bytes: u64, end: &mut Option<FlowError>) -> Option<Grant> {
        let journals = &self.services.calls.room.journals;
        if end.is_none() {
            self.flow.show_lack(Some((Lack::Memory, self.services.calls.now_millis())));
            let room = tokio::select! {
                biased;
                room = journals.take(self.flow.owner, bytes, false) => Some(room),
                () = self.signalled() => None,
            };
            self.flow.show_lack(None);
            if room.is_some() || !self.flow.is_signalled(Signal::Kill) {
                return room;
            }
            *end = Some(killed());
        }
        Some(journals.take(self.flow.owner, bytes, true).await)
    }

    /// The machine as the journal left it. Not begun anew even if nothing is in it yet: what a start sends was written
    /// with it.
    pub(super) async fn restore(
        &self,
        start: StartRecord,
        journal: &Arc<StoredJournal>,
    ) -> Result<(Machine, StartRecord), JournalError> {
        let (me, row, limits) = (self.opened.entry.text.clone(), self.flow.row, self.services.journal);
        let stored = journal.clone();
        let fold = move || {
            let machine = Machine::restore(me, row, &start, limits, &stored.log, &stored.inbox)?;
            Ok((machine, start))
        };
        if folds_at_once(journal) {
            return fold();
        }
        self.services.placement.work(self.flow.owner, fold).await.unwrap_or_else(|trouble| {
            let what = "of the flow".to_owned();
            Err(JournalError::Corrupt { what, reason: format!("it could not be read: {}", trouble.problem()) })
        })
    }

    /// The code that the flow was started with, whatever is installed now.
    async fn code_of(&self, start: &StartRecord) -> Result<FlowCode, Problem> {
        if start.component == NO_COMPONENT
            && let Some(native) = FlowCode::native(&start.flow)
        {
            return Ok(native);
        }
        let (catalogue, hash) = (self.services.catalogue.clone(), start.component);
        let app = match self.services.catalogue.loaded(&hash) {
            Some(app) => app,
            None => tokio::task::spawn_blocking(move || catalogue.by_hash(&hash))
                .await
                .map_err(|error| Problem::new(Code::Internal, error.to_string()))??,
        };
        app.flow(&start.flow).cloned().map(FlowCode::Guest).ok_or_else(|| {
            let text = format!("CorDapp {} has no flow '{}'", app.name(), start.flow);
            Problem::new(Code::FlowTypeNotFound, text)
        })
    }
}
