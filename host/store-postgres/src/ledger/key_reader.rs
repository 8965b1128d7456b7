//! Reads of the external ids of keys. In a ledger of an older version, whose identity has not been claimed since, no key has one.

use maxhost_model::{IdentityRow, SecureHash};
use maxhost_store::StoreError;
use maxhost_store::ledger::KnownKey;
use maxhost_store_sql::ledger::{key_external_id, known_key};
use sqlx::postgres::PgArguments;

use crate::ledger::reader::{add, columns_of};
use crate::ledger::tables::KEY_IDS;
use crate::open::PostgresStore;

impl PostgresStore {
    pub(super) async fn read_key_external_ids(
        &self,
        identity: IdentityRow,
        fingerprints: &[SecureHash],
    ) -> Result<Vec<(SecureHash, String)>, StoreError> {
        let sql = "SELECT id, external_id FROM {place}.key_external_id WHERE identity = $1 AND id = ANY($2)";
        let rows = self.rows_since(KEY_IDS, identity, sql, values![identity.0, columns_of(fingerprints)]).await?;
        rows.iter().map(key_external_id).collect()
    }

    pub(super) async fn read_keys_of(
        &self,
        identity: IdentityRow,
        external_id: &str,
        after: Option<SecureHash>,
        limit: u32,
    ) -> Result<Vec<KnownKey>, StoreError> {
        let sql = "SELECT k.key, k.party, k.nonce, k.at FROM {place}.key_external_id e \
                   JOIN {place}.ledger_key k ON k.identity = e.identity AND k.id = e.id \
                   WHERE e.identity = $1 AND e.external_id = $2 AND e.id > $3 ORDER BY e.id LIMIT $4";
        let after = after.map_or_else(Vec::new, |id| id.as_bytes().to_vec());
        let values = values![identity.0, external_id.to_owned(), after, i64::from(limit)];
        self.rows_since(KEY_IDS, identity, sql, values).await?.iter().map(known_key).collect()
    }
}
