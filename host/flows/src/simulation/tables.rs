//! The rows of a simulated database: maps in memory, which the rules of the store read and write as they do those of a
//! real one. Changes can be undone, by unit and by transaction.

use std::collections::BTreeMap;

use bytes::Bytes;
use maxhost_model::{FlowRow, IdentityRow, RunId, SecureHash, SessionId};
use maxhost_store::ledger::Imports;
use maxhost_store::{
    AuditRow, Backlog, Claim, End, FlowRecord, FlowState, FlowVersion, HostRows, IdentityRecord, LateConfirm,
    LeftBehind, LeftWork, NOBODY, NewFlow, Orphan, OutboxContent, OutboxRow, Quotas, ResultRead, Rows, StateChange,
    StoredJournal, UNCLAIMED, Untaken, UntakenCount, Waiting,
};

use super::ledger_tables::{LEDGER_TABLES, LedgerTables};
use super::table::Table;

/// What a fault of the database would be; there is none in here.
type Answer<T> = Result<T, maxhost_group_commit::Fault>;

/// The rows of one simulated database.
#[derive(Default)]
pub(super) struct Tables {
    /// How many hosts have opened it.
    runs: i64,
    pub identities: Table<IdentityRow, IdentityRecord>,
    pub live: Table<FlowRow, FlowRecord>,
    pub ended: Table<FlowRow, FlowRecord>,
    pub log: Table<(FlowRow, u32), Bytes>,
    pub inbox: Table<(SessionId, u32), Bytes>,
    pub initiations: Table<(IdentityRow, i64), Bytes>,
    pub late_confirms: Table<(IdentityRow, SessionId), Bytes>,
    pub outbox: Table<i64, OutboxRow>,
    pub processed: Table<(IdentityRow, [u8; 16]), ()>,
    pub clients: Table<(IdentityRow, String, String), FlowRow>,
    pub ledger: LedgerTables,
    pub(super) backlog: Backlog,
    pub next_flow: i64,
    pub next_initiation: i64,
    observed_flow: i64,
    observed_initiation: i64,
    next_outbox: i64,
}

/// A point in a transaction to which [`Tables::undo_to`] goes back.
#[derive(Default, Clone, Copy)]
pub(super) struct Mark {
    rows: [usize; 10],
    ledger: [usize; LEDGER_TABLES],
}

impl Tables {
    /// A host opens the database.
    pub fn begin_run(&mut self) {
        self.runs += 1;
        self.backlog = Backlog::new(Quotas::default());
        for ((identity, _), body) in &self.initiations.rows {
            self.backlog.load_initiations(*identity, 1, body.len() as u64);
        }
        for row in self.outbox.rows.values() {
            self.backlog.load_outbox(row.identity, 1, row.content.body().len() as u64);
        }
        for flow in self.ledger.holders() {
            self.backlog.load_holder(flow);
        }
    }

    /// A point to which [`Tables::undo_to`] goes back.
    pub fn mark(&self) -> Mark {
        let rows = [
            self.identities.mark(),
            self.live.mark(),
            self.ended.mark(),
            self.log.mark(),
            self.inbox.mark(),
            self.initiations.mark(),
            self.late_confirms.mark(),
            self.outbox.mark(),
            self.processed.mark(),
            self.clients.mark(),
        ];
        Mark { rows, ledger: self.ledger.mark() }
    }

    pub fn undo_to(&mut self, Mark { rows: mark, ledger }: Mark) {
        self.ledger.undo_to(ledger);
        self.identities.undo_to(mark[0]);
        self.live.undo_to(mark[1]);
        self.ended.undo_to(mark[2]);
        self.log.undo_to(mark[3]);
        self.inbox.undo_to(mark[4]);
        self.initiations.undo_to(mark[5]);
        self.late_confirms.undo_to(mark[6]);
        self.outbox.undo_to(mark[7]);
        self.processed.undo_to(mark[8]);
        self.clients.undo_to(mark[9]);
    }

    /// The transaction is over.
    pub fn ended(&mut self, committed: bool) {
        if !committed {
            self.undo_to(Mark::default());
        }
        self.backlog.ended(committed);
        self.identities.keep();
        self.live.keep();
        self.ended.keep();
        self.log.keep();
        self.inbox.keep();
        self.initiations.keep();
        self.late_confirms.keep();
        self.outbox.keep();
        self.processed.keep();
        self.clients.keep();
        self.ledger.keep();
    }

    pub fn flow(&self, row: FlowRow) -> Option<FlowRecord> {
        self.live.rows.get(&row).or_else(|| self.ended.rows.get(&row)).cloned()
    }

