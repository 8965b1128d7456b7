//! A flow that is in memory: where arrivals and signals for it are left, what became of its units, and what it shows.
//!
//! Anybody may leave something here without waiting: the committer's thread does so right after a commit. Only the flow's
//! own run takes things out. Every wake-up here is a hint only: before the run sleeps it looks at its inbox, its signals
//! and its units, each of which keeps what has happened until it is seen.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use dashmap::DashMap;
use maxhost_journal::{Millis, Wait};
use maxhost_model::{FlowId, FlowRow, IdentityRow, SecureHash};
use maxhost_store::{AttemptToken, StoreError};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::base::rules::{Rule, holds};
pub(crate) use crate::flow::arrival::Arrival;
use crate::flow::commit_tracker::CommitTracker;
use crate::flow::inbox::{Inbox, Kept, Rest};
pub(crate) use crate::flow::signals::Signal;
use crate::flow::signals::Signals;
pub(crate) use crate::flow::status::Lack;
use crate::flow::status::{Status, View};
use crate::guests::placement::Place;

/// Units of one run that may wait for the disk while its messages run ahead; with more, they keep to its pace.
const MAX_SPECULATIVE_UNITS: u32 = 16;

/// One flow that is in memory. It is shared by its own run and by everybody who leaves something for it.
#[derive(Debug)]
pub(crate) struct RunningFlow {
    pub row: FlowRow,
    /// Whose flow it is.
    pub owner: IdentityRow,
    pub attempt: AttemptToken,
    inbox: Inbox<Arrival>,
    signals: Signals,
    units: CommitTracker<StoreError>,
    status: Status,
    notify: Notify,
    /// Where its run is polled.
    pub place: Arc<Place>,
    attempts: AtomicU32,
    failed: AtomicBool,
    /// The transactions that it has in flight, and has neither made final nor taken back.
    in_flight: Mutex<BTreeSet<SecureHash>>,
}

impl RunningFlow {
    /// For a flow that comes back, and whose public id is not read yet.
    pub fn new(row: FlowRow, owner: IdentityRow) -> Arc<RunningFlow> {
        RunningFlow::with(row, owner, Status::new(false))
    }

    /// For a flow that begins.
    pub fn of_new(row: FlowRow, owner: IdentityRow) -> Arc<RunningFlow> {
        RunningFlow::with(row, owner, Status::new(true))
    }

    fn with(row: FlowRow, owner: IdentityRow, status: Status) -> Arc<RunningFlow> {
        Arc::new(RunningFlow {
            row,
            owner,
            attempt: AttemptToken::new(),
            inbox: Inbox::new(),
            signals: Signals::new(),
            units: CommitTracker::new(),
            status,
            notify: Notify::new(),
            place: Arc::new(Place::of(owner)),
            attempts: AtomicU32::new(0),
            failed: AtomicBool::new(false),
            in_flight: Mutex::default(),
        })
    }

    /// It ended with an error, or was killed.
    pub fn note_failed_end(&self) {
        self.failed.store(true, Ordering::Release);
    }

    /// A transaction is in flight, and this flow settles it while it lives.
    pub fn note_in_flight(&self, id: SecureHash) {
        self.in_flight.lock().insert(id);
    }

    /// It is final, or taken back.
    pub fn note_settled(&self, id: &SecureHash) {
        self.in_flight.lock().remove(id);
    }

    /// Whether it may leave something in flight: it has failed, or its code has gone on after a protocol had failed.
    pub fn may_leave_in_flight(&self) -> bool {
        self.has_failed() || !self.in_flight.lock().is_empty()
    }

    /// Whether it ended with an error, or was killed.
    pub fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    /// Its public id and client id are known now.
    pub fn set_name(&self, id: FlowId, flow: &str, client_id: Option<String>) {
        self.status.set_name(id, flow, client_id);
    }

    /// Public id, once it is known.
    pub fn known_id(&self) -> Option<FlowId> {
        self.status.id()
    }

    /// Public id for logs.
    pub fn id(&self) -> FlowId {
        self.known_id().unwrap_or(FlowId::new(self.row, 0))
    }

    /// `cordapp/flow`, once it is known.
    pub fn flow(&self) -> &str {
        self.status.flow()
    }

    pub fn client_id(&self) -> Option<&str> {
        self.status.client_id()
    }

