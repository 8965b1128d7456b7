//! Showing vaults, ledgers and notaries, straight from the database.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::sync::Arc;

use async_trait::async_trait;
use maxhost_ledger::codec;
use maxhost_ledger::digest::TransactionIdText;
use maxhost_ledger::time::Timestamp;
use maxhost_ledger::tx::{
    Command, Core as TxCore, NotaryChange, StateAndRef, StateRef, TransactionSignature, TransactionState,
};
use maxhost_ledger::vault::query::{Field, Number, SortKey, Value as FieldValue};
use maxhost_ledger::vault::recording::TransactionStatus;
use maxhost_ledger::{Refused, Rule};
use maxhost_model::{Code, Problem, PublicKey, SecureHash};
use maxhost_store::StoreError;
use maxhost_store::ledger::query::{each, page};
use maxhost_store::ledger::{HeldLock, LedgerTransaction, ListTransactions, VaultRow};
use serde_json::Value;

use super::examine::{Examining, LedgerOf};
use super::state_views::{damaged, ms, state_views};
use super::track::track;
use super::vault_query::{of_ones_own, read, refused};
use crate::api::access::{self, Action, Subject};
use crate::api::ledger::{
    CommandView, ExaminationView, GraphNode, LedgerApi, LedgerStatus, LockView, NotaryStatus, OutputView, Paged,
    SignatureView, StateView, SumView, TransactionSummary, TransactionView, VaultChanges, VaultRequest,
};
use crate::api::{ApiResult, Caller};
use crate::calls::{kind_of, trace};
use crate::host::lifecycle::Host;
use crate::options::NotaryKind;
use crate::registry::entry::IdentityEntry;

/// The most that is listed at once.
const MAX_PAGE: u32 = 10_000;
/// The most groups of a sum.
const MAX_GROUPS: usize = 100_000;

fn status(status: TransactionStatus) -> LedgerStatus {
    match status {
        TransactionStatus::Unverified => LedgerStatus::Unverified,
        TransactionStatus::InFlight => LedgerStatus::InFlight,
        TransactionStatus::Verified => LedgerStatus::Verified,
    }
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

pub(super) fn parse_id(id: &str) -> ApiResult<SecureHash> {
    let TransactionIdText(id) = id.parse().map_err(|_| {
        let shown: String = id.chars().take(80).collect();
        Problem::new(Code::TransactionNotFound, format!("'{shown}' is no id of a transaction"))
    })?;
    Ok(id)
}

/// Which kind of notary an identity is.
pub(super) fn kind_of_notary(entry: &IdentityEntry) -> ApiResult<NotaryKind> {
    let kind = entry.spec.lock().notary;
    kind.ok_or_else(|| {
        let text = format!("{} is no notary", entry.text);
        Problem::new(Code::NotaryNotHere, text).detail("identity", entry.text.to_string())
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
        let query = of_ones_own(query, &request);
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
        Ok(Box::pin(track(self.parts.clone(), entry, query, cursor).await?))
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
                Problem::new(Code::CursorInvalid, "this is no cursor of a list of locks").detail("field", "cursor")
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
                    .detail("field", "cursor")
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
        let kind = kind_of_notary(&entry)?;
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
