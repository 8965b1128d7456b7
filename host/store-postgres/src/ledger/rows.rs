//! The rows of ledgers within a batch, for the rules of the store. Nothing here writes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use maxhost_group_commit::Fault;
use maxhost_ledger::notary::{BatchStamp, Outcome};
use maxhost_ledger::time::Timestamp;
use maxhost_ledger::tx::StateRef;
use maxhost_ledger::vault::locks::{ClaimId, Lease};
use maxhost_ledger::vault::recording::{Kept, Known, TransactionStatus};
use maxhost_ledger::vault::selection::{Candidate, bucket};
use maxhost_model::{FlowRow, IdentityRow, SecureHash};
use maxhost_store::LedgerRows;
use maxhost_store::ledger::codec::{encode_fields, encode_participants, indexed_fields, time};
use maxhost_store::ledger::query::integer;
use maxhost_store::ledger::{
    AssignedKey, CandidateScope, FlowLease, InFlight, KnownKey, LoggedRequest, NewAttachment, NewParameters, NewState,
    Settlement, TransactionPut, TransactionState, Wanted,
};

use crate::committer::PostgresRows;
use crate::ledger::pending::{
    Amount, Change, Consumed, NewState as NewRow, NewTransaction, Notary, State, StateKey, TouchedTransaction,
    Transaction, TransactionKey,
};
use crate::ledger::place::Place;
use crate::ledger::read::{STATE_COLUMNS, state_of};
use crate::write::Builder;

