//! The parts of a batch's statement that write ledgers: for each table one, for each place.

use std::collections::BTreeSet;
use std::sync::Arc;

use maxhost_ledger::notary::Outcome;
use maxhost_ledger::vault::selection::bucket;
use maxhost_model::{IdentityRow, SecureHash};
use maxhost_store::ledger::LoggedRequest;
use maxhost_store::ledger::codec::{shape, status_number};
use maxhost_store::ledger::query::integer;

use crate::ledger::pending::{
    LedgerPending, NewState, NewTransaction, State, StateKey, TouchedTransaction, TransactionKey,
};
use crate::ledger::place::{Place, by_place};
use crate::options::Layout;
use crate::undo_map::UndoMap;
use crate::write::Builder;

fn small(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// What was answered to a request, as it is stored.
fn answered(request: &LoggedRequest) -> Option<i16> {
    request.answered.and_then(|answered| i16::try_from(answered.number()).ok())
}

/// How many states kept its transaction from being committed, as it is stored.
fn conflicting(request: &LoggedRequest) -> Option<i64> {
    (request.conflicting > 0).then(|| small(request.conflicting))
}

type Rows<'p, K, V> = Vec<(&'p (IdentityRow, K), &'p V)>;

/// Adds the parts that write all of this.
pub(crate) fn ledger_parts(b: &mut Builder, pending: &LedgerPending, layout: Layout) {
    for (place, rows) in by_place(layout, pending.transactions.iter(), |(key, _)| key.0) {
        transactions(b, place, rows);
    }
    for (place, rows) in by_place(layout, pending.states.iter(), |(key, _)| key.0) {
        let (new, changed): (Vec<_>, Vec<_>) = rows.into_iter().partition(|(_, state)| state.new.is_some());
        new_states(b, place, &new);
        changed_states(b, place, &changed);
    }
    marks(b, "ledger_spent", "ON CONFLICT DO NOTHING", &pending.spent, layout);
    marks(b, "notary_state", "", &pending.consumers, layout);
    changes(b, pending, layout);
    notaries(b, pending, layout);
    attachments(b, pending, layout);
    parameters(b, pending, layout);
    keys(b, pending, layout);
    assigned(b, pending, layout);
}

fn identities<K, V>(b: &mut Builder, rows: &Rows<'_, K, V>) -> String {
    b.column("int8", rows.iter().map(|(key, _)| key.0.0).collect())
}

/// Identity and id of each.
fn transaction_keys<V>(b: &mut Builder, rows: &[(&TransactionKey, &V)]) -> String {
    [
        b.column("int8", rows.iter().map(|(key, _)| key.0.0).collect()),
        b.column("bytea", rows.iter().map(|(key, _)| &key.1.as_bytes()[..]).collect::<Vec<&[u8]>>()),
    ]
    .join(", ")
}

/// Identity, transaction and index of each.
fn state_keys<V>(b: &mut Builder, rows: &[(&StateKey, &V)]) -> String {
    [
        b.column("int8", rows.iter().map(|(key, _)| key.0.0).collect()),
        b.column("bytea", rows.iter().map(|(key, _)| &key.1.tx.as_bytes()[..]).collect::<Vec<&[u8]>>()),
        b.column("int8", rows.iter().map(|(key, _)| i64::from(key.1.index)).collect()),
    ]
    .join(", ")
}

fn transactions(b: &mut Builder, place: Place, rows: Vec<(&TransactionKey, &TouchedTransaction)>) {
    let (gone, there): (Vec<_>, Vec<_>) = rows.into_iter().partition(|(_, touched)| touched.gone);
    let (changed, new): (Vec<_>, Vec<_>) = there.into_iter().partition(|(_, touched)| touched.stored);
    let gone: Vec<_> = gone.into_iter().filter(|(_, touched)| touched.stored).collect();
    if !gone.is_empty() {
        let keys = transaction_keys(b, &gone);
        let (name, condition) = b.next();
        b.part(format!(
            "{name} AS (DELETE FROM {place}.ledger_tx t USING unnest({keys}) u (identity, id) \
             WHERE t.identity = u.identity AND t.id = u.id AND {condition})"
        ));
    }
    if !new.is_empty() {
        let columns = transaction_columns(b, &new);
        let (name, condition) = b.next();
        b.part(format!(
            "{name} AS (INSERT INTO {place}.ledger_tx (identity, id, number, status, recorded, signatures, flow, part, \
             states, kind, body, parents) SELECT * FROM unnest({columns}) WHERE {condition})"
        ));
    }
    if !changed.is_empty() {
        let columns = transaction_columns(b, &changed);
        let (name, condition) = b.next();
        b.part(format!(
            "{name} AS (UPDATE {place}.ledger_tx t SET number = u.number, status = u.status, recorded = u.recorded, \
             signatures = u.signatures, flow = u.flow, part = u.part, states = u.states, kind = coalesce(u.kind, t.kind), \
             body = coalesce(u.body, t.body), parents = coalesce(u.parents, t.parents) FROM unnest({columns}) \
             u (identity, id, number, status, recorded, signatures, flow, part, states, kind, body, parents) \
             WHERE t.identity = u.identity AND t.id = u.id AND {condition})"
        ));
    }
}

fn transaction_columns(b: &mut Builder, rows: &[(&TransactionKey, &TouchedTransaction)]) -> String {
    fn new(touched: &TouchedTransaction) -> Option<&NewTransaction> {
        touched.new.as_deref()
    }
    let row = || rows.iter().map(|(_, touched)| &touched.row);
    let touched = || rows.iter().map(|(_, touched)| *touched);
    let small = |number: i64| i16::try_from(number).unwrap_or_default();
    [
        transaction_keys(b, rows),
        b.column("int8", row().map(|row| row.number).collect()),
        b.column("int2", row().map(|row| status_number(row.status)).collect()),
        b.column("int8", row().map(|row| row.recorded).collect()),
        b.column("bytea", row().map(|row| &row.signatures[..]).collect::<Vec<&[u8]>>()),
        b.column("int8", row().map(|row| row.settlement.map(|by| by.flow.0)).collect::<Vec<Option<i64>>>()),
        b.column(
            "int2",
            row().map(|row| row.settlement.map(|by| small(by.part.number()))).collect::<Vec<Option<i16>>>(),
        ),
        b.column(
            "int2",
            row().map(|row| row.settlement.map(|by| small(by.states.number()))).collect::<Vec<Option<i16>>>(),
        ),
        b.column("int2", touched().map(|touched| Some(new(touched)?.kind)).collect::<Vec<Option<i16>>>()),
        b.column("bytea", touched().map(|touched| Some(&new(touched)?.body[..])).collect::<Vec<Option<&[u8]>>>()),
        b.column("bytea", touched().map(|touched| Some(&new(touched)?.parents[..])).collect::<Vec<Option<&[u8]>>>()),
    ]
    .join(", ")
}

/// What becomes of a state after it has come: consumed, consumed_by, change_out, in_flight and the four of its lock.
fn changing_columns(b: &mut Builder, rows: &[(&StateKey, &State)]) -> String {
    let states = || rows.iter().map(|(_, state)| *state);
    fn lease(state: &State) -> Option<&maxhost_store::ledger::FlowLease> {
        state.lease.as_ref()
    }
    let consumers: Vec<Option<&[u8]>> =
        states().map(|state| state.consumed.as_ref().map(|consumed| &consumed.by.as_bytes()[..])).collect();
    let in_flight: Vec<Option<Vec<u8>>> = states().map(|state| state.in_flight.column()).collect();
    [
        b.column(
            "int8",
            states().map(|state| state.consumed.map(|consumed| consumed.at)).collect::<Vec<Option<i64>>>(),
        ),
        b.column("bytea", consumers),
        b.column(
            "int8",
            states().map(|state| state.consumed.map(|consumed| consumed.change)).collect::<Vec<Option<i64>>>(),
        ),
        b.column("bytea", in_flight),
        b.column(
            "text",
            states().map(|state| lease(state).map(|held| held.lease.holder.as_str())).collect::<Vec<Option<&str>>>(),
        ),
        b.column(
            "bytea",
            states().map(|state| lease(state).map(|held| &held.lease.claim[..])).collect::<Vec<Option<&[u8]>>>(),
        ),
        b.column(
            "int8",
            states().map(|state| lease(state).map(|held| integer(held.lease.until))).collect::<Vec<Option<i64>>>(),
        ),
        b.column("int8", states().map(|state| lease(state).map(|held| held.flow.0)).collect::<Vec<Option<i64>>>()),
    ]
    .join(", ")
}

const CHANGING: &str = "consumed, consumed_by, change_out, in_flight, lock_holder, lock_claim, lock_until, lock_flow";

fn changed_states(b: &mut Builder, place: Place, rows: &[(&StateKey, &State)]) {
    if rows.is_empty() {
        return;
    }
    let (keys, columns) = (state_keys(b, rows), changing_columns(b, rows));
    let (name, condition) = b.next();
    b.part(format!(
        "{name} AS (UPDATE {place}.vault_state t SET ({CHANGING}) = (u.consumed, u.consumed_by, u.change_out, \
         u.in_flight, u.lock_holder, u.lock_claim, u.lock_until, u.lock_flow) \
         FROM unnest({keys}, {columns}) u (identity, tx, idx, {CHANGING}) \
         WHERE t.identity = u.identity AND t.tx = u.tx AND t.idx = u.idx AND {condition})"
    ));
}

fn new_states(b: &mut Builder, place: Place, rows: &[(&StateKey, &State)]) {
    if rows.is_empty() {
        return;
    }
    fn amount(state: &State) -> Option<&crate::ledger::pending::Amount> {
        state.amount.as_ref()
    }
    let (keys, changing) = (state_keys(b, rows), changing_columns(b, rows));
    let states = || rows.iter().map(|(_, state)| *state);
    let new = || rows.iter().filter_map(|(_, state)| state.new.as_deref());
    let quantity = |quantity: u64| i64::try_from(quantity).unwrap_or(i64::MAX);
    let columns = [
        b.column("int8", states().map(|state| state.number).collect()),
        b.column("text", states().map(|state| &*state.type_name).collect::<Vec<&str>>()),
        b.column("text", states().map(|state| &*state.notary).collect::<Vec<&str>>()),
        b.column("int2", states().map(|state| i16::from(state.relevant)).collect()),
        b.column("text", new().map(|new| new.constraint.as_str()).collect::<Vec<&str>>()),
        b.column("int8", new().map(|new| new.recorded).collect()),
        b.column("int8", new().map(|new| new.change).collect()),
        b.column("bytea", new().map(|new| &new.state[..]).collect::<Vec<&[u8]>>()),
        b.column("bytea", new().map(|new| &new.participants[..]).collect::<Vec<&[u8]>>()),
        b.column("bytea", new().map(|new| &new.fields[..]).collect::<Vec<&[u8]>>()),
        b.column("text", new().map(|new| new.linear_id.as_deref()).collect::<Vec<Option<&str>>>()),
        b.column("text", states().map(|state| Some(&*amount(state)?.token)).collect::<Vec<Option<&str>>>()),
        b.column("text", states().map(|state| amount(state)?.issuer.as_deref()).collect::<Vec<Option<&str>>>()),
        b.column("int8", states().map(|state| Some(quantity(amount(state)?.quantity))).collect::<Vec<Option<i64>>>()),
        b.column(
            "int2",
            states().map(|state| Some(i16::from(bucket(amount(state)?.quantity)))).collect::<Vec<Option<i16>>>(),
        ),
    ]
    .join(", ");
    let (name, condition) = b.next();
    b.part(format!(
        "{name} AS (INSERT INTO {place}.vault_state (identity, tx, idx, {CHANGING}, number, type, notary, relevant, \
         constraint_kind, recorded, change_in, state, participants, fields, linear_id, token, issuer, quantity, bucket) \
         SELECT * FROM unnest({keys}, {changing}, {columns}) WHERE {condition})"
    ));
    new_fields(b, place, rows);
    new_shapes(b, place, rows);
}

/// Of each type the fields that its states have together.
fn new_shapes(b: &mut Builder, place: Place, rows: &[(&StateKey, &State)]) {
    let shape = |(key, state): &(&StateKey, &State)| {
        let fields = shape(state.new.as_ref()?.indexed.iter().map(|(name, _)| name.as_str()));
        Some((key.0, state.type_name.clone(), fields))
    };
    let shapes: BTreeSet<(IdentityRow, Arc<str>, String)> = rows.iter().filter_map(shape).collect();
    let digests: Vec<SecureHash> = shapes.iter().map(|(_, _, fields)| SecureHash::of(fields.as_bytes())).collect();
    let columns = [
        b.column("int8", shapes.iter().map(|(identity, ..)| identity.0).collect()),
        b.column("text", shapes.iter().map(|(_, type_name, _)| &**type_name).collect::<Vec<&str>>()),
        b.column("bytea", digests.iter().map(|digest| &digest.as_bytes()[..]).collect::<Vec<&[u8]>>()),
        b.column("text", shapes.iter().map(|(.., fields)| fields.as_str()).collect::<Vec<&str>>()),
    ]
    .join(", ");
    let (name, condition) = b.next();
    b.part(format!(
        "{name} AS (INSERT INTO {place}.vault_shape (identity, type, digest, fields) SELECT * FROM unnest({columns}) \
         WHERE {condition} ON CONFLICT DO NOTHING)"
    ));
}

fn new_fields(b: &mut Builder, place: Place, rows: &[(&StateKey, &State)]) {
    fn fields(new: &Option<Arc<NewState>>) -> impl Iterator<Item = (&str, &[u8])> {
        new.iter().flat_map(|new| new.indexed.iter().map(|(name, value)| (name.as_str(), &value[..])))
    }
    let each = || {
        rows.iter().flat_map(|(key, state)| fields(&state.new).map(|(name, value)| (key.0, name, value, state.number)))
    };
    if each().next().is_none() {
        return;
    }
    let columns = [
        b.column("int8", each().map(|(identity, ..)| identity.0).collect()),
        b.column("text", each().map(|(_, name, ..)| name).collect::<Vec<&str>>()),
        b.column("bytea", each().map(|(_, _, value, _)| value).collect::<Vec<&[u8]>>()),
        b.column("int8", each().map(|(.., number)| number).collect()),
    ]
    .join(", ");
    let (name, condition) = b.next();
    b.part(format!(
        "{name} AS (INSERT INTO {place}.vault_field (identity, name, value, state) SELECT * FROM unnest({columns}) \
         WHERE {condition})"
    ));
}

/// Marks of consumed states, in a table of such.
fn marks(
    b: &mut Builder,
    table: &str,
    conflict: &str,
    rows: &UndoMap<StateKey, maxhost_model::SecureHash>,
    layout: Layout,
) {
    for (place, rows) in by_place(layout, rows.iter(), |(key, _)| key.0) {
        let keys = state_keys(b, &rows);
        let by = b.column("bytea", rows.iter().map(|(_, by)| &by.as_bytes()[..]).collect::<Vec<&[u8]>>());
        let (name, condition) = b.next();
        b.part(format!(
            "{name} AS (INSERT INTO {place}.{table} (identity, tx, idx, consumed_by) SELECT * FROM unnest({keys}, {by}) \
             WHERE {condition} {conflict})"
        ));
    }
}

fn changes(b: &mut Builder, pending: &LedgerPending, layout: Layout) {
    for (place, rows) in by_place(layout, pending.changes.iter(), |(key, _)| key.0) {
        let columns = [
            identities(b, &rows),
            b.column("int8", rows.iter().map(|(key, _)| key.1).collect()),
            b.column(
                "bytea",
                rows.iter().map(|(_, change)| &change.transaction.as_bytes()[..]).collect::<Vec<&[u8]>>(),
            ),
            b.column("int8", rows.iter().map(|(_, change)| change.at).collect()),
        ]
        .join(", ");
        let (name, condition) = b.next();
        b.part(format!(
            "{name} AS (INSERT INTO {place}.vault_change (identity, number, tx, at) SELECT * FROM unnest({columns}) \
             WHERE {condition})"
        ));
    }
}

fn notaries(b: &mut Builder, pending: &LedgerPending, layout: Layout) {
    for (place, rows) in by_place(layout, pending.notaries.iter(), |(identity, _)| **identity) {
        let columns = [
            b.column("int8", rows.iter().map(|(identity, _)| identity.0).collect()),
            b.column("int8", rows.iter().map(|(_, notary)| notary.batch).collect()),
            b.column("int8", rows.iter().map(|(_, notary)| notary.at).collect()),
            b.column("int8", rows.iter().map(|(_, notary)| notary.committed).collect()),
            b.column("int8", rows.iter().map(|(_, notary)| notary.conflicts).collect()),
            b.column("int8", rows.iter().map(|(_, notary)| notary.states).collect()),
        ]
        .join(", ");
        let (name, condition) = b.next();
        b.part(format!(
            "{name} AS (INSERT INTO {place}.notary (identity, batch, at, committed, conflicts, states) \
             SELECT * FROM unnest({columns}) WHERE {condition} ON CONFLICT (identity) DO UPDATE SET \
             (batch, at, committed, conflicts, states) = \
             (excluded.batch, excluded.at, excluded.committed, excluded.conflicts, excluded.states))"
        ));
    }
    for (place, rows) in by_place(layout, pending.outcomes.iter(), |(key, _)| key.0) {
        let stored = |outcome: &Outcome| match outcome {
            Outcome::Committed(stamp) => (Some(i64::try_from(stamp.batch).unwrap_or(i64::MAX)), integer(stamp.at)),
            Outcome::TooLate(at) => (None, integer(*at)),
        };
        let columns = [
            transaction_keys(b, &rows),
            b.column("int8", rows.iter().map(|(_, outcome)| stored(outcome).0).collect::<Vec<Option<i64>>>()),
            b.column("int8", rows.iter().map(|(_, outcome)| stored(outcome).1).collect()),
        ]
        .join(", ");
        let (name, condition) = b.next();
        b.part(format!(
            "{name} AS (INSERT INTO {place}.notary_tx (identity, id, batch, at) SELECT * FROM unnest({columns}) \
             WHERE {condition} ON CONFLICT (identity, id) DO UPDATE SET (batch, at) = (excluded.batch, excluded.at))"
        ));
    }
    for (place, rows) in by_place(layout, pending.requests.iter(), |(key, _)| key.0) {
        let columns = [
            identities(b, &rows),
            b.column("bytea", rows.iter().map(|(_, request)| &request.id.as_bytes()[..]).collect::<Vec<&[u8]>>()),
            b.column("text", rows.iter().map(|(_, request)| request.caller.as_str()).collect::<Vec<&str>>()),
            b.column("int8", rows.iter().map(|(_, request)| small(request.states)).collect()),
            b.column("int8", rows.iter().map(|(_, request)| small(request.stamp.batch)).collect()),
            b.column("int8", rows.iter().map(|(_, request)| integer(request.stamp.at)).collect()),
            b.column("int2", rows.iter().map(|(_, request)| answered(request)).collect::<Vec<Option<i16>>>()),
            b.column("int8", rows.iter().map(|(_, request)| conflicting(request)).collect::<Vec<Option<i64>>>()),
            b.column(
                "bytea",
                rows.iter().map(|(_, request)| request.encoded_conflicts()).collect::<Vec<Option<Vec<u8>>>>(),
            ),
        ]
        .join(", ");
        let (name, condition) = b.next();
        b.part(format!(
            "{name} AS (INSERT INTO {place}.notary_request (identity, id, caller, states, batch, at, answered, conflicting, conflicts) \
             SELECT u.a, u.b, u.c, u.d, u.e, u.f, u.g, u.h, u.i \
             FROM unnest({columns}) WITH ORDINALITY u (a, b, c, d, e, f, g, h, i, place) \
             WHERE {condition} ORDER BY u.place)"
        ));
    }
}

fn attachments(b: &mut Builder, pending: &LedgerPending, layout: Layout) {
    for (place, rows) in by_place(layout, pending.attachments.iter(), |(key, _)| key.0) {
        let columns = [
            transaction_keys(b, &rows),
            b.column("text", rows.iter().map(|(_, attachment)| attachment.uploader.as_str()).collect::<Vec<&str>>()),
            b.column("int8", rows.iter().map(|(_, attachment)| integer(attachment.at)).collect()),
            b.column("bytea", rows.iter().map(|(_, attachment)| &attachment.body[..]).collect::<Vec<&[u8]>>()),
        ]
        .join(", ");
        let (name, condition) = b.next();
        b.part(format!(
            "{name} AS (INSERT INTO {place}.attachment (identity, id, uploader, at, body) \
             SELECT * FROM unnest({columns}) WHERE {condition} ON CONFLICT DO NOTHING)"
        ));
    }
}

fn parameters(b: &mut Builder, pending: &LedgerPending, layout: Layout) {
    for (place, rows) in by_place(layout, pending.parameters.iter(), |(key, _)| key.0) {
        let columns = [
            transaction_keys(b, &rows),
            b.column("int8", rows.iter().map(|(_, parameters)| integer(parameters.at)).collect()),
            b.column("bytea", rows.iter().map(|(_, parameters)| &parameters.body[..]).collect::<Vec<&[u8]>>()),
        ]
        .join(", ");
        let (name, condition) = b.next();
        b.part(format!(
            "{name} AS (INSERT INTO {place}.network_parameters (identity, hash, at, body) \
             SELECT * FROM unnest({columns}) WHERE {condition} ON CONFLICT DO NOTHING)"
        ));
    }
}

fn keys(b: &mut Builder, pending: &LedgerPending, layout: Layout) {
    for (place, rows) in by_place(layout, pending.keys.iter(), |(key, _)| key.0) {
        let nonces = rows.iter().map(|(_, known)| known.nonce.as_ref().map(|nonce| &nonce[..]));
        let columns = [
            transaction_keys(b, &rows),
            b.column("bytea", rows.iter().map(|(_, known)| known.key.spki()).collect::<Vec<&[u8]>>()),
            b.column("text", rows.iter().map(|(_, known)| known.party.as_str()).collect::<Vec<&str>>()),
            b.column("bytea", nonces.collect::<Vec<Option<&[u8]>>>()),
            b.column("int8", rows.iter().map(|(_, known)| integer(known.at)).collect()),
        ]
        .join(", ");
        let (name, condition) = b.next();
        b.part(format!(
            "{name} AS (INSERT INTO {place}.ledger_key (identity, id, key, party, nonce, at) \
             SELECT * FROM unnest({columns}) WHERE {condition} ON CONFLICT DO NOTHING)"
        ));
    }
}

fn assigned(b: &mut Builder, pending: &LedgerPending, layout: Layout) {
    for (place, rows) in by_place(layout, pending.assigned.iter(), |(key, _)| key.0) {
        let columns = [
            transaction_keys(b, &rows),
            b.column("text", rows.iter().map(|(_, assigned)| assigned.external_id.as_str()).collect::<Vec<&str>>()),
            b.column("int8", rows.iter().map(|(_, assigned)| integer(assigned.at)).collect()),
        ]
        .join(", ");
        let (name, condition) = b.next();
        b.part(format!(
            "{name} AS (INSERT INTO {place}.key_external_id (identity, id, external_id, at) \
             SELECT * FROM unnest({columns}) WHERE {condition} ON CONFLICT DO NOTHING)"
        ));
    }
}
