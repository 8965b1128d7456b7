//! Rows of the tables that a host has once: identities, flows and their journals, messages, clients, and the audit trail.
#![allow(clippy::missing_errors_doc)]

use bytes::Bytes;
use maxhost_model::{FlowId, FlowRow, IdentityRow, SessionId};
use maxhost_store::{
    AuditClass, AuditPlace, AuditRow, Claim, Client, FencingToken, FlowRecord, FlowState, IdentityRecord, LateConfirm,
    LeftWork, LiveFlow, NOBODY, OutboxContent, OutboxDestination, OutboxRow, RunId, StoreError,
};

use crate::columns::{StoredRow, bytes, column, corrupt, count, sequence};

/// An identity from `id, name, generation, epoch, owner, wake_at, unclean, moved_to, key_fp`.
pub fn identity_record(row: &impl StoredRow) -> Result<IdentityRecord, StoreError> {
    const T: &str = "identity";
    let token = FencingToken { generation: column(row, 2, T)?, epoch: column(row, 3, T)? };
    let claim = Claim { token, run: column::<Option<i64>>(row, 4, T)?.map_or(NOBODY, RunId) };
    let number: i64 = column(row, 0, T)?;
    let key_fp = column::<Option<Vec<u8>>>(row, 8, T)?.map(<[u8; 32]>::try_from).transpose();
    Ok(IdentityRecord {
        row: IdentityRow(number),
        name: column(row, 1, T)?,
        claim,
        wake_at: column(row, 5, T)?,
        unclean: sequence(row, 6, T)?,
        moved_to: column(row, 7, T)?,
        key_fp: key_fp.map_err(|_| corrupt(T, format!("{number}: its fingerprint")))?,
    })
}

/// Identities that are due, each with the time that it wanted to be woken at, and when the next one is.
pub type Due = (Vec<(IdentityRow, i64)>, Option<i64>);

/// The identities that are due at a time, from rows `id, wake_at` of which the last may be later: then it is the next.
pub fn due(rows: &[impl StoredRow], now: i64) -> Result<Due, StoreError> {
    const T: &str = "identity";
    let mut found: Vec<(IdentityRow, i64)> = Vec::with_capacity(rows.len());
    for row in rows {
        found.push((IdentityRow(column(row, 0, T)?), column(row, 1, T)?));
    }
    let next = found.pop_if(|(_, at)| *at > now).map(|(_, at)| at);
    Ok((found, next))
}

/// What is left to do for an identity, from its number and whether there are initiations, late confirmations and messages to
/// send, and whether it is due.
pub fn left_work(row: &impl StoredRow) -> Result<LeftWork, StoreError> {
    const T: &str = "identity";
    Ok(LeftWork {
        identity: IdentityRow(column(row, 0, T)?),
        initiations: column(row, 1, T)?,
        late_confirms: column(row, 2, T)?,
        outbox: column(row, 3, T)?,
        due: column(row, 4, T)?,
    })
}

/// The state of a flow.
pub fn state(row: &impl StoredRow, index: usize) -> Result<FlowState, StoreError> {
    let number: i64 = column(row, index, "flow")?;
    FlowState::of(number).ok_or_else(|| corrupt("flow", format!("state {number}")))
}

/// The public name of the flow whose row is in the first column.
pub fn flow_id(row: &impl StoredRow, index: usize) -> Result<FlowId, StoreError> {
    const T: &str = "flow";
    let number: i64 = column(row, 0, T)?;
    let tag: Vec<u8> = column(row, index, T)?;
    let id = <[u8; 16]>::try_from(tag).ok().and_then(FlowId::from_bytes);
    id.filter(|id| id.row().0 == number).ok_or_else(|| corrupt(T, format!("{number}: its id")))
}

/// A flow from `id, identity, state, attempts, started, finished, expires, tag, name, user, client_id, reason, revision,
/// result_read, start_body, end_body, labels`.
pub fn flow_record(row: &impl StoredRow) -> Result<FlowRecord, StoreError> {
    const T: &str = "flow";
    let number: i64 = column(row, 0, T)?;
    Ok(FlowRecord {
        row: FlowRow(number),
        identity: IdentityRow(column(row, 1, T)?),
        state: state(row, 2)?,
        attempts: sequence(row, 3, T)?,
        started: column(row, 4, T)?,
        finished: column(row, 5, T)?,
        expires: column(row, 6, T)?,
        id: flow_id(row, 7)?,
        name: column(row, 8, T)?,
        user: column(row, 9, T)?,
        client_id: column(row, 10, T)?,
        reason: column(row, 11, T)?,
        revision: sequence(row, 12, T)?,
        result_read: column(row, 13, T)?,
        start: bytes(row, 14, T)?,
        end: column::<Option<Vec<u8>>>(row, 15, T)?.map(Bytes::from),
        labels: column::<Option<Vec<u8>>>(row, 16, T)?.map(Bytes::from),
    })
}

/// A flow that has not ended, from `id, identity, state`.
pub fn live_flow(row: &impl StoredRow) -> Result<LiveFlow, StoreError> {
    const T: &str = "flow";
    let (number, identity) = (FlowRow(column(row, 0, T)?), IdentityRow(column(row, 1, T)?));
    Ok(LiveFlow { row: number, identity, state: state(row, 2)? })
}

