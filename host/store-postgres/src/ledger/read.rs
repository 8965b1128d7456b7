//! What a batch knows of ledgers: read ahead for all its units at once, and row by row where that was not enough.
//!
//! Each question is one statement with a part for each ledger. What was read stays true for the batch, because only the run
//! that holds an identity writes its ledger, and that is looked at when the batch is written.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use maxhost_group_commit::{Fault, FaultKind};
use maxhost_ledger::notary::{BatchStamp, Outcome};
use maxhost_ledger::tx::StateRef;
use maxhost_ledger::vault::locks::Lease;
use maxhost_model::{Claim, FlowRow, IdentityRow, SecureHash};
use maxhost_store::ledger::codec::{chosen, hash, status_of, time};
use maxhost_store::ledger::{FlowLease, InFlight, LedgerOp, Part, Settlement};
use sqlx::postgres::{PgRow, Postgres};
use sqlx::{AssertSqlSafe, Row};

use crate::batch::Batch;
use crate::error::fault_of;
use crate::ledger::pending::{Amount, Consumed, LedgerPending, Notary, State, StateKey, Transaction, TransactionKey};
use crate::ledger::place::{Place, by_place};
use crate::ledger::tables;
use crate::options::Layout;
use crate::write::Builder;

/// Ledgers that are asked about in one statement when they are first met.
const CHUNK: usize = 100;

/// The columns that [`state_of`] reads, of a state `s`.
pub(crate) const STATE_COLUMNS: &str = "s.identity, s.tx, s.idx, s.number, s.type, s.notary, s.token, s.issuer, s.quantity, s.relevant, s.consumed_by, \
     s.consumed, s.change_out, s.in_flight, s.lock_holder, s.lock_claim, s.lock_until, s.lock_flow";

/// The greatest numbers that were given out in a ledger.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Numbers {
    pub transaction: i64,
    pub change: i64,
    pub state: i64,
}

/// The ledgers that this run has met, with the claim under which it counted their numbers.
pub(crate) type Ledgers = HashMap<IdentityRow, (Claim, Numbers)>;

/// What was read for the batch under way; `None`: there is no such row.
#[derive(Debug, Default)]
pub(crate) struct LedgerRead {
    pub transactions: HashMap<TransactionKey, Option<Transaction>>,
    pub states: HashMap<StateKey, Option<State>>,
    pub spent: HashMap<StateKey, Option<SecureHash>>,
    pub consumers: HashMap<StateKey, Option<SecureHash>>,
    pub outcomes: HashMap<TransactionKey, Option<Outcome>>,
    pub notaries: HashMap<IdentityRow, Option<Notary>>,
}

impl LedgerRead {
    /// Within a transaction that goes on, what was written is what is there.
    pub(crate) fn written(&mut self, pending: &LedgerPending) {
        for (key, touched) in pending.transactions.iter() {
            self.transactions.insert(*key, (!touched.gone).then(|| touched.row.clone()));
        }
        for (key, state) in pending.states.iter() {
            self.states.insert(*key, Some(State { new: None, ..state.clone() }));
        }
        self.spent.extend(pending.spent.iter().map(|(key, by)| (*key, Some(*by))));
        self.consumers.extend(pending.consumers.iter().map(|(key, by)| (*key, Some(*by))));
        self.outcomes.extend(pending.outcomes.iter().map(|(key, outcome)| (*key, Some(*outcome))));
        self.notaries.extend(pending.notaries.iter().map(|(identity, notary)| (*identity, Some(*notary))));
    }
}

/// What units need to know of ledgers.
#[derive(Debug, Default)]
pub(crate) struct LedgerWants {
    identities: BTreeSet<IdentityRow>,
    transactions: BTreeSet<TransactionKey>,
    states: BTreeSet<StateKey>,
    consumers: BTreeSet<StateKey>,
    outcomes: BTreeSet<TransactionKey>,
    notaries: BTreeSet<IdentityRow>,
}

