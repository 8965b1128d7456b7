//! Rows of the tables of a ledger.
#![allow(clippy::missing_errors_doc)]

use maxhost_ledger::notary::{BatchStamp, Outcome};
use maxhost_ledger::time::Timestamp;
use maxhost_ledger::tx::StateRef;
use maxhost_ledger::vault::query::{Lock, Row as QueryRow, Status};
use maxhost_ledger::vault::recording::TransactionStatus;
use maxhost_model::SecureHash;
use maxhost_store::StoreError;
use maxhost_store::ledger::codec::{
    self, chosen, decode_fields, decode_participants, hash, status_of, take_key_external_ids, time,
};
use maxhost_store::ledger::{
    Answered, Attachment, Consumption, HeldLock, InFlight, Indexed, KeptAttachment, KnownKey, LedgerTransaction,
    LoggedRequest, NotaryCounts, Part, RequestPlace, SqlValue, TransactionKind, Unsettled, VaultRow, VaultShape,
    decode_conflicts,
};

use crate::columns::{StoredRow, bytes, column, corrupt, count, hash_at, reference};

const STATE: &str = "vault_state";
const TX: &str = "ledger_tx";
const REQUEST: &str = "notary_request";

/// The columns that [`vault_row`] reads, of a state `s`.
pub const STATE_COLUMNS: &str = "s.tx, s.idx, s.type, s.notary, s.constraint_kind, s.relevant <> 0, s.recorded, s.consumed, \
                                 s.consumed_by, s.state, s.participants, s.fields, s.lock_holder, s.lock_until, s.in_flight";
/// Which of them is the state itself.
pub const STATE_BODY: usize = 9;
/// What is selected behind them comes at this place.
pub const BEHIND_STATE: usize = 15;

/// A state of a vault from [`STATE_COLUMNS`]. A lease that is over at this time is none.
pub fn vault_row(row: &impl StoredRow, now: Timestamp) -> Result<VaultRow, StoreError> {
    let consumed: Option<i64> = column(row, 7, STATE)?;
    let holder: Option<String> = column(row, 12, STATE)?;
    let until = column::<Option<i64>>(row, 13, STATE)?.map(time);
    let lock = holder.zip(until).filter(|(_, until)| *until > now);
    let mut data = decode_fields(&column::<Vec<u8>>(row, 11, STATE)?)?;
    let query = QueryRow {
        reference: reference(row, STATE)?,
        type_name: column(row, 2, STATE)?,
        status: if consumed.is_some() { Status::Consumed } else { Status::Unconsumed },
        recorded: time(column(row, 6, STATE)?),
        consumed: consumed.map(time),
        notary: column(row, 3, STATE)?,
        lock: lock.map(|(holder, until)| Lock { holder, until }),
        relevant: column(row, 5, STATE)?,
        constraint: column(row, 4, STATE)?,
        participants: decode_participants(&column::<Vec<u8>>(row, 10, STATE)?)?,
        external_ids: take_key_external_ids(&mut data),
        data,
    };
    let consumed_by = column::<Option<Vec<u8>>>(row, 8, STATE)?.map(|id| hash(STATE, &id)).transpose()?;
    let in_flight = InFlight::from_column(column::<Option<Vec<u8>>>(row, 14, STATE)?.as_deref())
        .ok_or_else(|| corrupt(STATE, "transactions in flight"))?;
    Ok(VaultRow { row: query, state: bytes(row, STATE_BODY, STATE)?, consumed_by, in_flight: in_flight.first() })
}

/// The reference of a state of a vault from `tx, idx`.
pub fn state_reference(row: &impl StoredRow) -> Result<StateRef, StoreError> {
    reference(row, STATE)
}

/// What has consumed a state, from `tx, idx, consumed_by`.
pub fn spent(row: &impl StoredRow) -> Result<(StateRef, SecureHash), StoreError> {
    const T: &str = "ledger_spent";
    Ok((reference(row, T)?, hash_at(row, 2, T)?))
}

/// A lock from `tx, idx, lock_holder, lock_until`.
pub fn held_lock(row: &impl StoredRow) -> Result<HeldLock, StoreError> {
    let (holder, until) = (column(row, 2, STATE)?, time(column(row, 3, STATE)?));
    Ok(HeldLock { reference: reference(row, STATE)?, holder, until })
}

/// A key of a slice of an index, from that column alone.
pub fn slice_key(row: &impl StoredRow, index: &Indexed) -> Result<SqlValue, StoreError> {
    match index {
        Indexed::Recorded => column(row, 0, STATE).map(SqlValue::Integer),
        Indexed::Field(_) => column(row, 0, "vault_field").map(SqlValue::Bytes),
    }
}

/// The fields of a type's states from `type, fields`.
pub fn vault_shape(row: &impl StoredRow) -> Result<VaultShape, StoreError> {
    const T: &str = "vault_shape";
    Ok(VaultShape { type_name: column(row, 0, T)?, fields: column(row, 1, T)? })
}

/// A transaction from `number, id, status, kind, recorded, signatures, body`.
pub fn transaction(row: &impl StoredRow) -> Result<LedgerTransaction, StoreError> {
    let number: i64 = column(row, 0, TX)?;
    let (status, kind): (i64, i64) = (column(row, 2, TX)?, column(row, 3, TX)?);
    Ok(LedgerTransaction {
        number,
        id: hash_at(row, 1, TX)?,
        status: status_of(status).ok_or_else(|| corrupt(TX, format!("{number}: status {status}")))?,
        kind: TransactionKind::of(kind).ok_or_else(|| corrupt(TX, format!("{number}: kind {kind}")))?,
        recorded: time(column(row, 4, TX)?),
        signatures: column(row, 5, TX)?,
        body: column::<Option<Vec<u8>>>(row, 6, TX)?.map(Into::into),
    })
}

