//! The rows of the ledgers of a simulated database, which the rules of the store read and write as they do those of a real
//! one.
//!
//! What a row means, and in which order rows are found, is as in SQLite (`store-sqlite/src/ledger_statements.rs`). Rows that
//! a real database would refuse, because one with this key is there, are noted as wrong.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use maxhost_ledger::notary::{BatchStamp, Outcome};
use maxhost_ledger::time::Timestamp;
use maxhost_ledger::tx::StateRef;
use maxhost_ledger::vault::locks::{ClaimId, Lease, is_available};
use maxhost_ledger::vault::recording::{Kept, Known, TransactionStatus};
use maxhost_ledger::vault::selection::{Candidate, bucket};
use maxhost_model::{FlowRow, IdentityRow, SecureHash};
use maxhost_store::ledger::{
    CandidateScope, FlowLease, InFlight, KnownKey, LedgerRows, LedgerTransaction, LoggedRequest, NewAttachment,
    NewParameters, NewState, Part, Settlement, StateContent, TransactionKind, TransactionPut, TransactionState, Wanted,
};

use super::table::Table;
use super::tables::Tables;

/// What a fault of the database would be; there is none in here.
type Answer<T> = Result<T, maxhost_group_commit::Fault>;

/// How many tables there are.
pub(super) const LEDGER_TABLES: usize = 9;

/// A transaction that an identity knows.
#[derive(Clone)]
pub(super) struct TransactionRow {
    pub number: i64,
    pub status: TransactionStatus,
    pub kind: TransactionKind,
    pub recorded: Timestamp,
    pub signatures: Vec<u8>,
    pub settlement: Option<Settlement>,
    pub body: Bytes,
    pub parents: BTreeSet<SecureHash>,
}

impl TransactionRow {
    pub fn transaction(&self, id: SecureHash) -> LedgerTransaction {
        LedgerTransaction {
            number: self.number,
            id,
            status: self.status,
            kind: self.kind,
            recorded: self.recorded,
            signatures: self.signatures.clone(),
            body: Some(self.body.clone()),
        }
    }
}

/// A state of a vault.
#[derive(Clone)]
pub(super) struct VaultState {
    pub number: i64,
    pub content: StateContent,
    pub relevant: bool,
    pub consumed_by: Option<SecureHash>,
    pub in_flight: InFlight,
    pub lease: Option<FlowLease>,
}

/// The ledgers of all identities of one simulated database.
#[derive(Default)]
pub(super) struct LedgerTables {
    pub transactions: Table<(IdentityRow, SecureHash), TransactionRow>,
    /// What recorded transactions have consumed, whether or not the vault has it.
    pub spent: Table<(IdentityRow, StateRef), SecureHash>,
    /// The transactions that have changed a vault.
    pub changes: Table<(IdentityRow, i64), SecureHash>,
    pub states: Table<(IdentityRow, StateRef), VaultState>,
    pub batches: Table<IdentityRow, BatchStamp>,
    /// What notaries have committed as consumed.
    pub consumed: Table<(IdentityRow, StateRef), SecureHash>,
    /// What notaries have decided for ever.
    pub decided: Table<(IdentityRow, SecureHash), Outcome>,
    pub parameters: Table<(IdentityRow, SecureHash), Bytes>,
    pub keys: Table<(IdentityRow, SecureHash), KnownKey>,
    last: i64,
    /// Locks outlive the flows that hold them: a rule that is broken on purpose.
    pub keeps_locks: bool,
    /// A notary forgets what it has committed as consumed: the same.
    pub forgets_consumed: bool,
    /// The clock of a notary goes back with that of its host: the same.
    pub forgets_time: bool,
    /// The first row that could not have been written.
    pub wrong: Option<String>,
}

impl LedgerTables {
    pub fn mark(&self) -> [usize; LEDGER_TABLES] {
        [
            self.transactions.mark(),
            self.spent.mark(),
            self.changes.mark(),
            self.states.mark(),
            self.batches.mark(),
            self.consumed.mark(),
            self.decided.mark(),
            self.parameters.mark(),
            self.keys.mark(),
        ]
    }

