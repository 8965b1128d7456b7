//! What is written down: the start of a flow, and its log in segments.
//!
//! A segment is what one commit adds to a flow's log: one or more items, what the flow waits for afterwards, and its
//! progress. Protobuf with a version byte in front and a CRC-32 behind, so that a damaged row is found before it is
//! believed. Tag numbers are never used again for something else.

use bytes::{BufMut, Bytes, BytesMut};
use maxhost_model::{ErrorId, ErrorKind, FlowError};
use prost::Message;

use crate::call::{Awaited, Wait, WaitKind};
use crate::wire::Initiation;

const VERSION: u8 = 1;

/// A stored record cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// The bytes are damaged.
    #[error("journal record {what} is damaged: {reason}")]
    Corrupt {
        /// Which record.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A newer host wrote it.
    #[error("journal record {what} has format {found}, this host reads up to {VERSION}")]
    Version {
        /// Which record.
        what: String,
        /// The format found.
        found: u8,
    },
    /// The log contradicts itself.
    #[error("journal entry {position} does not fit: {reason}")]
    Inconsistent {
        /// Number of the entry.
        position: u64,
        /// The reason, in words for the author.
        reason: String,
    },
}

/// Frames a record: version, protobuf, CRC-32.
fn seal(message: &impl Message) -> Bytes {
    let mut out = BytesMut::with_capacity(message.encoded_len() + 5);
    out.put_u8(VERSION);
    // A BytesMut grows, so encoding cannot run out of room.
    let _ = message.encode(&mut out);
    out.put_u32(crc32fast::hash(&out));
    out.freeze()
}

fn unseal<M: Message + Default>(bytes: &Bytes, what: &str) -> Result<M, JournalError> {
    let corrupt = |reason: &str| JournalError::Corrupt { what: what.to_owned(), reason: reason.to_owned() };
    let (&version, _) = bytes.split_first().ok_or_else(|| corrupt("it is empty"))?;
    let end = bytes.len().checked_sub(4).filter(|&end| end >= 1).ok_or_else(|| corrupt("it is cut short"))?;
    let mut sum = [0; 4];
    sum.copy_from_slice(&bytes[end..]);
    if u32::from_be_bytes(sum) != crc32fast::hash(&bytes[..end]) {
        return Err(corrupt("its checksum does not match"));
    }
    if version != VERSION {
        return Err(JournalError::Version { what: what.to_owned(), found: version });
    }
    M::decode(bytes.slice(1..end)).map_err(|error| corrupt(&error.to_string()))
}

/// Who started a flow.
#[derive(Debug, Clone, PartialEq)]
pub enum Origin {
    /// A client.
    Rpc {
        /// Its user.
        user: String,
    },
    /// A peer: the flow is a responder, and its session 0 is this one.
    Peer(Initiation),
}

/// Everything a run of the flow begins with: the same again for each replay.
#[derive(Debug, Clone, PartialEq)]
pub struct StartRecord {
    /// Public id.
    pub flow_id: [u8; 16],
    /// Flow in its CorDapp.
    pub flow: String,
    /// Protocol version of the flow.
    pub flow_version: u32,
    /// The name of the CorDapp that has the flow.
    pub cordapp: String,
    /// Its version, for people.
    pub cordapp_version: String,
    /// SHA-256 of the component: old code is kept for old flows.
    pub component: [u8; 32],
    /// What the flow was started with, as CBOR.
    pub arguments: Bytes,
    /// Who started it.
    pub origin: Origin,
    /// Source of all its randomness.
    pub seed: [u8; 32],
    /// When; its clock begins here.
    pub started: crate::Nanos,
    /// The public key of its identity at the start, which may be issued anew while the flow lives. Absent in records of
    /// older releases.
    pub owning_key: Option<Bytes>,
}

