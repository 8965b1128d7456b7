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
use rusqlite::params;

use crate::record::FlowState;
use crate::statements::Statements;
use crate::unit::NewFlow;

/// The lane of a flow's log; those of its sessions begin at 0.
pub(crate) const LOG: i32 = -1;

/// A live flow that is not in the database yet.
#[derive(Debug)]
pub(crate) struct FreshFlow {
    pub identity: IdentityRow,
    pub new: NewFlow,
    pub attempts: u32,
    state: FlowState,
    reason: Option<String>,
    journal: BTreeMap<(u32, i32), Bytes>,
}

impl FreshFlow {
    /// False if there is a segment of this number.
    pub fn append_log(&mut self, seq: u32, body: &Bytes) -> bool {
        let free = !self.journal.contains_key(&(seq, LOG));
        if free {
            self.journal.insert((seq, LOG), body.clone());
        }
        free
    }

    /// A message that is there already stays as it is.
    pub fn deliver(&mut self, session: SessionId, seq: u32, body: &Bytes) {
        self.journal.entry((seq, i32::from(session.index()))).or_insert_with(|| body.clone());
    }

    pub fn set_state(&mut self, state: FlowState, reason: Option<&String>, attempts: u32) {
        (self.state, self.reason, self.attempts) = (state, reason.cloned(), attempts);
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Fresh {
    flows: BTreeMap<FlowRow, FreshFlow>,
    initiations: BTreeMap<(IdentityRow, i64), Bytes>,
    changes: u64,
}

impl Fresh {
    /// How often something was changed; never falls.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    pub fn start(&mut self, identity: IdentityRow, new: &NewFlow) {
        self.changes += 1;
        let (state, journal) = (FlowState::Live, BTreeMap::new());
        let flow = FreshFlow { identity, new: new.clone(), attempts: 0, state, reason: None, journal };
        self.flows.insert(new.row, flow);
    }

    /// To be changed: counts as a change.
    pub fn flow(&mut self, row: FlowRow) -> Option<&mut FreshFlow> {
        let flow = self.flows.get_mut(&row)?;
        self.changes += 1;
        Some(flow)
    }

    pub fn has_flow(&self, row: FlowRow) -> bool {
        self.flows.contains_key(&row)
    }

    /// Takes a flow of this identity out.
    pub fn end(&mut self, identity: IdentityRow, row: FlowRow) -> Option<FreshFlow> {
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

    /// True if it was here.
    pub fn take_initiation(&mut self, to: IdentityRow, id: i64) -> bool {
        let taken = self.initiations.remove(&(to, id)).is_some();
        self.changes += u64::from(taken);
        taken
    }

    /// Nothing of it counts.
    pub fn forget(&mut self) {
        self.flows.clear();
        self.initiations.clear();
    }

    /// Puts into the database what is left.
    pub fn write(&mut self, sql: &mut Statements<'_>) -> rusqlite::Result<()> {
        let flows = std::mem::take(&mut self.flows);
        for (row, FreshFlow { identity, new, attempts, state, reason, .. }) in &flows {
            start_flow(sql, *identity, new)?;
            if *state != FlowState::Live || reason.is_some() || *attempts != 0 {
                sql.set_state.execute(params![row.0, identity.0, *state as i64, reason, attempts])?;
            }
        }
        for (row, flow) in &flows {
            for ((seq, lane), body) in &flow.journal {
                sql.append.execute(params![row.0, seq, lane, &body[..]])?;
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