fn small(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn stamp_of(notary: &Notary) -> BatchStamp {
    BatchStamp { batch: notary.batch.unsigned_abs(), at: time(notary.at) }
}

fn is_held_by(state: &State, holder: &str) -> bool {
    state.lease.as_ref().is_some_and(|held| held.lease.holder == holder)
}

impl PostgresRows {
    /// A transaction as it stands now.
    fn transaction(&mut self, key: TransactionKey) -> Result<Option<Transaction>, Fault> {
        match self.batch.pending.ledger.transactions.get(&key) {
            Some(touched) => Ok((!touched.gone).then(|| touched.row.clone())),
            None => self.batch.stored_transaction(key),
        }
    }

    /// A state as it stands now.
    fn state(&mut self, key: StateKey) -> Result<Option<State>, Fault> {
        match self.batch.pending.ledger.states.get(&key) {
            Some(state) => Ok(Some(state.clone())),
            None => self.batch.stored_state(key),
        }
    }

    /// Changes a state, if there is one.
    fn change_state(&mut self, key: StateKey, change: impl FnOnce(&mut State)) -> Result<(), Fault> {
        if let Some(state) = self.batch.pending.ledger.states.change(&key) {
            change(state);
        } else if let Some(mut state) = self.batch.stored_state(key)? {
            change(&mut state);
            self.batch.pending.ledger.states.put(key, state);
        }
        Ok(())
    }

    /// The states of an identity for which something holds: in the database by a condition on `s`, changed ones by
    /// `holds`. `keep`: what is found is remembered for the batch.
    fn find(
        &mut self,
        identity: IdentityRow,
        mut b: Builder,
        condition: &str,
        keep: bool,
        holds: impl Fn(&State) -> bool,
    ) -> Result<Vec<(StateRef, State)>, Fault> {
        self.batch.check_open(identity)?;
        let (place, id) = (Place::of(self.batch.layout, identity), b.bind(identity.0));
        b.part(format!("SELECT {STATE_COLUMNS} FROM {place}.vault_state s WHERE s.identity = {id} AND {condition}"));
        let rows = self.batch.ask_all(b)?;
        let mut found = Vec::with_capacity(rows.len());
        for row in &rows {
            let (key, state) = state_of(row)?;
            if self.batch.pending.ledger.states.get(&key).is_some() {
                continue;
            }
            if keep {
                self.batch.read.ledger.states.insert(key, Some(state.clone()));
            }
            found.push((key.1, state));
        }
        let changed = self.batch.pending.ledger.states_of(identity).filter(|(_, state)| holds(state));
        found.extend(changed.map(|(reference, state)| (reference, state.clone())));
        Ok(found)
    }

    /// What a holder has.
    fn held_by(&mut self, identity: IdentityRow, holder: &str) -> Result<Vec<(StateRef, State)>, Fault> {
        let mut b = Builder::new();
        let condition = format!("s.lock_flow IS NOT NULL AND s.lock_holder = {}", b.bind(holder.to_owned()));
        self.find(identity, b, &condition, true, |state| is_held_by(state, holder))
    }

    fn release(&mut self, identity: IdentityRow, held: Vec<(StateRef, State)>) -> Result<(), Fault> {
        for (reference, _) in held {
            self.change_state((identity, reference), |state| state.lease = None)?;
        }
        Ok(())
    }

    fn notary(&mut self, identity: IdentityRow) -> Result<Option<Notary>, Fault> {
        match self.batch.pending.ledger.notaries.get(&identity) {
            Some(notary) => Ok(Some(*notary)),
            None => self.batch.stored_notary(identity),
        }
    }

    fn put_lease(&mut self, held: &FlowLease) {
        self.batch.backlog.holds(held.flow);
    }
}

/// The part of a statement that finds candidates, without their order.
fn candidates_condition(b: &mut Builder, wanted: &Wanted<'_>, scope: CandidateScope) -> String {
    let Wanted { type_name, token, issuer, notary, holder, now } = *wanted;
    let mut condition = format!(
        "s.type = {} AND s.token = {} AND s.token IS NOT NULL AND s.consumed_by IS NULL AND s.relevant = 1",
        b.bind(type_name.to_owned()),
        b.bind(token.to_owned()),
    );
    for (column, value) in [("issuer", issuer), ("notary", notary)] {
        if let Some(value) = value {
            condition += &format!(" AND s.{column} = {}", b.bind(value.to_owned()));
        }
    }
    if scope != CandidateScope::Any {
        let (now, holder) = (b.bind(integer(now)), b.bind(holder.to_owned()));
        condition += &format!(
            " AND s.in_flight IS NULL AND (s.lock_until IS NULL OR s.lock_until <= {now} OR s.lock_holder = {holder})"
        );
    }
    condition += &format!(" AND s.bucket >= {}::int2", b.bind(i16::from(least_bucket(scope))));
    condition
}

/// A state of nothing is of no use.
fn least_bucket(scope: CandidateScope) -> u8 {
    match scope {
        CandidateScope::From(bucket) => bucket,
        CandidateScope::Smallest | CandidateScope::Largest | CandidateScope::Any => 1,
    }
}

fn is_candidate(state: &State, wanted: &Wanted<'_>, scope: CandidateScope) -> bool {
    let Some(amount) = &state.amount else { return false };
    let available = |held: &FlowLease| held.lease.is_over(wanted.now) || held.lease.holder == wanted.holder;
    let is_free = || state.in_flight.is_empty() && state.lease.as_ref().is_none_or(available);
    state.is_unspent()
        && *state.type_name == *wanted.type_name
        && *amount.token == *wanted.token
        && wanted.issuer.is_none_or(|issuer| amount.issuer.as_deref() == Some(issuer))
        && wanted.notary.is_none_or(|notary| *state.notary == *notary)
        && bucket(amount.quantity) >= least_bucket(scope)
        && (scope == CandidateScope::Any || is_free())
}

impl LedgerRows for PostgresRows {
    fn keeps_ledgers(&self) -> bool {
        true
    }

    fn ledger_transaction(
        &mut self,
        identity: IdentityRow,
        id: &SecureHash,
    ) -> Result<Option<TransactionState>, Fault> {
        let found = self.transaction((identity, *id))?;
        Ok(found.map(|row| TransactionState { status: row.status, signatures: row.signatures }))
    }

    fn put_transaction(&mut self, identity: IdentityRow, put: &TransactionPut<'_>, new: bool) -> Result<(), Fault> {
        let key = (identity, *put.id);
        let (recorded, signatures) = (integer(put.recorded), put.signatures.to_vec());
        let touched = self.batch.pending.ledger.transactions.get(&key).cloned();
        if new {
            let number = self.batch.number(identity, |numbers| &mut numbers.transaction)?;
            let parents = put.parents.iter().flat_map(|parent| *parent.as_bytes()).collect();
            let kind = i16::try_from(put.kind.number()).unwrap_or_default();
            let touched = TouchedTransaction {
                row: Transaction { number, status: put.status, recorded, signatures, settlement: put.settlement },
                // One that went in this batch has a row still.
                stored: touched.is_some_and(|touched| touched.stored),
                gone: false,
                new: Some(Arc::new(NewTransaction { kind, body: put.body.clone(), parents })),
            };
            self.batch.pending.ledger.transactions.put(key, touched);
            return Ok(());
        }
        let touched = match touched {
            Some(touched) => Some(touched),
            None => self.batch.stored_transaction(key)?.map(|row| TouchedTransaction {
                row,
                stored: true,
                gone: false,
                new: None,
            }),
        };
        let Some(mut touched) = touched.filter(|touched| !touched.gone) else { return Ok(()) };
        // It came again: its time is that of becoming part of the ledger, or of its first coming.
        if touched.row.status != TransactionStatus::Verified && put.status == TransactionStatus::Verified {
            touched.row.recorded = recorded;
        }
        let settlement =
            put.settlement.or(touched.row.settlement).filter(|_| put.status == TransactionStatus::InFlight);
        touched.row = Transaction { status: put.status, signatures, settlement, ..touched.row };
        self.batch.pending.ledger.transactions.put(key, touched);
        Ok(())
    }

    fn set_settlement(&mut self, identity: IdentityRow, id: &SecureHash, by: Settlement) -> Result<(), Fault> {
        let key = (identity, *id);
        let Some(mut row) = self.transaction(key)?.filter(|row| row.status == TransactionStatus::InFlight) else {
            return Ok(());
        };
        row.settlement = Some(by);
        let before = self.batch.pending.ledger.transactions.get(&key).cloned();
        let touched = match before {
            Some(touched) => TouchedTransaction { row, ..touched },
            None => TouchedTransaction { row, stored: true, gone: false, new: None },
        };
        self.batch.pending.ledger.transactions.put(key, touched);
        Ok(())
    }

    fn remove_transaction(&mut self, identity: IdentityRow, id: &SecureHash) -> Result<(), Fault> {
        let key = (identity, *id);
        let Some(row) = self.transaction(key)? else { return Ok(()) };
        let stored = self.batch.pending.ledger.transactions.get(&key).is_none_or(|touched| touched.stored);
        let gone = TouchedTransaction { row, stored, gone: true, new: None };
        self.batch.pending.ledger.transactions.put(key, gone);
        Ok(())
    }

    fn known_state(&mut self, identity: IdentityRow, state: &StateRef) -> Result<Known, Fault> {
        let key = (identity, *state);
        let kept = |state: State| if state.consumed.is_some() { Kept::Consumed } else { Kept::Unconsumed };
        let in_vault = self.state(key)?.map(kept);
        let spent_by = match self.batch.pending.ledger.spent.get(&key) {
            Some(by) => Some(*by),
            None => self.batch.stored_spent(key)?,
        };
        Ok(Known { in_vault, spent_by })
    }

    fn add_change(&mut self, identity: IdentityRow, transaction: &SecureHash, at: Timestamp) -> Result<i64, Fault> {
        let number = self.batch.number(identity, |numbers| &mut numbers.change)?;
        let change = Change { transaction: *transaction, at: integer(at) };
        self.batch.pending.ledger.changes.put((identity, number), change);
        Ok(number)
    }

    fn add_state(&mut self, identity: IdentityRow, state: &NewState<'_>) -> Result<(), Fault> {
        let content = state.content;
        if let Some(held) = &state.lease {
            self.put_lease(held);
        }
        let new = NewRow {
            constraint: content.constraint.clone(),
            recorded: integer(state.recorded),
            change: state.change,
            state: content.state.clone(),
            participants: encode_participants(content)?,
            fields: encode_fields(content)?,
            indexed: indexed_fields(content).map(|(name, value)| (name.to_owned(), value)).collect(),
            linear_id: content.linear_id.clone(),
        };
        let amount = content.amount.as_ref().map(|amount| Amount {
            token: amount.token.as_str().into(),
            issuer: amount.issuer.as_deref().map(Arc::from),
            quantity: amount.quantity,
        });
        let consumed = |by| Consumed { by, at: integer(state.recorded), change: state.change };
        let row = State {
            number: self.batch.number(identity, |numbers| &mut numbers.state)?,
            type_name: content.type_name.as_str().into(),
            notary: content.notary.as_str().into(),
            amount,
            relevant: state.relevant,
            consumed: state.consumed_by.map(consumed),
            in_flight: InFlight::default(),
            lease: state.lease.clone(),
            new: Some(Arc::new(new)),
        };
        self.batch.pending.ledger.states.put((identity, state.reference), row);
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
        self.change_state((identity, *state), |state| {
            state.consumed = Some(Consumed { by: *by, at: integer(at), change });
            (state.in_flight, state.lease) = (InFlight::default(), None);
        })
    }

    fn add_spent(&mut self, identity: IdentityRow, state: &StateRef, by: &SecureHash) -> Result<(), Fault> {
        let key = (identity, *state);
        if self.batch.pending.ledger.spent.get(&key).is_none() && self.batch.stored_spent(key)?.is_none() {
            self.batch.pending.ledger.spent.put(key, *by);
        }
        Ok(())
    }

    fn set_in_flight(&mut self, identity: IdentityRow, states: &[StateRef], by: &SecureHash) -> Result<(), Fault> {
        for state in states {
            self.change_state((identity, *state), |state| {
                if state.consumed.is_none() {
                    state.in_flight.add(by);
                }
            })?;
        }
        Ok(())
    }

    fn clear_in_flight(&mut self, identity: IdentityRow, states: &[StateRef], by: &SecureHash) -> Result<(), Fault> {
        for state in states {
            self.change_state((identity, *state), |state| state.in_flight.remove(by))?;
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
        let descends = matches!(scope, CandidateScope::Largest | CandidateScope::Any);
        let mut b = Builder::new();
        let mut condition = candidates_condition(&mut b, wanted, scope);
        // Those that were changed in this batch are left out of what the database finds.
        let changed = i64::try_from(self.batch.pending.ledger.states_of(identity).count()).unwrap_or(i64::MAX);
        let most = b.bind(i64::from(limit).saturating_add(changed));
        condition += &format!(" ORDER BY s.bucket{} LIMIT {most}", if descends { " DESC" } else { "" });
        let keep = scope != CandidateScope::Any;
        let found = self.find(identity, b, &condition, keep, |state| is_candidate(state, wanted, scope))?;
        let mut candidates: Vec<Candidate> = found
            .into_iter()
            .filter_map(|(reference, state)| {
                let quantity = state.amount?.quantity;
                let lease = state.lease.map(|held| held.lease);
                Some(Candidate { reference, quantity, lease, in_flight: state.in_flight.first() })
            })
            .collect();
        candidates.sort_by_key(|candidate| bucket(candidate.quantity));
        if descends {
            candidates.reverse();
        }
        candidates.truncate(limit as usize);
        Ok(candidates)
    }

    fn lease(&mut self, identity: IdentityRow, state: &StateRef) -> Result<Option<Option<Lease>>, Fault> {
        let found = self.state((identity, *state))?.filter(State::can_be_spent);
        Ok(found.map(|state| state.lease.map(|held| held.lease)))
    }

    fn set_lease(&mut self, identity: IdentityRow, state: &StateRef, held: &FlowLease) -> Result<(), Fault> {
        self.put_lease(held);
        self.change_state((identity, *state), |state| state.lease = Some(held.clone()))
    }

    fn claimed(&mut self, identity: IdentityRow, claim: &ClaimId, now: Timestamp) -> Result<Vec<StateRef>, Fault> {
        let mut b = Builder::new();
        let (bytes, time) = (b.bind(claim.to_vec()), b.bind(integer(now)));
        let condition = format!("s.lock_claim = {bytes} AND s.lock_claim IS NOT NULL AND s.lock_until > {time}");
        let holds = |state: &State| {
            state.lease.as_ref().is_some_and(|held| held.lease.claim == *claim && !held.lease.is_over(now))
        };
        let found = self.find(identity, b, &condition, true, holds)?;
        let mut claimed: Vec<StateRef> = found.into_iter().map(|(reference, _)| reference).collect();
        claimed.sort_unstable();
        Ok(claimed)
    }

    fn renew_leases(
        &mut self,
        identity: IdentityRow,
        holder: &str,
        until: Timestamp,
        now: Timestamp,
    ) -> Result<(), Fault> {
        for (reference, state) in self.held_by(identity, holder)? {
            if state.lease.is_some_and(|held| !held.lease.is_over(now) && held.lease.until < until) {
                self.change_state((identity, reference), |state| {
                    if let Some(held) = &mut state.lease {
                        held.lease.until = until;
                    }
                })?;
            }
        }
        Ok(())
    }

    fn release_leases(
        &mut self,
        identity: IdentityRow,
        holder: &str,
        states: Option<&BTreeSet<StateRef>>,
    ) -> Result<(), Fault> {
        let held = match states {
            None => self.held_by(identity, holder)?,
            Some(states) => {
                let mut held = Vec::new();
                for reference in states {
                    let found = self.state((identity, *reference))?.filter(|state| is_held_by(state, holder));
                    held.extend(found.map(|state| (*reference, state)));
                }
                held
            }
        };
        self.release(identity, held)
    }

    fn release_flow(&mut self, flow: FlowRow) -> Result<(), Fault> {
        // A flow that ends was changed in this batch.
        let Some(identity) = self.batch.pending.flows.get(&flow).map(|touched| touched.flow.identity) else {
            return Ok(());
        };
        let mut b = Builder::new();
        let condition = format!("s.lock_flow = {} AND s.lock_flow IS NOT NULL", b.bind(flow.0));
        let holds = |state: &State| state.lease.as_ref().is_some_and(|held| held.flow == flow);
        let held = self.find(identity, b, &condition, true, holds)?;
        self.release(identity, held)
    }

    fn next_batch(&mut self, identity: IdentityRow, at: Timestamp) -> Result<BatchStamp, Fault> {
        let before = self.notary(identity)?.unwrap_or_default();
        let notary = Notary { batch: before.batch + 1, at: before.at.max(integer(at)), ..before };
        self.batch.pending.ledger.notaries.put(identity, notary);
        Ok(stamp_of(&notary))
    }

    fn consumers(
        &mut self,
        identity: IdentityRow,
        states: &BTreeSet<StateRef>,
    ) -> Result<BTreeMap<StateRef, SecureHash>, Fault> {
        let pending = &self.batch.pending.ledger.consumers;
        let keys: Vec<StateKey> =
            states.iter().map(|state| (identity, *state)).filter(|key| pending.get(key).is_none()).collect();
        self.batch.read_consumers(&keys)?;
        let (pending, read) = (&self.batch.pending.ledger.consumers, &self.batch.read.ledger.consumers);
        let consumer = |key: &StateKey| pending.get(key).or_else(|| read.get(key)?.as_ref()).copied();
        Ok(states.iter().filter_map(|state| Some((*state, consumer(&(identity, *state))?))).collect())
    }

    fn outcomes(
        &mut self,
        identity: IdentityRow,
        ids: &BTreeSet<SecureHash>,
    ) -> Result<BTreeMap<SecureHash, Outcome>, Fault> {
        let pending = &self.batch.pending.ledger.outcomes;
        let keys: Vec<TransactionKey> =
            ids.iter().map(|id| (identity, *id)).filter(|key| pending.get(key).is_none()).collect();
        self.batch.read_outcomes(&keys)?;
        let (pending, read) = (&self.batch.pending.ledger.outcomes, &self.batch.read.ledger.outcomes);
        let outcome = |key: &TransactionKey| pending.get(key).or_else(|| read.get(key)?.as_ref()).copied();
        Ok(ids.iter().filter_map(|id| Some((*id, outcome(&(identity, *id))?))).collect())
    }

    fn add_consumed(&mut self, identity: IdentityRow, state: &StateRef, by: &SecureHash) -> Result<(), Fault> {
        self.batch.pending.ledger.consumers.put((identity, *state), *by);
        Ok(())
    }

    fn add_outcome(&mut self, identity: IdentityRow, id: &SecureHash, outcome: Outcome) -> Result<(), Fault> {
        self.batch.pending.ledger.outcomes.put((identity, *id), outcome);
        Ok(())
    }

    fn log_request(&mut self, identity: IdentityRow, request: &LoggedRequest) -> Result<(), Fault> {
        self.batch.pending.ledger.push_request(identity, request.clone());
        Ok(())
    }

    fn count_batch(&mut self, identity: IdentityRow, committed: u64, conflicts: u64, states: u64) -> Result<(), Fault> {
        let Some(before) = self.notary(identity)? else { return Ok(()) };
        let counted = Notary {
            committed: before.committed.saturating_add(small(committed)),
            conflicts: before.conflicts.saturating_add(small(conflicts)),
            states: before.states.saturating_add(small(states)),
            ..before
        };
        self.batch.pending.ledger.notaries.put(identity, counted);
        Ok(())
    }

    fn add_attachment(&mut self, identity: IdentityRow, attachment: &NewAttachment) -> Result<(), Fault> {
        self.batch.check_open(identity)?;
        let key = (identity, attachment.id);
        if self.batch.pending.ledger.attachments.get(&key).is_none() {
            self.batch.pending.ledger.attachments.put(key, attachment.clone());
        }
        Ok(())
    }

    fn add_parameters(&mut self, identity: IdentityRow, parameters: &NewParameters) -> Result<(), Fault> {
        self.batch.check_open(identity)?;
        let key = (identity, parameters.hash);
        if self.batch.pending.ledger.parameters.get(&key).is_none() {
            self.batch.pending.ledger.parameters.put(key, parameters.clone());
        }
        Ok(())
    }

    fn assign_key(&mut self, identity: IdentityRow, assigned: &AssignedKey) -> Result<(), Fault> {
        self.batch.check_open(identity)?;
        let id = (identity, assigned.id);
        if self.batch.pending.ledger.assigned.get(&id).is_none() {
            self.batch.pending.ledger.assigned.put(id, assigned.clone());
        }
        Ok(())
    }

    fn add_key(&mut self, identity: IdentityRow, known: &KnownKey) -> Result<(), Fault> {
        self.batch.check_open(identity)?;
        let id = (identity, known.key.fingerprint());
        if self.batch.pending.ledger.keys.get(&id).is_none() {
            self.batch.pending.ledger.keys.put(id, known.clone());
        }
        Ok(())
    }
}
