//! Following a flow: first what is known behind the client's cursor, then what happens.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use maxhost_journal::{LatestLabels, Segment};
use maxhost_model::{Class, FlowId, Problem};

use crate::api::{ApiResult, FlowEvent, FlowEvents, FlowSummary};
use crate::base::error::{cursor_invalid, stopping};
use crate::commit::outcomes::EndRecord;
use crate::host::lifecycle::Host;
use crate::host::parts::Parts;
use crate::reporting::watchers::Watch;

/// How often the database is asked about a flow that another host may run.
const LOOK: Duration = Duration::from_millis(500);

/// What is known of a flow at one moment.
struct Snapshot {
    events: Vec<FlowEvent>,
    ended: bool,
    /// How many labels the flow has had, if that is known. Nobody was told of a later one: labels are told when they are
    /// committed, and shown before they are told.
    labels: Option<u64>,
}

impl Snapshot {
    fn ended(summary: FlowSummary, labels: Option<u64>) -> Snapshot {
        Snapshot { events: vec![FlowEvent::Ended { summary: Box::new(summary) }], ended: true, labels }
    }

    fn check(self, id: FlowId, cursor: u64) -> ApiResult<Snapshot> {
        match self.labels {
            Some(last) if cursor > last => Err(cursor_invalid(id, cursor, last)),
            Some(_) | None => Ok(self),
        }
    }
}

impl Host {
    pub(super) async fn attach_to(&self, id: FlowId, cursor: u64) -> ApiResult<FlowEvents> {
        let watch = Watch::new(&self.parts.watchers, id.row());
        let Snapshot { events, ended, .. } = snapshot(&self.parts, id, cursor).await?.check(id, cursor)?;
        Ok(self.follow(Follower::new(self.parts.clone(), id, watch, (cursor, events), ended)))
    }

    /// Everything that happens to a flow that was watched since before it began.
    pub(super) fn follow_new(&self, id: FlowId, watch: Watch) -> FlowEvents {
        let phase = FlowEvent::Phase { phase: super::FlowPhase::Running, reason: None };
        self.follow(Follower::new(self.parts.clone(), id, watch, (0, vec![phase]), false))
    }

    /// No task of its own: whoever polls the stream is woken by the event itself.
    fn follow(&self, follower: Follower) -> FlowEvents {
        Box::pin(futures::stream::unfold(follower, |mut follower| async move {
            let event = follower.next().await?;
            Some((event, follower))
        }))
    }
}

/// What is known of a flow behind a cursor: from memory if it is there, else from the database.
async fn snapshot(parts: &Parts, id: FlowId, cursor: u64) -> ApiResult<Snapshot> {
    // An end is remembered before the watchers are told of it: whoever began to watch before he finds none here is told.
    // One who finds it may have come too late for that, so it counts, though the flow is in memory for a moment still. The
    // labels of a flow that has ended are in the database only.
    let remembered = parts.outcomes.get(id.row()).filter(|end| end.summary.flow_id == id);
    let has_ended = remembered.is_some();
    if let Some(end) = remembered.filter(|end| end.labels.is_some_and(|labels| labels <= cursor)) {
        return Ok(Snapshot::ended(end.summary.clone(), end.labels));
    }
    if let Some(flow) = parts.running(id).filter(|_| !has_ended) {
        let view = flow.view();
        let complete = view.whole || view.labels.front().is_some_and(|(first, _)| *first <= cursor.saturating_add(1));
        if complete {
            let phase = if view.is_waiting() { super::FlowPhase::Suspended } else { super::FlowPhase::Running };
            let mut events = vec![FlowEvent::Phase { phase, reason: None }];
            let last = view.labels.back().map_or(0, |(last, _)| *last);
            events.extend(progress_behind(cursor, view.labels));
            return Ok(Snapshot { events, ended: false, labels: Some(last) });
        }
    }
    let journal = parts.store.journal(id.row()).await.map_err(Problem::from)?;
    let Some(journal) = journal.filter(|journal| journal.record.id == id) else {
        return match parts.outcomes.get(id.row()).filter(|end| end.summary.flow_id == id) {
            Some(end) => Ok(Snapshot::ended(end.summary.clone(), end.labels)),
            // In memory, and its first or its last commit is on its way.
            None if parts.running(id).is_some() => {
                let phase = super::FlowPhase::Running;
                let events = vec![FlowEvent::Phase { phase, reason: None }];
                Ok(Snapshot { events, ended: false, labels: None })
            }
            None => super::unknown_flow(id),
        };
    };
    let summary = parts.summary(&journal.record);
    if summary.phase.is_ended() {
        let end = journal.record.end.as_ref().and_then(EndRecord::decode_stored);
        let labels = LatestLabels::decode(journal.record.labels.as_deref().unwrap_or_default());
        let mut ended = Snapshot::ended(summary, end.and_then(|end| end.labels));
        ended.events.splice(..0, progress_behind(cursor, labels));
        return Ok(ended);
    }
    let mut events = vec![FlowEvent::Phase { phase: summary.phase, reason: summary.reason }];
    let mut count = Some(0);
    for (seq, body) in &journal.log {
        let Ok(mut segment) = Segment::decode_sealed(body, *seq) else {
            count = None;
            continue;
        };
        count = count.map(|count: u64| count.max(segment.progress_count));
        events.extend(progress_behind(cursor, segment.take_labels()));
    }
    Ok(Snapshot { events, ended: false, labels: count })
}

