//! What operators are told as it happens.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use maxhost_model::Problem;
use parking_lot::Mutex;
use tokio::sync::broadcast;

use crate::options::OperatorEvent;

/// Events that are kept for the first listener at most.
const UNHEARD: usize = 1000;

/// The operators' feed. Clones are one and the same.
#[derive(Debug, Clone)]
pub(crate) struct OperatorEvents(Arc<Feed>);

#[derive(Debug)]
struct Feed {
    sender: broadcast::Sender<OperatorEvent>,
    /// Somebody has listened.
    is_heard: AtomicBool,
    /// What has happened to flows before. Nothing is put in once [`Feed::is_heard`] is set, which is done under this lock.
    unheard: Mutex<Vec<OperatorEvent>>,
}

impl OperatorEvents {
    /// A reader may be so many events behind.
    pub fn new(capacity: usize) -> OperatorEvents {
        let sender = broadcast::Sender::new(capacity);
        OperatorEvents(Arc::new(Feed { sender, is_heard: AtomicBool::new(false), unheard: Mutex::default() }))
    }

    /// What has happened to flows while nobody listened, and all that happens from then on. That identities came in before
    /// is no news.
    pub fn subscribe(&self) -> (Vec<OperatorEvent>, broadcast::Receiver<OperatorEvent>) {
        let mut unheard = self.0.unheard.lock();
        self.0.is_heard.store(true, Ordering::Release);
        (std::mem::take(&mut *unheard), self.0.sender.subscribe())
    }

    pub fn emit(&self, event: OperatorEvent) {
        if !self.0.is_heard.load(Ordering::Acquire) {
            let mut unheard = self.0.unheard.lock();
            if !self.0.is_heard.load(Ordering::Relaxed) {
                let is_kept = matches!(
                    event,
                    OperatorEvent::FlowEnded { error: Some(_), .. } | OperatorEvent::FlowHospitalised { .. }
                );
                if is_kept && unheard.len() < UNHEARD {
                    unheard.push(event);
                }
                return;
            }
        }
        // Whoever has gone is not told.
        let _ = self.0.sender.send(event);
    }

    /// Says that an identity cannot be hosted, and why: in the log, where no line is lost, and among the events.
    pub fn tell_quarantined(&self, identity: &str, problem: &Problem) {
        tracing::warn!(identity, code = %problem.code, reason = problem.message, "identity quarantined");
        self.emit(OperatorEvent::IdentityQuarantined {
            identity: identity.to_owned(),
            code: problem.code.to_string(),
            reason: problem.message.clone(),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hospitalised(flow: usize) -> OperatorEvent {
        OperatorEvent::FlowHospitalised {
            identity: "O=Alice, L=London, C=GB".to_owned(),
            flow_id: flow.to_string(),
            flow: "a/b".to_owned(),
            reason: "damaged".to_owned(),
        }
    }

    #[test]
    fn the_first_listener_hears_what_happened_to_flows_before() {
        let events = OperatorEvents::new(4);
        events.emit(OperatorEvent::IdentityAdded { identity: "Alice".to_owned() });
        for flow in 0..UNHEARD + 5 {
            events.emit(hospitalised(flow));
        }
        let (before, mut feed) = events.subscribe();
        assert_eq!(before.len(), UNHEARD);
        assert!(matches!(&before[0], OperatorEvent::FlowHospitalised { flow_id, .. } if flow_id == "0"));
        events.emit(hospitalised(7777));
        assert!(matches!(feed.try_recv(), Ok(OperatorEvent::FlowHospitalised { flow_id, .. }) if flow_id == "7777"));
        assert_eq!(events.subscribe().0.len(), 0, "it was told once");
    }
}
