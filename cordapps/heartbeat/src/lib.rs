//! A flow that mostly sleeps: asleep it costs its host nothing, and wakes where it stopped.

use maxhost_sdk::prelude::*;

/// How often, and how far apart.
#[derive(Serialize, Deserialize, JsonSchema)]
pub struct Rhythm {
    /// How many beats.
    pub beats: u32,
    /// Milliseconds before each; at most five minutes.
    pub interval_ms: u64,
}

/// What was done.
#[derive(Serialize, Deserialize, JsonSchema)]
pub struct Beats {
    /// How many beats there were.
    pub beats: u32,
}

/// Sleeps and wakes `beats` times.
#[flow(startable)]
fn beat(rhythm: Rhythm) -> Result<Beats> {
    for beat in 1..=rhythm.beats {
        sleep(Duration::from_millis(rhythm.interval_ms))?;
        progress!("beat {beat} of {}", rhythm.beats);
    }
    Ok(Beats { beats: rhythm.beats })
}

cordapp! { flows: [beat] }
