//! The database of a simulation: rows in memory behind the real queue and the real rules, and a committer and readers
//! that fail.
//!
//! It keeps the promises of a real one and no more. A unit is written whole or not at all, in the order of the queue.
//! What a unit leads to is told some time after it is durable, and until then anything may happen. What a read saw may
//! be old before it is used. Where the host is killed, what was written stays, what was not told is never told, and what
//! waited in the queue is gone.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use maxhost_group_commit::{Failure, Taken};
use maxhost_model::{FlowRow, IdentityRow, Lineage, RunId, SessionId};
use maxhost_store::rules::apply;
use maxhost_store::{
    AuditFilter, AuditPlace, AuditReader, AuditRow, Bounds, Client, ClientReader, CommitQueue, Committer, FlowFilter,
    FlowReader, FlowRecord, FlowState, Head, IdentityReader, IdentityRecord, Job, JournalReader, LateConfirm, LeftWork,
    LiveFlow, MessageReader, OutboxDestination, OutboxRow, Outcome, Rows, SizedJournal, StoreError, StoredJournal,
};
use parking_lot::Mutex;

use super::Broken;
use super::audit::Audit;
use super::executor::{Executor, pause};
use super::faults::{Faults, unavailable};
use super::tables::Tables;

/// Threads that are held up at once, at most.
const HELD_UP: u32 = 2;

/// What stays when the host is killed.
#[derive(Clone, Default)]
pub(super) struct Disk {
    pub tables: Arc<Mutex<Tables>>,
    pub audit: Arc<Mutex<Audit>>,
}

#[derive(Default)]
struct Work {
    taken: VecDeque<Job>,
    told: VecDeque<(Job, Result<Outcome, StoreError>)>,
    held_up: u32,
}

struct Shared {
    disk: Disk,
    queue: CommitQueue,
    work: Mutex<Work>,
    run: RunId,
    faults: Faults,
    executor: Executor,
    broken: Option<Broken>,
}

/// One host's connection to the database. Cloning gives another handle.
#[derive(Clone)]
pub(super) struct Database(Arc<Shared>);

impl Database {
    /// A host begins.
    pub fn open(disk: Disk, faults: Faults, executor: Executor, broken: Option<Broken>) -> Database {
        let run = {
            let mut tables = disk.tables.lock();
            tables.begin_run();
            tables.run()
        };
        let queue = CommitQueue::new(Bounds::default());
        Database(Arc::new(Shared { disk, queue, work: Mutex::default(), run, faults, executor, broken }))
    }

    /// Whether something waits for the committer.
    pub fn has_work(&self) -> bool {
        let work = self.0.work.lock();
        !work.taken.is_empty() || !work.told.is_empty() || self.0.queue.jobs.depth().0 > 0
    }

    /// The committer does one thing: it tells one job how it went, or commits some of what waits.
    pub fn step(&self) {
        let told = self.0.work.lock().told.pop_front();
        match told {
            Some((job, outcome)) => job.finish(outcome),
            None => self.commit_some(),
        }
    }

    fn commit_some(&self) {
        let Shared { queue, work, faults, .. } = &*self.0;
        let mut work = work.lock();
        while queue.jobs.depth().0 > 0 {
            let Taken::Batch(batch) = queue.jobs.take(Duration::ZERO) else { break };
            work.taken.extend(batch.units);
        }
        let count = faults.rng.between(1, work.taken.len().max(1)).min(work.taken.len());
        let mut batch: Vec<Job> = work.taken.drain(..count).collect();
        if self.0.broken == Some(Broken::QueueOrder) {
            batch.reverse();
        }
        let outcomes = self.write(&batch);
        work.told.extend(batch.into_iter().zip(outcomes));
    }

    /// One transaction. Every unit is written whole or not at all, and all of them or none are durable.
    fn write(&self, batch: &[Job]) -> Vec<Result<Outcome, StoreError>> {
        let Shared { disk, faults, broken, .. } = &*self.0;
        let mut tables = disk.tables.lock();
        let mut outcomes = Vec::with_capacity(batch.len());
        for job in batch {
            let mark = tables.mark();
            let outcome = if faults.mishap(48) {
                if let Job::Unit(unit) = job
                    && let Some(attempt) = &unit.attempt
                {
                    attempt.revoke();
                }
                Err(unavailable())
            } else {
                let again = *broken == Some(Broken::Dependencies);
                apply(&mut *tables, job, again).map_err(|failure| match failure {
                    Failure::Unit(error) => error,
                    Failure::Transaction(fault) => fault.into(),
                })
            };
            if outcome.is_err() {
                tables.undo_to(mark);
            }
            super::tell(|| format!("  {}: {outcome:?}", super::audit::brief(job)));
            outcomes.push(outcome);
        }
        if faults.mishap(24) {
            super::tell(|| "  the transaction fails".to_owned());
            faults.count(|counts| counts.refused += batch.len() as u64);
            tables.ended(*broken == Some(Broken::FailedCommitStays));
            return batch.iter().map(|_| Err(unavailable())).collect();
        }
        tables.ended(true);
        drop(tables);
        let mut audit = disk.audit.lock();
        for (job, outcome) in batch.iter().zip(&mut outcomes) {
            match outcome {
                Ok(outcome) => {
                    faults.count(|counts| counts.commits += 1);
                    audit.written(job, outcome);
                    if let (Outcome::Receipt(receipt), Some(Broken::Undelivered)) = (outcome, broken) {
                        receipt.undelivered.clear();
                    }
                }
                Err(StoreError::Superseded) => faults.count(|counts| counts.superseded += 1),
                Err(_) => faults.count(|counts| counts.refused += 1),
            }
        }
        outcomes
    }

