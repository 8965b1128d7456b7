//! Flows and initiations that began in the transaction under way, kept in memory until it is sealed.
//!
//! Many flows are so short that they begin and end in one batch. What such a flow puts into the tables would be taken
//! out again before anybody could see it: so it is not put there in the first place, and only what is left in the end is
//! written, in the order of its keys.
//!
//! Invariant: a flow or an initiation is either here or in the database, not in both. Who changes one looks here first.

use std::collections::BTreeMap;

use bytes::Bytes;
use maxhost_model::{FlowRow, IdentityRow, SessionId};
use maxhost_store::{FlowState, FlowVersion, NewFlow, StateChange, Waiting};
use rusqlite::params;

use crate::statements::Statements;

/// The stream of a flow's log; those of its sessions begin at 0.
pub(crate) const LOG: i32 = -1;

/// A live flow that is not in the database yet.
#[derive(Debug)]
pub(crate) struct BufferedFlow {
    pub identity: IdentityRow,
    pub new: NewFlow,
    pub attempts: u32,
    pub revision: u32,
    waiting: Waiting,
    state: FlowState,
    reason: Option<String>,
    journal: BTreeMap<(u32, i32), Bytes>,
}

impl BufferedFlow {
    /// False if there is a segment of this number.
    pub fn append_log(&mut self, seq: u32, body: &Bytes) -> bool {
        self.put(seq, LOG, body)
    }

    /// False if there is a message of this number: it stays as it is.
    pub fn deliver(&mut self, session: SessionId, seq: u32, body: &Bytes) -> bool {
        self.put(seq, i32::from(session.index()), body)
    }

    /// The message of this number.
    pub fn message(&self, session: SessionId, seq: u32) -> Option<&Bytes> {
        self.journal.get(&(seq, i32::from(session.index())))
    }

    fn put(&mut self, seq: u32, stream: i32, body: &Bytes) -> bool {
        let mut new = false;
        self.journal.entry((seq, stream)).or_insert_with(|| {
            new = true;
            body.clone()
        });
        new
    }

    pub fn set_state(&mut self, change: &StateChange<'_>) {
        (self.state, self.reason, self.attempts) = (change.state, change.reason.map(str::to_owned), change.attempts);
        self.revision += 1;
    }

    pub fn note_waiting(&mut self, waiting: Waiting) {
        self.waiting = waiting;
    }

    pub fn version(&self) -> FlowVersion {
        let newest = self.journal.keys().rev().find(|(_, stream)| *stream == LOG);
        FlowVersion { segment: newest.map(|(seq, _)| *seq), revision: self.revision }
    }
}

/// What began in the transaction under way and has not ended in it.
#[derive(Debug, Default)]
pub(crate) struct WriteBuffer {
    flows: BTreeMap<FlowRow, BufferedFlow>,
    initiations: BTreeMap<(IdentityRow, i64), Bytes>,
    changes: u64,
}

impl WriteBuffer {
    /// How often something was changed; never falls.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    pub fn start(&mut self, identity: IdentityRow, new: &NewFlow) {
        self.changes += 1;
        let flow = BufferedFlow {
            identity,
            new: new.clone(),
            attempts: 0,
            revision: 0,
            waiting: Waiting::default(),
            state: FlowState::Live,
            reason: None,
            journal: BTreeMap::new(),
        };
        self.flows.insert(new.row, flow);
    }

    /// To be changed: counts as a change.
    pub fn flow_mut(&mut self, row: FlowRow) -> Option<&mut BufferedFlow> {
        let flow = self.flows.get_mut(&row)?;
        self.changes += 1;
        Some(flow)
    }

    pub fn flow(&self, row: FlowRow) -> Option<&BufferedFlow> {
        self.flows.get(&row)
    }

    /// Takes a flow of this identity out.
    pub fn end(&mut self, identity: IdentityRow, row: FlowRow) -> Option<BufferedFlow> {
        self.flows.get(&row).filter(|flow| flow.identity == identity)?;
        self.changes += 1;
        self.flows.remove(&row)
    }

    pub fn initiate(&mut self, to: IdentityRow, id: i64, body: &Bytes) {
        self.changes += 1;
        self.initiations.insert((to, id), body.clone());
    }

    pub fn has_initiation(&self, to: IdentityRow, id: i64) -> bool {
        self.initiations.contains_key(&(to, id))
    }

    /// Whether any initiation waits for this identity.
    pub fn has_initiations(&self, to: IdentityRow) -> bool {
        self.initiations.range((to, i64::MIN)..=(to, i64::MAX)).next().is_some()
    }

    /// The bytes of its body, if it was here.
    pub fn take_initiation(&mut self, to: IdentityRow, id: i64) -> Option<u64> {
        let taken = self.initiations.remove(&(to, id))?;
        self.changes += 1;
        Some(taken.len() as u64)
    }

    /// Nothing of it counts.
    pub fn forget(&mut self) {
        self.flows.clear();
        self.initiations.clear();
    }

    /// Puts into the database what is left.
    pub fn write(&mut self, sql: &mut Statements<'_>) -> rusqlite::Result<()> {
        let flows = std::mem::take(&mut self.flows);
        for (row, flow) in &flows {
            start_flow(sql, flow.identity, &flow.new)?;
            if flow.revision != 0 {
                sql.set_state.execute(params![row.0, flow.state as i64, flow.reason, flow.attempts])?;
                sql.set_revision.execute(params![row.0, flow.revision])?;
            }
            if flow.waiting != Waiting::default() {
                sql.note_waiting.execute(params![
                    row.0,
                    flow.waiting.messages.cast_signed(),
                    flow.waiting.bytes.cast_signed()
                ])?;
            }
        }
        for (row, flow) in &flows {
            for ((seq, stream), body) in &flow.journal {
                sql.add_segment.execute(params![row.0, seq, stream, &body[..]])?;
            }
        }
        for ((to, id), body) in std::mem::take(&mut self.initiations) {
            sql.initiate.execute(params![to.0, id, &body[..]])?;
        }
        Ok(())
    }
}

/// Puts a new flow into the database.
pub(crate) fn start_flow(sql: &mut Statements<'_>, identity: IdentityRow, new: &NewFlow) -> rusqlite::Result<usize> {
    let tag = new.id.to_bytes();
    sql.start_flow.execute(params![
        new.row.0,
        identity.0,
        new.started,
        &tag[..],
        &*new.name,
        new.user,
        new.client_id,
        &new.start[..]
    ])
}
