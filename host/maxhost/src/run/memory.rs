//! What the host's memory is made of, and giving it back to the system.
//!
//! The allocator lets go of pages that are free only when somebody allocates again. What a start or a burst of work has
//! left over would so stay resident for as long as the host is idle: some 15 MB after each start, and more after one that
//! compiled CorDapps (`docs/benchmarks.md`).

use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// When it is done for the first time: what a start has left over is free by then.
const SETTLED: Duration = Duration::from_secs(2);
/// How often it is done from then on. It takes some milliseconds.
const EVERY: Duration = Duration::from_secs(15);

/// Has the system give this process pages of the ordinary size only. The allocator asks for huge ones, and each of those is
/// resident as a whole while anything in it is used: an idle host was larger by a quarter, and nothing was faster
/// (`docs/benchmarks.md`). A system that cannot do so goes on as before.
pub fn use_small_pages() {
    // SAFETY: the call sets a flag of this process and reads no memory.
    let failed = unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0) } != 0;
    if failed {
        tracing::debug!(error = %std::io::Error::last_os_error(), "the system may use huge pages");
    }
}

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
