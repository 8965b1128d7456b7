//! The one way to change a database: jobs for its committer. What is not about rows of one identity (claims, names,
//! purging) a database may do beside its queue.

use async_trait::async_trait;
use maxhost_group_commit::{Bounds, CommitHint, GroupStats, Queue, Refused, Stats};
use maxhost_model::{Claim, FlowRow, IdentityRow, Lineage, RunId};
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::{oneshot, watch};

use crate::audit::AuditRow;
use crate::claim::{ClaimRequest, Forgive};
use crate::components::SharedComponents;
use crate::error::StoreError;
use crate::kept::KeptMessages;
use crate::ledger::{ImportBounds, Imported, NewAttachment};
use crate::record::{ResultRead, Untaken, UntakenCount};
use crate::unit::{CommitUnit, Receipt};

/// Where the answer to a job goes.
pub type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

/// What becomes of each of several claims.
pub type Claimed = Vec<Result<Claim, StoreError>>;

/// What goes through the committer's queue: every change of the database.
pub enum Job {
    /// A unit of an identity.
    Unit(CommitUnit),
    /// Makes identities of these names known.
    Register {
        /// Their names.
        names: Vec<String>,
        /// Gets their rows, in the order of the names.
        reply: Reply<Vec<IdentityRow>>,
    },
    /// Claims identities for this run.
    Claim {
        /// Which, and under what.
        requests: Vec<ClaimRequest>,
        /// Gets the outcomes, in the order of the requests.
        reply: Reply<Claimed>,
    },
    /// Says that owners of an identity do not count as ones that died while they had it.
    Forgive {
        /// Which.
        identity: IdentityRow,
        /// Which owners, and why.
        forgive: Forgive,
        /// Gets a number when it is durable.
        reply: Reply<u64>,
    },
    /// Forgets what has expired and what nobody will ever take.
    Purge {
        /// At most so many rows of each kind.
        limit: u32,
        /// Gets the number of rows that went.
        reply: Reply<u64>,
    },
    /// Notes which results clients have.
    ResultsRead {
        /// The flows.
        reads: Vec<ResultRead>,
        /// Gets their number when it is durable.
        reply: Reply<u64>,
    },
    /// Counts a message that cannot be taken.
    Untaken {
        /// The message.
        untaken: Box<Untaken>,
        /// Gets the count when it is durable.
        reply: Reply<UntakenCount>,
    },
    /// Keeps an attachment that a client imports.
    Import {
        /// For whom.
        identity: IdentityRow,
        /// The attachment.
        attachment: Box<NewAttachment>,
        /// How much may be kept.
        bounds: ImportBounds,
        /// Gets what became of it when it is durable.
        reply: Reply<Imported>,
    },
    /// Adds rows to the audit trail.
    Audit {
        /// The rows.
        rows: Vec<AuditRow>,
        /// Gets their number when they are durable.
        reply: Reply<u64>,
    },
}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Job::Unit(unit) => unit.fmt(f),
            Job::Register { names, .. } => write!(f, "Register({})", names.len()),
            Job::Claim { requests, .. } => write!(f, "Claim({})", requests.len()),
            Job::Forgive { identity, forgive, .. } => write!(f, "Forgive({}, {forgive:?})", identity.0),
            Job::Purge { limit, .. } => write!(f, "Purge({limit})"),
            Job::ResultsRead { reads, .. } => write!(f, "ResultsRead({})", reads.len()),
            Job::Untaken { untaken, .. } => write!(f, "Untaken({})", untaken.identity.0),
            Job::Import { identity, attachment, .. } => write!(f, "Import({}, {})", identity.0, attachment.id),
            Job::Audit { rows, .. } => write!(f, "Audit({})", rows.len()),
        }
    }
}

/// What a job learns.
#[derive(Debug)]
pub enum Outcome {
    /// A unit.
    Receipt(Receipt),
    /// A registration.
    Rows(Vec<IdentityRow>),
    /// The claims that were made, and those that were refused.
    Claimed(Claimed),
    /// A purge, rows of the audit trail, results that were read, or owners that do not count.
    Count(u64),
    /// A message that cannot be taken.
    Untaken(UntakenCount),
    /// An attachment of a client.
    Imported(Imported),
}

impl Job {
    /// Bytes it holds in memory, about.
    #[must_use]
    pub fn bytes(&self) -> usize {
        const SMALL: usize = 256;
        match self {
            Job::Unit(unit) => unit.bytes(),
            Job::Register { names, .. } => SMALL + names.iter().map(|name| name.len() + 24).sum::<usize>(),
            Job::Claim { requests, .. } => SMALL + requests.len() * std::mem::size_of::<ClaimRequest>(),
            Job::Forgive { .. } | Job::Purge { .. } => SMALL,
            Job::ResultsRead { reads, .. } => SMALL + std::mem::size_of_val(&**reads),
            Job::Untaken { untaken, .. } => SMALL + untaken.sender.len() + untaken.reason.len() + untaken.body.len(),
            Job::Import { attachment, .. } => SMALL + attachment.uploader.len() + attachment.body.len(),
            Job::Audit { rows, .. } => SMALL + rows.iter().map(AuditRow::bytes).sum::<usize>(),
        }
    }