/// How far a transaction has come, from `id, status`.
pub fn transaction_status(row: &impl StoredRow) -> Result<(SecureHash, TransactionStatus), StoreError> {
    let (id, status): (_, i64) = (hash_at(row, 0, TX)?, column(row, 1, TX)?);
    Ok((id, status_of(status).ok_or_else(|| corrupt(TX, format!("{id}: status {status}")))?))
}

/// A transaction in flight from `id, part, states`.
pub fn unsettled(row: &impl StoredRow) -> Result<Unsettled, StoreError> {
    let part = column::<Option<i64>>(row, 1, TX)?.and_then(Part::of);
    let states = chosen(column::<Option<i64>>(row, 2, TX)?);
    let (part, states) = part.zip(states).ok_or_else(|| corrupt(TX, "how it is settled"))?;
    Ok(Unsettled { id: hash_at(row, 0, TX)?, part, states })
}

/// An attachment from `id, uploader, at, body`.
pub fn attachment(row: &impl StoredRow) -> Result<Attachment, StoreError> {
    const T: &str = "attachment";
    let (uploader, at) = (column(row, 1, T)?, time(column(row, 2, T)?));
    Ok(Attachment { id: hash_at(row, 0, T)?, uploader, at, body: bytes(row, 3, T)? })
}

/// An attachment without its bytes, from `id, uploader, at`, how many it has, and the first of them.
pub fn kept_attachment(row: &impl StoredRow) -> Result<KeptAttachment, StoreError> {
    const T: &str = "attachment";
    let (uploader, at, size) = (column(row, 1, T)?, time(column(row, 2, T)?), count(row, 3, T)?);
    Ok(KeptAttachment { id: hash_at(row, 0, T)?, uploader, at, size, begins: bytes(row, 4, T)? })
}

/// A key and whose it is, from `key, party, nonce, at`.
pub fn known_key(row: &impl StoredRow) -> Result<KnownKey, StoreError> {
    const T: &str = "ledger_key";
    let (key, nonce) = (column::<Vec<u8>>(row, 0, T)?, column(row, 2, T)?);
    codec::known_key(&key, column(row, 1, T)?, nonce, time(column(row, 3, T)?))
}

/// The external id of a key from `id, external_id`.
pub fn key_external_id(row: &impl StoredRow) -> Result<(SecureHash, String), StoreError> {
    const T: &str = "key_external_id";
    Ok((hash_at(row, 0, T)?, column(row, 1, T)?))
}

/// The columns that [`logged_request`] reads, of a request `r`.
pub const REQUEST_COLUMNS: &str =
    "r.number, r.at, r.id, r.caller, r.states, r.batch, CAST(r.answered AS bigint), r.conflicting, r.conflicts";

/// A request that a notary has decided, from [`REQUEST_COLUMNS`].
pub fn logged_request(row: &impl StoredRow) -> Result<(RequestPlace, LoggedRequest), StoreError> {
    let place = request_place(row)?;
    let answered = match column::<Option<i64>>(row, 6, REQUEST)? {
        None => None,
        Some(stored) => {
            let answer = || corrupt(REQUEST, format!("{}: answer {stored}", place.number));
            Some(Answered::of(stored).ok_or_else(answer)?)
        }
    };
    let request = LoggedRequest {
        id: hash_at(row, 2, REQUEST)?,
        caller: column(row, 3, REQUEST)?,
        states: count(row, 4, REQUEST)?,
        stamp: BatchStamp { batch: count(row, 5, REQUEST)?, at: time(place.at) },
        answered,
        conflicting: column::<Option<i64>>(row, 7, REQUEST)?.unwrap_or_default().unsigned_abs(),
        conflicts: decode_conflicts(column::<Option<Vec<u8>>>(row, 8, REQUEST)?.as_deref())?,
    };
    Ok((place, request))
}

/// The place of a request in the log, from `number, at`.
pub fn request_place(row: &impl StoredRow) -> Result<RequestPlace, StoreError> {
    Ok(RequestPlace { number: column(row, 0, REQUEST)?, at: column(row, 1, REQUEST)? })
}

/// What a notary has decided for ever about a transaction, from `batch, at`.
pub fn outcome(row: &impl StoredRow) -> Result<Outcome, StoreError> {
    const T: &str = "notary_tx";
    let at = time(column(row, 1, T)?);
    Ok(match column::<Option<i64>>(row, 0, T)? {
        Some(batch) => Outcome::Committed(BatchStamp { batch: batch.unsigned_abs(), at }),
        None => Outcome::TooLate(at),
    })
}

/// A state that a notary has committed as consumed, from `tx, idx, consumed_by, batch, at`.
pub fn consumption(row: &impl StoredRow) -> Result<Consumption, StoreError> {
    const T: &str = "notary_state";
    let batch = column::<Option<i64>>(row, 3, T)?.zip(column::<Option<i64>>(row, 4, T)?);
    let stamp = batch.map(|(batch, at)| BatchStamp { batch: batch.unsigned_abs(), at: time(at) });
    Ok(Consumption { reference: reference(row, T)?, consumed_by: hash_at(row, 2, T)?, stamp })
}

/// What a notary has done, from `committed, conflicts, states`.
pub fn notary_counts(row: &impl StoredRow) -> Result<NotaryCounts, StoreError> {
    const T: &str = "notary";
    Ok(NotaryCounts { committed: count(row, 0, T)?, conflicts: count(row, 1, T)?, states: count(row, 2, T)? })
}
