//! The processor's time of threads, and what of it a guest has had.
//!
//! A guest is charged for the processor's time, not for what a clock on the wall shows: on a machine that is busy one that
//! computes little may be held up for long.

use std::cell::Cell;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// The processor's time that this thread has had.
#[must_use]
pub fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

thread_local! {
    /// The thread's time when it last went on with a guest after a tick.
    static WENT_ON: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

/// This thread goes on with a guest after a tick.
pub(crate) fn note_going_on() {
    WENT_ON.set(thread_time());
}

/// What this thread has worked since it last went on with a guest. If that was another guest, because this one came here
/// from a call, it is more than this one has had, and never less.
pub(crate) fn since_going_on() -> Duration {
    thread_time().saturating_sub(WENT_ON.get())
}
