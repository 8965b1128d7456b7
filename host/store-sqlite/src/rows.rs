//! The rows of one SQLite file within a transaction, for the rules of the store.

mod backlog;
mod ends;
mod host;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use maxhost_group_commit::{Failure, Fault};
use maxhost_model::{FlowRow, IdentityRow, SessionId};
use maxhost_sqlite::{SqliteError, Writer};
use maxhost_store::{
    AuditBounds, Backlog, Claim, End, FencingToken, FlowVersion, IdAllocator, IdentityRecord, Job, LeftBehind, NOBODY,
    NewFlow, OutboxContent, Outcome, Quotas, Rows, RunId, StateChange, StoreError, Waiting, rules,
};
use rusqlite::{Connection, OptionalExtension, Row, Statement, params};

use self::backlog::load_backlog;
use crate::ledger_statements::LedgerStatements;
use crate::statements::Statements;
use crate::write_buffer::{self, LOG, WriteBuffer};

/// How often the time that hosts have run is noted, ms.
const LIVED_EVERY: i64 = 60_000;

/// The committer's view of the file. It writes alone, so what it remembers of the database stays true until a transaction
/// fails or `data_version` says that somebody else has written.
pub(crate) struct SqliteRows<'c> {
    sql: Statements<'c>,
    pub(crate) ledger: LedgerStatements<'c>,
    run: RunId,
    claims: HashMap<IdentityRow, Claim>,
    /// The version for which `claims` holds; `None`: they must be read again.
    version: Option<i64>,
    flows: IdAllocator,
    initiations: IdAllocator,
    outbox: IdAllocator,
    pub(crate) backlog: Backlog,
    lived: Lived,
    processed_retention: i64,
    audit: AuditBounds,
    buffer: WriteBuffer,
    /// What begins may be kept in `buffer`. Not where units are undone one by one: only the database can do that.
    keeps_back: bool,
}

/// The time for which hosts have run on this database: it never jumps.
struct Lived {
    /// As it was noted, ms.
    noted: i64,
    /// As it was when this host started, ms.
    base: i64,
    since: Instant,
}

impl Lived {
    fn now(&self) -> i64 {
        self.base.saturating_add(i64::try_from(self.since.elapsed().as_millis()).unwrap_or(i64::MAX))
    }
}

/// Numbers that a host starts with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Numbers {
    pub run: RunId,
    pub next_flow: i64,
    pub next_initiation: i64,
    /// The time that hosts had run when this run began, ms, and when that was.
    pub lived: (i64, Instant),
}

impl<'c> SqliteRows<'c> {
    /// Begins a run.
    pub(crate) fn open(
        conn: &'c Connection,
        quotas: Quotas,
        processed_retention: Duration,
        audit: AuditBounds,
    ) -> Result<SqliteRows<'c>, SqliteError> {
        let meta = |key: &str| conn.query_row("SELECT value FROM meta WHERE key = ?1", [key], |row| row.get(0));
        let run: i64 =
            conn.query_row("UPDATE meta SET value = value + 1 WHERE key = 'run' RETURNING value", [], |r| r.get(0))?;
        let lived = meta("lived")?;
        Ok(SqliteRows {
            sql: Statements::prepare(conn)?,
            ledger: LedgerStatements::prepare(conn)?,
            run: RunId(run),
            claims: HashMap::new(),
            version: None,
            flows: IdAllocator::new(meta("flow")?),
            initiations: IdAllocator::new(meta("initiation")?),
            outbox: IdAllocator::new(meta("outbox")?),
            backlog: load_backlog(conn, quotas)?,
            lived: Lived { noted: lived, base: lived, since: Instant::now() },
            processed_retention: i64::try_from(processed_retention.as_millis()).unwrap_or(i64::MAX),
            audit,
            buffer: WriteBuffer::default(),
            keeps_back: false,
        })
    }

    /// The number of this run, and the first numbers that were never used.
    pub(crate) fn numbers(&self) -> Numbers {
        Numbers {
            run: self.run,
            next_flow: self.flows.next(),
            next_initiation: self.initiations.next(),
            lived: (self.lived.base, self.lived.since),
        }
    }

    fn read_claims(&mut self) -> Result<(), SqliteError> {
        // The version changes when another connection commits. Inside this transaction nobody can, so claims that were
        // read at this version are the ones in the database now.
        let version: i64 = self.sql.data_version.query_row([], |row| row.get(0))?;
        if self.version != Some(version) {
            self.claims.clear();
            let mut rows = self.sql.all_claims.query([])?;
            while let Some(row) = rows.next()? {
                self.claims.insert(IdentityRow(row.get(0)?), claim(row, 1)?);
            }
            self.version = Some(version);
        }
        Ok(())
    }

    fn write_back(&mut self) -> Result<(), SqliteError> {
        self.buffer.write(&mut self.sql)?;
        let marks = [("flow", &mut self.flows), ("initiation", &mut self.initiations), ("outbox", &mut self.outbox)];
        for (key, ids) in marks {
            if let Some(mark) = ids.seal() {
                self.sql.set_meta.execute(params![key, mark])?;
            }
        }
        let lived = self.lived.now();
        if lived - self.lived.noted >= LIVED_EVERY {
            self.sql.set_meta.execute(params!["lived", lived])?;
            self.lived.noted = lived;
        }
        Ok(())
    }
}

