//! How flows begin: by RPC, and by an initiation of a peer.

use std::sync::Arc;

use bytes::Bytes;
use maxhost_journal::{Frame, FrameBatch, Initiation, Machine, Origin, Outgoing, StartRecord};
use maxhost_model::{Code, FlowId, FlowRow, Problem, SessionId, cut_text};
use maxhost_store::{AUDIT_TEXT_BYTES, AttemptToken, FlowOp, MessageOp, NewFlow, UNTAKEN_TRIES, Untaken, is_last_page};
use prost::Message;
use tokio::sync::oneshot;

use super::table::SlotState;
use super::{Actor, Answer, RESCAN, RunningClient};
use crate::activation::ActivationStart;
use crate::api::access::Facts;
use crate::api::audit::AuditEntry;
use crate::base::counters::Counters;
use crate::base::random::{new_error_id, new_flow_id, random_bytes};
use crate::base::rules::{Rule, holds};
use crate::base::trouble::backoff;
use crate::calls::StartUnit;
use crate::commit::unit::Unit;
use crate::flow::offer::Offer;
use crate::flow::running_flow::RunningFlow;
use crate::guests::flow_code::FlowCode;
use crate::options::OperatorEvent;
use crate::registry::marks::Mark;
use crate::registry::message::{Durable, RemoteStart, StartCommand, Ticket, answer_start, share};
use crate::registry::opened::Opened;
use crate::reporting::watchers::Watch;

/// Initiations read from the database at once.
const READ_AHEAD: u32 = 256;
/// So many are read with one that is read again.
const READ_AGAIN: u32 = 32;
/// Whose the row of the audit trail is that tells of a damaged initiation.
const DATABASE: &str = "(database)";

impl Actor {
    pub(super) fn start(&mut self, opened: &Arc<Opened>, command: StartCommand) {
        let StartCommand { def, arguments, client_id, user, watched, given, reply } = command;
        let code = FlowCode::Guest(def);
        if self.draining {
            let text = format!("identity {} is being let go", self.entry.text);
            return drop(reply.send(Err(Problem::new(Code::IdentityDraining, text))));
        }
        let key = |id: &String| (user.clone(), id.clone());
        if let Some(running) = client_id.as_ref().and_then(|id| self.clients.get(&key(id))) {
            let (flow_id, flow, user) = (running.flow_id, running.flow.clone(), running.user.clone());
            let durable = Durable::Shared(running.durable.clone());
            return drop(reply.send(Ok(Ticket { flow_id, flow, new: false, user, durable, watch: None })));
        }
        let started = self.services.now();
        let origin = Origin::Rpc { user: user.clone() };
        let id = given.map(|given| given.id);
        let record = match self.start_record(opened, &code, arguments, origin, (started, id)) {
            Ok(record) => record,
            Err(problem) => return drop(reply.send(Err(problem))),
        };
        let (row, flow_id, record) = record;
        let new = NewFlow {
            row,
            id: flow_id,
            name: code.name().clone(),
            user: Some(user.clone()),
            client_id: client_id.clone(),
            started: (started / 1_000_000) as i64,
            start: record.encode(),
        };
        let (told, durable) = oneshot::channel();
        let durable = match &client_id {
            None => Durable::Once(durable),
            Some(client_id) => {
                let shared = share(&self.services.io, &self.services.stopping, durable);
                let (flow, user) = (code.name().clone(), user.clone());
                self.clients.insert(key(client_id), RunningClient { flow_id, flow, user, durable: shared.clone() });
                Durable::Shared(shared)
            }
        };
        Counters::add(&self.services.committer.counters.started);
        self.services.events.emit(OperatorEvent::FlowStarted {
            identity: self.entry.text.to_string(),
            flow_id: flow_id.to_string(),
            flow: code.name().to_string(),
        });
        let watch = watched.then(|| Watch::new(&self.services.committer.watchers, row));
        // Whoever has gone does not stop the flow.
        let client = client_id.as_ref().map(key);
        let _ = reply.send(Ok(Ticket { flow_id, flow: code.name().clone(), new: true, user, durable, watch }));
        let arrived = given.map(|given| MessageOp::Arrived { message_id: given.message_id }.into());
        let ops = arrived.into_iter().chain([FlowOp::Start(Box::new(new)).into()]).collect();
        let unit = StartUnit {
            ops,
            reply: Some(told),
            commit_hint: self.services.committer.store.commit_hint_for(self.entry.row),
            builds_on: None,
        };
        self.begin(opened, row, flow_id, client, record, code, unit);
    }