    /// Whoever hands a unit in may be held up right behind that, for as long as everybody else likes.
    fn hold_up(&self) {
        let Shared { work, faults, executor, .. } = &*self.0;
        if !faults.rng.one_in(12) || work.lock().held_up >= HELD_UP {
            return;
        }
        work.lock().held_up += 1;
        faults.count(|counts| counts.held_up += 1);
        for _ in 0..faults.rng.between(1, 40) {
            if faults.rng.one_in(2) && self.has_work() {
                self.step();
            } else {
                executor.step();
            }
        }
        work.lock().held_up -= 1;
    }

    /// What a reader finds, some time after it asked and some time before it is told.
    pub async fn read<T>(&self, look: impl FnOnce(&Tables) -> T + Send) -> Result<T, StoreError> {
        let Shared { faults, disk, .. } = &*self.0;
        while faults.rng.one_in(3) {
            pause().await;
        }
        if faults.mishap(40) {
            super::tell(|| "  a read fails".to_owned());
            faults.count(|counts| counts.failed_reads += 1);
            return Err(unavailable());
        }
        let read = look(&disk.tables.lock());
        while faults.rng.one_in(3) {
            pause().await;
        }
        Ok(read)
    }
}

#[async_trait]
impl Committer for Database {
    fn queue(&self) -> &CommitQueue {
        &self.0.queue
    }

    fn hand_in(&self, job: Job) {
        self.0.queue.push(job);
        self.hold_up();
    }

    fn run(&self) -> RunId {
        self.0.run
    }

    fn lineage(&self) -> Lineage {
        Lineage { database: 1, incarnation: 0, timeline: 0 }
    }

    fn next_flow_row(&self) -> FlowRow {
        let mut tables = self.0.disk.tables.lock();
        tables.next_flow += 1;
        FlowRow(tables.next_flow)
    }

    fn next_initiation(&self) -> i64 {
        let mut tables = self.0.disk.tables.lock();
        tables.next_initiation += 1;
        tables.next_initiation
    }

    async fn close(&self) {}
}

#[async_trait]
impl IdentityReader for Database {
    async fn identities(&self) -> Result<Vec<IdentityRecord>, StoreError> {
        self.read(|tables| tables.identity_rows().cloned().collect()).await
    }

    async fn due(&self, _now: i64) -> Result<(Vec<(IdentityRow, i64)>, Option<i64>), StoreError> {
        // A host of a simulation is alone.
        Ok((Vec::new(), None))
    }

    async fn left_work(&self, _now: i64) -> Result<Vec<LeftWork>, StoreError> {
        self.read(Tables::left_work).await
    }
}

fn live_flow(record: &FlowRecord) -> LiveFlow {
    LiveFlow { row: record.row, identity: record.identity, state: record.state }
}

#[async_trait]
impl FlowReader for Database {
    async fn live_flows(&self) -> Result<Vec<LiveFlow>, StoreError> {
        self.read(|tables| tables.live_rows().map(live_flow).collect()).await
    }

    async fn live_flows_of(
        &self,
        identity: IdentityRow,
        after: Option<FlowRow>,
        limit: u32,
    ) -> Result<Vec<LiveFlow>, StoreError> {
        self.read(|tables| {
            let of_identity = tables.live_rows().filter(|flow| flow.identity == identity && Some(flow.row) > after);
            of_identity.take(limit as usize).map(live_flow).collect()
        })
        .await
    }

    async fn live_counts(&self, identities: &[IdentityRow]) -> Result<Vec<(IdentityRow, u64)>, StoreError> {
        let count = |tables: &Tables| {
            let mut counts: BTreeMap<IdentityRow, u64> = BTreeMap::new();
            for flow in tables.live_rows().filter(|flow| identities.contains(&flow.identity)) {
                *counts.entry(flow.identity).or_default() += 1;
            }
            counts.into_iter().collect()
        };
        self.read(count).await
    }

    async fn live_states(&self) -> Result<Vec<(FlowState, u64)>, StoreError> {
        let count = |tables: &Tables| {
            let mut counts: BTreeMap<i64, (FlowState, u64)> = BTreeMap::new();
            for flow in tables.live_rows() {
                counts.entry(flow.state as i64).or_insert((flow.state, 0)).1 += 1;
            }
            counts.into_values().collect()
        };
        self.read(count).await
    }

