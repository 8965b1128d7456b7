//! The identity actor: the single writer of an open identity. It starts flows, brings them back, lets them go, and
//! holds nothing that the database does not have.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use maxhost_journal::{Frame, Initiation, Machine, Millis, Origin, Outgoing, Parcel, Segment, StartRecord};
use maxhost_model::{Class, Code, FlowId, FlowRow, Problem, SessionId};
use maxhost_store::{Head, NewFlow, Op};
use prost::Message;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::apps::FlowDef;
use crate::core::{Core, Counters, Opened, now, now_millis, random_bytes};
use crate::directory::{ColdState, EntryState, IdentityEntry};
use crate::life::{Beginning, Leaving, Life};
use crate::options::OperatorEvent;
use crate::port::{FlowPort, Signal};
use crate::run::{StartFailure, StartUnit, backoff, new_error_id};
use crate::units::{Author, Unit};

/// Initiations read from the database at once.
const READ_AHEAD: u32 = 256;
/// How soon the database is looked at again after something in it could not be taken.
const RESCAN: Duration = Duration::from_millis(500);

/// How soon an identity is opened again that could not be for a reason that passes.
const REOPEN: Duration = Duration::from_secs(1);

/// A letter to an identity.
pub(crate) enum Mail {
    /// Just open.
    Wake,
    /// Start a flow.
    Start(Box<StartMail>),
    /// A peer wants a session; the row is in the database.
    Initiation { id: i64, initiation: Box<Initiation> },
    /// Something arrived for a flow that is not in memory.
    News(FlowRow),
    /// A run is over.
    Left { row: FlowRow, leaving: Leaving },
    /// End a flow. Answers whether there was something to kill.
    Kill { row: FlowRow, reply: oneshot::Sender<Result<bool, Problem>> },
    /// What is kept of flows in hospital and such.
    Stand { row: FlowRow, reply: oneshot::Sender<Option<Stand>> },
    /// Let the identity go: its manifest went, or the host stops.
    Drain,
    /// The manifest or the CorDapps changed.
    Refresh,
}

/// Where a flow stands that is not in memory.
#[derive(Debug, Clone)]
pub(crate) struct Stand {
    pub attempts: u32,
}

/// A start by RPC.
pub(crate) struct StartMail {
    pub def: Arc<FlowDef>,
    pub arguments: Bytes,
    pub client_id: Option<String>,
    pub user: String,
    pub reply: oneshot::Sender<Result<Ticket, Problem>>,
}

/// A flow that is being started.
pub(crate) struct Ticket {
    pub flow_id: FlowId,
    pub flow: Arc<str>,
    pub new: bool,
    pub user: String,
    pub durable: Durable,
}

/// Tells when a start is durable.
pub(crate) enum Durable {
    Once(oneshot::Receiver<Result<(), StartFailure>>),
    Shared(watch::Receiver<Option<Result<(), SharedFailure>>>),
}

/// A [`StartFailure`] that several callers learn of.
#[derive(Debug, Clone)]
pub(crate) enum SharedFailure {
    ClientIdTaken(FlowRow),
    Problem(Problem),
}

impl Mail {
    /// True if losing the letter loses nothing, because the database has what it tells.
    pub fn is_in_database(&self) -> bool {
        matches!(self, Mail::Wake | Mail::Initiation { .. } | Mail::News(_))
    }

    /// The identity cannot take the letter.
    pub fn refuse(self, problem: Problem) {
        match self {
            Mail::Start(start) => drop(start.reply.send(Err(problem))),
            Mail::Kill { reply, .. } => drop(reply.send(Err(problem))),
            Mail::Stand { reply, .. } => drop(reply.send(None)),
            Mail::Wake | Mail::Initiation { .. } | Mail::News(_) | Mail::Left { .. } | Mail::Drain | Mail::Refresh => {}
        }
    }
}

enum SlotState {
    Hot { port: Arc<FlowPort>, news: bool, responder: bool },
    Cold { until: Option<Millis> },
    Retrying { at: Millis },
    Hospital,
}

