//! What travels through a broker: an initiation or a batch with its addressee, signed by the sending identity.
//!
//! A broker authenticates nobody: whoever can reach it can put anything into any queue. So the sender signs, with the key
//! of its node info, what it sends, to whom, and on which network; the recipient looks the key up on its own network map
//! and stores nothing before the signature was found right. The id of a message is computed from what is signed, so that
//! neither a copy under another id nor another message under its id passes.

use bytes::Bytes;
use maxhost_journal::wire::FrameKind;
use maxhost_journal::{Frame, FrameBatch, Initiation, Outgoing};
use maxhost_model::{FencingToken, PublicKey, SecureHash};
use maxhost_pki::{OpenIdentity, PkiError, TrustRoot};
use maxhost_store::{OutboxContent, OutboxRow};
use prost::Message;

/// Stands before everything that is signed here, so that no signature made for another purpose fits.
const DOMAIN: &[u8] = b"maxhost message 1";

/// A message and its addressee. Tag numbers are never used again for something else.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Envelope {
    /// The recipient's X.500 name.
    #[prost(string, tag = "1")]
    pub to: String,
    #[prost(oneof = "Content", tags = "2, 3, 4")]
    pub content: Option<Content>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(crate) enum Content {
    #[prost(message, tag = "2")]
    Initiation(Initiation),
    #[prost(message, tag = "3")]
    FrameBatch(Addressed),
    #[prost(message, tag = "4")]
    Command(Command),
}

/// What a host that does not run an identity was asked to do with it. Signed by the identity itself: only hosts that have
/// its keys may ask for it.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Command {
    /// The identity's own X.500 name.
    #[prost(string, tag = "1")]
    pub from: String,
    /// The public id of the flow, which the host that was asked has given; empty if there is none.
    #[prost(bytes = "bytes", tag = "2")]
    pub flow_id: Bytes,
    /// The flow is to be started. With neither this nor one of the two below it is to be killed.
    #[prost(message, optional, tag = "3")]
    pub start: Option<AskedStart>,
    /// The flow has ended and is to be forgotten.
    #[prost(message, optional, tag = "4")]
    pub forget: Option<AskedForget>,
    /// The identity is to be handed over to the host of this name. There is no flow then.
    #[prost(string, optional, tag = "5")]
    pub move_to: Option<String>,
    /// Whose affair it is to hand the identity over: the owner with this claim, and no other. A host of an earlier version does
    /// not say.
    #[prost(message, optional, tag = "6")]
    pub move_from: Option<OwnersClaim>,
}

/// The claim of an owner of an identity.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(crate) struct OwnersClaim {
    #[prost(int64, tag = "1")]
    pub generation: i64,
    #[prost(int64, tag = "2")]
    pub epoch: i64,
}

impl From<OwnersClaim> for FencingToken {
    fn from(OwnersClaim { generation, epoch }: OwnersClaim) -> FencingToken {
        FencingToken { generation, epoch }
    }
}

