//! The identity actor: the single writer of an open identity. It starts flows, brings them back, lets them go, and
//! holds nothing that the database does not have.

mod opening;
mod starting;

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use maxhost_journal::Millis;
use maxhost_model::{FlowId, FlowRow, Problem};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::activation::{Activation, ActivationOutcome, ActivationStart};
use crate::calls::backoff;
use crate::core::{Core, Counters, Opened, now_millis};
use crate::message::{IdentityCommand, SharedFailure, Stand};
use crate::options::OperatorEvent;
use crate::registry::{ColdState, EntryState, IdentityEntry};
use crate::running_flow::{RunningFlow, Signal};

/// How soon the database is looked at again after something in it could not be taken.
const RESCAN: Duration = Duration::from_millis(500);

enum SlotState {
    Hot { port: Arc<RunningFlow>, news: bool, responder: bool },
    Cold { until: Option<Millis> },
    Retrying { at: Millis },
    Hospital,
}

struct FlowSlot {
    state: SlotState,
    /// How often its guest was begun, as far as this actor knows; the journal may know of more.
    attempts: u32,
    /// Since it last got on: how often it met trouble that is not its own.
    troubles: u32,
    /// The user that started it under a client id, and that client id.
    client: Option<(String, String)>,
    /// The initiation that it answers, until its first activation is over.
    initiation: Option<i64>,
    kills: Vec<oneshot::Sender<Result<bool, Problem>>>,
    /// It comes back only to be ended, however often that takes.
    kill_pending: bool,
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
    mailbox: mpsc::Sender<IdentityCommand>,
    commands: mpsc::Receiver<IdentityCommand>,
    flows: HashMap<FlowRow, FlowSlot>,
    /// Cold and retrying flows by the time they want to be looked at.
    timers: BTreeSet<(Millis, FlowRow)>,
    /// Flows that have something to do and wait for room.
    queue: VecDeque<FlowRow>,
    queued: HashSet<FlowRow>,
    hot: u32,
    clients: HashMap<(String, String), RunningClient>,
    /// Initiations that were begun with, and may still be in the database.
    in_hand: HashSet<i64>,
    /// There may be initiations in the database that no command tells of.
    initiations_wait: bool,
    rescan_at: Option<Instant>,
    draining: bool,
    idle_since: Instant,
}

impl Actor {
    pub fn new(
        core: Arc<Core>,
        entry: Arc<IdentityEntry>,
        mailbox: mpsc::Sender<IdentityCommand>,
        commands: mpsc::Receiver<IdentityCommand>,
        cold: ColdState,
    ) -> Actor {
        let held: HashSet<FlowRow> = cold.held.iter().copied().collect();
        let slot = |row: &FlowRow| {
            let state = match held.contains(row) {
                true => SlotState::Hospital,
                false => SlotState::Cold { until: None },
            };
            let (kills, kill_pending) = (Vec::new(), false);
            (*row, FlowSlot { state, attempts: 0, troubles: 0, client: None, initiation: None, kills, kill_pending })
        };
        let flows = cold.live.iter().map(slot).collect();
        Actor {
            core,
            entry,
            mailbox,
            commands,
            flows,
            timers: BTreeSet::new(),
            queue: VecDeque::new(),
            queued: HashSet::new(),
            hot: 0,
            clients: HashMap::new(),
            in_hand: HashSet::new(),
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
            let command = tokio::select! {
                command = self.commands.recv() => command,
                () = tokio::time::sleep_until(look) => None,
                () = self.core.stopping.cancelled(), if !self.draining => None,
            };
            match command {
                None => self.fire_timers(),
                Some(IdentityCommand::Refresh) => match self.reopen().await {
                    Ok(new) => opened = Arc::new(new),
                    Err(problem) => {
                        tracing::warn!(identity = %self.entry.text, %problem, "the new manifest cannot be used; the old one stays")
                    }
                },
                Some(command) => self.handle(&opened, command),
            }
        }
    }