    pub fn undo_to(&mut self, mark: [usize; LEDGER_TABLES]) {
        self.transactions.undo_to(mark[0]);
        self.spent.undo_to(mark[1]);
        self.changes.undo_to(mark[2]);
        self.states.undo_to(mark[3]);
        self.batches.undo_to(mark[4]);
        self.consumed.undo_to(mark[5]);
        self.decided.undo_to(mark[6]);
        self.parameters.undo_to(mark[7]);
        self.keys.undo_to(mark[8]);
    }

    pub fn keep(&mut self) {
        self.transactions.keep();
        self.spent.keep();
        self.changes.keep();
        self.states.keep();
        self.batches.keep();
        self.consumed.keep();
        self.decided.keep();
        self.parameters.keep();
        self.keys.keep();
    }

    /// The flows that hold states.
    pub fn holders(&self) -> BTreeSet<FlowRow> {
        self.states.rows.values().filter_map(|state| state.lease.as_ref().map(|held| held.flow)).collect()
    }

    /// The flows that wait for what a notary decides on a transaction that it has been asked about, or is about to be, with whose
    /// they are.
    pub fn waiting_for_notaries(&self) -> Vec<(IdentityRow, FlowRow)> {
        let of_part = |part: Part| {
            let rows = self.transactions.rows.iter().filter(|(_, row)| row.status == TransactionStatus::InFlight);
            let settlements = rows.filter_map(|((owner, id), row)| Some((*owner, *id, row.settlement?)));
            settlements.filter(move |(_, _, by)| by.part == part)
        };
        let asked: BTreeSet<SecureHash> = of_part(Part::Asking).map(|(_, id, _)| id).collect();
        let waiting = of_part(Part::Awaiting).filter(|(_, id, _)| asked.contains(id));
        waiting.map(|(owner, _, by)| (owner, by.flow)).collect()
    }

    /// The transactions of an identity, in the order in which it got to know them.
    pub fn transactions_of(&self, identity: IdentityRow) -> Vec<(SecureHash, &TransactionRow)> {
        let mut found: Vec<_> = rows_of(&self.transactions, identity).collect();
        found.sort_by_key(|(_, row)| row.number);
        found
    }

    /// These transactions and those that they come from, as far as the identity knows them, breadth first.
    pub fn ancestors(&self, identity: IdentityRow, of: &[SecureHash], limit: usize) -> Vec<SecureHash> {
        let mut found: Vec<SecureHash> = Vec::new();
        let known = |id: &SecureHash| self.transactions.rows.get(&(identity, *id));
        let mut next = 0;
        for id in of {
            if known(id).is_some() && !found.contains(id) {
                found.push(*id);
            }
        }
        while let Some(row) = found.get(next).and_then(known) {
            for parent in &row.parents {
                if known(parent).is_some() && !found.contains(parent) {
                    found.push(*parent);
                }
            }
            next += 1;
        }
        found.truncate(limit);
        found
    }

    fn number(&mut self) -> i64 {
        self.last += 1;
        self.last
    }

    fn is_wrong(&mut self, text: impl FnOnce() -> String) {
        self.wrong.get_or_insert_with(text);
    }

    fn change_transaction(&mut self, key: (IdentityRow, SecureHash), change: impl FnOnce(&mut TransactionRow)) {
        if let Some(mut row) = self.transactions.rows.get(&key).cloned() {
            change(&mut row);
            self.transactions.put(key, row);
        }
    }

    fn change_states(
        &mut self,
        is_meant: impl Fn(&(IdentityRow, StateRef), &VaultState) -> bool,
        change: impl Fn(&mut VaultState),
    ) {
        let meant: Vec<_> = self.states.rows.iter().filter(|(key, state)| is_meant(key, state)).collect();
        let changed = meant.into_iter().map(|(key, state)| (*key, state.clone())).collect::<Vec<_>>();
        for (key, mut state) in changed {
            change(&mut state);
            self.states.put(key, state);
        }
    }
}

/// The rows of one identity.
pub(super) fn rows_of<K: Copy + Ord, V>(
    table: &Table<(IdentityRow, K), V>,
    identity: IdentityRow,
) -> impl Iterator<Item = (K, &V)> {
    table.rows.iter().filter(move |((owner, _), _)| *owner == identity).map(|((_, key), row)| (*key, row))
}

