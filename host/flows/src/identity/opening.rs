//! How an identity is opened.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;

use maxhost_broker::QueueName;
use maxhost_journal::{Millis, Segment};
use maxhost_model::{Code, FlowRow, IdentityRow, Problem, SecureHash};
use maxhost_ownership::{Lost, OwnershipError, SessionState};
use maxhost_pki::OpenIdentity;
use maxhost_store::{
    Caution, Claim, ClaimRequest, Conflict, DEATHS_LAST, FlowState, Head, LeftRows, LiveFlow, Store, StoreError,
    each_live_flow,
};

use super::table::{FlowTable, SlotState};
use super::{Actor, RESCAN};
use crate::guests::placement::CordappSet;
use crate::ledger::waits::Watched;
use crate::options::NotaryKind;
use crate::registry::opened::{NotaryRun, Opened};
use crate::registry::retry::Pause;

/// Flows whose newest segments are asked for at once.
const HEADS_AT_ONCE: usize = 512;

/// Why an identity was not opened.
#[derive(Debug)]
pub(super) enum NotOpened {
    /// Another host runs it.
    Elsewhere(Problem),
    Problem(Problem),
}

/// What the ownership service has granted, in the session of this number.
struct Owned {
    claim: Claim,
    session: u64,
}

impl From<Problem> for NotOpened {
    fn from(problem: Problem) -> NotOpened {
        NotOpened::Problem(problem)
    }
}

impl From<OwnershipError> for NotOpened {
    fn from(error: OwnershipError) -> NotOpened {
        match error {
            OwnershipError::Lost(Lost::Owned(_)) => NotOpened::Elsewhere(error.into()),
            error => NotOpened::Problem(error.into()),
        }
    }
}

impl Actor {
    /// Opens the identity: its keys, its CorDapps, its claim, and only then what the database has of it.
    ///
    /// # Errors
    /// [`NotOpened::Elsewhere`] if another host owns it.
    pub(super) async fn open(&mut self) -> Result<Opened, NotOpened> {
        let spec = self.entry.spec.lock().clone();
        let ((keys, cordapps), owned) = match self.key_of_start() {
            Some(key) => self.open_keys_and_own(key).await?,
            None => (self.open_keys()?, None),
        };
        let (claim, is_new) = self.claim(keys.party().owning_key.fingerprint(), owned).await?;
        let mut left = LeftRows::UNKNOWN;
        if is_new && self.services.membership.is_some() {
            // What was known before the claim may be another owner's past. What comes from here on is told to this actor.
            left = self.services.committer.store.left_rows(self.entry.row).await.map_err(Problem::from)?;
            self.flows = if left.flows { self.read_flows().await? } else { FlowTable::default() };
            (self.initiations_wait, self.unsettled) = (left.initiations, left.unsettled);
        }
        if is_new && left.outbox {
            // What it had left in the outbox is for this host now.
            self.services.committer.outbox.look_at_all();
        }
        let first = !self.entry.swept.load(Ordering::Acquire);
        if first {
            if left.late_confirms {
                crate::commit::late_confirm::sweep(&self.services.late_confirms, &self.entry).await?;
            }
            self.entry.swept.store(true, Ordering::Release);
        }
        self.look_at_cold().await?;
        let notary = spec
            .notary
            .map(|kind| NotaryRun { validating: kind == NotaryKind::Validating, queue: self.entry.notary.clone() });
        Ok(Opened {
            entry: self.entry.clone(),
            keys,
            cordapps,
            claim,
            limits: spec.limits,
            resolving: Default::default(),
            notary,
        })
    }

    fn open_keys(&self) -> Result<(Arc<OpenIdentity>, Arc<CordappSet>), Problem> {
        let keys = self.services.keys.open(&self.entry)?;
        self.entry.note_keys(&keys);
        Ok((keys, self.entry.cordapps(&self.services.activation.catalogue)?))
    }

    /// The key of the identity, if it is opened for a start that came along with the demand: somebody waits for it.
    fn key_of_start(&self) -> Option<SecureHash> {
        let is_for_start = !self.is_open && !self.entry.is_held() && self.entry.is_told_with_demand();
        self.entry.key().filter(|_| is_for_start && self.services.membership.is_some())
    }

