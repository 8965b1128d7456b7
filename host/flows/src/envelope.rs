//! What travels through a broker: an initiation or a batch, with its addressees.

use bytes::Bytes;
use maxhost_journal::wire::FrameKind;
use maxhost_journal::{Frame, FrameBatch, Initiation, Outgoing};
use prost::Message;

/// One message of the broker. Tag numbers are never used again for something else.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Envelope {
    #[prost(string, tag = "1")]
    pub to: String,
    #[prost(oneof = "Content", tags = "2, 3")]
    pub content: Option<Content>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(crate) enum Content {
    #[prost(message, tag = "2")]
    Initiation(Initiation),
    #[prost(message, tag = "3")]
    FrameBatch(Addressed),
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

    /// Bytes of the largest message of a flow in it, which the network limits (docs/behaviour.md 5.4).
    pub fn largest_payload(&self) -> usize {
        let frames = match &self.content {
            Some(Content::Initiation(initiation)) => return initiation.payload.as_ref().map_or(0, Bytes::len),
            Some(Content::FrameBatch(Addressed { batch: Some(batch), .. })) => &batch.frames,
            Some(Content::FrameBatch(_)) | None => return 0,
        };
        let payload = |frame: &Frame| match &frame.kind {
            Some(FrameKind::Data(payload)) => payload.len(),
            _ => 0,
        };
        frames.iter().map(payload).max().unwrap_or(0)
    }

    /// The same for the same message, however often it is sent: what the receiver knows it again by (docs/behaviour.md 5.4).
    pub fn message_id(&self) -> [u8; 16] {
        let mut hash = blake3::Hasher::new();
        hash.update(self.to.as_bytes());
        match &self.content {
            Some(Content::Initiation(initiation)) => {
                hash.update(b"\0initiation\0").update(initiation.from.as_bytes());
                hash.update(&initiation.from_session.to_be_bytes());
            }
            Some(Content::FrameBatch(addressed)) => {
                let from = addressed.batch.as_ref().map_or("", |batch| &batch.from);
                hash.update(b"\0parcel\0").update(from.as_bytes());
                hash.update(&addressed.session.to_be_bytes()).update(&addressed.seq.to_be_bytes());
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
            let batch = FrameBatch { from: "A".to_owned(), frames };
            let outgoing = Outgoing::Deliver { party: "B".into(), session: SessionId(1), seq: 0, batch };
            assert_eq!(Envelope::of(&outgoing).largest_payload(), largest);
        }
    }
}
