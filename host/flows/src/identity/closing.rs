//! How an identity is let go: because it has nothing to do, because it cannot be hosted, or because its actor met a
//! defect.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use maxhost_model::{Code, Problem, SecureHash};
use maxhost_ownership::DemandVersion;
use maxhost_store::{Author, CommitUnit, Conflict, Forgive, IdentityOp, Op, StoreError};
use tokio::sync::oneshot;

use super::opening::live_and_held;
use super::{Actor, IdentityServices};
use crate::base::trouble::backoff;
use crate::commit::unit::Unit;
use crate::flow::running_flow::Signal;
use crate::options::OperatorEvent;
use crate::registry::entry::{ColdState, EntryState, IdentityEntry};
use crate::registry::marks::Mark;
use crate::registry::message::IdentityCommand;
use crate::registry::opened::Opened;
use crate::registry::retry::Pause;

/// How soon an identity is opened again that could not be for a reason that passes.
const REOPEN: Duration = Duration::from_secs(1);
/// How soon it is looked whether the runs of an identity have given up. The time doubles, up to the longest: while the database
/// is away a run waits for it.
const LOOK: Duration = Duration::from_millis(5);
const LONGEST_LOOK: Duration = Duration::from_millis(320);

impl Actor {
    /// Could not open. What passes by itself is tried again soon; anything else needs a person.
    pub(super) async fn quarantine(mut self, problem: Problem) {
        let pause = Pause::of_problem(&problem);
        let told = match self.services.membership {
            Some(_) => self.release_unopened(pause).await,
            None => true,
        };
        if pause == Pause::Short {
            tracing::warn!(identity = %self.entry.text, %problem, "identity could not be opened; tried again");
            let cold = EntryState::Cold(self.cold_state());
            self.refuse_commands(cold, &problem);
            self.note_ended(told);
            return self.services.timers.set(self.services.clock.monotonic() + REOPEN, self.entry.row);
        }
        self.services.events.tell_quarantined(&self.entry.text, &problem);
        let refusal = crate::base::error::quarantined(&self.entry.text, &problem);
        let quarantined = EntryState::Quarantined { problem: Box::new(problem), cold: self.cold_state() };
        self.refuse_commands(quarantined, &refusal);
        self.note_ended(told);
    }

    /// What the commands tell that is in the database is found there when the identity is opened again.
    fn refuse_commands(&mut self, next: EntryState, problem: &Problem) {
        let mut refused = Vec::new();
        {
            let mut state = self.entry.state.lock();
            *state = next;
            self.commands.close();
            while let Ok(command) = self.commands.try_recv() {
                refused.push(command);
            }
        }
        refused.into_iter().for_each(|command| command.refuse(problem.clone()));
        drop(self.entry.take_told_with_demand());
        // There is room for another, which was promised to this one.
        if let Some(membership) = &self.services.membership {
            membership.held_changed();
        }
    }

    /// Every flow gives up its instance at its next wait; nothing new begins.
    pub(super) fn drain(&mut self) {
        self.draining = true;
        if let EntryState::Active { draining, .. } = &mut *self.entry.state.lock() {
            *draining = true;
        }
        self.flows.iter().filter_map(|(_, slot)| slot.running()).for_each(|running| running.signal(Signal::Evict));
    }

    /// The identity is not this host's any more: another one looks after its flows.
    fn forget_deadlines(&self) {
        self.services.deadlines.forget_all(self.flows.iter().map(|(row, _)| row));
    }

    fn cold_state(&self) -> ColdState {
        ColdState {
            live: self.flows.iter().map(|(row, _)| row).collect(),
            held: self.flows.held().into(),
            wake_at: self.flows.next_alarm(),
        }
    }

    /// Whether there is nothing to do for it any more, as far as can be told without looking at commands and marks.
    fn is_due_to_close(&self) -> bool {
        let idle_for = self.services.clock.monotonic().since(self.idle_since);
        self.draining || (self.is_idle() && idle_for >= self.services.idle_close)
    }