    /// True once a unit of this run is in the database.
    pub fn is_durable(&self) -> bool {
        self.units.is_durable()
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

    /// Leaves a batch. If there is no room for one that is in the database, a mark says so.
    ///
    /// # Errors
    /// The flow is not in memory any more, or there is no room for a batch that runs ahead: the batch comes back.
    pub fn push(&self, arrival: Arrival) -> Result<(), Arrival> {
        let kept = if arrival.runner.is_some() { Kept::NotYet } else { Kept::InDatabase };
        let bytes = arrival.bytes();
        self.inbox.push(arrival, bytes, kept)?;
        self.notify.notify_one();
        Ok(())
    }

    /// Takes what was left.
    pub fn take(&self) -> Vec<Arrival> {
        self.inbox.take()
    }

    /// Whether something is in the database that found no room here: the run has to read its journal.
    pub fn has_missed(&self) -> bool {
        self.inbox.has_missed() && holds(Rule::WhatWasMissedIsRead)
    }

    /// What the flow waits for in the ledger may have come about. False if it is not in memory any more.
    pub fn stir(&self) -> bool {
        let stirred = self.inbox.stir();
        if stirred {
            self.notify.notify_one();
        }
        stirred
    }

    /// Whether it was told to look into the ledger, and has not begun to.
    pub fn is_stirred(&self) -> bool {
        self.inbox.is_stirred()
    }

    /// The run is about to look into the ledger.
    pub fn looks_into_ledger(&self) {
        self.inbox.forget_stirred();
    }

    /// The run is about to read its journal.
    pub fn reads_journal(&self) {
        self.inbox.forget_missed();
    }

    pub fn is_closed(&self) -> bool {
        self.inbox.is_closed()
    }

    /// Takes nothing any more, and hands out what is left.
    pub fn close(&self) -> Rest<Arrival> {
        let rest = self.inbox.close();
        Rest { missed: rest.missed && holds(Rule::WhatWasMissedIsRead), ..rest }
    }

    pub fn signal(&self, signal: Signal) {
        self.signals.raise(signal);
        self.notify.notify_one();
    }

    pub fn is_signalled(&self, signal: Signal) -> bool {
        self.signals.is_raised(signal)
    }

    pub fn has_signal(&self) -> bool {
        self.signals.any()
    }

    /// Whether a signal was raised that it heeds also while it waits for an instance.
    pub fn has_urgent_signal(&self) -> bool {
        self.signals.any_urgent()
    }

    /// Until something is left here, or a commit is answered. What happened before the call counts too.
    pub async fn wake(&self) {
        self.notify.notified().await;
    }

    /// Counts a unit that went to the committer.
    pub fn submitting(&self) {
        self.units.submitting();
    }

    /// Whether messages of its next unit may run ahead of the disk.
    pub fn may_speculate(&self) -> bool {
        self.units.in_flight() < MAX_SPECULATIVE_UNITS
    }

    /// A unit is durable. A run that waits for a message need not wake for this.
    pub fn committed(&self) {
        if self.units.committed() {
            self.notify.notify_one();
        }
    }

    /// A unit was not written: this run is void.
    pub fn failed(&self, error: StoreError) {
        self.units.failed(error);
        self.signal(Signal::Failed);
    }

    /// Why a commit failed.
    pub fn take_failure(&self) -> Option<StoreError> {
        self.units.take_failure()
    }

    /// Waits until every unit of this run is answered. Ends because the committer answers each unit.
    pub async fn settle(&self) {
        if !self.units.begin_settling() {
            while !self.units.is_settled() {
                self.notify.notified().await;
            }
        }
        self.units.end_settling();
    }

    pub fn show_waiting(&self, wait: Option<(Wait, Millis)>) {
        self.status.show_waiting(wait);
    }

    pub fn show_lack(&self, lack: Option<(Lack, Millis)>) {
        self.status.show_lack(lack);
    }

    pub fn show_progress(&self, labels: &[(u64, String)]) {
        self.status.show_progress(labels);
    }

    pub fn view(&self) -> View {
        self.status.view()
    }

    pub fn is_waiting(&self) -> bool {
        self.status.is_waiting()
    }

    /// Whether it waits for an instance, or for memory.
    pub fn lacks_something(&self) -> bool {
        self.status.lacks_something()
    }
}

/// The flows in memory, of all identities, by row.
#[derive(Debug, Default)]
pub(crate) struct RunningFlows(DashMap<FlowRow, Arc<RunningFlow>>);

impl RunningFlows {
    pub fn get(&self, row: FlowRow) -> Option<Arc<RunningFlow>> {
        self.0.get(&row).map(|flow| flow.value().clone())
    }

    pub fn insert(&self, flow: Arc<RunningFlow>) {
        self.0.insert(flow.row, flow);
    }

    pub fn remove(&self, row: FlowRow) {
        self.0.remove(&row);
    }

    /// Those of one identity, by row.
    pub fn of(&self, owner: IdentityRow) -> Vec<Arc<RunningFlow>> {
        let flows = self.0.iter().filter(|flow| flow.owner == owner);
        let mut found: Vec<Arc<RunningFlow>> = flows.map(|flow| flow.value().clone()).collect();
        found.sort_by_key(|flow| flow.row);
        found
    }

    /// How many there are of this kind.
    pub fn count(&self, is_one: impl Fn(&RunningFlow) -> bool) -> u64 {
        self.0.iter().filter(|flow| is_one(flow.value())).count() as u64
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.0.len()
    }
}