impl LedgerRows for Tables {
    fn keeps_ledgers(&self) -> bool {
        true
    }

    fn ledger_transaction(&mut self, identity: IdentityRow, id: &SecureHash) -> Answer<Option<TransactionState>> {
        let row = self.ledger.transactions.rows.get(&(identity, *id));
        Ok(row.map(|row| TransactionState { status: row.status, signatures: row.signatures.clone() }))
    }

    fn put_transaction(&mut self, identity: IdentityRow, put: &TransactionPut<'_>, new: bool) -> Answer<()> {
        let key = (identity, *put.id);
        let TransactionPut { status, settlement, recorded, kind, .. } = *put;
        let signatures = put.signatures.to_vec();
        if new {
            let (number, body, parents) = (self.ledger.number(), put.body.clone(), put.parents.clone());
            let row = TransactionRow { number, status, kind, recorded, signatures, settlement, body, parents };
            if !self.ledger.transactions.add(key, row) {
                self.ledger.is_wrong(|| format!("{} has a second row for {}", identity.0, put.id));
            }
            return Ok(());
        }
        self.ledger.change_transaction(key, |row| {
            if row.status != TransactionStatus::Verified && status == TransactionStatus::Verified {
                row.recorded = recorded;
            }
            let settlement = settlement.or(row.settlement).filter(|_| status == TransactionStatus::InFlight);
            (row.status, row.signatures, row.settlement) = (status, signatures, settlement);
        });
        Ok(())
    }

    fn set_settlement(&mut self, identity: IdentityRow, id: &SecureHash, by: Settlement) -> Answer<()> {
        self.ledger.change_transaction((identity, *id), |row| {
            if row.status == TransactionStatus::InFlight {
                row.settlement = Some(by);
            }
        });
        Ok(())
    }

    fn remove_transaction(&mut self, identity: IdentityRow, id: &SecureHash) -> Answer<()> {
        self.ledger.transactions.take(&(identity, *id));
        Ok(())
    }

    fn known_state(&mut self, identity: IdentityRow, state: &StateRef) -> Answer<Known> {
        let in_vault = self.ledger.states.rows.get(&(identity, *state)).map(|found| match found.consumed_by {
            Some(_) => Kept::Consumed,
            None => Kept::Unconsumed,
        });
        Ok(Known { in_vault, spent_by: self.ledger.spent.rows.get(&(identity, *state)).copied() })
    }

    fn add_change(&mut self, identity: IdentityRow, transaction: &SecureHash, _at: Timestamp) -> Answer<i64> {
        let number = self.ledger.number();
        // Once, and once more if an observer's flow wants more of it than another flow of its identity has kept.
        if rows_of(&self.ledger.changes, identity).filter(|(_, other)| *other == transaction).count() > 1 {
            self.ledger.is_wrong(|| format!("{transaction} changes the vault of {} again and again", identity.0));
        }
        self.ledger.changes.put((identity, number), *transaction);
        Ok(number)
    }

    fn add_state(&mut self, identity: IdentityRow, state: &NewState<'_>) -> Answer<()> {
        if let Some(held) = &state.lease {
            self.backlog.holds(held.flow);
        }
        let row = VaultState {
            number: self.ledger.number(),
            content: state.content.clone(),
            relevant: state.relevant,
            consumed_by: state.consumed_by,
            in_flight: InFlight::default(),
            lease: state.lease.clone(),
        };
        if !self.ledger.states.add((identity, state.reference), row) {
            self.ledger.is_wrong(|| format!("{} comes into the vault of {} twice", state.reference, identity.0));
        }
        Ok(())
    }

    fn consume_state(
        &mut self,
        identity: IdentityRow,
        state: &StateRef,
        by: &SecureHash,
        _at: Timestamp,
        _change: i64,
    ) -> Answer<()> {
        self.ledger.change_states(
            |key, _| *key == (identity, *state),
            |state| (state.consumed_by, state.in_flight, state.lease) = (Some(*by), InFlight::default(), None),
        );
        Ok(())
    }

