//! One end of a session: its state, what was received and not consumed, and the numbers of what goes out (docs/behaviour.md 5.2).

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use maxhost_model::{ErrorId, ErrorKind, FlowError, SessionId};

use crate::wire::FrameKind;

/// Where a session stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionState {
    /// Nothing was sent yet.
    Uninitiated,
    /// The initiation is out, the peer has not answered.
    Initiating,
    /// Both sides know each other.
    Initiated,
    /// The peer refused, or answered with something that is no answer.
    Rejected {
        /// Its words.
        text: String,
        /// The number both sides logged, if the peer gave one.
        error_id: Option<ErrorId>,
        /// Whether our flow has been told.
        told: bool,
    },
    /// Our flow has learned that the peer ended in order.
    Ended,
    /// Our flow has learned that the peer failed.
    Errored,
    /// We closed it.
    Closed,
}

impl SessionState {
    /// The stable word.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            SessionState::Uninitiated => "uninitiated",
            SessionState::Initiating => "initiating",
            SessionState::Initiated => "initiated",
            SessionState::Rejected { .. } => "rejected",
            SessionState::Ended => "ended",
            SessionState::Errored => "errored",
            SessionState::Closed => "closed",
        }
    }
}

/// A session for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionSummary {
    /// Name of the counterparty.
    pub peer: Arc<str>,
    /// State in a word.
    pub state: &'static str,
    /// Received and not consumed.
    pub unread: u32,
}

/// What lies at the head of a session's queue.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Head {
    /// Nothing yet.
    Empty,
    Data,
    End,
    Error(FlowError),
}

#[derive(Debug)]
pub(crate) struct Session {
    pub peer: Arc<str>,
    /// `cordapp/flow` under which it was opened, and the version of that flow.
    pub protocol: String,
    pub version: u32,
    pub state: SessionState,
    pub peer_session: Option<SessionId>,
    /// The token of the peer's session, as it told us.
    pub peer_token: u64,
    /// What the peer told of its side.
    pub info: Option<(u32, String)>,
    /// By number. Below `next_in`: consumed, kept for the replay that is under way. From `next_in`: unread.
    pub inbound: BTreeMap<u32, FrameKind>,
    pub next_in: u32,
    /// Number of the next frame we send. 0 is the initiation, or our confirmation.
    pub next_out: u32,
    /// Sends that wait for the peer's confirmation.
    pub held: Vec<Bytes>,
    /// The flow has asked this session for something, so it is not one that only sends.
    pub received_from: bool,
    /// Where in the machine's outgoing messages the batch lies that takes further frames, and how large it is.
    pub batch: Option<(usize, usize)>,
}

impl Session {
    /// A session our flow opens.
    pub fn opened(peer: Arc<str>, protocol: String, version: u32) -> Session {
        Session {
            peer,
            protocol,
            version,
            state: SessionState::Uninitiated,
            peer_session: None,
            peer_token: 0,
            info: None,
            inbound: BTreeMap::new(),
            next_in: 0,
            next_out: 0,
            held: Vec::new(),
            received_from: false,
            batch: None,
        }
    }

    /// The session our flow was started for: frame 0 of the peer is the initiation, frame 0 of ours the confirmation.
    pub fn responding(peer: Arc<str>, initiation: &crate::wire::Initiation) -> Session {
        let mut session = Session::opened(peer, initiation.protocol.clone(), initiation.version);
        session.state = SessionState::Initiated;
        session.peer_session = Some(SessionId(initiation.from_session));
        session.peer_token = initiation.from_token;
        session.info =
            Some((initiation.version, maxhost_model::cut_text(initiation.app.clone(), crate::wire::MAX_APP)));
        session.next_out = 1;
        match &initiation.payload {
            Some(payload) => {
                session.inbound.insert(0, FrameKind::Data(payload.clone()));
            }
            None => session.next_in = 1,
        }
        session
    }

    /// What a receive would find; nothing while the peer has not confirmed, or once the session is over.
    pub fn head(&self) -> Head {
        if self.state != SessionState::Initiated {
            return Head::Empty;
        }
        match self.inbound.get(&self.next_in) {
            None => Head::Empty,
            Some(FrameKind::Data(_)) => Head::Data,
            Some(FrameKind::End(_)) => Head::End,
            Some(FrameKind::Error(error)) => Head::Error(error.to_flow_error(&self.peer)),
            // Confirm and Reject are taken out as they arrive; one that comes later breaks the protocol (docs/behaviour.md 5.1).
            Some(FrameKind::Confirm(_) | FrameKind::Reject(_)) => Head::Error(self.broke_protocol()),
        }
    }

