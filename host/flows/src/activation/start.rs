//! The beginning of a new flow.

use maxhost_journal::StartRecord;

use super::{Activation, Starved, killed};
use crate::calls::StartUnit;
use crate::flow::running_flow::Signal;
use crate::guests::flow_code::FlowCode;
use crate::registry::message::ActivationOutcome;

impl Activation {
    pub(super) async fn begin(
        &self,
        start: StartRecord,
        code: FlowCode,
        unit: StartUnit,
    ) -> Result<ActivationOutcome, Starved> {
        let machine = self.machine(&start);
        let mut run = self.run(code, machine, &start, Some(unit));
        // A newcomer that has to wait for a slot is made durable first, so that its starter need not wait with it.
        let slot = match self.services.calls.room.slots.try_take() {
            Some(slot) => slot,
            None => {
                run.flush();
                match self.slot().await {
                    Some(slot) => slot,
                    None if self.flow.is_signalled(Signal::Kill) => return Ok(self.abort(run, &start, killed()).await),
                    // It has not run yet, so it has something to do at once.
                    None => return Ok(ActivationOutcome::Again),
                }
            }
        };
        let outcome = self.run_guest(run, &start).await;
        drop(slot);
        outcome
    }
}
