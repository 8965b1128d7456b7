//! Showing vaults, ledgers and notaries, straight from the database.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream;
use maxhost_ledger::codec;
use maxhost_ledger::time::Timestamp;
use maxhost_ledger::tx::{
    Command, Core as TxCore, NotaryChange, StateAndRef, StateRef, TransactionSignature, TransactionState,
};
use maxhost_ledger::vault::query::{Cursor, Field, Number, Query, SortKey, StatusFilter, Value as FieldValue};
use maxhost_ledger::vault::recording::TransactionStatus;
use maxhost_ledger::{Refused, Rule};
use maxhost_model::{Code, IdentityRow, Problem, PublicKey, SecureHash};
use maxhost_sandbox::VaultQuery;
use maxhost_store::ledger::query::{each, page};
use maxhost_store::ledger::{HeldLock, LedgerReader, LedgerTransaction, ListTransactions, VaultRow};
use maxhost_store::{Store, StoreError};
use serde_json::Value;

use super::examine::{Examining, LedgerOf};
use crate::access::{self, Action, Subject};
use crate::api::ledger::{
    CommandView, ExaminationView, GraphNode, LedgerApi, LedgerStatus, LockView, NotaryStatus, OutputView, Paged,
    SignatureView, StateView, SumView, TransactionSummary, TransactionView, VaultChange, VaultChanges, VaultRequest,
};
use crate::api::{ApiResult, Caller};
use crate::calls::{kind_of, read_query, trace};
use crate::host::Host;
use crate::options::NotaryKind;
use crate::parts::Parts;
use crate::registry::IdentityEntry;

/// The most that is listed at once.
const MAX_PAGE: u32 = 10_000;
/// So many changes of a vault are read at once.
const CHANGES: u32 = 256;
/// How often a feed looks for changes.
const LOOK: Duration = Duration::from_millis(200);
/// The most groups of a sum.
const MAX_GROUPS: usize = 100_000;

pub(super) fn ms(time: Timestamp) -> i64 {
    i64::try_from(time.nanos() / 1_000_000).unwrap_or(i64::MAX)
}

fn refused(error: Refused) -> Problem {
    StoreError::Ledger(error).into()
}

fn status(status: TransactionStatus) -> LedgerStatus {
    match status {
        TransactionStatus::Unverified => LedgerStatus::Unverified,
        TransactionStatus::InFlight => LedgerStatus::InFlight,
        TransactionStatus::Verified => LedgerStatus::Verified,
    }
}

fn damaged(what: &str, error: &Refused) -> Problem {
    Problem::new(Code::JournalCorrupt, format!("{what} cannot be read: {error}"))
}