    /// As [`Actor::start`], of a flow for which another host was asked.
    pub(super) fn start_for(&mut self, opened: &Arc<Opened>, start: RemoteStart) {
        let RemoteStart { flow, arguments, client_id, user, given, reply } = start;
        if self.flows.get(given.id.row()).is_some() {
            // The command comes again, and the flow that it started is not in the database yet.
            let text = format!("flow {} is being started already", given.id);
            return drop(reply.send(Err(Problem::new(Code::Overloaded, text))));
        }
        match opened.cordapps.find(&flow).cloned() {
            Ok(def) => {
                let given = Some(given);
                self.start(opened, StartCommand { def, arguments, client_id, user, watched: false, given, reply });
            }
            Err(problem) => drop(reply.send(Err(problem))),
        }
    }

    /// Runs a new flow, or writes it down and queues it if the identity has no room.
    #[allow(clippy::too_many_arguments, reason = "one call for two callers; a struct would only rename its fields")]
    pub(super) fn begin(
        &mut self,
        opened: &Arc<Opened>,
        row: FlowRow,
        id: FlowId,
        client: Option<(String, String)>,
        record: StartRecord,
        code: FlowCode,
        unit: StartUnit,
    ) {
        let running = RunningFlow::of_new(row, self.entry.row);
        running.set_name(id, code.name(), client.as_ref().map(|(_, client_id)| client_id.clone()));
        let caller = match &record.origin {
            Origin::Peer(initiation) => initiation.from.as_str().into(),
            Origin::Rpc { .. } => Arc::default(),
        };
        if self.flows.hot() >= opened.limits.flows {
            let mut first = Unit::default();
            unit.ops.into_iter().for_each(|op| first.op(op));
            // A responder's confirmation goes with its start: whoever brings the flow back takes it for sent.
            let mut machine = Machine::start(self.entry.text.clone(), row, &record, self.services.activation.journal);
            first.flush(&self.services.committer, row, machine.flush(self.services.now()));
            let reply = unit.reply;
            let (answers, entry) = (self.answers.clone(), self.entry.clone());
            self.flows.insert(row, SlotState::Cold { until: None }, client, caller);
            // It is brought back from the database, so not before it is there.
            self.unwritten.insert(row);
            first.submit_for(&self.services.committer, opened.author(), &running, move |result| {
                answers.lock().push(Answer::Start { row, written: result.is_ok() });
                entry.marks.set(Mark::Answered);
                answer_start(reply, result);
            });
            return;
        }
        self.flows.insert(row, SlotState::Hot { running: running.clone(), news: false }, client, caller);
        self.spawn(opened, running, ActivationStart::New { start: Box::new(record), code, unit });
    }

    pub(super) fn start_record(
        &self,
        opened: &Opened,
        code: &FlowCode,
        arguments: Bytes,
        origin: Origin,
        (started, given): (u64, Option<FlowId>),
    ) -> Result<(FlowRow, FlowId, StartRecord), Problem> {
        let flow_id = match given {
            Some(given) => given,
            None => new_flow_id(self.services.committer.store.next_flow_row())?,
        };
        let row = flow_id.row();
        let ((flow, flow_version), (cordapp, cordapp_version, component)) = (code.flow(), code.cordapp());
        let record = StartRecord {
            flow_id: flow_id.to_bytes(),
            flow: flow.to_owned(),
            flow_version,
            cordapp: cordapp.to_owned(),
            cordapp_version: cordapp_version.to_owned(),
            component,
            arguments,
            origin,
            seed: random_bytes()?,
            started,
            owning_key: Some(Bytes::copy_from_slice(opened.keys.party().owning_key.spki())),
        };
        Ok((row, flow_id, record))
    }