/// How many flows an identity has, from `identity, count`.
pub fn live_count(row: &impl StoredRow) -> Result<(IdentityRow, u64), StoreError> {
    Ok((IdentityRow(column(row, 0, "flow")?), count(row, 1, "flow")?))
}

/// How many flows are in a state, from `state, count`.
pub fn state_count(row: &impl StoredRow) -> Result<(FlowState, u64), StoreError> {
    Ok((state(row, 0)?, count(row, 1, "flow")?))
}

/// The start record of a flow, from `id, start_body`.
pub fn start(row: &impl StoredRow) -> Result<(FlowRow, Bytes), StoreError> {
    Ok((FlowRow(column(row, 0, "flow")?), bytes(row, 1, "flow")?))
}

/// What a stream of a flow's journal is: the log, or the inbox of a session.
pub fn session(flow: FlowRow, stream: i64) -> Result<Option<SessionId>, StoreError> {
    match stream {
        -1 => Ok(None),
        _ => match u16::try_from(stream) {
            Ok(index) => Ok(Some(flow.session(index))),
            Err(_) => Err(corrupt("journal", format!("{}: stream {stream}", flow.0))),
        },
    }
}

/// Which of the rows asked for this is about.
pub fn place(row: &impl StoredRow) -> Result<usize, StoreError> {
    sequence(row, 0, "journal").map(|place| place as usize)
}

/// An initiation from `id, body`.
pub fn initiation(row: &impl StoredRow) -> Result<(i64, Bytes), StoreError> {
    Ok((column(row, 0, "initiation")?, bytes(row, 1, "initiation")?))
}

/// The first initiation of an identity, from `identity, id`.
pub fn first_initiation(row: &impl StoredRow) -> Result<(IdentityRow, i64), StoreError> {
    Ok((IdentityRow(column(row, 0, "initiation")?), column(row, 1, "initiation")?))
}

/// A late confirmation from `session, body`.
pub fn late_confirm(row: &impl StoredRow) -> Result<LateConfirm, StoreError> {
    const T: &str = "late_confirm";
    Ok(LateConfirm { session: SessionId(column(row, 0, T)?), body: bytes(row, 1, T)? })
}

/// A message of the outbox from `id, identity, destination, message_id, body, kind, session, seq`.
pub fn outbox_row(row: &impl StoredRow) -> Result<OutboxRow, StoreError> {
    const T: &str = "outbox";
    let id: i64 = column(row, 0, T)?;
    let body = bytes(row, 4, T)?;
    let content = match column::<i64>(row, 5, T)? {
        0 => {
            let message_id: Vec<u8> = column(row, 3, T)?;
            let message_id = message_id.try_into().map_err(|_| corrupt(T, format!("{id}: its message id")))?;
            OutboxContent::Message { message_id, body }
        }
        1 => OutboxContent::Initiation { body },
        2 => OutboxContent::Delivery { session: SessionId(column(row, 6, T)?), seq: sequence(row, 7, T)?, body },
        kind => return Err(corrupt(T, format!("{id}: kind {kind}"))),
    };
    let destination: String = column(row, 2, T)?;
    Ok(OutboxRow { id, identity: IdentityRow(column(row, 1, T)?), destination: destination.into(), content })
}

/// A destination of the outbox from `destination, id`.
pub fn outbox_destination(row: &impl StoredRow) -> Result<OutboxDestination, StoreError> {
    const T: &str = "outbox";
    let destination: String = column(row, 0, T)?;
    Ok(OutboxDestination { destination: destination.into(), first: column(row, 1, T)? })
}

/// Where a client id is used, from `identity, flow`.
pub fn client_use(row: &impl StoredRow) -> Result<(IdentityRow, FlowRow), StoreError> {
    Ok((IdentityRow(column(row, 0, "client")?), FlowRow(column(row, 1, "client")?)))
}

/// A client id from `flow, client_id, user, state, tag`.
pub fn client(row: &impl StoredRow) -> Result<Client, StoreError> {
    const T: &str = "client";
    Ok(Client {
        flow: FlowRow(column(row, 0, T)?),
        client_id: column(row, 1, T)?,
        user: column(row, 2, T)?,
        state: state(row, 3)?,
        id: flow_id(row, 4)?,
    })
}

/// A row of the audit trail from `number, class, at, seq, host, user, action, identity, flow, flow_id, detail, allowed, code,
/// count, token`.
pub fn audit_row(row: &impl StoredRow) -> Result<(AuditPlace, AuditRow), StoreError> {
    const T: &str = "audit";
    let number: i64 = column(row, 0, T)?;
    let class = AuditClass::of(column(row, 1, T)?).ok_or_else(|| corrupt(T, number))?;
    let at = column(row, 2, T)?;
    let host: String = column(row, 4, T)?;
    let read = AuditRow {
        seq: column(row, 3, T)?,
        class,
        at,
        host: host.into(),
        user: column(row, 5, T)?,
        action: column(row, 6, T)?,
        identity: column(row, 7, T)?,
        flow: column(row, 8, T)?,
        flow_id: column(row, 9, T)?,
        detail: column(row, 10, T)?,
        allowed: column(row, 11, T)?,
        code: column(row, 12, T)?,
        count: column(row, 13, T)?,
        token: column(row, 14, T)?,
    };
    Ok((AuditPlace { at, class, number }, read))
}
