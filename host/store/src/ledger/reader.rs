//! What can be read of an identity's ledger, straight from the database: nobody has to be awake for it.
#![allow(clippy::missing_errors_doc, unused_variables)]

use async_trait::async_trait;
use bytes::Bytes;
use maxhost_ledger::notary::Outcome;
use maxhost_ledger::time::Timestamp;
use maxhost_ledger::tx::StateRef;
use maxhost_ledger::vault::query::StatusFilter;
use maxhost_ledger::vault::recording::TransactionStatus;
use maxhost_model::{IdentityRow, SecureHash};

use super::op::KnownKey;
use super::query::{Having, PageRequest, Slice, SqlValue};
use super::record::{
    Attachment, HeldLock, KeptAttachment, LedgerTransaction, ListAttachments, ListTransactions, NotaryCounts,
    Unsettled, VaultChangeRow, VaultRow, VaultShape,
};
use super::requests::{Consumption, ListRequests, LoggedRequest, RequestPage, RequestPlace};
use crate::error::StoreError;

/// Reads ledgers. Every database keeps them; a stand-in for one refuses what it does not implement with
/// [`StoreError::NoLedgers`].
#[async_trait]
pub trait LedgerReader: Send + Sync {
    /// Whether it keeps ledgers at all.
    fn keeps_ledgers(&self) -> bool {
        false
    }

    /// A transaction.
    async fn ledger_transaction(
        &self,
        identity: IdentityRow,
        id: &SecureHash,
    ) -> Result<Option<LedgerTransaction>, StoreError> {
        Err(StoreError::NoLedgers)
    }

    /// Transactions without their bytes and their signatures, newest first.
    async fn ledger_transactions(
        &self,
        identity: IdentityRow,
        list: &ListTransactions,
    ) -> Result<Vec<LedgerTransaction>, StoreError> {
        Err(StoreError::NoLedgers)
    }

    /// Transactions in flight, at most so many, that no live flow settles, and how each is to be settled.
    async fn unsettled(&self, identity: IdentityRow, limit: u32) -> Result<Vec<Unsettled>, StoreError> {
        Err(StoreError::NoLedgers)
    }

    /// Of these identities those that have something [`unsettled`](LedgerReader::unsettled).
    async fn with_unsettled(&self, identities: &[IdentityRow]) -> Result<Vec<IdentityRow>, StoreError> {
        let mut found = Vec::new();
        for identity in identities {
            if !self.unsettled(*identity, 1).await?.is_empty() {
                found.push(*identity);
            }
        }
        Ok(found)
    }

    /// The transactions whose states this one names, by id.
    async fn parents(&self, identity: IdentityRow, id: &SecureHash) -> Result<Vec<SecureHash>, StoreError> {
        Err(StoreError::NoLedgers)
    }

    /// Of these transactions those that the identity knows, with how far each has come.
    async fn ledger_statuses(
        &self,
        identity: IdentityRow,
        ids: &[SecureHash],
    ) -> Result<Vec<(SecureHash, TransactionStatus)>, StoreError> {
        Err(StoreError::NoLedgers)
    }

    /// Transactions with their bytes, in the order of their ids here. One that is not there, or whose bytes are gone, is
    /// left out. They end before bodies and signatures would have more than `bytes` bytes, but never before the first.
    async fn ledger_bodies(
        &self,
        identity: IdentityRow,
        ids: &[SecureHash],
        bytes: usize,
    ) -> Result<Vec<LedgerTransaction>, StoreError> {
        Err(StoreError::NoLedgers)
    }

    /// These transactions and those that they come from, as far as the identity knows them, breadth first, each once, at
    /// most so many.
    async fn ledger_ancestors(
        &self,
        identity: IdentityRow,
        of: &[SecureHash],
        limit: u32,
    ) -> Result<Vec<SecureHash>, StoreError> {
        Err(StoreError::NoLedgers)
    }

    /// The transactions whose states any of these names, each once.
    async fn parents_of(&self, identity: IdentityRow, ids: &[SecureHash]) -> Result<Vec<SecureHash>, StoreError> {
        Err(StoreError::NoLedgers)
    }

    /// The newest state of a vault with this linear id and type that is not consumed, whether it is one's own or not.
    async fn newest_linear(
        &self,
        identity: IdentityRow,
        type_name: &str,
        linear_id: &str,
    ) -> Result<Option<StateRef>, StoreError> {
        Err(StoreError::NoLedgers)
    }

    /// Of these states those that a recorded transaction has consumed, with it.
    async fn spent_by(
        &self,
        identity: IdentityRow,
        states: &[StateRef],
    ) -> Result<Vec<(StateRef, SecureHash)>, StoreError> {
        Err(StoreError::NoLedgers)
    }

    /// States that the request's SQL lets through, in its order, at most its number of them, and none behind
    /// [`crate::PAGE_BYTES`] bytes of states: a superset of what the query finds. [`crate::ledger::query::page`] makes pages of them.
    async fn vault_candidates(
        &self,
        identity: IdentityRow,
        request: &PageRequest<'_>,
    ) -> Result<Vec<VaultRow>, StoreError> {
        Err(StoreError::NoLedgers)
    }