    pub fn journal(&self, row: FlowRow) -> Option<StoredJournal> {
        let record = self.flow(row)?;
        let log = self.log.rows.range((row, 0)..=(row, u32::MAX)).map(|((_, seq), body)| (*seq, body.clone()));
        let inbox = self.inbox.rows.range(sessions(row)).map(|((session, seq), body)| (*session, *seq, body.clone()));
        Some(StoredJournal { record, log: log.collect(), inbox: inbox.collect() })
    }

    pub fn head(&self, row: FlowRow) -> maxhost_store::Head {
        let last = self.log.rows.range((row, 0)..=(row, u32::MAX)).next_back();
        let mut newest: BTreeMap<SessionId, u32> = BTreeMap::new();
        for (session, seq) in self.inbox.rows.range(sessions(row)).map(|(key, _)| *key) {
            newest.insert(session, seq);
        }
        let last = last.map(|((_, seq), body)| (*seq, body.clone()));
        maxhost_store::Head { flow: row, last, inbox: newest.into_iter().collect() }
    }

    pub fn live_rows(&self) -> impl Iterator<Item = &FlowRecord> {
        self.live.rows.values()
    }

    pub fn ended_rows(&self) -> impl Iterator<Item = &FlowRecord> {
        self.ended.rows.values()
    }

    pub fn identity_rows(&self) -> impl Iterator<Item = &IdentityRecord> {
        self.identities.rows.values()
    }

    pub fn outbox_rows(&self) -> &BTreeMap<i64, OutboxRow> {
        &self.outbox.rows
    }

    pub fn initiations_of(&self, identity: IdentityRow, after: i64) -> impl Iterator<Item = (i64, Bytes)> {
        let rows = self.initiations.rows.range((identity, after.saturating_add(1))..=(identity, i64::MAX));
        rows.map(|((_, id), body)| (*id, body.clone()))
    }

    pub fn first_initiations(&self) -> Vec<(IdentityRow, i64)> {
        let mut found: Vec<(IdentityRow, i64)> = self.initiations.rows.keys().copied().collect();
        found.dedup_by_key(|(identity, _)| *identity);
        found
    }

    pub fn left_work(&self) -> Vec<LeftWork> {
        let left = |record: &IdentityRecord| {
            let identity = record.row;
            let initiations = self.initiations_of(identity, 0).next().is_some();
            let late_confirms = self.late_confirms_of(identity).next().is_some();
            let outbox = self.outbox.rows.values().any(|row| row.identity == identity);
            let any = initiations || late_confirms || outbox;
            any.then_some(LeftWork { identity, initiations, late_confirms, outbox, due: false })
        };
        self.identities.rows.values().filter_map(left).collect()
    }

    pub fn late_confirms_of(&self, identity: IdentityRow) -> impl Iterator<Item = LateConfirm> {
        let of = move |((owner, _), _): &(&(IdentityRow, SessionId), &Bytes)| *owner == identity;
        let rows = self.late_confirms.rows.iter().filter(of);
        rows.map(|((_, session), body)| LateConfirm { session: *session, body: body.clone() })
    }

    pub fn client_of(&self, identity: IdentityRow, user: &str, client_id: &str) -> Option<FlowRow> {
        self.clients.rows.get(&(identity, user.to_owned(), client_id.to_owned())).copied()
    }

    /// What is left over, in words; empty if nothing is.
    pub fn left_over(&self) -> String {
        let mut left = String::new();
        for record in self.live.rows.values() {
            let FlowRecord { row, name, identity, state, reason, .. } = record;
            left += &format!("flow {} ({name}) of {}: {state:?} {reason:?}; ", row.0, identity.0);
        }
        let mut rows = |what: &str, count: usize| {
            if count > 0 {
                left += &format!("{count} {what}; ");
            }
        };
        if super::is_verbose() {
            for ((session, seq), body) in &self.inbox.rows {
                eprintln!("inbox {}/{} {seq}: {body:?}", session.flow().0, session.index());
            }
        }
        rows("initiations", self.initiations.rows.len());
        rows("late confirmations", self.late_confirms.rows.len());
        rows("outbox rows", self.outbox.rows.len());
        if self.live.rows.is_empty() {
            rows("log segments of flows that have ended", self.log.rows.len());
            rows("messages of flows that have ended", self.inbox.rows.len());
        }
        left
    }
}

fn sessions(row: FlowRow) -> std::ops::RangeInclusive<(SessionId, u32)> {
    (row.session(0), 0)..=(row.session(u16::MAX), u32::MAX)
}

impl Rows for Tables {
    fn run(&self) -> RunId {
        RunId(self.runs)
    }

    fn backlog(&mut self) -> &mut Backlog {
        &mut self.backlog
    }

    fn claim(&mut self, identity: IdentityRow) -> Answer<Option<Claim>> {
        Ok(self.identities.rows.get(&identity).map(|record| record.claim))
    }

