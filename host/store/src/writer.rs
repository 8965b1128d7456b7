//! What the committer writes for a unit, row by row.

use std::collections::HashMap;
use std::time::{SystemTime, UNIX_EPOCH};

use maxhost_model::{FlowRow, IdentityRow};
use maxhost_sqlite::{Failure, Fault, FaultKind, Writer};
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, OptionalExtension, Statement, params};
use tokio::sync::oneshot;

use crate::conflict::Conflict;
use crate::error::StoreError;
use crate::fresh::{self, Fresh, FreshFlow};
use crate::marks::Mark;
use crate::record::FlowState;
use crate::statements::Statements;
use crate::unit::{AttemptToken, CommitUnit, Keep, NewFlow, Op, Receipt};

type Failed = Failure<StoreError>;
type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

/// What goes through the committer's queue: every change of the database.
pub(crate) enum Job {
    Unit(CommitUnit),
    Register { names: Vec<String>, reply: Reply<Vec<IdentityRow>> },
    RaiseEpoch { row: IdentityRow, epoch: i64, reply: Reply<()> },
    Purge { now: i64, processed_before: i64, limit: u32, reply: Reply<u64> },
}

impl Job {
    pub(crate) fn bytes(&self) -> usize {
        const SMALL: usize = 256;
        match self {
            Job::Unit(unit) => unit.bytes(),
            Job::Register { names, .. } => SMALL + names.iter().map(|name| name.len() + 24).sum::<usize>(),
            Job::RaiseEpoch { .. } | Job::Purge { .. } => SMALL,
        }
    }
}

/// What a job learns.
pub(crate) enum Outcome {
    Receipt(Receipt),
    Rows(Vec<IdentityRow>),
    Count(u64),
}

/// The committer's memory. It writes alone, so what it remembers of the database stays true until a transaction fails
/// or `data_version` says that somebody else has written.
pub(crate) struct StoreWriter<'c> {
    sql: Statements<'c>,
    epochs: HashMap<IdentityRow, i64>,
    /// The version for which `epochs` holds; `None`: it must be read again.
    version: Option<i64>,
    flows: Mark,
    initiations: Mark,
    outbox: Mark,
    now: i64,
    fresh: Fresh,
    /// What begins may be kept in `fresh`. Not where units are undone one by one: only the database can do that.
    keeps_fresh: bool,
}

/// What the row of a live flow says: attempts, started, tag, name, user, client id, start record.
type LiveRow<'r> = [ValueRef<'r>; 7];

/// How a flow ends.
struct End<'k> {
    identity: IdentityRow,
    flow: FlowRow,
    state: FlowState,
    finished: i64,
    keep: Option<&'k Keep>,
}

impl End<'_> {
    /// Keeps what is to be kept of a flow that is not live any more, or frees its client id.
    fn write(
        &self,
        keep_end: &mut Statement<'_>,
        remove_client: &mut Statement<'_>,
        live: LiveRow<'_>,
    ) -> rusqlite::Result<()> {
        let End { identity, flow, state, finished, keep } = self;
        let [attempts, started, tag, name, user, client_id, start] = live.map(ToSqlOutput::Borrowed);
        match keep {
            Some(Keep { expires, end }) => {
                let (state, end) = (*state as i64, &end[..]);
                keep_end.execute(params![
                    flow.0, identity.0, state, attempts, started, finished, expires, tag, name, user, client_id, start,
                    end
                ])?;
            }
            None if live[5] == ValueRef::Null => {}
            None => {
                remove_client.execute(params![identity.0, client_id])?;
            }
        }
        Ok(())
    }
}

fn refuse(conflict: Conflict) -> Failed {
    Failure::Unit(conflict.into())
}

/// One changed row, or the conflict.
fn one(changed: usize, otherwise: Conflict) -> Result<(), Failed> {
    if changed == 1 { Ok(()) } else { Err(refuse(otherwise)) }
}

/// Turns a violated constraint into the conflict it means here.
fn or_conflict(error: rusqlite::Error, conflict: Conflict) -> Failed {
    let fault = Fault::from(error);
    if fault.kind == FaultKind::Constraint { refuse(conflict) } else { fault.into() }
}

