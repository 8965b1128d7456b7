//! What the outside may ask of the ledgers of a host: answered from the database, so that an identity that sleeps goes on
//! sleeping.

use std::collections::BTreeMap;
use std::pin::Pin;

use async_trait::async_trait;
use futures::Stream;
pub use maxhost_ledger::vault::query::Relevancy;
use serde_json::Value;

use super::{ApiResult, Caller};

/// A query of a vault.
#[derive(Debug, Clone, Default)]
pub struct VaultRequest {
    /// An identity of this host: its name, or a part that fits exactly one.
    pub identity: String,
    /// Types, as `cash/Cash`; any if there is none.
    pub types: Vec<String>,
    /// States that can be spent; also if neither kind is asked for.
    pub unconsumed: bool,
    /// States that cannot.
    pub consumed: bool,
    /// A condition (`docs/behaviour.md` 12.5).
    pub filter: Option<String>,
    /// Whose states; anybody's if nothing is said, but sums are of one's own.
    pub relevancy: Option<Relevancy>,
    /// Only states that have one of these external ids; if there is none, whether they have one or not.
    pub external_ids: Vec<String>,
    /// Only states that have a key which the identity has made for one of these external ids; if there is none, any.
    pub key_external_ids: Vec<String>,
    /// How the page is sorted: `FIELD[:desc],…`.
    pub sort: Option<String>,
    /// How many at most.
    pub limit: Option<u32>,
    /// Goes on behind a page: the cursor repeats the rest of the query. What is said again has to be the same, but for the
    /// size of the page.
    pub cursor: Option<String>,
}

/// A state of a vault.
#[derive(Debug, Clone)]
pub struct StateView {
    /// The state's reference, `ID:INDEX`.
    pub reference: String,
    /// Contract and type.
    pub type_name: String,
    /// Its data, CBOR.
    pub data: Vec<u8>,
    /// Whether it is consumed.
    pub is_consumed: bool,
    /// When it was recorded, ms since 1970.
    pub recorded_ms: i64,
    /// When it was consumed, ms since 1970.
    pub consumed_ms: Option<i64>,
    /// By which transaction.
    pub consumed_by: Option<String>,
    /// The name of its notary.
    pub notary: String,
    /// Names of participants; of those without a name the fingerprint of the key.
    pub participants: Vec<String>,
    /// Whether it is the identity's own.
    pub relevant: bool,
    /// Its external id, if its contract says that it has one.
    pub external_id: Option<String>,
    /// The external ids for which the identity has made keys of it.
    pub key_external_ids: Vec<String>,
    /// Who holds it.
    pub lock: Option<LockView>,
    /// The reference of the state that it can only be spent together with.
    pub encumbered_by: Option<String>,
    /// The transaction in flight that consumes it if the notary agrees: until then nobody selects it.
    pub in_flight: Option<String>,
}

/// Who holds a state.
#[derive(Debug, Clone)]
pub struct LockView {
    /// The reference of the state, `ID:INDEX`.
    pub reference: String,
    /// A text with the id of a flow.
    pub holder: String,
    /// The end of the lease, ms since 1970.
    pub until_ms: i64,
}

/// Some of something, and where to go on.
#[derive(Debug, Clone)]
pub struct Paged<T> {
    /// What is on this page.
    pub items: Vec<T>,
    /// Present if there are more.
    pub cursor: Option<String>,
}

/// A sum over a group of states.
#[derive(Debug, Clone)]
pub struct SumView {
    /// The fields by which the states were grouped, with their values in this group.
    pub by: BTreeMap<String, Value>,
    /// The sum; null without a number.
    pub sum: Value,
    /// How many states.
    pub count: u64,
}

/// A change of a vault, or a part of what was there before the first.
#[derive(Debug, Clone)]
pub struct VaultChange {
    /// Where to resume behind it.
    pub cursor: String,
    /// The transaction; `None` for what was there.
    pub transaction: Option<String>,
    /// More of what was there follows.
    pub more: bool,
    /// States that came in.
    pub produced: Vec<StateView>,
    /// References of states that were consumed.
    pub consumed: Vec<String>,
}

/// Changes of a vault, for ever.
pub type VaultChanges = Pin<Box<dyn Stream<Item = ApiResult<VaultChange>> + Send>>;

/// How far a transaction has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LedgerStatus {
    /// Its bytes are here.
    Unverified,
    /// It was sent to the notary.
    InFlight,
    /// It is part of the ledger.
    Verified,
}

impl LedgerStatus {
    /// The stable word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            LedgerStatus::Unverified => "unverified",
            LedgerStatus::InFlight => "in-flight",
            LedgerStatus::Verified => "verified",
        }
    }
}

/// A transaction in a list.
#[derive(Debug, Clone)]
pub struct TransactionSummary {
    /// Its id.
    pub id: String,
    /// How far it has come.
    pub status: LedgerStatus,
    /// When it came, or became part of the ledger, ms since 1970.
    pub recorded_ms: i64,
}

/// What a transaction makes.
#[derive(Debug, Clone)]
pub struct OutputView {
    /// Contract and type.
    pub type_name: String,
    /// Its data, CBOR.
    pub data: Vec<u8>,
    /// The name of its notary.
    pub notary: String,
    /// The kind of its constraint.
    pub constraint: String,
    /// The output that must be spent together with it.
    pub encumbrance: Option<u32>,
}

