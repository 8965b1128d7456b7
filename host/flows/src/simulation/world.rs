//! One world: it is built from a plan, runs until nothing happens any more, and is looked over.

mod letting_go;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use maxhost_journal::Nanos;
use maxhost_model::{FlowError, FlowRow, from_cbor};
use maxhost_store::{FlowRecord, FlowState};
use tokio::sync::oneshot;

use super::audit::{Origin, Source};
use super::database::{Database, Disk};
use super::executor::Executor;
use super::faults::Faults;
use super::guest::Guests;
use super::host::{self, Surroundings};
use super::ledger_check;
use super::plan::Plan;
use super::relay::Broker;
use super::rng::Rng;
use super::{Broken, Tally};
use crate::api::FlowResult;
use crate::base::clock::Clock;
use crate::base::clock::tests::VirtualClock;
use crate::commit::outcomes::EndRecord;
use crate::host::parts::Parts;
use crate::registry::message::IdentityCommand;

/// When every world begins: some time in 2026.
const START: Nanos = 1_780_000_000_000_000_000;
/// Steps after which a world is said to go round in circles.
const MOST_STEPS: usize = 200_000;
/// Nothing that a world waits for lies further ahead, in one life of a host.
const HORIZON: Duration = Duration::from_secs(1_800);
/// Where the wall clock is set, and the host is killed or the time-window of a transaction is waited for, that may lie as much
/// further ahead as the clock was set back.
const FAR_HORIZON: Duration = Duration::from_secs(6 * 3_600);
/// Steps of a world in which mishaps may come.
const ROUGH_STEPS: usize = 3_000;
/// How far the wall clock is wrong at most where it is set now and then, and where it is set at any step.
const WRONG_BY_HOURS: Duration = Duration::from_secs(2 * 3_600);
const WRONG_BY_MINUTES: Duration = Duration::from_secs(600);

/// A host from its start until it is killed.
struct Life {
    parts: Arc<Parts>,
    database: Database,
}

/// Somebody waits to hear that a flow was killed.
struct Kill {
    row: FlowRow,
    answer: oneshot::Receiver<Result<bool, maxhost_model::Problem>>,
}

pub(super) struct World {
    plan: Plan,
    rng: Rng,
    around: Surroundings,
    life: Life,
    /// The row of each root, once somebody was told that it was started.
    started: Vec<Arc<OnceLock<FlowRow>>>,
    killed: Vec<bool>,
    kills: Vec<Kill>,
    /// How many flows were drawn to be killed.
    drawn: usize,
    /// How many flows were killed that waited for a notary.
    killed_waiting: usize,
    crashes: usize,
    tally: Tally,
}

impl World {
    pub fn new(plan: Plan, rng: Rng, broken: Option<Broken>) -> World {
        let faults = Faults::new(rng.clone(), plan.mishaps, plan.defects);
        let disk = Disk::default();
        {
            let ledger = &mut disk.tables.lock().ledger;
            ledger.keeps_locks = broken == Some(Broken::LocksOutliveFlows);
            ledger.forgets_consumed = broken == Some(Broken::ForgetfulNotary);
            ledger.forgets_time = broken == Some(Broken::NotarysClockGoesBack);
        }
        let around = Surroundings {
            guests: Arc::new(Guests::new(plan.clone(), faults.clone(), disk.clone())),
            executor: Executor::new(rng.clone()),
            clock: VirtualClock::at(START),
            broker: Broker::new(faults.clone(), broken),
            faults,
            disk,
            broken,
        };
        let started: Vec<Arc<OnceLock<FlowRow>>> = plan.roots.iter().map(|_| Arc::default()).collect();
        let life = begin(&plan, &around, &started);
        let killed = vec![false; plan.roots.len()];
        World {
            plan,
            rng,
            around,
            life,
            started,
            killed,
            kills: Vec::new(),
            drawn: 0,
            killed_waiting: 0,
            crashes: 0,
            tally: Tally::default(),
        }
    }

    pub fn run(mut self) -> Result<Tally, String> {
        let result = self.go_on();
        super::tell(|| format!("{} steps; left: {}", self.tally.steps, self.around.disk.tables.lock().left_over()));
        let result = result.and_then(|()| self.look_over());
        self.end_life();
        result.map(|()| self.tally)
    }

