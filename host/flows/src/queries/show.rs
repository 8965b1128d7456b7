//! Showing flows: from memory where they are, from the database where they are not.

use std::sync::Arc;

use maxhost_journal::{Machine, Segment, StartRecord, Wait};
use maxhost_model::{FlowId, Problem};
use maxhost_store::{FlowRecord, FlowState, StoredJournal};
use tokio::sync::oneshot;

use crate::activation::folds_at_once;
use crate::api::{ApiResult, FlowDetail, FlowPhase, FlowSummary, SessionView, WaitingFor};
use crate::commit::outcomes::EndRecord;
use crate::flow::running_flow::RunningFlow;
use crate::flow::status::RoomWait;
use crate::host::lifecycle::Host;
use crate::host::parts::Parts;
use crate::registry::entry::EntryState;
use crate::registry::message::{IdentityCommand, Stand};

impl Parts {
    pub(super) fn running(&self, id: FlowId) -> Option<Arc<RunningFlow>> {
        let flow = self.flows.get(id.row())?;
        (flow.known_id() == Some(id)).then_some(flow)
    }

    /// The flow of a flow that the database has: also while it does not know its own id yet.
    fn running_stored(&self, record: &FlowRecord) -> Option<Arc<RunningFlow>> {
        self.flows.get(record.row)
    }

    /// The phase of a live flow.
    fn live_phase(&self, record: &FlowRecord) -> FlowPhase {
        match (record.state, self.running_stored(record)) {
            (FlowState::Completed, _) => FlowPhase::Completed,
            (FlowState::Failed, _) => FlowPhase::Failed,
            (FlowState::Killed, _) => FlowPhase::Killed,
            (FlowState::Paused, _) => FlowPhase::Paused,
            (FlowState::Hospital, None) => FlowPhase::Hospital,
            (_, Some(flow)) if !flow.is_waiting() => FlowPhase::Running,
            (_, Some(_)) | (FlowState::Live, None) => FlowPhase::Suspended,
        }
    }

    pub(super) fn summary(&self, record: &FlowRecord) -> FlowSummary {
        let end = record.end.as_ref().and_then(EndRecord::decode_stored);
        let identity = self.directory.name_of(record.identity);
        let progress = match &end {
            Some(end) => end.progress.clone(),
            None => self.running_stored(record).and_then(|flow| flow.view().label().map(str::to_owned)),
        };
        FlowSummary {
            flow_id: record.id,
            identity: identity.map(|name| name.to_string()).unwrap_or_default(),
            flow: record.name.clone(),
            client_id: record.client_id.clone(),
            phase: self.live_phase(record),
            started_ms: record.started,
            finished_ms: record.finished,
            progress,
            result: end.as_ref().map(EndRecord::result),
            reason: record.reason.clone().filter(|_| record.state == FlowState::Hospital),
        }
    }
}

impl Parts {
    /// A client is sent what a flow has come to.
    pub(super) fn result_is_sent(&self, id: FlowId) {
        let at = i64::try_from(crate::base::clock::wall_millis(&*self.clock)).unwrap_or(i64::MAX);
        self.results_read.note(id.row(), at);
    }
}

impl Host {
    pub(super) async fn detail(&self, id: FlowId) -> ApiResult<FlowDetail> {
        let detail = self.find_detail(id).await?;
        if detail.summary.result.is_some() {
            self.parts.result_is_sent(id);
        }
        Ok(detail)
    }

    async fn find_detail(&self, id: FlowId) -> ApiResult<FlowDetail> {
        if let Some(end) = self.parts.outcomes.get(id.row()).filter(|end| end.summary.flow_id == id) {
            return Ok(end.as_ref().clone());
        }
        let journal = self.parts.store.journal(id.row()).await.map_err(Problem::from)?;
        let Some(journal) = journal.filter(|journal| journal.record.id == id) else {
            // It may have ended, and been forgotten, between the two looks.
            return match self.parts.outcomes.get(id.row()).filter(|end| end.summary.flow_id == id) {
                Some(end) => Ok(end.as_ref().clone()),
                None => super::unknown_flow(id),
            };
        };
        let stand = self.stand(&journal.record).await;
        let start = StartRecord::decode(&journal.record.start).ok();
        let journal = Arc::new(journal);
        let machine = self.machine(&journal, start.clone()).await;
        Ok(self.detail_of(&journal, start, machine, stand))
    }

    async fn stand(&self, record: &FlowRecord) -> Option<Stand> {
        let entry = self.parts.directory.by_row(record.identity)?;
        if !record.state.is_live() || !matches!(&*entry.state.lock(), EntryState::Active { open: true, .. }) {
            return None;
        }
        let (reply, stand) = oneshot::channel();
        self.parts.waking.tell(&entry, IdentityCommand::Stand { row: record.row, reply });
        stand.await.ok().flatten()
    }