    fn broke_protocol(&self) -> FlowError {
        FlowError {
            peer: Some(self.peer.to_string()),
            ..FlowError::new(
                ErrorKind::UnexpectedEnd,
                format!("{} sent something that the session protocol does not allow here", self.peer),
            )
        }
    }

    /// Takes the message at the head of the queue, with its number.
    pub fn consume(&mut self) -> Option<(u32, Bytes)> {
        if self.head() != Head::Data {
            return None;
        }
        let seq = self.next_in;
        self.next_in += 1;
        match self.inbound.remove(&seq) {
            Some(FrameKind::Data(payload)) => Some((seq, payload)),
            _ => None,
        }
    }

    /// The peer's answer to our initiation is not a confirmation.
    pub fn reject(&mut self, answer: &FrameKind) {
        let (text, error_id) = match answer {
            FrameKind::Reject(reject) => (reject.text.clone(), Some(ErrorId(reject.error_id))),
            _ => (self.broke_protocol().message, None),
        };
        self.state = SessionState::Rejected { text, error_id, told: false };
        self.next_in = 1;
        self.inbound.clear();
        self.held.clear();
    }

    /// The flow has been told that the session is over: by a rejection, or by the end or error at the head of the
    /// queue, whose number is handed out. What lies behind it is of no use to anybody.
    pub fn tell_over(&mut self) -> Option<u64> {
        match &mut self.state {
            SessionState::Rejected { told, .. } => {
                *told = true;
                None
            }
            SessionState::Initiated => {
                let over = self.inbound.split_off(&self.next_in).remove(&self.next_in);
                self.state = match over {
                    Some(FrameKind::End(_)) => SessionState::Ended,
                    _ => SessionState::Errored,
                };
                self.next_in += 1;
                match over {
                    Some(FrameKind::Error(error)) => Some(error.error_id),
                    _ => None,
                }
            }
            _ => None,
        }
    }

    /// True if the peer has failed, whether our flow knows it yet or not.
    pub fn has_failed(&self) -> bool {
        self.inbound.range(self.next_in..).any(|(_, frame)| matches!(frame, FrameKind::Error(_)))
    }

    /// True if frames of the peer can still change something.
    pub fn is_open(&self) -> bool {
        matches!(self.state, SessionState::Uninitiated | SessionState::Initiating | SessionState::Initiated)
    }

    /// True if a wait for this session is over: there is something to receive, or there never will be.
    pub fn is_ready(&self) -> bool {
        match self.state {
            SessionState::Uninitiated | SessionState::Initiating => false,
            SessionState::Initiated => self.head() != Head::Empty,
            _ => true,
        }
    }

    /// First frame number that has not arrived, counting without gaps.
    pub fn next_unseen(&self) -> u32 {
        let mut next = self.next_in;
        while self.inbound.contains_key(&next) {
            next += 1;
        }
        next
    }

    pub fn unread(&self) -> u32 {
        self.inbound.range(self.next_in..).count() as u32
    }

    pub fn summary(&self) -> SessionSummary {
        SessionSummary { peer: self.peer.clone(), state: self.state.as_str(), unread: self.unread() }
    }

    /// The failure of using a session that is over, in the state's own words; `None` while it is usable.
    pub fn over(&self) -> Option<FlowError> {
        let message = match &self.state {
            SessionState::Uninitiated | SessionState::Initiating | SessionState::Initiated => return None,
            SessionState::Rejected { text, error_id, .. } => {
                return Some(FlowError {
                    error_id: *error_id,
                    peer: Some(self.peer.to_string()),
                    ..FlowError::new(ErrorKind::UnexpectedEnd, text.clone())
                });
            }
            SessionState::Ended => format!("the session with {} has ended: the peer's flow is over", self.peer),
            SessionState::Errored => format!("the session with {} has ended: the peer's flow failed", self.peer),
            SessionState::Closed => format!("the session with {} was closed by this flow", self.peer),
        };
        Some(FlowError { peer: Some(self.peer.to_string()), ..FlowError::new(ErrorKind::UnexpectedEnd, message) })
    }

    /// The failure of a receive that met the peer's orderly end.
    pub fn ended_error(&self) -> FlowError {
        FlowError {
            peer: Some(self.peer.to_string()),
            ..FlowError::new(
                ErrorKind::UnexpectedEnd,
                format!("{} ended its flow; a message was expected from it", self.peer),
            )
        }
    }
}
