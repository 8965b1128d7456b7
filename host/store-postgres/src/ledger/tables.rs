//! The tables of a ledger in the schema of its identity: made when the ledger is first used, brought up to date when the
//! identity is claimed, or by `maxhost db migrate`.
//!
//! Each identity is a transaction of its own, whole or not at all, and its row tells how far it has come. So many of them
//! may be broken off at any point, and go on from there.

use maxhost_model::IdentityRow;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection};

use crate::ledger::place::Place;
use crate::options::Layout;

/// The migrations of ledgers by number, as they are run for the schema that is shared.
const MIGRATIONS: [(i64, &str); 8] = [
    (3, include_str!("../../migrations/0003_ledger.sql")),
    (KEYS, include_str!("../../migrations/0007_ledger_key.sql")),
    (8, include_str!("../../migrations/0008_reports.sql")),
    (PARAMETERS, include_str!("../../migrations/0009_network_parameters.sql")),
    (SHAPES, include_str!("../../migrations/0010_vault_order.sql")),
    (12, include_str!("../../migrations/0012_vault_linear.sql")),
    (16, include_str!("../../migrations/0016_states_to_record.sql")),
    (REQUESTS, include_str!("../../migrations/0018_log_and_key_ids.sql")),
];

/// The version from which on a ledger keeps keys of parties.
pub(crate) const KEYS: i64 = 7;

/// The version from which on a ledger keeps network parameters.
pub(crate) const PARAMETERS: i64 = 9;

/// The version from which on a ledger knows which fields the states of a type have.
pub(crate) const SHAPES: i64 = 10;

/// The version from which on the log of a notary has what was answered.
pub(crate) const REQUESTS: i64 = 18;

/// The version from which on keys have external ids.
pub(crate) const KEY_IDS: i64 = 18;

/// The newest version of a ledger's tables.
pub(crate) const NEWEST: i64 = MIGRATIONS[MIGRATIONS.len() - 1].0;

/// Makes the tables of an identity's ledger, or brings them up to date, in a transaction. Who does so at the same time
/// waits at the identity's row, and finds it done.
pub(crate) async fn bring_up(conn: &mut PgConnection, identity: IdentityRow) -> Result<(), sqlx::Error> {
    let mut transaction = conn.begin().await?;
    let version: i64 = sqlx::query_scalar("SELECT ledger FROM maxhost.identity WHERE id = $1 FOR NO KEY UPDATE")
        .bind(identity.0)
        .fetch_one(&mut *transaction)
        .await?;
    let schema = Place::of(Layout::Schemas, identity).to_string();
    for (number, text) in MIGRATIONS.iter().filter(|(number, _)| *number > version) {
        let sql = text.replace("maxhost.", &format!("{schema}."));
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *transaction).await?;
        sqlx::query("UPDATE maxhost.identity SET ledger = $2 WHERE id = $1")
            .bind(identity.0)
            .bind(*number)
            .execute(&mut *transaction)
            .await?;
    }
    transaction.commit().await
}

/// Of these identities those that have a ledger of an older version; of all, if none are named.
pub(crate) async fn outdated(
    conn: &mut PgConnection,
    identities: Option<&[i64]>,
) -> Result<Vec<IdentityRow>, sqlx::Error> {
    let sql = "SELECT id FROM maxhost.identity WHERE ledger > 0 AND ledger < $1 AND ($2::int8[] IS NULL OR id = ANY($2)) \
               ORDER BY id";
    let found: Vec<i64> = sqlx::query_scalar(sql).bind(NEWEST).bind(identities).fetch_all(conn).await?;
    Ok(found.into_iter().map(IdentityRow).collect())
}
