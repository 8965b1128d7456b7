//! Ledgers: each is in the database of its identity.

use async_trait::async_trait;
use bytes::Bytes;
use maxhost_ledger::notary::Outcome;
use maxhost_ledger::time::Timestamp;
use maxhost_ledger::tx::StateRef;
use maxhost_ledger::vault::query::StatusFilter;
use maxhost_ledger::vault::recording::TransactionStatus;
use maxhost_model::{IdentityRow, SecureHash};
use maxhost_store::ledger::{
    Attachment, Consumption, Having, HeldLock, KeptAttachment, KnownKey, LedgerTransaction, ListAttachments,
    ListRequests, ListTransactions, LoggedRequest, NotaryCounts, PageRequest, RequestPage, RequestPlace, Slice,
    SqlValue, Unsettled, VaultChangeRow, VaultRow, VaultShape,
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

            async fn with_unsettled(&self, identities: &[IdentityRow]) -> Result<Vec<IdentityRow>, StoreError> {
                let mut found = Vec::new();
                for identity in identities {
                    found.extend(self.of(*identity).with_unsettled(&[*identity]).await?);
                }
                Ok(found)
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
    unsettled(limit: u32) -> Vec<Unsettled>;
    parents(id: &SecureHash) -> Vec<SecureHash>;
    ledger_statuses(ids: &[SecureHash]) -> Vec<(SecureHash, TransactionStatus)>;
    ledger_bodies(ids: &[SecureHash], bytes: usize) -> Vec<LedgerTransaction>;
    ledger_ancestors(of: &[SecureHash], limit: u32) -> Vec<SecureHash>;
    parents_of(ids: &[SecureHash]) -> Vec<SecureHash>;
    newest_linear(type_name: &str, linear_id: &str) -> Option<StateRef>;
    spent_by(states: &[StateRef]) -> Vec<(StateRef, SecureHash)>;
    vault_candidates(request: &PageRequest<'_>) -> Vec<VaultRow>;
    count_of(having: &Having, most: u32) -> u32;
    count_of_states(status: StatusFilter, types: Option<&[String]>, most: u32) -> u32;
    vault_key_at(slice: &Slice, place: u32) -> Option<SqlValue>;
    vault_shapes(limit: u32) -> Vec<VaultShape>;
    newest_change() -> i64;
    vault_changes(after: i64, limit: u32, now: Timestamp) -> Vec<VaultChangeRow>;
    locks(after: Option<StateRef>, limit: u32, now: Timestamp) -> Vec<HeldLock>;
    attachment(id: &SecureHash) -> Option<Attachment>;
    attachments(list: &ListAttachments) -> Vec<KeptAttachment>;
    kept_parameters(hash: &SecureHash) -> Option<Bytes>;
    known_keys(fingerprints: &[SecureHash]) -> Vec<KnownKey>;
    key_external_ids(fingerprints: &[SecureHash]) -> Vec<(SecureHash, String)>;
    keys_of_external_id(external_id: &str, after: Option<SecureHash>, limit: u32) -> Vec<KnownKey>;
    notary_requests(list: &ListRequests) -> RequestPage;
    notary_requests_of(id: &SecureHash, limit: u32) -> Vec<(RequestPlace, LoggedRequest)>;
    notary_outcome(id: &SecureHash) -> Option<Outcome>;
    notary_consumed(states: &[StateRef]) -> Vec<Consumption>;
    notary_counts() -> Option<NotaryCounts>;
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    /// The trait answers what is not sent on as a database without ledgers would.
    #[test]
    fn every_read_of_a_ledger_is_sent_to_its_database() {
        let named = |text: &'static str, before: &'static str| -> BTreeSet<&'static str> {
            let names = text.lines().filter_map(|line| line.trim_start().strip_prefix(before)?.split_once('('));
            names.map(|(name, _)| name).collect()
        };
        let declared = named(include_str!("../../../store/src/ledger/reader.rs"), "async fn ");
        let ours = include_str!("ledger.rs");
        let sent = ours.split_once("\nledger_reader! {\n").and_then(|(_, rest)| rest.split_once("\n}\n"));
        let mut sent = named(sent.map_or("", |(list, _)| list), "");
        // About several identities: each is asked about in its database.
        sent.insert("with_unsettled");
        assert!(declared.len() > 15, "{declared:?}");
        assert_eq!(declared, sent);
    }
}
