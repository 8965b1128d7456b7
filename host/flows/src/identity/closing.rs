//! How an identity is let go: because it has nothing to do, because it cannot be hosted, or because its actor met a
//! defect.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use maxhost_model::{Class, Code, Problem, SecureHash};
use maxhost_ownership::DemandVersion;
use maxhost_store::{Conflict, FlowState, IdentityOp, Op, StoreError};
use tokio::sync::oneshot;

use super::{Actor, IdentityServices};
use crate::marks::Mark;
use crate::message::IdentityCommand;
use crate::opened::Opened;
use crate::options::OperatorEvent;
use crate::registry::{ColdState, EntryState, IdentityEntry};
use crate::running_flow::Signal;
use crate::trouble::backoff;
use crate::unit::Unit;

/// How soon an identity is opened again that could not be for a reason that passes.
const REOPEN: Duration = Duration::from_secs(1);
/// How often it is looked whether the runs of an identity have given up.
const LOOK: Duration = Duration::from_millis(5);

impl Actor {
    /// Could not open. What passes by itself is tried again soon; anything else needs a person.
    pub(super) async fn quarantine(mut self, problem: Problem) {
        if self.services.membership.is_some() {
            self.release_unopened().await;
        }
        if problem.class() == Class::Unavailable {
            tracing::warn!(identity = %self.entry.text, %problem, "identity could not be opened; tried again");
            let cold = EntryState::Cold(self.cold_state());
            self.refuse_commands(cold, &problem);
            return self.services.timers.set(self.services.clock.monotonic() + REOPEN, self.entry.row);
        }
        self.services.events.tell_quarantined(&self.entry.text, &problem);
        let told = crate::error::quarantined(&self.entry.text, &problem);
        let quarantined = EntryState::Quarantined { problem, cold: self.cold_state() };
        self.refuse_commands(quarantined, &told);
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
    }

    /// Every flow gives up its instance at its next wait; nothing new begins.
    pub(super) fn drain(&mut self) {
        self.draining = true;
        if let EntryState::Active { draining, .. } = &mut *self.entry.state.lock() {
            *draining = true;
        }
        self.flows.iter().filter_map(|(_, slot)| slot.running()).for_each(|running| running.signal(Signal::Evict));
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
        self.commands.close();
        self.closed(removed);
        true
    }

    fn is_removed(&self) -> bool {
        self.draining && !self.services.stopping.is_cancelled()
    }

