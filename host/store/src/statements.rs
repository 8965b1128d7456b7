//! The committer's statements, prepared once.

use rusqlite::{Connection, Statement};

macro_rules! statements {
    ($($name:ident = $sql:expr;)*) => {
        /// Kept for the life of the connection: preparing one costs more than running it.
        pub(crate) struct Statements<'c> { $(pub(crate) $name: Statement<'c>,)* }

        impl<'c> Statements<'c> {
            pub(crate) fn prepare(conn: &'c Connection) -> rusqlite::Result<Statements<'c>> {
                Ok(Statements { $($name: conn.prepare($sql)?,)* })
            }
        }
    };
}

statements! {
    data_version = "PRAGMA data_version";
    all_epochs = "SELECT id, epoch FROM identity";
    set_mark = "UPDATE meta SET value = ?2 WHERE key = ?1";

    add_identity = "INSERT OR IGNORE INTO identity (name) VALUES (?1)";
    find_identity = "SELECT id, epoch FROM identity WHERE name = ?1";
    raise_epoch = "UPDATE identity SET epoch = ?2 WHERE id = ?1 AND epoch <= ?2";

    start_flow = "INSERT INTO flow (id, identity, state, started, tag, name, user, client_id, start_body) \
                  VALUES (?1, ?2, 0, ?3, ?4, ?5, ?6, ?7, ?8)";
    add_client = "INSERT OR IGNORE INTO client (identity, client_id, flow, user) VALUES (?1, ?2, ?3, ?4)";
    find_client = "SELECT flow FROM client WHERE identity = ?1 AND client_id = ?2";
    remove_client = "DELETE FROM client WHERE identity = ?1 AND client_id = ?2";
    // Asked apart from the insert: an INSERT ... SELECT could fail halfway, so SQLite would copy each page it touches.
    is_own_live = "SELECT 1 FROM flow WHERE id = ?1 AND identity = ?2";
    is_live = "SELECT 1 FROM flow WHERE id = ?1";
    is_ended = "SELECT 1 FROM ended WHERE id = ?1";
    deliver = "INSERT OR IGNORE INTO journal (flow, seq, lane, body) VALUES (?1, ?2, ?3, ?4)";
    append = "INSERT INTO journal (flow, seq, lane, body) VALUES (?1, ?2, ?3, ?4)";
    initiate = "INSERT INTO initiation (identity, id, body) VALUES (?1, ?2, ?3)";
    is_initiation = "SELECT 1 FROM initiation WHERE identity = ?1 AND id = ?2";
    take_initiation = "DELETE FROM initiation WHERE identity = ?1 AND id = ?2";
    add_outbox = "INSERT INTO outbox (id, identity, destination, message_id, body) VALUES (?1, ?2, ?3, ?4, ?5)";
    remove_outbox = "DELETE FROM outbox WHERE id = ?1 AND identity = ?2";
    arrived = "INSERT OR IGNORE INTO processed (identity, message_id, at) VALUES (?1, ?2, ?3)";
    set_state = "UPDATE flow SET state = ?3, reason = ?4, attempts = ?5 \
                 WHERE id = ?1 AND identity = ?2";
    drop_flow = "DELETE FROM flow WHERE id = ?1 AND identity = ?2 \
                 RETURNING attempts, started, tag, name, user, client_id, start_body";
    keep_end = "INSERT INTO ended (id, identity, state, attempts, started, finished, expires, tag, name, user, \
                client_id, start_body, end_body) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)";
    drop_ended = "DELETE FROM ended WHERE id = ?1 AND identity = ?2";
    drop_journal = "DELETE FROM journal WHERE flow = ?1";
    expire = "DELETE FROM ended WHERE id IN (SELECT id FROM ended WHERE expires <= ?1 ORDER BY expires LIMIT ?2) \
              RETURNING identity, client_id";
    forget_processed = "DELETE FROM processed WHERE (identity, message_id) IN \
                        (SELECT identity, message_id FROM processed WHERE at <= ?1 LIMIT ?2)";
}