    fn add_spent(&mut self, identity: IdentityRow, state: &StateRef, by: &SecureHash) -> Answer<()> {
        self.ledger.spent.add((identity, *state), *by);
        Ok(())
    }

    fn set_in_flight(&mut self, identity: IdentityRow, states: &[StateRef], by: &SecureHash) -> Answer<()> {
        self.ledger.change_states(
            |(owner, key), state| *owner == identity && states.contains(key) && state.consumed_by.is_none(),
            |state| state.in_flight.add(by),
        );
        Ok(())
    }

    fn clear_in_flight(&mut self, identity: IdentityRow, states: &[StateRef], by: &SecureHash) -> Answer<()> {
        self.ledger.change_states(
            |(owner, key), _| *owner == identity && states.contains(key),
            |state| state.in_flight.remove(by),
        );
        Ok(())
    }

    fn candidates(
        &mut self,
        identity: IdentityRow,
        wanted: &Wanted<'_>,
        scope: CandidateScope,
        limit: u32,
    ) -> Answer<Vec<Candidate>> {
        let mut found: Vec<(u8, i64, Candidate)> = Vec::new();
        for (reference, state) in rows_of(&self.ledger.states, identity) {
            let Some(amount) = &state.content.amount else { continue };
            let is_meant = state.content.type_name == wanted.type_name
                && amount.token == wanted.token
                && wanted.issuer.is_none_or(|issuer| amount.issuer.as_deref() == Some(issuer))
                && wanted.notary.is_none_or(|notary| state.content.notary == notary);
            let lease = state.lease.as_ref().map(|held| held.lease.clone());
            let is_free = is_spendable(state) && is_available(lease.as_ref(), wanted.holder, wanted.now);
            if !is_meant || !is_unspent(state) || (scope != CandidateScope::Any && !is_free) {
                continue;
            }
            let candidate =
                Candidate { reference, quantity: amount.quantity, lease, in_flight: state.in_flight.first() };
            found.push((bucket(amount.quantity), state.number, candidate));
        }
        let least = if let CandidateScope::From(bucket) = scope { bucket } else { 1 };
        found.retain(|(bucket, ..)| *bucket >= least);
        found.sort_by_key(|(bucket, number, _)| match scope {
            CandidateScope::From(_) | CandidateScope::Smallest => (i16::from(*bucket), *number),
            CandidateScope::Largest | CandidateScope::Any => (-i16::from(*bucket), *number),
        });
        Ok(found.into_iter().take(limit as usize).map(|(_, _, candidate)| candidate).collect())
    }

    fn lease(&mut self, identity: IdentityRow, state: &StateRef) -> Answer<Option<Option<Lease>>> {
        let found = self.ledger.states.rows.get(&(identity, *state)).filter(|state| is_spendable(state));
        Ok(found.map(|state| state.lease.as_ref().map(|held| held.lease.clone())))
    }

    fn set_lease(&mut self, identity: IdentityRow, state: &StateRef, lease: &FlowLease) -> Answer<()> {
        self.backlog.holds(lease.flow);
        self.ledger.change_states(|key, _| *key == (identity, *state), |state| state.lease = Some(lease.clone()));
        Ok(())
    }

    fn claimed(&mut self, identity: IdentityRow, claim: &ClaimId, now: Timestamp) -> Answer<Vec<StateRef>> {
        let is_held = |lease: &Lease| lease.claim == *claim && !lease.is_over(now);
        let states = rows_of(&self.ledger.states, identity);
        let held = states.filter(|(_, state)| state.lease.as_ref().is_some_and(|held| is_held(&held.lease)));
        Ok(held.map(|(reference, _)| reference).collect())
    }

    fn renew_leases(&mut self, identity: IdentityRow, holder: &str, until: Timestamp, now: Timestamp) -> Answer<()> {
        self.ledger.change_states(
            |(owner, _), state| *owner == identity && state.is_held_by(holder),
            |state| {
                if let Some(held) = state.lease.as_mut().filter(|held| !held.lease.is_over(now)) {
                    held.lease.until = held.lease.until.max(until);
                }
            },
        );
        Ok(())
    }

