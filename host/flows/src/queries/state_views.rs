//! States of vaults as clients see them.

use std::collections::{BTreeMap, BTreeSet};

use maxhost_ledger::time::Timestamp;
use maxhost_ledger::tx::{StateRef, TransactionState};
use maxhost_ledger::vault::query::{EXTERNAL_ID, Value as FieldValue};
use maxhost_ledger::{Refused, codec};
use maxhost_model::{Code, IdentityRow, Problem, SecureHash};
use maxhost_store::ledger::{LedgerReader, VaultRow};

use crate::api::ApiResult;
use crate::api::ledger::{LockView, StateView};

/// A time as clients see it, ms since 1970.
pub(super) fn ms(time: Timestamp) -> i64 {
    i64::try_from(time.nanos() / 1_000_000).unwrap_or(i64::MAX)
}

/// What a client is told of something in the database that cannot be read.
pub(super) fn damaged(what: &str, error: &Refused) -> Problem {
    Problem::new(Code::JournalCorrupt, format!("{what} cannot be read: {error}"))
}

/// States as clients see them. A participant without a name has that of the party whose key it is known to be.
pub(super) async fn state_views(
    reader: &(impl LedgerReader + ?Sized),
    identity: IdentityRow,
    rows: Vec<VaultRow>,
) -> ApiResult<Vec<StateView>> {
    // With each name comes the fingerprint of its key; those that come alone may be known.
    let hides_somebody = |row: &&VaultRow| {
        let named = row.row.participants.iter().filter(|one| is_name(one)).count();
        row.row.participants.len() > 2 * named
    };
    let keys = rows.iter().filter(hides_somebody).flat_map(|row| &row.row.participants);
    let keys: BTreeSet<SecureHash> = keys.filter_map(|one| one.parse().ok()).collect();
    let mut parties = BTreeMap::new();
    if !keys.is_empty() {
        let keys: Vec<SecureHash> = keys.into_iter().collect();
        let known = reader.known_keys(identity, &keys).await.map_err(Problem::from)?;
        parties.extend(known.into_iter().map(|known| (known.key.fingerprint().to_string(), known.party)));
    }
    rows.into_iter().map(|row| state_view(row, &parties)).collect()
}

fn state_view(row: VaultRow, parties: &BTreeMap<String, String>) -> ApiResult<StateView> {
    let VaultRow { row, state, consumed_by, in_flight } = row;
    let state: TransactionState = codec::decode("state", &state).map_err(|error| damaged("a state", &error))?;
    let reference = row.reference.to_string();
    let external_id = match row.data.get(EXTERNAL_ID) {
        Some(FieldValue::Text(id)) => Some(id.clone()),
        _ => None,
    };
    let encumbered_by = state.encumbrance.map(|by| StateRef::new(row.reference.tx, by).to_string());
    let lock =
        row.lock.map(|lock| LockView { reference: reference.clone(), holder: lock.holder, until_ms: ms(lock.until) });
    Ok(StateView {
        reference,
        type_name: row.type_name,
        data: state.data.bytes().to_vec(),
        is_consumed: row.consumed.is_some(),
        recorded_ms: ms(row.recorded),
        consumed_ms: row.consumed.map(ms),
        consumed_by: consumed_by.map(|by| by.to_string()),
        notary: row.notary,
        participants: names(row.participants, parties),
        relevant: row.relevant,
        external_id,
        key_external_ids: row.external_ids.into_iter().collect(),
        lock,
        encumbered_by,
        in_flight: in_flight.map(|by| by.to_string()),
    })
}

fn is_name(participant: &str) -> bool {
    participant.contains('=')
}

/// The names of participants; where there is none, the fingerprints of their keys.
fn names(participants: BTreeSet<String>, parties: &BTreeMap<String, String>) -> Vec<String> {
    let (mut named, keys): (BTreeSet<String>, BTreeSet<String>) =
        participants.into_iter().partition(|one| is_name(one));
    named.extend(keys.iter().filter_map(|key| parties.get(key).cloned()));
    let told = if named.is_empty() { keys } else { named };
    told.into_iter().collect()
}