/// What a transaction does.
#[derive(Debug, Clone)]
pub struct CommandView {
    /// Contract and command, as `cash/Move`.
    pub type_name: String,
    /// Its value, CBOR.
    pub value: Vec<u8>,
    /// Names of those who must sign; of keys that nobody is known for the fingerprint.
    pub signers: Vec<String>,
}

/// A signature.
#[derive(Debug, Clone)]
pub struct SignatureView {
    /// The name of the signer, if it is known.
    pub by: Option<String>,
    /// The fingerprint of the key.
    pub key: String,
}

/// Everything about one transaction.
#[derive(Debug, Clone)]
pub struct TransactionView {
    /// Id, status, time.
    pub summary: TransactionSummary,
    /// References of what it consumes.
    pub inputs: Vec<String>,
    /// References of what it looks at.
    pub references: Vec<String>,
    /// What it makes.
    pub outputs: Vec<OutputView>,
    /// What it does.
    pub commands: Vec<CommandView>,
    /// Ids of its attachments.
    pub attachments: Vec<String>,
    /// From when and until when it may be notarised, RFC 3339.
    pub time_window: Option<(Option<String>, Option<String>)>,
    /// The name of its notary.
    pub notary: Option<String>,
    /// The name of the notary that keeps what it makes, if it changes the notary of its states.
    pub new_notary: Option<String>,
    /// Its signatures.
    pub signatures: Vec<SignatureView>,
}

/// A transaction in the graph of what another comes from.
#[derive(Debug, Clone)]
pub struct GraphNode {
    /// Its id.
    pub id: String,
    /// How far it has come; `None` if it is not here.
    pub status: Option<LedgerStatus>,
    /// How many steps from the transaction that was asked for.
    pub depth: u32,
    /// The transactions whose states it names.
    pub parents: Vec<String>,
}

/// One thing about a transaction that was checked again.
#[derive(Debug, Clone)]
pub struct CheckView {
    /// What was checked: `parameters`, `network`, `signature`, `signer`, `input`, `reference`, `attachment`, `rules` or
    /// `contract`.
    pub what: &'static str,
    /// Which one: a name or fingerprint, a reference, an id, a contract.
    pub subject: String,
    /// What is wrong with it: the word of the rule of `docs/behaviour.md`, and a text for people; `None` if nothing is.
    pub wrong: Option<(String, String)>,
    /// Facts for programs about what is wrong.
    pub details: std::collections::BTreeMap<String, String>,
}

/// A transaction that was verified again, from what the identity has.
#[derive(Debug, Clone)]
pub struct ExaminationView {
    /// Id, status, time.
    pub summary: TransactionSummary,
    /// All that was checked, in order.
    pub checks: Vec<CheckView>,
}

/// What a notary has done since it was made.
#[derive(Debug, Clone, Copy, Default)]
pub struct NotaryStatus {
    /// Whether it validates.
    pub validating: bool,
    /// Transactions that were committed.
    pub committed: u64,
    /// Requests that were refused because a state was consumed.
    pub conflicts: u64,
    /// States that were committed as consumed.
    pub states: u64,
    /// Requests that wait.
    pub queue: u64,
}

/// Everything the edges may ask of ledgers.
#[async_trait]
pub trait LedgerApi: Send + Sync + 'static {
    /// A page of what a query finds.
    async fn vault_query(&self, caller: &Caller, request: VaultRequest) -> ApiResult<Paged<StateView>>;
    /// How many states a query finds.
    async fn vault_count(&self, caller: &Caller, request: VaultRequest) -> ApiResult<u64>;
    /// The sums of a field over what a query finds, in groups of equal values of other fields (`FIELD,…`).
    async fn vault_sum(
        &self,
        caller: &Caller,
        request: VaultRequest,
        field: &str,
        by: Option<&str>,
    ) -> ApiResult<Vec<SumView>>;
    /// What a query finds now, in parts of bounded size, and what changes after it; behind a cursor, only what is behind it.
    async fn vault_track(
        &self,
        caller: &Caller,
        request: VaultRequest,
        cursor: Option<String>,
    ) -> ApiResult<VaultChanges>;
    /// Who holds what, a page at a time.
    async fn vault_locks(
        &self,
        caller: &Caller,
        identity: &str,
        cursor: Option<String>,
        limit: u32,
    ) -> ApiResult<Paged<LockView>>;
    /// One transaction.
    async fn ledger_transaction(&self, caller: &Caller, identity: &str, id: &str) -> ApiResult<TransactionView>;
    /// Transactions, newest first, a page at a time.
    async fn ledger_list(
        &self,
        caller: &Caller,
        identity: &str,
        cursor: Option<String>,
        limit: u32,
    ) -> ApiResult<Paged<TransactionSummary>>;
    /// Verifies a transaction again, from what the identity has, and says for each part of it what is wrong.
    async fn ledger_examine(&self, caller: &Caller, identity: &str, id: &str) -> ApiResult<ExaminationView>;
    /// What a transaction comes from, breadth first, at most so many.
    async fn ledger_graph(&self, caller: &Caller, identity: &str, id: &str, limit: u32) -> ApiResult<Vec<GraphNode>>;
    /// What a notary has done.
    async fn notary_status(&self, caller: &Caller, identity: &str) -> ApiResult<NotaryStatus>;
}
