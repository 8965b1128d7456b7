//! How an identity is opened, and how it is let go.

use std::sync::atomic::Ordering;
use std::time::Duration;

use maxhost_journal::{Millis, Segment};
use maxhost_model::{Class, FlowRow, Problem, SecureHash};
use maxhost_store::{Claim, ClaimRequest, Head};
use tokio::time::Instant;

use super::{Actor, FlowSlot, RESCAN, SlotState};
use crate::core::{Opened, now_millis};
use crate::options::OperatorEvent;
use crate::registry::{ColdState, EntryState};
use crate::running_flow::Signal;

/// How soon an identity is opened again that could not be for a reason that passes.
const REOPEN: Duration = Duration::from_secs(1);

impl Actor {
    pub(super) async fn open(&mut self) -> Result<Opened, Problem> {
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
        let cordapps = self.entry.cordapps(&core.catalogue)?;
        let claim = self.claim(keys.party().owning_key.fingerprint()).await?;
        let first = !self.entry.swept.swap(true, Ordering::AcqRel);
        let rows: Vec<FlowRow> = self.flows.keys().copied().collect();
        if first {
            crate::late_confirm::sweep(core, &self.entry, &rows).await?;
        }
        self.look_at(&rows).await?;
        Ok(Opened { entry: self.entry.clone(), keys, cordapps, claim, limits: spec.limits })
    }

    /// Makes this host the identity's owner in the database, once in the life of its entry.
    pub(super) async fn claim(&self, fingerprint: SecureHash) -> Result<Claim, Problem> {
        let known = *self.entry.claim.lock();
        if known.run == self.core.store.run() && *self.entry.owned_as.lock() == Some(fingerprint) {
            return Ok(known);
        }
        let claim = self.core.ownership.claim(fingerprint, known.token).await.map_err(Problem::from)?;
        let key_fp = Some(*fingerprint.as_bytes());
        match self.core.store.claim(ClaimRequest { identity: self.entry.row, token: claim.token, key_fp }).await {
            Ok(claim) => {
                *self.entry.claim.lock() = claim;
                *self.entry.owned_as.lock() = Some(fingerprint);
                Ok(claim)
            }
            Err(error) => {
                // Claimed and not recorded is not owned: the next attempt claims anew.
                let _ = self.core.ownership.hand_over(fingerprint, None).await;
                Err(error.into())
            }
        }
    }

    /// Finds out which cold flows have something to do, and when the others want to be woken.
    pub(super) async fn look_at(&mut self, rows: &[FlowRow]) -> Result<(), Problem> {
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
    pub(super) async fn quarantine(mut self, problem: Problem) {
        if problem.class() == Class::Unavailable {
            tracing::warn!(identity = %self.entry.text, %problem, "identity could not be opened; tried again");
            self.core.timers.set(now_millis() + REOPEN.as_millis() as u64, self.entry.row);
            let cold = EntryState::Cold(self.cold_state());
            return self.refuse_letters(cold, &problem);
        }
        self.core.tell_quarantined(&self.entry.text, &problem);
        let told = crate::error::quarantined(&self.entry.text, &problem);
        let quarantined = EntryState::Quarantined { problem, cold: self.cold_state() };
        self.refuse_letters(quarantined, &told);
    }

    pub(super) fn refuse_letters(&mut self, next: EntryState, problem: &Problem) {
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

    /// Letters were lost: looks at the cold flows again.
    pub(super) async fn look_again(&mut self) {
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

    /// Every flow gives up its instance at its next wait; nothing new begins.
    pub(super) fn drain(&mut self) {
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

    pub(super) fn cold_state(&self) -> ColdState {
        let held = |(row, slot): (&FlowRow, &FlowSlot)| matches!(slot.state, SlotState::Hospital).then_some(*row);
        ColdState {
            live: self.flows.keys().copied().collect(),
            held: self.flows.iter().filter_map(held).collect(),
            wake_at: self.timers.first().map(|(at, _)| *at),
        }
    }

    /// Goes to sleep if there is nothing to do. True if it did.
    pub(super) fn try_close(&mut self) -> bool {
        let due = self.draining || (self.is_idle() && self.idle_since.elapsed() >= self.core.options.idle_close);
        if !due {
            return false;
        }
        let mut state = self.entry.state.lock();
        // Letters are put in under this lock only.
        if !self.commands.is_empty() && !self.draining {
            return false;
        }
        let cold = self.cold_state();
        if let (Some(at), false) = (cold.wake_at, self.draining) {
            self.core.timers.set(at, self.entry.row);
        }
        let removed = self.draining && !self.core.stopping.is_cancelled();
        *state = if removed { EntryState::Removed } else { EntryState::Cold(cold) };
        drop(state);
        self.commands.close();
        while let Ok(command) = self.commands.try_recv() {
            command.refuse(crate::error::stopping());
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