impl<'c> StoreWriter<'c> {
    pub(crate) fn new(conn: &'c Connection) -> Result<StoreWriter<'c>, Fault> {
        Ok(StoreWriter {
            sql: Statements::prepare(conn)?,
            epochs: HashMap::new(),
            version: None,
            flows: Mark::load(conn, "flow")?,
            initiations: Mark::load(conn, "initiation")?,
            outbox: Mark::load(conn, "outbox")?,
            now: 0,
            fresh: Fresh::default(),
            keeps_fresh: false,
        })
    }

    /// The first flow row and the first number of an initiation that were never used.
    pub(crate) fn first_numbers(&self) -> (i64, i64) {
        (self.flows.next(), self.initiations.next())
    }

    fn unit(&mut self, unit: &CommitUnit) -> Result<Receipt, Failed> {
        let identity = unit.identity;
        match self.epochs.get(&identity) {
            Some(&current) if current == unit.epoch => {}
            Some(&current) => {
                return Err(Failure::Unit(StoreError::Fenced { identity, epoch: unit.epoch, current }));
            }
            None => return Err(refuse(Conflict::IdentityUnknown(identity))),
        }
        let mut receipt = Receipt::default();
        for (index, op) in unit.ops.iter().enumerate() {
            self.op(identity, index, op, &mut receipt)?;
        }
        Ok(receipt)
    }

    fn op(&mut self, identity: IdentityRow, index: usize, op: &Op, receipt: &mut Receipt) -> Result<(), Failed> {
        match op {
            Op::AppendLog { flow, seq, body } => {
                if let Some(fresh) = self.fresh.flow(*flow).filter(|fresh| fresh.identity == identity) {
                    let appended = fresh.append_log(*seq, body);
                    return one(appended.into(), Conflict::SegmentExists { flow: *flow, seq: *seq });
                }
                if !self.sql.is_own_live.exists(params![flow.0, identity.0])? {
                    return Err(refuse(Conflict::FlowNotLive(*flow)));
                }
                let appended = self.sql.append.execute(params![flow.0, seq, fresh::LOG, &body[..]]);
                appended.map_err(|e| or_conflict(e, Conflict::SegmentExists { flow: *flow, seq: *seq }))?;
                Ok(())
            }
            Op::Deliver { session, seq, body } => {
                let flow = session.flow().0;
                if let Some(fresh) = self.fresh.flow(session.flow()) {
                    fresh.deliver(*session, *seq, body);
                } else if self.sql.is_live.exists([flow])? {
                    // A message that is there already is the same message.
                    self.sql.deliver.execute(params![flow, seq, session.index(), &body[..]])?;
                } else {
                    receipt.undelivered.push(index);
                }
                Ok(())
            }
            Op::Initiate { to, id, body } => {
                if !self.epochs.contains_key(to) {
                    return Err(refuse(Conflict::IdentityUnknown(*to)));
                }
                let new = self.initiations.observe(*id);
                if !new && (self.fresh.has_initiation(*to, *id) || self.sql.is_initiation.exists(params![to.0, id])?) {
                    return Err(refuse(Conflict::InitiationExists(*id)));
                }
                if self.keeps_fresh {
                    self.fresh.initiate(*to, *id, body);
                } else {
                    self.sql.initiate.execute(params![to.0, id, &body[..]])?;
                }
                Ok(())
            }
            Op::TakeInitiation { id } => {
                if self.fresh.take_initiation(identity, *id) {
                    return Ok(());
                }
                let taken = self.sql.take_initiation.execute(params![identity.0, id])?;
                one(taken, Conflict::InitiationGone(*id))
            }
            Op::Outbox { destination, message_id, body } => {
                let id = self.outbox.take();
                self.sql.add_outbox.execute(params![id, identity.0, &**destination, &message_id[..], &body[..]])?;
                Ok(())
            }
            Op::OutboxSent { id } => {
                self.sql.remove_outbox.execute(params![id, identity.0])?;
                Ok(())
            }
            Op::Arrived { message_id } => {
                match self.sql.arrived.execute(params![identity.0, &message_id[..], self.now])? {
                    0 => Err(Failure::Unit(StoreError::Duplicate)),
                    _ => Ok(()),
                }
            }
            Op::SetState { flow, state, reason, attempts } => {
                if !state.is_live() {
                    return Err(refuse(Conflict::StateNotAllowed));
                }
                if let Some(fresh) = self.fresh.flow(*flow).filter(|fresh| fresh.identity == identity) {
                    fresh.set_state(*state, reason.as_ref(), *attempts);
                    return Ok(());
                }
                let set = self.sql.set_state.execute(params![flow.0, identity.0, *state as i64, reason, attempts])?;
                one(set, Conflict::FlowNotLive(*flow))
            }
            Op::StartFlow(new) => self.start_flow(identity, new),
            Op::EndFlow { flow, state, finished, keep } => {
                self.end_flow(identity, *flow, *state, *finished, keep.as_ref())
            }
            Op::RemoveClient { client_id } => self.remove_client(identity, client_id),
        }
    }

    fn start_flow(&mut self, identity: IdentityRow, new: &NewFlow) -> Result<(), Failed> {
        let row = new.row;
        if row.0 < 1 || row > FlowRow::MAX || new.id.row() != row {
            return Err(refuse(Conflict::RowOutOfRange(row)));
        }
        let unused = self.flows.observe(row.0);
        if let Some(client_id) = &new.client_id
            && self.sql.add_client.execute(params![identity.0, client_id, row.0, new.user])? == 0
        {
            let holder = self.sql.find_client.query_row(params![identity.0, client_id], |r| r.get(0))?;
            return Err(Failure::Unit(StoreError::ClientIdTaken { flow: FlowRow(holder) }));
        }
        if !unused && self.has_flow(row)? {
            return Err(refuse(Conflict::FlowExists(row)));
        }
        if self.keeps_fresh {
            self.fresh.start(identity, new);
        } else {
            fresh::start_flow(&mut self.sql, identity, new)?;
        }
        Ok(())
    }

    /// Whether there is a flow of this row, live or ended.
    fn has_flow(&mut self, row: FlowRow) -> Result<bool, Failed> {
        Ok(self.fresh.has_flow(row) || self.sql.is_live.exists([row.0])? || self.sql.is_ended.exists([row.0])?)
    }

    fn end_flow(
        &mut self,
        identity: IdentityRow,
        flow: FlowRow,
        state: FlowState,
        finished: i64,
        keep: Option<&Keep>,
    ) -> Result<(), Failed> {
        if state.is_live() {
            return Err(refuse(Conflict::StateNotAllowed));
        }
        let end = End { identity, flow, state, finished, keep };
        if let Some(FreshFlow { new, attempts, .. }) = self.fresh.end(identity, flow) {
            let tag = new.id.to_bytes();
            let columns = [
                ValueRef::Integer(attempts.into()),
                ValueRef::Integer(new.started),
                ValueRef::Blob(&tag),
                ValueRef::from(&*new.name),
                new.user.as_deref().into(),
                new.client_id.as_deref().into(),
                ValueRef::Blob(&new.start),
            ];
            return Ok(end.write(&mut self.sql.keep_end, &mut self.sql.remove_client, columns)?);
        }
        let mut live = self.sql.drop_flow.query(params![flow.0, identity.0])?;
        let row = live.next()?.ok_or_else(|| refuse(Conflict::FlowNotLive(flow)))?;
        let mut columns: LiveRow<'_> = [ValueRef::Null; 7];
        for (index, column) in columns.iter_mut().enumerate() {
            *column = row.get_ref(index)?;
        }
        end.write(&mut self.sql.keep_end, &mut self.sql.remove_client, columns)?;
        // A statement that is not read to its end has not ended, and would keep the transaction from committing.
        while live.next()?.is_some() {}
        drop(live);
        self.sql.drop_journal.execute([flow.0])?;
        Ok(())
    }

    fn remove_client(&mut self, identity: IdentityRow, client_id: &str) -> Result<(), Failed> {
        let found = self.sql.find_client.query_row(params![identity.0, client_id], |r| r.get(0)).optional()?;
        let flow = FlowRow(found.ok_or_else(|| refuse(Conflict::ClientUnknown))?);
        let dropped = self.sql.drop_ended.execute(params![flow.0, identity.0])?;
        one(dropped, Conflict::ClientRunning(flow))?;
        self.sql.remove_client.execute(params![identity.0, client_id])?;
        Ok(())
    }

    fn register(&mut self, names: &[String]) -> Result<Vec<IdentityRow>, Failed> {
        let mut rows = Vec::with_capacity(names.len());
        for name in names {
            self.sql.add_identity.execute([name])?;
            let (row, epoch) = self.sql.find_identity.query_row([name], |r| Ok((IdentityRow(r.get(0)?), r.get(1)?)))?;
            self.epochs.insert(row, epoch);
            rows.push(row);
        }
        Ok(rows)
    }

    fn raise_epoch(&mut self, identity: IdentityRow, epoch: i64) -> Result<(), Failed> {
        if self.sql.raise_epoch.execute(params![identity.0, epoch])? == 1 {
            self.epochs.insert(identity, epoch);
            return Ok(());
        }
        match self.epochs.get(&identity) {
            Some(&current) => Err(Failure::Unit(StoreError::Fenced { identity, epoch, current })),
            None => Err(refuse(Conflict::IdentityUnknown(identity))),
        }
    }

    fn purge(&mut self, now: i64, processed_before: i64, limit: u32) -> Result<u64, Failed> {
        let expired: Vec<(i64, Option<String>)> = self
            .sql
            .expire
            .query_map(params![now, limit], |r| Ok((r.get(0)?, r.get(1)?)))?
            .collect::<Result<_, _>>()?;
        for (identity, client_id) in &expired {
            if let Some(client_id) = client_id {
                self.sql.remove_client.execute(params![identity, client_id])?;
            }
        }
        let forgotten = self.sql.forget_processed.execute(params![processed_before, limit])?;
        Ok((expired.len() + forgotten) as u64)
    }
}

impl Writer for StoreWriter<'_> {
    type Unit = Job;
    type Receipt = Outcome;
    type Error = StoreError;

