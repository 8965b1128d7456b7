//! What stays of a flow that has ended: the end record in the database, and a bounded memory of the latest ends.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use maxhost_journal::Failure;
use maxhost_model::{ErrorKind, FlowError, FlowRow};
use parking_lot::Mutex;
use prost::Message;

use crate::api::{FlowDetail, FlowPhase, FlowResult};

/// So many ends are remembered, whoever started the flow.
const REMEMBERED: usize = 4096;
/// What they take in memory together, bytes.
const REMEMBERED_BYTES: usize = 16 << 20;
/// What an end takes beside its texts: its entry in a table, its place in the order.
const OVERHEAD: usize = 128;
/// Results larger than this are only in the database.
const REMEMBERED_RESULT: usize = 64 * 1024;

/// The stored form of an end. Tag numbers are never used again for something else.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct EndRecord {
    #[prost(bytes = "bytes", optional, tag = "1")]
    pub value: Option<Bytes>,
    #[prost(message, optional, tag = "2")]
    pub error: Option<Failure>,
    #[prost(string, optional, tag = "3")]
    pub progress: Option<String>,
    #[prost(uint64, tag = "4")]
    pub entries: u64,
    #[prost(uint64, tag = "5")]
    pub bytes: u64,
    #[prost(message, repeated, tag = "6")]
    pub sessions: Vec<SessionRecord>,
    #[prost(uint32, tag = "7")]
    pub attempts: u32,
    /// How many progress labels the flow has given, if that is known.
    #[prost(uint64, optional, tag = "8")]
    pub labels: Option<u64>,
    /// Of a flow that failed: what it had sent on sessions that were not confirmed yet.
    #[prost(message, repeated, tag = "9")]
    pub held: Vec<HeldRecord>,
    /// Sessions it had beside those that are kept.
    #[prost(uint32, tag = "10")]
    pub more_sessions: u32,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct SessionRecord {
    #[prost(string, tag = "1")]
    pub peer: String,
    #[prost(string, tag = "2")]
    pub state: String,
}

/// Messages that wait for the peer's confirmation, in their order.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct HeldRecord {
    #[prost(uint32, tag = "1")]
    pub session: u32,
    #[prost(bytes = "bytes", repeated, tag = "2")]
    pub payloads: Vec<Bytes>,
}

impl EndRecord {
    /// What a session's responder has not been sent yet.
    pub fn held(&self, session: u16) -> &[Bytes] {
        let held = self.held.iter().find(|held| held.session == u32::from(session));
        held.map_or(&[], |held| &held.payloads)
    }

    pub fn result(&self) -> FlowResult {
        match &self.error {
            Some(error) => FlowResult::Error(error.to_error()),
            None => FlowResult::Value(self.value.clone().unwrap_or_default()),
        }
    }

    pub fn decode_stored(bytes: &Bytes) -> Option<EndRecord> {
        EndRecord::decode(bytes.clone()).ok()
    }
}

/// The phase of an outcome.
pub(crate) fn phase_of(outcome: &Result<Bytes, FlowError>) -> FlowPhase {
    match outcome {
        Ok(_) => FlowPhase::Completed,
        Err(error) if error.kind == ErrorKind::Killed => FlowPhase::Killed,
        Err(_) => FlowPhase::Failed,
    }
}

/// The latest ends, of any flow.
#[derive(Default)]
pub(crate) struct RecentOutcomes {
    inner: Mutex<Remembered>,
}

/// What is remembered, and in which order it came.
#[derive(Default)]
struct Remembered {
    outcomes: HashMap<FlowRow, (Arc<FlowDetail>, usize)>,
    order: VecDeque<FlowRow>,
    bytes: usize,
}

impl Remembered {
    fn forget(&mut self, row: FlowRow) {
        if let Some((_, bytes)) = self.outcomes.remove(&row) {
            self.bytes -= bytes;
        }
    }
}

impl RecentOutcomes {
    /// Remembers one, and forgets the oldest while there are too many or they are too large.
    pub fn remember(&self, row: FlowRow, detail: Arc<FlowDetail>) {
        if matches!(&detail.summary.result, Some(FlowResult::Value(value)) if value.len() > REMEMBERED_RESULT) {
            return;
        }
        let bytes = bytes_of(&detail);
        let mut inner = self.inner.lock();
        inner.bytes += bytes;
        match inner.outcomes.insert(row, (detail, bytes)) {
            None => inner.order.push_back(row),
            Some((_, before)) => inner.bytes -= before,
        }
        while inner.order.len() > REMEMBERED || inner.bytes > REMEMBERED_BYTES {
            match inner.order.pop_front() {
                Some(oldest) => inner.forget(oldest),
                None => break,
            }
        }
    }