    /// Until nothing happens any more.
    fn go_on(&mut self) -> Result<(), String> {
        let clock = self.around.clock.clone();
        let begun = clock.monotonic();
        let horizon = match self.plan.clock_jumps && (self.plan.is_about_money() || !self.plan.crashes.is_empty()) {
            true => FAR_HORIZON,
            false => HORIZON,
        };
        for step in 1..MOST_STEPS {
            self.tally.steps = step as u64;
            if step == ROUGH_STEPS {
                self.around.faults.be_calm();
            }
            self.kill(step);
            self.kill_any(step);
            self.kill_waiting();
            if self.plan.clock_settings.is_some_and(|one_in| self.rng.one_in(one_in)) {
                self.set_clock();
            }
            if self.plan.crashes.get(self.crashes).is_some_and(|at| *at <= step) {
                self.crash();
            }
            if self.step() {
                continue;
            }
            match clock.next() {
                Some(next) if next.since(begun) < horizon => {
                    if self.plan.clock_jumps && self.rng.one_in(8) {
                        self.set_clock();
                    }
                    super::tell(|| format!("time passes, until {next:?}"));
                    clock.advance(next.since(clock.monotonic()).max(Duration::from_nanos(1)));
                }
                _ => return Ok(()),
            }
        }
        Err(format!("it goes round in circles: {}", self.around.disk.tables.lock().left_over()))
    }

    /// The operator's clock is wrong, in either direction.
    fn set_clock(&self) {
        let most = if self.plan.clock_settings.is_some() { WRONG_BY_MINUTES } else { WRONG_BY_HOURS }.as_secs();
        let off = self.rng.below(2 * most as usize) as u64;
        super::tell(|| format!("the clock is set, and is wrong by {} s", off as i64 - most as i64));
        let right = START + self.around.clock.monotonic().since(Default::default()).as_nanos() as Nanos;
        self.around.clock.set_wall(right + off * 1_000_000_000 - most * 1_000_000_000);
    }

    /// One thing happens. False if nothing can.
    fn step(&mut self) -> bool {
        let database = &self.life.database;
        if self.rng.one_in(6) && self.relay() {
            return true;
        }
        if self.rng.one_in(4) && database.has_work() {
            database.step();
            return true;
        }
        if self.around.executor.step() {
            return true;
        }
        if database.has_work() {
            database.step();
            return true;
        }
        self.relay()
    }

    /// The outbox or the broker does one thing. False if neither can.
    fn relay(&self) -> bool {
        let broker = &self.around.broker;
        let row = {
            let tables = self.around.disk.tables.lock();
            let rows = tables.outbox_rows();
            rows.values().nth(self.rng.below(rows.len())).cloned()
        };
        match row {
            Some(row) if broker.is_empty() || self.rng.one_in(2) => {
                super::tell(|| format!("  the broker gets {}", super::audit::content(&row.content)));
                broker.send(&self.life.parts, &row)
            }
            _ => !broker.is_empty() && (broker.bring(&self.life.parts) || self.around.executor.step()),
        }
    }

    /// Kills a root whose time has come, if it is known to have been started.
    fn kill(&mut self, step: usize) {
        for (index, root) in self.plan.roots.iter().enumerate() {
            if self.killed[index] || root.killed_after.is_none_or(|after| after > step) {
                continue;
            }
            let Some(row) = self.started[index].get() else { continue };
            let Some(entry) = self.life.parts.directory.get(super::PARTIES[root.identity]) else { continue };
            self.killed[index] = true;
            super::tell(|| format!("root {index} is to be killed"));
            let (reply, answer) = oneshot::channel();
            self.life.parts.waking.tell(&entry, IdentityCommand::Kill { row: *row, reply });
            self.kills.push(Kill { row: *row, answer });
        }
    }

    /// Kills a flow that is drawn from those that live. One that settles a transaction is left alone: it would be begun again
    /// when its identity wakes, and nothing wakes it in here.
    fn kill_any(&mut self, step: usize) {
        if self.plan.kills.get(self.drawn).is_none_or(|at| *at > step) {
            return;
        }
        let drawn = {
            let (tables, audit) = (self.around.disk.tables.lock(), self.around.disk.audit.lock());
            let settles = |flow: &FlowRow| matches!(audit.started.get(flow), Some(Source::Settling));
            let live: Vec<_> = tables.live_rows().filter(|flow| !settles(&flow.row)).collect();
            live.get(self.rng.below(live.len())).map(|flow| (flow.row, flow.identity))
        };
        let Some((row, identity)) = drawn else { return };
        let Some(entry) = self.life.parts.directory.by_row(identity) else { return };
        self.drawn += 1;
        super::tell(|| format!("flow {} is to be killed", row.0));
        let (reply, answer) = oneshot::channel();
        self.life.parts.waking.tell(&entry, IdentityCommand::Kill { row, reply });
        self.kills.push(Kill { row, answer });
    }

