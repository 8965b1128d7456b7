//! What changes in the installation's folders acts on the running host: manifests, installed components, the network.

use std::sync::Arc;

use futures::StreamExt;
use maxhost_flows::Host;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::manifests::{Change, Manifests};
use super::watch::Bell;
use crate::config::Config;

/// Identities are registered so many at once: the database writes them together.
const TOGETHER: usize = 256;

/// The tasks that watch; they end with `stop`, or when they are aborted.
pub struct Watching(JoinSet<()>);

impl Watching {
    /// Ends them now.
    pub fn abort(mut self) {
        self.0.abort_all();
    }
}

/// Watches all folders.
pub fn watch(config: &Config, host: Arc<Host>, manifests: Manifests, stop: CancellationToken) -> Watching {
    let mut tasks = JoinSet::new();
    let identities = Bell::new(&config.identities(), false);
    let cordapps = Bell::new(&config.cordapps(), false);
    let network = Bell::new(&config.network(), true);
    tasks.spawn(watch_manifests(Arc::clone(&host), manifests, identities, cordapps, stop.clone()));
    tasks.spawn(async move {
        while network.wait(&stop).await {
            if let Err(problem) = host.reload_network().await {
                tracing::warn!(code = %problem.code, "the network folder cannot be read: {}", problem.message);
            }
        }
    });
    Watching(tasks)
}

/// One task for both, because a new component may be what a quarantined manifest was waiting for.
async fn watch_manifests(
    host: Arc<Host>,
    mut manifests: Manifests,
    identities: Bell,
    cordapps: Bell,
    stop: CancellationToken,
) {
    loop {
        // Whichever rings, both are looked at: the wait for the other is given up, and its ring with it.
        let go_on = tokio::select! {
            go_on = identities.wait(&stop) => go_on,
            go_on = cordapps.wait(&stop) => go_on,
        };
        if !go_on {
            return;
        }
        let retry = match host.reload_cordapps().await {
            Ok(changed) => changed,
            Err(problem) => {
                tracing::warn!(code = %problem.code, "the installed CorDapps cannot be read: {}", problem.message);
                false
            }
        };
        let scanned = tokio::task::spawn_blocking(move || {
            let changes = manifests.scan();
            let retried = if retry { manifests.retry() } else { Vec::new() };
            (manifests, changes, retried)
        });
        // Only a panic ends here: there is nothing left to watch with.
        let Ok((kept, changes, retried)) = scanned.await else { return };
        manifests = kept;
        match changes {
            Ok(changes) => apply(&host, changes.into_iter().chain(retried).collect()).await,
            Err(problem) => tracing::warn!(code = %problem.code, "{}", problem.message),
        }
    }
}

/// Acts on changes: those that take away in order and first, then the others, many at once.
pub async fn apply(host: &Arc<Host>, changes: Vec<Change>) {
    let (removals, others): (Vec<Change>, Vec<Change>) =
        changes.into_iter().partition(|change| matches!(change, Change::Remove(_)));
    for change in removals {
        apply_one(host, change).await;
    }
    futures::stream::iter(others).for_each_concurrent(TOGETHER, |change| apply_one(host, change)).await;
}

async fn apply_one(host: &Arc<Host>, change: Change) {
    match change {
        Change::Remove(name) => {
            if let Err(problem) = host.remove_identity(&name).await {
                tracing::warn!(identity = name, code = %problem.code, "cannot be removed: {}", problem.message);
            }
        }
        Change::Quarantine { file, name, problem } => host.quarantine(&file, name, problem).await,
        Change::Put(spec) => {
            let (file, name) = (spec.manifest.clone(), spec.name.clone());
            if let Err(problem) = host.put_identity(spec).await {
                host.quarantine(&file, Some(name), problem).await;
            }
        }
    }
}
