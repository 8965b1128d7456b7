//! Time and randomness, which cost no entries: both follow from the start of the flow and the events that it consumed.
//! And when the flow's waits are over.

use maxhost_journal::{Nanos, Step};
use maxhost_model::{ErrorKind, FlowError};
use maxhost_sandbox::CallResult;

use super::FlowCalls;
use crate::base::clock::Moment;

/// Random bytes a guest may ask for at once.
const MAX_RANDOM: u32 = 65_536;

impl FlowCalls {
    /// Looks again at the open call.
    pub fn resume(&mut self) -> Step {
        let time = self.time();
        self.machine.resume(time)
    }

    /// The time that the flow is told, in which no deadline of its comes early or late because the clock was set.
    pub(super) fn time(&self) -> Nanos {
        match self.has_deadline {
            true => self.services.deadlines.time(&*self.services.clock, self.flow.row),
            false => self.services.now(),
        }
    }

    /// The moment at which the open call's wait is over.
    pub fn deadline(&mut self) -> Option<Moment> {
        let until = self.machine.wait_until()?;
        self.has_deadline = true;
        let from = self.machine.reckoned_from();
        Some(self.services.deadlines.moment(&*self.services.clock, self.flow.row, until, Some(from)))
    }

    pub(super) fn random_bytes(&mut self, length: u32) -> CallResult<Vec<u8>> {
        if length > MAX_RANDOM {
            let text = format!("{length} random bytes at once, at most {MAX_RANDOM} are given");
            return Err(FlowError::new(ErrorKind::IllegalArgument, text).into());
        }
        Ok(self.machine.random(length as usize))
    }
}