    /// Somebody wants a session. An offer that is not taken is declined by dropping it, and comes again when the
    /// initiation is written.
    pub(super) fn initiated(&mut self, opened: &Arc<Opened>, id: i64, initiation: Initiation, offer: Option<Offer>) {
        if self.in_hand.contains(&id) {
            return offer.into_iter().for_each(Offer::take);
        }
        if self.draining {
            // Found in the database by the next owner.
            return;
        }
        if self.initiations_wait || !self.waiting.is_empty() || self.flows.hot() >= opened.limits.flows {
            // One that is not written yet may never be; whoever learns that it is brings it again.
            if offer.is_none_or(Offer::decline) {
                self.waiting.add(id, initiation);
            }
            return;
        }
        self.respond(opened, id, initiation, offer.as_ref().and_then(Offer::sender));
        // Only now: what the offer announces ends with it, and the responder's own announcement has begun.
        offer.into_iter().for_each(Offer::take);
    }

    /// `sender`: whose attempt the initiation is of, if it may not be written yet.
    fn respond(&mut self, opened: &Arc<Opened>, id: i64, initiation: Initiation, sender: Option<AttemptToken>) {
        let protocol = &initiation.protocol;
        let notarys = FlowCode::notarys_responder(protocol).filter(|_| opened.notary.is_some());
        let guest = || opened.cordapps.responders.get(protocol).cloned().map(FlowCode::Guest);
        let Some(code) = notarys.or_else(guest).or_else(|| FlowCode::native_responder(protocol)) else {
            return self.reject(opened, id, &initiation);
        };
        let started = self.services.now();
        let record = match self.start_record(opened, &code, Bytes::new(), Origin::Peer(initiation), (started, None)) {
            Ok(record) => record,
            Err(problem) => {
                return self.respond_later(Some(&problem));
            }
        };
        let (row, flow_id, record) = record;
        let new = NewFlow {
            row,
            id: flow_id,
            name: code.name().clone(),
            user: None,
            client_id: None,
            started: (started / 1_000_000) as i64,
            start: record.encode(),
        };
        let ops = vec![MessageOp::TakeInitiation { id }.into(), FlowOp::Start(Box::new(new)).into()];
        self.in_hand.insert(id);
        let commit_hint = self.services.committer.store.commit_hint_for(self.entry.row);
        let unit = StartUnit { ops, reply: None, commit_hint, builds_on: sender };
        self.begin(opened, row, flow_id, None, record, code, unit);
        if let Some(slot) = self.flows.get_mut(row) {
            slot.initiation = Some(id);
        }
    }

    /// A responder could not be started, and nothing of it is written: its initiation is still in the database, unless
    /// somebody has taken it or it was never written. It is tried again.
    pub(super) fn respond_later(&mut self, problem: Option<&Problem>) {
        if !holds(Rule::InitiationsAreTriedAgain) {
            return;
        }
        let Some(problem) = problem else { return self.rescan_after(RESCAN) };
        tracing::warn!(identity = %self.entry.text, %problem, "a responder could not be started; it is tried again");
        let pause = backoff(self.troubles);
        self.troubles = self.troubles.saturating_add(1);
        self.rescan_after(pause);
    }

