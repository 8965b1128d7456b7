//! What the simulation keeps: databases with their flows, and what is on its way between hosts. Rows change in commits
//! only; everything else is lost in a crash.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use maxhost_journal::wire::FrameKind;
use maxhost_journal::{Arrival, Flush, Frame, FrameBatch, Initiation, Machine, Outgoing, Segment, StartRecord};
use maxhost_model::{ErrorId, ErrorKind, FlowError, FlowRow, SessionId};
use prost::Message as _;

use crate::guest::{Guest, Told, party_name};

/// A flow: its database and its place there.
pub type At = (usize, usize);
/// A session in one of the databases.
type End = (usize, i64);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// Its start is not committed: a crash undoes it.
    Starting,
    Live,
    Ended,
    /// Its start was undone.
    Undone,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Ready,
    Waiting,
    Finishing,
}

/// A flow in memory.
pub struct Run {
    pub machine: Machine,
    pub guest: Guest,
    pub phase: Phase,
    /// Rows of the inbox that the machine has not been given.
    pub arrivals: Vec<(SessionId, u32, FrameBatch)>,
    /// Messages of the network that the machine has, but the inbox has not.
    pub staged: Vec<(u64, Arrival)>,
    /// Answers given in this life.
    pub told: usize,
    pub asked: u64,
}

pub struct Flow {
    pub party: usize,
    pub program: usize,
    pub logical: u64,
    pub row: FlowRow,
    pub start: StartRecord,
    /// The initiation it was started for.
    pub initiation: Option<u64>,
    pub life: Life,
    pub log: Vec<(u32, Bytes)>,
    pub inbox: Vec<Arrival>,
    pub labels: u64,
    /// What the guest was told; the first `committed` of it can never change.
    pub trace: Vec<Told>,
    pub committed: usize,
    pub outcome: Option<Result<Bytes, FlowError>>,
    /// What it had sent on sessions that were not confirmed when it failed.
    pub held: Vec<(SessionId, Vec<Bytes>)>,
    pub run: Option<Run>,
    /// Not in memory, but has to be.
    pub news: bool,
    pub until: Option<u64>,
}

impl Flow {
    /// What a host that starts knows of a flow that is not in memory: whether it has to be run, and when.
    pub fn look(&mut self) {
        let last = self.log.last().map(|(seq, body)| Segment::decode_sealed(body, *seq).unwrap());
        self.news = match &last {
            None => true,
            Some(last) => {
                last.waits_for().is_none()
                    || self.inbox.iter().any(|(session, seq, _)| last.is_news(session.index(), *seq))
            }
        };
        self.until = last.and_then(|last| last.waits_for()).and_then(|wait| wait.until);
    }

    fn has_row(&self, session: SessionId, seq: u32) -> bool {
        self.inbox.iter().any(|row| (row.0, row.1) == (session, seq))
    }
}

/// An initiation that nobody has answered.
pub struct Request {
    pub id: u64,
    pub party: usize,
    pub initiation: Initiation,
    pub from: usize,
    /// A flow that is not committed was started for it.
    pub taken: bool,
}

/// A batch between two databases. It is delivered at least once, in any order.
pub struct Message {
    pub id: u64,
    pub party: String,
    pub to: End,
    pub seq: u32,
    pub batch: FrameBatch,
    /// Somebody has it and will acknowledge it with its next commit.
    pub staged: bool,
}

#[derive(Default)]
pub struct Database {
    pub flows: Vec<Flow>,
    pub requests: Vec<Request>,
}

#[derive(Default)]
pub struct Store {
    pub databases: Vec<Database>,
    pub messages: Vec<Message>,
    processed: BTreeSet<u64>,
    next_id: u64,
    /// Frames sent to each session so far: the number that the next one must have.
    pub emitted: BTreeMap<End, u32>,
    /// Who is at the other end.
    pub links: BTreeMap<End, End>,
    /// Errors that flows have ended with, by number.
    pub errors: BTreeMap<u64, FlowError>,
}

