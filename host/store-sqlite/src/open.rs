//! Opening the database: its committer and its readers.

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use maxhost_group_commit::{Bounds, Fault, FaultKind};
use maxhost_model::{FlowRow, Lineage};
use maxhost_sqlite::{Tuning, WalLimits};
use maxhost_store::{AuditBounds, CommitQueue, Committer, PROCESSED_RETENTION, Quotas, RunId, Store, StoreError};
use tokio::sync::oneshot;

use crate::reader::Reader;
use crate::rows::SqliteRows;
use crate::schema;

/// Bytes by which the file of the write-ahead log is kept longer than the log.
const LOG_AHEAD: u64 = 8 << 20;

/// How a database is opened.
#[derive(Debug, Clone)]
pub struct SqliteOptions {
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
    /// How much may wait for each identity, and for the broker from each.
    pub quotas: Quotas,
    /// How long it is remembered that a broker's message was taken, in the time that the host runs.
    pub processed_retention: Duration,
    /// For how long the audit trail is kept, and how much of it.
    pub audit: AuditBounds,
}

impl SqliteOptions {
    /// The defaults, for this file.
    pub fn new(path: impl Into<PathBuf>) -> SqliteOptions {
        SqliteOptions {
            path: path.into(),
            readers: 3,
            page_bytes: 4096,
            cache_bytes: 64 << 20,
            max_bytes: None,
            bounds: Bounds::default(),
            quotas: Quotas::default(),
            processed_retention: PROCESSED_RETENTION,
            audit: AuditBounds::default(),
        }
    }
}

/// A database in an SQLite file.
pub struct SqliteStore {
    queue: CommitQueue,
    pub(crate) reader: Reader,
    run: RunId,
    lineage: Lineage,
    next_flow: AtomicI64,
    next_initiation: AtomicI64,
    /// The time that hosts had run when this one began, ms, and when that was.
    lived: (i64, Instant),
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStore").field("run", &self.run).finish_non_exhaustive()
    }
}

impl Drop for SqliteStore {
    fn drop(&mut self) {
        // The thread commits what waits and ends; nobody is left to wait for it.
        self.queue.jobs.close();
    }
}

impl SqliteStore {
    /// The time that hosts have run on this database, ms.
    pub(crate) fn lived(&self) -> i64 {
        let (base, since) = self.lived;
        base.saturating_add(i64::try_from(since.elapsed().as_millis()).unwrap_or(i64::MAX))
    }

    /// Opens (or makes) the database, migrates it, and starts the committer.
    ///
    /// # Errors
    /// [`StoreError::ReadOnly`], [`StoreError::Damaged`], [`StoreError::Mixed`], [`StoreError::Incompatible`],
    /// [`StoreError::Full`] and whatever else keeps the file from being used.
    pub async fn open(options: SqliteOptions) -> Result<Store, StoreError> {
        let SqliteOptions { path, readers, page_bytes, cache_bytes, max_bytes, .. } = options;
        let tuning = Tuning { page_bytes, cache_bytes, max_bytes, ..Tuning::default() };
        let conn = schema::prepare(&path, &tuning).await?;
        let lineage = schema::lineage(&conn, &path)?;
        let queue = CommitQueue::new(options.bounds);
        let (started, starting) = oneshot::channel();
        let thread = {
            let queue = queue.clone();
            std::thread::Builder::new().name("committer".to_owned()).spawn(move || {
                let mut rows = match SqliteRows::open(&conn, options.quotas, options.processed_retention, options.audit)
                {
                    Ok(rows) => rows,
                    Err(error) => return drop(started.send(Err(Fault::from(error)))),
                };
                if started.send(Ok(rows.numbers())).is_err() {
                    return;
                }
                let limits = WalLimits { ahead_bytes: LOG_AHEAD, ..WalLimits::default() };
                if let Err(error) = maxhost_sqlite::run(&conn, &mut rows, &queue.jobs, limits, &queue.stats) {
                    tracing::error!(%error, "the committer could not start");
                }
            })
        }
        .map_err(|error| StoreError::Io(Fault::new(FaultKind::Other, error)))?;
        let numbers = starting
            .await
            .map_err(|error| StoreError::Io(Fault::new(FaultKind::Other, error)))?
            .map_err(|fault| StoreError::of_file(&path, fault))?;
        let reader = Reader::open(&path, readers).await?;
        Ok(Store::new(SqliteStore {
            queue,
            reader,
            run: numbers.run,
            lineage,
            next_flow: AtomicI64::new(numbers.next_flow),
            next_initiation: AtomicI64::new(numbers.next_initiation),
            lived: numbers.lived,
            thread: Mutex::new(Some(thread)),
        }))
    }
}

#[async_trait]
impl Committer for SqliteStore {
    fn queue(&self) -> &CommitQueue {
        &self.queue
    }

    fn run(&self) -> RunId {
        self.run
    }

    fn lineage(&self) -> Lineage {
        self.lineage
    }

    fn next_flow_row(&self) -> FlowRow {
        FlowRow(self.next_flow.fetch_add(1, Ordering::Relaxed))
    }

    fn next_initiation(&self) -> i64 {
        self.next_initiation.fetch_add(1, Ordering::Relaxed)
    }

    async fn close(&self) {
        self.reader.close().await;
        self.queue.jobs.close();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && tokio::task::spawn_blocking(move || thread.join()).await.is_ok_and(|joined| joined.is_err())
        {
            tracing::error!("the committer ended with a defect");
        }
    }
}
