//! A look at where users come from, before somebody is refused whom nobody knows: he may have been made just now.
//!
//! Whoever shows what is wrong makes a host look. So few wait for a look at once, and nobody for long; how often there is one is
//! for [`UsersSource`] to bound.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::sync::Semaphore;

/// Logins that wait for a look at once.
pub(crate) const WAITING: usize = 64;
/// How long a login waits for a look. It takes longer where the file system does not answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// Where users come from.
pub trait UsersSource: Send + Sync + 'static {
    /// Returns when each change that was made before the call counts. However many ask, it looks a few times a second at most:
    /// those who ask meanwhile wait for the next look, and share it.
    fn look(&self) -> BoxFuture<'_, ()>;
}

/// Looks of those who log in.
pub(crate) struct Looks {
    source: Option<Arc<dyn UsersSource>>,
    waiting: Semaphore,
}

impl Looks {
    /// Looks at this source; without one there is nothing to look at.
    pub(crate) fn new(source: Option<Arc<dyn UsersSource>>) -> Looks {
        Looks { source, waiting: Semaphore::new(WAITING) }
    }

    /// Returns when each change that was made before the call counts. Where too many wait, or it takes too long, only what is
    /// known already does.
    pub(crate) async fn look(&self) {
        let Some(source) = &self.source else { return };
        let Ok(_waiting) = self.waiting.try_acquire() else { return };
        // A look that is late counts for whoever comes next.
        let _ = tokio::time::timeout(PATIENCE, source.look()).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// A source that never answers.
    #[derive(Default)]
    struct Silent {
        asked: AtomicUsize,
    }

    impl UsersSource for Silent {
        fn look(&self) -> BoxFuture<'_, ()> {
            self.asked.fetch_add(1, Ordering::Relaxed);
            Box::pin(std::future::pending())
        }
    }

    #[tokio::test]
    async fn few_wait_for_a_look_and_nobody_for_ever() {
        let source = Arc::new(Silent::default());
        let looks = Looks::new(Some(source.clone()));
        futures::future::join_all((0..3 * WAITING).map(|_| looks.look())).await;
        assert_eq!(source.asked.load(Ordering::Relaxed), WAITING, "the others went on with what is known");
        looks.look().await;
        assert_eq!(source.asked.load(Ordering::Relaxed), WAITING + 1, "there is room again");
    }
}