pub fn party_number(name: &str) -> usize {
    name.trim_start_matches('P').parse().unwrap()
}

impl Store {
    pub fn new(databases: usize) -> Store {
        Store { databases: (0..databases).map(|_| Database::default()).collect(), ..Store::default() }
    }

    pub fn flow(&mut self, at: At) -> &mut Flow {
        &mut self.databases[at.0].flows[at.1]
    }

    fn home(&self, party: usize) -> usize {
        party % self.databases.len()
    }

    pub fn id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    fn flow_of(&self, end: End) -> At {
        (end.0, SessionId(end.1).flow().0 as usize - 1)
    }

    /// One transaction of a flow. `end` is its outcome, if it has one.
    pub fn commit(
        &mut self,
        at: At,
        flush: Flush,
        staged: Vec<(u64, Arrival)>,
        end: Option<Result<Bytes, FlowError>>,
        unconfirmed: Vec<(SessionId, Vec<Bytes>)>,
    ) {
        self.commit_start(at);
        let flow = self.flow(at);
        assert_eq!(flow.life, Life::Live);
        flow.committed = flow.run.as_ref().map_or(flow.committed, |run| run.told);
        if let Some((seq, body)) = flush.segment {
            assert_eq!(seq as usize, flow.log.len(), "segments without gaps");
            flow.log.push((seq, body));
        }
        for (number, _) in flush.progress {
            assert_eq!(number, flow.labels + 1, "each label once");
            flow.labels = number;
        }
        for (message, row) in staged {
            let flow = self.flow(at);
            if !flow.has_row(row.0, row.1) {
                flow.inbox.push(row);
            }
            self.acknowledge(message);
        }
        let me = self.flow(at).party;
        for outgoing in flush.outgoing {
            self.send(at, me, outgoing);
        }
        if let Some(outcome) = end {
            self.commit_end(at, outcome, unconfirmed);
        }
    }

    fn commit_start(&mut self, at: At) {
        let flow = self.flow(at);
        if flow.life != Life::Starting {
            return;
        }
        flow.life = Life::Live;
        let session = flow.row.session(0).0;
        if let Some(id) = flow.initiation {
            let requests = &mut self.databases[at.0].requests;
            let index = requests.iter().position(|request| request.id == id).expect("an initiation is answered once");
            let request = requests.remove(index);
            self.processed.insert(id);
            let initiator = (request.from, request.initiation.from_session);
            self.links.insert(initiator, (at.0, session));
            self.links.insert((at.0, session), initiator);
            self.emitted.insert((at.0, session), 1);
        }
    }

    fn commit_end(&mut self, at: At, outcome: Result<Bytes, FlowError>, unconfirmed: Vec<(SessionId, Vec<Bytes>)>) {
        if let Err(error) = &outcome {
            let id = error.error_id.expect("errors are numbered");
            self.errors.entry(id.0).or_insert(error.clone());
        }
        let flow = self.flow(at);
        flow.life = Life::Ended;
        flow.outcome = Some(outcome);
        flow.log.clear();
        flow.run = None;
        flow.held = unconfirmed;
        let unconfirmed: BTreeSet<i64> = flow.held.iter().map(|(session, _)| session.0).collect();
        // A confirmation that came without the flow having seen it is answered in its stead.
        for (session, seq, body) in std::mem::take(&mut flow.inbox) {
            if seq == 0 && unconfirmed.contains(&session.0) {
                self.answer_for_the_dead((at.0, session.0), &FrameBatch::decode(body).unwrap());
            }
        }
    }

    fn send(&mut self, at: At, me: usize, outgoing: Outgoing) {
        match outgoing {
            Outgoing::Initiate { party, initiation } => {
                assert_eq!(initiation.from, party_name(me));
                let party = party_number(&party);
                self.emitted.insert((at.0, initiation.from_session), 0);
                let (id, home) = (self.id(), self.home(party));
                self.databases[home].requests.push(Request { id, party, initiation, from: at.0, taken: false });
            }
            Outgoing::Deliver { party, session, seq, batch } => self.post(at.0, &party, session, seq, batch),
        }
    }