struct FlowSlot {
    state: SlotState,
    attempts: u32,
    client_id: Option<String>,
    kills: Vec<oneshot::Sender<Result<bool, Problem>>>,
    /// It comes back only to be ended, however often that takes.
    condemned: bool,
}

struct RunningClient {
    flow_id: FlowId,
    flow: Arc<str>,
    user: String,
    durable: watch::Receiver<Option<Result<(), SharedFailure>>>,
}

/// See the module.
pub(crate) struct Actor {
    core: Arc<Core>,
    entry: Arc<IdentityEntry>,
    mailbox: mpsc::Sender<Mail>,
    letters: mpsc::Receiver<Mail>,
    flows: HashMap<FlowRow, FlowSlot>,
    /// Cold and retrying flows by the time they want to be looked at.
    timers: BTreeSet<(Millis, FlowRow)>,
    /// Flows that have something to do and wait for room.
    queue: VecDeque<FlowRow>,
    queued: HashSet<FlowRow>,
    hot: u32,
    clients: HashMap<String, RunningClient>,
    /// Initiations up to this number were taken.
    seen_initiation: i64,
    /// There may be initiations in the database that no letter tells of.
    initiations_wait: bool,
    rescan_at: Option<Instant>,
    draining: bool,
    idle_since: Instant,
}

impl Actor {
    pub fn new(
        core: Arc<Core>,
        entry: Arc<IdentityEntry>,
        mailbox: mpsc::Sender<Mail>,
        letters: mpsc::Receiver<Mail>,
        cold: ColdState,
    ) -> Actor {
        let held: HashSet<FlowRow> = cold.held.iter().copied().collect();
        let slot = |row: &FlowRow| {
            let state = match held.contains(row) {
                true => SlotState::Hospital,
                false => SlotState::Cold { until: None },
            };
            (*row, FlowSlot { state, attempts: 0, client_id: None, kills: Vec::new(), condemned: false })
        };
        let flows = cold.live.iter().map(slot).collect();
        Actor {
            core,
            entry,
            mailbox,
            letters,
            flows,
            timers: BTreeSet::new(),
            queue: VecDeque::new(),
            queued: HashSet::new(),
            hot: 0,
            clients: HashMap::new(),
            seen_initiation: 0,
            initiations_wait: true,
            rescan_at: None,
            draining: false,
            idle_since: Instant::now(),
        }
    }

    /// Opens the identity and serves it until it sleeps again.
    pub async fn run(mut self) {
        let opened = match self.open().await {
            Ok(opened) => Arc::new(opened),
            Err(problem) => return self.quarantine(problem).await,
        };
        if let EntryState::Active { open, .. } = &mut *self.entry.state.lock() {
            *open = true;
        }
        self.core.emit(OperatorEvent::IdentityOpened { identity: self.entry.text.to_string() });
        tracing::debug!(identity = %self.entry.text, "identity opened");
        self.serve(opened).await;
    }

    async fn open(&mut self) -> Result<Opened, Problem> {
        let spec = self.entry.spec.lock().clone();
        let core = &self.core;
        let keys = maxhost_pki::OpenIdentity::open(
            &core.vault,
            &spec.keys,
            &self.entry.name,
            core.network.trust_root(),
            std::time::SystemTime::now(),
        )
        .map_err(Problem::from)?;
        let apps = core.catalogue.set(&spec.cordapps)?;
        let first = !self.entry.claimed.load(Ordering::Acquire);
        let epoch = self.claim().await?;
        let rows: Vec<FlowRow> = self.flows.keys().copied().collect();
        if first {
            crate::bounce::sweep(core, &self.entry, &rows).await?;
        }
        self.look_at(&rows).await?;
        Ok(Opened { entry: self.entry.clone(), keys, apps, epoch, limits: spec.limits })
    }

    /// Makes this host the identity's owner in the database, once in its life.
    async fn claim(&self) -> Result<i64, Problem> {
        let epoch = self.entry.epoch.load(Ordering::Acquire);
        if self.entry.claimed.load(Ordering::Acquire) {
            return Ok(epoch);
        }
        let claim = self.core.ownership.claim(&self.entry.text, epoch).await.map_err(Problem::from)?.epoch;
        self.core.store.raise_epoch(self.entry.row, claim).await.map_err(Problem::from)?;
        self.entry.epoch.store(claim, Ordering::Release);
        self.entry.claimed.store(true, Ordering::Release);
        Ok(claim)
    }

