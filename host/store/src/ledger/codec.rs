//! How parts of a state are stored, in any database.

use std::collections::{BTreeMap, BTreeSet};

use maxhost_group_commit::{Fault, FaultKind};
use maxhost_ledger::time::Timestamp;
use maxhost_ledger::vault::query::Value;
use maxhost_ledger::vault::recording::{StatesToRecord, TransactionStatus};
use maxhost_model::{PublicKey, SecureHash, from_cbor, to_cbor};
use serde::Serialize;

use super::op::{KnownKey, StateContent};
use super::query::{KEY_EXTERNAL_IDS, is_indexed};
use crate::error::StoreError;

/// What a column says that tells which states of a transaction in flight come into the vault: one's own if it tells nothing.
/// `None` for a number that stands for nothing.
#[must_use]
pub fn chosen(states: Option<i64>) -> Option<StatesToRecord> {
    states.map_or(Some(StatesToRecord::default()), StatesToRecord::of)
}

/// How far a transaction has come, as it is stored.
#[must_use]
pub fn status_number(status: TransactionStatus) -> i16 {
    match status {
        TransactionStatus::Unverified => 0,
        TransactionStatus::InFlight => 1,
        TransactionStatus::Verified => 2,
    }
}

/// How far a transaction has come, from what is stored. `None` for a number that stands for nothing.
#[must_use]
pub fn status_of(number: i64) -> Option<TransactionStatus> {
    match number {
        0 => Some(TransactionStatus::Unverified),
        1 => Some(TransactionStatus::InFlight),
        2 => Some(TransactionStatus::Verified),
        _ => None,
    }
}

/// A time as it is stored, in nanoseconds since 1970.
#[must_use]
pub fn time(nanos: i64) -> Timestamp {
    Timestamp::from_nanos(nanos.unsigned_abs())
}

fn encoded<T: Serialize>(value: &T) -> Result<Vec<u8>, Fault> {
    to_cbor(value).map_err(|error| Fault::new(FaultKind::Other, error))
}

/// The names of participants as bytes.
///
/// # Errors
/// They have no encoding, which is a defect.
pub fn encode_participants(content: &StateContent) -> Result<Vec<u8>, Fault> {
    encoded(&content.participants)
}

/// The fields of a state as bytes.
///
/// # Errors
/// They have no encoding, which is a defect.
pub fn encode_fields(content: &StateContent) -> Result<Vec<u8>, Fault> {
    encoded(&content.fields)
}

/// What [`encode_participants`] wrote.
///
/// # Errors
/// [`StoreError::Corrupt`].
pub fn decode_participants(bytes: &[u8]) -> Result<BTreeSet<String>, StoreError> {
    from_cbor(bytes).map_err(|error| corrupt(&error.to_string()))
}

/// What [`encode_fields`] wrote.
///
/// # Errors
/// [`StoreError::Corrupt`].
pub fn decode_fields(bytes: &[u8]) -> Result<BTreeMap<String, Value>, StoreError> {
    from_cbor(bytes).map_err(|error| corrupt(&error.to_string()))
}

/// The rows that the index of fields has of a state, as names and sort keys: one for each field that has rows of its own, and one
/// for each external id of its keys.
pub fn indexed_fields(content: &StateContent) -> impl Iterator<Item = (&str, Vec<u8>)> {
    let fields = content.fields.iter().filter(|(name, value)| is_indexed(name) && **value != Value::Null);
    let keys: BTreeSet<Vec<u8>> =
        key_external_ids(&content.fields).iter().map(|id| Value::text(id).sort_key()).collect();
    let keys = keys.into_iter().map(|key| (KEY_EXTERNAL_IDS, key));
    fields.map(|(name, value)| (name.as_str(), value.sort_key())).chain(keys)
}

/// Sets the external ids of a state's keys, whatever its data say.
///
/// # Errors
/// They have no encoding, which is a defect.
pub fn set_key_external_ids(fields: &mut BTreeMap<String, Value>, ids: &BTreeSet<String>) -> Result<(), Fault> {
    fields.remove(KEY_EXTERNAL_IDS);
    if ids.is_empty() {
        return Ok(());
    }
    fields.insert(KEY_EXTERNAL_IDS.to_owned(), Value::Bytes(encoded(ids)?));
    Ok(())
}

/// The external ids of a state's keys. What is no list of texts is none that was set.
fn key_external_ids(fields: &BTreeMap<String, Value>) -> BTreeSet<String> {
    match fields.get(KEY_EXTERNAL_IDS) {
        Some(Value::Bytes(list)) => from_cbor(list).unwrap_or_default(),
        _ => BTreeSet::new(),
    }
}

/// Takes the external ids of a state's keys from its fields.
pub fn take_key_external_ids(fields: &mut BTreeMap<String, Value>) -> BTreeSet<String> {
    let ids = key_external_ids(fields);
    fields.remove(KEY_EXTERNAL_IDS);
    ids
}

/// The names of fields that get rows of their own, in their order, each with a dot behind it, which no such name has.
pub fn shape<'n>(fields: impl Iterator<Item = &'n str>) -> String {
    fields.filter(|name| is_indexed(name)).fold(String::new(), |shape, name| shape + name + ".")
}

/// A hash of a column.
///
/// # Errors
/// [`StoreError::Corrupt`] if it has not 32 bytes.
pub fn hash(table: &'static str, bytes: &[u8]) -> Result<SecureHash, StoreError> {
    let bytes: [u8; 32] =
        bytes.try_into().map_err(|_| StoreError::Corrupt { table, key: format!("a hash of {} bytes", bytes.len()) })?;
    Ok(SecureHash::from_bytes(bytes))
}

/// A key and whose it is, from the columns of a row.
///
/// # Errors
/// [`StoreError::Corrupt`] if the key is none, or the nonce has not 32 bytes.
pub fn known_key(key: &[u8], party: String, nonce: Option<Vec<u8>>, at: Timestamp) -> Result<KnownKey, StoreError> {
    let corrupt = |key: String| StoreError::Corrupt { table: "ledger_key", key };
    let key = PublicKey::from_spki(key).map_err(|error| corrupt(error.to_string()))?;
    let nonce = match nonce.map(<[u8; 32]>::try_from) {
        None => None,
        Some(Ok(nonce)) => Some(nonce),
        Some(Err(bytes)) => return Err(corrupt(format!("{key}: a nonce of {} bytes", bytes.len()))),
    };
    Ok(KnownKey { key, party, nonce, at })
}

fn corrupt(text: &str) -> StoreError {
    StoreError::Corrupt { table: "vault_state", key: text.to_owned() }
}