    /// The committer has answered units of the identity's own. A rejection that was not written is tried again, because
    /// the initiator waits. A flow that is written has something to do.
    pub(super) fn take_answers(&mut self, opened: &Arc<Opened>) {
        let answers = std::mem::take(&mut *self.answers.lock());
        for answer in answers {
            let (id, done) = match answer {
                Answer::Rejection { id, written } => (id, written),
                Answer::Start { row, written } => {
                    self.unwritten.remove(&row);
                    let wanted_dead = self.flows.get(row).is_some_and(|slot| !slot.kills.is_empty());
                    match (written, wanted_dead) {
                        (false, _) => {
                            // It may have been to settle what is in flight, which nobody else looks for while the identity is awake.
                            self.look_for_unsettled();
                            self.forget(row);
                        }
                        (true, true) => self.condemn(opened, row),
                        (true, false) => self.flows.enqueue(row),
                    }
                    continue;
                }
            };
            self.in_hand.remove(&id);
            if !done {
                self.rescan_after(RESCAN);
            }
        }
    }

    /// Nobody answers this protocol here (docs/behaviour.md 5.3): the initiator is told, once however often the initiation is seen.
    fn reject(&mut self, opened: &Arc<Opened>, id: i64, initiation: &Initiation) {
        let text = cut_text(format!("{} is not registered", initiation.protocol), 1024);
        self.reject_with(opened, id, initiation, text);
    }

    /// Takes an initiation that nobody will respond to, and tells the initiator why.
    fn reject_with(&mut self, opened: &Arc<Opened>, id: i64, initiation: &Initiation, text: String) {
        let error_id = new_error_id();
        tracing::info!(identity = %self.entry.text, from = initiation.from, %error_id, "rejected a session: {text}");
        let mut unit = Unit::default();
        unit.op(MessageOp::TakeInitiation { id });
        let outgoing = Outgoing::Deliver {
            party: initiation.from.as_str().into(),
            session: SessionId(initiation.from_session),
            seq: 0,
            batch: FrameBatch {
                from: self.entry.text.to_string(),
                frames: vec![Frame::reject(text, error_id)],
                token: initiation.from_token,
            },
        };
        unit.last_words(
            &self.services.committer,
            maxhost_journal::Flush { outgoing: vec![outgoing], ..Default::default() },
        );
        self.take_without_responder(opened, id, unit);
    }

    /// Hands in the unit that takes an initiation. It is tried again until it is written.
    fn take_without_responder(&mut self, opened: &Arc<Opened>, id: i64, unit: Unit) {
        self.in_hand.insert(id);
        let (answers, entry) = (self.answers.clone(), self.entry.clone());
        unit.submit(&self.services.committer, opened.author(), move |result| {
            if let Err(error) = &result {
                tracing::warn!(identity = %entry.text, %error, "an initiation could not be taken; it is tried again");
            }
            answers.lock().push(Answer::Rejection { id, written: result.is_ok() });
            entry.marks.set(Mark::Answered);
        });
    }

    /// Takes initiations in the turns of their peers, until none is left or there is no room.
    pub(super) async fn take_initiations(&mut self, opened: &Arc<Opened>) {
        loop {
            if self.initiations_wait && !self.look_for_initiations(opened).await {
                return;
            }
            while self.flows.hot() < opened.limits.flows
                && let Some((id, is_at_hand)) = self.waiting.whose_turn()
            {
                if !is_at_hand && !self.read_initiation(opened, id).await {
                    return;
                }
                if let Some((id, initiation)) = self.waiting.take()
                    && !self.in_hand.contains(&id)
                {
                    self.respond(opened, id, initiation, None);
                }
            }
            self.initiations_wait |= self.waiting.wants_more();
            if !self.initiations_wait || self.flows.hot() >= opened.limits.flows {
                return;
            }
        }
    }

    /// Finds out which initiations wait in the database, and whose they are. False if it cannot be read.
    async fn look_for_initiations(&mut self, opened: &Arc<Opened>) -> bool {
        let mut last = 0;
        // What a command tells from here on is noted as it comes.
        self.initiations_wait = false;
        loop {
            let Some(rows) = self.read_initiations(last, READ_AHEAD).await else { return false };
            let complete = is_last_page(READ_AHEAD, rows.iter().map(|(_, body)| body.len()));
            for (id, body) in rows {
                last = id;
                if self.in_hand.contains(&id) {
                    continue;
                }
                if let Some(initiation) = self.decode_initiation(opened, id, body).await
                    && !self.waiting.add(id, initiation)
                {
                    return true;
                }
            }
            if complete {
                return true;
            }
        }
    }