    /// Finds out which cold flows have something to do, and when the others want to be woken.
    async fn look_at(&mut self, rows: &[FlowRow]) -> Result<(), Problem> {
        for rows in rows.chunks(512) {
            for head in self.core.store.heads(rows).await.map_err(Problem::from)? {
                let Some(slot) = self.flows.get_mut(&head.flow) else { continue };
                if !matches!(slot.state, SlotState::Cold { .. }) {
                    continue;
                }
                match wake_time(&head) {
                    WakeTime::Now => self.enqueue(head.flow),
                    WakeTime::At(at) => {
                        slot.state = SlotState::Cold { until: Some(at) };
                        self.timers.insert((at, head.flow));
                    }
                    WakeTime::OnNews => {}
                }
            }
        }
        Ok(())
    }

    /// Could not open. What passes by itself is tried again soon; anything else needs a person.
    async fn quarantine(mut self, problem: Problem) {
        if problem.class() == Class::Unavailable {
            tracing::warn!(identity = %self.entry.text, %problem, "identity could not be opened; tried again");
            self.core.timers.set(now_millis() + REOPEN.as_millis() as u64, self.entry.row);
            let cold = EntryState::Cold(self.cold_state());
            return self.refuse_letters(cold, &problem);
        }
        tracing::warn!(identity = %self.entry.text, %problem, "identity quarantined");
        self.core.emit(OperatorEvent::IdentityQuarantined {
            identity: self.entry.text.to_string(),
            code: problem.code.to_string(),
            reason: problem.message.clone(),
        });
        let told = crate::problems::quarantined(&self.entry.text, &problem);
        let quarantined = EntryState::Quarantined { problem, cold: self.cold_state() };
        self.refuse_letters(quarantined, &told);
    }

    fn refuse_letters(&mut self, next: EntryState, problem: &Problem) {
        let mut refused = Vec::new();
        {
            let mut state = self.entry.state.lock();
            *state = next;
            self.letters.close();
            while let Ok(letter) = self.letters.try_recv() {
                refused.push(letter);
            }
        }
        refused.into_iter().for_each(|letter| letter.refuse(problem.clone()));
    }

    async fn serve(mut self, mut opened: Arc<Opened>) {
        loop {
            if self.core.stopping.is_cancelled() && !self.draining {
                self.drain();
            }
            if self.entry.behind.swap(false, Ordering::AcqRel) {
                self.initiations_wait = true;
                self.look_again().await;
            }
            self.admit(&opened).await;
            if self.hot == 0 && self.try_close() {
                return;
            }
            self.entry.live_flows.store(self.flows.len() as u64, Ordering::Relaxed);
            let look = self.next_look();
            let letter = tokio::select! {
                letter = self.letters.recv() => letter,
                () = tokio::time::sleep_until(look) => None,
                () = self.core.stopping.cancelled(), if !self.draining => None,
            };
            match letter {
                None => self.fire_timers(),
                Some(Mail::Refresh) => match self.reopen().await {
                    Ok(new) => opened = Arc::new(new),
                    Err(problem) => {
                        tracing::warn!(identity = %self.entry.text, %problem, "the new manifest cannot be used; the old one stays")
                    }
                },
                Some(letter) => self.handle(&opened, letter),
            }
        }
    }

    async fn reopen(&mut self) -> Result<Opened, Problem> {
        let mut opened = self.open().await?;
        opened.epoch = self.entry.epoch.load(Ordering::Acquire);
        Ok(opened)
    }

    fn next_look(&self) -> Instant {
        let now = Instant::now();
        let idle =
            if self.is_idle() { self.idle_since + self.core.options.idle_close } else { now + Duration::from_secs(60) };
        let timer =
            self.timers.first().map(|(at, _)| now + Duration::from_millis(at.saturating_sub(now_millis()).min(60_000)));
        [Some(idle), timer, self.rescan_at].into_iter().flatten().min().unwrap_or(idle)
    }

