//! What a batch changes, in memory until it is written.
//!
//! Every unit is decided here before the first write. Each row of the database stands here at most once, with what
//! becomes of it in the end, because one statement writes all of it and none of its parts sees what another wrote. What
//! a unit changed can be undone.

use std::sync::Arc;

use bytes::Bytes;
use maxhost_model::{FlowRow, IdentityRow};
use maxhost_store::{FlowState, Keep, NewFlow, OutboxContent, Waiting};
use smallvec::SmallVec;

use crate::ledger::pending::LedgerPending;
use crate::undo_map::UndoMap;

/// The stream of a flow's log; those of its sessions begin at 0.
pub(crate) const LOG: i32 = -1;

/// The number of the newest row in each stream of a flow's journal.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Heads(SmallVec<[(i32, u32); 3]>);

impl Heads {
    pub(crate) fn newest(&self, stream: i32) -> Option<u32> {
        self.0.binary_search_by_key(&stream, |(stream, _)| *stream).ok().map(|place| self.0[place].1)
    }

    pub(crate) fn raise(&mut self, stream: i32, seq: u32) {
        match self.0.binary_search_by_key(&stream, |(stream, _)| *stream) {
            Ok(place) => self.0[place].1 = self.0[place].1.max(seq),
            Err(place) => self.0.insert(place, (stream, seq)),
        }
    }
}

/// A live flow as the database has it, without bodies.
#[derive(Debug, Clone)]
pub(crate) struct StoredFlow {
    pub identity: IdentityRow,
    pub revision: u32,
    /// User and client id that it was started with.
    pub client: Option<Arc<(String, String)>>,
    pub heads: Heads,
}

/// A live flow's new state.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    pub state: FlowState,
    pub reason: Option<String>,
    pub attempts: u32,
}

/// How a flow ends.
#[derive(Debug, Clone)]
pub(crate) struct Ending {
    pub state: FlowState,
    pub finished: i64,
    pub keep: Option<Keep>,
    pub forget_at: i64,
}

/// A flow that the batch is about.
#[derive(Debug, Clone)]
pub(crate) struct Touched {
    pub flow: StoredFlow,
    /// It begins in this batch.
    pub new: Option<Arc<NewFlow>>,
    pub change: Option<Change>,
    pub waiting: Option<Waiting>,
    pub end: Option<Ending>,
}

impl Touched {
    pub(crate) fn stored(flow: StoredFlow) -> Touched {
        Touched { flow, new: None, change: None, waiting: None, end: None }
    }

    pub(crate) fn new(identity: IdentityRow, new: &NewFlow) -> Touched {
        let client =
            new.client_id.as_ref().map(|client_id| Arc::new((new.user.clone().unwrap_or_default(), client_id.clone())));
        let flow = StoredFlow { identity, revision: 0, client, heads: Heads::default() };
        Touched { new: Some(Arc::new(new.clone())), ..Touched::stored(flow) }
    }

    pub(crate) fn is_live(&self) -> bool {
        self.end.is_none()
    }
}

/// A client id: identity, user, name.
pub(crate) type ClientKey = (IdentityRow, Arc<str>, Arc<str>);

/// A message for the relay.
#[derive(Debug, Clone)]
pub(crate) struct Outgoing {
    pub sender: IdentityRow,
    pub destination: Arc<str>,
    pub content: OutboxContent,
    pub lived: i64,
}

/// A row of the outbox that goes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Confirmed {
    /// The marker that it is kept under, if it is kept.
    pub marker: Option<i64>,
    pub at: i64,
}

/// What a batch changes.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    pub flows: UndoMap<FlowRow, Touched>,
    /// New rows, by flow, stream and number.
    pub journal: UndoMap<(FlowRow, i32, u32), Bytes>,
    /// `None`: the row goes.
    pub initiations: UndoMap<(IdentityRow, i64), Option<Bytes>>,
    pub late_confirms: UndoMap<(IdentityRow, i64), Option<Bytes>>,
    pub clients: UndoMap<ClientKey, Option<FlowRow>>,
    /// Messages to be added, by their order.
    pub outbox: UndoMap<u64, Outgoing>,
    outbox_next: u64,
    /// Rows of the outbox that go, by their numbers.
    pub sent: UndoMap<i64, Confirmed>,
    pub processed: UndoMap<(IdentityRow, [u8; 16]), i64>,
    /// Identities that are let go, and when they want to be woken.
    pub released: UndoMap<IdentityRow, Option<i64>>,
    /// Ended flows of earlier batches that go.
    pub dropped: UndoMap<FlowRow, ()>,
    pub ledger: LedgerPending,
}

macro_rules! each {
    ($pending:ident.$method:ident) => {{
        $pending.flows.$method();
        $pending.journal.$method();
        $pending.initiations.$method();
        $pending.late_confirms.$method();
        $pending.clients.$method();
        $pending.outbox.$method();
        $pending.sent.$method();
        $pending.processed.$method();
        $pending.released.$method();
        $pending.dropped.$method();
        $pending.ledger.$method();
    }};
}

impl Pending {
    /// A unit begins.
    pub(crate) fn mark(&mut self) {
        each!(self.mark);
    }

    /// What was changed since the mark never was.
    pub(crate) fn undo(&mut self) {
        each!(self.undo);
    }

    pub(crate) fn clear(&mut self) {
        each!(self.clear);
    }

    pub(crate) fn push_outbox(&mut self, message: Outgoing) {
        self.outbox.put(self.outbox_next, message);
        self.outbox_next += 1;
    }

    /// Takes a journal row that is new in the batch. The flow is touched.
    pub(crate) fn add_entry(&mut self, flow: FlowRow, stream: i32, seq: u32, body: &Bytes) {
        self.journal.put((flow, stream, seq), body.clone());
        if let Some(touched) = self.flows.change(&flow) {
            touched.flow.heads.raise(stream, seq);
        }
    }

    /// Forgets the journal rows of a flow that ends.
    pub(crate) fn drop_entries(&mut self, flow: FlowRow) {
        let keys: Vec<_> =
            self.journal.range((flow, i32::MIN, 0)..=(flow, i32::MAX, u32::MAX)).map(|(key, _)| *key).collect();
        for key in &keys {
            self.journal.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_undone_never_was() {
        let mut map = UndoMap::default();
        map.put(1, "a");
        map.mark();
        map.put(1, "b");
        map.put(2, "c");
        if let Some(value) = map.change(&2) {
            *value = "d";
        }
        map.remove(&1);
        map.remove(&7);
        map.undo();
        assert_eq!(map.iter().collect::<Vec<_>>(), [(&1, &"a")]);
    }

    #[test]
    fn heads_rise() {
        let mut heads = Heads::default();
        for (stream, seq) in [(4, 2), (LOG, 9), (4, 1), (0, 3)] {
            heads.raise(stream, seq);
        }
        assert_eq!([LOG, 0, 4, 5].map(|stream| heads.newest(stream)), [Some(9), Some(3), Some(2), None]);
    }
}
