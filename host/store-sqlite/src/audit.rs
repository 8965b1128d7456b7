//! Reading the audit trail.

use async_trait::async_trait;
use maxhost_store::{AuditFilter, AuditPlace, AuditReader, AuditRow, StoreError};
use maxhost_store_sql::host::audit_row;

use crate::SqliteStore;
use crate::reader::failed;

#[async_trait]
impl AuditReader for SqliteStore {
    async fn audit(&self, filter: &AuditFilter) -> Result<Vec<(AuditPlace, AuditRow)>, StoreError> {
        let sql = "SELECT number, class, at, seq, host, user, action, identity, flow, flow_id, detail, allowed, code, \
                   count, token FROM audit WHERE (at, class, number) < (?1, ?2, ?3) AND at >= ?4 \
                   AND (?5 IS NULL OR user = ?5) AND (?6 IS NULL OR identity = ?6) \
                   ORDER BY at DESC, class DESC, number DESC LIMIT ?7";
        let (at, class, number) = filter.below();
        let query = sqlx::query(sql)
            .bind(at)
            .bind(class)
            .bind(number)
            .bind(filter.since.unwrap_or(i64::MIN))
            .bind(filter.user.as_deref())
            .bind(filter.identity.as_deref())
            .bind(filter.limit);
        let rows = query.fetch_all(self.pool()).await.map_err(failed)?;
        rows.iter().map(audit_row).collect()
    }
}
