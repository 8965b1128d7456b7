//! Reading the audit trail.

use async_trait::async_trait;
use maxhost_store::{AuditClass, AuditFilter, AuditPlace, AuditReader, AuditRow, StoreError};
use sqlx::sqlite::SqliteRow;

use crate::SqliteStore;
use crate::columns::{column, corrupt};
use crate::reader::failed;

/// Above all places that there are.
const NEWEST: (i64, i64, i64) = (i64::MAX, i64::MAX, i64::MAX);

#[async_trait]
impl AuditReader for SqliteStore {
    async fn audit(&self, filter: &AuditFilter) -> Result<Vec<(AuditPlace, AuditRow)>, StoreError> {
        let sql = "SELECT number, class, at, seq, host, user, action, identity, flow, flow_id, detail, allowed, code, \
                   count, token FROM audit WHERE (at, class, number) < (?1, ?2, ?3) AND at >= ?4 \
                   AND (?5 IS NULL OR user = ?5) AND (?6 IS NULL OR identity = ?6) \
                   ORDER BY at DESC, class DESC, number DESC LIMIT ?7";
        let before = filter.before.map_or(NEWEST, |place| (place.at, place.class as i64, place.number));
        let query = sqlx::query(sql)
            .bind(before.0)
            .bind(before.1)
            .bind(before.2)
            .bind(filter.since.unwrap_or(i64::MIN))
            .bind(filter.user.as_deref())
            .bind(filter.identity.as_deref())
            .bind(filter.limit);
        let rows = query.fetch_all(self.pool()).await.map_err(failed)?;
        rows.iter().map(audit_row).collect()
    }
}

fn audit_row(row: &SqliteRow) -> Result<(AuditPlace, AuditRow), StoreError> {
    const TABLE: &str = "audit";
    let number = column(row, 0, TABLE)?;
    let class = AuditClass::of(column(row, 1, TABLE)?).ok_or_else(|| corrupt(TABLE, number))?;
    let at = column(row, 2, TABLE)?;
    let host: String = column(row, 4, TABLE)?;
    let read = AuditRow {
        seq: column(row, 3, TABLE)?,
        class,
        at,
        host: host.into(),
        user: column(row, 5, TABLE)?,
        action: column(row, 6, TABLE)?,
        identity: column(row, 7, TABLE)?,
        flow: column(row, 8, TABLE)?,
        flow_id: column(row, 9, TABLE)?,
        detail: column(row, 10, TABLE)?,
        allowed: column(row, 11, TABLE)?,
        code: column(row, 12, TABLE)?,
        count: column(row, 13, TABLE)?,
        token: column(row, 14, TABLE)?,
    };
    Ok((AuditPlace { at, class, number }, read))
}
