//! The identity actor: the single writer of an open identity. It starts flows, brings them back, lets them go, and
//! holds nothing that the database does not have.
//!
//! What it has to do is told by commands and by marks ([`crate::registry::marks`]); before it sleeps it has looked at both.

mod closing;
mod ledger_waits;
mod opening;
mod services;
mod settling;
mod starting;
mod table;
mod waiting;

use std::collections::{HashMap, HashSet};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::FutureExt;
use maxhost_model::{Code, FlowId, FlowRow, Problem};
use maxhost_store::{FlowOp, FlowState, Forgive, Queued};
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};

use self::opening::NotOpened;
pub(crate) use self::services::IdentityServices;
use self::table::{FlowTable, KillReply, SlotState};
use self::waiting::WaitingInitiations;
use crate::activation::{Activation, ActivationStart};
use crate::base::clock::Moment;
use crate::base::counters::Counters;
use crate::base::rules::{Rule, holds};
use crate::base::trouble::backoff;
use crate::commit::unit::Unit;
use crate::flow::running_flow::{RunningFlow, Signal};
use crate::flow::status::RoomWait;
use crate::guests::flow_code::SETTLE;
use crate::options::OperatorEvent;
use crate::registry::entry::{ColdState, EntryState, IdentityEntry};
use crate::registry::marks::Mark;
use crate::registry::message::{ActivationOutcome, IdentityCommand, NoRoom, SharedFailure, Stand};
use crate::registry::opened::Opened;

/// How soon the database is looked at again after something in it could not be taken.
const RESCAN: Duration = Duration::from_millis(500);
/// An identity whose host has had it for so long is not what kills hosts.
const HEALTH: Duration = Duration::from_secs(60);
/// An actor with nothing to do looks around all the same after so long.
const LOOK: Duration = Duration::from_secs(60);
/// A flow whose runs met so many defects of the host in a row is not tried again before a person has looked at it.
const MAX_DEFECTS: u32 = 3;
/// A flow whose messages find no room is tried again after 100 ms, doubling so often: up to 3.2 s.
const ROOM_DOUBLINGS: u32 = 5;

struct RunningClient {
    flow_id: FlowId,
    flow: Arc<str>,
    user: String,
    durable: watch::Receiver<Option<Result<(), SharedFailure>>>,
}

/// What the committer has answered to a unit of the identity's own.
enum Answer {
    /// The rejection of an initiation.
    Rejection { id: i64, written: bool },
    /// The start of a flow that found no room.
    Start { row: FlowRow, written: bool },
}

/// The actor of one open identity: its flows, its clients, and the commands that wait for it.
pub(crate) struct Actor {
    services: Arc<IdentityServices>,
    entry: Arc<IdentityEntry>,
    mailbox: mpsc::Sender<IdentityCommand>,
    commands: mpsc::Receiver<IdentityCommand>,
    flows: FlowTable,
    clients: HashMap<(String, String), RunningClient>,
    /// Initiations that are being answered, and may still be in the database.
    in_hand: HashSet<i64>,
    answers: Arc<Mutex<Vec<Answer>>>,
    /// Flows whose start is on its way to the database: nothing of them can be read yet.
    unwritten: HashSet<FlowRow>,
    /// How often initiations in a row could not be answered for want of something that passes.
    troubles: u32,
    /// There may be initiations in the database that are not known here.
    initiations_wait: bool,
    /// Initiations in the database that wait for room.
    waiting: WaitingInitiations,
    /// There may be news for flows in the database that no command tells of.
    news_wait: bool,
    rescan_at: Option<Moment>,
    /// Something has to do and finds no room.
    crowded: bool,
    /// The next room is for an initiation.
    initiations_first: bool,
    draining: bool,
    /// It has been opened: what is in memory is of the claim that it was opened under.
    is_open: bool,
    /// There may be transactions in flight that no flow settles.
    unsettled: bool,
    idle_since: Moment,
    /// When it has been open for long enough to be well; `None` if that is told, or nobody else could run it.
    well_at: Option<Moment>,
}