/// States as clients see them. A participant without a name has that of the party whose key it is known to be.
async fn state_views(
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

/// A query of an identity's vault. A cursor goes on with its own query: what is said beside it has to say the same.
fn read(entry: &IdentityEntry, request: &VaultRequest) -> ApiResult<(Query, Option<Cursor>)> {
    let request = request.clone();
    let says_status = request.unconsumed || request.consumed;
    let mut asked = VaultQuery {
        types: request.types,
        unconsumed: request.unconsumed,
        consumed: request.consumed,
        filter: request.filter,
        sort: request.sort,
        limit: request.limit,
        cursor: request.cursor,
    };
    let (query, cursor) = read_query(&asked).map_err(refused)?;
    if let Some(cursor) = &cursor {
        cursor.check_vault(&entry.text).map_err(refused)?;
        asked.cursor = None;
        let (said, _) = read_query(&asked).map_err(refused)?;
        let said = Query {
            status: if says_status { said.status } else { query.status },
            types: if asked.types.is_empty() { query.types.clone() } else { said.types },
            filter: if asked.filter.is_some() { said.filter } else { query.filter.clone() },
            sort: if asked.sort.is_some() { said.sort } else { query.sort.clone() },
            limit: query.limit,
        };
        cursor.check(&said).map_err(refused)?;
    }
    Ok((query, cursor))
}

fn json(value: &FieldValue) -> Value {
    match value {
        FieldValue::Null => Value::Null,
        FieldValue::Bool(value) => Value::Bool(*value),
        FieldValue::Number(number) => {
            let text = number.to_string();
            let whole = text.parse::<i64>().map(Value::from).or_else(|_| text.parse::<u64>().map(Value::from));
            whole.unwrap_or(Value::String(text))
        }
        FieldValue::Text(text) => Value::String(text.clone()),
        FieldValue::Bytes(bytes) => Value::String(hex::encode(bytes)),
        FieldValue::Time(time) => Value::String(time.to_string()),
    }
}

fn field_name(field: &Field) -> String {
    match field {
        Field::Builtin(builtin) => builtin.name().unwrap_or_default().to_owned(),
        Field::Data(name) => name.clone(),
    }
}

fn parse_id(id: &str) -> ApiResult<SecureHash> {
    id.parse().map_err(|_| {
        let shown: String = id.chars().take(80).collect();
        Problem::new(Code::TransactionNotFound, format!("'{shown}' is no id of a transaction"))
    })
}

fn no_transaction(entry: &IdentityEntry, id: &SecureHash) -> Problem {
    let text = format!("{} does not have the transaction {id}", entry.text);
    Problem::new(Code::TransactionNotFound, text).detail("transaction", id.to_string())
}

fn decoded(found: &LedgerTransaction) -> ApiResult<(TxCore, Vec<TransactionSignature>)> {
    let signatures = codec::decode("signatures", &found.signatures).map_err(|error| damaged("signatures", &error))?;
    let Some(body) = &found.body else {
        let text = format!("the bytes of transaction {} are gone", found.id);
        return Err(Problem::new(Code::TransactionNotFound, text));
    };
    let core = TxCore::decode(kind_of(found.kind), body).map_err(|error| damaged("a transaction", &error))?;
    Ok((core, signatures))
}

fn summary(transaction: &LedgerTransaction) -> TransactionSummary {
    TransactionSummary {
        id: transaction.id.to_string(),
        status: status(transaction.status),
        recorded_ms: ms(transaction.recorded),
    }
}

impl Host {
    pub(super) fn ledger_of(&self, caller: &Caller, action: Action, name: &str) -> ApiResult<Arc<IdentityEntry>> {
        let entry = self.resolve(caller, name)?;
        access::check(caller, action, &Subject { identity: Some(&entry.text), ..Subject::default() })?;
        Ok(entry)
    }

    pub(super) fn ledger_now(&self) -> Timestamp {
        Timestamp::from_nanos(self.parts.clock.wall())
    }

    /// The name of a key of the network, else its fingerprint.
    fn known_as(&self, key: &PublicKey) -> (Option<String>, String) {
        let fingerprint = key.fingerprint();
        let name = match self.parts.network.by_fingerprint(&fingerprint) {
            Ok(Some(party)) => Some(party.party.name.to_string()),
            _ => None,
        };
        (name, fingerprint.to_string())
    }

    /// Whose those of these keys are that an identity has been told of.
    async fn told_of(
        &self,
        entry: &IdentityEntry,
        keys: impl Iterator<Item = &PublicKey>,
    ) -> ApiResult<BTreeMap<PublicKey, String>> {
        let unknown: BTreeSet<SecureHash> =
            keys.filter(|key| self.known_as(key).0.is_none()).map(PublicKey::fingerprint).collect();
        if unknown.is_empty() {
            return Ok(BTreeMap::new());
        }
        let unknown: Vec<SecureHash> = unknown.into_iter().collect();
        let known = self.parts.store.known_keys(entry.row, &unknown).await.map_err(Problem::from)?;
        Ok(known.into_iter().map(|known| (known.key, known.party)).collect())
    }

    /// The states that a change of notary makes; none of them if one that it moves is not here.
    async fn made_by_change(&self, entry: &IdentityEntry, change: &NotaryChange) -> ApiResult<Vec<TransactionState>> {
        let ledger = LedgerOf { parts: &self.parts, identity: entry.row };
        let mut inputs = Vec::new();
        for reference in &change.contents().inputs {
            let traced = trace(&ledger, reference).await?;
            inputs.extend(traced.map(|traced| StateAndRef { state: traced.state, reference: *reference }));
        }
        Ok(change.outputs(&inputs).unwrap_or_default())
    }

    async fn find_transaction(&self, entry: &IdentityEntry, id: &SecureHash) -> ApiResult<LedgerTransaction> {
        let found = self.parts.store.ledger_transaction(entry.row, id).await.map_err(Problem::from)?;
        found.ok_or_else(|| no_transaction(entry, id))
    }
}

#[async_trait]
impl LedgerApi for Host {
    async fn vault_query(&self, caller: &Caller, request: VaultRequest) -> ApiResult<Paged<StateView>> {
        let entry = self.ledger_of(caller, Action::QueryVault, &request.identity)?;
        let (query, cursor) = read(&entry, &request)?;
        let found = page(&*self.parts.store, entry.row, &query, cursor.as_ref(), None, self.ledger_now()).await;
        let found = found.map_err(Problem::from)?;
        let items = state_views(&*self.parts.store, entry.row, found.rows).await?;
        Ok(Paged { items, cursor: found.cursor.map(|cursor| cursor.within(&entry.text).to_string()) })
    }

    async fn vault_count(&self, caller: &Caller, request: VaultRequest) -> ApiResult<u64> {
        let entry = self.ledger_of(caller, Action::QueryVault, &request.identity)?;
        let (query, _) = read(&entry, &request)?;
        let mut count = 0;
        let counted = each(&*self.parts.store, entry.row, &query, None, self.ledger_now(), |_| {
            count += 1;
            Ok(())
        });
        counted.await.map_err(Problem::from)?;
        Ok(count)
    }

    async fn vault_sum(
        &self,
        caller: &Caller,
        request: VaultRequest,
        field: &str,
        by: Option<&str>,
    ) -> ApiResult<Vec<SumView>> {
        let entry = self.ledger_of(caller, Action::QueryVault, &request.identity)?;
        let (query, _) = read(&entry, &request)?;
        let fields = |text: &str| -> ApiResult<Vec<Field>> {
            Ok(SortKey::parse_list(text).map_err(refused)?.into_iter().map(|key| key.field).collect())
        };
        let summed = fields(field)?;
        let [summed] = summed.as_slice() else {
            return Err(Problem::new(Code::QueryInvalid, "one field is summed")
                .remedy("name one field of numbers to sum, and those to group by apart from it")
                .detail("field", "sum"));
        };
        let by = by.map_or_else(|| Ok(Vec::new()), fields)?;
        let mut groups: BTreeMap<Vec<FieldValue>, (Option<Number>, u64)> = BTreeMap::new();
        if by.is_empty() {
            groups.insert(Vec::new(), (None, 0));
        }
        let add = |row: VaultRow| {
            let key: Vec<FieldValue> = by.iter().map(|field| row.row.value(field)).collect();
            if groups.len() == MAX_GROUPS && !groups.contains_key(&key) {
                let text = format!("there are more than {MAX_GROUPS} groups");
                return Err(StoreError::Ledger(Refused::new(Rule::QueryInvalid, text)));
            }
            let (sum, count) = groups.entry(key).or_default();
            *count += 1;
            if let FieldValue::Number(number) = row.row.value(summed) {
                *sum = match sum {
                    None => Some(number),
                    Some(sum) => Some(sum.plus(number).ok_or_else(|| {
                        let text = "the sum is beyond the range of numbers";
                        StoreError::Ledger(Refused::new(Rule::AmountOverflow, text))
                    })?),
                };
            }
            Ok(())
        };
        each(&*self.parts.store, entry.row, &query, None, self.ledger_now(), add).await.map_err(Problem::from)?;
        let view = |(key, (sum, count)): (Vec<FieldValue>, (Option<Number>, u64))| SumView {
            by: by.iter().map(field_name).zip(key.iter().map(json)).collect(),
            sum: sum.map_or(Value::Null, |sum| json(&FieldValue::Number(sum))),
            count,
        };
        Ok(groups.into_iter().map(view).collect())
    }

    async fn vault_track(
        &self,
        caller: &Caller,
        request: VaultRequest,
        cursor: Option<String>,
    ) -> ApiResult<VaultChanges> {
        let entry = self.ledger_of(caller, Action::QueryVault, &request.identity)?;
        let (query, _) = read(&entry, &request)?;
        let store = self.parts.store.clone();
        let newest = store.newest_change(entry.row).await.map_err(Problem::from)?;
        let (after, first) = match cursor {
            Some(cursor) => (change_after(&entry, &cursor, newest)?, VecDeque::new()),
            None => {
                let produced = snapshot(&store, &entry, &query, newest, self.ledger_now()).await?;
                let first =
                    VaultChange { cursor: newest.to_string(), transaction: None, produced, consumed: Vec::new() };
                (newest, VecDeque::from([first]))
            }
        };
        // Consumed states are told too, by the same condition.
        let query = Query { status: StatusFilter::All, ..query };
        let feed = Feed { parts: self.parts.clone(), entry, query, after, ready: first };
        Ok(Box::pin(stream::unfold(feed, |mut feed| async move {
            let change = feed.next().await?;
            Some((change, feed))
        })))
    }

    async fn vault_locks(
        &self,
        caller: &Caller,
        identity: &str,
        cursor: Option<String>,
        limit: u32,
    ) -> ApiResult<Paged<LockView>> {
        let entry = self.ledger_of(caller, Action::QueryVault, identity)?;
        let limit = limit.clamp(1, MAX_PAGE);
        let after: Option<StateRef> = match cursor {
            Some(cursor) => Some(cursor.parse().map_err(|_| {
                Problem::new(Code::CursorInvalid, "this is no cursor of a list of locks").detail("cursor", "cursor")
            })?),
            None => None,
        };
        let found = self.parts.store.locks(entry.row, after, limit.saturating_add(1), self.ledger_now()).await;
        let mut found = found.map_err(Problem::from)?;
        let more = found.len() > limit as usize;
        found.truncate(limit as usize);
        let cursor = found.last().filter(|_| more).map(|last| last.reference.to_string());
        let view = |lock: HeldLock| LockView {
            reference: lock.reference.to_string(),
            holder: lock.holder,
            until_ms: ms(lock.until),
        };
        Ok(Paged { items: found.into_iter().map(view).collect(), cursor })
    }

    async fn ledger_transaction(&self, caller: &Caller, identity: &str, id: &str) -> ApiResult<TransactionView> {
        caller.about.detail(id);
        let entry = self.ledger_of(caller, Action::ReadLedger, identity)?;
        let id = parse_id(id)?;
        let found = self.find_transaction(&entry, &id).await?;
        let summary = summary(&found);
        let (core, signatures) = decoded(&found)?;
        let (outputs, commands) = match &core {
            TxCore::Wire(wire) => (wire.contents().outputs.clone(), wire.contents().commands.clone()),
            TxCore::NotaryChange(change) => (self.made_by_change(&entry, change).await?, Vec::new()),
        };
        let new_notary = match &core {
            TxCore::Wire(_) => None,
            TxCore::NotaryChange(change) => Some(change.contents().new_notary.name.to_string()),
        };
        let output = |state: &TransactionState| OutputView {
            type_name: state.qualified_type(),
            data: state.data.bytes().to_vec(),
            notary: state.notary.name.to_string(),
            constraint: state.constraint.kind().to_owned(),
            encumbrance: state.encumbrance,
        };
        let keys = commands.iter().flat_map(|command| &command.signers);
        let told = self.told_of(&entry, keys.chain(signatures.iter().map(TransactionSignature::by))).await?;
        let known_as = |key: &PublicKey| {
            let (name, fingerprint) = self.known_as(key);
            (name.or_else(|| told.get(key).cloned()), fingerprint)
        };
        let signer = |key: &PublicKey| {
            let (name, fingerprint) = known_as(key);
            name.unwrap_or(fingerprint)
        };
        let command = |command: &Command| CommandView {
            type_name: format!("{}/{}", command.value.contract.name, command.value.name),
            value: command.value.value.bytes().to_vec(),
            signers: command.signers.iter().map(signer).collect(),
        };
        let signature = |signature: &TransactionSignature| {
            let (by, key) = known_as(signature.by());
            SignatureView { by, key }
        };
        Ok(TransactionView {
            summary,
            inputs: core.inputs().iter().map(ToString::to_string).collect(),
            references: core.references().iter().map(ToString::to_string).collect(),
            outputs: outputs.iter().map(output).collect(),
            commands: commands.iter().map(command).collect(),
            attachments: core.attachments().iter().map(ToString::to_string).collect(),
            time_window: core.time_window().map(|window| {
                (window.from().map(|time| time.to_string()), window.until().map(|time| time.to_string()))
            }),
            notary: core.notary().map(|notary| notary.name.to_string()),
            new_notary,
            signatures: signatures.iter().map(signature).collect(),
        })
    }

    async fn ledger_list(
        &self,
        caller: &Caller,
        identity: &str,
        cursor: Option<String>,
        limit: u32,
    ) -> ApiResult<Paged<TransactionSummary>> {
        let entry = self.ledger_of(caller, Action::ReadLedger, identity)?;
        let limit = limit.clamp(1, MAX_PAGE);
        let before = match cursor {
            Some(cursor) => Some(cursor.parse().map_err(|_| {
                Problem::new(Code::CursorInvalid, "this is no cursor of a list of transactions")
                    .detail("cursor", "cursor")
            })?),
            None => None,
        };
        let list = ListTransactions { before, status: None, limit: limit.saturating_add(1) };
        let mut found = self.parts.store.ledger_transactions(entry.row, &list).await.map_err(Problem::from)?;
        let more = found.len() > limit as usize;
        found.truncate(limit as usize);
        let cursor = found.last().filter(|_| more).map(|last| last.number.to_string());
        Ok(Paged { items: found.iter().map(summary).collect(), cursor })
    }

    async fn ledger_examine(&self, caller: &Caller, identity: &str, id: &str) -> ApiResult<ExaminationView> {
        caller.about.detail(id);
        let entry = self.ledger_of(caller, Action::ReadLedger, identity)?;
        let id = parse_id(id)?;
        let found = self.find_transaction(&entry, &id).await?;
        let (core, signatures) = decoded(&found)?;
        let signed = Examining { parts: &self.parts, identity: entry.row, core, signatures };
        Ok(ExaminationView { summary: summary(&found), checks: signed.checks(|key| self.known_as(key)).await? })
    }

    async fn ledger_graph(&self, caller: &Caller, identity: &str, id: &str, limit: u32) -> ApiResult<Vec<GraphNode>> {
        caller.about.detail(id);
        let entry = self.ledger_of(caller, Action::ReadLedger, identity)?;
        let id = parse_id(id)?;
        self.find_transaction(&entry, &id).await?;
        let mut nodes = Vec::new();
        let mut seen = HashSet::from([id]);
        let mut next = VecDeque::from([(id, 0)]);
        while let Some((id, depth)) = next.pop_front() {
            if nodes.len() >= limit.clamp(1, MAX_PAGE) as usize {
                break;
            }
            let found = self.parts.store.ledger_transaction(entry.row, &id).await.map_err(Problem::from)?;
            let parents = self.parts.store.parents(entry.row, &id).await.map_err(Problem::from)?;
            next.extend(parents.iter().filter(|parent| seen.insert(**parent)).map(|parent| (*parent, depth + 1)));
            nodes.push(GraphNode {
                id: id.to_string(),
                status: found.map(|found| status(found.status)),
                depth,
                parents: parents.iter().map(ToString::to_string).collect(),
            });
        }
        Ok(nodes)
    }

    async fn notary_status(&self, caller: &Caller, identity: &str) -> ApiResult<NotaryStatus> {
        let entry = self.ledger_of(caller, Action::ReadLedger, identity)?;
        let kind = entry.spec.lock().notary;
        let Some(kind) = kind else {
            let text = format!("{} is no notary", entry.text);
            return Err(Problem::new(Code::NotaryNotHere, text).detail("identity", entry.text.to_string()));
        };
        let counts = self.parts.store.notary_counts(entry.row).await.map_err(Problem::from)?.unwrap_or_default();
        Ok(NotaryStatus {
            validating: kind == NotaryKind::Validating,
            committed: counts.committed,
            conflicts: counts.conflicts,
            states: counts.states,
            queue: entry.notary.len() as u64,
        })
    }
}

/// The change that a feed goes on behind: one that the vault has had.
fn change_after(entry: &IdentityEntry, cursor: &str, newest: i64) -> ApiResult<i64> {
    match cursor.parse::<i64>() {
        Ok(after) if (0..=newest).contains(&after) => Ok(after),
        Ok(after) => {
            let text =
                format!("the cursor says {after}, and the newest change of the vault of {} is {newest}", entry.text);
            Err(Problem::new(Code::CursorInvalid, text)
                .detail("cursor", after.to_string())
                .detail("last", newest.to_string()))
        }
        Err(_) => {
            Err(Problem::new(Code::CursorInvalid, "this is no cursor of a vault's changes").detail("cursor", "cursor"))
        }
    }
}

async fn snapshot(
    store: &Store,
    entry: &IdentityEntry,
    query: &Query,
    change: i64,
    now: Timestamp,
) -> ApiResult<Vec<StateView>> {
    let mut rows = Vec::new();
    let read = each(&**store, entry.row, query, Some(change), now, |row| {
        rows.push(row);
        Ok(())
    });
    read.await.map_err(Problem::from)?;
    state_views(&**store, entry.row, rows).await
}

/// Where a feed of changes stands.
struct Feed {
    parts: Arc<Parts>,
    entry: Arc<IdentityEntry>,
    query: Query,
    after: i64,
    ready: VecDeque<VaultChange>,
}

impl Feed {
    /// The next change that the query finds something of; `None` at the end of the host.
    async fn next(&mut self) -> Option<ApiResult<VaultChange>> {
        loop {
            if let Some(change) = self.ready.pop_front() {
                return Some(Ok(change));
            }
            if self.parts.stopping.is_cancelled() {
                return None;
            }
            match self.read().await {
                Ok(true) => {}
                Ok(false) => {
                    tokio::select! {
                        () = tokio::time::sleep(LOOK) => {}
                        () = self.parts.stopping.cancelled() => return None,
                    }
                }
                Err(problem) => return Some(Err(problem)),
            }
        }
    }

    /// Whether there were changes.
    async fn read(&mut self) -> ApiResult<bool> {
        let now = Timestamp::from_nanos(self.parts.clock.wall());
        let changes = self.parts.store.vault_changes(self.entry.row, self.after, CHANGES, now).await;
        let changes = changes.map_err(Problem::from)?;
        let any = !changes.is_empty();
        for change in changes {
            self.after = change.number;
            let found = |row: &VaultRow| self.query.finds(&row.row);
            let produced: Vec<VaultRow> = change.produced.into_iter().filter(&found).collect();
            let produced = state_views(&*self.parts.store, self.entry.row, produced).await?;
            let consumed: Vec<String> =
                change.consumed.iter().filter(|row| found(row)).map(|row| row.row.reference.to_string()).collect();
            if !produced.is_empty() || !consumed.is_empty() {
                self.ready.push_back(VaultChange {
                    cursor: change.number.to_string(),
                    transaction: Some(change.transaction.to_string()),
                    produced,
                    consumed,
                });
            }
        }
        Ok(any)
    }
}
