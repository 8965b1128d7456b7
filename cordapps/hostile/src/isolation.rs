//! State that one flow run has for itself.

use std::cell::Cell;

use maxhost_sdk::prelude::*;

/// How often.
#[derive(Serialize, Deserialize, JsonSchema)]
pub struct Times {
    /// How often both counters are raised, with a wait after each.
    pub times: u32,
}

/// Where both counters stand.
#[derive(Serialize, Deserialize, JsonSchema)]
pub struct Counters {
    /// Of the `static mut`.
    pub r#static: u32,
    /// Of the thread-local.
    pub thread_local: u32,
}

static mut STATIC: u32 = 0;

thread_local! {
    static THREAD_LOCAL: Cell<u32> = const { Cell::new(0) };
}

/// Raises two counters that all runs would share if they shared anything.
#[flow(startable)]
pub fn statics(input: Times) -> Result<Counters> {
    for _ in 0..input.times {
        // SAFETY: a guest has one thread, and no reference to the counter exists.
        unsafe { STATIC += 1 };
        THREAD_LOCAL.set(THREAD_LOCAL.get() + 1);
        // Not zero: a wait that is over before it begins would be none.
        sleep(Duration::from_millis(1))?;
    }
    // SAFETY: as above.
    Ok(Counters { r#static: unsafe { STATIC }, thread_local: THREAD_LOCAL.get() })
}
