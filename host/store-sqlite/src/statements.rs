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
    all_claims = "SELECT id, generation, epoch, owner FROM identity";
    set_meta = "UPDATE meta SET value = ?2 WHERE key = ?1";

    add_identity = "INSERT OR IGNORE INTO identity (name) VALUES (?1)";
    find_identity = "SELECT id, generation, epoch, owner FROM identity WHERE name = ?1";
    identity = "SELECT id, name, generation, epoch, owner, wake_at, unclean, moved_to, key_fp FROM identity WHERE id = ?1";
    set_claim = "UPDATE identity SET generation = ?2, epoch = ?3, owner = ?4, wake_at = NULL, unclean = unclean + 1, \
                 key_fp = coalesce(key_fp, ?5) WHERE id = ?1";
    set_unclean = "UPDATE identity SET unclean = ?2 WHERE id = ?1";
    release = "UPDATE identity SET owner = NULL, unclean = 0, wake_at = ?2 WHERE id = ?1";
    left_behind = "SELECT EXISTS (SELECT 1 FROM initiation WHERE identity = ?1) \
                   OR EXISTS (SELECT 1 FROM late_confirm WHERE identity = ?1), \
                   EXISTS (SELECT 1 FROM outbox WHERE identity = ?1)";

    start_flow = "INSERT INTO flow (id, identity, state, started, tag, name, user, client_id, start_body) \
                  VALUES (?1, ?2, 0, ?3, ?4, ?5, ?6, ?7, ?8)";
    // Asked apart from the insert: an INSERT ... SELECT could fail halfway, so SQLite would copy each page it touches.
    live_flow = "SELECT identity FROM flow WHERE id = ?1";
    is_ended = "SELECT 1 FROM ended WHERE id = ?1";
    add_message = "INSERT OR IGNORE INTO journal (flow, seq, stream, body) VALUES (?1, ?2, ?3, ?4)";
    add_segment = "INSERT INTO journal (flow, seq, stream, body) VALUES (?1, ?2, ?3, ?4)";
    version = "SELECT (SELECT seq FROM journal WHERE flow = ?1 AND stream = -1 ORDER BY seq DESC LIMIT 1), revision \
               FROM flow WHERE id = ?1";
    set_state = "UPDATE flow SET state = ?2, reason = ?3, attempts = ?4, revision = revision + 1 WHERE id = ?1";
    set_revision = "UPDATE flow SET revision = ?2 WHERE id = ?1";
    note_waiting = "UPDATE flow SET waiting_messages = ?2, waiting_bytes = ?3 WHERE id = ?1";
    drop_flow = "DELETE FROM flow WHERE id = ?1 AND identity = ?2 \
                 RETURNING attempts, started, tag, name, user, client_id, start_body, revision";
    keep_end = "INSERT INTO ended (id, identity, state, attempts, started, finished, expires, tag, name, user, \
                client_id, start_body, revision, end_body, labels, forget_at) \
                VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)";
    count_untaken = "INSERT INTO untaken (identity, message_id, since, latest, tries, sender, reason) \
                     VALUES (?1, ?2, ?3, ?3, 1, ?4, ?5) ON CONFLICT (identity, message_id) DO UPDATE SET \
                     latest = excluded.latest, tries = tries + 1, sender = excluded.sender, reason = excluded.reason";
    untaken_tries = "SELECT tries FROM untaken WHERE identity = ?1 AND message_id = ?2";
    keep_untaken = "UPDATE untaken SET body = ?3 WHERE identity = ?1 AND message_id = ?2 AND (SELECT \
                    coalesce(sum(length(o.body)), 0) FROM untaken o WHERE o.identity = ?1 AND o.message_id <> ?2) \
                    + length(?3) <= ?4";
    forget_untaken = "DELETE FROM untaken WHERE identity = ?1 AND message_id IN (SELECT message_id FROM untaken \
                      WHERE identity = ?1 ORDER BY latest DESC, message_id LIMIT -1 OFFSET ?2)";
    result_read = "UPDATE ended SET result_read = ?2 WHERE id = ?1 AND result_read IS NULL";
    drop_ended = "DELETE FROM ended WHERE id = ?1 AND identity = ?2";
    drop_journal = "DELETE FROM journal WHERE flow = ?1";
    expire = "DELETE FROM ended WHERE id IN (SELECT id FROM ended WHERE forget_at <= ?1 ORDER BY forget_at LIMIT ?2) \
              RETURNING id, identity, user, client_id";

    add_client = "INSERT OR IGNORE INTO client (identity, user, client_id, flow) VALUES (?1, ?2, ?3, ?4)";
    find_client = "SELECT flow FROM client WHERE identity = ?1 AND user = ?2 AND client_id = ?3";
    remove_client = "DELETE FROM client WHERE identity = ?1 AND user = ?2 AND client_id = ?3";
    remove_client_of = "DELETE FROM client WHERE identity = ?1 AND user = ?2 AND client_id = ?3 AND flow = ?4";

    initiate = "INSERT INTO initiation (identity, id, body) VALUES (?1, ?2, ?3)";
    is_initiation = "SELECT 1 FROM initiation WHERE identity = ?1 AND id = ?2";
    initiation_bytes = "SELECT length(body) FROM initiation WHERE identity = ?1 AND id = ?2";
    take_initiation = "DELETE FROM initiation WHERE identity = ?1 AND id = ?2";
    first_message = "SELECT body FROM journal WHERE flow = ?1 AND seq = 0 AND stream = ?2";
    add_late_confirm = "INSERT OR IGNORE INTO late_confirm (identity, session, body) VALUES (?1, ?2, ?3)";
    take_late_confirm = "DELETE FROM late_confirm WHERE identity = ?1 AND session = ?2 RETURNING length(body)";
    add_outbox = "INSERT INTO outbox (id, identity, destination, message_id, body, kind, session, seq, lived) \
                  VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
    take_outbox = "DELETE FROM outbox WHERE id = ?1 AND identity = ?2 RETURNING length(body)";
    add_processed = "INSERT OR IGNORE INTO processed (identity, message_id, at) VALUES (?1, ?2, ?3)";
    forget_processed = "DELETE FROM processed WHERE (identity, message_id) IN \
                        (SELECT identity, message_id FROM processed WHERE at <= ?1 ORDER BY at LIMIT ?2)";
    // Senders are looked up by row, so the whole costs a look at each outbox row at most.
    drop_orphans = "DELETE FROM outbox WHERE id IN (SELECT outbox.id FROM outbox \
                    LEFT JOIN identity ON identity.id = outbox.identity \
                    WHERE identity.id IS NULL OR identity.moved_to IS NOT NULL \
                    OR (outbox.lived <= ?1 AND identity.owner IS NOT ?3) ORDER BY outbox.id LIMIT ?2) \
                    RETURNING identity, length(body)";

    newest_audit = "SELECT max(number) FROM audit WHERE class = ?1";
    add_audit = "INSERT OR IGNORE INTO audit (class, number, run, seq, lived, at, host, user, action, identity, flow, \
                 flow_id, detail, allowed, code, count, token) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17)";
    forget_audit = "DELETE FROM audit WHERE class = ?1 AND number IN (SELECT number FROM (\
                    SELECT number, lived FROM audit WHERE class = ?1 ORDER BY number LIMIT ?4) \
                    WHERE lived <= ?2 OR number <= ?3)";
}