    /// Goes to sleep if there is nothing to do. True if it did.
    pub(super) fn try_close(&mut self) -> bool {
        if !self.is_due_to_close() {
            return false;
        }
        let mut state = self.entry.state.lock();
        // Commands are put in, and marks that replace them are set, under this lock only. What the committer answers is of
        // units that are still on their way, and then the identity is not idle.
        let has_work = !self.commands.is_empty() || self.entry.marks.any();
        if has_work && !self.draining {
            return false;
        }
        let cold = self.cold_state();
        if let (Some(at), false) = (cold.wake_at, self.draining) {
            self.services.timers.set(at, self.entry.row);
        }
        let removed = self.is_removed();
        *state = if removed { EntryState::Removed } else { EntryState::Cold(cold) };
        drop(state);
        if removed {
            self.forget_deadlines();
        }
        self.commands.close();
        self.closed(removed);
        true
    }

    /// Whether its manifest went, rather than that it is handed over.
    fn is_removed(&self) -> bool {
        self.draining && !self.services.stopping.is_cancelled() && !self.is_handed_over()
    }

    /// Whether it drains because this host of several does.
    fn is_handed_over(&self) -> bool {
        self.services.membership.is_some() && self.entry.leaving.lock().is_none()
    }

    fn why_closed(&self) -> Problem {
        match self.services.stopping.is_cancelled() {
            true => crate::base::error::stopping(),
            false => not_here(&self.entry.text),
        }
    }

    /// Refuses what nobody will do any more, and tells that the identity is closed.
    fn closed(&mut self, removed: bool) {
        self.services.committer.ledger_waits.forget_all(self.entry.row);
        let problem = self.why_closed();
        while let Ok(command) = self.commands.try_recv() {
            command.refuse(problem.clone());
        }
        let identity = self.entry.text.to_string();
        self.services.events.emit(match removed {
            true => OperatorEvent::IdentityRemoved { identity },
            false => OperatorEvent::IdentityClosed { identity },
        });
        tracing::debug!(identity = %self.entry.text, "identity closed");
    }

    /// As [`Actor::try_close`], where other hosts may run the identity: what there is to do for it is theirs from then on.
    /// The order is that of `docs/cluster.md`: the demand is looked at, then the database lets the identity go, which it
    /// refuses if there is work, then what has come meanwhile is looked at, and then the ownership ends. Until all that is
    /// done the identity has this actor, so that no other claims it in this ownership.
    pub(super) async fn release(&mut self, opened: &Opened) -> bool {
        if !self.is_due_to_close() || (!self.draining && self.has_come()) {
            return false;
        }
        // Kept from here on: whoever's unit is refused once the database has let it go takes it from the entry.
        let Some(key) = self.entry.held_as() else { return false };
        // What it is handed over with keeps the demand, whatever its version.
        let seen = match self.draining {
            true => None,
            false => match self.services.ownership.demand_version(key).await {
                Ok(seen) => seen,
                Err(error) => return self.stay(&error),
            },
        };
        match self.commit_release(opened).await {
            Ok(()) | Err(StoreError::Closed) => {}
            Err(StoreError::Conflict(Conflict::WorkLeft(_))) => {
                self.initiations_wait = true;
                self.idle_since = self.services.clock.monotonic();
                return false;
            }
            // Another host has claimed it: nothing of it may be kept, and it is not let go but lost.
            Err(StoreError::Fenced { .. }) => {
                self.entry.marks.set(Mark::Lost);
                return false;
            }
            Err(error) if self.draining => {
                tracing::warn!(identity = %self.entry.text, %error, "the identity is let go without a word to the database");
            }
            Err(error) => return self.stay(&error),
        }
        self.entry.release();
        self.forget_deadlines();
        let is_wanted = self.draining || self.has_come();
        let told = self.end_ownership(key, seen, is_wanted).await;
        self.close_released();
        self.note_ended(told);
        true
    }

    /// Whether somebody has left something for its actor.
    fn has_come(&self) -> bool {
        !self.commands.is_empty() || self.entry.marks.any_work()
    }

    /// It cannot be let go now: it is tried again when it has been idle once more.
    fn stay(&mut self, error: &dyn std::fmt::Display) -> bool {
        tracing::warn!(identity = %self.entry.text, %error, "the identity cannot be let go; tried again");
        self.idle_since = self.services.clock.monotonic();
        false
    }

    async fn commit_release(&self, opened: &Opened) -> Result<(), StoreError> {
        let now = self.services.clock.monotonic();
        let wake_at = self.flows.next_alarm().map(|at| {
            let left = u64::try_from(at.since(now).as_millis()).unwrap_or(u64::MAX);
            i64::try_from(self.services.now_millis().saturating_add(left)).unwrap_or(i64::MAX)
        });
        let mut unit = Unit::default();
        unit.op(Op::Identity(IdentityOp::Release { wake_at, hand_over: self.draining }));
        let (told, result) = oneshot::channel();
        unit.submit(&self.services.committer, opened.author(), move |result| drop(told.send(result)));
        result.await.unwrap_or(Err(StoreError::Closed))
    }