    fn release_leases(
        &mut self,
        identity: IdentityRow,
        holder: &str,
        states: Option<&BTreeSet<StateRef>>,
    ) -> Answer<()> {
        self.ledger.change_states(
            |(owner, reference), state| {
                *owner == identity && state.is_held_by(holder) && states.is_none_or(|states| states.contains(reference))
            },
            |state| state.lease = None,
        );
        Ok(())
    }

    fn release_flow(&mut self, flow: FlowRow) -> Answer<()> {
        if !self.ledger.keeps_locks {
            self.ledger.change_states(
                |_, state| state.lease.as_ref().is_some_and(|held| held.flow == flow),
                |state| state.lease = None,
            );
        }
        Ok(())
    }

    fn next_batch(&mut self, identity: IdentityRow, at: Timestamp) -> Answer<BatchStamp> {
        let stamp = match self.ledger.batches.rows.get(&identity) {
            Some(last) if self.ledger.forgets_time => BatchStamp { batch: last.batch + 1, at },
            Some(last) => BatchStamp { batch: last.batch + 1, at: last.at.max(at) },
            None => BatchStamp { batch: 1, at },
        };
        self.ledger.batches.put(identity, stamp);
        Ok(stamp)
    }

    fn consumers(
        &mut self,
        identity: IdentityRow,
        states: &BTreeSet<StateRef>,
    ) -> Answer<BTreeMap<StateRef, SecureHash>> {
        if self.ledger.forgets_consumed {
            return Ok(BTreeMap::new());
        }
        let consumer = |state: &StateRef| Some((*state, *self.ledger.consumed.rows.get(&(identity, *state))?));
        Ok(states.iter().filter_map(consumer).collect())
    }

    fn outcomes(&mut self, identity: IdentityRow, ids: &BTreeSet<SecureHash>) -> Answer<BTreeMap<SecureHash, Outcome>> {
        let outcome = |id: &SecureHash| Some((*id, *self.ledger.decided.rows.get(&(identity, *id))?));
        Ok(ids.iter().filter_map(outcome).collect())
    }

    fn add_consumed(&mut self, identity: IdentityRow, state: &StateRef, by: &SecureHash) -> Answer<()> {
        if !self.ledger.consumed.add((identity, *state), *by) {
            self.ledger.is_wrong(|| format!("the notary {} commits {state} twice", identity.0));
        }
        Ok(())
    }

    fn add_outcome(&mut self, identity: IdentityRow, id: &SecureHash, outcome: Outcome) -> Answer<()> {
        self.ledger.decided.put((identity, *id), outcome);
        Ok(())
    }

    fn log_request(&mut self, _identity: IdentityRow, _request: &LoggedRequest) -> Answer<()> {
        // Nobody looks at the log of a simulated notary.
        Ok(())
    }

    fn count_batch(&mut self, _identity: IdentityRow, _committed: u64, _conflicts: u64, _states: u64) -> Answer<()> {
        Ok(())
    }

    fn add_attachment(&mut self, identity: IdentityRow, attachment: &NewAttachment) -> Answer<()> {
        self.ledger.is_wrong(|| format!("{} keeps {}, which is installed", identity.0, attachment.id));
        Ok(())
    }

    fn add_parameters(&mut self, identity: IdentityRow, parameters: &NewParameters) -> Answer<()> {
        self.ledger.parameters.add((identity, parameters.hash), parameters.body.clone());
        Ok(())
    }

    fn add_key(&mut self, identity: IdentityRow, known: &KnownKey) -> Answer<()> {
        self.ledger.keys.add((identity, known.key.fingerprint()), known.clone());
        Ok(())
    }
}

impl VaultState {
    fn is_held_by(&self, holder: &str) -> bool {
        self.lease.as_ref().is_some_and(|held| held.lease.holder == holder)
    }
}

/// One's own, not consumed, and no input of a transaction in flight.
fn is_spendable(state: &VaultState) -> bool {
    is_unspent(state) && state.in_flight.is_empty()
}

/// One's own and not consumed.
fn is_unspent(state: &VaultState) -> bool {
    state.relevant && state.consumed_by.is_none()
}