impl Actor {
    pub fn new(
        services: Arc<IdentityServices>,
        entry: Arc<IdentityEntry>,
        mailbox: mpsc::Sender<IdentityCommand>,
        commands: mpsc::Receiver<IdentityCommand>,
        cold: ColdState,
    ) -> Actor {
        let idle_since = services.clock.monotonic();
        Actor {
            services,
            entry,
            mailbox,
            commands,
            flows: FlowTable::new(&cold.live, &cold.held),
            clients: HashMap::new(),
            in_hand: HashSet::new(),
            answers: Arc::default(),
            unwritten: HashSet::new(),
            troubles: 0,
            initiations_wait: true,
            waiting: WaitingInitiations::default(),
            news_wait: false,
            rescan_at: None,
            crowded: false,
            initiations_first: false,
            draining: false,
            is_open: false,
            unsettled: true,
            idle_since,
            well_at: None,
        }
    }

    /// Opens the identity and serves it until it sleeps again.
    pub async fn run(mut self) {
        // Of an actor before this one. Nothing of the identity is in memory now.
        self.services.committer.ledger_waits.forget_all(self.entry.row);
        let opened = match self.open().await {
            Ok(opened) => Arc::new(opened),
            Err(NotOpened::Elsewhere(problem)) => return self.leave_to_owner(&problem),
            Err(NotOpened::Problem(problem)) => return self.quarantine(problem).await,
        };
        self.is_open = true;
        self.entry.put_off_no_more();
        self.well_at = self.services.membership.as_ref().map(|_| self.services.clock.monotonic() + HEALTH);
        if let EntryState::Active { open, .. } = &mut *self.entry.state.lock() {
            *open = true;
        }
        self.services.events.emit(OperatorEvent::IdentityOpened { identity: self.entry.text.to_string() });
        tracing::debug!(identity = %self.entry.text, "identity opened");
        self.serve(opened).await;
    }

    async fn serve(mut self, mut opened: Arc<Opened>) {
        loop {
            if self.services.stopping.is_cancelled() && !self.draining {
                self.drain();
            }
            if self.entry.marks.has(Mark::Lost) {
                return self.give_up().await;
            }
            self.take_marks(&mut opened).await;
            self.fire_timers().await;
            self.admit(&opened).await;
            self.settle_what_is_left(&opened).await;
            self.make_room(opened.limits.flows);
            if self.flows.hot() == 0 {
                let closed = match &self.services.membership {
                    Some(_) => self.release(&opened).await,
                    None => self.try_close(),
                };
                if closed {
                    return;
                }
            }
            self.entry.live_flows.store(self.flows.len() as u64, Ordering::Relaxed);
            let look = self.next_look();
            // Commands first: a timer that is due is seen in the next round all the same.
            let command = tokio::select! {
                biased;
                command = self.commands.recv() => command,
                () = self.entry.marks.wait() => None,
                () = self.services.stopping.cancelled(), if !self.draining => None,
                () = self.services.clock.sleep_until(look) => None,
            };
            match command {
                None => {}
                Some(IdentityCommand::Refresh) => self.refresh(&mut opened).await,
                Some(command) => self.handle(&opened, command),
            }
        }
    }

    async fn take_marks(&mut self, opened: &mut Arc<Opened>) {
        if !self.entry.marks.any() {
            return;
        }
        let marks = self.entry.marks.take();
        if marks.has(Mark::Answered) {
            self.take_answers(opened);
        }
        if marks.has(Mark::Behind) {
            self.initiations_wait = true;
            self.news_wait = true;
            self.look_again().await;
        }
        if marks.has(Mark::Refresh) {
            self.refresh(opened).await;
        }
        if marks.has(Mark::Drain) {
            self.drain();
        }
    }

