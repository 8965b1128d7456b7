//! Which results clients have: noted in the database, in batches, some time after they were sent. Nobody waits for it.

use std::sync::Arc;
use std::time::Duration;

use maxhost_model::FlowRow;
use maxhost_store::{ResultRead, Store, StoreError};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Notes that may wait to be written; of what comes above that only the number is kept.
const MOST: usize = 20_000;
/// Notes in one commit.
const BATCH: usize = 2_000;
/// How long it is waited for more of them.
const GATHER: Duration = Duration::from_millis(200);
/// How soon a write that failed is tried again.
const AGAIN: Duration = Duration::from_millis(500);

#[derive(Default)]
struct Waiting {
    reads: Vec<ResultRead>,
    lost: u64,
    closing: bool,
}

/// The results that clients were sent and that the database does not show as read yet.
#[derive(Default)]
pub(crate) struct ResultsRead {
    waiting: Mutex<Waiting>,
    news: Notify,
    /// Cancelled when the writer has ended.
    written: CancellationToken,
}

impl ResultsRead {
    /// A client is sent the result of a flow now, `at` ms since 1970.
    pub fn note(&self, flow: FlowRow, at: i64) {
        let mut waiting = self.waiting.lock();
        if waiting.reads.len() >= MOST {
            waiting.lost += 1;
            return;
        }
        waiting.reads.push(ResultRead { flow, at });
        drop(waiting);
        self.news.notify_one();
    }

    fn take(&self) -> Vec<ResultRead> {
        let mut waiting = self.waiting.lock();
        let lost = std::mem::take(&mut waiting.lost);
        let count = waiting.reads.len().min(BATCH);
        let taken = waiting.reads.drain(..count).collect();
        drop(waiting);
        if lost > 0 {
            tracing::warn!(lost, "more results were read than could be noted; the database has them as not read");
        }
        taken
    }

    fn is_closing(&self) -> bool {
        self.waiting.lock().closing
    }

    /// Writes what is noted, until [`ResultsRead::finish`].
    pub async fn write(self: Arc<ResultsRead>, store: Store) {
        let _ended = self.written.clone().drop_guard();
        loop {
            let reads = self.take();
            if reads.is_empty() {
                if self.is_closing() {
                    return;
                }
                self.news.notified().await;
                if !self.is_closing() {
                    tokio::time::sleep(GATHER).await;
                }
                continue;
            }
            let mut told = false;
            while let Err(error) = store.note_results_read(reads.clone()).await {
                if matches!(error, StoreError::Closed) {
                    return;
                }
                if !std::mem::replace(&mut told, true) {
                    tracing::warn!(%error, "it cannot be noted which results were read; tried again");
                }
                if self.is_closing() {
                    return;
                }
                tokio::time::sleep(AGAIN).await;
            }
        }
    }

    /// Writes what waits, and takes no longer than this for it.
    pub async fn finish(&self, deadline: Duration) {
        self.waiting.lock().closing = true;
        self.news.notify_one();
        let _late = tokio::time::timeout(deadline, self.written.cancelled()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_bounded() {
        let reads = ResultsRead::default();
        for number in 0..MOST as i64 + 7 {
            reads.note(FlowRow(number), 1);
        }
        let waits = |reads: &ResultsRead| {
            let waiting = reads.waiting.lock();
            (waiting.reads.len(), waiting.lost)
        };
        assert_eq!(waits(&reads), (MOST, 7));
        let mut taken = 0;
        loop {
            let batch = reads.take().len();
            assert!(batch <= BATCH);
            if batch == 0 {
                break;
            }
            taken += batch;
        }
        assert_eq!(taken, MOST);
    }
}
