//! What a host removes when nobody needs it any more: ended flows whose time is over, and the code of CorDapps that are
//! neither installed nor named by a live flow.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use maxhost_journal::StartRecord;
use maxhost_model::{Code, FlowRow, Problem};

use crate::core::Core;

/// Ended flows that are forgotten in one commit.
const PURGE: u32 = 1000;
/// How often ended flows are looked at.
const PURGE_EVERY: Duration = Duration::from_secs(5);
/// How often components are looked at, unless the folder of installed ones changes before.
const CLEAN_EVERY: Duration = Duration::from_secs(600);
/// How long after a change of the installed components they are looked at.
const SETTLING: Duration = Duration::from_secs(1);
/// Start records read at once.
const STARTS: usize = 256;

/// Forgets ended flows when their time is over, until the host stops.
pub(crate) async fn purge(core: Arc<Core>) {
    loop {
        match core.store.purge(PURGE).await {
            Ok(purged) if purged >= u64::from(PURGE) => continue,
            Ok(_) => {}
            Err(error) => tracing::debug!(%error, "ended flows could not be forgotten; tried again"),
        }
        tokio::select! {
            () = tokio::time::sleep(PURGE_EVERY) => {}
            () = core.stopping.cancelled() => return,
        }
    }
}

/// Removes components that nobody needs, whenever the folder of installed ones has changed and now and then, until the
/// host stops.
pub(crate) async fn clean_components(core: Arc<Core>) {
    loop {
        match clean(&core).await {
            Ok(0) => {}
            Ok(files) => tracing::info!(files, "removed components that no live flow names, and their compiled code"),
            Err(problem) => tracing::warn!(%problem, "components that nobody needs could not be removed; tried again"),
        }
        tokio::select! {
            // Identities that are awake need a moment to let go of what they had.
            () = core.components_changed.notified() => tokio::time::sleep(SETTLING).await,
            () = tokio::time::sleep(CLEAN_EVERY) => {}
            () = core.stopping.cancelled() => return,
        }
    }
}

async fn clean(core: &Arc<Core>) -> Result<usize, Problem> {
    let listing = core.clone();
    let unnamed = blocking(move || {
        listing.catalogue.unload();
        listing.catalogue.unnamed()
    });
    let unnamed = unnamed.await?;
    // Most of the time there is nothing to remove, and no row need be read.
    let named = if unnamed.is_empty() { HashSet::new() } else { named_by_live_flows(core).await? };
    let core = core.clone();
    blocking(move || core.catalogue.remove_unnamed(&unnamed, &named)).await
}

/// The components that live flows were started with. An unreadable start record names none that could be used.
async fn named_by_live_flows(core: &Arc<Core>) -> Result<HashSet<[u8; 32]>, Problem> {
    let live = core.store.live_flows().await.map_err(Problem::from)?;
    let rows: Vec<FlowRow> = live.iter().map(|flow| flow.row).collect();
    let mut named = HashSet::new();
    for rows in rows.chunks(STARTS) {
        for record in core.store.flows(rows).await.map_err(Problem::from)? {
            if let Ok(start) = StartRecord::decode(&record.start) {
                named.insert(start.component);
            }
        }
    }
    Ok(named)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> std::io::Result<T> + Send + 'static) -> Result<T, Problem> {
    let done =
        tokio::task::spawn_blocking(work).await.map_err(|error| Problem::new(Code::Internal, error.to_string()))?;
    done.map_err(|error| Problem::new(Code::DirectoryUnwritable, error.to_string()))
}