    fn is_idle(&self) -> bool {
        self.hot == 0 && self.queue.is_empty() && self.rescan_at.is_none()
    }

    fn handle(&mut self, opened: &Arc<Opened>, letter: Mail) {
        self.idle_since = Instant::now();
        match letter {
            Mail::Wake | Mail::Refresh => {}
            Mail::Start(start) => self.start(opened, *start),
            Mail::Initiation { id, initiation } => self.initiated(opened, id, *initiation),
            Mail::News(row) => self.news(row),
            Mail::Left { row, leaving } => self.left(opened, row, leaving),
            Mail::Kill { row, reply } => self.kill(opened, row, reply),
            Mail::Stand { row, reply } => drop(reply.send(self.stand(row))),
            Mail::Drain => self.drain(),
        }
    }

    fn start(&mut self, opened: &Arc<Opened>, mail: StartMail) {
        let StartMail { def, arguments, client_id, user, reply } = mail;
        if self.draining {
            let text = format!("identity {} is being let go", self.entry.text);
            return drop(reply.send(Err(Problem::new(Code::IdentityDraining, text))));
        }
        if let Some(running) = client_id.as_ref().and_then(|id| self.clients.get(id)) {
            let (flow_id, flow, user) = (running.flow_id, running.flow.clone(), running.user.clone());
            let durable = Durable::Shared(running.durable.clone());
            return drop(reply.send(Ok(Ticket { flow_id, flow, new: false, user, durable })));
        }
        let started = now();
        let record = match self.start_record(&def, arguments, Origin::Rpc { user: user.clone() }, started) {
            Ok(record) => record,
            Err(problem) => return drop(reply.send(Err(problem))),
        };
        let (row, flow_id, record) = record;
        let new = NewFlow {
            row,
            id: flow_id,
            name: def.name.clone(),
            user: Some(user.clone()),
            client_id: client_id.clone(),
            started: (started / 1_000_000) as i64,
            start: record.encode(),
        };
        let (told, durable) = oneshot::channel();
        let durable = match &client_id {
            None => Durable::Once(durable),
            Some(client_id) => {
                let shared = share(&self.core, durable);
                let (flow, user) = (def.name.clone(), user.clone());
                self.clients.insert(client_id.clone(), RunningClient { flow_id, flow, user, durable: shared.clone() });
                Durable::Shared(shared)
            }
        };
        Counters::add(&self.core.counters.started);
        self.core.emit(OperatorEvent::FlowStarted {
            identity: self.entry.text.to_string(),
            flow_id: flow_id.to_string(),
            flow: def.name.to_string(),
        });
        // Whoever has gone does not stop the flow.
        let _ = reply.send(Ok(Ticket { flow_id, flow: def.name.clone(), new: true, user, durable }));
        let unit = StartUnit { ops: vec![Op::StartFlow(Box::new(new))], reply: Some(told) };
        self.begin(opened, row, flow_id, client_id, record, def, unit);
    }

    /// Runs a new flow, or writes it down and queues it if the identity has no room.
    #[allow(clippy::too_many_arguments, reason = "one call for two callers; a struct would only rename its fields")]
    fn begin(
        &mut self,
        opened: &Arc<Opened>,
        row: FlowRow,
        id: FlowId,
        client_id: Option<String>,
        record: StartRecord,
        def: Arc<FlowDef>,
        unit: StartUnit,
    ) {
        let responder = matches!(record.origin, Origin::Peer(_));
        let port = FlowPort::new(row);
        port.set_name(id, &def.name, client_id.clone());
        let mut slot = FlowSlot {
            state: SlotState::Cold { until: None },
            attempts: 1,
            client_id,
            kills: Vec::new(),
            condemned: false,
        };
        if self.hot >= opened.limits.flows {
            let mut first = Unit::default();
            unit.ops.into_iter().for_each(|op| first.op(op));
            // A responder's confirmation goes with its start: whoever brings the flow back takes it for sent.
            let mut machine = Machine::start(self.entry.text.clone(), row, &record, self.core.journal_limits());
            first.flush(&self.core, row, machine.flush(now()));
            let reply = unit.reply;
            first.submit_for(&self.core, opened, &port, move |result| crate::run::answer_start(reply, result));
            self.flows.insert(row, slot);
            self.enqueue(row);
            return;
        }
        slot.state = SlotState::Hot { port: port.clone(), news: false, responder };
        self.flows.insert(row, slot);
        self.spawn(opened, port, Beginning::New { start: Box::new(record), def, unit });
    }