    async fn reopen(&mut self) -> Result<Opened, Problem> {
        let mut opened = self.open().await?;
        opened.claim = *self.entry.claim.lock();
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

    fn handle(&mut self, opened: &Arc<Opened>, command: IdentityCommand) {
        self.idle_since = Instant::now();
        match command {
            IdentityCommand::Wake | IdentityCommand::Refresh => {}
            IdentityCommand::Start(start) => self.start(opened, *start),
            IdentityCommand::Initiation { id, initiation, offer } => self.initiated(opened, id, *initiation, offer),
            IdentityCommand::News(row) => self.news(row),
            IdentityCommand::Left { row, outcome } => self.left(opened, row, outcome),
            IdentityCommand::Kill { row, reply } => self.kill(opened, row, reply),
            IdentityCommand::Stand { row, reply } => drop(reply.send(self.stand(row))),
            IdentityCommand::Drain => self.drain(),
        }
    }

    fn spawn(&mut self, opened: &Arc<Opened>, port: Arc<RunningFlow>, start: ActivationStart) {
        self.hot += 1;
        let row = port.row;
        self.core.ports.insert(row, port.clone());
        if !matches!(start, ActivationStart::New { .. }) {
            // Replay may take long, and when a host starts there is much of it.
            port.run_apart();
        }
        let activation = Activation { core: self.core.clone(), opened: opened.clone(), port: port.clone() };
        let (core, mailbox, entry) = (self.core.clone(), self.mailbox.clone(), self.entry.clone());
        crate::placement::spawn(&self.core, port.clone(), async move {
            let outcome = activation.live(start).await;
            // From here on arrivals go to the actor. What was left at the port is in the database.
            let (unread, missed) = port.close();
            core.ports.remove(&row);
            if matches!(outcome, ActivationOutcome::Ended) {
                crate::late_confirm::untaken(&core, &entry, row, &unread);
            } else if missed || !unread.is_empty() {
                let _ = mailbox.send(IdentityCommand::News(row)).await;
            }
            // Fails only when the actor is gone, and it never goes before its flows.
            let _ = mailbox.send(IdentityCommand::Left { row, outcome }).await;
        });
    }

    fn news(&mut self, row: FlowRow) {
        match self.flows.get_mut(&row).map(|slot| &mut slot.state) {
            Some(SlotState::Hot { news, .. }) => *news = true,
            Some(SlotState::Cold { .. }) => self.enqueue(row),
            Some(SlotState::Retrying { .. } | SlotState::Hospital) | None => {}
        }
    }

    fn left(&mut self, opened: &Arc<Opened>, row: FlowRow, outcome: ActivationOutcome) {
        let Some(slot) = self.flows.get_mut(&row) else { return };
        let SlotState::Hot { ref port, news, responder } = slot.state else { return };
        self.hot -= 1;
        slot.attempts = port.attempts();
        if let Some(id) = slot.initiation.take() {
            // Whatever it wrote is answered: the initiation is taken, or free to be taken.
            self.in_hand.remove(&id);
        }
        match outcome {
            ActivationOutcome::Ended => self.forget(row),
            ActivationOutcome::NotStarted => {
                self.forget(row);
                if responder {
                    // Its initiation is still in the database, unless somebody took it or it was never written.
                    self.rescan_at = Some(Instant::now() + RESCAN);
                }
            }
            ActivationOutcome::Evicted { until } => {
                slot.state = SlotState::Cold { until };
                slot.troubles = 0;
                let due = until.is_some_and(|until| until <= now_millis());
                if news || due {
                    self.enqueue(row);
                } else if let Some(until) = until {
                    self.timers.insert((until, row));
                }
            }
            ActivationOutcome::Retry(problem) => {
                let at = now_millis() + backoff(slot.troubles).as_millis() as u64;
                slot.troubles = slot.troubles.saturating_add(1);
                slot.state = SlotState::Retrying { at };
                self.timers.insert((at, row));
                tracing::warn!(identity = %self.entry.text, row = row.0, %problem, "a flow met trouble that is not its own; it is tried again");
            }
            ActivationOutcome::Hospital(reason) => self.hospitalised(row, reason),
        }
        // A kill that came while the instance was being given up was not seen by it.
        if self.flows.get(&row).is_some_and(|slot| !slot.kill_pending && !slot.kills.is_empty()) {
            self.condemn(opened, row);
        }
    }

    fn hospitalised(&mut self, row: FlowRow, reason: String) {
        let Some(slot) = self.flows.get_mut(&row) else { return };
        let SlotState::Hot { port, .. } = &slot.state else { return };
        let (flow_id, flow) = (port.id(), port.flow().to_owned());
        tracing::error!(identity = %self.entry.text, %flow_id, flow, reason, "a flow needs a person");
        Counters::add(&self.core.counters.hospital);
        slot.state = SlotState::Hospital;
        if slot.kill_pending {
            slot.kill_pending = false;
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
        if let Some(client) = &slot.client {
            self.clients.remove(client);
        }
        let killed = self.core.outcomes.get(row).is_some_and(|end| end.summary.phase == crate::api::FlowPhase::Killed);
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
            slot.kill_pending = true;
        }
        port.signal(Signal::Kill);
        self.spawn(opened, port, ActivationStart::Condemned);
    }

    fn bring_back(&mut self, row: FlowRow) -> Option<Arc<RunningFlow>> {
        let slot = self.flows.get_mut(&row)?;
        match slot.state {
            SlotState::Hot { .. } => return None,
            SlotState::Cold { until: Some(at) } | SlotState::Retrying { at } => {
                self.timers.remove(&(at, row));
            }
            SlotState::Cold { until: None } | SlotState::Hospital => {}
        }
        let port = RunningFlow::new(row, self.entry.row);
        port.note_attempts(slot.attempts);
        slot.state = SlotState::Hot { port: port.clone(), news: false, responder: false };
        Some(port)
    }

    fn stand(&self, row: FlowRow) -> Option<Stand> {
        let slot = self.flows.get(&row)?;
        let attempts = match &slot.state {
            SlotState::Hot { port, .. } => port.attempts(),
            SlotState::Cold { .. } | SlotState::Retrying { .. } | SlotState::Hospital => slot.attempts,
        };
        Some(Stand { attempts })
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
            if self.flows.get(&row).is_some_and(|slot| slot.kill_pending) {
                self.condemn(opened, row);
            } else if let Some(port) = self.bring_back(row) {
                self.spawn(opened, port, ActivationStart::Stored);
            }
        }
        if self.initiations_wait && self.hot < opened.limits.flows {
            self.take_initiations(opened).await;
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
}
