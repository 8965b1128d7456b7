//! Watches folders: a bell that rings when something may have changed in one.
//!
//! The system's notices say what changes in a folder itself. What they do not say is looked for: that the folder was replaced
//! by another one, and that a file changed to which a link in the folder leads.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// How often it is looked whether the folder is still the same, and its links lead to the same files: 2 µs a link.
const LOOK: Duration = Duration::from_millis(500);
/// How often a folder is read though nobody rang: the system's notices may get lost, or not exist (network drives).
const SLOW: Duration = Duration::from_secs(30);
/// The same where there are no notices at all.
const WITHOUT_NOTICES: Duration = Duration::from_secs(2);
/// Changes come in bursts: so long is waited for the rest.
const SETTLE: Duration = Duration::from_millis(30);

/// What tells one state of a file or folder from another: device, inode, and of a file size and time too.
type Mark = (u64, u64, u64, i64, i64);
/// Links with what they lead to.
type Links = BTreeMap<PathBuf, Option<Mark>>;

/// Rings when a folder may have changed.
pub struct Bell {
    folder: PathBuf,
    mode: RecursiveMode,
    rung: Arc<Notify>,
    /// The folder that the notices are about: device and inode. `None` while there is no folder.
    watched: Option<(u64, u64)>,
    /// Dropping the watcher ends the notices.
    watcher: Option<RecommendedWatcher>,
    /// The links in the folder, with what they led to when it was last time to look.
    links: Arc<Links>,
    /// It is time to look and nobody did yet: a wait may be given up in its middle.
    due: bool,
    /// When it was last time to look.
    looked: Instant,
    /// That it cannot be watched was said.
    complained: bool,
}

impl Bell {
    /// Watches a folder, and with `deep` those below it.
    pub fn new(folder: &Path, deep: bool) -> Bell {
        let mode = if deep { RecursiveMode::Recursive } else { RecursiveMode::NonRecursive };
        let mut bell = Bell {
            folder: folder.to_owned(),
            mode,
            rung: Arc::new(Notify::new()),
            watched: None,
            watcher: None,
            links: Arc::default(),
            // Whatever changed since the folder was last read and before the notices began is found by a first look.
            due: true,
            looked: Instant::now(),
            complained: false,
        };
        bell.watch(identity(folder));
        bell
    }

    /// Asks for notices about the folder that now has this name.
    fn watch(&mut self, folder: Option<(u64, u64)>) {
        self.watched = folder;
        self.watcher = None;
        if folder.is_none() {
            return;
        }
        let ring = Arc::clone(&self.rung);
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // Reading a file is no change; an error may hide one.
            if !event.is_ok_and(|event| event.kind.is_access()) {
                ring.notify_one();
            }
        });
        match watcher.and_then(|mut watcher| watcher.watch(&self.folder, self.mode).map(|()| watcher)) {
            Ok(watcher) => self.watcher = Some(watcher),
            Err(error) if !self.complained => {
                self.complained = true;
                tracing::warn!(folder = %self.folder.display(), %error, "the folder cannot be watched; it is read every two seconds");
            }
            Err(_) => {}
        }
    }

    /// Whether the folder was replaced, or a link leads to something else than it did.
    async fn has_changed(&mut self) -> bool {
        let (folder, links) = (self.folder.clone(), Arc::clone(&self.links));
        let look = move || (identity(&folder), links.iter().any(|(link, known)| mark(link) != *known));
        let Ok((now, moved)) = tokio::task::spawn_blocking(look).await else { return true };
        if now != self.watched {
            self.watch(now);
            return true;
        }
        moved
    }

    /// Waits until it is time to look. False when the host stops. A wait that is given up loses nothing: the next one ends
    /// at once.
    pub async fn wait(&mut self, stop: &CancellationToken) -> bool {
        while !self.due {
            let rung = tokio::select! {
                () = stop.cancelled() => return false,
                () = self.rung.notified() => true,
                () = tokio::time::sleep(LOOK) => false,
            };
            let pause = if self.watcher.is_some() { SLOW } else { WITHOUT_NOTICES };
            self.due = rung || self.looked.elapsed() >= pause || self.has_changed().await;
        }
        tokio::select! {
            () = stop.cancelled() => return false,
            () = tokio::time::sleep(SETTLE) => {}
        }
        // Noted before whoever waits reads them: what changes in between is seen by the next look.
        let folder = self.folder.clone();
        if let Ok(links) = tokio::task::spawn_blocking(move || links_of(&folder)).await {
            self.links = Arc::new(links);
        }
        self.due = false;
        self.looked = Instant::now();
        true
    }
}

fn links_of(folder: &Path) -> Links {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let links = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_symlink()));
    links.map(|entry| (entry.path(), mark(&entry.path()))).collect()
}

fn identity(folder: &Path) -> Option<(u64, u64)> {
    let metadata = std::fs::metadata(folder).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

fn mark(link: &Path) -> Option<Mark> {
    let metadata = std::fs::metadata(link).ok()?;
    Some((metadata.dev(), metadata.ino(), metadata.size(), metadata.mtime(), metadata.mtime_nsec()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    async fn rings(bell: &mut Bell) {
        let stop = CancellationToken::new();
        let rung = tokio::time::timeout(Duration::from_secs(20), bell.wait(&stop)).await;
        assert_eq!(rung, Ok(true));
    }

    /// Waits for what is still on its way from before.
    async fn quiet(bell: &mut Bell) {
        let stop = CancellationToken::new();
        while tokio::time::timeout(LOOK * 3, bell.wait(&stop)).await.is_ok() {}
    }

    #[tokio::test]
    async fn a_new_file_rings_and_a_stop_ends_the_wait() {
        let dir = tempfile::tempdir().unwrap();
        let mut bell = Bell::new(dir.path(), false);
        std::fs::write(dir.path().join("x"), "1").unwrap();
        rings(&mut bell).await;
        let stop = CancellationToken::new();
        stop.cancel();
        assert!(!bell.wait(&stop).await);
    }

    #[tokio::test]
    async fn a_replaced_folder_rings_and_so_does_what_happens_in_the_new_one() {
        let dir = tempfile::tempdir().unwrap();
        let (folder, copy) = (dir.path().join("folder"), dir.path().join("copy"));
        std::fs::create_dir(&folder).unwrap();
        let mut bell = Bell::new(&folder, false);
        quiet(&mut bell).await;
        std::fs::create_dir(&copy).unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
        std::fs::rename(&copy, &folder).unwrap();
        rings(&mut bell).await;
        quiet(&mut bell).await;
        std::fs::write(folder.join("x"), "1").unwrap();
        rings(&mut bell).await;
    }

    #[tokio::test]
    async fn what_a_link_leads_to_rings() {
        let dir = tempfile::tempdir().unwrap();
        let (folder, file) = (dir.path().join("folder"), dir.path().join("elsewhere"));
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(&file, "1").unwrap();
        std::os::unix::fs::symlink(&file, folder.join("link")).unwrap();
        let mut bell = Bell::new(&folder, false);
        quiet(&mut bell).await;
        std::fs::write(&file, "22").unwrap();
        rings(&mut bell).await;
        quiet(&mut bell).await;
        std::fs::remove_file(&file).unwrap();
        rings(&mut bell).await;
    }
}
