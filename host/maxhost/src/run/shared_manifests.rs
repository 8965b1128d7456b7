//! Manifests and keys that hosts share: a host brings its copy of them up to date before it reads it for the first time,
//! and keeps it so. What changes in the copy is noticed as it is in a folder that people write.

use std::path::PathBuf;
use std::time::Duration;

use maxhost_model::{Code, Problem};
use maxhost_ownership::{OwnershipError, Permanent};
use maxhost_ownership_zookeeper::FileFeed;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::mirror::Mirror;

/// The pause before what failed is tried again.
const AGAIN: Duration = Duration::from_millis(200);
/// The pause where the disk does not take the copy.
const DISK_AGAIN: Duration = Duration::from_secs(2);
/// A host that starts gives up when the service has not answered for so long.
const PATIENCE: Duration = Duration::from_secs(60);

/// Keeps the copy up to date.
pub struct Follower {
    feed: FileFeed,
    mirror: Mirror,
}

impl Follower {
    /// Brings the copy in a folder up to date.
    ///
    /// # Errors
    /// The folder cannot be written; `timeout`, `ownership-refused`: the service does not answer, or refuses the host.
    pub async fn begin(root: PathBuf, mut feed: FileFeed) -> Result<Follower, Problem> {
        let opened = tokio::task::spawn_blocking(move || {
            let mirror = Mirror::open(&root)?;
            let files = mirror.files()?;
            Ok::<_, Problem>((mirror, files))
        });
        let (mirror, files) = opened.await.map_err(|error| Problem::new(Code::Internal, error.to_string()))??;
        feed.has(files);
        let mut follower = Follower { feed, mirror };
        let mut answered = Instant::now();
        loop {
            match follower.take().await {
                Ok(Taken { failed: Some(problem), .. }) => return Err(problem),
                Ok(Taken { caught_up: true, .. }) => return Ok(follower),
                Ok(_) => answered = Instant::now(),
                Err(error) if error.is_transient() && answered.elapsed() < PATIENCE => tokio::time::sleep(AGAIN).await,
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Keeps the copy up to date until the host stops.
    pub async fn follow(mut self, stop: CancellationToken) {
        let mut complained = false;
        loop {
            let taken = tokio::select! {
                () = stop.cancelled() => return,
                taken = self.take() => taken,
            };
            let pause = match taken {
                Ok(Taken { failed: None, .. }) => {
                    complained = false;
                    continue;
                }
                Ok(Taken { failed: Some(problem), .. }) => {
                    if !std::mem::replace(&mut complained, true) {
                        tracing::warn!(code = %problem.code, "shared manifests cannot be written: {}", problem.message);
                    }
                    DISK_AGAIN
                }
                Err(OwnershipError::Permanent(Permanent::Closed)) => return,
                Err(error) => {
                    tracing::debug!(%error, "shared manifests cannot be read for the moment");
                    AGAIN
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Waits for changes, and takes them over.
    async fn take(&mut self) -> Result<Taken, OwnershipError> {
        let news = self.feed.next().await?;
        let mirror = self.mirror.clone();
        let applied = tokio::task::spawn_blocking(move || {
            let mut failed = Vec::new();
            for change in news.changes {
                if let Err(problem) = mirror.apply(&change) {
                    failed.push((change.into_file(), problem));
                }
            }
            failed
        });
        let mut first = None;
        match applied.await {
            Ok(failed) => {
                for (file, problem) in failed {
                    self.feed.again(file);
                    first.get_or_insert(problem);
                }
            }
            Err(error) => first = Some(Problem::new(Code::Internal, error.to_string())),
        }
        Ok(Taken { failed: first, caught_up: news.caught_up })
    }
}

struct Taken {
    /// The first thing that could not be written. It is told again.
    failed: Option<Problem>,
    caught_up: bool,
}
