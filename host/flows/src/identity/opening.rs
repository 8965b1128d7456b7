//! How an identity is opened.

use std::sync::atomic::Ordering;

use maxhost_journal::{Millis, Segment};
use maxhost_model::{FlowRow, Problem, SecureHash};
use maxhost_store::{Claim, ClaimRequest, Head};

use super::table::SlotState;
use super::{Actor, RESCAN};
use crate::core::Opened;

impl Actor {
    pub(super) async fn open(&mut self) -> Result<Opened, Problem> {
        let spec = self.entry.spec.lock().clone();
        let core = &self.core;
        let keys = core.keys.open(&self.entry)?;
        self.entry.note_keys(&keys);
        let cordapps = self.entry.cordapps(&core.catalogue)?;
        let claim = self.claim(keys.party().owning_key.fingerprint()).await?;
        let first = !self.entry.swept.load(Ordering::Acquire);
        if first {
            let rows: Vec<FlowRow> = self.flows.iter().map(|(row, _)| row).collect();
            crate::late_confirm::sweep(core, &self.entry, &rows).await?;
            self.entry.swept.store(true, Ordering::Release);
        }
        self.look_at_cold().await?;
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
                self.core.directory.set_key(&self.entry, fingerprint);
                // Messages that it had left in the outbox, and those that wait for it in the broker, are for this host now.
                self.core.outbox.look_at_all();
                self.core.queues.held([self.entry.clone()]);
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
    async fn look_at_cold(&mut self) -> Result<(), Problem> {
        for rows in self.flows.cold().chunks(512) {
            for head in self.core.store.heads(rows).await.map_err(Problem::from)? {
                let row = head.flow;
                if !self.flows.get(row).is_some_and(|slot| matches!(slot.state(), SlotState::Cold { .. })) {
                    continue;
                }
                match wake_time(&head) {
                    WakeTime::Now => self.flows.enqueue(row),
                    WakeTime::At(until) => {
                        // One that is over has an alarm that rings at once.
                        let at = self.core.deadlines.moment(&*self.core.clock, row, until, 0);
                        self.flows.set(row, SlotState::Cold { until: Some(at) });
                    }
                    WakeTime::OnNews => {}
                }
            }
        }
        Ok(())
    }

    /// Commands were lost: looks at all flows again.
    pub(super) async fn look_again(&mut self) {
        self.flows.news_for_hot();
        match self.look_at_cold().await {
            Ok(()) => self.news_wait = false,
            Err(problem) => {
                tracing::warn!(identity = %self.entry.text, %problem, "flows cannot be read; tried again");
                self.rescan_after(RESCAN);
            }
        }
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
    wait.until.map_or(WakeTime::OnNews, WakeTime::At)
}
