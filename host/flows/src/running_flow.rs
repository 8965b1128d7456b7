//! The port of a flow that is in memory: where arrivals and signals for it are left, and where it shows what it does.
//!
//! Anybody may leave something at a port without waiting: the committer's thread does so right after a commit. Only the
//! flow's own run takes things out. A port that is closed takes nothing any more; what was left at it is in the
//! database too, so nothing is lost when it goes.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use maxhost_journal::{FrameBatch, Millis, Wait};
use maxhost_model::{FlowId, FlowRow, IdentityRow};
use maxhost_store::{AttemptToken, StoreError};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::speculation::Runner;

/// Messages that wait in memory for one flow; more stay in the database, and the flow is reloaded from there.
const MAX_QUEUED_BYTES: usize = 4 << 20;
/// Progress labels kept for clients that attach while the flow is in memory.
const MAX_LABELS: usize = 64;

/// Units of one run that may wait for the disk while its messages run ahead; with more, they keep to its pace.
const MAX_SPECULATIVE_UNITS: u32 = 16;

/// A batch for one of the flow's sessions.
#[derive(Debug)]
pub(crate) struct Arrival {
    pub session: u16,
    pub seq: u32,
    pub batch: FrameBatch,
    /// It is not known to be in the database yet.
    pub runner: Option<Runner>,
}

impl Arrival {
    fn bytes(&self) -> usize {
        use prost::Message;
        64 + self.batch.encoded_len()
    }
}

/// What a run is asked to do besides its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signal {
    /// End now.
    Kill = 1,
    /// Give up the instance at the next wait.
    Evict = 2,
    /// A commit failed: nothing after it counts.
    Failed = 4,
    /// More arrived than fits in memory: reload.
    Overflow = 8,
}

#[derive(Debug, Default)]
struct Queue {
    arrivals: Vec<Arrival>,
    bytes: usize,
    /// Something that is in the database found no room here. Stays until the port closes, which hands it out.
    missed: bool,
    closed: bool,
}

/// What of the host a flow waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lack {
    /// An instance.
    Instance,
    /// Memory for its guest.
    Memory,
}

impl Lack {
    /// The stable word.
    pub fn as_str(self) -> &'static str {
        match self {
            Lack::Instance => "instance",
            Lack::Memory => "memory",
        }
    }
}

/// What the flow does, for people. Only what is committed is shown.
#[derive(Debug, Default, Clone)]
pub(crate) struct View {
    pub waiting: Option<(Wait, Millis)>,
    /// What it lacks to go on, and since when.
    pub lack: Option<(Lack, Millis)>,
    pub labels: VecDeque<(u64, String)>,
    /// These are all labels that the flow ever had.
    pub whole: bool,
}

impl View {
    pub fn label(&self) -> Option<&str> {
        self.labels.back().map(|(_, label)| label.as_str())
    }

    pub fn is_waiting(&self) -> bool {
        self.waiting.is_some() || self.lack.is_some()
    }
}

/// How people call the flow.
#[derive(Debug)]
struct FlowName {
    id: FlowId,
    flow: Box<str>,
    client_id: Option<String>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct RunningFlow {
    pub row: FlowRow,
    /// Whose flow it is.
    pub owner: IdentityRow,
    pub attempt: AttemptToken,
    name: OnceLock<FlowName>,
    queue: Mutex<Queue>,
    notify: Notify,
    signals: AtomicU8,
    submitted: AtomicU32,
    acknowledged: AtomicU32,
    durable: AtomicBool,
    apart: AtomicBool,
    attempts: AtomicU32,
    failure: Mutex<Option<StoreError>>,
    view: Mutex<View>,
}

impl RunningFlow {
    /// For a flow that comes back, and whose public id is not read yet.
    pub fn new(row: FlowRow, owner: IdentityRow) -> Arc<RunningFlow> {
        RunningFlow::with(row, owner, View::default())
    }

