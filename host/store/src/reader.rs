//! What can be read from a database, in families. A read sees what was committed before it began.
//!
//! Errors of all of them: the retriable ones, [`StoreError::Corrupt`] for a row that cannot be read, and
//! [`StoreError::Closed`].
#![allow(clippy::missing_errors_doc)]

use async_trait::async_trait;
use bytes::Bytes;
use maxhost_model::{FlowRow, IdentityRow, SessionId};

use crate::error::StoreError;
use crate::record::{
    Client, FlowFilter, FlowRecord, FlowState, Head, IdentityRecord, LateConfirm, LeftRows, LeftWork, LiveFlow,
    OutboxDestination, OutboxRow, SizedJournal, StoredJournal,
};

/// Below its place among the databases, a number of the outbox has so many bits.
const OUTBOX_BITS: u32 = 56;

/// The number behind which those of outbox rows begin, for the database with this place among several.
#[must_use]
pub fn outbox_begin(database: usize) -> i64 {
    i64::try_from(database).unwrap_or(0) << OUTBOX_BITS
}

/// The place of the database that has the outbox row of this number.
#[must_use]
pub fn outbox_database(number: i64) -> usize {
    usize::try_from(number >> OUTBOX_BITS).unwrap_or(0)
}

/// Bytes of bodies after which a page has no further row. A row is there if those before it on the page have fewer: so a page has
/// one row at least, and is larger than this by one row at most.
pub const PAGE_BYTES: usize = 4 << 20;

/// Whether nothing comes behind a page that was read with this limit: it has room left, in rows and in bytes. `bodies`: how
/// many bytes each of its rows has.
pub fn is_last_page(limit: u32, bodies: impl IntoIterator<Item = usize>) -> bool {
    let (mut rows, mut bytes) = (0_usize, 0_usize);
    for body in bodies {
        rows += 1;
        bytes = bytes.saturating_add(body);
    }
    rows < limit as usize && bytes < PAGE_BYTES
}

/// Live flows of an identity that are read at once.
const LIVE_AT_ONCE: u32 = 4096;

/// Gives each flow of an identity that has not ended, by row, a page at a time.
///
/// # Errors
/// Those of the reader.
pub async fn each_live_flow(
    reader: &(impl FlowReader + ?Sized),
    identity: IdentityRow,
    give: impl FnMut(LiveFlow) + Send,
) -> Result<(), StoreError> {
    each_live_flow_by(reader, identity, LIVE_AT_ONCE, give).await
}

/// As [`each_live_flow`], in pages of so many.
pub(crate) async fn each_live_flow_by(
    reader: &(impl FlowReader + ?Sized),
    identity: IdentityRow,
    at_once: u32,
    mut give: impl FnMut(LiveFlow) + Send,
) -> Result<(), StoreError> {
    let mut after = None;
    loop {
        let page = reader.live_flows_of(identity, after, at_once).await?;
        after = page.last().map(|flow| flow.row);
        let is_last = page.len() < at_once as usize;
        page.into_iter().for_each(&mut give);
        if is_last {
            return Ok(());
        }
    }
}

/// Flows whose start records are asked for at once.
const STARTS_AT_ONCE: usize = 512;

/// Gives the start record of each of these flows that is there, by row, a page at a time.
///
/// # Errors
/// Those of the reader.
pub async fn each_start(
    reader: &(impl FlowReader + ?Sized),
    rows: &[FlowRow],
    mut give: impl FnMut(FlowRow, Bytes) + Send,
) -> Result<(), StoreError> {
    let mut rows = rows.to_vec();
    rows.sort_unstable();
    let mut left = &rows[..];
    while !left.is_empty() {
        let (asked, rest) = left.split_at(left.len().min(STARTS_AT_ONCE));
        let page = reader.starts(asked).await?;
        let is_last = is_last_page(u32::MAX, page.iter().map(|(_, start)| start.len()));
        left = match page.last() {
            Some((last, _)) if !is_last => &left[left.partition_point(|row| row <= last)..],
            _ => rest,
        };
        page.into_iter().for_each(|(row, start)| give(row, start));
    }
    Ok(())
}

/// Reads identities.
#[async_trait]
pub trait IdentityReader: Send + Sync {
    /// All identities that were ever registered, by row.
    async fn identities(&self) -> Result<Vec<IdentityRecord>, StoreError>;

    /// The identities whose wake-up time has come, with that time, and the next time after `now` at which another's comes: ms
    /// since 1970.
    async fn due(&self, now: i64) -> Result<(Vec<(IdentityRow, i64)>, Option<i64>), StoreError>;

    /// The identities for which there is something to do though nobody tells them, by row. `now`: ms since 1970.
    async fn left_work(&self, now: i64) -> Result<Vec<LeftWork>, StoreError>;

    /// What there may be of one identity, in one look. A database to which several looks cost no more need not know.
    async fn left_rows(&self, _identity: IdentityRow) -> Result<LeftRows, StoreError> {
        Ok(LeftRows::UNKNOWN)
    }
}

/// Reads flows without their journals.
#[async_trait]
pub trait FlowReader: Send + Sync {
    /// All flows that have not ended, by row: what a host reads once when it starts.
    async fn live_flows(&self) -> Result<Vec<LiveFlow>, StoreError>;

    /// Flows of an identity that have not ended, by row, behind this one, at most so many. [`each_live_flow`] reads them all.
    async fn live_flows_of(
        &self,
        identity: IdentityRow,
        after: Option<FlowRow>,
        limit: u32,
    ) -> Result<Vec<LiveFlow>, StoreError>;