    /// Tells whoever handed it in. Called once, after the transaction is durable or lost.
    pub fn finish(self, outcome: Result<Outcome, StoreError>) {
        match self {
            Job::Unit(unit) => {
                if let (Err(_), Some(attempt)) = (&outcome, &unit.attempt) {
                    attempt.revoke();
                }
                (unit.done)(outcome.map(|outcome| match outcome {
                    Outcome::Receipt(receipt) => receipt,
                    _ => Receipt::default(),
                }));
            }
            // Whoever asked may have gone away; the work is done all the same.
            Job::Register { reply, .. } => {
                let _ = reply.send(outcome.map(|outcome| match outcome {
                    Outcome::Rows(rows) => rows,
                    _ => Vec::new(),
                }));
            }
            Job::Claim { reply, .. } => {
                let _ = reply.send(outcome.map(|outcome| match outcome {
                    Outcome::Claimed(claimed) => claimed,
                    _ => Vec::new(),
                }));
            }
            Job::Untaken { reply, .. } => {
                let _ = reply.send(outcome.map(|outcome| match outcome {
                    Outcome::Untaken(count) => count,
                    _ => UntakenCount::default(),
                }));
            }
            Job::Import { reply, .. } => {
                let _ = reply.send(outcome.and_then(|outcome| match outcome {
                    Outcome::Imported(imported) => Ok(imported),
                    _ => Err(StoreError::Closed),
                }));
            }
            Job::Purge { reply, .. }
            | Job::Audit { reply, .. }
            | Job::ResultsRead { reply, .. }
            | Job::Forgive { reply, .. } => {
                let _ = reply.send(outcome.map(|outcome| match outcome {
                    Outcome::Count(count) => count,
                    _ => 0,
                }));
            }
        }
    }
}

/// The queue before a committer, with what it counts: every database has one.
#[derive(Clone)]
pub struct CommitQueue {
    /// Jobs that wait.
    pub jobs: Arc<Queue<Job>>,
    /// The committer's counters.
    pub stats: Arc<Stats>,
}

impl std::fmt::Debug for CommitQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CommitQueue").field("depth", &self.jobs.depth()).finish_non_exhaustive()
    }
}

impl CommitQueue {
    /// An empty one.
    #[must_use]
    pub fn new(bounds: Bounds) -> CommitQueue {
        CommitQueue { jobs: Arc::new(Queue::new(bounds)), stats: Arc::default() }
    }

    /// Puts a job at the end; one that is not taken is told at once.
    pub fn push(&self, job: Job) {
        let bytes = job.bytes();
        if let Err((job, refused)) = self.jobs.push(job, bytes) {
            job.finish(Err(match refused {
                Refused::Overloaded => StoreError::Overloaded,
                Refused::Closed => StoreError::Closed,
            }));
        }
    }
}