    fn detail_of(
        &self,
        journal: &StoredJournal,
        start: Option<StartRecord>,
        machine: Option<Machine>,
        stand: Option<Stand>,
    ) -> FlowDetail {
        let record = &journal.record;
        let mut summary = self.parts.summary(record);
        let end = record.end.as_ref().and_then(EndRecord::decode_stored);
        if let Some(machine) = &machine {
            summary.progress = summary.progress.or_else(|| machine.label().map(str::to_owned));
        }
        let sessions = match (&machine, &end) {
            (Some(machine), _) => machine.summaries().into_iter().map(session_view).collect(),
            (None, Some(end)) => end.sessions.iter().map(ended_session).collect(),
            (None, None) => Vec::new(),
        };
        let (entries, bytes) = match (&machine, &end) {
            (Some(machine), _) => (machine.entries(), machine.bytes()),
            (None, Some(end)) => (end.entries, end.bytes),
            (None, None) => (0, 0),
        };
        // An attempt that has not written anything yet is known in memory only.
        let (tried, no_room) = stand.map_or((0, None), |stand| (stand.attempts, stand.no_room));
        let attempts = match &end {
            Some(end) => end.attempts,
            None => machine.as_ref().map_or(0, Machine::attempt).max(tried),
        };
        let waiting_for = summary
            .phase
            .eq(&FlowPhase::Suspended)
            .then(|| match no_room {
                Some(room) => Some(waits_to_send(&room)),
                None => self.waiting_for(journal, &sessions, record.started),
            })
            .flatten();
        FlowDetail {
            waiting_for,
            cordapp: start.as_ref().map(|s| format!("{} {}", s.cordapp, s.cordapp_version)).unwrap_or_default(),
            component_hash: start.as_ref().map(|s| hex::encode(s.component)).unwrap_or_default(),
            origin: start.as_ref().map(|s| crate::activation::origin_text(&s.origin)).unwrap_or_default(),
            sessions,
            more_sessions: end.as_ref().map_or(0, |end| end.more_sessions),
            journal_entries: entries,
            journal_bytes: bytes,
            attempts: attempts.max(record.attempts).max(1),
            labels: match &end {
                Some(end) => end.labels,
                None => machine.as_ref().map(Machine::labels),
            },
            in_memory: self.parts.running_stored(record).is_some_and(|flow| flow.view().lack.is_none()),
            summary,
        }
    }

    /// A live flow as its journal has it. A long journal is folded on a thread for what blocks.
    async fn machine(&self, journal: &Arc<StoredJournal>, start: Option<StartRecord>) -> Option<Machine> {
        let (start, entry) = (start?, self.parts.directory.by_row(journal.record.identity)?);
        if journal.record.end.is_some() {
            return None;
        }
        let (me, limits, stored) = (entry.text.clone(), self.parts.journal, journal.clone());
        let fold = move || Machine::restore(me, stored.record.row, &start, limits, &stored.log, &stored.inbox).ok();
        match folds_at_once(journal) {
            true => fold(),
            false => tokio::task::spawn_blocking(fold).await.ok().flatten(),
        }
    }

    fn waiting_for(&self, journal: &StoredJournal, sessions: &[SessionView], started: i64) -> Option<WaitingFor> {
        let view = self.parts.running_stored(&journal.record).map(|flow| flow.view()).unwrap_or_default();
        if let Some((lack, since)) = view.lack {
            return Some(waits_for_room(lack.as_str(), since as i64));
        }
        let (wait, since) = match view.waiting {
            Some((wait, since)) => (wait, since as i64),
            None => match journal.log.last() {
                Some((seq, body)) => {
                    let segment = Segment::decode_sealed(body, *seq).ok()?;
                    (segment.waits_for()?, (segment.at / 1_000_000) as i64)
                }
                None => return Some(waits_for_room("slot", started)),
            },
        };
        Some(wait_view(&wait, since, sessions))
    }
}

fn wait_view(wait: &Wait, since_ms: i64, sessions: &[SessionView]) -> WaitingFor {
    let peer = |index: &u32| sessions.get(*index as usize).map(|session| session.peer.clone());
    WaitingFor {
        what: wait.kind.as_str().to_owned(),
        since_ms,
        until_ms: wait.until,
        // Of its peers a flow that waits for the ledger waits for none, though it hears of their errors.
        parties: if wait.kind.is_of_ledger() { Vec::new() } else { wait.sessions.iter().filter_map(peer).collect() },
        awaited: wait.awaited.as_ref().map(|awaited| match awaited.more {
            0 => awaited.first.clone(),
            more => format!("{} and {more} more", awaited.first),
        }),
    }
}

fn waits_for_room(what: &str, since_ms: i64) -> WaitingFor {
    WaitingFor { what: what.to_owned(), since_ms, until_ms: None, parties: Vec::new(), awaited: None }
}

fn waits_to_send(room: &RoomWait) -> WaitingFor {
    let parties = room.party.iter().map(ToString::to_string).collect();
    WaitingFor { what: room.what.to_owned(), since_ms: room.since as i64, until_ms: None, parties, awaited: None }
}

fn session_view(session: maxhost_journal::SessionSummary) -> SessionView {
    SessionView { peer: session.peer.to_string(), state: session.state.to_owned(), unread: session.unread }
}

fn ended_session(session: &crate::commit::outcomes::SessionRecord) -> SessionView {
    SessionView { peer: session.peer.clone(), state: session.state.clone(), unread: 0 }
}
