//! Time and randomness, which cost no entries: both follow from the start of the flow and the events that it consumed.

use maxhost_model::{ErrorKind, FlowError};
use maxhost_sandbox::CallResult;

use super::FlowCalls;

/// Random bytes a guest may ask for at once.
const MAX_RANDOM: u32 = 65_536;

impl FlowCalls {
    pub(super) fn random_bytes(&mut self, length: u32) -> CallResult<Vec<u8>> {
        if length > MAX_RANDOM {
            let text = format!("{length} random bytes at once, at most {MAX_RANDOM} are given");
            return Err(FlowError::new(ErrorKind::IllegalArgument, text).into());
        }
        Ok(self.machine.random(length as usize))
    }
}
