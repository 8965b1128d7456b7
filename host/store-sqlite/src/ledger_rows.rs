//! The rows of ledgers within a transaction, for the rules of the store.

use std::collections::{BTreeMap, BTreeSet};

use maxhost_group_commit::{Fault, FaultKind};
use maxhost_ledger::notary::{BatchStamp, Outcome};
use maxhost_ledger::time::Timestamp;
use maxhost_ledger::tx::StateRef;
use maxhost_ledger::vault::locks::{ClaimId, Lease};
use maxhost_ledger::vault::recording::{Kept, Known};
use maxhost_ledger::vault::selection::{Candidate, bucket};
use maxhost_model::{FlowRow, IdentityRow, SecureHash};
use maxhost_store::ledger::codec::{
    encode_fields, encode_participants, indexed_fields, shape, status_number, status_of, time,
};
use maxhost_store::ledger::query::integer;
use maxhost_store::ledger::{
    Answered, AssignedKey, CandidateScope, FlowLease, InFlight, KnownKey, LedgerRows, LoggedRequest, NewAttachment,
    NewParameters, NewState, Settlement, TransactionPut, TransactionState, Wanted,
};
use rusqlite::{OptionalExtension, Row, params};

use crate::rows::{SqliteRows, fault};

fn broken(text: &'static str) -> Fault {
    Fault::new(FaultKind::Corrupt, text)
}

/// A hash of a column.
fn hash_of(row: &Row<'_>, index: usize) -> rusqlite::Result<SecureHash> {
    row.get::<_, [u8; 32]>(index).map(SecureHash::from_bytes)
}

fn reference_of(row: &Row<'_>) -> rusqlite::Result<StateRef> {
    Ok(StateRef::new(hash_of(row, 0)?, row.get(1)?))
}

/// A lease from three columns.
fn lease_of(row: &Row<'_>, first: usize) -> rusqlite::Result<Option<Lease>> {
    let Some(holder) = row.get::<_, Option<String>>(first)? else { return Ok(None) };
    Ok(Some(Lease { holder, claim: row.get(first + 1)?, until: time(row.get(first + 2)?) }))
}

fn in_flight_of(row: &Row<'_>, index: usize) -> rusqlite::Result<InFlight> {
    let column: Option<Vec<u8>> = row.get(index)?;
    InFlight::from_column(column.as_deref()).ok_or_else(|| {
        let text = "the transactions in flight of a state are damaged";
        rusqlite::Error::FromSqlConversionFailure(index, rusqlite::types::Type::Blob, text.into())
    })
}

fn candidate(row: &Row<'_>) -> rusqlite::Result<Candidate> {
    let quantity = row.get::<_, i64>(2)?.unsigned_abs();
    let in_flight = in_flight_of(row, 6)?.first();
    Ok(Candidate { reference: reference_of(row)?, quantity, lease: lease_of(row, 3)?, in_flight })
}

fn small(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

impl SqliteRows<'_> {
    /// Changes which transactions in flight have a state as an input, if any has.
    fn change_in_flight(
        &mut self,
        identity: IdentityRow,
        state: &StateRef,
        change: impl FnOnce(&mut InFlight),
    ) -> Result<(), Fault> {
        let key = params![identity.0, state.tx.as_bytes(), state.index];
        let found = self.ledger.in_flight.query_row(key, |row| in_flight_of(row, 0)).optional().map_err(fault)?;
        let Some(mut marks) = found else { return Ok(()) };
        change(&mut marks);
        let row = params![identity.0, state.tx.as_bytes(), state.index, marks.column()];
        self.ledger.put_in_flight.execute(row).map(|_| ()).map_err(fault)
    }
}

