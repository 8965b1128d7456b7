//! Ledgers: each is in the database of its identity.

use async_trait::async_trait;
use maxhost_ledger::time::Timestamp;
use maxhost_ledger::tx::StateRef;
use maxhost_ledger::vault::recording::TransactionStatus;
use maxhost_model::{IdentityRow, SecureHash};
use maxhost_store::ledger::query::{FieldRanges, PageRequest};
use maxhost_store::ledger::{
    Attachment, HeldLock, KnownKey, LedgerTransaction, ListTransactions, NotaryCounts, Part, StoredState,
    VaultChangeRow, VaultRow,
};
use maxhost_store::{LedgerReader, StoreError};

use super::SeveralDatabases;

/// Reads of an identity's ledger, sent to its database.
macro_rules! ledger_reader {
    ($($read:ident($($argument:ident: $kind:ty),*) -> $found:ty;)*) => {
        #[async_trait]
        impl LedgerReader for SeveralDatabases {
            fn keeps_ledgers(&self) -> bool {
                true
            }

            $(async fn $read(&self, identity: IdentityRow, $($argument: $kind),*) -> Result<$found, StoreError> {
                self.of(identity).$read(identity, $($argument),*).await
            })*
        }
    };
}

ledger_reader! {
    ledger_transaction(id: &SecureHash) -> Option<LedgerTransaction>;
    ledger_transactions(list: &ListTransactions) -> Vec<LedgerTransaction>;
    unsettled(limit: u32) -> Vec<(SecureHash, Part)>;
    parents(id: &SecureHash) -> Vec<SecureHash>;
    ledger_statuses(ids: &[SecureHash]) -> Vec<(SecureHash, TransactionStatus)>;
    ledger_bodies(ids: &[SecureHash], bytes: usize) -> Vec<LedgerTransaction>;
    ledger_ancestors(of: &[SecureHash], limit: u32) -> Vec<SecureHash>;
    parents_of(ids: &[SecureHash]) -> Vec<SecureHash>;
    vault_states(states: &[StateRef]) -> Vec<StoredState>;
    spent_by(states: &[StateRef]) -> Vec<(StateRef, SecureHash)>;
    vault_candidates(request: &PageRequest<'_>) -> Vec<VaultRow>;
    count_of_field(field: &FieldRanges, most: u32) -> u32;
    newest_change() -> i64;
    vault_changes(after: i64, limit: u32, now: Timestamp) -> Vec<VaultChangeRow>;
    locks(after: Option<StateRef>, limit: u32, now: Timestamp) -> Vec<HeldLock>;
    attachment(id: &SecureHash) -> Option<Attachment>;
    attachments() -> Vec<SecureHash>;
    known_keys(fingerprints: &[SecureHash]) -> Vec<KnownKey>;
    notary_counts() -> Option<NotaryCounts>;
}
