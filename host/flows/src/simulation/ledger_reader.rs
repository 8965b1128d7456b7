//! What can be read of the ledgers of a simulated database: all that the platform's flows ask for.

use std::collections::BTreeSet;

use async_trait::async_trait;
use bytes::Bytes;
use maxhost_ledger::tx::StateRef;
use maxhost_ledger::vault::recording::TransactionStatus;
use maxhost_model::{IdentityRow, SecureHash};
use maxhost_store::StoreError;
use maxhost_store::ledger::{Attachment, KnownKey, LedgerReader, LedgerTransaction, Settlement, Unsettled};

use super::database::Database;

#[async_trait]
impl LedgerReader for Database {
    fn keeps_ledgers(&self) -> bool {
        true
    }

    async fn ledger_transaction(
        &self,
        identity: IdentityRow,
        id: &SecureHash,
    ) -> Result<Option<LedgerTransaction>, StoreError> {
        let key = (identity, *id);
        self.read(|tables| tables.ledger.transactions.rows.get(&key).map(|row| row.transaction(*id))).await
    }

    async fn unsettled(&self, identity: IdentityRow, limit: u32) -> Result<Vec<Unsettled>, StoreError> {
        let found = self.read(|tables| {
            let mut found = Vec::new();
            for (id, row) in tables.ledger.transactions_of(identity) {
                let is_settled = row.settlement.is_some_and(|by| tables.live.rows.contains_key(&by.flow));
                if row.status == TransactionStatus::InFlight && !is_settled {
                    found.push((id, row.settlement));
                }
            }
            found
        });
        let known = |(id, settlement): (SecureHash, Option<Settlement>)| match settlement {
            Some(Settlement { part, states, .. }) => Ok(Unsettled { id, part, states }),
            None => Err(StoreError::Corrupt { table: "ledger_tx", key: "how it is settled".to_owned() }),
        };
        found.await?.into_iter().take(limit as usize).map(known).collect()
    }

    async fn ledger_statuses(
        &self,
        identity: IdentityRow,
        ids: &[SecureHash],
    ) -> Result<Vec<(SecureHash, TransactionStatus)>, StoreError> {
        self.read(|tables| {
            let status = |id: &SecureHash| Some((*id, tables.ledger.transactions.rows.get(&(identity, *id))?.status));
            ids.iter().filter_map(status).collect()
        })
        .await
    }

    async fn ledger_bodies(
        &self,
        identity: IdentityRow,
        ids: &[SecureHash],
        bytes: usize,
    ) -> Result<Vec<LedgerTransaction>, StoreError> {
        self.read(|tables| {
            let mut total = 0;
            let mut bodies = Vec::new();
            for id in ids {
                let Some(row) = tables.ledger.transactions.rows.get(&(identity, *id)) else { continue };
                total += row.body.len() + row.signatures.len();
                if total > bytes && !bodies.is_empty() {
                    break;
                }
                bodies.push(row.transaction(*id));
            }
            bodies
        })
        .await
    }

    async fn ledger_ancestors(
        &self,
        identity: IdentityRow,
        of: &[SecureHash],
        limit: u32,
    ) -> Result<Vec<SecureHash>, StoreError> {
        self.read(|tables| tables.ledger.ancestors(identity, of, limit as usize)).await
    }

    async fn parents_of(&self, identity: IdentityRow, ids: &[SecureHash]) -> Result<Vec<SecureHash>, StoreError> {
        self.read(|tables| {
            let rows = ids.iter().filter_map(|id| tables.ledger.transactions.rows.get(&(identity, *id)));
            let parents: BTreeSet<SecureHash> = rows.flat_map(|row| row.parents.iter().copied()).collect();
            parents.into_iter().collect()
        })
        .await
    }

    async fn spent_by(
        &self,
        identity: IdentityRow,
        states: &[StateRef],
    ) -> Result<Vec<(StateRef, SecureHash)>, StoreError> {
        self.read(|tables| {
            let spent = |state: &StateRef| Some((*state, *tables.ledger.spent.rows.get(&(identity, *state))?));
            states.iter().filter_map(spent).collect()
        })
        .await
    }

    async fn attachment(&self, _identity: IdentityRow, _id: &SecureHash) -> Result<Option<Attachment>, StoreError> {
        // All contract code is installed, and none comes from peers.
        Ok(None)
    }

    async fn kept_parameters(&self, identity: IdentityRow, hash: &SecureHash) -> Result<Option<Bytes>, StoreError> {
        let key = (identity, *hash);
        self.read(|tables| tables.ledger.parameters.rows.get(&key).cloned()).await
    }

    async fn key_external_ids(
        &self,
        _identity: IdentityRow,
        _fingerprints: &[SecureHash],
    ) -> Result<Vec<(SecureHash, String)>, StoreError> {
        // No simulated flow asks for a key with an external id.
        Ok(Vec::new())
    }

    async fn known_keys(
        &self,
        identity: IdentityRow,
        fingerprints: &[SecureHash],
    ) -> Result<Vec<KnownKey>, StoreError> {
        self.read(|tables| {
            let known = |print: &SecureHash| tables.ledger.keys.rows.get(&(identity, *print)).cloned();
            fingerprints.iter().filter_map(known).collect()
        })
        .await
    }
}