/// The labels that a client with this cursor has not seen.
fn progress_behind(cursor: u64, labels: impl IntoIterator<Item = (u64, String)>) -> impl Iterator<Item = FlowEvent> {
    let unseen = labels.into_iter().filter(move |(number, _)| *number > cursor);
    unseen.map(|(cursor, label)| FlowEvent::Progress { cursor, label })
}

/// Passes a flow's events on to one client.
struct Follower {
    parts: Arc<Parts>,
    id: FlowId,
    /// The last label the client has.
    cursor: u64,
    /// What was known when the client came and was not passed on yet.
    known: VecDeque<FlowEvent>,
    watch: Watch,
    /// Nothing comes after what is known.
    complete: bool,
    /// The phase that the client was told last.
    phase: Option<super::FlowPhase>,
}

impl Follower {
    fn new(
        parts: Arc<Parts>,
        id: FlowId,
        watch: Watch,
        (cursor, known): (u64, Vec<FlowEvent>),
        complete: bool,
    ) -> Follower {
        Follower { parts, id, cursor, known: known.into(), watch, complete, phase: None }
    }

    /// The next event for the client; `None` behind the last.
    async fn next(&mut self) -> Option<ApiResult<FlowEvent>> {
        loop {
            let event = match self.known.pop_front() {
                Some(event) => Ok(event),
                None if self.complete => return None,
                None => self.receive().await?,
            };
            if !matches!(event, Ok(FlowEvent::Phase { .. } | FlowEvent::Progress { .. })) {
                self.complete = true;
                self.known.clear();
            }
            if let Ok(FlowEvent::Ended { .. }) = &event {
                self.parts.result_is_sent(self.id);
            }
            if let Ok(FlowEvent::Phase { phase, .. }) = &event {
                self.phase = Some(*phase);
            }
            if let Ok(FlowEvent::Progress { cursor, .. }) = &event {
                if *cursor <= self.cursor {
                    continue;
                }
                self.cursor = *cursor;
            }
            return Some(event);
        }
    }

    async fn receive(&mut self) -> Option<ApiResult<FlowEvent>> {
        loop {
            let may_be_elsewhere = self.parts.membership.is_some() && self.parts.running(self.id).is_none();
            tokio::select! {
                event = self.watch.next() => return event.map(Ok),
                // The client is told to come again.
                () = self.parts.stopping.cancelled() => return Some(Err(stopping())),
                () = tokio::time::sleep(LOOK), if may_be_elsewhere => {
                    if let Some(event) = self.look().await {
                        return Some(event);
                    }
                }
            }
        }
    }

    /// Another host may run the flow: what it wrote is in the database.
    async fn look(&mut self) -> Option<ApiResult<FlowEvent>> {
        let Snapshot { events, .. } = match snapshot(&self.parts, self.id, self.cursor).await {
            Ok(found) => found,
            Err(problem) if problem.class() == Class::Unavailable => return None,
            Err(problem) => return Some(Err(problem)),
        };
        let is_news =
            |event: &FlowEvent| !matches!(event, FlowEvent::Phase { phase, .. } if Some(*phase) == self.phase);
        let news: Vec<FlowEvent> = events.into_iter().filter(is_news).collect();
        self.known.extend(news);
        self.known.pop_front().map(Ok)
    }
}