    /// Kills a flow that has a transaction in flight and waits for what the notary decides, once whoever made the transaction is
    /// at asking it: at some moment of that time, so that what was left is looked after while the notary is still at it.
    fn kill_waiting(&mut self) {
        if self.killed_waiting >= self.plan.kills_of_waiting || !self.rng.one_in(8) {
            return;
        }
        let drawn = {
            let (tables, audit) = (self.around.disk.tables.lock(), self.around.disk.audit.lock());
            let settles = |flow: &FlowRow| matches!(audit.started.get(flow), Some(Source::Settling));
            let mut waiting = tables.ledger.waiting_for_notaries();
            waiting.retain(|(_, flow)| tables.live.rows.contains_key(flow) && !settles(flow));
            waiting.get(self.rng.below(waiting.len())).copied()
        };
        let Some((identity, row)) = drawn else { return };
        let Some(entry) = self.life.parts.directory.by_row(identity) else { return };
        self.killed_waiting += 1;
        super::tell(|| format!("flow {}, which waits for a notary, is to be killed", row.0));
        let (reply, answer) = oneshot::channel();
        self.life.parts.waking.tell(&entry, IdentityCommand::Kill { row, reply });
        self.kills.push(Kill { row, answer });
    }

    /// The host is killed, and begins again a while later. What is on the disk and in the broker stays.
    fn crash(&mut self) {
        super::tell(|| "the host is killed".to_owned());
        self.crashes += 1;
        self.end_life();
        self.around.clock.advance(Duration::from_millis(self.rng.below(5_000) as u64));
        self.life = begin(&self.plan, &self.around, &self.started);
    }

    fn end_life(&mut self) {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.life.parts.counters;
        self.tally.evictions += count(&counters.evictions);
        self.tally.replays += count(&counters.replays);
        self.tally.shadow_replays += count(&counters.shadow_replays);
        self.tally.crashes = self.crashes as u64;
        self.tally.through_broker = self.around.broker.taken();
        self.tally.of(self.around.faults.counts());
        let entries = super::PARTIES.iter().filter_map(|name| self.life.parts.directory.get(name));
        self.tally.money.turned_away += entries.map(|entry| entry.notary.turned_away()).sum::<u64>();
        self.life.parts.stopping.cancel();
        self.around.executor.clear();
    }

    // ---- the end ----

    fn look_over(&mut self) -> Result<(), String> {
        let left = self.around.disk.tables.lock().left_over();
        if !left.is_empty() {
            return Err(format!("nothing happens any more, but there is left: {left}"));
        }
        if !self.around.broker.is_empty() {
            return Err("nothing happens any more, but the broker has messages".to_owned());
        }
        if let Some(wrong) = &self.around.disk.audit.lock().wrong {
            return Err(wrong.clone());
        }
        for Kill { row, answer } in &mut self.kills {
            if matches!(answer.try_recv(), Err(oneshot::error::TryRecvError::Empty)) {
                return Err(format!("whoever killed flow {} waits for an answer", row.0));
            }
        }
        let (flows, deadlines) = (self.life.parts.flows.len(), self.life.parts.deadlines.len());
        if flows + deadlines != 0 {
            return Err(format!("{flows} flows and {deadlines} deadlines are still in memory"));
        }
        self.look_at_flows()?;
        if self.plan.is_about_money() {
            return self.look_at_money();
        }
        self.look_at_results()
    }

    /// Whoever has begun has ended, once and as planned.
    fn look_at_flows(&mut self) -> Result<(), String> {
        let audit = self.around.disk.audit.lock();
        let mut begun = vec![0; self.plan.roots.len()];
        for (row, source) in &audit.started {
            let Some(state) = audit.ended.get(row) else { return Err(format!("flow {} has not ended", row.0)) };
            let root = match source {
                Source::Root(index) => {
                    begun[*index] += 1;
                    Origin::Root(*index)
                }
                Source::Peer(session) => audit.root_of(session.flow()),
                Source::Settling => Origin::Host,
            };
            match state {
                FlowState::Completed => self.tally.completed += 1,
                FlowState::Killed => self.tally.killed += 1,
                _ => self.tally.failed += 1,
            }
            let is_root = matches!(source, Source::Root(_));
            let may_end = match root {
                Origin::Root(root) if !self.plan.is_about_money() => self.may_end(root, is_root, *state),
                Origin::Root(root) => self.may_end_money(*row, root, is_root, *state),
                Origin::Host => *state == FlowState::Completed || self.plan.has_kills(),
                Origin::Nobody => return Err(format!("flow {} answers nobody", row.0)),
            };
            if !may_end {
                let why = self.error_of(*row);
                return Err(format!("flow {} ({source:?} of {root:?}) ended as {state:?}: {why:?}", row.0));
            }
        }
        for (index, begun) in begun.into_iter().enumerate() {
            // Without a client id a start that was not answered is tried again as another flow.
            let most = if self.plan.roots[index].named { 1 } else { 1 + self.crashes };
            let told = self.started[index].get();
            if told.is_none() || begun < 1 || begun > most {
                return Err(format!("root {index} was started {begun} times; its starter knows of {told:?}"));
            }
        }
        Ok(())
    }