    /// Of how many states of a vault this holds, consumed or not; when there are `most`, no more are counted.
    async fn count_of(&self, identity: IdentityRow, having: &Having, most: u32) -> Result<u32, StoreError> {
        Err(StoreError::NoLedgers)
    }

    /// How many states of a vault have this status and one of these types (`None`: any); when there are `most`, no more are
    /// counted.
    async fn count_of_states(
        &self,
        identity: IdentityRow,
        status: StatusFilter,
        types: Option<&[String]>,
        most: u32,
    ) -> Result<u32, StoreError> {
        Err(StoreError::NoLedgers)
    }

    /// The key at a place of a slice, of which the first is 0; `None` if the slice has not so many states.
    async fn vault_key_at(
        &self,
        identity: IdentityRow,
        slice: &Slice,
        place: u32,
    ) -> Result<Option<SqlValue>, StoreError> {
        Err(StoreError::NoLedgers)
    }

    /// Which fields the states of each type have together, by type, at most so many. Of a vault that an older version has
    /// filled none may be known.
    async fn vault_shapes(&self, identity: IdentityRow, limit: u32) -> Result<Vec<VaultShape>, StoreError> {
        Err(StoreError::NoLedgers)
    }

    /// The number of the newest change of a vault; 0 if there is none.
    async fn newest_change(&self, identity: IdentityRow) -> Result<i64, StoreError> {
        Err(StoreError::NoLedgers)
    }

    /// Changes of a vault behind this one, oldest first: at most `limit`, and none behind [`crate::PAGE_BYTES`] bytes of
    /// states. `now`: leases that are over are none.
    async fn vault_changes(
        &self,
        identity: IdentityRow,
        after: i64,
        limit: u32,
        now: Timestamp,
    ) -> Result<Vec<VaultChangeRow>, StoreError> {
        Err(StoreError::NoLedgers)
    }

    /// Locks behind this state, by state.
    async fn locks(
        &self,
        identity: IdentityRow,
        after: Option<StateRef>,
        limit: u32,
        now: Timestamp,
    ) -> Result<Vec<HeldLock>, StoreError> {
        Err(StoreError::NoLedgers)
    }

    /// An attachment.
    async fn attachment(&self, identity: IdentityRow, id: &SecureHash) -> Result<Option<Attachment>, StoreError> {
        Err(StoreError::NoLedgers)
    }

    /// Attachments of an identity without their bytes, by id.
    async fn attachments(
        &self,
        identity: IdentityRow,
        list: &ListAttachments,
    ) -> Result<Vec<KeptAttachment>, StoreError> {
        Err(StoreError::NoLedgers)
    }

    /// Network parameters that an identity has kept, as they were put there.
    async fn kept_parameters(&self, identity: IdentityRow, hash: &SecureHash) -> Result<Option<Bytes>, StoreError> {
        Err(StoreError::NoLedgers)
    }

    /// What is known of the keys with these fingerprints, in any order.
    async fn known_keys(
        &self,
        identity: IdentityRow,
        fingerprints: &[SecureHash],
    ) -> Result<Vec<KnownKey>, StoreError> {
        Err(StoreError::NoLedgers)
    }

    /// The external ids of those of the keys with these fingerprints that have one, in any order.
    async fn key_external_ids(
        &self,
        identity: IdentityRow,
        fingerprints: &[SecureHash],
    ) -> Result<Vec<(SecureHash, String)>, StoreError> {
        Err(StoreError::NoLedgers)
    }

    /// The keys that have an external id, by fingerprint, behind this one, at most so many.
    async fn keys_of_external_id(
        &self,
        identity: IdentityRow,
        external_id: &str,
        after: Option<SecureHash>,
        limit: u32,
    ) -> Result<Vec<KnownKey>, StoreError> {
        Err(StoreError::NoLedgers)
    }

    /// Requests that a notary has decided, newest first.
    async fn notary_requests(&self, identity: IdentityRow, list: &ListRequests) -> Result<RequestPage, StoreError> {
        Err(StoreError::NoLedgers)
    }

    /// Requests that a notary has decided about one transaction, newest first, at most so many.
    async fn notary_requests_of(
        &self,
        identity: IdentityRow,
        id: &SecureHash,
        limit: u32,
    ) -> Result<Vec<(RequestPlace, LoggedRequest)>, StoreError> {
        Err(StoreError::NoLedgers)
    }

    /// What a notary has decided for ever about a transaction.
    async fn notary_outcome(&self, identity: IdentityRow, id: &SecureHash) -> Result<Option<Outcome>, StoreError> {
        Err(StoreError::NoLedgers)
    }

    /// Of these states those that a notary has committed as consumed, in their order here.
    async fn notary_consumed(
        &self,
        identity: IdentityRow,
        states: &[StateRef],
    ) -> Result<Vec<Consumption>, StoreError> {
        Err(StoreError::NoLedgers)
    }

    /// What a notary has done; `None` if the identity has never been one.
    async fn notary_counts(&self, identity: IdentityRow) -> Result<Option<NotaryCounts>, StoreError> {
        Err(StoreError::NoLedgers)
    }
}
