//! A look at a database from outside, whether hosts use it at the moment or not; and its migration without a host.

use std::time::Duration;

use futures::future::BoxFuture;
use maxhost_store::StoreError;
use sqlx::Connection;
use sqlx::postgres::PgConnection;

use crate::clock::HostClock;
use crate::durability;
use crate::error::of_server;
use crate::ledger::tables;
use crate::numbers::COUNT_BITS;
use crate::options::{Layout, PostgresOptions};
use crate::schema;

/// Connections of one host: readers, the one that commits, and the one that asks whether the server answers.
const CONNECTIONS: i64 = 8;

/// Ledgers between two lines of progress.
const SAY_EVERY: usize = 100;

/// What a look at a database showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Examination {
    /// Version of its schema; 0 if there is none. A host migrates an older one when it starts.
    pub version: i64,
    /// Identities that were ever registered.
    pub identities: u64,
    /// Flows that have not ended.
    pub live: u64,
    /// Those of them that are in hospital.
    pub hospital: u64,
    /// The server, as it calls itself.
    pub server: String,
    /// What a host could not do, or what would lose what it has committed: each a sentence for people.
    pub trouble: Vec<String>,
}

/// Looks at a database without changing it.
///
/// # Errors
/// [`StoreError::Unreachable`], [`StoreError::Denied`], [`StoreError::Incompatible`].
pub fn examine(options: &PostgresOptions, time: Duration) -> BoxFuture<'_, Result<Examination, StoreError>> {
    Box::pin(async move {
        let place = options.place();
        let options = PostgresOptions { patience: time, ..options.clone() };
        let mut conn = schema::connect(&options).await?;
        let version = schema::version(&mut conn, &place).await?;
        let of = |error| of_server(&place, error);
        let mut found = look(&mut conn, version, options.layout).await.map_err(of)?;
        found.version = version;
        match HostClock::new(place.clone(), options.max_clock_offset).look(&mut conn).await {
            Err(error @ StoreError::ClockOff { .. }) => found.trouble.push(error.to_string()),
            looked => looked?,
        }
        conn.close().await.map_err(of)?;
        Ok(found)
    })
}

/// Brings the schema of a database up to date, and after it the ledgers that lie in schemas of their own, one after the
/// other: broken off, it goes on from there. Gives the version before and after.
///
/// # Errors
/// As [`examine`].
pub fn migrate(options: &PostgresOptions) -> BoxFuture<'_, Result<(i64, i64), StoreError>> {
    Box::pin(async move {
        let place = options.place();
        let mut conn = schema::connect(options).await?;
        let before = schema::version(&mut conn, &place).await?;
        schema::migrate(options, &mut conn).await?;
        bring_up_ledgers(&mut conn).await.map_err(|error| of_server(&place, error))?;
        let after = schema::version(&mut conn, &place).await?;
        conn.close().await.map_err(|error| of_server(&place, error))?;
        Ok((before, after))
    })
}

async fn bring_up_ledgers(conn: &mut PgConnection) -> Result<(), sqlx::Error> {
    let outdated = tables::outdated(conn, None).await?;
    for (done, identity) in outdated.iter().enumerate() {
        if done % SAY_EVERY == 0 {
            tracing::info!(done, of = outdated.len(), "ledgers are brought up to date");
        }
        tables::bring_up(conn, *identity).await?;
    }
    Ok(())
}

/// Begins a new incarnation of a database that was put back to an earlier moment: numbers that were given out since
/// then are never given out again. No host may use the database meanwhile. Gives the number of the incarnation.
///
/// # Errors
/// As [`examine`]; [`StoreError::Denied`] if there were 2,047 incarnations already.
pub fn begin_incarnation(options: &PostgresOptions) -> BoxFuture<'_, Result<i32, StoreError>> {
    Box::pin(async move {
        let place = options.place();
        let of = |error| of_server(&place, error);
        let mut conn = schema::connect(options).await?;
        schema::migrate(options, &mut conn).await?;
        let incarnation: i32 = sqlx::query_scalar(
            "WITH d AS (UPDATE maxhost.database SET incarnation = incarnation + 1 RETURNING incarnation), \
             n AS (UPDATE maxhost.number SET next = (d.incarnation::int8 << $1) + 1 FROM d \
             WHERE kind IN ('flow', 'initiation')) \
             SELECT incarnation FROM d",
        )
        .bind(COUNT_BITS.cast_signed())
        .fetch_one(&mut conn)
        .await
        .map_err(of)?;
        conn.close().await.map_err(of)?;
        Ok(incarnation)
    })
}

async fn look(conn: &mut PgConnection, version: i64, layout: Layout) -> Result<Examination, sqlx::Error> {
    let (server, standby): (String, bool) =
        sqlx::query_as("SELECT current_setting('server_version'), pg_is_in_recovery()").fetch_one(&mut *conn).await?;
    let mut trouble = Vec::new();
    if standby {
        trouble.push("the server is a standby: it cannot be written to".to_owned());
    }
    trouble.extend(durability::risks(conn).await?);
    let (free, may_make): (i64, bool) = sqlx::query_as(
        "SELECT current_setting('max_connections')::int8 - (SELECT count(*) FROM pg_stat_activity \
         WHERE backend_type = 'client backend' AND application_name <> 'maxhost'), \
         has_database_privilege(current_database(), 'CREATE')",
    )
    .fetch_one(&mut *conn)
    .await?;
    if free < CONNECTIONS {
        trouble
            .push(format!("{free} connections are free, and a host needs up to {CONNECTIONS}: raise max_connections"));
    }
    if !may_make && (version < schema::SCHEMA_VERSION || layout == Layout::Schemas) {
        let text = "the role may not make schemas: grant it CREATE on the database, or run `maxhost db migrate` as \
                    another role and use store.layout = \"shared\"";
        trouble.push(text.to_owned());
    }
    if version == 0 {
        return Ok(Examination { version, identities: 0, live: 0, hospital: 0, server, trouble });
    }
    let missing: Vec<String> = sqlx::query_scalar(
        "SELECT relname::text FROM pg_class WHERE relnamespace = to_regnamespace('maxhost') AND relkind = 'r' \
         AND relname <> 'migration' AND NOT (has_table_privilege(oid, 'SELECT') AND has_table_privilege(oid, 'INSERT') \
         AND has_table_privilege(oid, 'UPDATE') AND has_table_privilege(oid, 'DELETE')) ORDER BY relname",
    )
    .fetch_all(&mut *conn)
    .await?;
    if !missing.is_empty() {
        trouble.push(format!("the role may not read and write the tables {}", missing.join(", ")));
        return Ok(Examination { version, identities: 0, live: 0, hospital: 0, server, trouble });
    }
    let (identities, live, hospital): (i64, i64, i64) = sqlx::query_as(
        "SELECT (SELECT count(*) FROM maxhost.identity), count(*), count(*) FILTER (WHERE state = 2) FROM maxhost.flow",
    )
    .fetch_one(conn)
    .await?;
    Ok(Examination {
        version,
        identities: identities.unsigned_abs(),
        live: live.unsigned_abs(),
        hospital: hospital.unsigned_abs(),
        server,
        trouble,
    })
}
