//! What travels between flows: initiations, and batches of frames between the two ends of a session (docs/behaviour.md 5.1).
//!
//! Encoded with protobuf. Tag numbers are never used again for something else.

use bytes::Bytes;
use maxhost_model::{ErrorId, ErrorKind, FlowError, MAX_FAILURE_DATA, MAX_FAILURE_TEXT, MAX_FAILURE_WORD, cut_text};
use prost::Message;

/// What a frame counts for beside its payload, bytes.
const FRAME_OVERHEAD: usize = 16;
/// The longest name of a CorDapp that is kept of a peer, bytes.
pub(crate) const MAX_APP: usize = MAX_FAILURE_WORD;

/// The first message of a session, addressed to a party: please start the flow that answers this protocol.
#[derive(Clone, PartialEq, Message)]
pub struct Initiation {
    /// X.500 name of the initiator.
    #[prost(string, tag = "1")]
    pub from: String,
    /// The initiator's session.
    #[prost(int64, tag = "2")]
    pub from_session: i64,
    /// `cordapp/flow` of the initiator.
    #[prost(string, tag = "3")]
    pub protocol: String,
    /// Version of the initiator's flow.
    #[prost(uint32, tag = "4")]
    pub version: u32,
    /// The initiator's CorDapp.
    #[prost(string, tag = "5")]
    pub app: String,
    /// The first message, if the session began with a send.
    #[prost(bytes = "bytes", optional, tag = "6")]
    pub payload: Option<Bytes>,
    /// Goes with `from_session`: see [`session_token`].
    #[prost(fixed64, tag = "7")]
    pub from_token: u64,
}

/// The key of [`Initiation::from_token`] as it is encoded.
const TOKEN_KEY: u8 = 7 << 3 | 1;

impl Initiation {
    /// As much as can be read of an initiation that cannot be read whole: what stands before the damage, and the token, which
    /// stands at the end. `None` if it does not tell whom to answer.
    #[must_use]
    pub fn of_damaged(body: &[u8]) -> Option<Initiation> {
        let mut read = Initiation::default();
        drop(read.merge(body));
        if read.from_token == 0
            && let Some((_, [TOKEN_KEY, token @ ..])) = body.split_last_chunk::<9>()
        {
            read.from_token = u64::from_le_bytes(*token);
        }
        (!read.from.is_empty() && read.from_session != 0).then_some(read)
    }
}

/// What the counterparty of a session has to name beside the session's number. Numbers rise and can be guessed; a message
/// of another host is stored only with the token of the session that it is for and of the party that signed it. So nobody
/// but the counterparty can take a place in the inbox, not even who has read the token on its way. It is drawn from the
/// seed of the session's flow, so that it need not be stored, and differs when a number is used again after a database was
/// restored.
#[must_use]
pub fn session_token(seed: &[u8; 32], session: u16, counterparty: &str) -> u64 {
    let mut hash = blake3::Hasher::new_keyed(seed);
    hash.update(b"session token").update(&session.to_be_bytes()).update(counterparty.as_bytes());
    let [a, b, c, d, e, f, g, h, ..] = *hash.finalize().as_bytes();
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

/// Frames from one end of a session to the other, numbered from the `seq` they travel under.
#[derive(Clone, PartialEq, Message)]
pub struct FrameBatch {
    /// X.500 name of the sender, vouched for by whoever delivers.
    #[prost(string, tag = "1")]
    pub from: String,
    /// In order.
    #[prost(message, repeated, tag = "2")]
    pub frames: Vec<Frame>,
    /// The token of the recipient's session, as its end has told it ([`session_token`]).
    #[prost(fixed64, tag = "3")]
    pub token: u64,
}

/// One message of the session protocol.
#[derive(Clone, PartialEq, Message)]
pub struct Frame {
    /// Which one.
    #[prost(oneof = "FrameKind", tags = "1, 2, 3, 4, 5")]
    pub kind: Option<FrameKind>,
}

/// The kinds of frames.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum FrameKind {
    /// The responder exists.
    #[prost(message, tag = "1")]
    Confirm(Confirm),
    /// There will be no responder.
    #[prost(message, tag = "2")]
    Reject(Reject),
    /// A payload.
    #[prost(bytes = "bytes", tag = "3")]
    Data(Bytes),
    /// The sender failed.
    #[prost(message, tag = "4")]
    Error(PeerError),
    /// The sender has ended or closed the session.
    #[prost(message, tag = "5")]
    End(End),
}

