//! What was written, looked at as it is written: who started and who ended, what was said and what was read, and who has
//! taken part in which transaction.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use maxhost_journal::wire::FrameKind;
use maxhost_journal::{FrameBatch, Initiation, Origin as StartedBy, Segment, StartRecord};
use maxhost_ledger::vault::recording::TransactionEvent;
use maxhost_model::{FlowError, FlowRow, IdentityRow, SecureHash, SessionId};
use maxhost_store::ledger::{LedgerOp, LedgerReceipt};
use maxhost_store::{CommitUnit, FlowOp, FlowState, Job, MessageOp, NewFlow, Op, OutboxContent, Outcome};
use prost::Message;

use super::guest::label_of;
use crate::guests::flow_code::NO_COMPONENT;

/// Where a flow came from.
#[derive(Debug, Clone, Copy)]
pub(super) enum Source {
    /// It was started from outside, as the root of this index.
    Root(usize),
    /// It answers this session of an initiator.
    Peer(SessionId),
    /// The host has started it, to settle a transaction.
    Settling,
}

/// Whom a flow goes back to, over those whom it answers.
#[derive(Debug, Clone, Copy)]
pub(super) enum Origin {
    /// The root of this index.
    Root(usize),
    /// A flow that settles a transaction.
    Host,
    /// Nobody has started it.
    Nobody,
}

/// What was written so far.
#[derive(Default)]
pub(super) struct Audit {
    pub started: BTreeMap<FlowRow, Source>,
    pub ended: BTreeMap<FlowRow, FlowState>,
    /// The beginning of every message that was written.
    said: HashSet<Vec<u8>>,
    /// What each flow has read.
    read: HashSet<(FlowRow, Vec<u8>)>,
    /// Who has had which transaction in flight, or in his ledger.
    pub took_part: BTreeSet<(IdentityRow, SecureHash)>,
    /// Whose ledger a transaction has become part of.
    announced: BTreeSet<(IdentityRow, SecureHash)>,
    /// Deals that were refused: how often by a notary as spent already, and how often for another reason.
    pub conflicts: u64,
    pub other_refusals: u64,
    /// The first thing that should not have been written.
    pub wrong: Option<String>,
}

impl Audit {
    /// Whom a flow goes back to.
    pub fn root_of(&self, mut flow: FlowRow) -> Origin {
        loop {
            match self.started.get(&flow) {
                Some(Source::Root(index)) => return Origin::Root(*index),
                Some(Source::Settling) => return Origin::Host,
                Some(Source::Peer(session)) => flow = session.flow(),
                None => return Origin::Nobody,
            }
        }
    }

    /// A job was written.
    pub fn written(&mut self, job: &Job, outcome: &Outcome) {
        let (Job::Unit(CommitUnit { author, ops, .. }), Outcome::Receipt(receipt)) = (job, outcome) else { return };
        for (index, op) in ops.iter().enumerate() {
            let answer = receipt.ledger.iter().find(|(of, _)| *of == index).map(|(_, answer)| answer);
            self.records(author.identity, op, answer);
        }
        ops.iter().for_each(|op| self.hear(op));
        ops.iter().for_each(|op| self.look(op));
    }

    fn look(&mut self, op: &Op) {
        match op {
            Op::Flow(FlowOp::Start(new)) => self.starts(new),
            Op::Flow(FlowOp::End { flow, state, .. }) => {
                if let Some(before) = self.ended.insert(*flow, *state) {
                    self.is_wrong(format!("flow {} ended as {before:?} and as {state:?}", flow.0));
                }
            }
            Op::Flow(FlowOp::AppendLog { flow, seq, body }) => {
                let labels = Segment::decode_sealed(body, *seq).map(|segment| segment.progress).unwrap_or_default();
                labels.iter().for_each(|label| self.reads(*flow, label));
            }
            _ => {}
        }
    }

    /// A deal was refused, as it may be.
    pub fn refused(&mut self, error: &FlowError) {
        match error.exception.as_deref() {
            Some("notary/conflict") => self.conflicts += 1,
            _ => self.other_refusals += 1,
        }
    }

    fn records(&mut self, identity: IdentityRow, op: &Op, answer: Option<&LedgerReceipt>) {
        let Op::Ledger(LedgerOp::Record(recording)) = op else { return };
        if matches!(recording.event, TransactionEvent::SentToNotary | TransactionEvent::Finalised) {
            self.took_part.insert((identity, recording.id));
        }
        if matches!(answer, Some(LedgerReceipt::Recorded(true))) && !self.announced.insert((identity, recording.id)) {
            self.is_wrong(format!("{} becomes part of the ledger of {} twice", recording.id, identity.0));
        }
    }