    /// Opens keys and CorDapps while the ownership service makes this host the owner. If they cannot be opened the ownership ends, with
    /// the demand kept.
    async fn open_keys_and_own(
        &self,
        key: SecureHash,
    ) -> Result<((Arc<OpenIdentity>, Arc<CordappSet>), Option<Owned>), NotOpened> {
        let mut owning = std::pin::pin!(self.own(key));
        // The request is made by this, and sent by a task that may have to run on this thread; the answer comes while this thread is busy.
        let begun = futures::poll!(owning.as_mut());
        tokio::task::yield_now().await;
        let opened = self.open_keys();
        let owned = match begun {
            Poll::Ready(owned) => owned,
            Poll::Pending => owning.await,
        };
        match opened {
            Ok(opened) if opened.0.party().owning_key.fingerprint() == key => Ok((opened, Some(owned?))),
            opened => {
                if owned.is_ok() {
                    self.disown(key).await;
                }
                // The key that the network knows is not the one that is here.
                Ok((opened?, None))
            }
        }
    }

    /// Ends an ownership under which nothing was done, with the demand kept.
    async fn disown(&self, fingerprint: SecureHash) {
        if let Some(membership) = &self.services.membership
            && self.services.ownership.hand_over(fingerprint, None).await.is_err()
        {
            membership.look_for_work();
        }
    }

    /// Makes this host the owner, by the word of the ownership service.
    async fn own(&self, fingerprint: SecureHash) -> Result<Owned, NotOpened> {
        self.prepare_queue(fingerprint);
        let stored = self.entry.claim.lock().token;
        // Seen before the claim: if the session ends after it, this says in which one it was made.
        let session = self.services.ownership.session().borrow().number;
        match self.services.ownership.claim(fingerprint, stored).await {
            Ok(claim) => Ok(Owned { claim, session }),
            Err(error) => {
                // It may have been made all the same.
                if !matches!(error, OwnershipError::Lost(Lost::Owned(_))) {
                    self.disown(fingerprint).await;
                }
                Err(error.into())
            }
        }
    }

    /// Makes this host the identity's owner in the database, unless it is. True if it was not. `owned`: what the ownership service has
    /// said already.
    async fn claim(&self, fingerprint: SecureHash, owned: Option<Owned>) -> Result<(Claim, bool), NotOpened> {
        let known = *self.entry.claim.lock();
        if known.run == self.services.committer.store.run() && self.entry.held_as() == Some(fingerprint) {
            return Ok((known, false));
        }
        if self.is_open && self.services.membership.is_some() {
            // What is in memory is of another ownership, so it may not go on under a new claim.
            let text = format!("identity {} is not held here any more", self.entry.text);
            return Err(NotOpened::Elsewhere(Problem::new(Code::IdentityDraining, text)));
        }
        let Owned { claim, session } = match owned {
            Some(owned) => owned,
            None => self.own(fingerprint).await?,
        };
        let key_fp = Some(*fingerprint.as_bytes());
        // A host that is alone has nobody to leave an identity to.
        let caution = match self.services.membership {
            Some(_) => Caution::WaitedSince(self.entry.waited_since(self.services.clock.monotonic())),
            None => Caution::None,
        };
        let request = ClaimRequest { identity: self.entry.row, token: claim.token, key_fp, caution };
        match self.services.committer.store.claim(request).await {
            Ok(claim) => {
                self.entry.marks.is_held_anew();
                self.entry.hold(claim, fingerprint, session);
                let now = *self.services.ownership.session().borrow();
                if now.number != session || now.state == SessionState::Lost {
                    self.services.committer.waking.lose(&self.entry, "the session ended while it was claimed");
                }
                if let Some(membership) = &self.services.membership {
                    membership.held_changed();
                }
                self.services.committer.directory.set_key(&self.entry, fingerprint);
                // Messages that wait for it in the broker are for this host now.
                match self.services.membership {
                    Some(_) => self.services.queues.claimed(&self.entry),
                    None => self.services.queues.held([self.entry.clone()]),
                }
                Ok((claim, true))
            }
            Err(error) => {
                if let StoreError::Fenced { current, .. } = &error {
                    self.entry.note_claim(*current);
                }
                let now = self.services.clock.monotonic();
                match &error {
                    StoreError::Conflict(Conflict::OwnersDied { deaths, .. }) if *deaths < DEATHS_LAST => {
                        self.entry.wait_after(*deaths, now);
                    }
                    error => self.entry.put_off(now, Pause::of_claim(error)),
                }
                // Claimed and not recorded is not owned: the next attempt claims anew.
                let _ = self.services.ownership.hand_over(fingerprint, None).await;
                Err(NotOpened::Problem(error.into()))
            }
        }
    }

