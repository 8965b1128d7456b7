//! The broker of a simulation, and the way through it: messages wait in no order, come twice, and are taken late.
//!
//! What it has outlives the host. A message is sent before its outbox row goes, and taken away only after the unit that
//! has it is durable, so each of both may happen twice.

use std::sync::Arc;

use bytes::Bytes;
use maxhost_journal::{FrameBatch, Initiation};
use maxhost_model::SessionId;
use maxhost_store::{MessageOp, OutboxContent, OutboxRow, StoreError};
use parking_lot::Mutex;
use prost::Message as _;

use super::Broken;
use super::faults::Faults;
use crate::commit::unit::Unit;
use crate::delivery::envelope::{Addressed, Content, Envelope};
use crate::host::parts::Parts;

/// A message in the broker.
#[derive(Clone)]
struct Queued {
    number: u64,
    id: [u8; 16],
    body: Bytes,
}

#[derive(Default)]
struct Messages {
    waiting: Vec<Queued>,
    last: u64,
    taken: u64,
}

/// The broker of one simulated world. Clones are one and the same.
#[derive(Clone)]
pub(super) struct Broker {
    messages: Arc<Mutex<Messages>>,
    faults: Faults,
    broken: Option<Broken>,
}

impl Broker {
    pub fn new(faults: Faults, broken: Option<Broken>) -> Broker {
        Broker { messages: Arc::default(), faults, broken }
    }

    /// How many messages were taken from it.
    pub fn taken(&self) -> u64 {
        self.messages.lock().taken
    }

    pub fn is_empty(&self) -> bool {
        self.messages.lock().waiting.is_empty()
    }

    /// An outbox row goes to the broker. The host notes that later, or forgets to.
    /// False if the sender is not hosted yet.
    pub fn send(&self, parts: &Arc<Parts>, row: &OutboxRow) -> bool {
        let Some(sender) = parts.directory.by_row(row.identity) else { return false };
        let (id, body) = message_of(row);
        {
            let mut messages = self.messages.lock();
            messages.last += 1;
            let number = messages.last;
            messages.waiting.push(Queued { number, id, body });
        }
        if !self.faults.mishap(6) {
            let mut unit = Unit::default();
            unit.op(MessageOp::OutboxSent { id: row.id, marker: None });
            unit.submit(&parts.committer, sender.author(), |_| {});
        }
        true
    }

    /// One message is brought to its recipient. False if none could be.
    pub fn bring(&self, parts: &Arc<Parts>) -> bool {
        let queued = {
            let messages = self.messages.lock();
            match messages.waiting.len() {
                0 => return false,
                waiting => messages.waiting[self.faults.rng.below(waiting)].clone(),
            }
        };
        let envelope = Envelope::decode(queued.body.clone()).unwrap();
        let Some(to) = parts.directory.get(&envelope.to) else { return false };
        if to.author().claim.run != parts.store.run() {
            // Nobody takes messages for an identity that is not claimed: it is woken by its first message.
            parts.waking.wake(&to);
            return false;
        }
        let mut unit = Unit::default();
        unit.op(MessageOp::Arrived { message_id: queued.id });
        match envelope.content {
            Some(Content::Initiation(initiation)) => unit.initiate(&parts.committer, to.clone(), initiation),
            Some(Content::FrameBatch(Addressed { session, seq, batch: Some(batch) })) => {
                unit.deliver(to.clone(), SessionId(session), seq, batch);
            }
            _ => panic!("an empty message"),
        }
        let broker = self.clone();
        if self.broken == Some(Broken::EarlyAcknowledgement) {
            broker.acknowledge(queued.number);
        }
        unit.submit(&parts.committer, to.author(), move |result| match result {
            Ok(()) | Err(StoreError::Duplicate) if !broker.faults.mishap(6) => broker.acknowledge(queued.number),
            Ok(()) | Err(_) => {}
        });
        true
    }

    fn acknowledge(&self, number: u64) {
        let mut messages = self.messages.lock();
        messages.taken += 1;
        messages.waiting.retain(|queued| queued.number != number);
    }
}

/// An outbox row as it goes to the broker.
fn message_of(row: &OutboxRow) -> ([u8; 16], Bytes) {
    let content = match &row.content {
        OutboxContent::Message { message_id, body } => return (*message_id, body.clone()),
        OutboxContent::Initiation { body } => Content::Initiation(Initiation::decode(body.clone()).unwrap()),
        OutboxContent::Delivery { session, seq, body } => {
            let batch = Some(FrameBatch::decode(body.clone()).unwrap());
            Content::FrameBatch(Addressed { session: session.0, seq: *seq, batch })
        }
    };
    let envelope = Envelope { to: row.destination.to_string(), content: Some(content) };
    (envelope.message_id(), envelope.encode_to_vec().into())
}