    /// Whether a flow that belongs to this root may end so.
    fn may_end(&self, root: usize, is_root: bool, state: FlowState) -> bool {
        let planned = &self.plan.roots[root];
        let mute = self.plan.is_refused(planned);
        match state {
            FlowState::Completed => !(is_root && planned.killed_after.is_none() && planned.fails_after.is_some()),
            FlowState::Failed => mute || planned.fails_after.is_some() || planned.killed_after.is_some(),
            FlowState::Killed => is_root && planned.killed_after.is_some(),
            FlowState::Live | FlowState::Paused | FlowState::Hospital => false,
        }
    }

    /// The same, where it is about money: whoever takes part in a deal fails as the deal does.
    fn may_end_money(&self, row: FlowRow, root: usize, is_root: bool, state: FlowState) -> bool {
        let planned = &self.plan.roots[root];
        match state {
            FlowState::Completed => !(is_root && planned.fails_after.is_some()) || self.plan.has_kills(),
            FlowState::Failed if is_root => planned.fails_after.is_some(),
            // One that fails as planned after a deal was broken off by a kill has not told the other side of the deal before.
            FlowState::Failed => self.error_of(row).is_some_and(|error| {
                let is_planned = planned.fails_after.is_some() && error.message == super::guest::PLANNED_FAILURE;
                self.plan.may_refuse(&error) || (is_planned && self.plan.is_anyone_killed())
            }),
            FlowState::Killed => (is_root && planned.killed_after.is_some()) || self.plan.kills_any(),
            FlowState::Live | FlowState::Paused | FlowState::Hospital => false,
        }
    }

    /// The error that a flow has ended with.
    fn error_of(&self, row: FlowRow) -> Option<FlowError> {
        let record = self.around.disk.tables.lock().flow(row)?;
        let end = record.end.as_ref().and_then(EndRecord::decode_stored)?;
        match end.result() {
            FlowResult::Error(error) => Some(error),
            FlowResult::Value(_) => None,
        }
    }

    /// What flows have made final is part of their ledgers, and all ledgers are sound together.
    fn look_at_money(&mut self) -> Result<(), String> {
        let audit = self.around.disk.audit.lock();
        let tables = self.around.disk.tables.lock();
        for record in tables.ended_rows().filter(|record| record.state == FlowState::Completed) {
            let end = record.end.as_ref().and_then(EndRecord::decode_stored);
            let Some(value) = end.and_then(|end| end.value) else { continue };
            // Flows of the platform have no result.
            let Ok(ids) = from_cbor::<Vec<String>>(&value) else { continue };
            ledger_check::has_all(&tables.ledger, record.identity, record.row, &ids)?;
            self.tally.money.final_results += ids.len() as u64;
        }
        let settling = audit.started.values().filter(|source| matches!(source, Source::Settling)).count() as u64;
        self.tally.money.settled += settling;
        self.tally.money.conflicts += audit.conflicts;
        self.tally.money.other_refusals += audit.other_refusals;
        self.tally.money.notarised += tables.ledger.decided.rows.len() as u64;
        ledger_check::check(&tables.ledger, &audit, self.plan.has_kills())
    }

    /// A root that has completed has received all that was for it.
    fn look_at_results(&self) -> Result<(), String> {
        let audit = self.around.disk.audit.lock();
        let tables = self.around.disk.tables.lock();
        let completed = |record: &&FlowRecord| record.state == FlowState::Completed;
        for record in tables.ended_rows().filter(completed) {
            let Some(Source::Root(index)) = audit.started.get(&record.row) else { continue };
            let end = record.end.as_ref().and_then(EndRecord::decode_stored);
            let expected = maxhost_model::to_cbor(&self.plan.roots[*index].received()).unwrap();
            if end.as_ref().and_then(|end| end.value.as_deref()) != Some(&*expected) {
                return Err(format!("root {index} ended with {:?}", end.map(|end| end.value)));
            }
        }
        Ok(())
    }
}

fn begin(plan: &Plan, around: &Surroundings, started: &[Arc<OnceLock<FlowRow>>]) -> Life {
    let executor = around.executor.clone();
    let database = Database::open(around.disk.clone(), around.faults.clone(), executor.clone(), around.broken);
    let parts = host::parts(plan, around, &database);
    executor.spawn(parts.clone().ring_timers());
    executor.spawn(host::start(parts.clone(), plan.clone()));
    for (index, started) in started.iter().enumerate().filter(|(_, started)| started.get().is_none()) {
        executor.spawn(host::start_root(parts.clone(), plan.roots[index].clone(), index, started.clone()));
    }
    Life { parts, database }
}
