//! The broker inside the host: queues in an SQLite file, written by a group committer.
//!
//! In memory are only counters for each queue and what its consumer has been given credit for; messages are read from
//! the file when they are delivered.

mod consumer;
mod file;
mod queues;
mod writer;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;

use async_trait::async_trait;
use maxhost_sqlite::{
    Bounds, Fault, FaultKind, GroupStats, Queue, Refused, Stats, Tuning, WalLimits, Writer, group, open_reader,
};
use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};

use crate::broker::{Bells, Broker, Consumer, Message};
use crate::error::BrokerError;
use consumer::{EmbeddedBells, EmbeddedConsumer};
use file::Messages;
use queues::{Entry, Queues};
use writer::{BrokerWriter, Job};

/// A queue's name may be as long as an AMQP broker's address surely may.
const NAME_BYTES: usize = 255;

/// How an [`EmbeddedBroker`] is opened.
#[derive(Debug, Clone)]
pub struct EmbeddedOptions {
    /// The file; its folder must exist.
    pub path: PathBuf,
    /// Bytes that the body of a message may have.
    pub max_message_bytes: usize,
    /// Bytes of pages that the committer keeps in memory at most.
    pub cache_bytes: usize,
    /// Bytes the file may grow to; `None`: the disk is the limit.
    pub max_bytes: Option<u64>,
    /// Bounds of the committer's queue.
    pub bounds: Bounds,
}

impl EmbeddedOptions {
    /// The defaults, for this file: messages up to 10 MiB, as Corda's network parameters have it.
    pub fn new(path: impl Into<PathBuf>) -> EmbeddedOptions {
        EmbeddedOptions {
            path: path.into(),
            max_message_bytes: 10 << 20,
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
    /// [`BrokerError::Unusable`], [`BrokerError::Incompatible`], and the retriable ones.
    pub async fn open(options: EmbeddedOptions) -> Result<EmbeddedBroker, BrokerError> {
        let EmbeddedOptions { path, max_message_bytes, cache_bytes, max_bytes, bounds } = options;
        let tuning = Tuning { cache_bytes, max_bytes, ..Tuning::default() };
        let opened = tokio::task::spawn_blocking(move || -> Result<_, BrokerError> {
            let of_file = |fault| BrokerError::of_file(&path, fault);
            let conn = file::prepare(&path, &tuning)?;
            let reader = open_reader(&path, &Tuning { cache_bytes: 2 << 20, ..tuning }).map_err(of_file)?;
            let queues = file::load(&conn).map_err(of_file)?;
            Ok((conn, Messages::new(reader), Arc::new(queues)))
        });
        let (conn, messages, queues) = opened.await.map_err(defect)??;
        let jobs = Arc::new(Queue::new(bounds));
        let stats = Arc::new(Stats::default());
        let (started, starting) = oneshot::channel();
        let thread = {
            let (jobs, stats, first) = (Arc::clone(&jobs), Arc::clone(&stats), queues.newest() + 1);
            std::thread::Builder::new().name("broker".to_owned()).spawn(move || {
                let mut writer = match BrokerWriter::new(&conn, first) {
                    Ok(writer) => writer,
                    Err(fault) => return drop(started.send(Err(fault))),
                };
                if started.send(Ok(())).is_err() {
                    return;
                }
                if let Err(error) = group::run(&conn, &mut writer, &jobs, WalLimits::default(), &stats) {
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
    async fn entry(&self, name: &str) -> Result<Arc<Entry>, BrokerError> {
        if *self.inner.closed.borrow() {
            return Err(BrokerError::Closed);
        }
        if name.is_empty() || name.len() > NAME_BYTES {
            return Err(BrokerError::BadQueue(name.chars().take(64).collect()));
        }
        if let Some(entry) = self.inner.queues.find(name) {
            return Ok(entry);
        }
        let row = self.ask(|reply| Job::Create { name: name.to_owned(), reply }).await?;
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
                Refused::Overloaded => BrokerError::Overloaded,
                Refused::Closed => BrokerError::Closed,
            };
            BrokerWriter::finish(job, Err(error));
        }
        answer.await.unwrap_or(Err(BrokerError::Closed))
    }
}

fn defect(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> BrokerError {
    BrokerError::Unavailable(Fault::new(FaultKind::Other, error))
}

#[async_trait]
impl Broker for EmbeddedBroker {
    async fn send(&self, queue: &str, message: Message) -> Result<(), BrokerError> {
        let (bytes, limit) = (message.body.len(), self.inner.max_message_bytes);
        if bytes > limit {
            return Err(BrokerError::TooLarge { bytes, limit });
        }
        let entry = self.entry(queue).await?;
        let queues = Arc::clone(&self.inner.queues);
        self.ask(|reply| Job::Send { queues, entry, message, reply }).await
    }

    async fn consume(&self, queue: &str, credit: u32) -> Result<Box<dyn Consumer>, BrokerError> {
        let entry = self.entry(queue).await?;
        Ok(Box::new(EmbeddedConsumer::attach(Arc::clone(&self.inner), entry, credit.max(1))))
    }

    async fn waiting(&self) -> Result<Vec<String>, BrokerError> {
        if *self.inner.closed.borrow() {
            return Err(BrokerError::Closed);
        }
        Ok(self.inner.queues.waiting())
    }

    async fn bells(&self) -> Result<Box<dyn Bells>, BrokerError> {
        Ok(Box::new(EmbeddedBells::new(Arc::clone(&self.inner))))
    }

    fn max_message_bytes(&self) -> usize {
        self.inner.max_message_bytes
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