    /// For a flow that begins.
    pub fn of_new(row: FlowRow, owner: IdentityRow) -> Arc<RunningFlow> {
        RunningFlow::with(row, owner, View { whole: true, ..View::default() })
    }

    fn with(row: FlowRow, owner: IdentityRow, view: View) -> Arc<RunningFlow> {
        Arc::new(RunningFlow {
            row,
            owner,
            name: OnceLock::new(),
            durable: AtomicBool::new(false),
            apart: AtomicBool::new(false),
            attempts: AtomicU32::new(0),
            attempt: AttemptToken::new(),
            queue: Mutex::default(),
            notify: Notify::new(),
            signals: AtomicU8::new(0),
            submitted: AtomicU32::new(0),
            acknowledged: AtomicU32::new(0),
            failure: Mutex::default(),
            view: Mutex::new(view),
        })
    }

    /// Its public id and client id are known now.
    pub fn set_name(&self, id: FlowId, flow: &str, client_id: Option<String>) {
        // A second time it is the same name.
        let _ = self.name.set(FlowName { id, flow: flow.into(), client_id });
    }

    /// Public id, once it is known.
    pub fn known_id(&self) -> Option<FlowId> {
        self.name.get().map(|name| name.id)
    }

    /// Public id for logs.
    pub fn id(&self) -> FlowId {
        self.known_id().unwrap_or(FlowId::new(self.row, 0))
    }

    /// `cordapp/flow`, once it is known.
    pub fn flow(&self) -> &str {
        self.name.get().map_or("", |name| &name.flow)
    }

    pub fn client_id(&self) -> Option<&str> {
        self.name.get()?.client_id.as_deref()
    }

    /// True once a unit of this run is in the database.
    pub fn is_durable(&self) -> bool {
        self.durable.load(Ordering::Acquire)
    }

    /// From its next wait or tick on the run is polled on the threads for guests.
    pub fn run_apart(&self) {
        self.apart.store(true, Ordering::Release);
    }

    /// From its next wait on the run is polled where its identity is.
    pub fn run_with_identity(&self) {
        self.apart.store(false, Ordering::Release);
    }

    /// Whether it is polled on the threads for guests, or is to be.
    pub fn runs_apart(&self) -> bool {
        self.apart.load(Ordering::Acquire)
    }

    /// How often the flow's guest was begun, this time included, as far as is known.
    pub fn attempts(&self) -> u32 {
        self.attempts.load(Ordering::Acquire)
    }

    /// So many attempts are known of; fewer than before are no news.
    pub fn note_attempts(&self, attempts: u32) {
        self.attempts.fetch_max(attempts, Ordering::AcqRel);
    }

    /// The guest begins once more. Gives the number of the attempt, from 1 on.
    pub fn begin_attempt(&self) -> u32 {
        self.attempts.fetch_add(1, Ordering::AcqRel).saturating_add(1)
    }

    /// Leaves a batch. Gives it back if the port is closed, because the flow is not in memory any more, or if there is
    /// no room for one that runs ahead.
    pub fn push(&self, arrival: Arrival) -> Result<(), Arrival> {
        let mut queue = self.queue.lock();
        if queue.closed {
            return Err(arrival);
        }
        let bytes = arrival.bytes();
        // One of any size is taken when nothing else waits: what the network allows must not depend on this bound.
        if !queue.arrivals.is_empty() && queue.bytes + bytes > MAX_QUEUED_BYTES {
            if arrival.runner.is_some() {
                // To reload now would not find it.
                return Err(arrival);
            }
            queue.missed = true;
            drop(queue);
            self.signal(Signal::Overflow);
            return Ok(());
        }
        queue.bytes += bytes;
        queue.arrivals.push(arrival);
        drop(queue);
        self.notify.notify_one();
        Ok(())
    }