impl LedgerWants {
    pub(crate) fn add(&mut self, author: IdentityRow, op: &LedgerOp) {
        self.identities.insert(author);
        match op {
            LedgerOp::Record(recording) => {
                self.transactions.insert((author, recording.id));
                let made = (0_u32..).zip(&recording.outputs).map(|(index, _)| StateRef::new(recording.id, index));
                let named = recording.inputs.iter().chain(recording.references.iter().map(|(state, _)| state)).copied();
                self.states.extend(named.chain(made).map(|state| (author, state)));
            }
            LedgerOp::Settle { id, .. } => drop(self.transactions.insert((author, *id))),
            LedgerOp::Forget(ids) => self.transactions.extend(ids.iter().map(|id| (author, *id))),
            LedgerOp::Outcome { id, states, .. } => {
                self.notaries.insert(author);
                self.outcomes.insert((author, *id));
                self.consumers.extend(states.iter().map(|state| (author, *state)));
            }
            LedgerOp::Reserve(reservation) => {
                self.states.extend(reservation.states.iter().map(|state| (author, *state)));
            }
            LedgerOp::Release { states: Some(states), .. } => {
                self.states.extend(states.iter().map(|state| (author, *state)));
            }
            LedgerOp::Notarise(batch) => {
                self.notaries.insert(author);
                for (_, request) in &batch.requests {
                    self.outcomes.insert((author, request.id));
                    let states = request.inputs.iter().chain(&request.references);
                    self.consumers.extend(states.map(|state| (author, *state)));
                }
            }
            LedgerOp::Claim(_)
            | LedgerOp::Renew { .. }
            | LedgerOp::Release { states: None, .. }
            | LedgerOp::Attach(_)
            | LedgerOp::KeepParameters(_)
            | LedgerOp::AssignKey(_)
            | LedgerOp::AddKey(_) => {}
        }
    }
}

fn broken(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Fault {
    Fault::new(FaultKind::Corrupt, error)
}

pub(crate) fn get<'r, T>(row: &'r PgRow, index: usize) -> Result<T, Fault>
where
    T: sqlx::Decode<'r, Postgres> + sqlx::Type<Postgres>,
{
    row.try_get(index).map_err(fault_of)
}

fn hash_at(row: &PgRow, index: usize) -> Result<SecureHash, Fault> {
    hash("ledger", &get::<Vec<u8>>(row, index)?).map_err(broken)
}

fn some_hash(row: &PgRow, index: usize) -> Result<Option<SecureHash>, Fault> {
    get::<Option<Vec<u8>>>(row, index)?.map(|bytes| hash("ledger", &bytes).map_err(broken)).transpose()
}

/// Identity, transaction and index, from the first three columns.
fn key_of(row: &PgRow) -> Result<StateKey, Fault> {
    let index = u32::try_from(get::<i64>(row, 2)?).map_err(broken)?;
    Ok((IdentityRow(get(row, 0)?), StateRef::new(hash_at(row, 1)?, index)))
}

/// A state from [`STATE_COLUMNS`].
pub(crate) fn state_of(row: &PgRow) -> Result<(StateKey, State), Fault> {
    let amount = match (get::<Option<String>>(row, 6)?, get::<Option<i64>>(row, 8)?) {
        (Some(token), Some(quantity)) => Some(Amount {
            token: token.into(),
            issuer: get::<Option<String>>(row, 7)?.map(Arc::from),
            quantity: quantity.unsigned_abs(),
        }),
        _ => None,
    };
    let consumed = match some_hash(row, 10)? {
        Some(by) => {
            let (at, change) = (get::<Option<i64>>(row, 11)?, get::<Option<i64>>(row, 12)?);
            Some(Consumed { by, at: at.unwrap_or_default(), change: change.unwrap_or_default() })
        }
        None => None,
    };
    let state = State {
        number: get(row, 3)?,
        type_name: get::<String>(row, 4)?.into(),
        notary: get::<String>(row, 5)?.into(),
        amount,
        relevant: get::<i16>(row, 9)? != 0,
        consumed,
        in_flight: InFlight::from_column(get::<Option<Vec<u8>>>(row, 13)?.as_deref())
            .ok_or_else(|| broken("the transactions in flight of a state are damaged"))?,
        lease: lease_of(row)?,
        new: None,
    };
    Ok((key_of(row)?, state))
}

