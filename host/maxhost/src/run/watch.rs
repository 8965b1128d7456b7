//! Watches folders: a bell that rings when something may have changed in one.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// How often a folder is looked at though nobody rang: the system's notices may get lost, or not exist (network drives).
const SLOW: Duration = Duration::from_secs(30);
/// The same where there are no notices at all.
const WITHOUT_NOTICES: Duration = Duration::from_secs(2);
/// Changes come in bursts: so long is waited for the rest.
const SETTLE: Duration = Duration::from_millis(30);

/// Rings when a folder may have changed.
pub struct Bell {
    rung: Arc<Notify>,
    pause: Duration,
    // Kept: dropping the watcher ends the notices.
    _watcher: Option<RecommendedWatcher>,
}

impl Bell {
    /// Watches a folder, and with `deep` those below it.
    pub fn new(folder: &Path, deep: bool) -> Bell {
        let rung = Arc::new(Notify::new());
        let ring = Arc::clone(&rung);
        let mode = if deep { RecursiveMode::Recursive } else { RecursiveMode::NonRecursive };
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // Reading a file is no change; an error may hide one.
            if !event.is_ok_and(|event| event.kind.is_access()) {
                ring.notify_one();
            }
        });
        let watcher = watcher.and_then(|mut watcher| watcher.watch(folder, mode).map(|()| watcher));
        let pause = if watcher.is_ok() { SLOW } else { WITHOUT_NOTICES };
        if let Err(error) = &watcher {
            tracing::warn!(folder = %folder.display(), %error, "the folder cannot be watched; it is looked at every two seconds");
        }
        // Whatever changed since the folder was last read and before the notices began is found by a first look.
        rung.notify_one();
        Bell { rung, pause, _watcher: watcher.ok() }
    }

    /// Waits until it is time to look. False when the host stops.
    pub async fn wait(&self, stop: &CancellationToken) -> bool {
        tokio::select! {
            () = stop.cancelled() => return false,
            () = self.rung.notified() => {}
            () = tokio::time::sleep(self.pause) => {}
        }
        tokio::select! {
            () = stop.cancelled() => false,
            () = tokio::time::sleep(SETTLE) => true,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn a_new_file_rings_and_a_stop_ends_the_wait() {
        let dir = tempfile::tempdir().unwrap();
        let bell = Bell::new(dir.path(), false);
        let stop = CancellationToken::new();
        std::fs::write(dir.path().join("x"), "1").unwrap();
        let rung = tokio::time::timeout(Duration::from_secs(10), bell.wait(&stop)).await;
        assert_eq!(rung, Ok(true));
        stop.cancel();
        assert!(!bell.wait(&stop).await);
    }
}
