//! The audit trail: written and purged beside the committer, over connections of the pool, and read.

use async_trait::async_trait;
use maxhost_store::{AuditClass, AuditFilter, AuditPlace, AuditReader, AuditRow, StoreError};
use maxhost_store_sql::host::audit_row;
use sqlx::postgres::{PgConnection, PgRow};

use crate::error::failed;
use crate::open::PostgresStore;
use crate::persist::persist;

/// What the rows of a class are numbered by.
fn kind(class: AuditClass) -> &'static str {
    match class {
        AuditClass::Look => "audit-look",
        AuditClass::Change => "audit-change",
    }
}

impl PostgresStore {
    pub(crate) async fn append_audit_rows(&self, rows: &[AuditRow]) -> Result<(), StoreError> {
        persist!(self.append_audit_once(rows)).map_err(failed)
    }

    /// Once more it leads to the same: a row that is there already is left as it is.
    async fn append_audit_once(&self, rows: &[AuditRow]) -> Result<(), sqlx::Error> {
        let mut transaction = self.pool.begin().await?;
        // In one order on every host, so that no two wait for each other.
        for class in AuditClass::ALL {
            let rows: Vec<&AuditRow> = rows.iter().filter(|row| row.class == class).collect();
            if !rows.is_empty() {
                self.append_audit_class(&mut transaction, class, &rows).await?;
            }
        }
        transaction.commit().await
    }

    async fn append_audit_class(
        &self,
        conn: &mut PgConnection,
        class: AuditClass,
        rows: &[&AuditRow],
    ) -> Result<(), sqlx::Error> {
        let first: i64 =
            sqlx::query_scalar("UPDATE maxhost.number SET next = next + $2 WHERE kind = $1 RETURNING next - $2")
                .bind(kind(class))
                .bind(rows.len() as i64)
                .fetch_one(&mut *conn)
                .await?;
        let texts = |text: fn(&AuditRow) -> Option<&str>| rows.iter().map(|row| text(row)).collect::<Vec<_>>();
        sqlx::query(
            "INSERT INTO maxhost.audit (class, number, run, seq, lived, at, host, \"user\", action, identity, flow, \
             flow_id, detail, allowed, code, count, token) \
             SELECT $1::int2, $2 + u.place - 1, $3, u.seq, $4, u.at, u.host, u.who, u.action, u.identity, u.flow, \
             u.flow_id, u.detail, u.allowed, u.code, u.count, u.token FROM unnest($5::int8[], $6::int8[], $7::text[], $8::text[], \
             $9::text[], $10::text[], $11::text[], $12::text[], $13::text[], $14::bool[], $15::text[], $16::int8[], \
             $17::text[]) WITH ORDINALITY \
             u (seq, at, host, who, action, identity, flow, flow_id, detail, allowed, code, count, token, place) \
             ON CONFLICT (run, seq) DO NOTHING",
        )
        .bind(class as i64 as i16)
        .bind(first)
        .bind(self.run.0)
        .bind(self.lived.now())
        .bind(rows.iter().map(|row| row.seq).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.at).collect::<Vec<_>>())
        .bind(texts(|row| Some(&row.host)))
        .bind(texts(|row| Some(&row.user)))
        .bind(texts(|row| Some(&row.action)))
        .bind(texts(|row| row.identity.as_deref()))
        .bind(texts(|row| row.flow.as_deref()))
        .bind(texts(|row| row.flow_id.as_deref()))
        .bind(texts(|row| row.detail.as_deref()))
        .bind(rows.iter().map(|row| row.allowed).collect::<Vec<_>>())
        .bind(texts(|row| row.code.as_deref()))
        .bind(rows.iter().map(|row| row.count).collect::<Vec<_>>())
        .bind(texts(|row| row.token.as_deref()))
        .execute(conn)
        .await
        .map(drop)
    }

    /// Forgets up to `limit` rows of each class that are too old, or above the number that is kept.
    pub(crate) async fn forget_audit(
        &self,
        conn: &mut PgConnection,
        lived: i64,
        limit: i64,
    ) -> Result<u64, sqlx::Error> {
        let old = lived.saturating_sub(i64::try_from(self.audit.keep.as_millis()).unwrap_or(i64::MAX));
        let most = i64::try_from(self.audit.rows).unwrap_or(i64::MAX);
        let mut gone = 0;
        for class in AuditClass::ALL {
            let newest: Option<i64> =
                sqlx::query_scalar("SELECT max(number) FROM maxhost.audit WHERE class = $1::int2")
                    .bind(class as i64 as i16)
                    .fetch_one(&mut *conn)
                    .await?;
            let above = newest.unwrap_or(0).saturating_sub(most);
            gone += sqlx::query(
                "DELETE FROM maxhost.audit WHERE class = $1::int2 AND number IN (SELECT number FROM \
                 (SELECT number, lived FROM maxhost.audit WHERE class = $1::int2 ORDER BY number LIMIT $4) oldest \
                 WHERE lived <= $2 OR number <= $3)",
            )
            .bind(class as i64 as i16)
            .bind(old)
            .bind(above)
            .bind(limit)
            .execute(&mut *conn)
            .await?
            .rows_affected();
        }
        Ok(gone)
    }

    async fn read_audit(&self, filter: &AuditFilter) -> Result<Vec<PgRow>, sqlx::Error> {
        let (at, class, number) = filter.below();
        sqlx::query(
            "SELECT number, class::int8, at, seq, host, \"user\", action, identity, flow, flow_id, detail, allowed, code, \
             count, token FROM maxhost.audit WHERE (at, class, number) < ($1, $2, $3) AND at >= $4 \
             AND ($5::text IS NULL OR \"user\" = $5) AND ($6::text IS NULL OR identity = $6) \
             ORDER BY at DESC, class DESC, number DESC LIMIT $7",
        )
        .bind(at)
        .bind(class)
        .bind(number)
        .bind(filter.since.unwrap_or(i64::MIN))
        .bind(filter.user.as_deref())
        .bind(filter.identity.as_deref())
        .bind(i64::from(filter.limit))
        .fetch_all(&self.pool)
        .await
    }
}

#[async_trait]
impl AuditReader for PostgresStore {
    async fn audit(&self, filter: &AuditFilter) -> Result<Vec<(AuditPlace, AuditRow)>, StoreError> {
        let rows = persist!(self.read_audit(filter)).map_err(failed)?;
        rows.iter().map(audit_row).collect()
    }
}