fn lease_of(row: &PgRow) -> Result<Option<FlowLease>, Fault> {
    let Some(holder) = get::<Option<String>>(row, 14)? else { return Ok(None) };
    let claim = get::<Option<Vec<u8>>>(row, 15)?.unwrap_or_default();
    let claim = claim.try_into().map_err(|_| broken("the claim of a lock has not 16 bytes"))?;
    let (until, flow) = (get::<Option<i64>>(row, 16)?, get::<Option<i64>>(row, 17)?);
    let lease = Lease { holder, claim, until: time(until.unwrap_or_default()) };
    Ok(Some(FlowLease { lease, flow: FlowRow(flow.unwrap_or_default()) }))
}

fn settlement(row: &PgRow, flow: usize, part: usize, states: usize) -> Result<Option<Settlement>, Fault> {
    let Some(flow) = get::<Option<i64>>(row, flow)? else { return Ok(None) };
    let part = get::<Option<i16>>(row, part)?.and_then(|part| Part::of(part.into()));
    let states = chosen(get::<Option<i16>>(row, states)?.map(i64::from));
    let (part, states) = part.zip(states).ok_or_else(|| broken("how a transaction is settled"))?;
    Ok(Some(Settlement { flow: FlowRow(flow), part, states }))
}

/// Columns of keys: identities, transactions, indices.
fn state_columns(b: &mut Builder, keys: &[StateKey]) -> String {
    [
        b.column("int8", keys.iter().map(|(identity, _)| identity.0).collect()),
        b.column("bytea", keys.iter().map(|(_, state)| &state.tx.as_bytes()[..]).collect::<Vec<&[u8]>>()),
        b.column("int8", keys.iter().map(|(_, state)| i64::from(state.index)).collect()),
    ]
    .join(", ")
}

fn transaction_columns(b: &mut Builder, keys: &[TransactionKey]) -> String {
    [
        b.column("int8", keys.iter().map(|(identity, _)| identity.0).collect()),
        b.column("bytea", keys.iter().map(|(_, id)| &id.as_bytes()[..]).collect::<Vec<&[u8]>>()),
    ]
    .join(", ")
}

impl Batch {
    /// Asks for the rows of all parts.
    pub(crate) fn ask_all(&mut self, b: Builder) -> Result<Vec<PgRow>, Fault> {
        let (parts, arguments) = b.finish().map_err(fault_of)?;
        if parts.is_empty() {
            return Ok(Vec::new());
        }
        // Of ledgers that share their tables there are few questions. Of others there are as many as sets of ledgers,
        // and kept they would only fill the connection's memory.
        let kept = self.layout == Layout::Shared;
        let sql: Arc<str> = parts.join(" UNION ALL ").into();
        self.ask(async |conn| {
            let query = sqlx::query_with(AssertSqlSafe(sql.clone()), arguments.clone());
            query.persistent(kept).fetch_all(conn).await
        })
    }

    /// Reads what these units need of ledgers that this run holds.
    pub(crate) fn read_ledgers(&mut self, wants: LedgerWants) -> Result<(), Fault> {
        let held: Vec<(IdentityRow, Claim)> =
            wants.identities.iter().filter_map(|identity| Some((*identity, self.held(*identity)?))).collect();
        if held.is_empty() {
            return Ok(());
        }
        self.open_ledgers(&held, true)?;
        let open = |(identity, _): &(IdentityRow, Claim)| self.ledgers.contains_key(identity).then_some(*identity);
        let holds: HashSet<IdentityRow> = held.iter().filter_map(open).collect();
        let states =
            |keys: BTreeSet<StateKey>| keys.into_iter().filter(|key| holds.contains(&key.0)).collect::<Vec<_>>();
        let transactions =
            |keys: BTreeSet<TransactionKey>| keys.into_iter().filter(|key| holds.contains(&key.0)).collect::<Vec<_>>();
        self.read_transactions(&transactions(wants.transactions))?;
        let named = states(wants.states);
        self.read_states(&named)?;
        self.read_spent(&named)?;
        self.read_consumers(&states(wants.consumers))?;
        self.read_outcomes(&transactions(wants.outcomes))?;
        for identity in wants.notaries {
            if holds.contains(&identity) {
                self.stored_notary(identity)?;
            }
        }
        Ok(())
    }