    /// Takes what was left.
    pub fn take(&self) -> Vec<Arrival> {
        let mut queue = self.queue.lock();
        queue.bytes = 0;
        std::mem::take(&mut queue.arrivals)
    }

    pub fn is_closed(&self) -> bool {
        self.queue.lock().closed
    }

    /// Takes nothing any more. What is handed back was left and not taken; the database has it while the flow lives. True
    /// if something else is there that the flow has not seen.
    pub fn close(&self) -> (Vec<Arrival>, bool) {
        let mut queue = self.queue.lock();
        queue.closed = true;
        (std::mem::take(&mut queue.arrivals), queue.missed)
    }

    pub fn signal(&self, signal: Signal) {
        self.signals.fetch_or(signal as u8, Ordering::AcqRel);
        self.notify.notify_one();
    }

    pub fn is_signalled(&self, signal: Signal) -> bool {
        self.signals.load(Ordering::Acquire) & signal as u8 != 0
    }

    pub fn has_signal(&self) -> bool {
        self.signals.load(Ordering::Acquire) != 0
    }

    /// Until something is left here, or a commit is answered.
    pub async fn wake(&self) {
        self.notify.notified().await;
    }

    /// Counts a unit that went to the committer.
    pub fn submitting(&self) {
        self.submitted.fetch_add(1, Ordering::AcqRel);
    }

    /// Whether messages of its next unit may run ahead of the disk.
    pub fn may_speculate(&self) -> bool {
        let waiting = self.submitted.load(Ordering::Acquire) - self.acknowledged.load(Ordering::Acquire);
        waiting < MAX_SPECULATIVE_UNITS
    }

    /// A unit is durable.
    pub fn committed(&self) {
        self.durable.store(true, Ordering::Release);
        self.acknowledged.fetch_add(1, Ordering::AcqRel);
        // A run that waits for a message need not wake for this; one that is ending has nothing else to wait for.
        if self.signals.load(Ordering::Acquire) != 0 || self.is_settling() {
            self.notify.notify_one();
        }
    }

    /// A unit was not written: this run is void.
    pub fn failed(&self, error: StoreError) {
        self.failure.lock().get_or_insert(error);
        self.acknowledged.fetch_add(1, Ordering::AcqRel);
        self.signal(Signal::Failed);
    }

    /// Why a commit failed.
    pub fn take_failure(&self) -> Option<StoreError> {
        self.failure.lock().take()
    }

    /// Waits until every unit of this run is answered. Ends because the committer answers each unit.
    pub async fn settle(&self) {
        self.signals.fetch_or(SETTLING, Ordering::AcqRel);
        while self.acknowledged.load(Ordering::Acquire) < self.submitted.load(Ordering::Acquire) {
            self.notify.notified().await;
        }
        self.signals.fetch_and(!SETTLING, Ordering::AcqRel);
    }

    fn is_settling(&self) -> bool {
        self.signals.load(Ordering::Acquire) & SETTLING != 0
    }

    pub fn show_waiting(&self, wait: Option<(Wait, Millis)>) {
        self.view.lock().waiting = wait;
    }

    pub fn show_lack(&self, lack: Option<(Lack, Millis)>) {
        self.view.lock().lack = lack;
    }

    pub fn show_progress(&self, labels: &[(u64, String)]) {
        let mut view = self.view.lock();
        for label in labels {
            if view.labels.len() == MAX_LABELS {
                view.labels.pop_front();
                view.whole = false;
            }
            view.labels.push_back(label.clone());
        }
    }

    pub fn view(&self) -> View {
        self.view.lock().clone()
    }

    pub fn is_waiting(&self) -> bool {
        self.view.lock().is_waiting()
    }
}

const SETTLING: u8 = 128;

/// A deadline in wall-clock milliseconds as one of the monotonic clock.
pub(crate) fn instant_of(until: Millis, now: Millis) -> Instant {
    Instant::now() + std::time::Duration::from_millis(until.saturating_sub(now))
}