    async fn flow(&self, row: FlowRow) -> Result<Option<FlowRecord>, StoreError> {
        self.read(|tables| tables.flow(row)).await
    }

    async fn flows(&self, rows: &[FlowRow]) -> Result<Vec<FlowRecord>, StoreError> {
        let without_bodies = |record| FlowRecord { start: Bytes::new(), end: None, labels: None, ..record };
        self.read(|tables| rows.iter().filter_map(|row| tables.flow(*row).map(without_bodies)).collect()).await
    }

    async fn starts(&self, rows: &[FlowRow]) -> Result<Vec<(FlowRow, Bytes)>, StoreError> {
        let start = |record: FlowRecord| (record.row, record.start);
        self.read(|tables| rows.iter().filter_map(|row| tables.flow(*row).map(start)).collect()).await
    }

    async fn list_flows(&self, _filter: &FlowFilter) -> Result<Vec<FlowRecord>, StoreError> {
        Ok(Vec::new())
    }
}

#[async_trait]
impl JournalReader for Database {
    async fn journal(&self, row: FlowRow) -> Result<Option<StoredJournal>, StoreError> {
        self.read(|tables| tables.journal(row)).await
    }

    async fn journal_within(&self, row: FlowRow, _most: u64) -> Result<Option<SizedJournal>, StoreError> {
        Ok(self.journal(row).await?.map(|journal| SizedJournal::Whole(Box::new(journal))))
    }

    async fn heads(&self, rows: &[FlowRow]) -> Result<Vec<Head>, StoreError> {
        if !rows.is_empty() {
            self.0.faults.defect(30);
        }
        self.read(|tables| rows.iter().map(|row| tables.head(*row)).collect()).await
    }
}

#[async_trait]
impl MessageReader for Database {
    async fn initiations(
        &self,
        identity: IdentityRow,
        after: i64,
        limit: u32,
    ) -> Result<Vec<(i64, Bytes)>, StoreError> {
        self.0.faults.defect(60);
        self.read(|tables| tables.initiations_of(identity, after).take(limit as usize).collect()).await
    }

    async fn first_initiations(&self) -> Result<Vec<(IdentityRow, i64)>, StoreError> {
        self.read(Tables::first_initiations).await
    }

    async fn oldest_outbox(&self) -> Result<Option<i64>, StoreError> {
        // Nobody looks at a simulation.
        Ok(None)
    }

    async fn late_confirms(
        &self,
        identity: IdentityRow,
        after: Option<SessionId>,
        limit: u32,
    ) -> Result<Vec<LateConfirm>, StoreError> {
        let is_behind = |confirm: &LateConfirm| after.is_none_or(|after| confirm.session > after);
        let limit = limit as usize;
        self.read(|tables| tables.late_confirms_of(identity).filter(is_behind).take(limit).collect()).await
    }

    async fn outbox(&self, after: i64, limit: u32) -> Result<Vec<OutboxRow>, StoreError> {
        let rows = |tables: &Tables| tables.outbox_rows().range(after + 1..).map(|(_, row)| row.clone()).collect();
        let mut rows: Vec<OutboxRow> = self.read(rows).await?;
        rows.truncate(limit as usize);
        Ok(rows)
    }

    async fn outbox_destinations(&self, _after: &str, _limit: u32) -> Result<Vec<OutboxDestination>, StoreError> {
        Ok(Vec::new())
    }

    async fn outbox_to(&self, destination: &str, after: i64, limit: u32) -> Result<Vec<OutboxRow>, StoreError> {
        let held = |tables: &Tables| {
            let held = tables.identity_rows().filter(|record| record.claim.run == tables.run());
            held.map(|record| record.row).collect()
        };
        let held: HashSet<IdentityRow> = self.read(held).await?;
        let mut rows = self.outbox(after, u32::MAX).await?;
        rows.retain(|row| &*row.destination == destination && held.contains(&row.identity));
        rows.truncate(limit as usize);
        Ok(rows)
    }
}

/// Nobody asks for the audit trail of the simulation.
#[async_trait]
impl AuditReader for Database {
    async fn audit(&self, _filter: &AuditFilter) -> Result<Vec<(AuditPlace, AuditRow)>, StoreError> {
        Ok(Vec::new())
    }
}

#[async_trait]
impl ClientReader for Database {
    async fn client(&self, identity: IdentityRow, user: &str, client_id: &str) -> Result<Option<FlowRow>, StoreError> {
        self.read(|tables| tables.client_of(identity, user, client_id)).await
    }

    async fn client_uses(&self, _user: &str, _client_id: &str) -> Result<Vec<(IdentityRow, FlowRow)>, StoreError> {
        Ok(Vec::new())
    }

    async fn clients(
        &self,
        _identity: IdentityRow,
        _user: &str,
        _after: &str,
        _limit: u32,
    ) -> Result<Vec<Client>, StoreError> {
        Ok(Vec::new())
    }
}
