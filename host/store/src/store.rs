//! A database under one name, whichever it is.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use maxhost_model::{Claim, IdentityRow};
use smallvec::SmallVec;
use tokio::sync::oneshot;

use crate::audit::{AuditReader, AuditRow};
use crate::claim::{Author, ClaimRequest, Forgive};
use crate::committer::{Claimed, Committer, Job};
use crate::error::StoreError;
use crate::ledger::{ImportBounds, Imported, LedgerReader, NewAttachment};
use crate::op::Op;
use crate::reader::{ClientReader, FlowReader, IdentityReader, JournalReader, MessageReader};
use crate::record::{ResultRead, Untaken, UntakenCount};
use crate::unit::{CommitUnit, Receipt};

/// A database: one committer, and readers of every family.
pub trait Database:
    Committer + IdentityReader + FlowReader + JournalReader + MessageReader + ClientReader + LedgerReader + AuditReader
{
}

impl<D> Database for D where
    D: Committer
        + IdentityReader
        + FlowReader
        + JournalReader
        + MessageReader
        + ClientReader
        + LedgerReader
        + AuditReader
{
}

/// The database of a host. Cloning gives another handle to the same one.
#[derive(Clone)]
pub struct Store {
    database: Arc<dyn Database>,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").finish_non_exhaustive()
    }
}

impl Deref for Store {
    type Target = dyn Database;

    fn deref(&self) -> &(dyn Database + 'static) {
        &*self.database
    }
}

impl Store {
    /// This database.
    pub fn new(database: impl Database) -> Store {
        Store { database: Arc::new(database) }
    }

    /// Hands a unit to the committer. Never blocks; units of one caller are committed in the order they are handed in.
    ///
    /// When the queue's hard bound is reached the unit is refused with [`StoreError::Overloaded`]; heed
    /// [`Committer::is_congested`] upstream and that does not happen. See [`crate::Done`] for where `done` runs.
    pub fn submit(&self, unit: CommitUnit) {
        self.hand_in(Job::Unit(unit));
    }

    /// Commits these operations and waits for it.
    ///
    /// # Errors
    /// As the operations say, [`StoreError::Fenced`], and the retriable ones.
    pub async fn commit(&self, author: Author, ops: Vec<Op>) -> Result<Receipt, StoreError> {
        let (reply, answer) = oneshot::channel();
        let done = Box::new(move |outcome| drop(reply.send(outcome)));
        self.submit(CommitUnit { author, attempt: None, depends_on: SmallVec::new(), ops, done });
        answer.await.unwrap_or(Err(StoreError::Closed))
    }

    /// Makes identities of these names known; those that are known stay as they are. One transaction, rows in the
    /// order of the names.
    ///
    /// # Errors
    /// The retriable ones, and [`StoreError::Closed`].
    pub async fn register_identities<S: AsRef<str>>(&self, names: &[S]) -> Result<Vec<IdentityRow>, StoreError> {
        let names = names.iter().map(|name| name.as_ref().to_owned()).collect();
        self.database.register(names).await
    }

    /// Claims identities for this run, in one transaction: from then on only units that carry the claim are written.
    /// Each claim succeeds or is refused alone. The same claim again by the same run is no error.
    ///
    /// Read the state of an identity only after this has returned: what was read before may be another owner's past.
    ///
    /// # Errors
    /// The retriable ones, and [`StoreError::Closed`]. For a single claim: [`StoreError::Fenced`] if the database has
    /// an equal or later one, [`crate::Conflict::IdentityMoved`], [`crate::Conflict::KeyMismatch`],
    /// [`crate::Conflict::IdentityUnknown`], and [`crate::Conflict::OwnersDied`] for one who is cautious.
    pub async fn claim_all(&self, requests: Vec<ClaimRequest>) -> Result<Claimed, StoreError> {
        self.database.claim_all(requests).await
    }

    /// Claims one identity. See [`Store::claim_all`].
    ///
    /// # Errors
    /// Those of the transaction and those of the claim.
    pub async fn claim(&self, request: ClaimRequest) -> Result<Claim, StoreError> {
        self.claim_all(vec![request]).await?.pop().unwrap_or(Err(StoreError::Closed))
    }

    /// Says that owners of an identity do not count as ones that died while they had it. Each claim counts as one until the
    /// identity is let go in order. The count decides who tries, and never who may write, so any host may say this; and if it
    /// is said twice, one too many does not count.
    ///
    /// # Errors
    /// The retriable ones, and [`StoreError::Closed`].
    pub async fn forgive(&self, identity: IdentityRow, forgive: Forgive) -> Result<(), StoreError> {
        self.database.forgive(identity, forgive).await
    }

    /// Notes which results clients have. Any host may: only the first time is kept, and a flow that is not there any more is
    /// no error. Durable when this returns.
    ///
    /// # Errors
    /// The retriable ones, and [`StoreError::Closed`].
    pub async fn note_results_read(&self, reads: Vec<ResultRead>) -> Result<(), StoreError> {
        self.database.note_results_read(reads).await
    }

    /// Counts a message of the broker that cannot be taken for a reason that stays, and keeps it from the
    /// [`crate::UNTAKEN_TRIES`]th time on: then whoever has it may acknowledge it. Of one identity the newest
    /// [`crate::UNTAKEN_ROWS`] are kept, and [`crate::UNTAKEN_BYTES`] of their bytes; of what comes behind these there are no
    /// bytes. Durable when this returns. Any host may count: a message that was counted and is taken all the same stays
    /// counted.
    ///
    /// # Errors
    /// The retriable ones, and [`StoreError::Closed`].
    pub async fn note_untaken(&self, untaken: Untaken) -> Result<UntakenCount, StoreError> {
        self.database.note_untaken(untaken.cut()).await
    }

    /// Keeps an attachment that a client imports, unless it is there or clients have imported as much as may be kept.
    /// Durable when this returns. Any host may do so, whoever runs the identity: what is kept under an id never changes, so
    /// it does not matter who comes first. What is asked again because its answer was lost may be told to be known.
    ///
    /// # Errors
    /// [`crate::Conflict::IdentityUnknown`], [`crate::Conflict::IdentityMoved`], the retriable ones, and
    /// [`StoreError::Closed`].
    pub async fn import_attachment(
        &self,
        identity: IdentityRow,
        attachment: NewAttachment,
        bounds: ImportBounds,
    ) -> Result<Imported, StoreError> {
        self.database.import_attachment(identity, attachment, bounds).await
    }

    /// Adds rows to the audit trail, all or none. They are durable when this returns.
    ///
    /// # Errors
    /// The retriable ones, and [`StoreError::Closed`].
    pub async fn append_audit(&self, rows: Vec<AuditRow>) -> Result<(), StoreError> {
        self.database.append_audit(rows).await
    }

    /// Forgets up to `limit` rows of each kind that have been kept for long enough: flows that have ended with their
    /// client ids, notes of taken messages, outbox rows of senders that nobody runs, and what of the audit trail is too old
    /// or too much. Returns how many rows went; call again while it is the limit or more.
    ///
    /// Time counts while the host runs, by a clock that cannot jump, so a wrong wall clock purges nothing that is young.
    ///
    /// # Errors
    /// The retriable ones, and [`StoreError::Closed`].
    pub async fn purge(&self, limit: u32) -> Result<u64, StoreError> {
        self.database.purge(limit).await
    }
}
