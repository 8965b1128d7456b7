//! What operators are told as it happens.

use maxhost_model::Problem;
use tokio::sync::broadcast;

use crate::options::OperatorEvent;

/// The operators' feed. Clones are one and the same.
#[derive(Debug, Clone)]
pub(crate) struct OperatorEvents(broadcast::Sender<OperatorEvent>);

impl OperatorEvents {
    /// A reader may be so many events behind.
    pub fn new(capacity: usize) -> OperatorEvents {
        OperatorEvents(broadcast::Sender::new(capacity))
    }

    pub fn subscribe(&self) -> broadcast::Receiver<OperatorEvent> {
        self.0.subscribe()
    }

    pub fn emit(&self, event: OperatorEvent) {
        // Nobody listening is fine.
        let _ = self.0.send(event);
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