    fn start_record(
        &self,
        def: &FlowDef,
        arguments: Bytes,
        origin: Origin,
        started: u64,
    ) -> Result<(FlowRow, FlowId, StartRecord), Problem> {
        let row = self.core.store.next_flow_row();
        let flow_id = self.core.new_flow_id(row)?;
        let record = StartRecord {
            flow_id: flow_id.to_bytes(),
            flow: def.descriptor.name.clone(),
            flow_version: def.descriptor.version,
            cordapp: def.component.descriptor.name.clone(),
            cordapp_version: def.component.descriptor.version.clone(),
            component: def.component.hash,
            arguments,
            origin,
            seed: random_bytes()?,
            started,
        };
        Ok((row, flow_id, record))
    }

    fn spawn(&mut self, opened: &Arc<Opened>, port: Arc<FlowPort>, beginning: Beginning) {
        self.hot += 1;
        let row = port.row;
        self.core.ports.insert(row, port.clone());
        let life = Life { core: self.core.clone(), opened: opened.clone(), port };
        let (core, mailbox, entry) = (self.core.clone(), self.mailbox.clone(), self.entry.clone());
        self.core.guests.spawn(async move {
            let port = life.port.clone();
            let leaving = life.live(beginning).await;
            // From here on arrivals go to the actor. What was left at the port is in the database.
            let unread = port.close();
            core.ports.remove(&row);
            if matches!(leaving, Leaving::Ended) {
                crate::bounce::untaken(&core, &entry, row, &unread);
            } else if !unread.is_empty() {
                let _ = mailbox.send(Mail::News(row)).await;
            }
            // Fails only when the actor is gone, and it never goes before its flows.
            let _ = mailbox.send(Mail::Left { row, leaving }).await;
        });
    }

    fn initiated(&mut self, opened: &Arc<Opened>, id: i64, initiation: Initiation) {
        if id <= self.seen_initiation || self.initiations_wait || self.draining {
            // Taken already, or found in the database in its turn.
            return;
        }
        if self.hot >= opened.limits.flows {
            self.initiations_wait = true;
            return;
        }
        self.seen_initiation = id;
        self.respond(opened, id, initiation);
    }

    fn respond(&mut self, opened: &Arc<Opened>, id: i64, initiation: Initiation) {
        let Some(def) = opened.apps.responders.get(&initiation.protocol).cloned() else {
            return self.reject(opened, id, &initiation);
        };
        let started = now();
        let record = match self.start_record(&def, Bytes::new(), Origin::Peer(initiation), started) {
            Ok(record) => record,
            Err(problem) => {
                tracing::error!(identity = %self.entry.text, %problem, "a responder could not be started");
                self.retry_initiations(id);
                return;
            }
        };
        let (row, flow_id, record) = record;
        let new = NewFlow {
            row,
            id: flow_id,
            name: def.name.clone(),
            user: None,
            client_id: None,
            started: (started / 1_000_000) as i64,
            start: record.encode(),
        };
        let ops = vec![Op::TakeInitiation { id }, Op::StartFlow(Box::new(new))];
        self.begin(opened, row, flow_id, None, record, def, StartUnit { ops, reply: None });
    }