/// The committer of a database: the only one that writes to it for this run.
#[async_trait]
pub trait Committer: Send + Sync + 'static {
    /// Its queue.
    fn queue(&self) -> &CommitQueue;

    /// Puts a job at the end of the queue. Never blocks.
    fn hand_in(&self, job: Job) {
        self.queue().push(job);
    }

    /// The number of this run.
    fn run(&self) -> RunId;

    /// Which database it is, as it was when it was opened.
    fn lineage(&self) -> Lineage;

    /// [`Committer::lineage`] of each database there is behind this name.
    fn lineages(&self) -> Vec<Lineage> {
        vec![self.lineage()]
    }

    /// When the server of each database behind this name answered last, by a name of the database that is the same on all
    /// hosts. One that answers is asked at least every second. None of a database that is in this process, or that is not asked
    /// because nobody has a use for it.
    fn last_answers(&self) -> Vec<(String, Instant)> {
        Vec::new()
    }

    /// The time of the first database's server, in milliseconds since 1970: as it was measured last, and as it has gone on since by this
    /// machine's monotonic clock. So neither a wall clock that is wrong nor one that is set moves it. `None` for a database that
    /// is in this process.
    fn server_millis(&self) -> Option<i64> {
        None
    }

    /// The components that hosts share by this database; `None` for one that no two hosts use.
    fn components(&self) -> Option<&dyn SharedComponents> {
        None
    }

    /// The messages that are kept after the broker has confirmed them; `None` for a database that no two hosts use, which
    /// keeps none.
    fn kept_messages(&self) -> Option<&dyn KeptMessages> {
        None
    }

    /// A row for a new flow: above all rows that any committed flow of this database ever had. A row beyond
    /// [`FlowRow::MAX`], or below 1, says that there is none for now; a unit that uses it is refused.
    fn next_flow_row(&self) -> FlowRow;

    /// A number for a new initiation: above all that any committed one of this database ever had.
    fn next_initiation(&self) -> i64;

    /// Takes no more jobs, commits what waits and ends. Every call from then on gets [`StoreError::Closed`].
    async fn close(&self);

    /// Makes identities of these names known. See [`crate::Store::register_identities`].
    ///
    /// # Errors
    /// The retriable ones, and [`StoreError::Closed`].
    async fn register(&self, names: Vec<String>) -> Result<Vec<IdentityRow>, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.hand_in(Job::Register { names, reply });
        answer.await.unwrap_or(Err(StoreError::Closed))
    }

    /// Claims identities for this run. See [`crate::Store::claim_all`].
    ///
    /// # Errors
    /// The retriable ones, and [`StoreError::Closed`].
    async fn claim_all(&self, requests: Vec<ClaimRequest>) -> Result<Claimed, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.hand_in(Job::Claim { requests, reply });
        answer.await.unwrap_or(Err(StoreError::Closed))
    }

    /// Says that owners of an identity do not count. See [`crate::Store::forgive`].
    ///
    /// # Errors
    /// The retriable ones, and [`StoreError::Closed`].
    async fn forgive(&self, identity: IdentityRow, forgive: Forgive) -> Result<(), StoreError> {
        let (reply, answer) = oneshot::channel();
        self.hand_in(Job::Forgive { identity, forgive, reply });
        answer.await.unwrap_or(Err(StoreError::Closed)).map(drop)
    }

    /// Forgets what has been kept for long enough. See [`crate::Store::purge`].
    ///
    /// # Errors
    /// The retriable ones, and [`StoreError::Closed`].
    async fn purge(&self, limit: u32) -> Result<u64, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.hand_in(Job::Purge { limit, reply });
        answer.await.unwrap_or(Err(StoreError::Closed))
    }

    /// Notes which results clients have. See [`crate::Store::note_results_read`].
    ///
    /// # Errors
    /// The retriable ones, and [`StoreError::Closed`].
    async fn note_results_read(&self, reads: Vec<ResultRead>) -> Result<(), StoreError> {
        let (reply, answer) = oneshot::channel();
        self.hand_in(Job::ResultsRead { reads, reply });
        answer.await.unwrap_or(Err(StoreError::Closed)).map(drop)
    }

    /// Counts a message that cannot be taken. See [`crate::Store::note_untaken`].
    ///
    /// # Errors
    /// The retriable ones, and [`StoreError::Closed`].
    async fn note_untaken(&self, untaken: Untaken) -> Result<UntakenCount, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.hand_in(Job::Untaken { untaken: Box::new(untaken), reply });
        answer.await.unwrap_or(Err(StoreError::Closed))
    }

    /// Keeps an attachment that a client imports. See [`crate::Store::import_attachment`].
    ///
    /// # Errors
    /// See there.
    async fn import_attachment(
        &self,
        identity: IdentityRow,
        attachment: NewAttachment,
        bounds: ImportBounds,
    ) -> Result<Imported, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.hand_in(Job::Import { identity, attachment: Box::new(attachment), bounds, reply });
        answer.await.unwrap_or(Err(StoreError::Closed))
    }

    /// Adds rows to the audit trail. See [`crate::Store::append_audit`].
    ///
    /// # Errors
    /// The retriable ones, and [`StoreError::Closed`].
    async fn append_audit(&self, rows: Vec<AuditRow>) -> Result<(), StoreError> {
        let (reply, answer) = oneshot::channel();
        self.hand_in(Job::Audit { rows, reply });
        answer.await.unwrap_or(Err(StoreError::Closed)).map(drop)
    }

    /// Says that a unit is about to be handed in: the committer waits a moment for it, instead of syncing twice in a
    /// row. Drop the hint when the unit is handed in, or when there will be none soon.
    fn commit_hint(&self) -> CommitHint {
        self.queue().jobs.hint()
    }

    /// [`Committer::commit_hint`] for a unit of this identity: its database may be another than those of others.
    fn commit_hint_for(&self, identity: IdentityRow) -> CommitHint {
        let _ = identity;
        self.commit_hint()
    }

    /// Whether more waits to be committed than is good: hold new work back.
    fn is_congested(&self) -> bool {
        self.queue().jobs.is_congested()
    }

    /// [`Committer::is_congested`] for units of this identity: its database may be another than those of others.
    fn is_congested_for(&self, identity: IdentityRow) -> bool {
        let _ = identity;
        self.is_congested()
    }

    /// How many databases there are behind this one name: identities may live in different ones.
    fn databases(&self) -> usize {
        1
    }

    /// Whether units of the one identity may write messages to the other directly: both are in one database, and so go
    /// through one committer.
    fn is_one_database(&self, one: IdentityRow, other: IdentityRow) -> bool {
        let _ = (one, other);
        true
    }

    /// [`Committer::is_congested`] as something to wait on.
    fn congestion(&self) -> watch::Receiver<bool> {
        self.queue().jobs.congestion()
    }

    /// The committer's counters.
    fn stats(&self) -> GroupStats {
        self.queue().stats.view(self.queue().jobs.depth())
    }
}
