//! The file: its schema, and reading messages from it.

use std::path::Path;

use bytes::Bytes;
use maxhost_group_commit::{Fault, FaultKind};
use maxhost_sqlite::{SqliteError, Tuning, open_writer};
use parking_lot::Mutex;
use rusqlite::{Connection, params};
use tokio::sync::Semaphore;

use crate::delivery::{Delivery, Message, MessageId, Tag};
use crate::embedded::queues::Queues;
use crate::error::{BrokerError, Permanent};
use crate::queue_name::QueueName;

const VERSION: i64 = 1;
/// Marks a file as ours ("MaxQ").
const APPLICATION_ID: i64 = 0x4d61_7851;

/// Messages lie in the order they came, whichever queue they are in, so that sending appends; the index leads each
/// queue through them and is what is read when the broker starts.
const SCHEMA: &str = "
    CREATE TABLE queue (
        id   INTEGER PRIMARY KEY,
        name TEXT NOT NULL UNIQUE
    );
    CREATE TABLE message (
        seq   INTEGER PRIMARY KEY,
        queue INTEGER NOT NULL,
        id    BLOB NOT NULL,
        body  BLOB NOT NULL
    );
    CREATE INDEX message_queue ON message (queue, seq);
";

/// Opens (or makes) the file for writing.
pub(super) fn prepare(path: &Path, tuning: &Tuning) -> Result<Connection, BrokerError> {
    let of_file = |fault: Fault| super::fault_of_file(path, fault);
    let sql = |error: rusqlite::Error| of_file(SqliteError::from(error).into());
    let mut conn = open_writer(path, tuning).map_err(of_file)?;
    let number = |conn: &Connection, sql: &str| conn.query_row(sql, [], |row| row.get::<_, i64>(0));
    let tables = number(&conn, "SELECT count(*) FROM sqlite_schema").map_err(sql)?;
    if tables > 0 && number(&conn, "PRAGMA application_id").map_err(sql)? != APPLICATION_ID {
        return Err(of_file(Fault::new(FaultKind::NotADatabase, "it is the database of another program")));
    }
    if tables == 0 {
        let tx = conn.transaction().map_err(sql)?;
        tx.execute_batch(SCHEMA).map_err(sql)?;
        tx.pragma_update(None, "application_id", APPLICATION_ID).map_err(sql)?;
        tx.pragma_update(None, "user_version", VERSION).map_err(sql)?;
        tx.commit().map_err(sql)?;
    }
    let found = number(&conn, "PRAGMA user_version").map_err(sql)?;
    if found != VERSION {
        return Err(Permanent::Incompatible { path: path.to_owned(), found, supported: VERSION }.into());
    }
    Ok(conn)
}

/// The queues and how much is in each, and the number of the newest message of all.
pub(super) fn load(conn: &Connection) -> Result<(Queues, i64), SqliteError> {
    let mut queues = Queues::new();
    let newest = conn.query_row("SELECT coalesce(max(seq), 0) FROM message", [], |row| row.get(0))?;
    let mut rows = conn.prepare(
        "SELECT queue.id, queue.name, coalesce(held.n, 0), coalesce(held.newest, 0), coalesce(held.bytes, 0) \
         FROM queue LEFT JOIN (SELECT queue, count(*) AS n, max(seq) AS newest, sum(length(body)) AS bytes \
         FROM message GROUP BY queue) AS held ON held.queue = queue.id",
    )?;
    let mut rows = rows.query([])?;
    while let Some(row) = rows.next()? {
        let (id, name, newest): (i64, String, i64) = (row.get(0)?, row.get(1)?, row.get(3)?);
        let number = |index| row.get(index).map(|n: i64| u64::try_from(n).unwrap_or(0));
        let (depth, bodies): (u64, u64) = (number(2)?, number(4)?);
        match name.parse::<QueueName>() {
            Ok(name) => queues.load(id, &name, depth, newest, bodies + depth * Message::OVERHEAD as u64),
            // Version 0.1.0 named queues after identities. Nobody asks for those any more.
            Err(_) => {
                tracing::warn!(queue = ?name, messages = depth, "a queue of an older version is left alone");
                queues.leave_alone(id);
            }
        }
    }
    Ok((queues, newest))
}

/// Messages for consumers, through a connection that only reads.
pub(super) struct Messages {
    conn: Mutex<Connection>,
    /// One reader at a time has a thread to block; the others wait without one.
    pub(super) turn: Semaphore,
}

impl Messages {
    pub(super) fn new(conn: Connection) -> Messages {
        Messages { conn: Mutex::new(conn), turn: Semaphore::new(1) }
    }

    /// The number of the oldest message of all queues that are known. Blocks: not for a runtime's thread.
    pub(super) fn oldest(&self, queues: &Queues) -> Result<Option<i64>, SqliteError> {
        let conn = self.conn.lock();
        let mut sql = conn.prepare_cached("SELECT seq, queue FROM message ORDER BY seq")?;
        let mut rows = sql.query([])?;
        while let Some(row) = rows.next()? {
            if queues.is_known(row.get(1)?) {
                return Ok(Some(row.get(0)?));
            }
        }
        Ok(None)
    }

    /// The next messages of a queue after `after`, oldest first: at most `count`, and none that would follow after
    /// `bytes` bytes. Blocks: not for a runtime's thread.
    pub(super) fn read(
        &self,
        queue: i64,
        after: i64,
        count: usize,
        bytes: usize,
    ) -> Result<Vec<Delivery>, SqliteError> {
        let conn = self.conn.lock();
        let mut sql = conn
            .prepare_cached("SELECT seq, id, body FROM message WHERE queue = ?1 AND seq > ?2 ORDER BY seq LIMIT ?3")?;
        let mut rows = sql.query(params![queue, after, i64::try_from(count).unwrap_or(i64::MAX)])?;
        let (mut found, mut total) = (Vec::new(), 0);
        while total < bytes.max(1)
            && let Some(row) = rows.next()?
        {
            let seq: i64 = row.get(0)?;
            let body: Vec<u8> = row.get(2)?;
            total += body.len();
            let tag = Tag(u64::try_from(seq).unwrap_or(0));
            found.push(Delivery { tag, message: Message { id: MessageId(row.get(1)?), body: Bytes::from(body) } });
        }
        Ok(found)
    }
}
