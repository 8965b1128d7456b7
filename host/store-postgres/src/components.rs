//! Code of CorDapps in the database.

use std::collections::HashSet;

use async_trait::async_trait;
use bytes::Bytes;
use maxhost_store::{ComponentHash, SharedComponents, StoreError};

use crate::error::failed;
use crate::open::PostgresStore;
use crate::persist::persist;

#[async_trait]
impl SharedComponents for PostgresStore {
    async fn use_components(&self, hashes: &[ComponentHash]) -> Result<HashSet<ComponentHash>, StoreError> {
        // In one order, so that no two hosts wait for each other.
        let sql = "WITH used AS (SELECT hash FROM maxhost.component WHERE hash = ANY($1) ORDER BY hash FOR UPDATE) \
                   UPDATE maxhost.component c SET used_at = now() FROM used WHERE c.hash = used.hash RETURNING c.hash";
        let found: Vec<Vec<u8>> =
            persist!(sqlx::query_scalar(sql).bind(named(hashes)).fetch_all(&self.pool)).map_err(failed)?;
        hashes_of(found)
    }

    async fn put_component(&self, hash: &ComponentHash, bytes: Bytes) -> Result<(), StoreError> {
        let sql = "INSERT INTO maxhost.component (hash, body) VALUES ($1, $2) \
                   ON CONFLICT (hash) DO UPDATE SET used_at = now()";
        persist!(sqlx::query(sql).bind(&hash[..]).bind(&bytes[..]).execute(&self.pool)).map_err(failed).map(drop)
    }

    async fn component(&self, hash: &ComponentHash) -> Result<Option<Bytes>, StoreError> {
        let sql = "SELECT body FROM maxhost.component WHERE hash = $1";
        let found: Option<Vec<u8>> =
            persist!(sqlx::query_scalar(sql).bind(&hash[..]).fetch_optional(&self.pool)).map_err(failed)?;
        Ok(found.map(Bytes::from))
    }

    async fn unused_components(&self, newest: u32) -> Result<Vec<ComponentHash>, StoreError> {
        let sql = "SELECT hash FROM maxhost.component WHERE used_at < now() - interval '1 day' \
                   ORDER BY used_at DESC, hash OFFSET $1";
        let found: Vec<Vec<u8>> =
            persist!(sqlx::query_scalar(sql).bind(i64::from(newest)).fetch_all(&self.pool)).map_err(failed)?;
        hashes_of(found)
    }

    async fn remove_components(&self, hashes: &[ComponentHash]) -> Result<u64, StoreError> {
        let sql = "DELETE FROM maxhost.component WHERE hash = ANY($1) AND used_at < now() - interval '1 day'";
        let removed = persist!(sqlx::query(sql).bind(named(hashes)).execute(&self.pool)).map_err(failed)?;
        Ok(removed.rows_affected())
    }
}

fn named(hashes: &[ComponentHash]) -> Vec<&[u8]> {
    hashes.iter().map(|hash| &hash[..]).collect()
}

fn hashes_of<C: FromIterator<ComponentHash>>(rows: Vec<Vec<u8>>) -> Result<C, StoreError> {
    let hash = |row: Vec<u8>| {
        let key = format!("a hash of {} bytes", row.len());
        row.try_into().map_err(|_| StoreError::Corrupt { table: "component", key })
    };
    rows.into_iter().map(hash).collect()
}
