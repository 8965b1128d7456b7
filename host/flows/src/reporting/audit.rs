//! The audit trail of this host: what was noted waits in a bounded queue, and one task writes it in batches.
//!
//! Nobody waits for it. What does not fit is counted, and the count becomes a row. Calls that only look, and calls that are
//! refused, cost the caller nothing, so that there may be very many: of those that are alike some in a minute get rows of
//! their own, and the others one row that says how many they were.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use maxhost_store::{AuditClass, AuditRow, Store, StoreError};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::api::access::Facts;
use crate::api::audit::AuditEntry;

/// Rows and bytes that may wait to be written; looks and refusals take half of it at most.
const MOST_ROWS: usize = 10_000;
const MOST_BYTES: usize = 4 << 20;
/// Looks and refusals that are alike and have a row each, in one window.
const ALIKE: u32 = 10;
/// Kinds of looks and refusals that are told apart in one window, and the rows that they have together.
const KINDS: usize = 1_024;
const LOOKS: u32 = 3_000;
/// How long a window is.
const WINDOW: Duration = Duration::from_secs(60);
/// Rows in one commit.
const BATCH: usize = 500;
/// How long it is waited for more rows before a batch is written.
const GATHER: Duration = Duration::from_millis(50);
/// How soon a write that failed is tried again.
const AGAIN: Duration = Duration::from_millis(500);
/// Who a row is of that the host writes for itself.
const HOST: &str = "(host)";
/// The action of the row that tells how many were not written.
const GAP: &str = "audit-gap";

/// What looks and refusals that count as alike have in common.
#[derive(PartialEq, Eq, Hash)]
struct Kind {
    user: String,
    action: String,
    facts: [Option<String>; 5],
    code: Option<String>,
}

impl Kind {
    fn of(row: &AuditRow) -> Kind {
        let facts = [&row.identity, &row.flow, &row.flow_id, &row.detail, &row.token].map(Clone::clone);
        Kind { user: row.user.clone(), action: row.action.clone(), facts, code: row.code.clone() }
    }
}

/// How often something was seen in this window.
struct Seen {
    rows: u32,
    /// How many had no row, and the last of them.
    more: i64,
    last: Option<AuditRow>,
}

/// What waits to be written.
struct Waiting {
    rows: VecDeque<AuditRow>,
    bytes: usize,
    /// How many were not kept, and are in no row yet.
    lost: i64,
    next: i64,
    window: HashMap<Kind, Seen>,
    looks: u32,
    begun: Instant,
    closing: bool,
}

impl Waiting {
    /// Puts a row at the end, if there is room.
    fn push(&mut self, row: AuditRow) {
        let share = match row.class {
            AuditClass::Look => 2,
            AuditClass::Change => 1,
        };
        if self.rows.len() >= MOST_ROWS / share || self.bytes + row.bytes() > MOST_BYTES / share {
            self.lost += row.count;
            return;
        }
        let seq = self.next;
        self.next += 1;
        self.bytes += row.bytes();
        self.rows.push_back(AuditRow { seq, ..row });
    }

    /// Whether a look or a refusal has a row of its own; if not it is counted.
    fn has_own(&mut self, row: &AuditRow) -> bool {
        let kind = Kind::of(row);
        let is_new = !self.window.contains_key(&kind);
        if is_new && self.window.len() >= KINDS {
            self.lost += row.count;
            return false;
        }
        let seen = self.window.entry(kind).or_insert(Seen { rows: 0, more: 0, last: None });
        if seen.rows < ALIKE && self.looks < LOOKS {
            seen.rows += 1;
            self.looks += 1;
            return true;
        }
        seen.more += row.count;
        seen.last = Some(row.clone());
        false
    }

    /// Ends the window if its time is over: what was counted becomes rows.
    fn turn(&mut self) {
        if self.begun.elapsed() < WINDOW && !self.closing {
            return;
        }
        for (_, seen) in std::mem::take(&mut self.window) {
            if let Some(last) = seen.last {
                self.push(AuditRow { count: seen.more, ..last });
            }
        }
        (self.looks, self.begun) = (0, Instant::now());
    }
}

/// The audit trail of one host: rows that wait to be written, and the counts of those that were summed up or dropped.
pub(crate) struct AuditTrail {
    host: Arc<str>,
    waiting: Mutex<Waiting>,
    news: Notify,
    /// Rings when rows were written.
    progress: Notify,
    /// Cancelled when the writer has ended.
    written: CancellationToken,
}