impl LedgerRows for SqliteRows<'_> {
    fn keeps_ledgers(&self) -> bool {
        true
    }

    fn ledger_transaction(
        &mut self,
        identity: IdentityRow,
        id: &SecureHash,
    ) -> Result<Option<TransactionState>, Fault> {
        let read = |row: &Row<'_>| Ok((row.get::<_, i64>(0)?, row.get(1)?));
        let found = self.ledger.transaction.query_row(params![identity.0, id.as_bytes()], read);
        let Some((status, signatures)) = found.optional().map_err(fault)? else { return Ok(None) };
        let status = status_of(status).ok_or_else(|| broken("the status of a transaction"))?;
        Ok(Some(TransactionState { status, signatures }))
    }

    fn put_transaction(&mut self, identity: IdentityRow, put: &TransactionPut<'_>, new: bool) -> Result<(), Fault> {
        let (id, status, recorded) = (put.id.as_bytes(), status_number(put.status), integer(put.recorded));
        let flow = put.settlement.map(|by| by.flow.0);
        let part = put.settlement.map(|by| by.part.number());
        let states = put.settlement.map(|by| by.states.number());
        if !new {
            let changed = params![identity.0, id, status, recorded, put.signatures, flow, part, states];
            return self.ledger.set_transaction.execute(changed).map(|_| ()).map_err(fault);
        }
        let row = params![identity.0, id, status, put.kind.number(), recorded, put.signatures, flow, part, states];
        let number = self.ledger.add_transaction.insert(row).map_err(fault)?;
        self.ledger.add_body.execute(params![number, &put.body[..]]).map_err(fault)?;
        for parent in put.parents {
            self.ledger.add_parent.execute(params![number, parent.as_bytes()]).map_err(fault)?;
        }
        Ok(())
    }

    fn set_settlement(&mut self, identity: IdentityRow, id: &SecureHash, by: Settlement) -> Result<(), Fault> {
        let row = params![identity.0, id.as_bytes(), by.flow.0, by.part.number(), by.states.number()];
        self.ledger.set_settlement.execute(row).map(|_| ()).map_err(fault)
    }

    fn remove_transaction(&mut self, identity: IdentityRow, id: &SecureHash) -> Result<(), Fault> {
        let gone = self.ledger.drop_transaction.query_row(params![identity.0, id.as_bytes()], |row| row.get(0));
        let Some(number) = gone.optional().map_err(fault)? else { return Ok(()) };
        let number: i64 = number;
        self.ledger.drop_body.execute([number]).map_err(fault)?;
        self.ledger.drop_parents.execute([number]).map_err(fault)?;
        Ok(())
    }

    fn known_state(&mut self, identity: IdentityRow, state: &StateRef) -> Result<Known, Fault> {
        let read = |row: &Row<'_>| {
            let is_in_vault: bool = row.get(0)?;
            let spent_by = row.get::<_, Option<[u8; 32]>>(1)?.map(SecureHash::from_bytes);
            let kept = if spent_by.is_some() { Kept::Consumed } else { Kept::Unconsumed };
            Ok(Known { in_vault: is_in_vault.then_some(kept), spent_by })
        };
        self.ledger.known.query_row(params![identity.0, state.tx.as_bytes(), state.index], read).map_err(fault)
    }

    fn add_change(&mut self, identity: IdentityRow, transaction: &SecureHash, at: Timestamp) -> Result<i64, Fault> {
        let row = params![identity.0, transaction.as_bytes(), integer(at)];
        self.ledger.add_change.insert(row).map_err(fault)
    }

    fn add_state(&mut self, identity: IdentityRow, state: &NewState<'_>) -> Result<(), Fault> {
        let (content, consumed_by) = (state.content, state.consumed_by.as_ref());
        let (amount, lease) = (content.amount.as_ref(), state.lease.as_ref());
        if let Some(held) = lease {
            self.backlog.holds(held.flow);
        }
        let row = params![
            identity.0,
            state.reference.tx.as_bytes(),
            state.reference.index,
            content.type_name,
            content.notary,
            content.constraint,
            state.relevant,
            integer(state.recorded),
            consumed_by.map(|_| integer(state.recorded)),
            consumed_by.map(|by| &by.as_bytes()[..]),
            state.change,
            consumed_by.map(|_| state.change),
            &content.state[..],
            encode_participants(content)?,
            encode_fields(content)?,
            content.linear_id,
            amount.map(|amount| &amount.token),
            amount.and_then(|amount| amount.issuer.as_ref()),
            amount.map(|amount| small(amount.quantity)),
            amount.map(|amount| bucket(amount.quantity)),
            lease.map(|held| &held.lease.holder),
            lease.map(|held| &held.lease.claim[..]),
            lease.map(|held| integer(held.lease.until)),
            lease.map(|held| held.flow.0),
        ];
        let number = self.ledger.add_state.insert(row).map_err(fault)?;
        for (name, value) in indexed_fields(content) {
            self.ledger.add_field.execute(params![identity.0, name, value, number]).map_err(fault)?;
        }
        let fields = shape(indexed_fields(content).map(|(name, _)| name));
        self.ledger.add_shape.execute(params![identity.0, content.type_name, fields]).map_err(fault)?;
        Ok(())
    }

    fn consume_state(
        &mut self,
        identity: IdentityRow,
        state: &StateRef,
        by: &SecureHash,
        at: Timestamp,
        change: i64,
    ) -> Result<(), Fault> {
        let row = params![identity.0, state.tx.as_bytes(), state.index, by.as_bytes(), integer(at), change];
        self.ledger.consume.execute(row).map(|_| ()).map_err(fault)
    }

    fn add_spent(&mut self, identity: IdentityRow, state: &StateRef, by: &SecureHash) -> Result<(), Fault> {
        let row = params![identity.0, state.tx.as_bytes(), state.index, by.as_bytes()];
        self.ledger.add_spent.execute(row).map(|_| ()).map_err(fault)
    }

    fn set_in_flight(&mut self, identity: IdentityRow, states: &[StateRef], by: &SecureHash) -> Result<(), Fault> {
        for state in states {
            let row = params![identity.0, state.tx.as_bytes(), state.index, by.as_bytes()];
            if self.ledger.set_in_flight.execute(row).map_err(fault)? == 0 {
                self.change_in_flight(identity, state, |marks| marks.add(by))?;
            }
        }
        Ok(())
    }

    fn clear_in_flight(&mut self, identity: IdentityRow, states: &[StateRef], by: &SecureHash) -> Result<(), Fault> {
        for state in states {
            let row = params![identity.0, state.tx.as_bytes(), state.index, by.as_bytes()];
            if self.ledger.clear_in_flight.execute(row).map_err(fault)? == 0 {
                self.change_in_flight(identity, state, |marks| marks.remove(by))?;
            }
        }
        Ok(())
    }

    fn candidates(
        &mut self,
        identity: IdentityRow,
        wanted: &Wanted<'_>,
        scope: CandidateScope,
        limit: u32,
    ) -> Result<Vec<Candidate>, Fault> {
        let (statement, least) = match scope {
            CandidateScope::From(bucket) => (&mut self.ledger.from_bucket, bucket),
            // A state of nothing is of no use.
            CandidateScope::Smallest => (&mut self.ledger.from_bucket, 1),
            CandidateScope::Largest => (&mut self.ledger.largest, 1),
            CandidateScope::Any => (&mut self.ledger.any, 1),
        };
        let Wanted { type_name, token, issuer, notary, holder, now } = *wanted;
        let row = params![identity.0, type_name, token, issuer, holder, integer(now), notary, least, limit];
        let found = statement.query_map(row, candidate).map_err(fault)?;
        found.collect::<Result<_, _>>().map_err(fault)
    }

    fn lease(&mut self, identity: IdentityRow, state: &StateRef) -> Result<Option<Option<Lease>>, Fault> {
        let row = params![identity.0, state.tx.as_bytes(), state.index];
        self.ledger.lease.query_row(row, |row| lease_of(row, 0)).optional().map_err(fault)
    }

    fn set_lease(&mut self, identity: IdentityRow, state: &StateRef, held: &FlowLease) -> Result<(), Fault> {
        let FlowLease { lease, flow } = held;
        self.backlog.holds(*flow);
        let until = integer(lease.until);
        let row = params![identity.0, state.tx.as_bytes(), state.index, lease.holder, &lease.claim[..], until, flow.0];
        self.ledger.set_lease.execute(row).map(|_| ()).map_err(fault)
    }

    fn claimed(&mut self, identity: IdentityRow, claim: &ClaimId, now: Timestamp) -> Result<Vec<StateRef>, Fault> {
        let row = params![identity.0, &claim[..], integer(now)];
        let found = self.ledger.claimed.query_map(row, reference_of).map_err(fault)?;
        found.collect::<Result<_, _>>().map_err(fault)
    }

    fn renew_leases(
        &mut self,
        identity: IdentityRow,
        holder: &str,
        until: Timestamp,
        now: Timestamp,
    ) -> Result<(), Fault> {
        let row = params![identity.0, holder, integer(until), integer(now)];
        self.ledger.renew.execute(row).map(|_| ()).map_err(fault)
    }

    fn release_leases(
        &mut self,
        identity: IdentityRow,
        holder: &str,
        states: Option<&BTreeSet<StateRef>>,
    ) -> Result<(), Fault> {
        let Some(states) = states else {
            return self.ledger.release_all.execute(params![identity.0, holder]).map(|_| ()).map_err(fault);
        };
        for state in states {
            let row = params![identity.0, holder, state.tx.as_bytes(), state.index];
            self.ledger.release_one.execute(row).map_err(fault)?;
        }
        Ok(())
    }

    fn release_flow(&mut self, flow: FlowRow) -> Result<(), Fault> {
        self.ledger.release_flow.execute([flow.0]).map(|_| ()).map_err(fault)
    }

    fn next_batch(&mut self, identity: IdentityRow, at: Timestamp) -> Result<BatchStamp, Fault> {
        let read = |row: &Row<'_>| {
            let (batch, at): (i64, i64) = (row.get(0)?, row.get(1)?);
            Ok(BatchStamp { batch: batch.unsigned_abs(), at: time(at) })
        };
        self.ledger.next_batch.query_row(params![identity.0, integer(at)], read).map_err(fault)
    }

    fn consumers(
        &mut self,
        identity: IdentityRow,
        states: &BTreeSet<StateRef>,
    ) -> Result<BTreeMap<StateRef, SecureHash>, Fault> {
        let mut found = BTreeMap::new();
        for state in states {
            let row = params![identity.0, state.tx.as_bytes(), state.index];
            let consumer = self.ledger.consumer.query_row(row, |row| hash_of(row, 0)).optional().map_err(fault)?;
            found.extend(consumer.map(|consumer| (*state, consumer)));
        }
        Ok(found)
    }

    fn outcomes(
        &mut self,
        identity: IdentityRow,
        ids: &BTreeSet<SecureHash>,
    ) -> Result<BTreeMap<SecureHash, Outcome>, Fault> {
        let mut found = BTreeMap::new();
        for id in ids {
            let read = |row: &Row<'_>| {
                let (batch, at): (Option<i64>, i64) = (row.get(0)?, row.get(1)?);
                Ok(match batch {
                    Some(batch) => Outcome::Committed(BatchStamp { batch: batch.unsigned_abs(), at: time(at) }),
                    None => Outcome::TooLate(time(at)),
                })
            };
            let row = params![identity.0, id.as_bytes()];
            let outcome = self.ledger.outcome.query_row(row, read).optional().map_err(fault)?;
            found.extend(outcome.map(|outcome| (*id, outcome)));
        }
        Ok(found)
    }

    fn add_consumed(&mut self, identity: IdentityRow, state: &StateRef, by: &SecureHash) -> Result<(), Fault> {
        let row = params![identity.0, state.tx.as_bytes(), state.index, by.as_bytes()];
        self.ledger.add_consumed.execute(row).map(|_| ()).map_err(fault)
    }

    fn add_outcome(&mut self, identity: IdentityRow, id: &SecureHash, outcome: Outcome) -> Result<(), Fault> {
        let (batch, at) = match outcome {
            Outcome::Committed(stamp) => (Some(small(stamp.batch)), stamp.at),
            Outcome::TooLate(at) => (None, at),
        };
        let row = params![identity.0, id.as_bytes(), batch, integer(at)];
        self.ledger.add_outcome.execute(row).map(|_| ()).map_err(fault)
    }

    fn log_request(&mut self, identity: IdentityRow, request: &LoggedRequest) -> Result<(), Fault> {
        let LoggedRequest { id, caller, states, stamp, answered, conflicting, conflicts: _ } = request;
        let answered = answered.map(Answered::number);
        let conflicting = (*conflicting > 0).then(|| small(*conflicting));
        let row = params![
            identity.0,
            id.as_bytes(),
            caller,
            small(*states),
            small(stamp.batch),
            integer(stamp.at),
            answered,
            conflicting,
            request.encoded_conflicts(),
        ];
        self.ledger.log_request.execute(row).map(|_| ()).map_err(fault)
    }

    fn count_batch(&mut self, identity: IdentityRow, committed: u64, conflicts: u64, states: u64) -> Result<(), Fault> {
        let row = params![identity.0, small(committed), small(conflicts), small(states)];
        self.ledger.count_batch.execute(row).map(|_| ()).map_err(fault)
    }

    fn add_attachment(&mut self, identity: IdentityRow, attachment: &NewAttachment) -> Result<(), Fault> {
        let NewAttachment { id, body, uploader, at } = attachment;
        let row = params![identity.0, id.as_bytes(), uploader, integer(*at), &body[..]];
        self.ledger.add_attachment.execute(row).map(|_| ()).map_err(fault)
    }

    fn add_parameters(&mut self, identity: IdentityRow, parameters: &NewParameters) -> Result<(), Fault> {
        let NewParameters { hash, body, at } = parameters;
        let row = params![identity.0, hash.as_bytes(), integer(*at), &body[..]];
        self.ledger.add_parameters.execute(row).map(|_| ()).map_err(fault)
    }

    fn assign_key(&mut self, identity: IdentityRow, assigned: &AssignedKey) -> Result<(), Fault> {
        let AssignedKey { id, external_id, at } = assigned;
        let row = params![identity.0, id.as_bytes(), external_id, integer(*at)];
        self.ledger.assign_key.execute(row).map(|_| ()).map_err(fault)
    }

    fn add_key(&mut self, identity: IdentityRow, known: &KnownKey) -> Result<(), Fault> {
        let KnownKey { key, party, nonce, at } = known;
        let (id, nonce) = (key.fingerprint(), nonce.as_ref().map(|nonce| &nonce[..]));
        let row = params![identity.0, &id.as_bytes()[..], key.spki(), party, nonce, integer(*at)];
        self.ledger.add_key.execute(row).map(|_| ()).map_err(fault)
    }
}