#[derive(Clone, PartialEq, Message)]
struct StartWire {
    #[prost(bytes = "vec", tag = "1")]
    flow_id: Vec<u8>,
    #[prost(string, tag = "2")]
    flow: String,
    #[prost(uint32, tag = "3")]
    flow_version: u32,
    #[prost(string, tag = "4")]
    cordapp: String,
    #[prost(string, tag = "5")]
    cordapp_version: String,
    #[prost(bytes = "vec", tag = "6")]
    component: Vec<u8>,
    #[prost(bytes = "bytes", tag = "7")]
    arguments: Bytes,
    #[prost(string, optional, tag = "8")]
    user: Option<String>,
    #[prost(message, optional, tag = "9")]
    initiation: Option<Initiation>,
    #[prost(bytes = "vec", tag = "10")]
    seed: Vec<u8>,
    #[prost(fixed64, tag = "11")]
    started: u64,
    #[prost(bytes = "bytes", optional, tag = "12")]
    owning_key: Option<Bytes>,
}

impl StartRecord {
    /// Its stored form.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let (user, initiation) = match &self.origin {
            Origin::Rpc { user } => (Some(user.clone()), None),
            Origin::Peer(initiation) => (None, Some(initiation.clone())),
        };
        seal(&StartWire {
            flow_id: self.flow_id.to_vec(),
            flow: self.flow.clone(),
            flow_version: self.flow_version,
            cordapp: self.cordapp.clone(),
            cordapp_version: self.cordapp_version.clone(),
            component: self.component.to_vec(),
            arguments: self.arguments.clone(),
            user,
            initiation,
            seed: self.seed.to_vec(),
            started: self.started,
            owning_key: self.owning_key.clone(),
        })
    }

    /// From its stored form.
    ///
    /// # Errors
    /// If the bytes are damaged or of a newer format.
    pub fn decode(bytes: &Bytes) -> Result<StartRecord, JournalError> {
        let what = "start";
        let wire: StartWire = unseal(bytes, what)?;
        let corrupt = |field: &str| JournalError::Corrupt { what: what.to_owned(), reason: format!("bad {field}") };
        let origin = match (wire.initiation, wire.user) {
            (Some(initiation), _) => Origin::Peer(initiation),
            (None, Some(user)) => Origin::Rpc { user },
            (None, None) => return Err(corrupt("origin")),
        };
        Ok(StartRecord {
            flow_id: wire.flow_id.try_into().map_err(|_| corrupt("flow id"))?,
            flow: wire.flow,
            flow_version: wire.flow_version,
            cordapp: wire.cordapp,
            cordapp_version: wire.cordapp_version,
            component: wire.component.try_into().map_err(|_| corrupt("component hash"))?,
            arguments: wire.arguments,
            origin,
            seed: wire.seed.try_into().map_err(|_| corrupt("seed"))?,
            started: wire.started,
            owning_key: wire.owning_key,
        })
    }
}

/// What one commit adds to a log.
#[derive(Clone, PartialEq, Message)]
pub struct Segment {
    /// In program order.
    #[prost(message, repeated, tag = "1")]
    pub(crate) items: Vec<Item>,
    /// What the flow waits for after them.
    #[prost(message, optional, tag = "2")]
    pub(crate) wait: Option<WaitRecord>,
    /// How many frames the flow had seen of each session whose news it waits for: a higher number in the inbox means
    /// that it has to look. Empty if the flow does not wait.
    #[prost(message, repeated, tag = "3")]
    pub(crate) seen: Vec<Seen>,
    /// How many progress labels the flow has given so far.
    #[prost(uint64, tag = "4")]
    pub progress_count: u64,
    /// The labels that are new in this segment; the last one is the current.
    #[prost(string, repeated, tag = "5")]
    pub progress: Vec<String>,
    /// When, nanoseconds since 1970.
    #[prost(fixed64, tag = "6")]
    pub at: u64,
    /// Which attempt at the flow wrote it, from 1 on; 0 before the first.
    #[prost(uint32, tag = "7")]
    pub attempt: u32,
}

impl Segment {
    /// Takes its progress labels out, with their numbers.
    pub fn take_labels(&mut self) -> impl Iterator<Item = (u64, String)> + use<> {
        let labels = std::mem::take(&mut self.progress);
        let first = self.progress_count.saturating_add(1).saturating_sub(labels.len() as u64);
        crate::labels::numbered(first, labels)
    }