impl AuditTrail {
    /// An empty one, of the host of this name.
    pub fn new(host: &str) -> AuditTrail {
        let waiting = Waiting {
            rows: VecDeque::new(),
            bytes: 0,
            lost: 0,
            next: 1,
            window: HashMap::new(),
            looks: 0,
            begun: Instant::now(),
            closing: false,
        };
        AuditTrail {
            host: host.into(),
            waiting: Mutex::new(waiting),
            news: Notify::new(),
            progress: Notify::new(),
            written: CancellationToken::new(),
        }
    }

    /// Notes something. Never waits.
    pub fn note(&self, entry: AuditEntry) {
        let AuditEntry { at_ms: at, user, action, facts, allowed, code, changes } = entry;
        let Facts { identity, flow, flow_id, detail, token } = facts;
        let class = if changes && allowed { AuditClass::Change } else { AuditClass::Look };
        let row = AuditRow {
            seq: 0,
            class,
            at,
            host: self.host.clone(),
            user,
            action: action.to_owned(),
            identity,
            flow,
            flow_id: flow_id.map(|id| id.to_string()),
            detail,
            token,
            allowed,
            code,
            count: 1,
        };
        let row = row.cut();
        let mut waiting = self.waiting.lock();
        if self.written.is_cancelled() {
            tracing::warn!(target: "audit", user = row.user, action = row.action, "came behind the end of the audit trail");
            return;
        }
        waiting.turn();
        if class == AuditClass::Change || waiting.has_own(&row) {
            waiting.push(row);
        }
        drop(waiting);
        self.news.notify_one();
    }

    /// The next rows to be written; `None` if none wait. They wait on until [`AuditTrail::drop_first`].
    fn first(&self, now_ms: i64) -> Option<Vec<AuditRow>> {
        let mut waiting = self.waiting.lock();
        waiting.turn();
        if waiting.lost > 0 && waiting.rows.len() < MOST_ROWS / 2 && waiting.bytes < MOST_BYTES / 4 {
            let count = std::mem::take(&mut waiting.lost);
            tracing::warn!(target: "audit", count, "more calls came than the audit trail has rows for");
            waiting.push(self.gap(now_ms, count));
        }
        let first: Vec<AuditRow> = waiting.rows.iter().take(BATCH).cloned().collect();
        (!first.is_empty()).then_some(first)
    }

    fn gap(&self, at: i64, count: i64) -> AuditRow {
        AuditRow {
            seq: 0,
            class: AuditClass::Look,
            at,
            host: self.host.clone(),
            user: HOST.to_owned(),
            action: GAP.to_owned(),
            identity: None,
            flow: None,
            flow_id: None,
            detail: Some("so many calls have no row".to_owned()),
            token: None,
            allowed: true,
            code: None,
            count,
        }
    }

    fn drop_first(&self, rows: &[AuditRow]) {
        let mut waiting = self.waiting.lock();
        for row in rows {
            waiting.rows.pop_front();
            waiting.bytes = waiting.bytes.saturating_sub(row.bytes());
        }
        drop(waiting);
        self.progress.notify_waiters();
    }

    /// Waits until the rows of what was noted so far are written, but no longer than this.
    pub async fn settled(&self, patience: Duration) {
        let next = self.waiting.lock().next;
        let settle = async {
            loop {
                let mut progress = std::pin::pin!(self.progress.notified());
                progress.as_mut().enable();
                if self.waiting.lock().rows.front().is_none_or(|row| row.seq >= next) {
                    return;
                }
                progress.await;
            }
        };
        // Whoever reads gets what there is.
        let _late = tokio::time::timeout(patience, settle).await;
    }

    /// Writes what waits and takes nothing more. What is not written by the deadline is lost, and the log says how many.
    pub async fn finish(&self, deadline: Duration) {
        self.waiting.lock().closing = true;
        self.news.notify_one();
        if tokio::time::timeout(deadline, self.written.cancelled()).await.is_err() {
            self.written.cancel();
            let rows = self.waiting.lock().rows.len();
            tracing::error!(target: "audit", rows, "the database did not take the last rows of the audit trail in time");
        }
    }

