//! What the outside may ask of a notary: answered from the database, so that a notary that sleeps goes on sleeping.

use async_trait::async_trait;
pub use maxhost_store::ledger::Answered;

use super::ledger::Paged;
use super::{ApiResult, Caller};

/// Which requests of a notary's log are wanted, newest first.
#[derive(Debug, Clone, Default)]
pub struct RequestsQuery {
    /// The notary: its name, or a part that fits exactly one identity of this host.
    pub identity: String,
    /// Only those of this caller: its full name.
    pub caller: Option<String>,
    /// Only those that were answered so.
    pub outcome: Option<Answered>,
    /// Only those that were decided then or later, ms since 1970.
    pub from_ms: Option<i64>,
    /// Only those that were decided before, ms since 1970.
    pub until_ms: Option<i64>,
    /// At most so many; 0: 200; no more than 1,000 at once.
    pub limit: u32,
    /// The cursor of the page before.
    pub cursor: Option<String>,
}

/// A request that a notary has decided.
#[derive(Debug, Clone)]
pub struct RequestView {
    /// The id of the transaction.
    pub id: String,
    /// The name of who asked.
    pub caller: String,
    /// How many states the transaction consumes or looks at.
    pub states: u64,
    /// The batch in which it was decided.
    pub batch: u64,
    /// When it was decided, by the notary's clock, ms since 1970.
    pub at_ms: i64,
    /// What was answered; `None` of a request that an older version has logged.
    pub outcome: Option<Answered>,
    /// How many states kept the transaction from being committed.
    pub conflicting: u64,
    /// The first of them; a list leaves them out.
    pub conflicts: Vec<ConflictView>,
}

/// A state that kept a transaction from being committed.
#[derive(Debug, Clone)]
pub struct ConflictView {
    /// The state's reference, `ID:INDEX`.
    pub reference: String,
    /// As what it was named: `input` or `reference`.
    pub kind: &'static str,
    /// What has consumed it.
    pub consumed: Option<ConsumerView>,
}

/// The transaction that has consumed a state.
#[derive(Debug, Clone)]
pub struct ConsumerView {
    /// Its id.
    pub id: String,
    /// In which batch it was committed; `None` if that is not known any more.
    pub batch: Option<u64>,
    /// When it was committed, by the notary's clock, ms since 1970.
    pub at_ms: Option<i64>,
}

/// Whether a notary has committed a state as consumed.
#[derive(Debug, Clone)]
pub struct ConsumptionView {
    /// The state's reference, `ID:INDEX`.
    pub reference: String,
    /// What has consumed it; `None`: this notary has committed nothing that did.
    pub consumed: Option<ConsumerView>,
}

/// What was decided about a transaction for ever.
#[derive(Debug, Clone, Copy)]
pub struct DecidedView {
    /// It was committed in this batch; `None`: its time-window was over.
    pub batch: Option<u64>,
    /// When, by the notary's clock, ms since 1970.
    pub at_ms: i64,
}

/// What a notary knows of a transaction.
#[derive(Debug, Clone)]
pub struct NotarisedView {
    /// Its id.
    pub id: String,
    /// What was decided about it for ever.
    pub decided: Option<DecidedView>,
    /// The requests about it, newest first, with their conflicts.
    pub requests: Vec<RequestView>,
    /// There are more requests than these.
    pub more: bool,
}

/// Everything the edges may ask of what notaries have decided.
#[async_trait]
pub trait NotaryApi: Send + Sync + 'static {
    /// A page of the requests that a notary has decided, newest first. It may have fewer than asked for, also none, where more
    /// follow: one call looks at 20,000 requests at most.
    async fn notary_requests(&self, caller: &Caller, query: RequestsQuery) -> ApiResult<Paged<RequestView>>;
    /// What a notary knows of one transaction.
    async fn notary_transaction(&self, caller: &Caller, identity: &str, id: &str) -> ApiResult<NotarisedView>;
    /// Which transactions have consumed these states, for each in their order; at most 100 states at once.
    async fn notary_consumption(
        &self,
        caller: &Caller,
        identity: &str,
        states: &[String],
    ) -> ApiResult<Vec<ConsumptionView>>;
}