    /// Refuses what nobody will do any more, and tells that the identity is closed.
    fn closed(&mut self, removed: bool) {
        let problem = match removed {
            true => not_here(&self.entry.text),
            false => crate::error::stopping(),
        };
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
    /// refuses if there is work, then what has come meanwhile is looked at, and only then the ownership ends.
    pub(super) async fn release(&mut self, opened: &Opened) -> bool {
        if !self.is_due_to_close() || (!self.draining && (!self.commands.is_empty() || self.entry.marks.any())) {
            return false;
        }
        let seen = match self.entry.held_as() {
            Some(key) => self.services.ownership.demand_version(key).await,
            None => Ok(None),
        };
        let seen = match seen {
            Ok(seen) => seen,
            Err(_) if self.draining => None,
            Err(error) => return self.stay(&error),
        };
        match self.commit_release(opened).await {
            Ok(()) => {}
            Err(StoreError::Conflict(Conflict::WorkLeft(_))) => {
                self.initiations_wait = true;
                self.idle_since = self.services.clock.monotonic();
                return false;
            }
            // Another host owns it, or the database is closed: it is let go all the same.
            Err(StoreError::Fenced { .. } | StoreError::Closed) => {}
            Err(error) if self.draining => {
                tracing::warn!(identity = %self.entry.text, %error, "the identity is let go without a word to the database");
            }
            Err(error) => return self.stay(&error),
        }
        let key = self.entry.release();
        let came = self.close_released();
        if let Some(key) = key {
            self.end_ownership(key, seen, self.draining || !came.is_empty()).await;
        }
        // Whoever came meanwhile has the identity opened anew, here if nobody else was quicker.
        came.into_iter().for_each(|command| self.services.committer.waking.tell(&self.entry, command));
        true
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

    /// Closes an identity that is not held any more. Returns what came for it meanwhile.
    fn close_released(&mut self) -> Vec<IdentityCommand> {
        let removed = self.is_removed();
        let mut came = Vec::new();
        {
            let mut state = self.entry.state.lock();
            if let (Some(at), false) = (self.flows.next_alarm(), self.draining) {
                self.services.timers.set(at, self.entry.row);
            }
            // What was left in its place is in the database.
            let marks = self.entry.marks.take();
            if marks.has(Mark::Behind) || marks.has(Mark::Refresh) {
                came.push(IdentityCommand::Wake);
            }
            self.commands.close();
            while let Ok(command) = self.commands.try_recv() {
                came.push(command);
            }
            *state = if removed { EntryState::Removed } else { EntryState::Cold(ColdState::default()) };
        }
        if self.draining {
            let problem = if removed { not_here(&self.entry.text) } else { crate::error::stopping() };
            came.drain(..).for_each(|command| command.refuse(problem.clone()));
        }
        self.closed(removed);
        came
    }

    async fn end_ownership(&self, key: SecureHash, seen: Option<DemandVersion>, hand_over: bool) {
        let ended = match hand_over {
            true => self.services.ownership.hand_over(key, None).await.map(drop),
            false => self.services.ownership.sleep(key, seen).await.map(drop),
        };
        if let Err(error) = ended {
            // The database has let it go. Whoever wants it finds that, when this host's session has forgotten it.
            tracing::warn!(identity = %self.entry.text, %error, "the ownership service was not told that the identity is let go");
        }
        if let Some(membership) = &self.services.membership {
            membership.held_changed();
        }
    }

    /// It was claimed, and could not be opened: another host may do better.
    async fn release_unopened(&self) {
        let Some(key) = self.entry.release() else { return };
        self.entry.put_off(self.services.clock.monotonic());
        self.end_ownership(key, None, true).await;
    }

    /// Another host runs it. Nobody is rung for: its owner knows what there is to do.
    pub(super) fn leave_to_owner(mut self, problem: &Problem) {
        tracing::debug!(identity = %self.entry.text, %problem, "the identity was not opened");
        self.refuse_commands(EntryState::Cold(ColdState::default()), problem);
    }

    /// The identity is not this host's any more: its runs give up, and nothing of it is kept or tried again.
    pub(super) async fn give_up(mut self) {
        end_runs(&self.services, &self.entry).await;
        let removed = self.is_removed() || self.entry.marks.has(Mark::Drain);
        {
            let mut state = self.entry.state.lock();
            self.entry.marks.take();
            self.commands.close();
            *state = if removed { EntryState::Removed } else { EntryState::Cold(ColdState::default()) };
        }
        while let Ok(command) = self.commands.try_recv() {
            command.refuse(not_here(&self.entry.text));
        }
        self.entry.put_off(self.services.clock.monotonic());
        // If it was the database that refused this host, it owns the identity still, and nobody else would take it.
        if let (Some(_), Some(key)) = (&self.services.membership, self.entry.key()) {
            self.end_ownership(key, None, true).await;
        }
        self.closed(removed);
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
    while !flows.of(entry.row).is_empty() {
        services.clock.sleep_until(services.clock.monotonic() + LOOK).await;
    }
}

/// The identity's actor met a defect: its runs give up, and it is opened again from what is in the database, a little
/// later each time.
pub(super) async fn after_defect(services: Arc<IdentityServices>, entry: Arc<IdentityEntry>) {
    tracing::error!(identity = %entry.text, "the identity met a defect of the host; it is closed and opened again");
    services.events.emit(OperatorEvent::IdentityClosed { identity: entry.text.to_string() });
    end_runs(&services, &entry).await;
    let flows = loop {
        match services.committer.store.live_flows().await {
            Ok(flows) => break flows,
            Err(error) => tracing::warn!(identity = %entry.text, %error, "its flows cannot be read; tried again"),
        }
        tokio::select! {
            biased;
            () = services.clock.sleep_until(services.clock.monotonic() + REOPEN) => {}
            () = services.stopping.cancelled() => return,
        }
    };
    let mine: Vec<_> = flows.into_iter().filter(|flow| flow.identity == entry.row).collect();
    let held = mine.iter().filter(|flow| flow.state == FlowState::Hospital).map(|flow| flow.row).collect();
    let cold = ColdState { live: mine.iter().map(|flow| flow.row).collect(), held, wake_at: None };
    let removed = {
        let mut state = entry.state.lock();
        // The marks were for an actor that is gone. The next one looks at everything, but does not know that it is to let
        // the identity go.
        let marks = entry.marks.take();
        let draining = matches!(&*state, EntryState::Active { draining: true, .. }) || marks.has(Mark::Drain);
        let removed = draining && !services.stopping.is_cancelled();
        *state = if removed { EntryState::Removed } else { EntryState::Cold(cold) };
        removed
    };
    if removed {
        return services.events.emit(OperatorEvent::IdentityRemoved { identity: entry.text.to_string() });
    }
    let defects = entry.defects.fetch_add(1, Ordering::Relaxed);
    services.timers.set(services.clock.monotonic() + backoff(defects), entry.row);
}