    /// Nobody answers this protocol here (spec 2.3): the initiator is told.
    fn reject(&self, opened: &Arc<Opened>, id: i64, initiation: &Initiation) {
        let error_id = new_error_id();
        let text = format!("{} is not registered", initiation.protocol);
        tracing::info!(identity = %self.entry.text, from = initiation.from, %error_id, "rejected a session: {text}");
        let mut unit = Unit::default();
        unit.op(Op::TakeInitiation { id });
        let outgoing = Outgoing::Deliver {
            party: initiation.from.as_str().into(),
            session: SessionId(initiation.from_session),
            seq: 0,
            parcel: Parcel { from: self.entry.text.to_string(), frames: vec![Frame::reject(text, error_id)] },
        };
        unit.last_words(&self.core, maxhost_journal::Flush { outgoing: vec![outgoing], ..Default::default() });
        unit.submit(&self.core, Author::from(&**opened), None, |result| {
            if let Err(error) = result {
                tracing::debug!(%error, "a rejection was not written");
            }
        });
    }

    /// The initiation with this number could not be taken: it is tried again soon.
    fn retry_initiations(&mut self, id: i64) {
        self.seen_initiation = self.seen_initiation.min(id - 1);
        self.rescan_at = Some(Instant::now() + RESCAN);
    }

    fn news(&mut self, row: FlowRow) {
        match self.flows.get_mut(&row).map(|slot| &mut slot.state) {
            Some(SlotState::Hot { news, .. }) => *news = true,
            Some(SlotState::Cold { .. }) => self.enqueue(row),
            Some(SlotState::Retrying { .. } | SlotState::Hospital) | None => {}
        }
    }

    fn left(&mut self, opened: &Arc<Opened>, row: FlowRow, leaving: Leaving) {
        let Some(slot) = self.flows.get_mut(&row) else { return };
        let SlotState::Hot { news, responder, .. } = slot.state else { return };
        self.hot -= 1;
        match leaving {
            Leaving::Ended => self.forget(row),
            Leaving::NotStarted => {
                self.forget(row);
                if responder {
                    // Its initiation is still in the database, unless somebody took it.
                    self.seen_initiation = 0;
                    self.rescan_at = Some(Instant::now() + RESCAN);
                }
            }
            Leaving::Evicted { until } => {
                slot.state = SlotState::Cold { until };
                slot.attempts += 1;
                let due = until.is_some_and(|until| until <= now_millis());
                if news || due {
                    self.enqueue(row);
                } else if let Some(until) = until {
                    self.timers.insert((until, row));
                }
            }
            Leaving::Retry(problem) => {
                slot.attempts += 1;
                let at = now_millis() + backoff(slot.attempts).as_millis() as u64;
                slot.state = SlotState::Retrying { at };
                self.timers.insert((at, row));
                tracing::warn!(identity = %self.entry.text, row = row.0, %problem, "a flow met trouble that is not its own; it is tried again");
            }
            Leaving::Hospital(reason) => self.hospitalised(row, reason),
        }
        // A kill that came while the instance was being given up was not seen by it.
        if self.flows.get(&row).is_some_and(|slot| !slot.condemned && !slot.kills.is_empty()) {
            self.condemn(opened, row);
        }
    }

    fn hospitalised(&mut self, row: FlowRow, reason: String) {
        let Some(slot) = self.flows.get_mut(&row) else { return };
        let SlotState::Hot { port, .. } = &slot.state else { return };
        let (flow_id, flow) = (port.id(), port.flow().to_owned());
        tracing::error!(identity = %self.entry.text, %flow_id, reason, "a flow needs a person");
        Counters::add(&self.core.counters.hospital);
        slot.state = SlotState::Hospital;
        if slot.condemned {
            slot.condemned = false;
            for kill in slot.kills.drain(..) {
                let _ = kill.send(Ok(false));
            }
        }
        let phase = crate::api::FlowPhase::Hospital;
        let event = || crate::api::FlowEvent::Phase { phase, reason: Some(reason.clone()) };
        self.core.watchers.publish(row, event);
        self.core.emit(OperatorEvent::FlowHospitalised {
            identity: self.entry.text.to_string(),
            flow_id: flow_id.to_string(),
            flow,
            reason,
        });
    }

    fn forget(&mut self, row: FlowRow) {
        let Some(slot) = self.flows.remove(&row) else { return };
        if let Some(client_id) = &slot.client_id {
            self.clients.remove(client_id);
        }
        let killed = self.core.ends.get(row).is_some_and(|end| end.summary.phase == crate::api::FlowPhase::Killed);
        for kill in slot.kills {
            let _ = kill.send(Ok(killed));
        }
    }

