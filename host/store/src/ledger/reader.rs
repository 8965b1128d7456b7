//! What can be read of an identity's ledger, straight from the database: nobody has to be awake for it.
#![allow(clippy::missing_errors_doc, unused_variables)]

use async_trait::async_trait;
use maxhost_group_commit::{Fault, FaultKind};
use maxhost_ledger::time::Timestamp;
use maxhost_ledger::tx::StateRef;
use maxhost_model::{IdentityRow, SecureHash};

use super::query::PageRequest;
use super::record::{
    Attachment, HeldLock, LedgerTransaction, ListTransactions, NotaryCounts, StoredState, VaultChangeRow, VaultRow,
};
use crate::error::StoreError;

/// What a database says that keeps no ledgers.
fn no_ledgers() -> StoreError {
    StoreError::Io(Fault::new(FaultKind::Other, "this database keeps no ledgers"))
}

/// Reads ledgers. What a database does not implement it refuses.
#[async_trait]
pub trait LedgerReader: Send + Sync {
    /// A transaction.
    async fn ledger_transaction(
        &self,
        identity: IdentityRow,
        id: &SecureHash,
    ) -> Result<Option<LedgerTransaction>, StoreError> {
        Err(no_ledgers())
    }

    /// Transactions without their bytes, newest first.
    async fn ledger_transactions(
        &self,
        identity: IdentityRow,
        list: &ListTransactions,
    ) -> Result<Vec<LedgerTransaction>, StoreError> {
        Err(no_ledgers())
    }

    /// The transactions whose states this one names, by id.
    async fn parents(&self, identity: IdentityRow, id: &SecureHash) -> Result<Vec<SecureHash>, StoreError> {
        Err(no_ledgers())
    }

    /// Those of these states that the vault has.
    async fn vault_states(&self, identity: IdentityRow, states: &[StateRef]) -> Result<Vec<StoredState>, StoreError> {
        Err(no_ledgers())
    }

    /// Of these states those that a recorded transaction has consumed, with it.
    async fn spent_by(
        &self,
        identity: IdentityRow,
        states: &[StateRef],
    ) -> Result<Vec<(StateRef, SecureHash)>, StoreError> {
        Err(no_ledgers())
    }

    /// States that the request's SQL lets through, in its order, at most its number of them: a superset of what the query
    /// finds. [`crate::ledger::query::page`] makes pages of them.
    async fn vault_candidates(
        &self,
        identity: IdentityRow,
        request: &PageRequest<'_>,
    ) -> Result<Vec<VaultRow>, StoreError> {
        Err(no_ledgers())
    }

    /// The number of the newest change of a vault; 0 if there is none.
    async fn newest_change(&self, identity: IdentityRow) -> Result<i64, StoreError> {
        Err(no_ledgers())
    }

    /// Changes of a vault behind this one, oldest first. `now`: leases that are over are none.
    async fn vault_changes(
        &self,
        identity: IdentityRow,
        after: i64,
        limit: u32,
        now: Timestamp,
    ) -> Result<Vec<VaultChangeRow>, StoreError> {
        Err(no_ledgers())
    }

    /// Locks behind this state, by state.
    async fn locks(
        &self,
        identity: IdentityRow,
        after: Option<StateRef>,
        limit: u32,
        now: Timestamp,
    ) -> Result<Vec<HeldLock>, StoreError> {
        Err(no_ledgers())
    }

    /// An attachment.
    async fn attachment(&self, identity: IdentityRow, id: &SecureHash) -> Result<Option<Attachment>, StoreError> {
        Err(no_ledgers())
    }

    /// The ids of the attachments of an identity, in their order.
    async fn attachments(&self, identity: IdentityRow) -> Result<Vec<SecureHash>, StoreError> {
        Err(no_ledgers())
    }

    /// What a notary has done; `None` if the identity has never been one.
    async fn notary_counts(&self, identity: IdentityRow) -> Result<Option<NotaryCounts>, StoreError> {
        Err(no_ledgers())
    }
}
