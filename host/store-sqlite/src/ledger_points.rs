//! What is looked up of ledgers by its keys, by a connection of [`crate::point_reads`]. The statements of the pool
//! ([`crate::ledger_reader`]) say the same of any number of rows.

use maxhost_ledger::tx::StateRef;
use maxhost_ledger::vault::recording::TransactionStatus;
use maxhost_model::{IdentityRow, SecureHash};
use maxhost_store::ledger::codec::{status_of, time};
use maxhost_store::ledger::{LedgerTransaction, TransactionKind};
use rusqlite::types::Type;
use rusqlite::{Connection, Error, OptionalExtension, Row, Transaction, params};

use crate::point_reads::MOST_BYTES;

/// A row, if it is not too large to be read beside the pool.
pub(crate) enum Point<T> {
    None,
    Small(T),
    Large,
}

/// What no column may say. The pool reads it again, and names the row.
fn damaged(column: usize) -> Error {
    Error::InvalidColumnType(column, String::new(), Type::Null)
}

fn status(row: &Row<'_>, column: usize) -> rusqlite::Result<TransactionStatus> {
    status_of(row.get(column)?).ok_or_else(|| damaged(column))
}

/// All rows are looked up as they are at one moment; of one row that needs nothing.
fn snapshot(conn: &Connection, rows: usize) -> rusqlite::Result<Option<Transaction<'_>>> {
    (rows > 1).then(|| conn.unchecked_transaction()).transpose()
}

/// A transaction with its body.
pub(crate) fn transaction(
    conn: &Connection,
    identity: IdentityRow,
    id: &SecureHash,
) -> rusqlite::Result<Point<LedgerTransaction>> {
    // What is too large is not read.
    let mut head = conn.prepare_cached(
        "SELECT t.number, t.status, t.kind, t.recorded, b.tx IS NULL OR length(b.body) <= ?3, t.signatures, \
         CASE WHEN length(b.body) <= ?3 THEN b.body END \
         FROM ledger_tx t LEFT JOIN ledger_body b ON b.tx = t.number WHERE t.identity = ?1 AND t.id = ?2",
    )?;
    let read = |row: &Row<'_>| {
        if !row.get::<_, bool>(4)? {
            return Ok(Point::Large);
        }
        Ok(Point::Small(LedgerTransaction {
            number: row.get(0)?,
            id: *id,
            status: status(row, 1)?,
            kind: TransactionKind::of(row.get(2)?).ok_or_else(|| damaged(2))?,
            recorded: time(row.get(3)?),
            signatures: row.get(5)?,
            body: row.get::<_, Option<Vec<u8>>>(6)?.map(Into::into),
        }))
    };
    let found = head.query_row(params![identity.0, id.as_bytes(), MOST_BYTES], read).optional()?;
    Ok(found.unwrap_or(Point::None))
}

/// How far those of these transactions have come that are known, in their order.
pub(crate) fn statuses(
    conn: &Connection,
    identity: IdentityRow,
    ids: &[SecureHash],
) -> rusqlite::Result<Vec<(SecureHash, TransactionStatus)>> {
    let _snapshot = snapshot(conn, ids.len())?;
    let mut one = conn.prepare_cached("SELECT status FROM ledger_tx WHERE identity = ?1 AND id = ?2")?;
    let mut found = Vec::with_capacity(ids.len());
    for id in ids {
        let known = one.query_row(params![identity.0, id.as_bytes()], |row| status(row, 0)).optional()?;
        found.extend(known.map(|status| (*id, status)));
    }
    Ok(found)
}

/// What has consumed those of these states that were consumed, in their order.
pub(crate) fn spent_by(
    conn: &Connection,
    identity: IdentityRow,
    states: &[StateRef],
) -> rusqlite::Result<Vec<(StateRef, SecureHash)>> {
    let _snapshot = snapshot(conn, states.len())?;
    let mut one = conn.prepare_cached(
        "SELECT coalesce((SELECT consumed_by FROM vault_state WHERE identity = ?1 AND tx = ?2 AND idx = ?3), \
         (SELECT consumed_by FROM ledger_spent WHERE identity = ?1 AND tx = ?2 AND idx = ?3))",
    )?;
    let mut found = Vec::new();
    for state in states {
        let row = params![identity.0, state.tx.as_bytes(), state.index];
        let by = one.query_row(row, |row| row.get::<_, Option<[u8; 32]>>(0))?;
        found.extend(by.map(|by| (*state, SecureHash::from_bytes(by))));
    }
    Ok(found)
}