    /// Its stored form.
    #[must_use]
    pub fn encode_sealed(&self) -> Bytes {
        seal(self)
    }

    /// From its stored form.
    ///
    /// # Errors
    /// If the bytes are damaged or of a newer format.
    pub fn decode_sealed(bytes: &Bytes, seq: u32) -> Result<Segment, JournalError> {
        unseal(bytes, &format!("segment {seq}"))
    }

    /// What the flow waits for.
    #[must_use]
    pub fn waits_for(&self) -> Option<Wait> {
        self.wait.as_ref().and_then(WaitRecord::to_wait)
    }

    /// Number of log entries in it.
    #[must_use]
    pub fn entries(&self) -> usize {
        self.items.len()
    }

    /// True if the flow has to be woken, because `max_seq`, the highest number in the inbox of a session, is new to it
    /// and it waits for news of that session. A flow that was not waiting has to be run in any case.
    #[must_use]
    pub fn is_news(&self, session: u16, max_seq: u32) -> bool {
        let seen = self.seen.iter().find(|seen| seen.session == u32::from(session));
        self.waits_for().is_none() || seen.is_some_and(|seen| max_seq >= seen.next)
    }
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct Seen {
    #[prost(uint32, tag = "1")]
    pub session: u32,
    #[prost(uint32, tag = "2")]
    pub next: u32,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct WaitRecord {
    #[prost(uint32, tag = "1")]
    pub kind: u32,
    #[prost(uint32, repeated, tag = "2")]
    pub sessions: Vec<u32>,
    #[prost(uint64, optional, tag = "3")]
    pub until: Option<u64>,
    /// What of the ledger is waited for, and how many states besides.
    #[prost(string, optional, tag = "4")]
    pub awaited: Option<String>,
    #[prost(uint32, tag = "5")]
    pub more: u32,
}

impl WaitRecord {
    pub fn new(wait: &Wait) -> WaitRecord {
        let kind = match wait.kind {
            WaitKind::Receive => 1,
            WaitKind::ReceiveAll => 2,
            WaitKind::WaitAny => 3,
            WaitKind::FlowInfo => 4,
            WaitKind::Sleep => 5,
            WaitKind::Confirmation => 6,
            WaitKind::LedgerCommit => 7,
            WaitKind::StateConsumption => 8,
        };
        let (awaited, more) = match &wait.awaited {
            Some(awaited) => (Some(awaited.first.clone()), awaited.more),
            None => (None, 0),
        };
        WaitRecord { kind, sessions: wait.sessions.clone(), until: wait.until, awaited, more }
    }

    pub fn to_wait(&self) -> Option<Wait> {
        let kind = match self.kind {
            1 => WaitKind::Receive,
            2 => WaitKind::ReceiveAll,
            3 => WaitKind::WaitAny,
            4 => WaitKind::FlowInfo,
            5 => WaitKind::Sleep,
            6 => WaitKind::Confirmation,
            7 => WaitKind::LedgerCommit,
            8 => WaitKind::StateConsumption,
            _ => return None,
        };
        let awaited = self.awaited.clone().map(|first| Awaited { first, more: self.more });
        Some(Wait { kind, sessions: self.sessions.clone(), until: self.until, awaited })
    }
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Item {
    #[prost(oneof = "Entry", tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14")]
    pub entry: Option<Entry>,
}

/// One line of the log. All but `Initiated` and `Confirmed` answer a call of the guest.
#[derive(Clone, PartialEq, prost::Oneof)]
pub(crate) enum Entry {
    #[prost(message, tag = "1")]
    Opened(Opened),
    #[prost(message, tag = "2")]
    Refused(Refused),
    #[prost(message, tag = "3")]
    Sent(Sent),
    #[prost(message, tag = "4")]
    Received(Received),
    #[prost(message, tag = "5")]
    ReceivedAll(ReceivedAll),
    #[prost(message, tag = "6")]
    Ready(Ready),
    #[prost(message, tag = "7")]
    Closed(Closed),
    #[prost(message, tag = "8")]
    Told(Told),
    #[prost(message, tag = "9")]
    SleepBegun(SleepBegun),
    #[prost(message, tag = "10")]
    Woke(Woke),
    /// An initiation without payload went out for this session.
    #[prost(uint32, tag = "11")]
    Initiated(u32),
    /// The peer confirmed; what was held back for it went out.
    #[prost(message, tag = "12")]
    Confirmed(Confirmed),
    #[prost(message, tag = "13")]
    Noted(Noted),
    #[prost(message, tag = "14")]
    Found(Found),
}

impl Entry {
    /// False for what happened to the flow without being asked for.
    pub fn answers_a_call(&self) -> bool {
        !matches!(self, Entry::Initiated(_) | Entry::Confirmed(_))
    }
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Opened {
    #[prost(string, tag = "1")]
    pub protocol: String,
    #[prost(uint32, tag = "2")]
    pub version: u32,
    #[prost(string, tag = "3")]
    pub party: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Refused {
    #[prost(string, tag = "1")]
    pub party: String,
    #[prost(message, optional, boxed, tag = "2")]
    pub failure: Option<Box<Failure>>,
}

/// A payload by its length and BLAKE3 digest (16 bytes); kept whole only while the peer has not confirmed.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct SentOne {
    #[prost(uint32, tag = "1")]
    pub session: u32,
    #[prost(uint64, tag = "2")]
    pub length: u64,
    #[prost(fixed64, tag = "3")]
    pub digest_high: u64,
    #[prost(fixed64, tag = "4")]
    pub digest_low: u64,
    #[prost(bytes = "bytes", optional, tag = "5")]
    pub held: Option<Bytes>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Sent {
    #[prost(message, repeated, tag = "1")]
    pub sends: Vec<SentOne>,
    #[prost(bool, tag = "2")]
    pub then_receive: bool,
    #[prost(message, optional, boxed, tag = "3")]
    pub failure: Option<Box<Failure>>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Received {
    #[prost(uint32, tag = "1")]
    pub session: u32,
    #[prost(bool, tag = "2")]
    pub or_end: bool,
    /// The arrival that was consumed, if it was data.
    #[prost(uint32, optional, tag = "3")]
    pub seq: Option<u32>,
    #[prost(message, optional, boxed, tag = "4")]
    pub failure: Option<Box<Failure>>,
    #[prost(fixed64, tag = "5")]
    pub at: u64,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ReceivedAll {
    #[prost(uint32, repeated, tag = "1")]
    pub sessions: Vec<u32>,
    #[prost(uint32, repeated, tag = "2")]
    pub seqs: Vec<u32>,
    #[prost(message, optional, boxed, tag = "3")]
    pub failure: Option<Box<Failure>>,
    #[prost(fixed64, tag = "4")]
    pub at: u64,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Ready {
    #[prost(uint32, repeated, tag = "1")]
    pub sessions: Vec<u32>,
    #[prost(uint64, optional, tag = "2")]
    pub deadline: Option<u64>,
    #[prost(uint32, optional, tag = "3")]
    pub session: Option<u32>,
    #[prost(message, optional, boxed, tag = "4")]
    pub failure: Option<Box<Failure>>,
    #[prost(fixed64, tag = "5")]
    pub at: u64,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Closed {
    #[prost(uint32, repeated, tag = "1")]
    pub sessions: Vec<u32>,
    #[prost(message, optional, boxed, tag = "2")]
    pub failure: Option<Box<Failure>>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Told {
    #[prost(uint32, tag = "1")]
    pub session: u32,
    #[prost(uint32, tag = "2")]
    pub version: u32,
    #[prost(string, tag = "3")]
    pub app: String,
    #[prost(message, optional, boxed, tag = "4")]
    pub failure: Option<Box<Failure>>,
    #[prost(fixed64, tag = "5")]
    pub at: u64,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct SleepBegun {
    #[prost(uint64, tag = "1")]
    pub milliseconds: u64,
    /// Milliseconds since 1970.
    #[prost(uint64, tag = "2")]
    pub until: u64,
    #[prost(message, optional, boxed, tag = "3")]
    pub failure: Option<Box<Failure>>,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct Woke {
    #[prost(fixed64, tag = "1")]
    pub at: u64,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Confirmed {
    #[prost(uint32, tag = "1")]
    pub session: u32,
    #[prost(int64, tag = "2")]
    pub peer_session: i64,
    #[prost(uint32, tag = "3")]
    pub version: u32,
    #[prost(string, tag = "4")]
    pub app: String,
    #[prost(fixed64, tag = "5")]
    pub peer_token: u64,
}

/// A question whose answer lies outside the journal, and the answer as it was then.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Noted {
    #[prost(string, tag = "1")]
    pub question: String,
    #[prost(bytes = "bytes", tag = "2")]
    pub answer: Bytes,
}

/// The end of a wait for something outside of the journal: what was found, or nothing at the deadline, or the error that came
/// instead.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Found {
    #[prost(string, tag = "1")]
    pub what: String,
    #[prost(uint64, optional, tag = "2")]
    pub deadline: Option<u64>,
    #[prost(bytes = "bytes", optional, tag = "3")]
    pub answer: Option<Bytes>,
    #[prost(message, optional, boxed, tag = "4")]
    pub failure: Option<Box<Failure>>,
    #[prost(fixed64, tag = "5")]
    pub at: u64,
}

/// A flow's error as it is stored: one that was told to a guest, or the one a flow ended in.
#[derive(Clone, PartialEq, Message)]
pub struct Failure {
    #[prost(uint32, tag = "1")]
    pub(crate) kind: u32,
    #[prost(string, tag = "2")]
    pub(crate) message: String,
    #[prost(string, optional, tag = "3")]
    pub(crate) exception: Option<String>,
    #[prost(bytes = "vec", optional, tag = "4")]
    pub(crate) data: Option<Vec<u8>>,
    #[prost(fixed64, optional, tag = "5")]
    pub(crate) error_id: Option<u64>,
    #[prost(string, optional, tag = "6")]
    pub(crate) peer: Option<String>,
    #[prost(string, optional, tag = "7")]
    pub(crate) limit: Option<String>,
    /// The session whose end or error this failure told.
    #[prost(uint32, optional, tag = "8")]
    pub(crate) session: Option<u32>,
}

const KINDS: [ErrorKind; 8] = [
    ErrorKind::FlowException,
    ErrorKind::UnexpectedEnd,
    ErrorKind::Unexpected,
    ErrorKind::IllegalArgument,
    ErrorKind::IllegalState,
    ErrorKind::PrematureClose,
    ErrorKind::Killed,
    ErrorKind::Limit,
];

impl Failure {
    /// Boxed, because few entries have one.
    pub(crate) fn new(error: &FlowError, session: Option<u32>) -> Box<Failure> {
        let kind = KINDS.iter().position(|&kind| kind == error.kind).unwrap_or(2);
        Box::new(Failure {
            kind: kind as u32,
            message: error.message.clone(),
            exception: error.exception.clone(),
            data: error.data.clone(),
            error_id: error.error_id.map(|id| id.0),
            peer: error.peer.clone(),
            limit: error.limit.clone(),
            session,
        })
    }

    /// The error it holds.
    #[must_use]
    pub fn to_error(&self) -> FlowError {
        FlowError {
            kind: KINDS.get(self.kind as usize).copied().unwrap_or(ErrorKind::Unexpected),
            message: self.message.clone(),
            exception: self.exception.clone(),
            data: self.data.clone(),
            error_id: self.error_id.map(ErrorId),
            peer: self.peer.clone(),
            limit: self.limit.clone(),
        }
    }
}

impl From<&FlowError> for Failure {
    fn from(error: &FlowError) -> Failure {
        *Failure::new(error, None)
    }
}