    fn identity(&mut self, identity: IdentityRow) -> Answer<Option<IdentityRecord>> {
        Ok(self.identities.rows.get(&identity).cloned())
    }

    fn release(&mut self, identity: IdentityRow, wake_at: Option<i64>) -> Answer<()> {
        if let Some(record) = self.identities.rows.get(&identity).cloned() {
            let claim = Claim { run: NOBODY, ..record.claim };
            self.identities.put(identity, IdentityRecord { claim, wake_at, unclean: 0, ..record });
        }
        Ok(())
    }

    fn left_behind(&mut self, identity: IdentityRow) -> Answer<LeftBehind> {
        let inbound =
            self.initiations_of(identity, 0).next().is_some() || self.late_confirms_of(identity).next().is_some();
        let outbox = self.outbox.rows.values().any(|row| row.identity == identity);
        Ok(LeftBehind { inbound, outbox })
    }

    fn observe_flow(&mut self, row: FlowRow) -> bool {
        let is_new = row.0 > self.observed_flow;
        self.observed_flow = self.observed_flow.max(row.0);
        is_new
    }

    fn observe_initiation(&mut self, id: i64) -> bool {
        let is_new = id > self.observed_initiation;
        self.observed_initiation = self.observed_initiation.max(id);
        is_new
    }

    fn live_flow(&mut self, flow: FlowRow) -> Answer<Option<IdentityRow>> {
        Ok(self.live.rows.get(&flow).map(|record| record.identity))
    }

    fn has_ended(&mut self, flow: FlowRow) -> Answer<bool> {
        Ok(self.ended.rows.contains_key(&flow))
    }

    fn add_flow(&mut self, identity: IdentityRow, new: &NewFlow) -> Answer<()> {
        let record = FlowRecord {
            row: new.row,
            id: new.id,
            identity,
            state: FlowState::Live,
            name: new.name.to_string(),
            user: new.user.clone(),
            client_id: new.client_id.clone(),
            started: new.started,
            finished: None,
            expires: None,
            attempts: 0,
            reason: None,
            revision: 0,
            result_read: None,
            start: new.start.clone(),
            end: None,
            labels: None,
        };
        self.live.put(new.row, record);
        Ok(())
    }

    fn add_segment(&mut self, flow: FlowRow, seq: u32, body: &Bytes) -> Answer<bool> {
        Ok(self.log.add((flow, seq), body.clone()))
    }

    fn version(&mut self, flow: FlowRow) -> Answer<FlowVersion> {
        let segment = self.log.rows.range((flow, 0)..=(flow, u32::MAX)).next_back().map(|((_, seq), _)| *seq);
        Ok(FlowVersion { segment, revision: self.live.rows.get(&flow).map_or(0, |record| record.revision) })
    }

    fn set_state(&mut self, flow: FlowRow, change: &StateChange<'_>) -> Answer<()> {
        if let Some(record) = self.live.rows.get(&flow).cloned() {
            let (state, reason) = (change.state, change.reason.map(str::to_owned));
            let (attempts, revision) = (change.attempts, record.revision + 1);
            self.live.put(flow, FlowRecord { state, reason, attempts, revision, ..record });
        }
        Ok(())
    }

    fn note_waiting(&mut self, _flow: FlowRow, _waiting: Waiting) -> Answer<()> {
        Ok(())
    }

    fn end_flow(&mut self, identity: IdentityRow, flow: FlowRow, end: &End<'_>) -> Answer<bool> {
        if self.live.rows.get(&flow).is_none_or(|record| record.identity != identity) {
            return Ok(false);
        }
        let Some(record) = self.live.take(&flow) else { return Ok(false) };
        self.log.take_range((flow, 0)..=(flow, u32::MAX));
        self.inbox.take_range(sessions(flow));
        match end.keep {
            Some(keep) => {
                let (state, finished, end) = (end.state, Some(end.finished), Some(keep.end.clone()));
                self.ended.put(flow, FlowRecord { state, finished, end, ..record });
            }
            None => {
                if let (Some(user), Some(client_id)) = (record.user, record.client_id) {
                    self.clients.take(&(identity, user, client_id));
                }
            }
        }
        Ok(true)
    }

    fn drop_ended(&mut self, identity: IdentityRow, flow: FlowRow) -> Answer<bool> {
        match self.ended.rows.get(&flow) {
            Some(record) if record.identity == identity => Ok(self.ended.take(&flow).is_some()),
            _ => Ok(false),
        }
    }

    fn add_message(&mut self, session: SessionId, seq: u32, body: &Bytes) -> Answer<bool> {
        Ok(self.inbox.add((session, seq), body.clone()))
    }

    fn first_message(&mut self, session: SessionId) -> Answer<Option<Bytes>> {
        Ok(self.inbox.rows.get(&(session, 0)).cloned())
    }

