//! The audit trail at the edges: what they note of each call, and reading it.

use async_trait::async_trait;

use super::ledger::Paged;
use super::{ApiResult, Caller};
use crate::api::access::Facts;

/// What an edge notes of a call, or the host of something that no call asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEntry {
    /// When it happened, milliseconds since 1970.
    pub at_ms: i64,
    /// Who it was.
    pub user: String,
    /// What he did or wanted: the word of a permission.
    pub action: &'static str,
    /// What it was about.
    pub facts: Facts,
    /// Whether he may do so.
    pub allowed: bool,
    /// The code with which it failed or was refused.
    pub code: Option<String>,
    /// Whether it changes something if it is allowed.
    pub changes: bool,
}

/// Which rows of the trail are wanted, newest first.
#[derive(Debug, Clone, Default)]
pub struct AuditQuery {
    /// Only of this user.
    pub user: Option<String>,
    /// Only about this identity: a name, or a part that fits exactly one.
    pub identity: Option<String>,
    /// Only what happened then or later, milliseconds since 1970.
    pub since_ms: Option<i64>,
    /// At most so many; 0: 100; no more than 1,000 at once.
    pub limit: u32,
    /// The cursor of the page before.
    pub cursor: Option<String>,
}

/// A row of the trail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditView {
    /// When it happened, milliseconds since 1970.
    pub at_ms: i64,
    /// The host that saw it.
    pub host: String,
    /// Who it was.
    pub user: String,
    /// What he did or wanted.
    pub action: String,
    /// The identity that it was about.
    pub identity: Option<String>,
    /// The flow, `cordapp/flow`.
    pub flow: Option<String>,
    /// The flow's id.
    pub flow_id: Option<String>,
    /// What else it was about.
    pub detail: Option<String>,
    /// The id of the token that was shown.
    pub token: Option<String>,
    /// Whether he may do so.
    pub allowed: bool,
    /// The code with which it failed or was refused.
    pub code: Option<String>,
    /// How many calls this row stands for.
    pub count: u64,
}

/// The audit trail.
#[async_trait]
pub trait AuditApi: Send + Sync + 'static {
    /// Notes something. Never waits; it is durable soon after.
    fn note(&self, entry: AuditEntry);
    /// A page of the trail, newest first.
    async fn audit(&self, caller: &Caller, query: AuditQuery) -> ApiResult<Paged<AuditView>>;
}