    /// Sends a batch to a party's session: within a database a row, else by the network.
    pub fn post(&mut self, from: usize, party: &str, session: SessionId, seq: u32, batch: FrameBatch) {
        let to = (self.home(party_number(party)), session.0);
        let expected = self.emitted.get_mut(&to).expect("a session that somebody opened");
        assert_eq!(seq, *expected, "frames leave once and in order");
        *expected += batch.frames.len() as u32;
        if to.0 == from {
            self.put_row(to, seq, batch);
        } else {
            let id = self.id();
            self.messages.push(Message { id, party: party.to_owned(), to, seq, batch, staged: false });
        }
    }

    /// Puts a batch into the inbox of the flow it is for, and tells the flow if it is in memory.
    pub fn put_row(&mut self, to: End, seq: u32, batch: FrameBatch) {
        let at = self.flow_of(to);
        let session = SessionId(to.1);
        let flow = self.flow(at);
        match flow.life {
            Life::Ended if seq == 0 => self.answer_for_the_dead(to, &batch),
            Life::Ended => {}
            Life::Live => {
                if flow.has_row(session, seq) {
                    return;
                }
                flow.inbox.push((session, seq, Bytes::from(batch.encode_to_vec())));
                match &mut flow.run {
                    Some(run) => run.arrivals.push((session, seq, batch)),
                    None => flow.look(),
                }
            }
            Life::Starting | Life::Undone => panic!("a message for a flow that nobody can know"),
        }
    }

    /// A confirmation for a flow that has ended: its responder is sent what the flow had sent, and told so.
    fn answer_for_the_dead(&mut self, end: End, batch: &FrameBatch) {
        if let Some(FrameKind::Confirm(confirm)) = batch.frames.first().and_then(|frame| frame.kind.as_ref()) {
            let error = FlowError { error_id: Some(ErrorId(1)), ..FlowError::new(ErrorKind::Killed, "gone") };
            self.errors.entry(1).or_insert(error.clone());
            let dead = self.flow(self.flow_of(end));
            let held = dead.held.iter().filter(|(session, _)| session.0 == end.1).flat_map(|(_, held)| held.clone());
            let frames = held.map(Frame::data).chain([Frame::error(&error)]).collect();
            let answer = FrameBatch { from: party_name(dead.party), frames, token: 0 };
            self.post(end.0, &batch.from.clone(), SessionId(confirm.session), 1, answer);
        }
    }

    /// Nobody answers this initiation.
    pub fn reject(&mut self, database: usize, index: usize) {
        let request = self.databases[database].requests.remove(index);
        let error = ErrorId(2);
        self.errors.entry(2).or_insert(FlowError::new(ErrorKind::Unexpected, "no flow answers"));
        let batch = FrameBatch {
            from: party_name(request.party),
            frames: vec![Frame::reject("no flow answers", error)],
            token: 0,
        };
        self.post(database, &request.initiation.from, SessionId(request.initiation.from_session), 0, batch);
    }

    /// Throws a run away: what it had not committed never was.
    pub fn drop_run(&mut self, at: At) {
        let Some(run) = self.flow(at).run.take() else { return };
        for (id, _) in &run.staged {
            self.messages.iter_mut().filter(|message| message.id == *id).for_each(|message| message.staged = false);
        }
        let flow = self.flow(at);
        let initiation = flow.initiation;
        if flow.life == Life::Starting {
            flow.life = Life::Undone;
            let requests = &mut self.databases[at.0].requests;
            requests.iter_mut().filter(|request| Some(request.id) == initiation).for_each(|r| r.taken = false);
        } else {
            flow.look();
        }
    }

    /// The network has delivered a message for good.
    pub fn acknowledge(&mut self, id: u64) {
        self.messages.retain(|message| message.id != id);
        self.processed.insert(id);
    }

    pub fn was_processed(&self, id: u64) -> bool {
        self.processed.contains(&id)
    }
}