    /// Counts the numbers of ledgers, and finds out which flows hold states in them, once for each claim. `make`: those
    /// that are not there are made.
    pub(crate) fn open_ledgers(&mut self, claimed: &[(IdentityRow, Claim)], make: bool) -> Result<(), Fault> {
        let met =
            |(identity, claim): &&(IdentityRow, Claim)| self.ledgers.get(identity).map(|(met, _)| met) != Some(claim);
        let claimed: Vec<(IdentityRow, Claim)> = claimed.iter().filter(met).copied().collect();
        for (identity, _) in &claimed {
            // What was counted under another claim.
            self.ledgers.remove(identity);
        }
        for chunk in claimed.chunks(CHUNK) {
            let there = match self.layout {
                Layout::Schemas => self.with_tables(chunk, make)?,
                Layout::Shared => chunk.to_vec(),
            };
            self.count_numbers(&there)?;
        }
        Ok(())
    }

    /// Whether the ledger of an identity can be read and written.
    pub(crate) fn check_open(&self, identity: IdentityRow) -> Result<(), Fault> {
        match self.ledgers.contains_key(&identity) {
            true => Ok(()),
            false => Err(Fault::new(FaultKind::Other, "the tables of the ledger cannot be made")),
        }
    }

    fn with_tables(
        &mut self,
        claimed: &[(IdentityRow, Claim)],
        make: bool,
    ) -> Result<Vec<(IdentityRow, Claim)>, Fault> {
        let ids: Vec<i64> = claimed.iter().map(|(identity, _)| identity.0).collect();
        let versions: HashMap<i64, i64> = self
            .ask(async |conn| {
                let sql = "SELECT id, ledger FROM maxhost.identity WHERE id = ANY($1)";
                sqlx::query_as::<_, (i64, i64)>(sql).bind(&ids).fetch_all(conn).await
            })?
            .into_iter()
            .collect();
        let mut there = Vec::with_capacity(claimed.len());
        for &(identity, claim) in claimed {
            let version = versions.get(&identity.0).copied().unwrap_or_default();
            if version == 0 && !make {
                continue;
            }
            if version < tables::NEWEST {
                // Within a transaction they are not made: that was tried when the batch was read for the first time.
                if self.singly {
                    continue;
                }
                match self.ask(async |conn| tables::bring_up(conn, identity).await) {
                    Ok(()) => {}
                    // What the server says of one schema concerns no other: only its units find it closed.
                    Err(fault) if matches!(fault.kind, FaultKind::Other | FaultKind::CannotOpen) => {
                        tracing::warn!(identity = identity.0, %fault, "the tables of a ledger cannot be made");
                        continue;
                    }
                    Err(fault) => return Err(fault),
                }
            }
            there.push((identity, claim));
        }
        Ok(there)
    }

    fn count_numbers(&mut self, claimed: &[(IdentityRow, Claim)]) -> Result<(), Fault> {
        let (mut numbers, mut holders) = (Builder::new(), Builder::new());
        for (place, claimed) in by_place(self.layout, claimed.iter(), |(identity, _)| *identity) {
            let ids: Vec<i64> = claimed.iter().map(|(identity, _)| identity.0).collect();
            let (ids, again) = (numbers.column("int8", ids.clone()), holders.column("int8", ids));
            let greatest = |table: &str| {
                format!("coalesce((SELECT max(t.number) FROM {place}.{table} t WHERE t.identity = u.id), 0)")
            };
            let (transaction, change, state) =
                (greatest("ledger_tx"), greatest("vault_change"), greatest("vault_state"));
            numbers.part(format!("SELECT u.id, {transaction}, {change}, {state} FROM unnest({ids}) u (id)"));
            holders.part(format!(
                "SELECT DISTINCT s.lock_flow FROM unnest({again}) u (id) \
                 JOIN {place}.vault_state s ON s.identity = u.id AND s.lock_flow IS NOT NULL"
            ));
        }
        let (numbers, holders) = (self.ask_all(numbers)?, self.ask_all(holders)?);
        for row in &holders {
            self.backlog.load_holder(FlowRow(get(row, 0)?));
        }
        let claims: HashMap<IdentityRow, Claim> = claimed.iter().copied().collect();
        for row in &numbers {
            let identity = IdentityRow(get(row, 0)?);
            let found = Numbers { transaction: get(row, 1)?, change: get(row, 2)?, state: get(row, 3)? };
            if let Some(claim) = claims.get(&identity) {
                self.ledgers.insert(identity, (*claim, found));
            }
        }
        Ok(())
    }

