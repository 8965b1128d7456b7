//! How an identity is let go: because it has nothing to do, because it cannot be hosted, or because its actor met a
//! defect.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use maxhost_model::{Class, Code, Problem};
use maxhost_store::FlowState;

use super::Actor;
use crate::calls::backoff;
use crate::core::Core;
use crate::marks::Mark;
use crate::options::OperatorEvent;
use crate::registry::{ColdState, EntryState, IdentityEntry};
use crate::rules::{Rule, holds};
use crate::running_flow::{RunningFlow, Signal};

/// How soon an identity is opened again that could not be for a reason that passes.
const REOPEN: Duration = Duration::from_secs(1);
/// How often it is looked whether the runs of an identity have given up.
const LOOK: Duration = Duration::from_millis(5);

impl Actor {
    /// Could not open. What passes by itself is tried again soon; anything else needs a person.
    pub(super) async fn quarantine(mut self, problem: Problem) {
        if problem.class() == Class::Unavailable {
            tracing::warn!(identity = %self.entry.text, %problem, "identity could not be opened; tried again");
            let cold = EntryState::Cold(self.cold_state());
            self.refuse_commands(cold, &problem);
            return self.core.timers.set(self.core.clock.monotonic() + REOPEN, self.entry.row);
        }
        self.core.tell_quarantined(&self.entry.text, &problem);
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
        self.flows.iter().filter_map(|(_, slot)| slot.port()).for_each(|port| port.signal(Signal::Evict));
    }

    fn cold_state(&self) -> ColdState {
        ColdState {
            live: self.flows.iter().map(|(row, _)| row).collect(),
            held: self.flows.held().into(),
            wake_at: self.flows.next_alarm(),
        }
    }

    /// Goes to sleep if there is nothing to do. True if it did.
    pub(super) fn try_close(&mut self) -> bool {
        let idle_for = self.core.clock.monotonic().since(self.idle_since);
        let due = self.draining || (self.is_idle() && idle_for >= self.core.options.idle_close);
        if !due {
            return false;
        }
        let mut state = self.entry.state.lock();
        // Commands are put in, and marks that replace them are set, under this lock only. What the committer answers is of
        // units that are still on their way, and then the identity is not idle.
        let has_work = (!self.commands.is_empty() || self.entry.marks.any()) && holds(Rule::MarksAreSeenBeforeSleep);
        if has_work && !self.draining {
            return false;
        }
        let cold = self.cold_state();
        if let (Some(at), false) = (cold.wake_at, self.draining) {
            self.core.timers.set(at, self.entry.row);
        }
        let stopping = self.core.stopping.is_cancelled();
        let removed = self.draining && !stopping;
        *state = if removed { EntryState::Removed } else { EntryState::Cold(cold) };
        drop(state);
        self.commands.close();
        let problem = match removed {
            true => Problem::new(
                Code::IdentityDraining,
                format!("identity {} is not hosted here any more", self.entry.text),
            ),
            false => crate::error::stopping(),
        };
        while let Ok(command) = self.commands.try_recv() {
            command.refuse(problem.clone());
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

/// The identity's actor met a defect: its runs give up, and it is opened again from what is in the database, a little
/// later each time.
pub(super) async fn after_defect(core: Arc<Core>, entry: Arc<IdentityEntry>) {
    tracing::error!(identity = %entry.text, "the identity met a defect of the host; it is closed and opened again");
    core.emit(OperatorEvent::IdentityClosed { identity: entry.text.to_string() });
    let of_identity = |core: &Core| -> Vec<Arc<RunningFlow>> {
        let mut found: Vec<Arc<RunningFlow>> =
            core.ports.iter().filter(|port| port.owner == entry.row).map(|port| port.value().clone()).collect();
        found.sort_by_key(|port| port.row);
        found
    };
    for port in of_identity(&core) {
        port.attempt.revoke();
        port.signal(Signal::Failed);
    }
    // Two runs of one flow would undo each other's work.
    while !of_identity(&core).is_empty() {
        core.clock.sleep_until(core.clock.monotonic() + LOOK).await;
    }
    let flows = loop {
        match core.store.live_flows().await {
            Ok(flows) => break flows,
            Err(error) => tracing::warn!(identity = %entry.text, %error, "its flows cannot be read; tried again"),
        }
        tokio::select! {
            biased;
            () = core.clock.sleep_until(core.clock.monotonic() + REOPEN) => {}
            () = core.stopping.cancelled() => return,
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
        let removed = draining && !core.stopping.is_cancelled();
        *state = if removed { EntryState::Removed } else { EntryState::Cold(cold) };
        removed
    };
    if removed {
        return core.emit(OperatorEvent::IdentityRemoved { identity: entry.text.to_string() });
    }
    let defects = entry.defects.fetch_add(1, Ordering::Relaxed);
    core.timers.set(core.clock.monotonic() + backoff(defects), entry.row);
}