    fn add_initiation(&mut self, to: IdentityRow, id: i64, body: &Bytes, _new: bool) -> Answer<bool> {
        Ok(self.initiations.add((to, id), body.clone()))
    }

    fn take_initiation(&mut self, identity: IdentityRow, id: i64) -> Answer<Option<u64>> {
        Ok(self.initiations.take(&(identity, id)).map(|body| body.len() as u64))
    }

    fn add_late_confirm(&mut self, identity: IdentityRow, session: SessionId, body: &Bytes) -> Answer<bool> {
        Ok(self.late_confirms.add((identity, session), body.clone()))
    }

    fn take_late_confirm(&mut self, identity: IdentityRow, session: SessionId) -> Answer<Option<u64>> {
        Ok(self.late_confirms.take(&(identity, session)).map(|body| body.len() as u64))
    }

    fn add_outbox(&mut self, sender: IdentityRow, destination: &str, content: &OutboxContent) -> Answer<()> {
        self.next_outbox += 1;
        let (id, destination, content) = (self.next_outbox, destination.into(), content.clone());
        self.outbox.put(id, OutboxRow { id, identity: sender, destination, content });
        Ok(())
    }

    fn take_outbox(&mut self, sender: IdentityRow, id: i64, _marker: Option<i64>) -> Answer<Option<u64>> {
        match self.outbox.rows.get(&id) {
            Some(row) if row.identity == sender => Ok(self.outbox.take(&id).map(|row| row.content.body().len() as u64)),
            _ => Ok(None),
        }
    }

    fn add_processed(&mut self, identity: IdentityRow, message_id: &[u8; 16]) -> Answer<bool> {
        Ok(self.processed.add((identity, *message_id), ()))
    }

    fn client(&mut self, identity: IdentityRow, user: &str, client_id: &str) -> Answer<Option<FlowRow>> {
        Ok(self.client_of(identity, user, client_id))
    }

    fn add_client(&mut self, identity: IdentityRow, user: &str, client_id: &str, flow: FlowRow) -> Answer<bool> {
        Ok(self.clients.add((identity, user.to_owned(), client_id.to_owned()), flow))
    }

    fn remove_client(&mut self, identity: IdentityRow, user: &str, client_id: &str) -> Answer<()> {
        self.clients.take(&(identity, user.to_owned(), client_id.to_owned()));
        Ok(())
    }
}

impl HostRows for Tables {
    fn add_identity(&mut self, name: &str) -> Answer<IdentityRow> {
        if let Some(record) = self.identities.rows.values().find(|record| record.name == name) {
            return Ok(record.row);
        }
        let row = IdentityRow(self.identities.rows.len() as i64 + 1);
        let (name, claim) = (name.to_owned(), UNCLAIMED);
        let record = IdentityRecord { row, name, claim, wake_at: None, unclean: 0, moved_to: None, key_fp: None };
        self.identities.put(row, record);
        Ok(row)
    }

    fn set_claim(&mut self, identity: IdentityRow, claim: Claim, key_fp: Option<&[u8; 32]>) -> Answer<()> {
        if let Some(record) = self.identities.rows.get(&identity).cloned() {
            let (key_fp, unclean) = (record.key_fp.or(key_fp.copied()), record.unclean + 1);
            self.identities.put(identity, IdentityRecord { claim, wake_at: None, unclean, key_fp, ..record });
        }
        Ok(())
    }

    fn set_unclean(&mut self, identity: IdentityRow, unclean: u32) -> Answer<()> {
        if let Some(record) = self.identities.rows.get(&identity).cloned() {
            self.identities.put(identity, IdentityRecord { unclean, ..record });
        }
        Ok(())
    }

    fn expire(&mut self, _limit: u32) -> Answer<u64> {
        Ok(0)
    }

    fn forget_processed(&mut self, _limit: u32) -> Answer<u64> {
        Ok(0)
    }

    fn drop_orphans(&mut self, _limit: u32) -> Answer<Vec<Orphan>> {
        Ok(Vec::new())
    }

    fn note_result_read(&mut self, _read: &ResultRead) -> Answer<()> {
        Ok(())
    }

    fn note_untaken(&mut self, _untaken: &Untaken) -> Answer<UntakenCount> {
        // Nothing of a simulation is damaged for good.
        Ok(UntakenCount::default())
    }

    fn imports(&mut self, _identity: IdentityRow, _id: &SecureHash) -> Answer<Imports> {
        // No client of a simulation imports anything.
        Ok(Imports::default())
    }

    fn add_audit(&mut self, _rows: &[AuditRow]) -> Answer<()> {
        Ok(())
    }

    fn forget_audit(&mut self, _limit: u32) -> Answer<u64> {
        Ok(0)
    }
}