    fn begin(&mut self, singly: bool) -> Result<(), Fault> {
        self.keeps_fresh = !singly;
        // The version changes when another connection commits. Inside this transaction nobody can, so epochs that
        // were read at this version are the ones in the database now.
        let version: i64 = self.sql.data_version.query_row([], |row| row.get(0))?;
        if self.version != Some(version) {
            self.epochs.clear();
            let mut rows = self.sql.all_epochs.query([])?;
            while let Some(row) = rows.next()? {
                self.epochs.insert(IdentityRow(row.get(0)?), row.get(1)?);
            }
            self.version = Some(version);
        }
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.now = i64::try_from(since.as_millis()).unwrap_or(i64::MAX);
        Ok(())
    }

    fn apply(&mut self, job: &Job, again: bool) -> Result<Outcome, Failed> {
        match job {
            Job::Unit(unit) => {
                let attempt = unit.attempt.as_ref();
                // Applied again, a unit may find its attempt revoked by the later unit that caused the repetition.
                if !again && attempt.into_iter().chain(&unit.depends_on).any(AttemptToken::is_revoked) {
                    if let Some(attempt) = attempt {
                        attempt.revoke();
                    }
                    return Err(Failure::Unit(StoreError::Superseded));
                }
                let written = self.unit(unit);
                // At once, not when the unit is told: the next unit of the attempt may be in this very batch.
                if let (Err(_), Some(attempt)) = (&written, attempt) {
                    attempt.revoke();
                }
                written.map(Outcome::Receipt)
            }
            Job::Register { names, .. } => {
                let rows = self.register(names);
                if rows.is_err() {
                    self.version = None;
                }
                rows.map(Outcome::Rows)
            }
            Job::RaiseEpoch { row, epoch, .. } => self.raise_epoch(*row, *epoch).map(|()| Outcome::Count(1)),
            Job::Purge { now, processed_before, limit, .. } => {
                self.purge(*now, *processed_before, *limit).map(Outcome::Count)
            }
        }
    }

