//! The store: its committer and its readers under one name.

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use maxhost_model::{FlowRow, IdentityRow};
use maxhost_sqlite::{
    Announcement, Bounds, Fault, FaultKind, GroupStats, Queue, Refused, Stats, Tuning, WalLimits, Writer, group,
};
use smallvec::SmallVec;
use tokio::sync::{oneshot, watch};

use crate::error::StoreError;
use crate::read::Reader;
use crate::schema;
use crate::unit::{CommitUnit, Op, Receipt};
use crate::writer::{Job, StoreWriter};

/// Bytes by which the file of the write-ahead log is kept longer than the log.
const LOG_AHEAD: u64 = 8 << 20;

/// How a [`Store`] is opened.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// The database file; its folder must exist.
    pub path: PathBuf,
    /// Connections that read, each a thread of its own.
    pub readers: u32,
    /// Bytes of a page; holds for a new file only.
    pub page_bytes: u32,
    /// Bytes of pages that the committer keeps in memory at most.
    pub cache_bytes: usize,
    /// Bytes the database may grow to; `None`: the disk is the limit.
    pub max_bytes: Option<u64>,
    /// Bounds of the committer's queue.
    pub bounds: Bounds,
    /// How long it is remembered that a broker's message was taken.
    pub processed_retention: Duration,
}

impl StoreOptions {
    /// The defaults, for this file.
    pub fn new(path: impl Into<PathBuf>) -> StoreOptions {
        StoreOptions {
            path: path.into(),
            readers: 3,
            page_bytes: 4096,
            cache_bytes: 64 << 20,
            max_bytes: None,
            bounds: Bounds::default(),
            processed_retention: Duration::from_secs(7 * 24 * 3600),
        }
    }
}

/// The database of a host. Cloning gives another handle to the same store.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    queue: Arc<Queue<Job>>,
    stats: Arc<Stats>,
    reader: Reader,
    next_flow: AtomicI64,
    next_initiation: AtomicI64,
    thread: Mutex<Option<JoinHandle<()>>>,
    processed_retention: Duration,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").finish_non_exhaustive()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // The thread commits what waits and ends; nobody is left to wait for it.
        self.queue.close();
    }
}

impl Store {
    /// Opens (or makes) the database, migrates it, and starts the committer.
    ///
    /// # Errors
    /// [`StoreError::ReadOnly`], [`StoreError::Damaged`], [`StoreError::Incompatible`], [`StoreError::Full`] and
    /// whatever else keeps the file from being used.
    pub async fn open(options: StoreOptions) -> Result<Store, StoreError> {
        let StoreOptions { path, readers, page_bytes, cache_bytes, max_bytes, bounds, processed_retention } = options;
        let tuning = Tuning { page_bytes, cache_bytes, max_bytes, ..Tuning::default() };
        let conn = schema::prepare(&path, &tuning).await?;
        let queue = Arc::new(Queue::new(bounds));
        let stats = Arc::new(Stats::default());
        let (started, starting) = oneshot::channel();
        let thread = {
            let (queue, stats) = (Arc::clone(&queue), Arc::clone(&stats));
            std::thread::Builder::new().name("committer".to_owned()).spawn(move || {
                let mut writer = match StoreWriter::new(&conn) {
                    Ok(writer) => writer,
                    Err(fault) => return drop(started.send(Err(fault))),
                };
                if started.send(Ok(writer.first_numbers())).is_err() {
                    return;
                }
                let limits = WalLimits { ahead_bytes: LOG_AHEAD, ..WalLimits::default() };
                if let Err(error) = group::run(&conn, &mut writer, &queue, limits, &stats) {
                    tracing::error!(%error, "the committer could not start");
                }
            })
        }
        .map_err(|error| StoreError::Io(Fault::new(FaultKind::Other, error)))?;
        let (next_flow, next_initiation) = starting
            .await
            .map_err(|error| StoreError::Io(Fault::new(FaultKind::Other, error)))?
            .map_err(|fault| StoreError::of_file(&path, fault))?;
        let reader = Reader::open(&path, readers).await?;
        let inner = Inner {
            queue,
            stats,
            reader,
            next_flow: AtomicI64::new(next_flow),
            next_initiation: AtomicI64::new(next_initiation),
            thread: Mutex::new(Some(thread)),
            processed_retention,
        };
        Ok(Store { inner: Arc::new(inner) })
    }

    /// Hands a unit to the committer. Never blocks; units of one caller are committed in the order they are handed in.
    ///
    /// When the queue's hard bound is reached the unit is refused with [`StoreError::Overloaded`]; heed
    /// [`Store::is_congested`] upstream and that does not happen. See [`crate::Done`] for where `done` runs.
    pub fn submit(&self, unit: CommitUnit) {
        self.push(Job::Unit(unit));
    }