    /// How many flows that have not ended each of these identities has, by identity; those that have none are left out. The
    /// database counts, and no row of a flow is given.
    async fn live_counts(&self, identities: &[IdentityRow]) -> Result<Vec<(IdentityRow, u64)>, StoreError>;

    /// How many flows that have not ended are in each state, by state; a state that no flow is in is left out. The database
    /// counts, as in [`FlowReader::live_counts`].
    async fn live_states(&self) -> Result<Vec<(FlowState, u64)>, StoreError>;

    /// One flow.
    async fn flow(&self, row: FlowRow) -> Result<Option<FlowRecord>, StoreError>;

    /// Those of these flows that are there, by row, without start records, end records and labels.
    async fn flows(&self, rows: &[FlowRow]) -> Result<Vec<FlowRecord>, StoreError>;

    /// The start records of those of these flows that are there, by row: none behind [`PAGE_BYTES`] bytes of them.
    /// [`each_start`] reads them all.
    async fn starts(&self, rows: &[FlowRow]) -> Result<Vec<(FlowRow, Bytes)>, StoreError>;

    /// Flows, newest first, a page at a time. Start records and labels are left out, and so are end records over the
    /// size that the filter names.
    async fn list_flows(&self, filter: &FlowFilter) -> Result<Vec<FlowRecord>, StoreError>;
}

/// Reads the journals of flows.
#[async_trait]
pub trait JournalReader: Send + Sync {
    /// A flow with its log and its inbox, all of one moment.
    async fn journal(&self, row: FlowRow) -> Result<Option<StoredJournal>, StoreError>;

    /// As [`JournalReader::journal`], if log and inbox have at most `most` bytes. Of a larger one it is told how many it has, and
    /// little more than `most` of them is read.
    async fn journal_within(&self, row: FlowRow, most: u64) -> Result<Option<SizedJournal>, StoreError>;

    /// The heads of the first of these flows' journals, in the order asked for: none behind [`PAGE_BYTES`] bytes of segments,
    /// and one at least. The others are asked for again.
    async fn heads(&self, rows: &[FlowRow]) -> Result<Vec<Head>, StoreError>;
}

/// Reads messages.
#[async_trait]
pub trait MessageReader: Send + Sync {
    /// The initiations that wait for an identity, from the one after `after` on, oldest first: at most `limit`, and none behind
    /// [`PAGE_BYTES`] bytes of bodies.
    async fn initiations(&self, identity: IdentityRow, after: i64, limit: u32)
    -> Result<Vec<(i64, Bytes)>, StoreError>;

    /// The identities for which initiations wait, by row, each with the number of the first. A number is never used twice.
    async fn first_initiations(&self) -> Result<Vec<(IdentityRow, i64)>, StoreError>;

    /// Confirmations that came for flows of an identity that had ended, by session, from the one after `after` on: at most
    /// `limit`, and none behind [`PAGE_BYTES`] bytes of bodies.
    async fn late_confirms(
        &self,
        identity: IdentityRow,
        after: Option<SessionId>,
        limit: u32,
    ) -> Result<Vec<LateConfirm>, StoreError>;

    /// Messages for the broker, from the one after `after` on, oldest first: at most `limit`, and none behind [`PAGE_BYTES`]
    /// bytes of bodies.
    async fn outbox(&self, after: i64, limit: u32) -> Result<Vec<OutboxRow>, StoreError>;

    /// For how long the oldest message has waited for the broker, ms of the time that hosts have run; `None` if none does.
    async fn oldest_outbox(&self) -> Result<Option<i64>, StoreError>;

    /// The places that messages wait to be sent to, from the one after `after` on, in alphabetical order.
    async fn outbox_destinations(&self, after: &str, limit: u32) -> Result<Vec<OutboxDestination>, StoreError>;

    /// Messages for one place whose senders this run holds, from the one after `after` on, oldest first: at most `limit`, and
    /// none behind [`PAGE_BYTES`] bytes of bodies. A run writes its messages in the order of their numbers, so whoever
    /// reads on behind the last one that he was given overlooks none, unless the run has claimed their sender since. That is
    /// not so for messages of other runs, whose numbers may be lower and come later. Where there are several databases ([`crate::Committer::databases`]), those of
    /// one of them: each has numbers of its own, which begin behind [`outbox_begin`].
    async fn outbox_to(&self, destination: &str, after: i64, limit: u32) -> Result<Vec<OutboxRow>, StoreError>;
}

/// Reads client ids.
#[async_trait]
pub trait ClientReader: Send + Sync {
    /// The flow that a user's client id names.
    async fn client(&self, identity: IdentityRow, user: &str, client_id: &str) -> Result<Option<FlowRow>, StoreError>;

    /// The identities for which a user has used a client id, with the flows that it names there; in the order of the
    /// identities. One question, however many identities there are.
    async fn client_uses(&self, user: &str, client_id: &str) -> Result<Vec<(IdentityRow, FlowRow)>, StoreError>;

    /// The client ids of a user in an identity, in alphabetical order, from the one after `after` on: at most `limit`. Nothing
    /// is read of their flows but what is told here.
    async fn clients(
        &self,
        identity: IdentityRow,
        user: &str,
        after: &str,
        limit: u32,
    ) -> Result<Vec<Client>, StoreError>;
}
