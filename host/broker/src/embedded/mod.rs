//! The broker inside the host: queues in an SQLite file, written by a group committer.
//!
//! In memory are only counters for each queue and what its consumer has been given credit for; messages are read from
//! the file when they are delivered.

mod consumer;
mod file;
mod queues;
mod writer;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use async_trait::async_trait;
use maxhost_group_commit::{Bounds, Fault, FaultKind, GroupStats, Queue, Refused, Stats};
use maxhost_sqlite::{SqliteError, Tuning, WalLimits, Writer, open_reader};
use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};

use crate::broker::{BacklogNotices, Broker, Consumer, Holding};
use crate::client_queues::ClientQueues;
use crate::delivery::{Credit, Message};
use crate::error::{BrokerError, Permanent, Transient};
use crate::markers::Markers;
use crate::queue_name::QueueName;
use consumer::{EmbeddedConsumer, EmbeddedNotices};
use file::Messages;
use queues::{Entry, Queues};
use writer::{BrokerWriter, Job};

/// How an [`EmbeddedBroker`] is opened.
#[derive(Debug, Clone)]
pub struct EmbeddedOptions {
    /// The file; its folder must exist.
    pub path: PathBuf,
    /// Bytes that the body of a message may have.
    pub max_message_bytes: usize,
    /// Bytes of messages that one queue may hold ([`Message::bytes`]); at least one message of the largest size fits in
    /// any case. A sender to a full queue is told [`Transient::QueueFull`].
    pub max_queue_bytes: u64,
    /// Bytes of pages that the committer keeps in memory at most.
    pub cache_bytes: usize,
    /// Bytes the file may grow to; `None`: the disk is the limit.
    pub max_bytes: Option<u64>,
    /// Bounds of the committer's queue.
    pub bounds: Bounds,
}

impl EmbeddedOptions {
    /// The defaults, for this file: messages up to 10 MiB, as Corda's network parameters have it, and queues up to
    /// 256 MiB.
    pub fn new(path: impl Into<PathBuf>) -> EmbeddedOptions {
        EmbeddedOptions {
            path: path.into(),
            max_message_bytes: 10 << 20,
            max_queue_bytes: 256 << 20,
            cache_bytes: 16 << 20,
            max_bytes: None,
            bounds: Bounds { soft_bytes: 16 << 20, hard_bytes: 64 << 20, ..Bounds::default() },
        }
    }
}

/// The broker inside the host. Cloning gives another handle to the same broker.
#[derive(Clone)]
pub struct EmbeddedBroker {
    inner: Arc<Inner>,
}

struct Inner {
    jobs: Arc<Queue<Job>>,
    stats: Arc<Stats>,
    queues: Arc<Queues>,
    messages: Arc<Messages>,
    closed: watch::Sender<bool>,
    thread: Mutex<Option<JoinHandle<()>>>,
    max_message_bytes: usize,
    max_queue_bytes: u64,
}

impl fmt::Debug for EmbeddedBroker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddedBroker").finish_non_exhaustive()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // The thread commits what waits and ends; nobody is left to wait for it.
        self.jobs.close();
    }
}

impl EmbeddedBroker {
    /// Opens (or makes) the file and starts the committer.
    ///
    /// # Errors
    /// [`Permanent::Unusable`], [`Permanent::Incompatible`], and the transient ones.
    pub async fn open(options: EmbeddedOptions) -> Result<EmbeddedBroker, BrokerError> {
        let EmbeddedOptions { path, max_message_bytes, max_queue_bytes, cache_bytes, max_bytes, bounds } = options;
        let tuning = Tuning { cache_bytes, max_bytes, ..Tuning::default() };
        let opened = tokio::task::spawn_blocking(move || -> Result<_, BrokerError> {
            let of_file = |fault| fault_of_file(&path, fault);
            let conn = file::prepare(&path, &tuning)?;
            let reader = open_reader(&path, &Tuning { cache_bytes: 2 << 20, ..tuning }).map_err(of_file)?;
            let (queues, newest) = file::load(&conn).map_err(|error| of_file(error.into()))?;
            Ok((conn, Messages::new(reader), Arc::new(queues), newest))
        });
        let (conn, messages, queues, newest) = opened.await.map_err(defect)??;
        let jobs = Arc::new(Queue::new(bounds));
        let stats = Arc::new(Stats::default());
        let (started, starting) = oneshot::channel();
        let thread = {
            let (jobs, stats, first) = (Arc::clone(&jobs), Arc::clone(&stats), newest + 1);
            std::thread::Builder::new().name("broker".to_owned()).spawn(move || {
                let mut writer = match BrokerWriter::new(&conn, first) {
                    Ok(writer) => writer,
                    Err(error) => return drop(started.send(Err(Fault::from(error)))),
                };
                if started.send(Ok(())).is_err() {
                    return;
                }
                if let Err(error) = maxhost_sqlite::run(&conn, &mut writer, &jobs, WalLimits::default(), &stats) {
                    tracing::error!(%error, "the broker's committer could not start");
                }
            })
        }
        .map_err(defect)?;
        starting.await.map_err(defect)??;
        Ok(EmbeddedBroker {
            inner: Arc::new(Inner {
                jobs,
                stats,
                queues,
                messages: Arc::new(messages),
                closed: watch::Sender::new(false),
                thread: Mutex::new(Some(thread)),
                max_message_bytes,
                max_queue_bytes: max_queue_bytes.max((max_message_bytes + Message::OVERHEAD) as u64),
            }),
        })
    }

    /// The committer's counters.
    #[must_use]
    pub fn stats(&self) -> GroupStats {
        self.inner.stats.view(self.inner.jobs.depth())
    }

