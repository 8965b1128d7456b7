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
            None => FlowResult::Value(self.value.clone().unwrap_or_default().to_vec()),
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

/// The latest ends.
#[derive(Default)]
pub(crate) struct RecentOutcomes {
    inner: Mutex<Remembered>,
}

/// What is remembered, and in which order it came.
type Remembered = (HashMap<FlowRow, Arc<FlowDetail>>, VecDeque<FlowRow>);

impl RecentOutcomes {
    pub fn remember(&self, row: FlowRow, detail: Arc<FlowDetail>) {
        if matches!(&detail.summary.result, Some(FlowResult::Value(value)) if value.len() > REMEMBERED_RESULT) {
            return;
        }
        let mut inner = self.inner.lock();
        let (ends, order) = &mut *inner;
        if ends.insert(row, detail).is_none() {
            order.push_back(row);
        }
        while order.len() > REMEMBERED {
            if let Some(oldest) = order.pop_front() {
                ends.remove(&oldest);
            }
        }
    }

    pub fn get(&self, row: FlowRow) -> Option<Arc<FlowDetail>> {
        self.inner.lock().0.get(&row).cloned()
    }

    pub fn forget(&self, row: FlowRow) {
        self.inner.lock().0.remove(&row);
    }

    /// The newest, at most so many.
    pub fn newest(&self, limit: usize) -> Vec<Arc<FlowDetail>> {
        let inner = self.inner.lock();
        inner.1.iter().rev().filter_map(|row| inner.0.get(row).cloned()).take(limit).collect()
    }
}
