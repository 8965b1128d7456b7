//! What changes in the installation's folders acts on the running host: manifests, installed components, the network.

use std::sync::Arc;
use std::time::Duration;

use maxhost_flows::Host;
use maxhost_flows::options::IdentitySpec;
use maxhost_model::{Code, Problem};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::manifests::{Change, Manifests};
use super::shared_manifests::Follower;
use super::watch::Bell;
use crate::config::Config;

/// The pause before changes that could not be acted on are tried again.
const AGAIN: Duration = Duration::from_secs(2);

/// The tasks that watch; they end with `stop`, or when they are aborted.
pub struct Watching(JoinSet<()>);

impl Watching {
    /// Ends them now.
    pub fn abort(mut self) {
        self.0.abort_all();
    }
}

/// The manifests as they were first seen, and the identities among them whose keys are not there yet.
pub type Looked = (Manifests, Vec<IdentitySpec>);

/// Watches all folders, and keeps the copy of what hosts share up to date, if there is one.
pub fn watch(
    config: &Config,
    host: Arc<Host>,
    (manifests, refused): Looked,
    follower: Option<Follower>,
    stop: CancellationToken,
) -> Watching {
    let mut tasks = JoinSet::new();
    if let Some(follower) = follower {
        tasks.spawn(follower.follow(stop.clone()));
    }
    let bells = [Bell::new(&config.identities(), false), Bell::new(&config.cordapps(), false)];
    let mut network = Bell::new(&config.network(), true);
    tasks.spawn(watch_manifests(Arc::clone(&host), manifests, refused, bells, stop.clone()));
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
    mut refused: Vec<IdentitySpec>,
    [mut manifest_bell, mut component_bell]: [Bell; 2],
    stop: CancellationToken,
) {
    // Something could not be done: it is tried again without a ring.
    let mut again = false;
    loop {
        // Whichever rings, both folders are looked at.
        let go_on = tokio::select! {
            go_on = manifest_bell.wait(&stop) => go_on,
            go_on = component_bell.wait(&stop) => go_on,
            () = tokio::time::sleep(AGAIN), if again => true,
        };
        if !go_on {
            return;
        }
        if let Err(problem) = host.reload_cordapps().await {
            tracing::warn!(code = %problem.code, "the installed CorDapps cannot be read: {}", problem.message);
        }
        let scanned = tokio::task::spawn_blocking(move || {
            let changes = manifests.scan();
            (manifests, changes)
        });
        // Only a panic ends here: there is nothing left to watch with.
        let Ok((kept, changes)) = scanned.await else { return };
        manifests = kept;
        let applied = match changes {
            Ok(mut changes) => {
                refused.retain(|spec| manifests.is_good(&spec.manifest));
                changes.extend(refused.extract_if(.., |spec| spec.keys.is_dir()).map(Change::Put));
                apply(&host, changes).await
            }
            // Nothing is known of what changed: all stays as it is until the folder can be read again.
            Err(problem) => Err((problem, Vec::new())),
        };
        again = applied.is_err();
        match applied {
            Ok(new) => refused.extend(new),
            Err((problem, undone)) => {
                tracing::warn!(code = %problem.code, "the manifests cannot be taken: {}", problem.message);
                manifests.undo(undone);
            }
        }
    }
}

/// Acts on changes, removals first. Gives the identities that were refused because their keys are not there yet.
///
/// # Errors
/// The database fails; with what was not done.
pub async fn apply(host: &Arc<Host>, changes: Vec<Change>) -> Result<Vec<IdentitySpec>, (Problem, Vec<Change>)> {
    let mut specs = Vec::new();
    for change in changes {
        match change {
            Change::Remove(name) => host.remove_identity(&name).await,
            Change::Quarantine { file, name, problem } => host.quarantine(&file, name, problem).await,
            Change::Put(spec) => specs.push(spec),
        }
    }
    // All at once: the database writes them together.
    let put = host.put_identities(specs.clone()).await;
    let refused = put.map_err(|problem| (problem, specs.into_iter().map(Change::Put).collect()))?;
    let waiting = refused.into_iter().filter(|(_, problem)| problem.code == Code::KeyUnreadable);
    Ok(waiting.map(|(spec, _)| spec).collect())
}