    async fn refresh(&mut self, opened: &mut Arc<Opened>) {
        match self.reopen().await {
            Ok(new) => *opened = Arc::new(new),
            Err(problem) => {
                tracing::warn!(identity = %self.entry.text, %problem, "the new manifest cannot be used; the old one stays");
            }
        }
    }

    async fn reopen(&mut self) -> Result<Opened, Problem> {
        let mut opened = match self.open().await {
            Ok(opened) => opened,
            Err(NotOpened::Elsewhere(problem) | NotOpened::Problem(problem)) => return Err(problem),
        };
        opened.claim = *self.entry.claim.lock();
        Ok(opened)
    }

    fn next_look(&self) -> Moment {
        let idle = match self.is_idle() {
            true => self.idle_since + self.services.idle_close,
            false => self.services.clock.monotonic() + LOOK,
        };
        let crowded = self.crowded.then(|| self.services.clock.monotonic() + RESCAN);
        [Some(idle), self.flows.next_alarm(), self.rescan_at, crowded, self.well_at]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(idle)
    }

    fn is_idle(&self) -> bool {
        self.flows.hot() == 0
            && !self.flows.is_anything_ready()
            && self.rescan_at.is_none()
            && !self.flows.is_any_kill_pending()
            && self.in_hand.is_empty()
            && self.waiting.is_empty()
            && self.unwritten.is_empty()
            && !self.entry.has_errands()
    }

    fn handle(&mut self, opened: &Arc<Opened>, command: IdentityCommand) {
        self.idle_since = self.services.clock.monotonic();
        match command {
            IdentityCommand::Wake | IdentityCommand::Refresh => {}
            IdentityCommand::Start(start) => self.start(opened, *start),
            IdentityCommand::StartFor(start) => self.start_for(opened, *start),
            IdentityCommand::Initiation { id, initiation, offer } => self.initiated(opened, id, *initiation, offer),
            IdentityCommand::News(row) => self.flows.news(row),
            IdentityCommand::Left { row, outcome } => self.left(opened, row, outcome),
            IdentityCommand::Kill { row, reply } => self.kill(opened, row, reply),
            IdentityCommand::Stand { row, reply } => drop(reply.send(self.stand(row))),
            IdentityCommand::Drain => self.drain(),
        }
    }

    fn spawn(&mut self, opened: &Arc<Opened>, running: Arc<RunningFlow>, start: ActivationStart) {
        let row = running.row;
        self.services.committer.router.flows.insert(running.clone());
        if !matches!(start, ActivationStart::New { .. }) {
            // Replay may take long, and when a host starts there is much of it.
            running.place.run_apart();
        }
        let activation =
            Activation { services: self.services.activation.clone(), opened: opened.clone(), flow: running.clone() };
        let (services, mailbox, entry) = (self.services.clone(), self.mailbox.clone(), self.entry.clone());
        let new = matches!(start, ActivationStart::New { .. });
        self.services.activation.placement.spawn(running.place.clone(), async move {
            let outcome = match AssertUnwindSafe(activation.live(start)).catch_unwind().await {
                Ok(outcome) => outcome,
                Err(_) => {
                    // What it handed in is still written, or refused, as ever.
                    running.settle().await;
                    let problem = defect(&entry, &running);
                    match new && !running.is_durable() {
                        true => ActivationOutcome::NotStarted(Some(problem)),
                        false => ActivationOutcome::Defect(problem),
                    }
                }
            };
            // From here on arrivals go to the actor. What was left with it is in the database.
            let rest = running.close();
            services.committer.router.flows.remove(row);
            if matches!(outcome, ActivationOutcome::Ended | ActivationOutcome::NotStarted(_)) {
                services.deadlines.forget(row);
            }
            if !matches!(outcome, ActivationOutcome::Ended) && rest.is_news() && holds(Rule::UnreadIsNews) {
                let _ = mailbox.send(IdentityCommand::News(row)).await;
            }
            // Fails only when the actor is gone, and it never goes before its flows unless it met a defect itself.
            let _ = mailbox.send(IdentityCommand::Left { row, outcome }).await;
        });
    }