    fn starts(&mut self, new: &NewFlow) {
        let Ok(start) = StartRecord::decode(&new.start) else { return };
        let source = match start.origin {
            StartedBy::Rpc { .. } if start.component == NO_COMPONENT => Source::Settling,
            StartedBy::Rpc { .. } => Source::Root(start.arguments.first().copied().unwrap_or_default().into()),
            StartedBy::Peer(initiation) => Source::Peer(SessionId(initiation.from_session)),
        };
        let twice = self.started.values().any(|other| match (other, &source) {
            (Source::Peer(one), Source::Peer(other)) => one == other,
            _ => false,
        });
        if twice {
            self.is_wrong(format!("{source:?} has two responders"));
        }
        self.started.insert(new.row, source);
    }

    /// A label is what a flow has received. It is written with what comes of that, so by then the message must be
    /// written too.
    fn reads(&mut self, flow: FlowRow, label: &str) {
        if !self.said.contains(label.as_bytes()) {
            self.is_wrong(format!("flow {} has received '{label}', which nobody has written", flow.0));
        }
        if !self.read.insert((flow, label.as_bytes().to_vec())) {
            self.is_wrong(format!("flow {} has received '{label}' twice", flow.0));
        }
    }

    /// Notes what a message says.
    fn hear(&mut self, op: &Op) {
        let op = match op {
            Op::Message(MessageOp::Deliver { body, .. }) => Said::Batch(body),
            Op::Message(MessageOp::Initiate { body, .. }) => Said::Initiation(body),
            // It is written again when it arrives.
            _ => return,
        };
        match op {
            Said::Batch(body) => {
                let frames = FrameBatch::decode(body.clone()).map(|batch| batch.frames).unwrap_or_default();
                for frame in frames {
                    if let Some(FrameKind::Data(payload)) = frame.kind {
                        self.said.insert(label_of(&payload));
                    }
                }
            }
            Said::Initiation(body) => {
                if let Ok(Initiation { payload: Some(payload), .. }) = Initiation::decode(body.clone()) {
                    self.said.insert(label_of(&payload));
                }
            }
        }
    }

    pub fn is_wrong(&mut self, text: String) {
        super::tell(|| format!("  wrong: {text}"));
        self.wrong.get_or_insert(text);
    }
}

enum Said<'b> {
    Batch(&'b bytes::Bytes),
    Initiation(&'b bytes::Bytes),
}

/// A job in a few words.
pub(super) fn brief(job: &Job) -> String {
    let Job::Unit(unit) = job else { return format!("{job:?}") };
    let one = |op: &Op| match op {
        Op::Flow(FlowOp::Start(new)) => format!("start {}", new.row.0),
        Op::Flow(FlowOp::AppendLog { flow, seq, .. }) => format!("log {} {seq}", flow.0),
        Op::Flow(FlowOp::SetState { flow, state, .. }) => format!("state {} {state:?}", flow.0),
        Op::Flow(FlowOp::End { flow, state, .. }) => format!("end {} {state:?}", flow.0),
        Op::Message(MessageOp::Deliver { session, seq, .. }) => {
            format!("deliver {}/{} {seq}", session.flow().0, session.index())
        }
        Op::Message(MessageOp::Initiate { to, id, .. }) => format!("initiate {id} at {}", to.identity.0),
        Op::Message(MessageOp::TakeInitiation { id }) => format!("take {id}"),
        Op::Message(MessageOp::Outbox { destination, .. }) => format!("outbox for {destination}"),
        Op::Message(MessageOp::OutboxSent { id, .. }) => format!("sent {id}"),
        Op::Message(MessageOp::Arrived { .. }) => "arrived".to_owned(),
        other => format!("{other:?}").chars().take(60).collect(),
    };
    let ops: Vec<String> = unit.ops.iter().map(one).collect();
    format!("identity {} commits {}", unit.author.identity.0, ops.join(", "))
}

/// What an outbox row has, in a few words.
pub(super) fn content(content: &OutboxContent) -> &'static str {
    match content {
        OutboxContent::Message { .. } => "a message",
        OutboxContent::Initiation { .. } => "an initiation",
        OutboxContent::Delivery { .. } => "a delivery",
    }
}