    pub fn get(&self, row: FlowRow) -> Option<Arc<FlowDetail>> {
        self.inner.lock().outcomes.get(&row).map(|(detail, _)| detail.clone())
    }

    pub fn forget(&self, row: FlowRow) {
        self.inner.lock().forget(row);
    }

    /// The newest, at most so many.
    pub fn newest(&self, limit: usize) -> Vec<Arc<FlowDetail>> {
        let inner = self.inner.lock();
        let known = inner.order.iter().rev().filter_map(|row| inner.outcomes.get(row));
        known.map(|(detail, _)| detail.clone()).take(limit).collect()
    }
}

/// What an end takes in memory, about.
fn bytes_of(detail: &FlowDetail) -> usize {
    let FlowDetail { summary, cordapp, component_hash, origin, sessions, .. } = detail;
    let result = match &summary.result {
        Some(FlowResult::Value(value)) => value.len(),
        Some(FlowResult::Error(error)) => {
            let word = |word: &Option<String>| word.as_ref().map_or(0, String::len);
            let words = word(&error.exception) + word(&error.peer) + word(&error.limit);
            error.message.len() + error.data.as_ref().map_or(0, Vec::len) + words
        }
        None => 0,
    };
    let optional = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    let texts = summary.identity.len()
        + summary.flow.len()
        + optional(&summary.client_id)
        + optional(&summary.progress)
        + optional(&summary.reason)
        + cordapp.len()
        + component_hash.len()
        + origin.len();
    let sessions: usize =
        sessions.iter().map(|session| size_of_val(session) + session.peer.len() + session.state.len()).sum();
    size_of::<FlowDetail>() + OVERHEAD + texts + result + sessions
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use maxhost_model::FlowId;

    use super::*;
    use crate::api::{FlowSummary, SessionView};

    fn detail(row: i64, result: FlowResult, sessions: usize) -> Arc<FlowDetail> {
        let session = || SessionView { peer: "O=Bob, L=Rome, C=IT".to_owned(), state: "ended".to_owned(), unread: 0 };
        Arc::new(FlowDetail {
            summary: FlowSummary {
                flow_id: FlowId::new(FlowRow(row), 0),
                identity: "O=Alice, L=London, C=GB".to_owned(),
                flow: "a/b".to_owned(),
                client_id: None,
                phase: FlowPhase::Completed,
                started_ms: 0,
                finished_ms: Some(0),
                progress: None,
                result: Some(result),
                reason: None,
            },
            cordapp: "a 1.0".to_owned(),
            component_hash: String::new(),
            origin: "rpc:local".to_owned(),
            waiting_for: None,
            sessions: (0..sessions).map(|_| session()).collect(),
            more_sessions: 0,
            journal_entries: 0,
            journal_bytes: 0,
            attempts: 1,
            labels: None,
            in_memory: false,
        })
    }

    #[test]
    fn the_oldest_ends_are_forgotten_when_there_are_many() {
        let outcomes = RecentOutcomes::default();
        for row in 0..REMEMBERED as i64 + 10 {
            outcomes.remember(FlowRow(row), detail(row, FlowResult::Value(Bytes::new()), 1));
        }
        assert_eq!(outcomes.newest(usize::MAX).len(), REMEMBERED);
        assert!(outcomes.get(FlowRow(9)).is_none());
        assert!(outcomes.get(FlowRow(10)).is_some());
    }

    #[test]
    fn the_ends_that_are_remembered_are_bounded_in_bytes() {
        let outcomes = RecentOutcomes::default();
        let failed = |size| FlowResult::Error(FlowError::new(ErrorKind::Unexpected, "x".repeat(size)).bounded());
        for row in 0..4_000 {
            outcomes.remember(FlowRow(row), detail(row, failed(1 << 20), 100));
        }
        let kept: usize = outcomes.newest(usize::MAX).iter().map(|detail| bytes_of(detail)).sum();
        assert!(kept <= REMEMBERED_BYTES && kept > REMEMBERED_BYTES / 2, "{kept} bytes");
        assert!(outcomes.get(FlowRow(3_999)).is_some(), "the newest is there");
    }

    #[test]
    fn what_is_forgotten_or_replaced_is_not_counted() {
        let outcomes = RecentOutcomes::default();
        for _ in 0..3 {
            outcomes.remember(FlowRow(1), detail(1, FlowResult::Value(vec![0_u8; 1000].into()), 0));
        }
        assert_eq!(outcomes.inner.lock().order.len(), 1);
        assert!(outcomes.inner.lock().bytes < 2_000 + OVERHEAD + size_of::<FlowDetail>());
        outcomes.forget(FlowRow(1));
        assert_eq!(outcomes.inner.lock().bytes, 0);
    }
}
