//! From the columns of a row that was read to what it says; what does not fit is a broken row, which is named.

use bytes::Bytes;
use maxhost_model::{FlowId, FlowRow, IdentityRow, SessionId};
use maxhost_store::{
    Claim, FencingToken, FlowRecord, FlowState, IdentityRecord, NOBODY, OutboxContent, OutboxRow, RunId, StoreError,
};
use sqlx::Row;
use sqlx::postgres::{PgRow, Postgres};

pub(crate) fn corrupt(table: &'static str, key: impl ToString) -> StoreError {
    StoreError::Corrupt { table, key: key.to_string() }
}

/// A column; what does not fit its type is a broken row, named by the table's key.
pub(crate) fn column<'r, T>(row: &'r PgRow, index: usize, table: &'static str) -> Result<T, StoreError>
where
    T: sqlx::Decode<'r, Postgres> + sqlx::Type<Postgres>,
{
    row.try_get(index).map_err(|error| {
        let key = row.try_get_unchecked::<i64, _>(0).map_or_else(|_| "?".to_owned(), |key| key.to_string());
        corrupt(table, format!("{key}: {error}"))
    })
}

pub(crate) fn bytes(row: &PgRow, index: usize, table: &'static str) -> Result<Bytes, StoreError> {
    column::<Vec<u8>>(row, index, table).map(Bytes::from)
}

/// A number within a flow or session: a segment or message.
pub(crate) fn sequence(row: &PgRow, index: usize, table: &'static str) -> Result<u32, StoreError> {
    let number: i64 = column(row, index, table)?;
    u32::try_from(number).map_err(|_| corrupt(table, format!("number {number}")))
}

pub(crate) fn state(row: &PgRow, index: usize) -> Result<FlowState, StoreError> {
    let number: i64 = column(row, index, "flow")?;
    FlowState::of(number).ok_or_else(|| corrupt("flow", format!("state {number}")))
}

/// The public name of the flow whose row is in the first column.
pub(crate) fn flow_id(row: &PgRow, index: usize) -> Result<FlowId, StoreError> {
    const T: &str = "flow";
    let number: i64 = column(row, 0, T)?;
    let tag: Vec<u8> = column(row, index, T)?;
    let id = <[u8; 16]>::try_from(tag).ok().and_then(FlowId::from_bytes);
    id.filter(|id| id.row().0 == number).ok_or_else(|| corrupt(T, format!("{number}: its id")))
}

pub(crate) fn flow_record(row: &PgRow) -> Result<FlowRecord, StoreError> {
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

/// What a stream of a flow's journal is: the log, or the inbox of a session.
pub(crate) fn session(flow: FlowRow, stream: i64) -> Result<Option<SessionId>, StoreError> {
    match stream {
        -1 => Ok(None),
        _ => match u16::try_from(stream) {
            Ok(index) => Ok(Some(flow.session(index))),
            Err(_) => Err(corrupt("journal", format!("{}: stream {stream}", flow.0))),
        },
    }
}

/// Which of the rows asked for this is about.
pub(crate) fn place(row: &PgRow) -> Result<usize, StoreError> {
    sequence(row, 0, "journal").map(|place| place as usize)
}

pub(crate) fn identity_record(row: &PgRow) -> Result<IdentityRecord, StoreError> {
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

pub(crate) fn outbox_row(row: &PgRow) -> Result<OutboxRow, StoreError> {
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