    /// Commits these operations and waits for it.
    ///
    /// # Errors
    /// As the operations say, [`StoreError::Fenced`], and the retriable ones.
    pub async fn commit(&self, identity: IdentityRow, epoch: i64, ops: Vec<Op>) -> Result<Receipt, StoreError> {
        let (reply, answer) = oneshot::channel();
        let done = Box::new(move |outcome| drop(reply.send(outcome)));
        self.submit(CommitUnit { identity, epoch, attempt: None, depends_on: SmallVec::new(), ops, done });
        answer.await.unwrap_or(Err(StoreError::Closed))
    }

    /// Makes identities of these names known; those that are known stay as they are. One transaction, rows in the
    /// order of the names.
    ///
    /// # Errors
    /// The retriable ones, and [`StoreError::Closed`].
    pub async fn register_identities<S: AsRef<str>>(&self, names: &[S]) -> Result<Vec<IdentityRow>, StoreError> {
        let names = names.iter().map(|name| name.as_ref().to_owned()).collect();
        self.ask(|reply| Job::Register { names, reply }).await
    }

    /// Takes an identity over: from now on only commits with this epoch are accepted. The same epoch again is no error.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] if the database has a later one.
    pub async fn raise_epoch(&self, row: IdentityRow, epoch: i64) -> Result<(), StoreError> {
        self.ask(|reply| Job::RaiseEpoch { row, epoch, reply }).await
    }

    /// Forgets up to `limit` flows whose time is over at `now` (ms since 1970), with their client ids, and up to
    /// `limit` old notes of taken messages. Returns how many rows went; call again while it is the limit or more.
    ///
    /// # Errors
    /// The retriable ones, and [`StoreError::Closed`].
    pub async fn purge(&self, now: i64, limit: u32) -> Result<u64, StoreError> {
        let retention = i64::try_from(self.inner.processed_retention.as_millis()).unwrap_or(i64::MAX);
        let processed_before = now.saturating_sub(retention);
        self.ask(|reply| Job::Purge { now, processed_before, limit, reply }).await
    }

    /// A row for a new flow: above all rows that any committed flow of this database ever had.
    #[must_use]
    pub fn next_flow_row(&self) -> FlowRow {
        FlowRow(self.inner.next_flow.fetch_add(1, Ordering::Relaxed))
    }

    /// A number for a new initiation: above all that any committed one of this database ever had.
    #[must_use]
    pub fn next_initiation(&self) -> i64 {
        self.inner.next_initiation.fetch_add(1, Ordering::Relaxed)
    }

    /// Announces that a unit is about to be handed in: the committer waits a moment for it, instead of syncing twice in a
    /// row. Drop it when the unit is handed in, or when there will be none soon.
    pub fn announce(&self) -> Announcement {
        self.inner.queue.announce()
    }

    /// Whether more waits to be committed than is good: hold new work back.
    #[must_use]
    pub fn is_congested(&self) -> bool {
        self.inner.queue.is_congested()
    }

    /// [`Store::is_congested`] as something to wait on.
    #[must_use]
    pub fn congestion(&self) -> watch::Receiver<bool> {
        self.inner.queue.congestion()
    }

    /// The committer's counters.
    #[must_use]
    pub fn stats(&self) -> GroupStats {
        self.inner.stats.view(self.inner.queue.depth())
    }

    /// Takes no more units, commits what waits, works off the write-ahead log and ends the committer. Other handles
    /// get [`StoreError::Closed`] from then on.
    pub async fn close(self) {
        self.inner.reader.close().await;
        self.inner.queue.close();
        let thread = self.inner.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && tokio::task::spawn_blocking(move || thread.join()).await.is_ok_and(|joined| joined.is_err())
        {
            tracing::error!("the committer ended with a defect");
        }
    }

    pub(crate) fn reader(&self) -> &Reader {
        &self.inner.reader
    }

    fn push(&self, job: Job) {
        let bytes = job.bytes();
        if let Err((job, refused)) = self.inner.queue.push(job, bytes) {
            let error = match refused {
                Refused::Overloaded => StoreError::Overloaded,
                Refused::Closed => StoreError::Closed,
            };
            StoreWriter::finish(job, Err(error));
        }
    }

    async fn ask<T>(&self, job: impl FnOnce(oneshot::Sender<Result<T, StoreError>>) -> Job) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.push(job(reply));
        answer.await.unwrap_or(Err(StoreError::Closed))
    }
}
