//! What waits in the file when it is opened.

use maxhost_model::{FlowRow, IdentityRow};
use maxhost_sqlite::SqliteError;
use maxhost_store::{Backlog, Quotas};
use rusqlite::{Connection, Row};

/// Counts what waits, from the tables.
pub(super) fn load_backlog(conn: &Connection, quotas: Quotas) -> Result<Backlog, SqliteError> {
    let mut backlog = Backlog::new(quotas);
    let mut count = |sql: &str, load: &mut dyn FnMut(&mut Backlog, &Row<'_>) -> rusqlite::Result<()>| {
        let mut statement = conn.prepare(sql)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            load(&mut backlog, row)?;
        }
        Ok::<(), rusqlite::Error>(())
    };
    let number = |row: &Row<'_>, index: usize| row.get::<_, i64>(index).map(i64::unsigned_abs);
    for table in ["initiation", "late_confirm"] {
        let sql = format!("SELECT identity, count(*), sum(length(body)) FROM {table} GROUP BY identity");
        count(&sql, &mut |backlog, row| {
            backlog.load_initiations(IdentityRow(row.get(0)?), number(row, 1)?, number(row, 2)?);
            Ok(())
        })?;
    }
    count("SELECT identity, count(*), sum(length(body)) FROM outbox GROUP BY identity", &mut |backlog, row| {
        backlog.load_outbox(IdentityRow(row.get(0)?), number(row, 1)?, number(row, 2)?);
        Ok(())
    })?;
    let flows = "SELECT id, identity, waiting_messages, waiting_bytes FROM flow WHERE waiting_messages > 0";
    count(flows, &mut |backlog, row| {
        let (flow, identity) = (FlowRow(row.get(0)?), IdentityRow(row.get(1)?));
        backlog.load_flow(identity, flow, number(row, 2)?, number(row, 3)?);
        Ok(())
    })?;
    let holders = "SELECT DISTINCT lock_flow FROM vault_state WHERE lock_flow IS NOT NULL";
    count(holders, &mut |backlog, row| {
        backlog.load_holder(FlowRow(row.get(0)?));
        Ok(())
    })?;
    Ok(backlog)
}
