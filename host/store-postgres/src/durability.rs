//! Whether what the server has confirmed is still there after a crash of the server, and after a standby has taken over.

use maxhost_store::StoreError;
use sqlx::postgres::PgConnection;

use crate::error::of_server;

/// What could lose commits that hosts were told of: each a sentence for people. Nothing for a single server that writes to
/// its disk.
///
/// The committer sets `synchronous_commit` itself, so that is not asked for. Standbys are those that are attached at this
/// moment; programs that copy the log or the database, and logical subscriptions, do not take over.
///
/// # Errors
/// The server does not answer.
pub(crate) async fn risks(conn: &mut PgConnection) -> Result<Vec<String>, sqlx::Error> {
    let (fsync, pages, synchronous, standbys): (String, String, String, i64) = sqlx::query_as(
        "SELECT current_setting('fsync'), current_setting('full_page_writes'), \
         current_setting('synchronous_standby_names'), \
         (SELECT count(*) FROM pg_stat_replication r \
          WHERE coalesce(r.state, 'streaming') IN ('streaming', 'catchup') \
          AND coalesce(r.application_name, '') NOT IN ('pg_basebackup', 'pg_receivewal') \
          AND NOT EXISTS (SELECT FROM pg_replication_slots s WHERE s.active_pid = r.pid AND s.slot_type = 'logical'))",
    )
    .fetch_one(conn)
    .await?;
    let mut risks = Vec::new();
    if fsync != "on" || pages != "on" {
        risks.push("fsync or full_page_writes is off: a power cut would lose or break what was committed".to_owned());
    }
    if standbys > 0 && synchronous.trim().is_empty() {
        let many = if standbys == 1 { "1 standby follows" } else { "standbys follow" };
        risks.push(format!(
            "{many} the server and no commit waits for it (synchronous_standby_names is empty): when it takes over, what \
             was committed last may be lost"
        ));
    }
    Ok(risks)
}

/// Refuses a server that could lose commits, unless that is allowed; then it is said in the log.
///
/// # Errors
/// [`StoreError::MayLose`]; [`StoreError::Unreachable`].
pub(crate) async fn check(conn: &mut PgConnection, place: &str, allow_loss: bool) -> Result<Vec<String>, StoreError> {
    let risks = risks(conn).await.map_err(|error| of_server(place, error))?;
    if risks.is_empty() {
        return Ok(risks);
    }
    let reason = risks.join("; ");
    if !allow_loss {
        return Err(StoreError::MayLose { place: place.to_owned(), reason });
    }
    tracing::warn!(
        database = place,
        reason,
        "the database may lose what was committed, and store.allow_loss allows it"
    );
    Ok(risks)
}

/// Says in the log what is new among the risks: `known` are those that were told already.
pub(crate) fn tell(place: &str, known: &[String], found: &[String]) {
    for reason in found.iter().filter(|reason| !known.contains(reason)) {
        tracing::error!(
            database = place,
            reason,
            "the database may lose what was committed since it was changed; no host starts on it like this without \
             store.allow_loss"
        );
    }
    if found.is_empty() && !known.is_empty() {
        tracing::info!(database = place, "the database keeps what is committed again");
    }
}
