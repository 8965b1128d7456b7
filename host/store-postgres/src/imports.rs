//! Attachments that clients import: kept beside the committer, over a connection of the pool.

use maxhost_ledger::time::Timestamp;
use maxhost_model::{IdentityRow, SecureHash};
use maxhost_store::ledger::query::integer;
use maxhost_store::ledger::{IMPORTED_BY, ImportBounds, Imported, Imports, NewAttachment};
use maxhost_store::{Conflict, StoreError};
use sqlx::{AssertSqlSafe, PgConnection};

use crate::error::failed;
use crate::ledger::place::Place;
use crate::ledger::tables;
use crate::open::PostgresStore;
use crate::options::Layout;
use crate::persist::persist;

/// What one try has come to.
enum Tried {
    Decided(Imported),
    Refused(Conflict),
    /// The identity has no tables for a ledger yet.
    NoTables,
}

impl PostgresStore {
    /// An import that is asked for again because its answer was lost finds it there.
    pub(crate) async fn keep_import(
        &self,
        identity: IdentityRow,
        attachment: &NewAttachment,
        bounds: ImportBounds,
    ) -> Result<Imported, StoreError> {
        let import = || self.keep_import_once(identity, attachment, bounds);
        let mut tried = persist!(import()).map_err(failed)?;
        if matches!(tried, Tried::NoTables) {
            persist!(self.make_tables(identity)).map_err(failed)?;
            tried = persist!(import()).map_err(failed)?;
        }
        match tried {
            Tried::Decided(imported) => Ok(imported),
            Tried::Refused(conflict) => Err(conflict.into()),
            Tried::NoTables => {
                let key = format!("identity {}: its ledger was just made", identity.0);
                Err(StoreError::Corrupt { table: "identity", key })
            }
        }
    }

    async fn make_tables(&self, identity: IdentityRow) -> Result<(), sqlx::Error> {
        let mut conn = self.pool.acquire().await?;
        tables::bring_up(&mut conn, identity).await
    }

    async fn keep_import_once(
        &self,
        identity: IdentityRow,
        attachment: &NewAttachment,
        bounds: ImportBounds,
    ) -> Result<Tried, sqlx::Error> {
        let mut transaction = self.pool.begin().await?;
        // The row is locked, so that the identity does not move meanwhile, and imports of two hosts are counted in turn.
        let found: Option<(Option<String>, i64)> =
            sqlx::query_as("SELECT moved_to, ledger FROM maxhost.identity WHERE id = $1 FOR NO KEY UPDATE")
                .bind(identity.0)
                .fetch_optional(&mut *transaction)
                .await?;
        match found {
            None => return Ok(Tried::Refused(Conflict::IdentityUnknown(identity))),
            Some((Some(_), _)) => return Ok(Tried::Refused(Conflict::IdentityMoved(identity))),
            Some((None, 0)) if self.layout == Layout::Schemas => return Ok(Tried::NoTables),
            Some((None, _)) => {}
        }
        let place = Place::of(self.layout, identity);
        let imports = imports(&mut transaction, place, identity, &attachment.id).await?;
        let decided = imports.decide(attachment.body.len() as u64, bounds);
        if decided == Imported::New {
            let NewAttachment { id, body, uploader, at } = attachment;
            add(&mut transaction, place, identity, (id, uploader, *at, body)).await?;
            transaction.commit().await?;
        }
        Ok(Tried::Decided(decided))
    }
}

async fn imports(
    conn: &mut PgConnection,
    place: Place,
    identity: IdentityRow,
    id: &SecureHash,
) -> Result<Imports, sqlx::Error> {
    let sql = format!(
        "SELECT EXISTS (SELECT FROM {place}.attachment WHERE identity = $1 AND id = $2), count(*), \
         coalesce(sum(octet_length(body)), 0)::int8 FROM {place}.attachment \
         WHERE identity = $1 AND starts_with(uploader, $3)"
    );
    let query = sqlx::query_as::<_, (bool, i64, i64)>(AssertSqlSafe(sql));
    let (has, attachments, bytes) =
        query.bind(identity.0).bind(&id.as_bytes()[..]).bind(IMPORTED_BY).fetch_one(conn).await?;
    Ok(Imports { has, attachments: attachments.unsigned_abs(), bytes: bytes.unsigned_abs() })
}

async fn add(
    conn: &mut PgConnection,
    place: Place,
    identity: IdentityRow,
    (id, uploader, at, body): (&SecureHash, &str, Timestamp, &[u8]),
) -> Result<(), sqlx::Error> {
    let sql = format!(
        "INSERT INTO {place}.attachment (identity, id, uploader, at, body) VALUES ($1, $2, $3, $4, $5) \
         ON CONFLICT DO NOTHING"
    );
    let query = sqlx::query(AssertSqlSafe(sql)).bind(identity.0).bind(&id.as_bytes()[..]).bind(uploader);
    query.bind(integer(at)).bind(body).execute(conn).await.map(drop)
}