    fn kill(&mut self, opened: &Arc<Opened>, row: FlowRow, reply: oneshot::Sender<Result<bool, Problem>>) {
        let Some(slot) = self.flows.get_mut(&row) else {
            return drop(reply.send(Ok(false)));
        };
        slot.kills.push(reply);
        if let SlotState::Hot { port, .. } = &slot.state {
            return port.signal(Signal::Kill);
        }
        self.condemn(opened, row);
    }

    /// Brings a flow back only to end it: its peers must be told.
    fn condemn(&mut self, opened: &Arc<Opened>, row: FlowRow) {
        let Some(port) = self.bring_back(row) else { return };
        if let Some(slot) = self.flows.get_mut(&row) {
            slot.condemned = true;
        }
        port.signal(Signal::Kill);
        self.spawn(opened, port, Beginning::Condemned);
    }

    fn bring_back(&mut self, row: FlowRow) -> Option<Arc<FlowPort>> {
        let slot = self.flows.get_mut(&row)?;
        match slot.state {
            SlotState::Hot { .. } => return None,
            SlotState::Cold { until: Some(at) } | SlotState::Retrying { at } => {
                self.timers.remove(&(at, row));
            }
            SlotState::Cold { until: None } | SlotState::Hospital => {}
        }
        let port = FlowPort::new(row);
        slot.state = SlotState::Hot { port: port.clone(), news: false, responder: false };
        Some(port)
    }

    fn stand(&self, row: FlowRow) -> Option<Stand> {
        let slot = self.flows.get(&row)?;
        Some(Stand { attempts: slot.attempts })
    }

    fn enqueue(&mut self, row: FlowRow) {
        if self.queued.insert(row) {
            self.queue.push_back(row);
        }
    }

    /// Lets in what waits, as far as there is room.
    async fn admit(&mut self, opened: &Arc<Opened>) {
        if self.draining {
            self.queue.clear();
            self.queued.clear();
            return;
        }
        while self.hot < opened.limits.flows
            && let Some(row) = self.queue.pop_front()
        {
            self.queued.remove(&row);
            if self.flows.get(&row).is_some_and(|slot| slot.condemned) {
                self.condemn(opened, row);
            } else if let Some(port) = self.bring_back(row) {
                self.spawn(opened, port, Beginning::Stored);
            }
        }
        if self.initiations_wait && self.hot < opened.limits.flows {
            self.take_initiations(opened).await;
        }
    }

    /// Takes initiations from the database, in order, until none is left or there is no room.
    async fn take_initiations(&mut self, opened: &Arc<Opened>) {
        loop {
            let rows = match self.core.store.initiations(self.entry.row, self.seen_initiation, READ_AHEAD).await {
                Ok(rows) => rows,
                Err(error) => {
                    tracing::warn!(identity = %self.entry.text, %error, "waiting sessions cannot be read; tried again");
                    self.rescan_at = Some(Instant::now() + RESCAN);
                    return;
                }
            };
            let complete = rows.len() < READ_AHEAD as usize;
            for (id, body) in rows {
                if self.hot >= opened.limits.flows {
                    return;
                }
                self.seen_initiation = id;
                match Initiation::decode(body) {
                    Ok(initiation) => self.respond(opened, id, initiation),
                    Err(error) => tracing::error!(identity = %self.entry.text, id, %error, "an initiation is damaged"),
                }
            }
            if complete {
                self.initiations_wait = false;
                return;
            }
        }
    }

    /// Letters were lost: looks at the cold flows again.
    async fn look_again(&mut self) {
        let cold = |(row, slot): (&FlowRow, &FlowSlot)| matches!(slot.state, SlotState::Cold { .. }).then_some(*row);
        let rows: Vec<FlowRow> = self.flows.iter().filter_map(cold).collect();
        if let Err(problem) = self.look_at(&rows).await {
            tracing::warn!(identity = %self.entry.text, %problem, "flows cannot be read; tried again");
            self.entry.set_behind();
            self.rescan_at = Some(Instant::now() + RESCAN);
        }
        for slot in self.flows.values_mut() {
            if let SlotState::Hot { news, .. } = &mut slot.state {
                *news = true;
            }
        }
    }