    /// Gives out numbers of a ledger. They are not given back, so there may be gaps.
    pub(crate) fn number(
        &mut self,
        identity: IdentityRow,
        next: impl FnOnce(&mut Numbers) -> &mut i64,
    ) -> Result<i64, Fault> {
        self.check_open(identity)?;
        let (_, numbers) = self.ledgers.get_mut(&identity).ok_or_else(|| broken("a ledger that was not opened"))?;
        let number = next(numbers);
        *number += 1;
        Ok(*number)
    }

    fn read_transactions(&mut self, keys: &[TransactionKey]) -> Result<(), Fault> {
        let read = &self.read.ledger;
        let keys: Vec<_> = keys.iter().filter(|key| !read.transactions.contains_key(*key)).copied().collect();
        keys.iter().try_for_each(|key| self.check_open(key.0))?;
        let mut b = Builder::new();
        for (place, keys) in by_place(self.layout, keys.iter().copied(), |key| key.0) {
            let columns = transaction_columns(&mut b, &keys);
            b.part(format!(
                "SELECT t.identity, t.id, t.number, t.status, t.recorded, t.signatures, t.flow, t.part, t.states \
                 FROM unnest({columns}) u (identity, id) \
                 JOIN {place}.ledger_tx t ON t.identity = u.identity AND t.id = u.id"
            ));
        }
        let rows = self.ask_all(b)?;
        self.read.ledger.transactions.extend(keys.into_iter().map(|key| (key, None)));
        for row in &rows {
            let status = status_of(get::<i16>(row, 3)?.into()).ok_or_else(|| broken("the status of a transaction"))?;
            let transaction = Transaction {
                number: get(row, 2)?,
                status,
                recorded: get(row, 4)?,
                signatures: get(row, 5)?,
                settlement: settlement(row, 6, 7, 8)?,
            };
            self.read.ledger.transactions.insert((IdentityRow(get(row, 0)?), hash_at(row, 1)?), Some(transaction));
        }
        Ok(())
    }

    pub(crate) fn stored_transaction(&mut self, key: TransactionKey) -> Result<Option<Transaction>, Fault> {
        self.read_transactions(&[key])?;
        Ok(self.read.ledger.transactions.get(&key).cloned().flatten())
    }

    pub(crate) fn read_states(&mut self, keys: &[StateKey]) -> Result<(), Fault> {
        let read = &self.read.ledger;
        let keys: Vec<_> = keys.iter().filter(|key| !read.states.contains_key(*key)).copied().collect();
        keys.iter().try_for_each(|key| self.check_open(key.0))?;
        let mut b = Builder::new();
        for (place, keys) in by_place(self.layout, keys.iter().copied(), |key| key.0) {
            let columns = state_columns(&mut b, &keys);
            b.part(format!(
                "SELECT {STATE_COLUMNS} FROM unnest({columns}) u (identity, tx, idx) JOIN {place}.vault_state s \
                 ON s.identity = u.identity AND s.tx = u.tx AND s.idx = u.idx"
            ));
        }
        let rows = self.ask_all(b)?;
        self.read.ledger.states.extend(keys.into_iter().map(|key| (key, None)));
        for row in &rows {
            let (key, state) = state_of(row)?;
            self.read.ledger.states.insert(key, Some(state));
        }
        Ok(())
    }

    pub(crate) fn stored_state(&mut self, key: StateKey) -> Result<Option<State>, Fault> {
        self.read_states(&[key])?;
        Ok(self.read.ledger.states.get(&key).cloned().flatten())
    }