    fn left(&mut self, opened: &Arc<Opened>, row: FlowRow, outcome: ActivationOutcome) {
        let Some(slot) = self.flows.get_mut(row) else { return };
        let SlotState::Hot { running, news } = slot.state() else { return };
        let (running, news) = (running.clone(), *news);
        slot.attempts = running.attempts();
        if !matches!(outcome, ActivationOutcome::NoRoom(_)) {
            slot.no_room = None;
        }
        let initiation = slot.initiation.take();
        if let Some(id) = initiation {
            // Whatever it wrote is answered: the initiation is taken, or free to be taken.
            self.in_hand.remove(&id);
            if running.is_durable() {
                self.troubles = 0;
            }
        }
        match outcome {
            ActivationOutcome::Ended => {
                // Where settling fails itself, it is tried again when the identity is opened next.
                self.unsettled |= running.may_leave_in_flight() && running.flow() != SETTLE;
                self.forget(row);
            }
            ActivationOutcome::NotStarted(problem) => {
                if running.flow() == SETTLE {
                    // What it was to settle is still in flight, and nobody else looks for it while the identity is awake.
                    self.look_for_unsettled();
                }
                self.forget(row);
                if initiation.is_some() {
                    self.respond_later(problem.as_ref());
                }
            }
            ActivationOutcome::Evicted { until } => {
                self.flows.set(row, SlotState::Cold { until });
                if let Some(slot) = self.flows.get_mut(row) {
                    (slot.troubles, slot.defects) = (0, 0);
                }
                if news {
                    self.flows.enqueue(row);
                }
            }
            ActivationOutcome::Again => {
                self.flows.set(row, SlotState::Cold { until: None });
                self.flows.enqueue(row);
            }
            ActivationOutcome::Retry(problem) => self.retry(row, &problem),
            ActivationOutcome::NoRoom(no_room) => self.wait_for_room(row, &no_room),
            ActivationOutcome::Hospital(reason) => self.hospitalised(row, &running, reason),
            ActivationOutcome::Defect(problem) => {
                // What it wrote is in the database, so it can be tried again; but one that meets a defect again and
                // again is better left alone.
                let defects = self.flows.get_mut(row).map_or(0, |slot| {
                    slot.defects = slot.defects.saturating_add(1);
                    slot.defects
                });
                match defects >= MAX_DEFECTS {
                    true => self.hospitalise(opened, row, &running, crate::base::trouble::reason(&problem)),
                    false => self.retry(row, &problem),
                }
            }
        }
        // A kill that came while the instance was being given up was not seen by it.
        if self.flows.get(row).is_some_and(|slot| !slot.kill_pending && !slot.kills.is_empty()) {
            self.condemn(opened, row);
        }
    }

    fn retry(&mut self, row: FlowRow, problem: &Problem) {
        let Some(slot) = self.flows.get_mut(row) else { return };
        let at = self.services.clock.monotonic() + backoff(slot.troubles);
        slot.troubles = slot.troubles.saturating_add(1);
        self.flows.set(row, SlotState::Retrying { at });
        tracing::warn!(identity = %self.entry.text, row = row.0, %problem, "a flow met trouble that is not its own; it is tried again");
    }

    /// The flow goes back to its last commit, and from there again until there is room for what it sends.
    fn wait_for_room(&mut self, row: FlowRow, no_room: &NoRoom) {
        let (what, party) = match no_room.queued {
            Queued::Inbound => ("recipient", self.services.committer.directory.name_of(no_room.identity)),
            Queued::Outbound => ("broker", None),
        };
        let Some(slot) = self.flows.get_mut(row) else { return };
        if slot.no_room.as_ref().is_none_or(|before| (before.what, &before.party) != (what, &party)) {
            let (identity, problem) = (&self.entry.text, &no_room.problem);
            tracing::warn!(%identity, row = row.0, %problem, "there is no room for what a flow sends; it waits");
            slot.no_room = Some(RoomWait { what, party, since: self.services.now_millis() });
        }
        let at = self.services.clock.monotonic() + backoff(slot.troubles.min(ROOM_DOUBLINGS));
        slot.troubles = slot.troubles.saturating_add(1);
        self.flows.set(row, SlotState::Retrying { at });
    }

