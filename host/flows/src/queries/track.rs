//! Following a vault: what is there in parts, then each change, straight from the database.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, stream};
use maxhost_ledger::time::Timestamp;
use maxhost_ledger::tx::StateRef;
use maxhost_ledger::vault::query::{Cursor, Query, StatusFilter};
use maxhost_model::{Code, Problem};
use maxhost_store::ledger::query::page;
use maxhost_store::ledger::{VaultPage, VaultRow};

use super::state_views::state_views;
use crate::api::ApiResult;
use crate::api::ledger::VaultChange;
use crate::host::parts::Parts;
use crate::registry::entry::IdentityEntry;

/// So many changes of a vault are read at once.
const CHANGES: u32 = 256;
/// States of one page of what was there when a feed began.
const SNAPSHOT: u32 = 1_000;
/// How often a feed looks for changes.
const LOOK: Duration = Duration::from_millis(200);

/// What a query finds now, and what changes after it, for ever; behind a cursor, what is behind it.
///
/// # Errors
/// `cursor-invalid`; those of a query.
pub(super) async fn track(
    parts: Arc<Parts>,
    entry: Arc<IdentityEntry>,
    query: Query,
    cursor: Option<String>,
) -> ApiResult<impl Stream<Item = ApiResult<VaultChange>> + Send> {
    let newest = parts.store.newest_change(entry.row).await.map_err(Problem::from)?;
    let (after, snapshot) = match cursor {
        Some(cursor) => {
            let place = TrackPlace::read(&entry, &cursor, newest)?;
            (place.change, place.behind.map(|behind| Snapshot::behind(&query, behind)))
        }
        None => (newest, Some(Snapshot::of(&query))),
    };
    // Consumed states are told too, by the same condition.
    let query = Query { status: StatusFilter::All, ..query };
    let mut feed = Feed { parts, entry, query, after, snapshot, ready: VecDeque::new() };
    // What is wrong with the query is told at once.
    feed.read_snapshot().await?;
    Ok(stream::unfold(feed, |mut feed| async move {
        let change = feed.next().await?;
        Some((change, feed))
    }))
}

/// Where a feed goes on: behind a change that the vault has had, or, within what was there after that change, behind a state.
/// As a cursor it is `CHANGE` or `CHANGE@ID:INDEX`.
struct TrackPlace {
    change: i64,
    behind: Option<StateRef>,
}

impl TrackPlace {
    fn read(entry: &IdentityEntry, cursor: &str, newest: i64) -> ApiResult<TrackPlace> {
        let none =
            || Problem::new(Code::CursorInvalid, "this is no cursor of a vault's changes").detail("field", "cursor");
        let (change, behind) = match cursor.split_once('@') {
            Some((change, behind)) => (change, Some(behind.parse::<StateRef>().map_err(|_| none())?)),
            None => (cursor, None),
        };
        match change.parse::<i64>() {
            Ok(change) if (0..=newest).contains(&change) => Ok(TrackPlace { change, behind }),
            Ok(change) => {
                let name = &entry.text;
                let text =
                    format!("the cursor says {change}, and the newest change of the vault of {name} is {newest}");
                Err(Problem::new(Code::CursorInvalid, text)
                    .detail("cursor", change.to_string())
                    .detail("last", newest.to_string()))
            }
            Err(_) => Err(none()),
        }
    }
}

impl fmt::Display for TrackPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.change)?;
        self.behind.map_or(Ok(()), |behind| write!(f, "@{behind}"))
    }
}

/// What is left to tell of what was there, in the order of references: a page at a time, so that no message is larger than a page.
#[derive(Clone)]
struct Snapshot {
    query: Query,
    /// The end of the page before.
    after: Option<Cursor>,
}

impl Snapshot {
    /// All that a query finds, whatever its order and its limit.
    fn of(query: &Query) -> Snapshot {
        Snapshot { query: Query { sort: Vec::new(), limit: SNAPSHOT, ..query.clone() }, after: None }
    }

    fn behind(query: &Query, behind: StateRef) -> Snapshot {
        let all = Snapshot::of(query);
        Snapshot { after: all.query.cursor_behind(behind), ..all }
    }

    /// The next page, of the vault as it was after a change. If another follows, `self` stands behind this one.
    async fn next(mut self, feed: &Feed) -> ApiResult<(VaultChange, Option<Snapshot>)> {
        let (store, identity) = (&*feed.parts.store, feed.entry.row);
        let now = Timestamp::from_nanos(feed.parts.clock.wall());
        let found = page(store, identity, &self.query, self.after.as_ref(), Some(feed.after), now).await;
        let VaultPage { rows, cursor } = found.map_err(Problem::from)?;
        let behind = cursor.as_ref().map(|cursor| cursor.after().1);
        let change = VaultChange {
            cursor: TrackPlace { change: feed.after, behind }.to_string(),
            transaction: None,
            more: behind.is_some(),
            produced: state_views(store, identity, rows).await?,
            consumed: Vec::new(),
        };
        self.after = cursor;
        Ok((change, behind.map(|_| self)))
    }
}

/// Where a feed of changes stands.
struct Feed {
    parts: Arc<Parts>,
    entry: Arc<IdentityEntry>,
    query: Query,
    after: i64,
    /// What was there after that change, as far as it is not told yet.
    snapshot: Option<Snapshot>,
    ready: VecDeque<VaultChange>,
}

impl Feed {
    /// The next change that the query finds something of; `None` at the end of the host.
    async fn next(&mut self) -> Option<ApiResult<VaultChange>> {
        loop {
            if let Some(change) = self.ready.pop_front() {
                return Some(Ok(change));
            }
            if self.parts.stopping.is_cancelled() {
                return None;
            }
            let any = match self.snapshot.is_some() {
                true => self.read_snapshot().await.map(|()| true),
                false => self.read().await,
            };
            match any {
                Ok(true) => {}
                Ok(false) => {
                    tokio::select! {
                        () = tokio::time::sleep(LOOK) => {}
                        () = self.parts.stopping.cancelled() => return None,
                    }
                }
                Err(problem) => return Some(Err(problem)),
            }
        }
    }

    /// Reads the next page of what was there, if any of it is left. If it cannot be read it is left.
    async fn read_snapshot(&mut self) -> ApiResult<()> {
        let Some(snapshot) = &self.snapshot else { return Ok(()) };
        let (change, rest) = snapshot.clone().next(self).await?;
        self.snapshot = rest;
        self.ready.push_back(change);
        Ok(())
    }

    /// Whether there were changes.
    async fn read(&mut self) -> ApiResult<bool> {
        let now = Timestamp::from_nanos(self.parts.clock.wall());
        let changes = self.parts.store.vault_changes(self.entry.row, self.after, CHANGES, now).await;
        let changes = changes.map_err(Problem::from)?;
        let any = !changes.is_empty();
        for change in changes {
            self.after = change.number;
            let found = |row: &VaultRow| self.query.finds(&row.row);
            let produced: Vec<VaultRow> = change.produced.into_iter().filter(&found).collect();
            let produced = state_views(&*self.parts.store, self.entry.row, produced).await?;
            let consumed: Vec<String> =
                change.consumed.iter().filter(|row| found(row)).map(|row| row.row.reference.to_string()).collect();
            if !produced.is_empty() || !consumed.is_empty() {
                self.ready.push_back(VaultChange {
                    cursor: change.number.to_string(),
                    transaction: Some(change.transaction.to_string()),
                    more: false,
                    produced,
                    consumed,
                });
            }
        }
        Ok(any)
    }
}
