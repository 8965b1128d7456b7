//! Answering a replayed guest from the log.

use bytes::Bytes;
use maxhost_model::FlowError;

use crate::Nanos;
use crate::call::{Answer, Call, Divergence, Step};
use crate::machine::{Blocking, Machine};
use crate::record::{Entry, Failure, Received, Sent, SentOne};
use crate::wire::FrameKind;

/// What the log keeps of a payload.
pub(crate) fn summarise(session: u32, payload: &Bytes) -> SentOne {
    let hash = blake3::hash(payload);
    let mut high = [0; 8];
    let mut low = [0; 8];
    high.copy_from_slice(&hash.as_bytes()[..8]);
    low.copy_from_slice(&hash.as_bytes()[8..16]);
    SentOne {
        session,
        length: payload.len() as u64,
        digest_high: u64::from_be_bytes(high),
        digest_low: u64::from_be_bytes(low),
        held: None,
    }
}

/// An entry as the request it answers, for people.
pub(crate) fn describe(entry: &Entry) -> String {
    match entry {
        Entry::Opened(entry) => describe_open(&entry.party, &entry.protocol, entry.version),
        Entry::Refused(entry) => format!("open a session with {}", entry.party),
        Entry::Sent(entry) => {
            let verb = if entry.then_receive { "send and receive" } else { "send" };
            let sends = entry.sends.iter().map(|sent| {
                let digest = (sent.digest_high >> 32) as u32;
                format!(" {} bytes (digest {digest:08x}) on session {}", sent.length, sent.session)
            });
            format!("{verb}{}", sends.collect::<Vec<_>>().join(","))
        }
        Entry::Received(entry) if entry.or_end => format!("receive or end on session {}", entry.session),
        Entry::Received(entry) => format!("receive on session {}", entry.session),
        Entry::ReceivedAll(entry) => format!("receive on all of sessions {:?}", entry.sessions),
        Entry::Ready(entry) => describe_wait(&entry.sessions, entry.deadline),
        Entry::Closed(entry) => format!("close sessions {:?}", entry.sessions),
        Entry::Told(entry) => format!("flow info of session {}", entry.session),
        Entry::SleepBegun(entry) => format!("sleep {} ms", entry.milliseconds),
        Entry::Woke(_) => "the end of a sleep".to_owned(),
        Entry::Initiated(session) => format!("initiation of session {session}"),
        Entry::Confirmed(entry) => format!("confirmation of session {}", entry.session),
        Entry::Noted(entry) => format!("ask {}", entry.question),
        Entry::Found(entry) => crate::awaiting::describe(&entry.what, entry.deadline),
    }
}

fn describe_call(call: &Call) -> String {
    match call {
        Call::OpenSession { protocol, version, party } => describe_open(party, protocol, *version),
        Call::RefuseSession { party, .. } => format!("open a session with {party}"),
        Call::Send(sends) => describe(&Entry::Sent(sent(sends.iter().map(|(ix, bytes)| (*ix, bytes)), false))),
        Call::SendAndReceive { session, payload } => describe(&Entry::Sent(sent([(*session, payload)], true))),
        Call::Receive { session, or_end: true } => format!("receive or end on session {session}"),
        Call::Receive { session, or_end: false } => format!("receive on session {session}"),
        Call::ReceiveAll(sessions) => format!("receive on all of sessions {sessions:?}"),
        Call::WaitAny { sessions, deadline } => describe_wait(sessions, *deadline),
        Call::Close(sessions) => format!("close sessions {sessions:?}"),
        Call::FlowInfo(session) => format!("flow info of session {session}"),
        Call::Sleep(milliseconds) => format!("sleep {milliseconds} ms"),
        Call::Await { what, deadline, .. } => crate::awaiting::describe(what, *deadline),
    }
}

fn describe_open(party: &str, protocol: &str, version: u32) -> String {
    format!("open a session with {party} under {protocol} version {version}")
}

fn describe_wait(sessions: &[u32], deadline: Option<u64>) -> String {
    let until = deadline.map(|deadline| format!(" until {deadline}"));
    format!("wait for any of sessions {sessions:?}{}", until.unwrap_or_default())
}

fn sent<'a>(sends: impl IntoIterator<Item = (u32, &'a Bytes)>, then_receive: bool) -> Sent {
    let sends = sends.into_iter().map(|(session, payload)| summarise(session, payload)).collect();
    Sent { sends, then_receive, failure: None }
}

fn same_sends(logged: &Sent, asked: &Sent) -> bool {
    let same = |(a, b): (&SentOne, &SentOne)| {
        (a.session, a.length, a.digest_high, a.digest_low) == (b.session, b.length, b.digest_high, b.digest_low)
    };
    logged.then_receive == asked.then_receive
        && logged.sends.len() == asked.sends.len()
        && logged.sends.iter().zip(&asked.sends).all(same)
}

fn outcome(failure: Option<Box<Failure>>, answer: Answer) -> Result<Answer, FlowError> {
    match failure {
        Some(failure) => Err(failure.to_error()),
        None => Ok(answer),
    }
}

