//! Following a flow: first what is known behind the client's cursor, then what happens.

use std::sync::Arc;

use maxhost_journal::Segment;
use maxhost_model::{Code, FlowId, Problem};
use tokio::sync::{broadcast, mpsc};

use crate::api::{ApiResult, FlowEvent, FlowEvents};
use crate::core::Core;
use crate::host::Host;
use crate::problems::stopping;

/// Events that wait for one client; a slower one holds up only itself.
const AHEAD: usize = 64;

/// What is known of a flow at one moment.
struct Snapshot {
    events: Vec<FlowEvent>,
    ended: bool,
}

impl Host {
    pub(super) async fn attach_to(&self, id: FlowId, cursor: u64) -> ApiResult<FlowEvents> {
        // Subscribed before the flow is looked at: so no event falls between the two.
        let events = self.core.watchers.subscribe(id.row());
        let snapshot = match self.snapshot(id, cursor).await {
            Ok(snapshot) => snapshot,
            Err(problem) => {
                drop(events);
                self.core.watchers.release(id.row());
                return Err(problem);
            }
        };
        let (sender, receiver) = mpsc::channel(AHEAD);
        let follower = Follower { host: self.follower(), id, cursor, sender };
        self.core.io.spawn(follower.run(snapshot, events));
        let next =
            |mut receiver: mpsc::Receiver<_>| async move { receiver.recv().await.map(|event| (event, receiver)) };
        Ok(Box::pin(futures::stream::unfold(receiver, next)))
    }

    fn follower(&self) -> Arc<Core> {
        self.core.clone()
    }

    async fn snapshot(&self, id: FlowId, cursor: u64) -> ApiResult<Snapshot> {
        if let Some(end) = self.core.ends.get(id.row()).filter(|end| end.summary.flow_id == id) {
            return Ok(ended(end.summary.clone()));
        }
        if let Some(port) = self.port_of(id) {
            let view = port.view();
            let complete = view.labels.front().is_some_and(|(first, _)| *first <= cursor + 1);
            if complete || (view.labels.is_empty() && !port.is_durable()) {
                let phase =
                    if view.waiting.is_some() { super::FlowPhase::Suspended } else { super::FlowPhase::Running };
                let mut events = vec![FlowEvent::Phase { phase, reason: None }];
                let labels = view.labels.into_iter().filter(|(number, _)| *number > cursor);
                events.extend(labels.map(|(cursor, label)| FlowEvent::Progress { cursor, label }));
                return Ok(Snapshot { events, ended: false });
            }
        }
        let journal = self.core.store.journal(id.row()).await.map_err(Problem::from)?;
        let Some(journal) = journal.filter(|journal| journal.record.id == id) else {
            return match self.core.ends.get(id.row()).filter(|end| end.summary.flow_id == id) {
                Some(end) => Ok(ended(end.summary.clone())),
                // In memory, and its first commit is on its way.
                None if self.port_of(id).is_some() => {
                    let phase = super::FlowPhase::Running;
                    Ok(Snapshot { events: vec![FlowEvent::Phase { phase, reason: None }], ended: false })
                }
                None => super::unknown_flow(id),
            };
        };
        let summary = self.summary(&journal.record);
        if summary.phase.is_ended() {
            return Ok(ended(summary));
        }
        let mut events = vec![FlowEvent::Phase { phase: summary.phase, reason: summary.reason }];
        for (seq, body) in &journal.log {
            let Ok(segment) = Segment::decode_sealed(body, *seq) else { continue };
            let first = (segment.progress_count + 1).saturating_sub(segment.progress.len() as u64);
            let labels = (first..).zip(segment.progress).filter(|(number, _)| *number > cursor);
            events.extend(labels.map(|(cursor, label)| FlowEvent::Progress { cursor, label }));
        }
        Ok(Snapshot { events, ended: false })
    }
}

fn ended(summary: super::FlowSummary) -> Snapshot {
    Snapshot { events: vec![FlowEvent::Ended { summary: Box::new(summary) }], ended: true }
}

/// Passes a flow's events on to one client.
struct Follower {
    host: Arc<Core>,
    id: FlowId,
    /// The last label the client has.
    cursor: u64,
    sender: mpsc::Sender<ApiResult<FlowEvent>>,
}

impl Follower {
    async fn run(mut self, snapshot: Snapshot, mut events: broadcast::Receiver<FlowEvent>) {
        for event in snapshot.events {
            if !self.pass(event).await {
                break;
            }
        }
        if !snapshot.ended {
            self.follow(&mut events).await;
        }
        drop(events);
        self.host.watchers.release(self.id.row());
    }

    async fn follow(&mut self, events: &mut broadcast::Receiver<FlowEvent>) {
        loop {
            let event = tokio::select! {
                event = events.recv() => event,
                () = self.sender.closed() => return,
                () = self.host.stopping.cancelled() => {
                    // The client is told to come again; if it has gone, so be it.
                    let _ = self.sender.send(Err(stopping())).await;
                    return;
                }
            };
            match event {
                Ok(event) => {
                    if !self.pass(event).await {
                        return;
                    }
                }
                // Labels were lost to a slow client. Passing on later ones would move its cursor over the gap, so it is
                // told to attach again, and gets them all from the journal.
                Err(broadcast::error::RecvError::Lagged(missed)) => {
                    let text = format!("the client was {missed} events behind: attach again with the last cursor");
                    let _ = self.sender.send(Err(Problem::new(Code::Overloaded, text))).await;
                    return;
                }
                Err(broadcast::error::RecvError::Closed) => return,
            }
        }
    }

    /// False when there is nothing more to pass.
    async fn pass(&mut self, event: FlowEvent) -> bool {
        let last = matches!(event, FlowEvent::Ended { .. });
        if let FlowEvent::Progress { cursor, .. } = &event {
            if *cursor <= self.cursor {
                return true;
            }
            self.cursor = *cursor;
        }
        self.sender.send(Ok(event)).await.is_ok() && !last
    }
}