    /// Reads an initiation again, with those behind it. It is at hand then, unless it has gone. False if it cannot be read.
    async fn read_initiation(&mut self, opened: &Arc<Opened>, id: i64) -> bool {
        let Some(rows) = self.read_initiations(id.saturating_sub(1), READ_AGAIN).await else { return false };
        for (id, body) in rows {
            if self.in_hand.contains(&id) {
                continue;
            }
            if let Some(initiation) = self.decode_initiation(opened, id, body).await {
                self.waiting.keep(id, initiation);
            }
        }
        true
    }

    async fn read_initiations(&mut self, after: i64, limit: u32) -> Option<Vec<(i64, Bytes)>> {
        match self.services.committer.store.initiations(self.entry.row, after, limit).await {
            Ok(rows) => Some(rows),
            Err(error) => {
                tracing::warn!(identity = %self.entry.text, %error, "waiting sessions cannot be read; tried again");
                // Until then new ones are taken as they come.
                self.initiations_wait = false;
                self.rescan_after(RESCAN);
                None
            }
        }
    }

    /// One that cannot be read is put aside, and gone then.
    async fn decode_initiation(&mut self, opened: &Arc<Opened>, id: i64, body: Bytes) -> Option<Initiation> {
        match Initiation::decode(body.clone()) {
            Ok(initiation) => Some(initiation),
            Err(error) => {
                self.put_aside(opened, id, body, &error).await;
                None
            }
        }
    }

    /// An initiation cannot be read. It is kept where people find it, taken from what waits, and its initiator is told, if it
    /// shows who that is.
    async fn put_aside(&mut self, opened: &Arc<Opened>, id: i64, body: Bytes, error: &prost::DecodeError) {
        let sender = Initiation::of_damaged(&body);
        let from = sender.as_ref().map_or_else(String::new, |sender| cut_text(sender.from.clone(), AUDIT_TEXT_BYTES));
        let reason = format!("the row of initiation {id} is damaged: {error}");
        let mut message_id = [0; 16];
        message_id.copy_from_slice(&blake3::hash(&[b"initiation", &id.to_be_bytes()[..]].concat()).as_bytes()[..16]);
        let at = i64::try_from(self.services.now_millis()).unwrap_or(i64::MAX);
        let untaken =
            Untaken { identity: self.entry.row, message_id, at, sender: from.clone(), reason: reason.clone(), body };
        // What is damaged stays damaged, so it is not tried so often: each count is one try.
        for _ in 0..UNTAKEN_TRIES {
            match self.services.committer.store.note_untaken(untaken.clone()).await {
                Ok(counted) if counted.tries < UNTAKEN_TRIES => {}
                Ok(_) => break,
                Err(error) => {
                    tracing::warn!(identity = %self.entry.text, %error, "a damaged initiation cannot be put aside; tried again");
                    return self.rescan_after(RESCAN);
                }
            }
        }
        self.services.audit.note(AuditEntry {
            at_ms: at,
            user: DATABASE.to_owned(),
            action: "message-put-aside",
            facts: Facts {
                identity: Some(self.entry.text.to_string()),
                detail: Some(format!("from {from}: {reason}")),
                ..Facts::default()
            },
            allowed: false,
            code: Some("unreadable".to_owned()),
            changes: false,
        });
        tracing::error!(
            target: "audit",
            event = "message-put-aside",
            identity = %self.entry.text,
            sender = ?from,
            reason,
            "an initiation is damaged and was put aside"
        );
        match sender {
            Some(sender) => {
                let text = "the initiation of this session was damaged in the database of its recipient".to_owned();
                self.reject_with(opened, id, &sender, text);
            }
            None => {
                let mut unit = Unit::default();
                unit.op(MessageOp::TakeInitiation { id });
                self.take_without_responder(opened, id, unit);
            }
        }
    }
}
