//! A host's part in a cluster: what its own threads tell the supervisor ([`crate::host::supervisor`]), each as a mark that stays
//! until it is taken.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use maxhost_model::SecureHash;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::cluster::turns::Turns;
use crate::options::Balancing;

/// A destination that was sent to so long ago is rung for once when its owner goes: he may have gone before he saw the
/// message.
const RECENT: Duration = Duration::from_secs(5);

/// A host's part in a cluster.
pub(crate) struct Membership {
    slots: u32,
    schedules: bool,
    session_timeout: Duration,
    balancing: Balancing,
    /// What this host holds may have changed, or the service has to be told again.
    held_changed: Notify,
    sweep: Notify,
    /// A manifest says something else of hosts than before.
    rules_changed: Notify,
    /// The scheduler cannot look for work: another one may do better.
    resigns: Notify,
    rung: Mutex<HashSet<SecureHash>>,
    ring: Notify,
    /// This host gives up what it runs and takes nothing more.
    draining: AtomicBool,
    /// The same, because this host alone is cut from a part that all share.
    standing_back: AtomicBool,
    /// A demand was told for which there was no room.
    declined: AtomicBool,
    /// When messages were last sent to whom.
    sent: Mutex<HashMap<SecureHash, Instant>>,
    /// When this host is to look at the demands that it was told of.
    turns: Turns,
}

impl Membership {
    /// Of a host that runs at most so many identities at once; of one that runs none and answers for all, 0. `schedules`:
    /// it may become the scheduler. `session_timeout`: after so long without a sign of life others take over what it owned.
    /// `balancing`: when it gives identities to others.
    pub fn new(slots: u32, schedules: bool, session_timeout: Duration, balancing: Balancing) -> Membership {
        Membership {
            slots,
            schedules,
            session_timeout,
            balancing,
            held_changed: Notify::new(),
            sweep: Notify::new(),
            rules_changed: Notify::new(),
            resigns: Notify::new(),
            rung: Mutex::default(),
            ring: Notify::new(),
            draining: AtomicBool::new(false),
            standing_back: AtomicBool::new(false),
            declined: AtomicBool::new(false),
            sent: Mutex::default(),
            turns: Turns::default(),
        }
    }

    /// When this host is to look at the demands that it was told of.
    pub fn turns(&self) -> &Turns {
        &self.turns
    }

    /// Raises the demand for an identity: soon, and until the service has heard it.
    pub fn ring(&self, identity: SecureHash) {
        self.rung.lock().insert(identity);
        self.ring.notify_one();
    }

    /// This host holds another identity, or one less.
    pub fn held_changed(&self) {
        self.held_changed.notify_one();
    }

    /// There may be work for identities that nobody runs.
    pub fn look_for_work(&self) {
        self.sweep.notify_one();
    }

    /// A manifest says something else of hosts than before.
    pub fn rules_changed(&self) {
        self.rules_changed.notify_one();
    }

    /// Until that is so.
    pub async fn until_rules_change(&self) {
        self.rules_changed.notified().await;
    }

    /// When this host gives identities to others.
    pub fn balancing(&self) -> Balancing {
        self.balancing
    }

    /// This host is the scheduler and cannot look for work.
    pub fn make_room_for_a_scheduler(&self) {
        self.resigns.notify_one();
    }

    /// Until that is so.
    pub async fn until_room_is_made(&self) {
        self.resigns.notified().await;
    }

    /// The identities that were rung for since the last time.
    pub fn take_rung(&self) -> Vec<SecureHash> {
        self.rung.lock().drain().collect()
    }

    /// Until somebody is rung for.
    pub async fn rung(&self) {
        self.ring.notified().await;
    }

    /// Until what this host holds may have changed.
    pub async fn until_held_changes(&self) {
        self.held_changed.notified().await;
    }

    /// Until there may be work that nobody was told of.
    pub async fn until_work_is_looked_for(&self) {
        self.sweep.notified().await;
    }

    /// There was no room for an identity that is wanted: when there is, it is looked for again. However many are declined,
    /// this is told once.
    pub fn decline(&self) {
        // There may have come room since it was looked.
        if !self.declined.swap(true, Ordering::AcqRel) {
            self.held_changed();
        }
    }

    /// As [`Membership::decline`], for whoever looks again himself when what this host holds changes.
    pub fn note_declined(&self) {
        self.declined.store(true, Ordering::Release);
    }

    /// Whether that is so, for whoever only asks.
    pub fn has_declined(&self) -> bool {
        self.declined.load(Ordering::Acquire)
    }

    /// Whether there was no room for somebody since the last time.
    pub fn take_declined(&self) -> bool {
        self.declined.swap(false, Ordering::AcqRel)
    }

    /// Whether this host gives up what it runs and takes nothing more.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Whether it does from now on.
    pub fn set_draining(&self, draining: bool) {
        self.draining.store(draining, Ordering::Release);
        self.held_changed();
    }

    /// Whether this host has given up what it ran and takes nothing, because it alone is cut from a part that all share.
    pub fn stands_back(&self) -> bool {
        self.standing_back.load(Ordering::Acquire)
    }

    /// Whether it does from now on.
    pub fn set_standing_back(&self, stands_back: bool) {
        self.standing_back.store(stands_back, Ordering::Release);
        self.held_changed();
    }

    /// After so long without a sign of life others take over what a host owned.
    pub fn session_timeout(&self) -> Duration {
        self.session_timeout
    }

    /// Whether this host may become the scheduler of the cluster.
    pub fn may_schedule(&self) -> bool {
        self.schedules
    }

    /// Whether this host runs no identities at all: it answers for all of them.
    pub fn runs_none(&self) -> bool {
        self.slots == 0
    }

    /// Whether this host opens no identity: it runs none, was asked to drain, or stands back.
    pub fn takes_nothing(&self) -> bool {
        self.runs_none() || self.is_draining() || self.stands_back()
    }

    /// How many more identities it takes, if it holds so many.
    pub fn free_slots(&self, held: u32) -> u32 {
        if self.takes_nothing() { 0 } else { self.slots.saturating_sub(held) }
    }

    /// How many identities this host runs at once.
    pub fn slots(&self) -> u32 {
        self.slots
    }

    /// The broker has a message for this identity now.
    pub fn note_sent(&self, identity: SecureHash) {
        let mut sent = self.sent.lock();
        let now = Instant::now();
        sent.retain(|_, at| now.duration_since(*at) < RECENT);
        sent.insert(identity, now);
    }

    /// Whether a message was sent to this identity a moment ago, since this was last asked. Whoever asks rings for it, and
    /// its next owner looks into its queue.
    pub fn take_sent_to(&self, identity: &SecureHash) -> bool {
        self.sent.lock().remove(identity).is_some_and(|at| at.elapsed() < RECENT)
    }
}