    /// Parks a flow whose run could not do so itself.
    fn hospitalise(&mut self, opened: &Arc<Opened>, row: FlowRow, running: &RunningFlow, reason: String) {
        let (state, told) = (FlowState::Hospital, Some(reason.clone()));
        let mut unit = Unit::default();
        unit.op(FlowOp::SetState { flow: row, state, reason: told, attempts: running.attempts(), expect: None });
        let entry = self.entry.clone();
        unit.submit(&self.services.committer, opened.author(), move |result| {
            if let Err(error) = result {
                tracing::warn!(identity = %entry.text, %error, "a flow's stay in hospital was not written");
            }
        });
        self.hospitalised(row, running, reason);
    }

    fn hospitalised(&mut self, row: FlowRow, running: &RunningFlow, reason: String) {
        let (flow_id, flow) = (running.id(), running.flow().to_owned());
        tracing::error!(identity = %self.entry.text, %flow_id, flow, reason, "a flow needs a person");
        Counters::add(&self.services.committer.counters.hospital);
        self.flows.set(row, SlotState::Hospital);
        if let Some(slot) = self.flows.get_mut(row)
            && slot.kill_pending
        {
            slot.kill_pending = false;
            for kill in slot.kills.drain(..) {
                let _ = kill.send(Ok(false));
            }
        }
        let phase = crate::api::FlowPhase::Hospital;
        let event = || crate::api::FlowEvent::Phase { phase, reason: Some(reason.clone()) };
        self.services.committer.watchers.publish(row, event);
        self.services.events.emit(OperatorEvent::FlowHospitalised {
            identity: self.entry.text.to_string(),
            flow_id: flow_id.to_string(),
            flow,
            reason,
        });
    }

    fn forget(&mut self, row: FlowRow) {
        self.services.committer.ledger_waits.forget(self.entry.row, row);
        let Some(slot) = self.flows.remove(row) else { return };
        if let Some(client) = &slot.client {
            self.clients.remove(client);
        }
        let killed = self
            .services
            .activation
            .outcomes
            .get(row)
            .is_some_and(|end| end.summary.phase == crate::api::FlowPhase::Killed);
        for kill in slot.kills {
            let _ = kill.send(Ok(killed));
        }
    }

    fn kill(&mut self, opened: &Arc<Opened>, row: FlowRow, reply: KillReply) {
        let Some(slot) = self.flows.get_mut(row) else {
            return drop(reply.send(Ok(false)));
        };
        slot.kills.push(reply);
        if let Some(running) = slot.running() {
            return running.signal(Signal::Kill);
        }
        self.condemn(opened, row);
    }

    /// Brings a flow back only to end it: its peers must be told.
    fn condemn(&mut self, opened: &Arc<Opened>, row: FlowRow) {
        let Some(running) = self.bring_back(row) else { return };
        if let Some(slot) = self.flows.get_mut(row) {
            slot.kill_pending = true;
        }
        running.signal(Signal::Kill);
        self.spawn(opened, running, ActivationStart::Condemned);
    }

    fn bring_back(&mut self, row: FlowRow) -> Option<Arc<RunningFlow>> {
        let slot = self.flows.get(row).filter(|slot| slot.running().is_none() && !self.unwritten.contains(&row))?;
        let running = RunningFlow::new(row, self.entry.row);
        running.note_attempts(slot.attempts);
        self.flows.set(row, SlotState::Hot { running: running.clone(), news: false });
        Some(running)
    }