    /// Where hosts share identities, the queue is consumed as soon as the claim is written: that it is as it must be is found
    /// out meanwhile. What is wrong with it is told by whoever consumes it.
    fn prepare_queue(&self, fingerprint: SecureHash) {
        // What came along is carried out without the queue, which is made sure of when it is consumed afterwards: until then there is
        // more urgent work for the broker and its disk.
        if self.services.membership.is_none() || self.entry.is_told_with_demand() {
            return;
        }
        let (broker, queue) = (self.services.broker.clone(), QueueName::inbound(&fingerprint));
        self.services.io.spawn(async move {
            if let Err(error) = broker.prepare(&queue).await {
                tracing::debug!(%queue, %error, "a queue could not be made sure of");
            }
        });
    }

    /// The live flows of the identity, as the database has them now.
    async fn read_flows(&self) -> Result<FlowTable, Problem> {
        let read = live_and_held(&self.services.committer.store, self.entry.row).await;
        let (live, held) = read.map_err(Problem::from)?;
        Ok(FlowTable::new(&live, &self.entry.in_hospital.known_of(&held)))
    }

    /// Finds out which cold flows have something to do, and when the others want to be woken.
    async fn look_at_cold(&mut self) -> Result<(), Problem> {
        let cold = self.flows.cold();
        let mut left = &cold[..];
        while !left.is_empty() {
            let asked = &left[..left.len().min(HEADS_AT_ONCE)];
            let heads = self.services.committer.store.heads(asked).await.map_err(Problem::from)?;
            // Those behind a page are asked for again. It has one at least.
            left = match left.get(heads.len()..) {
                Some(rest) if rest.len() < left.len() => rest,
                _ => {
                    return Err(Problem::new(
                        Code::Internal,
                        "the database told nothing of flows that it was asked for",
                    ));
                }
            };
            let mut waiting = Vec::new();
            for head in heads {
                let row = head.flow;
                if !self.flows.get(row).is_some_and(|slot| matches!(slot.state(), SlotState::Cold { .. })) {
                    continue;
                }
                match wake_time(&head) {
                    WakeTime::Now => self.flows.enqueue(row),
                    WakeTime::Later { until, watched } => {
                        if let Some(until) = until {
                            // One that is over has an alarm that rings at once.
                            let at = self.services.deadlines.moment(&*self.services.clock, row, until, None);
                            self.flows.set(row, SlotState::Cold { until: Some(at) });
                        }
                        waiting.extend(watched.map(|watched| (row, watched)));
                    }
                }
            }
            self.look_into_ledger(&waiting).await?;
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

/// The rows of an identity's live flows, and of those of them that are in hospital.
pub(super) async fn live_and_held(
    store: &Store,
    identity: IdentityRow,
) -> Result<(Vec<FlowRow>, Vec<FlowRow>), StoreError> {
    let (mut live, mut held) = (Vec::new(), Vec::new());
    let give = |flow: LiveFlow| {
        live.push(flow.row);
        if flow.state == FlowState::Hospital {
            held.push(flow.row);
        }
    };
    each_live_flow(&**store, identity, give).await?;
    Ok((live, held))
}

enum WakeTime {
    Now,
    /// When there is news of it: a message, the time, or what it waits for in the ledger.
    Later {
        until: Option<Millis>,
        watched: Option<Watched>,
    },
}

/// Whether a flow that is not in memory has something to do, told from the newest of its journal.
fn wake_time(head: &Head) -> WakeTime {
    let Some((seq, body)) = &head.last else { return WakeTime::Now };
    let Ok(segment) = Segment::decode_sealed(body, *seq) else { return WakeTime::Now };
    let Some(wait) = segment.waits_for() else { return WakeTime::Now };
    if head.inbox.iter().any(|(session, seq)| segment.is_news(session.index(), *seq)) {
        return WakeTime::Now;
    }
    let watched = match wait.awaited.map(|awaited| awaited.first.parse()) {
        Some(Ok(watched)) => Some(watched),
        Some(Err(())) => return WakeTime::Now,
        None if wait.kind.is_of_ledger() => return WakeTime::Now,
        None => None,
    };
    WakeTime::Later { until: wait.until, watched }
}