    /// What consumed each of these, by a table of that.
    fn read_marks(&mut self, table: &str, keys: &[StateKey]) -> Result<Vec<(StateKey, SecureHash)>, Fault> {
        let mut b = Builder::new();
        for (place, keys) in by_place(self.layout, keys.iter().copied(), |key| key.0) {
            let columns = state_columns(&mut b, &keys);
            b.part(format!(
                "SELECT m.identity, m.tx, m.idx, m.consumed_by FROM unnest({columns}) u (identity, tx, idx) \
                 JOIN {place}.{table} m ON m.identity = u.identity AND m.tx = u.tx AND m.idx = u.idx"
            ));
        }
        self.ask_all(b)?.iter().map(|row| Ok((key_of(row)?, hash_at(row, 3)?))).collect()
    }

    fn read_spent(&mut self, keys: &[StateKey]) -> Result<(), Fault> {
        let read = &self.read.ledger;
        let keys: Vec<_> = keys.iter().filter(|key| !read.spent.contains_key(*key)).copied().collect();
        keys.iter().try_for_each(|key| self.check_open(key.0))?;
        let found = self.read_marks("ledger_spent", &keys)?;
        self.read.ledger.spent.extend(keys.into_iter().map(|key| (key, None)));
        self.read.ledger.spent.extend(found.into_iter().map(|(key, by)| (key, Some(by))));
        Ok(())
    }

    pub(crate) fn stored_spent(&mut self, key: StateKey) -> Result<Option<SecureHash>, Fault> {
        self.read_spent(&[key])?;
        Ok(self.read.ledger.spent.get(&key).copied().flatten())
    }

    pub(crate) fn read_consumers(&mut self, keys: &[StateKey]) -> Result<(), Fault> {
        let read = &self.read.ledger;
        let keys: Vec<_> = keys.iter().filter(|key| !read.consumers.contains_key(*key)).copied().collect();
        keys.iter().try_for_each(|key| self.check_open(key.0))?;
        let found = self.read_marks("notary_state", &keys)?;
        self.read.ledger.consumers.extend(keys.into_iter().map(|key| (key, None)));
        self.read.ledger.consumers.extend(found.into_iter().map(|(key, by)| (key, Some(by))));
        Ok(())
    }

    pub(crate) fn read_outcomes(&mut self, keys: &[TransactionKey]) -> Result<(), Fault> {
        let read = &self.read.ledger;
        let keys: Vec<_> = keys.iter().filter(|key| !read.outcomes.contains_key(*key)).copied().collect();
        keys.iter().try_for_each(|key| self.check_open(key.0))?;
        let mut b = Builder::new();
        for (place, keys) in by_place(self.layout, keys.iter().copied(), |key| key.0) {
            let columns = transaction_columns(&mut b, &keys);
            b.part(format!(
                "SELECT t.identity, t.id, t.batch, t.at FROM unnest({columns}) u (identity, id) \
                 JOIN {place}.notary_tx t ON t.identity = u.identity AND t.id = u.id"
            ));
        }
        let rows = self.ask_all(b)?;
        self.read.ledger.outcomes.extend(keys.into_iter().map(|key| (key, None)));
        for row in &rows {
            let at = time(get(row, 3)?);
            let outcome = match get::<Option<i64>>(row, 2)? {
                Some(batch) => Outcome::Committed(BatchStamp { batch: batch.unsigned_abs(), at }),
                None => Outcome::TooLate(at),
            };
            self.read.ledger.outcomes.insert((IdentityRow(get(row, 0)?), hash_at(row, 1)?), Some(outcome));
        }
        Ok(())
    }

    pub(crate) fn stored_notary(&mut self, identity: IdentityRow) -> Result<Option<Notary>, Fault> {
        if let Some(known) = self.read.ledger.notaries.get(&identity) {
            return Ok(*known);
        }
        self.check_open(identity)?;
        let mut b = Builder::new();
        let (place, id) = (Place::of(self.layout, identity), b.bind(identity.0));
        b.part(format!("SELECT batch, at, committed, conflicts, states FROM {place}.notary WHERE identity = {id}"));
        let rows = self.ask_all(b)?;
        let read = |row: &PgRow| {
            let (batch, at, committed) = (get(row, 0)?, get(row, 1)?, get(row, 2)?);
            Ok::<_, Fault>(Notary { batch, at, committed, conflicts: get(row, 3)?, states: get(row, 4)? })
        };
        let found = rows.first().map(read).transpose()?;
        self.read.ledger.notaries.insert(identity, found);
        Ok(found)
    }
}