impl From<FencingToken> for OwnersClaim {
    fn from(FencingToken { generation, epoch }: FencingToken) -> OwnersClaim {
        OwnersClaim { generation, epoch }
    }
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct AskedForget {
    /// Whose client id it is.
    #[prost(string, tag = "1")]
    pub user: String,
    #[prost(string, tag = "2")]
    pub client_id: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct AskedStart {
    /// The flow's full name, `cordapp/flow`.
    #[prost(string, tag = "1")]
    pub flow: String,
    /// Its arguments, CBOR.
    #[prost(bytes = "bytes", tag = "2")]
    pub arguments: Bytes,
    #[prost(string, tag = "3")]
    pub user: String,
    #[prost(string, optional, tag = "4")]
    pub client_id: Option<String>,
    /// Without a client id nobody waits for it after this moment, in milliseconds since 1970 by the clock of the database's server
    /// (a host of an earlier version goes by its own): it is not started any more. With one it
    /// is started some days later at the latest ([`crate::relay::commands`]).
    #[prost(uint64, tag = "5")]
    pub expires: u64,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Addressed {
    #[prost(int64, tag = "1")]
    pub session: i64,
    #[prost(uint32, tag = "2")]
    pub seq: u32,
    #[prost(message, optional, tag = "3")]
    pub batch: Option<FrameBatch>,
}

/// The body of a broker's message. Its tags are others than those of [`Envelope`], so that one is not taken for the other.
#[derive(Clone, PartialEq, Message)]
struct Sealed {
    /// An [`Envelope`].
    #[prost(bytes = "bytes", tag = "14")]
    envelope: Bytes,
    /// Of the identity in whose name it is sent.
    #[prost(bytes = "bytes", tag = "15")]
    signature: Bytes,
}

fn signed_bytes(envelope: &[u8], network: &TrustRoot) -> Vec<u8> {
    let network = SecureHash::of(network.der());
    [DOMAIN, network.as_bytes(), blake3::hash(envelope).as_bytes()].concat()
}

/// A received message whose signature was not looked at yet.
#[derive(Debug)]
pub(crate) struct Unverified {
    envelope: Envelope,
    bytes: Bytes,
    signature: Bytes,
}

impl Unverified {
    /// Reads the body of a broker's message; `None` if it is none of ours.
    pub fn decode(body: Bytes) -> Option<Unverified> {
        let Sealed { envelope: bytes, signature } = Sealed::decode(body).ok()?;
        let envelope = Envelope::decode(bytes.clone()).ok()?;
        envelope.from()?;
        Some(Unverified { envelope, bytes, signature })
    }

    /// Whom it claims to be from.
    pub fn claimed_sender(&self) -> &str {
        self.envelope.from().unwrap_or_default()
    }

    /// The id that the message has if it is right.
    pub fn message_id(&self) -> [u8; 16] {
        self.envelope.message_id()
    }

    /// Whether anybody signed it at all.
    pub fn is_signed(&self) -> bool {
        !self.signature.is_empty()
    }

    /// The message, if it was signed with this key for this network.
    pub fn verify(self, network: &TrustRoot, key: &PublicKey) -> Option<Envelope> {
        maxhost_pki::verify(key, &signed_bytes(&self.bytes, network), &self.signature).then_some(self.envelope)
    }
}

impl Envelope {
    pub fn of(outgoing: &Outgoing) -> Envelope {
        match outgoing {
            Outgoing::Initiate { party, initiation } => {
                Envelope { to: party.to_string(), content: Some(Content::Initiation(initiation.clone())) }
            }
            Outgoing::Deliver { party, session, seq, batch } => Envelope {
                to: party.to_string(),
                content: Some(Content::FrameBatch(Addressed {
                    session: session.0,
                    seq: *seq,
                    batch: Some(batch.clone()),
                })),
            },
        }
    }

    /// What is in an outbox row. A message that was to be written to its recipient directly is put into an envelope only
    /// here.
    ///
    /// # Errors
    /// The row is damaged.
    pub fn of_row(row: &OutboxRow) -> Result<Envelope, prost::DecodeError> {
        let content = match &row.content {
            OutboxContent::Message { body, .. } => return Envelope::decode(body.clone()),
            OutboxContent::Initiation { body } => Content::Initiation(Initiation::decode(body.clone())?),
            OutboxContent::Delivery { session, seq, body } => Content::FrameBatch(Addressed {
                session: session.0,
                seq: *seq,
                batch: Some(FrameBatch::decode(body.clone())?),
            }),
        };
        Ok(Envelope { to: row.destination.to_string(), content: Some(content) })
    }

    /// The body of the broker's message: the envelope, signed by the identity in whose name it is.
    ///
    /// # Errors
    /// The signature scheme needs randomness and the system gives none.
    pub fn seal(&self, network: &TrustRoot, keys: &OpenIdentity) -> Result<Bytes, PkiError> {
        let envelope = self.encode_to_vec();
        let signature = keys.sign(&signed_bytes(&envelope, network))?.into();
        Ok(Sealed { envelope: envelope.into(), signature }.encode_to_vec().into())
    }

    /// In whose name it is sent; `None` if it holds nothing.
    pub fn from(&self) -> Option<&str> {
        match self.content.as_ref()? {
            Content::Initiation(initiation) => Some(&initiation.from),
            Content::FrameBatch(addressed) => addressed.batch.as_ref().map(|batch| batch.from.as_str()),
            Content::Command(command) => Some(&command.from),
        }
    }

    /// Bytes of the largest message of a flow in it, which the network limits (docs/behaviour.md 5.4).
    pub fn largest_payload(&self) -> usize {
        let frames = match &self.content {
            Some(Content::Initiation(initiation)) => return initiation.payload.as_ref().map_or(0, Bytes::len),
            Some(Content::FrameBatch(Addressed { batch: Some(batch), .. })) => &batch.frames,
            Some(Content::Command(command)) => return command.start.as_ref().map_or(0, |start| start.arguments.len()),
            Some(Content::FrameBatch(_)) | None => return 0,
        };
        let payload = |frame: &Frame| match &frame.kind {
            Some(FrameKind::Data(payload)) => payload.len(),
            _ => 0,
        };
        frames.iter().map(payload).max().unwrap_or(0)
    }

    /// The same for the same message, however often it is sent, and never that of another one: what the receiver knows it
    /// again by. The session's token is random, so a number that is used again after a database was restored gives other
    /// ids.
    pub fn message_id(&self) -> [u8; 16] {
        let mut hash = blake3::Hasher::new();
        let mut text = |text: &str| {
            hash.update(&(text.len() as u64).to_be_bytes()).update(text.as_bytes());
        };
        text(&self.to);
        text(self.from().unwrap_or_default());
        match &self.content {
            Some(Content::Initiation(initiation)) => {
                hash.update(b"initiation").update(&initiation.from_session.to_be_bytes());
                hash.update(&initiation.from_token.to_be_bytes());
            }
            Some(Content::FrameBatch(addressed)) => {
                let token = addressed.batch.as_ref().map_or(0, |batch| batch.token);
                hash.update(b"frames").update(&addressed.session.to_be_bytes());
                hash.update(&token.to_be_bytes()).update(&addressed.seq.to_be_bytes());
            }
            Some(Content::Command(command)) => {
                // A flow id has 75 random bits.
                hash.update(if command.start.is_some() { b"start" } else { b"kill." }).update(&command.flow_id);
            }
            None => {}
        }
        let mut id = [0; 16];
        id.copy_from_slice(&hash.finalize().as_bytes()[..16]);
        id
    }
}

#[cfg(test)]
mod tests {
    use maxhost_model::SessionId;

    use super::*;

    fn batch(frames: Vec<Frame>) -> Outgoing {
        let batch = FrameBatch { from: "A".to_owned(), frames, token: 7 };
        Outgoing::Deliver { party: "B".into(), session: SessionId(1), seq: 0, batch }
    }

    #[test]
    fn the_largest_message_of_an_envelope_is_found() {
        let initiation = |payload: Option<usize>| {
            let payload = payload.map(|length| Bytes::from(vec![0; length]));
            let initiation = Initiation { from: "A".to_owned(), payload, ..Initiation::default() };
            Envelope::of(&Outgoing::Initiate { party: "B".into(), initiation })
        };
        assert_eq!((initiation(None).largest_payload(), initiation(Some(7)).largest_payload()), (0, 7));
        let data = |length| Frame::data(Bytes::from(vec![0; length]));
        for (frames, largest) in [(vec![data(3), data(9), Frame::end()], 9), (vec![Frame::end()], 0), (vec![], 0)] {
            assert_eq!(Envelope::of(&batch(frames)).largest_payload(), largest);
        }
    }

    #[test]
    fn messages_have_one_id_each() {
        let first = Envelope::of(&batch(vec![Frame::end()]));
        let mut ids = vec![first.message_id()];
        assert_eq!(first.message_id(), ids[0]);
        let addressed = |change: fn(&mut Addressed)| {
            let mut other = first.clone();
            if let Some(Content::FrameBatch(addressed)) = &mut other.content {
                change(addressed);
            }
            other
        };
        let batched = |change: fn(&mut FrameBatch)| {
            let mut other = first.clone();
            if let Some(Content::FrameBatch(Addressed { batch: Some(batch), .. })) = &mut other.content {
                change(batch);
            }
            other
        };
        let others = [
            addressed(|a| a.session = 2),
            addressed(|a| a.seq = 1),
            batched(|b| b.token = 8),
            batched(|b| b.from = "C".to_owned()),
        ];
        ids.extend(others.iter().map(Envelope::message_id));
        ids.push(Envelope { to: "C".to_owned(), ..first.clone() }.message_id());
        for (flow_id, start) in [(b"one", None), (b"two", None), (b"one", Some(AskedStart::default()))] {
            let command = Command {
                from: "B".to_owned(),
                flow_id: Bytes::from_static(flow_id),
                start,
                forget: None,
                move_to: None,
                move_from: None,
            };
            ids.push(Envelope { to: "B".to_owned(), content: Some(Content::Command(command)) }.message_id());
        }
        let distinct: std::collections::HashSet<_> = ids.iter().collect();
        assert_eq!(distinct.len(), ids.len());
    }

    #[test]
    fn what_is_no_message_is_told() {
        assert!(Unverified::decode(Bytes::from_static(b"nonsense")).is_none());
        assert!(Unverified::decode(Bytes::new()).is_none(), "nothing is in it");
        let plain = Envelope::of(&batch(vec![Frame::end()])).encode_to_vec();
        assert!(Unverified::decode(plain.clone().into()).is_none(), "nobody has sealed it");
        let sealed = Sealed { envelope: plain.into(), signature: Bytes::new() };
        let unsigned = Unverified::decode(sealed.encode_to_vec().into());
        assert!(unsigned.is_some_and(|unsigned| !unsigned.is_signed() && unsigned.claimed_sender() == "A"));
    }
}
