//! Another build of the CorDapp `hostile`, of the same version: its flow `nondeterministic` does something else. Of the
//! other flows it has `statics` alone.

use maxhost_sdk::prelude::*;

#[path = "../../src/isolation.rs"]
pub mod isolation;

/// Sleeps for other times than the flow of this name in `hostile`. A guest has nothing of its own to be non-deterministic
/// with, so a flow that began with one build is put on the other.
#[flow(startable)]
pub fn nondeterministic() -> Result<()> {
    for _ in 0..1_000 {
        sleep(Duration::from_millis(20))?;
    }
    Ok(())
}

cordapp! {
    name: "hostile",
    flows: [isolation::statics, nondeterministic],
}