    /// Writes what is noted, until [`AuditTrail::finish`].
    pub async fn write(self: Arc<AuditTrail>, store: Store, now_ms: impl Fn() -> i64 + Send + Sync + 'static) {
        let mut told = false;
        while !self.written.is_cancelled() {
            let Some(rows) = self.first(now_ms()) else {
                if self.waiting.lock().closing {
                    self.written.cancel();
                    return;
                }
                // The end of a window brings rows too.
                let _news = tokio::time::timeout(WINDOW, self.news.notified()).await;
                if !self.waiting.lock().closing {
                    tokio::time::sleep(GATHER).await;
                }
                continue;
            };
            match store.append_audit(rows.clone()).await {
                Ok(()) => {
                    self.drop_first(&rows);
                    told = false;
                }
                Err(StoreError::Closed) => {
                    self.written.cancel();
                    return;
                }
                // It would never be taken, and hold up all that come behind it.
                Err(error @ StoreError::Conflict(_)) => {
                    tracing::error!(target: "audit", %error, rows = rows.len(), "rows of the audit trail are refused");
                    self.waiting.lock().lost += rows.iter().map(|row| row.count).sum::<i64>();
                    self.drop_first(&rows);
                }
                Err(error) => {
                    if !std::mem::replace(&mut told, true) {
                        tracing::warn!(target: "audit", %error, "the audit trail cannot be written; tried again");
                    }
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(user: &str, changes: bool) -> AuditEntry {
        AuditEntry {
            at_ms: 1,
            user: user.to_owned(),
            action: "Anything",
            facts: Facts::default(),
            allowed: true,
            code: None,
            changes,
        }
    }

    fn counts(trail: &AuditTrail) -> (usize, i64) {
        let waiting = trail.waiting.lock();
        (waiting.rows.len(), waiting.rows.iter().map(|row| row.count).sum::<i64>() + waiting.lost)
    }

    #[test]
    fn what_waits_is_bounded_and_what_did_not_fit_is_counted() {
        let trail = AuditTrail::new("max-1");
        for _ in 0..MOST_ROWS + 500 {
            trail.note(entry("ann", true));
        }
        let (rows, all) = counts(&trail);
        assert!(rows <= MOST_ROWS && trail.waiting.lock().bytes <= MOST_BYTES, "{rows} rows");
        assert_eq!(all as usize, MOST_ROWS + 500);
        while let Some(rows) = trail.first(7) {
            trail.drop_first(&rows);
        }
        // What was too much is told in a row of its own, and nothing is counted twice.
        let bytes = trail.waiting.lock().bytes;
        assert_eq!((bytes, counts(&trail)), (0, (0, 0)));
        let long = "x".repeat(10_000_000);
        trail.note(entry(&long, true));
        assert!(trail.waiting.lock().bytes < 1_000, "texts are cut");
    }

    #[test]
    fn looks_that_are_alike_become_one_row_that_says_how_many() {
        let trail = AuditTrail::new("max-1");
        for _ in 0..1_000 {
            trail.note(entry("ann", false));
        }
        assert_eq!(trail.waiting.lock().rows.len(), ALIKE as usize);
        trail.note(entry("bob", false));
        assert_eq!(trail.waiting.lock().rows.len(), ALIKE as usize + 1);
        trail.waiting.lock().closing = true;
        let rows = trail.first(7).unwrap_or_default();
        assert_eq!(rows.len(), ALIKE as usize + 2);
        assert_eq!(rows.iter().filter(|row| row.user == "ann").map(|row| row.count).sum::<i64>(), 1_000);
        assert!(rows.windows(2).all(|pair| pair[0].seq < pair[1].seq));
    }

    #[test]
    fn many_kinds_of_looks_leave_room_for_changes() {
        let trail = AuditTrail::new("max-1");
        for n in 0..20_000 {
            trail.note(entry(&format!("user {n}"), false));
        }
        assert!(trail.waiting.lock().rows.len() <= KINDS && trail.waiting.lock().window.len() <= KINDS);
        trail.note(entry("ann", true));
        let rows = trail.first(7).unwrap_or_default();
        trail.drop_first(&rows);
        let mut all: i64 = rows.iter().map(|row| row.count).sum();
        while let Some(rows) = trail.first(7) {
            trail.drop_first(&rows);
            all += rows.iter().map(|row| row.count).sum::<i64>();
        }
        assert_eq!(all, 20_001, "each call is in a row, or in the count of those that are not");
    }
}