impl Machine {
    pub(crate) fn begin_replayed(&mut self, call: Call, now: Nanos) -> Result<Step, Divergence> {
        let Some(entry) = self.replay.pop_front() else { return self.begin(call, now) };
        let step = match (&call, entry) {
            (Call::OpenSession { protocol, version, party }, Entry::Opened(entry))
                if (protocol, version, party) == (&entry.protocol, &entry.version, &entry.party) =>
            {
                Step::Done(Ok(Answer::Session(self.know_session())))
            }
            // Would be refused today, but was not then.
            (Call::RefuseSession { party, .. }, Entry::Opened(entry)) if *party == entry.party => {
                Step::Done(Ok(Answer::Session(self.know_session())))
            }
            (Call::OpenSession { party, .. } | Call::RefuseSession { party, .. }, Entry::Refused(entry))
                if *party == entry.party =>
            {
                Step::Done(outcome(entry.failure, Answer::Done))
            }
            (Call::Send(sends), Entry::Sent(entry))
                if same_sends(&entry, &sent(sends.iter().map(|(ix, bytes)| (*ix, bytes)), false)) =>
            {
                Step::Done(outcome(entry.failure, Answer::Done))
            }
            (Call::SendAndReceive { session, payload }, Entry::Sent(entry))
                if same_sends(&entry, &sent([(*session, payload)], true)) =>
            {
                let session = *session;
                self.position += 1;
                return match entry.failure {
                    Some(failure) => Ok(Step::Done(Err(failure.to_error()))),
                    None => self.continue_replayed(call, Blocking::Receive { session, or_end: false }, now),
                };
            }
            (Call::Receive { session, or_end }, Entry::Received(entry))
                if (*session, *or_end) == (entry.session, entry.or_end) =>
            {
                Step::Done(self.replayed_receive(entry))
            }
            (Call::ReceiveAll(sessions), Entry::ReceivedAll(entry)) if *sessions == entry.sessions => {
                self.advance(entry.at);
                let pairs = entry.sessions.iter().zip(&entry.seqs);
                let messages = pairs.map(|(&session, &seq)| self.replayed_message(session, seq)).collect();
                Step::Done(outcome(entry.failure, Answer::Messages(messages)))
            }
            (Call::WaitAny { sessions, deadline }, Entry::Ready(entry))
                if (sessions, deadline) == (&entry.sessions, &entry.deadline) =>
            {
                self.advance(entry.at);
                Step::Done(outcome(entry.failure, Answer::Ready(entry.session)))
            }
            (Call::Close(sessions), Entry::Closed(entry)) if *sessions == entry.sessions => {
                Step::Done(outcome(entry.failure, Answer::Done))
            }
            (Call::FlowInfo(session), Entry::Told(entry)) if *session == entry.session => {
                self.advance(entry.at);
                let answer = Answer::FlowInfo { version: entry.version, app: entry.app };
                Step::Done(outcome(entry.failure, answer))
            }
            (Call::Sleep(milliseconds), Entry::SleepBegun(entry)) if *milliseconds == entry.milliseconds => {
                self.position += 1;
                return match entry.failure {
                    Some(failure) => Ok(Step::Done(Err(failure.to_error()))),
                    None => {
                        let sleep =
                            Blocking::Sleep { until: entry.until, from: entry.until.saturating_sub(*milliseconds) };
                        self.continue_replayed(call, sleep, now)
                    }
                };
            }
            (Call::Await { what, deadline, .. }, Entry::Found(entry))
                if (what, deadline) == (&entry.what, &entry.deadline) =>
            {
                self.advance(entry.at);
                Step::Done(outcome(entry.failure, Answer::Found(entry.answer)))
            }
            (_, entry) => return Err(self.divergence(&entry, describe_call(&call))),
        };
        self.position += 1;
        Ok(step)
    }

    /// The second half of a call that has two entries: its wait.
    fn continue_replayed(&mut self, call: Call, blocking: Blocking, now: Nanos) -> Result<Step, Divergence> {
        let Some(entry) = self.replay.pop_front() else {
            return Ok(match blocking {
                Blocking::Sleep { .. } => {
                    self.blocking = Some(blocking);
                    Step::Blocked
                }
                _ => self.block(blocking, now),
            });
        };
        let step = match (&blocking, entry) {
            (Blocking::Receive { session, or_end }, Entry::Received(entry))
                if (*session, *or_end) == (entry.session, entry.or_end) =>
            {
                Step::Done(self.replayed_receive(entry))
            }
            (Blocking::Sleep { .. }, Entry::Woke(entry)) => {
                self.advance(entry.at);
                Step::Done(Ok(Answer::Done))
            }
            (_, entry) => return Err(self.divergence(&entry, describe_call(&call))),
        };
        self.position += 1;
        Ok(step)
    }

    pub(crate) fn note_replayed(&mut self, question: &str) -> Result<Bytes, Divergence> {
        match self.replay.pop_front() {
            Some(Entry::Noted(entry)) if entry.question == question => {
                self.position += 1;
                Ok(entry.answer)
            }
            Some(entry) => Err(self.divergence(&entry, format!("ask {question}"))),
            None => Ok(Bytes::new()),
        }
    }

    fn divergence(&self, expected: &Entry, actual: String) -> Divergence {
        Divergence { position: self.position, expected: describe(expected), actual }
    }

    fn replayed_receive(&mut self, entry: Received) -> Result<Answer, FlowError> {
        self.advance(entry.at);
        match (entry.failure, entry.seq) {
            (Some(failure), _) => Err(failure.to_error()),
            (None, Some(seq)) => Ok(Answer::Message(self.replayed_message(entry.session, seq))),
            (None, None) => Ok(Answer::Ended),
        }
    }

    fn replayed_message(&mut self, session: u32, seq: u32) -> Bytes {
        let frame = self.sessions.get_mut(session as usize).and_then(|session| session.inbound.remove(&seq));
        match frame {
            Some(FrameKind::Data(payload)) => payload,
            _ => Bytes::new(),
        }
    }
}
