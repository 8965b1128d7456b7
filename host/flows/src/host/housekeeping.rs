//! What a host removes when nobody needs it any more: ended flows whose time is over, and the code of CorDapps that are
//! neither installed nor named by a live flow.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use maxhost_cordapps::{Catalogue, KEEP_UNNAMED};
use maxhost_journal::StartRecord;
use maxhost_model::{Code, FlowRow, Problem};
use maxhost_store::{Store, each_start};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::guests::placement::CpuProfile;
use crate::ledger::contracts::Contracts;

/// Components, with what is remembered of their flows.
type Components = Catalogue<CpuProfile>;

/// Ended flows that are forgotten in one commit.
const PURGE: u32 = 1000;
/// How often ended flows are looked at.
const PURGE_EVERY: Duration = Duration::from_secs(5);
/// How often components are looked at, unless the folder of installed ones changes before.
const CLEAN_EVERY: Duration = Duration::from_secs(600);
/// How long after a change of the installed components they are looked at.
const SETTLING: Duration = Duration::from_secs(1);

/// Forgets ended flows when their time is over, until the host stops.
pub(crate) async fn purge(store: Store, stopping: CancellationToken) {
    loop {
        match store.purge(PURGE).await {
            Ok(purged) if purged >= u64::from(PURGE) => continue,
            Ok(_) => {}
            Err(error) => tracing::debug!(%error, "ended flows could not be forgotten; tried again"),
        }
        tokio::select! {
            () = tokio::time::sleep(PURGE_EVERY) => {}
            () = stopping.cancelled() => return,
        }
    }
}

/// Removes components that nobody needs, whenever the folder of installed ones has changed and now and then, until the
/// host stops.
pub(crate) async fn clean_components(
    store: Store,
    catalogue: Arc<Components>,
    contracts: Arc<dyn Contracts>,
    changed: Arc<Notify>,
    stopping: CancellationToken,
) {
    loop {
        match clean(&store, &catalogue, &*contracts).await {
            Ok(0) => {}
            Ok(files) => tracing::info!(files, "removed components that no live flow names, and their compiled code"),
            Err(problem) => tracing::warn!(%problem, "components that nobody needs could not be removed; tried again"),
        }
        tokio::select! {
            // Identities that are awake need a moment to let go of what they had.
            () = changed.notified() => tokio::time::sleep(SETTLING).await,
            () = tokio::time::sleep(CLEAN_EVERY) => {}
            () = stopping.cancelled() => return,
        }
    }
}

async fn clean(store: &Store, catalogue: &Arc<Components>, contracts: &dyn Contracts) -> Result<usize, Problem> {
    let listing = catalogue.clone();
    let unnamed = blocking(move || {
        listing.unload();
        listing.unnamed()
    });
    let unnamed = unnamed.await?;
    // Most of the time there is nothing to remove, and no row need be read.
    let named = if unnamed.is_empty() { HashSet::new() } else { named_by_live_flows(store).await? };
    let files = catalogue.clone();
    let removed = blocking(move || files.remove_unnamed(&unnamed, &named)).await?;
    clean_shared(store, catalogue, contracts).await?;
    Ok(removed)
}

/// Says which components of the database this host uses, and removes those that no host has used for long and no live flow
/// names. A host that starts a flow has its component in use, so none goes before the flow is there to name it.
async fn clean_shared(store: &Store, catalogue: &Arc<Components>, contracts: &dyn Contracts) -> Result<(), Problem> {
    let Some(components) = store.components() else { return Ok(()) };
    let mut used: Vec<[u8; 32]> = catalogue.in_use().into_iter().collect();
    used.extend(contracts.installed().iter().map(|contract| *contract.id.as_bytes()));
    components.use_components(&used).await.map_err(Problem::from)?;
    let newest = u32::try_from(KEEP_UNNAMED).unwrap_or(u32::MAX);
    let unused = components.unused_components(newest).await.map_err(Problem::from)?;
    if unused.is_empty() {
        return Ok(());
    }
    let named = named_by_live_flows(store).await?;
    let unnamed: Vec<[u8; 32]> = unused.into_iter().filter(|hash| !named.contains(hash)).collect();
    match components.remove_components(&unnamed).await.map_err(Problem::from)? {
        0 => {}
        removed => tracing::info!(removed, "removed components from the database that no live flow names"),
    }
    Ok(())
}

/// The components that live flows were started with. An unreadable start record names none that could be used.
async fn named_by_live_flows(store: &Store) -> Result<HashSet<[u8; 32]>, Problem> {
    let live = store.live_flows().await.map_err(Problem::from)?;
    let rows: Vec<FlowRow> = live.iter().map(|flow| flow.row).collect();
    let mut named = HashSet::new();
    let name = |_, start: Bytes| {
        if let Ok(start) = StartRecord::decode(&start) {
            named.insert(start.component);
        }
    };
    each_start(&**store, &rows, name).await.map_err(Problem::from)?;
    Ok(named)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> std::io::Result<T> + Send + 'static) -> Result<T, Problem> {
    let done =
        tokio::task::spawn_blocking(work).await.map_err(|error| Problem::new(Code::Internal, error.to_string()))?;
    done.map_err(|error| Problem::new(Code::DirectoryUnwritable, error.to_string()))
}