    fn unwritten(&self) -> u64 {
        self.fresh.changes()
    }

    fn seal(&mut self) -> Result<(), Fault> {
        self.fresh.write(&mut self.sql)?;
        for mark in [&mut self.flows, &mut self.initiations, &mut self.outbox] {
            mark.seal(&mut self.sql.set_mark)?;
        }
        Ok(())
    }

    fn ended(&mut self, committed: bool) {
        for mark in [&mut self.flows, &mut self.initiations, &mut self.outbox] {
            mark.ended(committed);
        }
        self.fresh.forget();
        if !committed {
            self.version = None;
        }
    }

    fn finish(job: Job, outcome: Result<Outcome, StoreError>) {
        match job {
            Job::Unit(unit) => {
                if let (Err(_), Some(attempt)) = (&outcome, &unit.attempt) {
                    attempt.revoke();
                }
                (unit.done)(outcome.map(|outcome| match outcome {
                    Outcome::Receipt(receipt) => receipt,
                    Outcome::Rows(_) | Outcome::Count(_) => Receipt::default(),
                }));
            }
            // Whoever asked may have gone away; the work is done all the same.
            Job::Register { reply, .. } => {
                let _ = reply.send(outcome.map(|outcome| match outcome {
                    Outcome::Rows(rows) => rows,
                    Outcome::Receipt(_) | Outcome::Count(_) => Vec::new(),
                }));
            }
            Job::RaiseEpoch { reply, .. } => {
                let _ = reply.send(outcome.map(|_| ()));
            }
            Job::Purge { reply, .. } => {
                let _ = reply.send(outcome.map(|outcome| match outcome {
                    Outcome::Count(count) => count,
                    Outcome::Receipt(_) | Outcome::Rows(_) => 0,
                }));
            }
        }
    }

    fn closed() -> StoreError {
        StoreError::Closed
    }
}
