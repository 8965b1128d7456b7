//! How many instances there may be at once.

use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::verdict::LocalError;
use crate::pace::is_brief;

/// How long is waited for a slot. A call ends by its fuel long before.
const PATIENCE: Duration = Duration::from_secs(30);

/// A number of slots that threads share.
pub(super) struct Slots {
    free: Mutex<u32>,
    freed: Condvar,
}

/// A slot in use, until it is dropped.
pub(super) struct Slot<'a>(&'a Slots);

impl Slots {
    pub(super) fn new(count: u32) -> Slots {
        Slots { free: Mutex::new(count), freed: Condvar::new() }
    }

    /// Waits for a slot; brief work has it at once or not at all.
    pub(super) fn take(&self) -> Result<Slot<'_>, LocalError> {
        let mut free = self.free.lock();
        if *free == 0 && is_brief() {
            return Err(LocalError::Busy { waited_ms: 0 });
        }
        let deadline = Instant::now() + PATIENCE;
        while *free == 0 {
            if self.freed.wait_until(&mut free, deadline).timed_out() && *free == 0 {
                let waited_ms = u64::try_from(PATIENCE.as_millis()).unwrap_or(u64::MAX);
                return Err(LocalError::Busy { waited_ms });
            }
        }
        *free -= 1;
        Ok(Slot(self))
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        *self.0.free.lock() += 1;
        self.0.freed.notify_one();
    }
}