    /// Closes an identity that was let go. Whoever came while it was has it opened anew, by whichever host is first.
    fn close_released(&mut self) {
        let removed = self.is_removed();
        self.entry.in_hospital.leave(self.flows.held());
        let mut came = Vec::new();
        let is_behind = {
            let mut state = self.entry.state.lock();
            if let (Some(at), false) = (self.flows.next_alarm(), self.draining) {
                self.services.timers.set(at, self.entry.row);
            }
            self.commands.close();
            while let Ok(command) = self.commands.try_recv() {
                came.push(command);
            }
            *state = if removed { EntryState::Removed } else { EntryState::Cold(ColdState::default()) };
            self.entry.marks.take_all().has(Mark::Behind)
        };
        let waking = &self.services.committer.waking;
        if is_behind && !self.draining {
            waking.wake(&self.entry);
        }
        let problem = self.why_closed();
        for command in came {
            match command {
                command if self.draining => command.refuse(problem.clone()),
                // Its unit finds that the recipient is not held, and leaves the message for the relay.
                IdentityCommand::Initiation { offer: Some(offer), .. } => drop(offer),
                IdentityCommand::Wake => waking.wake(&self.entry),
                // Whoever wants it to go looks whether it has; and it is opened with what there is then.
                IdentityCommand::Drain | IdentityCommand::Refresh => {}
                command => waking.tell(&self.entry, command),
            }
        }
        self.closed(removed);
    }

    /// False if the ownership service may not know that the ownership has ended.
    async fn end_ownership(&self, key: SecureHash, seen: Option<DemandVersion>, hand_over: bool) -> bool {
        let ended = match hand_over {
            true => {
                let target = self.entry.take_target();
                self.services.ownership.hand_over(key, target.as_deref()).await.map(drop)
            }
            false => self.services.ownership.sleep(key, seen).await.map(drop),
        };
        if let Err(error) = &ended {
            // The database has let it go, and the sweep of this host finds that it owns what it does not run.
            tracing::warn!(identity = %self.entry.text, %error, "the ownership service was not told that the identity is let go");
        }
        // What was put into its queue after this host had looked there, and before others could see that nobody owns it.
        self.services.queues.let_go(&self.entry);
        if let Some(membership) = &self.services.membership {
            membership.held_changed();
        }
        ended.is_ok()
    }

    /// The identity has no actor from now on: what could not be told of it is told by the sweep.
    fn note_ended(&self, told: bool) {
        if let (Some(membership), false) = (&self.services.membership, told) {
            membership.look_for_work();
        }
    }

    /// Owners of the identity do not count as ones that died while they had it. A hint, so it is told beside all else and not
    /// repeated.
    pub(super) fn forgive(&self, forgive: Forgive) {
        let (store, entry) = (self.services.committer.store.clone(), self.entry.clone());
        self.services.io.spawn(async move {
            if let Err(error) = store.forgive(entry.row, forgive).await {
                tracing::debug!(identity = %entry.text, %error, "it could not be noted that a host of the identity is alive");
            }
        });
    }

    /// It was claimed, and could not be opened: another host may do better.
    async fn release_unopened(&self, pause: Pause) -> bool {
        self.forget_deadlines();
        let Some(key) = self.entry.release() else { return true };
        self.entry.put_off(self.services.clock.monotonic(), pause);
        self.forgive(Forgive::Survived);
        self.end_ownership(key, None, true).await
    }

    /// Another host runs it. Nobody is rung for: its owner knows what there is to do.
    pub(super) fn leave_to_owner(mut self, problem: &Problem) {
        tracing::debug!(identity = %self.entry.text, %problem, "the identity was not opened");
        self.refuse_commands(EntryState::Cold(ColdState::default()), problem);
    }