/// A claim, from its three columns.
fn claim(row: &Row<'_>, first: usize) -> rusqlite::Result<Claim> {
    let token = FencingToken { generation: row.get(first)?, epoch: row.get(first + 1)? };
    Ok(Claim { token, run: row.get::<_, Option<i64>>(first + 2)?.map_or(NOBODY, RunId) })
}

fn identity_record(row: &Row<'_>) -> rusqlite::Result<IdentityRecord> {
    Ok(IdentityRecord {
        row: IdentityRow(row.get(0)?),
        name: row.get(1)?,
        claim: claim(row, 2)?,
        wake_at: row.get(5)?,
        unclean: row.get(6)?,
        moved_to: row.get(7)?,
        key_fp: row.get(8)?,
    })
}

pub(crate) fn fault(error: rusqlite::Error) -> Fault {
    SqliteError::from(error).into()
}

/// Whether one row was changed.
fn changed(result: rusqlite::Result<usize>) -> Result<bool, Fault> {
    result.map(|changed| changed > 0).map_err(fault)
}

impl Rows for SqliteRows<'_> {
    fn run(&self) -> RunId {
        self.run
    }

    fn backlog(&mut self) -> &mut Backlog {
        &mut self.backlog
    }

    fn claim(&mut self, identity: IdentityRow) -> Result<Option<Claim>, Fault> {
        Ok(self.claims.get(&identity).copied())
    }

    fn identity(&mut self, identity: IdentityRow) -> Result<Option<IdentityRecord>, Fault> {
        self.sql.identity.query_row([identity.0], identity_record).optional().map_err(fault)
    }

    fn release(&mut self, identity: IdentityRow, wake_at: Option<i64>) -> Result<(), Fault> {
        self.sql.release.execute(params![identity.0, wake_at]).map_err(fault)?;
        if let Some(claim) = self.claims.get_mut(&identity) {
            claim.run = NOBODY;
        }
        Ok(())
    }

    fn left_behind(&mut self, identity: IdentityRow) -> Result<LeftBehind, Fault> {
        let read = |row: &Row<'_>| Ok(LeftBehind { inbound: row.get(0)?, outbox: row.get(1)? });
        let left = self.sql.left_behind.query_row([identity.0], read).map_err(fault)?;
        Ok(LeftBehind { inbound: left.inbound || self.buffer.has_initiations(identity), ..left })
    }

    fn observe_flow(&mut self, row: FlowRow) -> bool {
        self.flows.observe(row.0)
    }

    fn observe_initiation(&mut self, id: i64) -> bool {
        self.initiations.observe(id)
    }

    fn live_flow(&mut self, flow: FlowRow) -> Result<Option<IdentityRow>, Fault> {
        if let Some(buffered) = self.buffer.flow(flow) {
            return Ok(Some(buffered.identity));
        }
        let mut rows = self.sql.live_flow.query([flow.0]).map_err(fault)?;
        let found = rows.next().map_err(fault)?;
        found.map(|row| row.get(0).map(IdentityRow)).transpose().map_err(fault)
    }

    fn has_ended(&mut self, flow: FlowRow) -> Result<bool, Fault> {
        self.sql.is_ended.exists([flow.0]).map_err(fault)
    }

    fn add_flow(&mut self, identity: IdentityRow, new: &NewFlow) -> Result<(), Fault> {
        if self.keeps_back {
            self.buffer.start(identity, new);
        } else {
            write_buffer::start_flow(&mut self.sql, identity, new).map_err(fault)?;
        }
        Ok(())
    }

    fn add_segment(&mut self, flow: FlowRow, seq: u32, body: &Bytes) -> Result<bool, Fault> {
        if let Some(buffered) = self.buffer.flow_mut(flow) {
            return Ok(buffered.append_log(seq, body));
        }
        changed(self.sql.add_segment.execute(params![flow.0, seq, LOG, &body[..]]))
    }

    fn version(&mut self, flow: FlowRow) -> Result<FlowVersion, Fault> {
        if let Some(buffered) = self.buffer.flow(flow) {
            return Ok(buffered.version());
        }
        let read = |row: &Row<'_>| Ok(FlowVersion { segment: row.get(0)?, revision: row.get(1)? });
        self.sql.version.query_row([flow.0], read).optional().map(Option::unwrap_or_default).map_err(fault)
    }

    fn set_state(&mut self, flow: FlowRow, change: &StateChange<'_>) -> Result<(), Fault> {
        if let Some(buffered) = self.buffer.flow_mut(flow) {
            buffered.set_state(change);
            return Ok(());
        }
        let row = params![flow.0, change.state as i64, change.reason, change.attempts];
        self.sql.set_state.execute(row).map(drop).map_err(fault)
    }

    fn note_waiting(&mut self, flow: FlowRow, waiting: Waiting) -> Result<(), Fault> {
        if let Some(buffered) = self.buffer.flow_mut(flow) {
            buffered.note_waiting(waiting);
            return Ok(());
        }
        let row = params![flow.0, waiting.messages.cast_signed(), waiting.bytes.cast_signed()];
        self.sql.note_waiting.execute(row).map(drop).map_err(fault)
    }

    fn end_flow(&mut self, identity: IdentityRow, flow: FlowRow, end: &End<'_>) -> Result<bool, Fault> {
        match self.buffer.end(identity, flow) {
            Some(buffered) => {
                self.end_buffered(identity, flow, end, &buffered)?;
                Ok(true)
            }
            None => Ok(self.end_stored(identity, flow, end)?),
        }
    }

    fn drop_ended(&mut self, identity: IdentityRow, flow: FlowRow) -> Result<bool, Fault> {
        changed(self.sql.drop_ended.execute(params![flow.0, identity.0]))
    }

    fn add_message(&mut self, session: SessionId, seq: u32, body: &Bytes) -> Result<bool, Fault> {
        let flow = session.flow();
        if let Some(buffered) = self.buffer.flow_mut(flow) {
            return Ok(buffered.deliver(session, seq, body));
        }
        changed(self.sql.add_message.execute(params![flow.0, seq, session.index(), &body[..]]))
    }

    fn first_message(&mut self, session: SessionId) -> Result<Option<Bytes>, Fault> {
        if let Some(buffered) = self.buffer.flow(session.flow()) {
            return Ok(buffered.message(session, 0).cloned());
        }
        let key = params![session.flow().0, session.index()];
        let body = self.sql.first_message.query_row(key, |row| row.get::<_, Vec<u8>>(0)).optional().map_err(fault)?;
        Ok(body.map(Bytes::from))
    }

    fn add_initiation(&mut self, to: IdentityRow, id: i64, body: &Bytes, new: bool) -> Result<bool, Fault> {
        if !new
            && (self.buffer.has_initiation(to, id)
                || self.sql.is_initiation.exists(params![to.0, id]).map_err(fault)?)
        {
            return Ok(false);
        }
        if self.keeps_back {
            self.buffer.initiate(to, id, body);
        } else {
            self.sql.initiate.execute(params![to.0, id, &body[..]]).map_err(fault)?;
        }
        Ok(true)
    }

    fn take_initiation(&mut self, identity: IdentityRow, id: i64) -> Result<Option<u64>, Fault> {
        if let Some(bytes) = self.buffer.take_initiation(identity, id) {
            return Ok(Some(bytes));
        }
        let key = params![identity.0, id];
        let bytes = self.sql.initiation_bytes.query_row(key, |row| row.get::<_, i64>(0)).optional().map_err(fault)?;
        if bytes.is_some() {
            self.sql.take_initiation.execute(key).map_err(fault)?;
        }
        Ok(bytes.map(i64::unsigned_abs))
    }

    fn add_late_confirm(&mut self, identity: IdentityRow, session: SessionId, body: &Bytes) -> Result<bool, Fault> {
        changed(self.sql.add_late_confirm.execute(params![identity.0, session.0, &body[..]]))
    }

    fn take_late_confirm(&mut self, identity: IdentityRow, session: SessionId) -> Result<Option<u64>, Fault> {
        removed(&mut self.sql.take_late_confirm, identity.0, session.0)
    }

    fn add_outbox(&mut self, sender: IdentityRow, destination: &str, content: &OutboxContent) -> Result<(), Fault> {
        let id = self.outbox.take();
        let (kind, message_id, session, seq) = match content {
            OutboxContent::Message { message_id, .. } => (0, &message_id[..], None, None),
            OutboxContent::Initiation { .. } => (1, &[][..], None, None),
            OutboxContent::Delivery { session, seq, .. } => (2, &[][..], Some(session.0), Some(*seq)),
        };
        let (body, lived) = (&content.body()[..], self.lived.now());
        let row = params![id, sender.0, destination, message_id, body, kind, session, seq, lived];
        self.sql.add_outbox.execute(row).map(drop).map_err(fault)
    }

    fn take_outbox(&mut self, sender: IdentityRow, id: i64, _marker: Option<i64>) -> Result<Option<u64>, Fault> {
        removed(&mut self.sql.take_outbox, id, sender.0)
    }

    fn add_processed(&mut self, identity: IdentityRow, message_id: &[u8; 16]) -> Result<bool, Fault> {
        changed(self.sql.add_processed.execute(params![identity.0, &message_id[..], self.lived.now()]))
    }

    fn client(&mut self, identity: IdentityRow, user: &str, client_id: &str) -> Result<Option<FlowRow>, Fault> {
        let key = params![identity.0, user, client_id];
        self.sql.find_client.query_row(key, |row| row.get(0).map(FlowRow)).optional().map_err(fault)
    }

    fn add_client(&mut self, identity: IdentityRow, user: &str, client_id: &str, flow: FlowRow) -> Result<bool, Fault> {
        changed(self.sql.add_client.execute(params![identity.0, user, client_id, flow.0]))
    }

    fn remove_client(&mut self, identity: IdentityRow, user: &str, client_id: &str) -> Result<(), Fault> {
        self.sql.remove_client.execute(params![identity.0, user, client_id]).map(drop).map_err(fault)
    }
}