    fn fire_timers(&mut self) {
        let now = now_millis();
        while let Some(&(at, row)) = self.timers.first()
            && at <= now
        {
            self.timers.remove(&(at, row));
            if let Some(slot) = self.flows.get_mut(&row)
                && matches!(slot.state, SlotState::Cold { .. } | SlotState::Retrying { .. })
            {
                slot.state = SlotState::Cold { until: None };
                self.enqueue(row);
            }
        }
        if self.rescan_at.is_some_and(|at| at <= Instant::now()) {
            self.rescan_at = None;
            self.initiations_wait = true;
        }
    }

    /// Every flow gives up its instance at its next wait; nothing new begins.
    fn drain(&mut self) {
        self.draining = true;
        if let EntryState::Active { draining, .. } = &mut *self.entry.state.lock() {
            *draining = true;
        }
        for slot in self.flows.values() {
            if let SlotState::Hot { port, .. } = &slot.state {
                port.signal(Signal::Evict);
            }
        }
    }

    fn cold_state(&self) -> ColdState {
        let held = |(row, slot): (&FlowRow, &FlowSlot)| matches!(slot.state, SlotState::Hospital).then_some(*row);
        ColdState {
            live: self.flows.keys().copied().collect(),
            held: self.flows.iter().filter_map(held).collect(),
            wake_at: self.timers.first().map(|(at, _)| *at),
        }
    }

    /// Goes to sleep if there is nothing to do. True if it did.
    fn try_close(&mut self) -> bool {
        let due = self.draining || (self.is_idle() && self.idle_since.elapsed() >= self.core.options.idle_close);
        if !due {
            return false;
        }
        let mut state = self.entry.state.lock();
        // Letters are put in under this lock only.
        if !self.letters.is_empty() && !self.draining {
            return false;
        }
        let cold = self.cold_state();
        if let (Some(at), false) = (cold.wake_at, self.draining) {
            self.core.timers.set(at, self.entry.row);
        }
        let removed = self.draining && !self.core.stopping.is_cancelled();
        *state = if removed { EntryState::Removed } else { EntryState::Cold(cold) };
        drop(state);
        self.letters.close();
        while let Ok(letter) = self.letters.try_recv() {
            letter.refuse(crate::problems::stopping());
        }
        let identity = self.entry.text.to_string();
        self.core.emit(match removed {
            true => OperatorEvent::IdentityRemoved { identity },
            false => OperatorEvent::IdentityClosed { identity },
        });
        tracing::debug!(identity = %self.entry.text, "identity closed");
        true
    }
}

enum WakeTime {
    Now,
    At(Millis),
    OnNews,
}

/// Whether a flow that is not in memory has something to do, told from the newest of its journal.
fn wake_time(head: &Head) -> WakeTime {
    let Some((seq, body)) = &head.last else { return WakeTime::Now };
    let Ok(segment) = Segment::decode_sealed(body, *seq) else { return WakeTime::Now };
    let Some(wait) = segment.waits_for() else { return WakeTime::Now };
    if head.inbox.iter().any(|(session, seq)| segment.is_news(session.index(), *seq)) {
        return WakeTime::Now;
    }
    match wait.until {
        Some(until) if until <= now_millis() => WakeTime::Now,
        Some(until) => WakeTime::At(until),
        None => WakeTime::OnNews,
    }
}

/// Lets several callers learn how a start went.
fn share(
    core: &Core,
    durable: oneshot::Receiver<Result<(), StartFailure>>,
) -> watch::Receiver<Option<Result<(), SharedFailure>>> {
    let (sender, receiver) = watch::channel(None);
    core.io.spawn(async move {
        let result = match durable.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(StartFailure::ClientIdTaken(row))) => Err(SharedFailure::ClientIdTaken(row)),
            Ok(Err(StartFailure::Problem(problem))) => Err(SharedFailure::Problem(problem)),
            Err(_) => Err(SharedFailure::Problem(crate::problems::stopping())),
        };
        let _ = sender.send(Some(result));
    });
    receiver
}