    /// The identity is not this host's any more: its runs give up, and nothing of it is kept or tried again.
    pub(super) async fn give_up(mut self) {
        end_runs(&self.services, &self.entry).await;
        self.entry.in_hospital.leave(self.flows.held());
        self.forget_deadlines();
        self.entry.put_off(self.services.clock.monotonic(), Pause::Longer);
        if self.services.membership.is_some() {
            self.forgive(Forgive::Survived);
        }
        let key = self.entry.release().or_else(|| self.entry.key());
        // If it was the database that refused this host, it owns the identity still, and nobody else would take it.
        let told = match (&self.services.membership, key) {
            (Some(_), Some(key)) => self.end_ownership(key, None, true).await,
            _ => true,
        };
        let removed = self.is_removed() || (self.entry.marks.has(Mark::Drain) && !self.is_handed_over());
        {
            let mut state = self.entry.state.lock();
            self.entry.marks.take_all();
            self.commands.close();
            *state = if removed { EntryState::Removed } else { EntryState::Cold(ColdState::default()) };
        }
        while let Ok(command) = self.commands.try_recv() {
            command.refuse(not_here(&self.entry.text));
        }
        self.closed(removed);
        self.note_ended(told);
    }
}

fn not_here(identity: &str) -> Problem {
    Problem::new(Code::IdentityDraining, format!("identity {identity} is not hosted here any more"))
}

/// Has the runs of an identity give up, and waits until they have: two runs of one flow would undo each other's work.
async fn end_runs(services: &IdentityServices, entry: &IdentityEntry) {
    let flows = &services.committer.router.flows;
    for flow in flows.of(entry.row) {
        flow.attempt.revoke();
        flow.signal(Signal::Failed);
    }
    let mut pause = LOOK;
    while !flows.of(entry.row).is_empty() {
        services.clock.sleep_until(services.clock.monotonic() + pause).await;
        pause = (pause * 2).min(LONGEST_LOOK);
    }
}

/// Waits until the committer has answered all that the actor has handed in. Of a start that was written down for later only
/// the actor knew, so its row must be there when the rows are read.
async fn handed_in_is_written(services: &IdentityServices, entry: &IdentityEntry) {
    let (reply, answered) = oneshot::channel();
    let author = Author { identity: entry.row, claim: *entry.claim.lock() };
    // The queue keeps its order. What becomes of a unit without operations decides nothing, and nobody may be listening any more.
    let done = Box::new(move |_| {
        let _ = reply.send(());
    });
    let unit = CommitUnit { author, attempt: None, depends_on: Default::default(), ops: Vec::new(), done };
    services.committer.store.submit(unit);
    tokio::select! {
        // A committer that has stopped drops what it is given.
        _ = answered => {}
        () = services.stopping.cancelled() => {}
    }
}

/// The identity's actor met a defect: its runs give up, and it is opened again from what is in the database, a little
/// later each time.
pub(super) async fn after_defect(services: Arc<IdentityServices>, entry: Arc<IdentityEntry>) {
    tracing::error!(identity = %entry.text, "the identity met a defect of the host; it is closed and opened again");
    services.events.emit(OperatorEvent::IdentityClosed { identity: entry.text.to_string() });
    end_runs(&services, &entry).await;
    handed_in_is_written(&services, &entry).await;
    let (live, held) = loop {
        match live_and_held(&services.committer.store, entry.row).await {
            Ok(flows) => break flows,
            Err(error) => tracing::warn!(identity = %entry.text, %error, "its flows cannot be read; tried again"),
        }
        tokio::select! {
            biased;
            () = services.clock.sleep_until(services.clock.monotonic() + REOPEN) => {}
            () = services.stopping.cancelled() => return,
        }
    };
    let cold = ColdState { live: live.into(), held: held.into(), wake_at: None };
    let removed = {
        let mut state = entry.state.lock();
        // The marks were for an actor that is gone. The next one looks at everything, but does not know that it is to let
        // the identity go.
        let marks = entry.marks.take_all();
        let draining = matches!(&*state, EntryState::Active { draining: true, .. }) || marks.has(Mark::Drain);
        let is_handed_over = services.membership.is_some() && entry.leaving.lock().is_none();
        let removed = draining && !services.stopping.is_cancelled() && !is_handed_over;
        *state = if removed { EntryState::Removed } else { EntryState::Cold(cold) };
        removed
    };
    if removed {
        return services.events.emit(OperatorEvent::IdentityRemoved { identity: entry.text.to_string() });
    }
    let defects = entry.defects.fetch_add(1, Ordering::Relaxed);
    services.timers.set(services.clock.monotonic() + backoff(defects), entry.row);
}