    async fn ask<T>(&self, job: impl FnOnce(oneshot::Sender<Result<T, BrokerError>>) -> Job) -> Result<T, BrokerError> {
        self.inner.ask(job).await
    }

    /// The queue of this name, made if there is none.
    async fn entry(&self, name: &QueueName) -> Result<Arc<Entry>, BrokerError> {
        if *self.inner.closed.borrow() {
            return Err(Permanent::Closed.into());
        }
        if let Some(entry) = self.inner.queues.find(name) {
            return Ok(entry);
        }
        let row = self.ask(|reply| Job::Create { name: name.clone(), reply }).await?;
        Ok(self.inner.queues.add(row, name))
    }
}

impl Inner {
    async fn ask<T>(&self, job: impl FnOnce(oneshot::Sender<Result<T, BrokerError>>) -> Job) -> Result<T, BrokerError> {
        let (reply, answer) = oneshot::channel();
        let job = job(reply);
        let bytes = job.bytes();
        if let Err((job, refused)) = self.jobs.push(job, bytes) {
            let error = match refused {
                Refused::Overloaded => Transient::Overloaded.into(),
                Refused::Closed => Permanent::Closed.into(),
            };
            BrokerWriter::finish(job, Err(error));
        }
        answer.await.unwrap_or_else(|_| Err(Permanent::Closed.into()))
    }
}

fn defect(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> BrokerError {
    Transient::Unavailable(Arc::from(error.into())).into()
}

impl From<Fault> for BrokerError {
    fn from(fault: Fault) -> BrokerError {
        match fault.kind {
            FaultKind::Full => Transient::NoSpace(fault.source),
            _ => Transient::Unavailable(fault.source),
        }
        .into()
    }
}

/// The failure of an operation on the file as a whole.
fn fault_of_file(path: &Path, fault: Fault) -> BrokerError {
    if fault.kind.is_retriable() {
        return fault.into();
    }
    let unwritable = matches!(fault.kind, FaultKind::ReadOnly | FaultKind::CannotOpen);
    Permanent::Unusable { path: path.to_owned(), unwritable, source: fault.source }.into()
}

#[async_trait]
impl Broker for EmbeddedBroker {
    async fn send(&self, queue: &QueueName, message: Message, within: Duration) -> Result<(), BrokerError> {
        let (bytes, limit) = (message.body.len(), self.inner.max_message_bytes);
        if bytes > limit {
            return Err(Permanent::TooLarge { bytes, limit }.into());
        }
        let sending = async {
            let entry = self.entry(queue).await?;
            let (bytes, limit) = (message.bytes() as u64, self.inner.max_queue_bytes);
            if let Err(held) = entry.reserve(bytes, limit) {
                return Err(Transient::QueueFull { queue: queue.clone(), bytes, held, limit }.into());
            }
            let queues = Arc::clone(&self.inner.queues);
            self.ask(|reply| Job::Send { queues, entry, message, reply }).await
        };
        tokio::time::timeout(within, sending).await.unwrap_or_else(|_| Err(Transient::TimedOut.into()))
    }

    async fn prepare(&self, queue: &QueueName) -> Result<(), BrokerError> {
        self.entry(queue).await.map(drop)
    }

    async fn consume(&self, queue: &QueueName, credit: Credit) -> Result<Box<dyn Consumer>, BrokerError> {
        let entry = self.entry(queue).await?;
        let credit = Credit { messages: credit.messages.max(1), ..credit };
        Ok(Box::new(EmbeddedConsumer::attach(Arc::clone(&self.inner), entry, credit)))
    }

    async fn waiting(&self) -> Result<Vec<QueueName>, BrokerError> {
        if *self.inner.closed.borrow() {
            return Err(Permanent::Closed.into());
        }
        Ok(self.inner.queues.waiting())
    }

    async fn holding(&self, queues: &[QueueName]) -> Result<Vec<Holding>, BrokerError> {
        if *self.inner.closed.borrow() {
            return Err(Permanent::Closed.into());
        }
        Ok(self.inner.queues.holding(queues))
    }

    async fn oldest(&self) -> Result<Option<Duration>, BrokerError> {
        if *self.inner.closed.borrow() {
            return Err(Permanent::Closed.into());
        }
        let (messages, queues) = (Arc::clone(&self.inner.messages), Arc::clone(&self.inner.queues));
        let _turn = self.inner.messages.turn.acquire().await.map_err(defect)?;
        let found = tokio::task::spawn_blocking(move || {
            Ok::<_, SqliteError>(messages.oldest(&queues)?.map(|seq| queues.age_of_oldest(seq)))
        });
        found.await.map_err(defect)?.map_err(|error| Fault::from(error).into())
    }

    async fn backlog_notices(&self) -> Result<Box<dyn BacklogNotices>, BrokerError> {
        Ok(Box::new(EmbeddedNotices::new(Arc::clone(&self.inner))))
    }

    fn trouble(&self) -> Option<BrokerError> {
        self.inner.closed.borrow().then(|| Permanent::Closed.into())
    }

    fn max_message_bytes(&self) -> usize {
        self.inner.max_message_bytes
    }

    /// Nobody outside of this process reaches it.
    fn client_queues(&self) -> Option<Arc<dyn ClientQueues>> {
        None
    }

    fn markers(&self) -> Option<Arc<dyn Markers>> {
        None
    }

    async fn close(&self) {
        self.inner.closed.send_replace(true);
        self.inner.jobs.close();
        let thread = self.inner.thread.lock().take();
        if let Some(thread) = thread
            && tokio::task::spawn_blocking(move || thread.join()).await.is_ok_and(|joined| joined.is_err())
        {
            tracing::error!("the broker's committer ended with a defect");
        }
    }
}