    fn stand(&self, row: FlowRow) -> Option<Stand> {
        let slot = self.flows.get(row)?;
        let attempts = slot.running().map_or(slot.attempts, |running| running.attempts());
        Some(Stand { attempts, no_room: slot.no_room.clone() })
    }

    /// Lets in what waits, as far as there is room.
    async fn admit(&mut self, opened: &Arc<Opened>) {
        if self.draining {
            return self.flows.clear_ready();
        }
        // In turn, so that neither keeps the other out where there is little room.
        if self.crowded {
            self.initiations_first = !self.initiations_first;
        }
        if self.initiations_first && self.do_initiations_wait() && self.flows.hot() < opened.limits.flows {
            self.take_initiations(opened).await;
        }
        while self.flows.hot() < opened.limits.flows
            && let Some(row) = self.flows.next_ready()
        {
            if self.flows.get(row).is_some_and(|slot| slot.kill_pending) {
                self.condemn(opened, row);
            } else if let Some(running) = self.bring_back(row) {
                self.spawn(opened, running, ActivationStart::Stored);
            }
        }
        if self.do_initiations_wait() && self.flows.hot() < opened.limits.flows {
            self.take_initiations(opened).await;
        }
    }

    fn do_initiations_wait(&self) -> bool {
        self.initiations_wait || !self.waiting.is_empty()
    }

    /// Whether something has to do and finds no room, because the identity has as many flows in memory as it may.
    fn lacks_room(&self, limit: u32) -> bool {
        !self.draining && self.flows.hot() >= limit && (self.flows.is_anything_ready() || self.do_initiations_wait())
    }

    /// A flow that waits gives up its instance for one that has something to do: one at a time, and as long as somebody
    /// lacks room. The signal stays until the flow waits, so it need not wait now.
    fn make_room(&mut self, limit: u32) {
        self.crowded = self.lacks_room(limit);
        if !self.crowded || self.flows.hot_flows().any(|running| running.is_signalled(Signal::MakeRoom)) {
            return;
        }
        // One that waits for an instance has none to give up; it is looked at again when it has.
        let leaving = self.flows.hot_flows().find(|running| running.is_waiting() && !running.lacks_something());
        let leaving = leaving.or_else(|| self.flows.hot_flows().find(|running| !running.lacks_something()));
        if let Some(running) = leaving {
            running.signal(Signal::MakeRoom);
        }
    }

    async fn fire_timers(&mut self) {
        let now = self.services.clock.monotonic();
        self.flows.fire(now);
        if self.well_at.is_some_and(|at| at <= now) {
            self.well_at = None;
            self.forgive(Forgive::Healthy(*self.entry.claim.lock()));
        }
        if self.rescan_at.is_some_and(|at| at <= now) {
            self.rescan_at = None;
            self.initiations_wait = true;
            if self.news_wait {
                self.look_again().await;
            }
        }
    }

    /// Something in the database could not be read or taken: it is looked at again soon.
    fn rescan_after(&mut self, time: Duration) {
        let at = self.services.clock.monotonic() + time;
        self.rescan_at = Some(self.rescan_at.map_or(at, |sooner| sooner.min(at)));
    }
}

fn defect(entry: &IdentityEntry, running: &RunningFlow) -> Problem {
    tracing::error!(identity = %entry.text, flow_id = %running.id(), "a flow's run met a defect of the host");
    Problem::new(Code::Internal, "the flow's run met a defect of the host: its log says more")
}

/// Runs an identity's actor. If it meets a defect the identity is closed, and opened again from what is in the database.
fn spawn(services: &Arc<IdentityServices>, entry: &Arc<IdentityEntry>, actor: Actor) {
    let (services, entry) = (services.clone(), entry.clone());
    services.io.clone().spawn(async move {
        if AssertUnwindSafe(actor.run()).catch_unwind().await.is_err() {
            closing::after_defect(services, entry).await;
        }
    });
}