/// Answer to an initiation.
#[derive(Clone, PartialEq, Message)]
pub struct Confirm {
    /// The responder's session.
    #[prost(int64, tag = "1")]
    pub session: i64,
    /// Version of the responder's flow.
    #[prost(uint32, tag = "2")]
    pub version: u32,
    /// Its CorDapp.
    #[prost(string, tag = "3")]
    pub app: String,
    /// Goes with `session`: see [`session_token`].
    #[prost(fixed64, tag = "4")]
    pub token: u64,
}

/// Refusal of an initiation.
#[derive(Clone, PartialEq, Message)]
pub struct Reject {
    /// Why; shown to the initiator.
    #[prost(string, tag = "1")]
    pub text: String,
    /// The number both sides log.
    #[prost(fixed64, tag = "2")]
    pub error_id: u64,
}

/// Failure of the other side: with an exception if it was a business error, else with its number only (docs/behaviour.md 4.6).
#[derive(Clone, PartialEq, Message)]
pub struct PeerError {
    /// The number both sides log.
    #[prost(fixed64, tag = "1")]
    pub error_id: u64,
    /// The business error.
    #[prost(message, optional, tag = "2")]
    pub exception: Option<Exception>,
}

/// A business error as it travels.
#[derive(Clone, PartialEq, Message)]
pub struct Exception {
    /// For people.
    #[prost(string, tag = "1")]
    pub message: String,
    /// The author's type.
    #[prost(string, optional, tag = "2")]
    pub exception: Option<String>,
    /// The author's data, CBOR.
    #[prost(bytes = "bytes", optional, tag = "3")]
    pub data: Option<Bytes>,
}

/// Nothing more.
#[derive(Clone, PartialEq, Message)]
pub struct End {}

impl From<FrameKind> for Frame {
    fn from(kind: FrameKind) -> Frame {
        Frame { kind: Some(kind) }
    }
}

impl Frame {
    /// An orderly end.
    #[must_use]
    pub fn end() -> Frame {
        FrameKind::End(End {}).into()
    }

    /// A payload.
    #[must_use]
    pub fn data(payload: Bytes) -> Frame {
        FrameKind::Data(payload).into()
    }

    /// A rejection.
    #[must_use]
    pub fn reject(text: impl Into<String>, error_id: ErrorId) -> Frame {
        FrameKind::Reject(Reject { text: text.into(), error_id: error_id.0 }).into()
    }

    /// What a peer may know of our failure: a business error of our own whole, anything else by its number.
    #[must_use]
    pub fn error(error: &FlowError) -> Frame {
        let own_exception = error.kind == ErrorKind::FlowException && error.peer.is_none();
        let exception = own_exception.then(|| Exception {
            message: error.message.clone(),
            exception: error.exception.clone(),
            data: error.data.clone().map(Bytes::from),
        });
        FrameKind::Error(PeerError { error_id: error.error_id.map_or(0, |id| id.0), exception }).into()
    }

    /// What it holds, within the bounds of what a flow keeps of its peers' words. A frame of a kind that this host does
    /// not know is a breach of the protocol: it has a number, so it cannot be passed over, and it is treated as a
    /// rejection, which is never allowed but as an answer.
    pub(crate) fn into_kind(self) -> FrameKind {
        let unknown =
            || Reject { text: "the peer sent a message of a kind this host does not know".into(), error_id: 0 };
        match self.kind.unwrap_or_else(|| FrameKind::Reject(unknown())) {
            FrameKind::Confirm(confirm) => {
                FrameKind::Confirm(Confirm { app: cut_text(confirm.app, MAX_APP), ..confirm })
            }
            FrameKind::Reject(reject) => {
                FrameKind::Reject(Reject { text: cut_text(reject.text, MAX_FAILURE_TEXT), ..reject })
            }
            FrameKind::Error(error) => FrameKind::Error(error.bounded()),
            kind @ (FrameKind::Data(_) | FrameKind::End(_)) => kind,
        }
    }

