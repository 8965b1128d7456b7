//! Giving memory back to the system.
//!
//! The allocator lets go of pages that are free only when somebody allocates again. What a start or a burst of work has
//! left over would so stay resident for as long as the host is idle: some 15 MB after each start, over 100 MB after one
//! that compiled CorDapps (`docs/benchmarks.md`).

use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// When it is done for the first time: what a start has left over is free by then.
const SETTLED: Duration = Duration::from_secs(2);
/// How often it is done from then on. It takes some milliseconds.
const EVERY: Duration = Duration::from_secs(15);

/// Gives free memory back now and then, until the host stops.
pub fn give_back(stop: CancellationToken) {
    tokio::spawn(async move {
        let mut pause = SETTLED;
        loop {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => return,
            }
            pause = EVERY;
            // Not on the threads for I/O: the system may take its time over many pages.
            let collected = tokio::task::spawn_blocking(|| {
                // SAFETY: the call may be made at any time on any thread; it touches free memory only.
                unsafe { libmimalloc_sys::mi_collect(true) }
            });
            if let Err(error) = collected.await {
                tracing::debug!(%error, "free memory was not given back");
            }
        }
    });
}