/// The bytes of the row that a statement deletes by a key of two.
fn removed(statement: &mut Statement<'_>, first: i64, second: i64) -> Result<Option<u64>, Fault> {
    // Read to its end: a statement that is not would keep the transaction from committing.
    let mut bytes = None;
    let mut rows = statement.query([first, second]).map_err(fault)?;
    while let Some(row) = rows.next().map_err(fault)? {
        bytes = Some(row.get::<_, i64>(0).map_err(fault)?.unsigned_abs());
    }
    Ok(bytes)
}

impl Writer for SqliteRows<'_> {
    type Unit = Job;
    type Receipt = Outcome;
    type Error = StoreError;

    fn begin(&mut self, singly: bool) -> Result<(), Fault> {
        self.keeps_back = !singly;
        Ok(self.read_claims()?)
    }

    fn unwritten(&self) -> u64 {
        self.buffer.changes()
    }

    fn apply(&mut self, job: &Job, again: bool) -> Result<Outcome, Failure<StoreError>> {
        let outcome = rules::apply(self, job, again);
        if outcome.is_err() && matches!(job, Job::Register { .. } | Job::Claim { .. }) {
            // It is undone, and what was remembered of it must not be believed.
            self.version = None;
        }
        outcome
    }

    fn seal(&mut self) -> Result<(), Fault> {
        Ok(self.write_back()?)
    }

    fn ended(&mut self, committed: bool) {
        for ids in [&mut self.flows, &mut self.initiations, &mut self.outbox] {
            ids.ended(committed);
        }
        self.buffer.forget();
        self.backlog.ended(committed);
        if !committed {
            self.version = None;
        }
    }

    fn finish(job: Job, outcome: Result<Outcome, StoreError>) {
        job.finish(outcome);
    }

    fn closed() -> StoreError {
        StoreError::Closed
    }
}