    /// Bytes that it counts for in a journal.
    pub(crate) fn size(&self) -> usize {
        let content = match &self.kind {
            Some(FrameKind::Data(payload)) => payload.len(),
            Some(FrameKind::Error(PeerError { exception: Some(exception), .. })) => {
                let name = exception.exception.as_ref().map_or(0, String::len);
                exception.message.len() + name + exception.data.as_ref().map_or(0, Bytes::len)
            }
            Some(FrameKind::Reject(reject)) => reject.text.len(),
            Some(FrameKind::Confirm(confirm)) => confirm.app.len(),
            Some(FrameKind::Error(_) | FrameKind::End(_)) | None => 0,
        };
        FRAME_OVERHEAD + content
    }

    /// A word for logs and tests.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match &self.kind {
            Some(FrameKind::Confirm(_)) => "confirm",
            Some(FrameKind::Reject(_)) => "reject",
            Some(FrameKind::Data(_)) => "data",
            Some(FrameKind::Error(_)) => "error",
            Some(FrameKind::End(_)) => "end",
            None => "empty",
        }
    }
}

impl PeerError {
    /// Within the bounds of [`FlowError::bounded`]. The bytes that were received are let go.
    fn bounded(self) -> PeerError {
        let exception = self.exception.map(|exception| {
            let error = FlowError {
                exception: exception.exception,
                ..FlowError::new(ErrorKind::FlowException, exception.message)
            };
            let (error, data) = match exception.data {
                Some(data) if data.len() > MAX_FAILURE_DATA => {
                    (FlowError { data: Some(data.to_vec()), ..error }.bounded(), None)
                }
                data => (error.bounded(), data),
            };
            // Copied, so that a short text does not hold on to the whole message that it came in.
            let data = data.map(|data| Bytes::copy_from_slice(&data));
            Exception { message: error.message, exception: error.exception, data }
        });
        PeerError { exception, ..self }
    }

    /// The error as our flow sees it.
    #[must_use]
    pub fn to_flow_error(&self, peer: &str) -> FlowError {
        let error_id = Some(ErrorId(self.error_id));
        match &self.exception {
            Some(exception) => FlowError {
                exception: exception.exception.clone(),
                data: exception.data.as_ref().map(|data| data.to_vec()),
                error_id,
                peer: Some(peer.to_owned()),
                ..FlowError::new(ErrorKind::FlowException, exception.message.clone())
            },
            None => FlowError {
                error_id,
                peer: Some(peer.to_owned()),
                ..FlowError::new(
                    ErrorKind::UnexpectedEnd,
                    format!("{peer} failed; its log has the reason under error id {}", ErrorId(self.error_id)),
                )
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_damaged_initiation_it_is_known_whom_to_answer() {
        let whole = Initiation {
            from: "O=Alice, L=London, C=GB".into(),
            from_session: 4711,
            protocol: "a/b".into(),
            version: 1,
            app: "a".into(),
            payload: Some(Bytes::from(vec![7; 300])),
            from_token: 0x0102_0304_0506_0708,
        };
        let mut body = whole.encode_to_vec();
        // The length of the payload.
        let place = body.iter().position(|byte| *byte == 6 << 3 | 2).unwrap_or(0) + 2;
        body[place] = 0x7f;
        assert!(Initiation::decode(&body[..]).is_err());
        let read = Initiation::of_damaged(&body).map(|read| (read.from, read.from_session, read.from_token));
        assert_eq!(read, Some((whole.from.clone(), 4711, whole.from_token)));
        let cut = Initiation::of_damaged(&whole.encode_to_vec()[..200]);
        assert_eq!(cut.map(|read| (read.from, read.from_token)), Some((whole.from.clone(), 0)), "the token is gone");
        assert_eq!(Initiation::of_damaged(&whole.encode_to_vec()[..10]), None);
        assert_eq!(Initiation::of_damaged(b"nonsense"), None);
    }
}
