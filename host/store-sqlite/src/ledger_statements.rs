//! The committer's statements about ledgers, prepared once.
//!
//! What inserts a row does not return its number: SQLite takes RETURNING for a trigger, and then keeps a copy of every page that
//! the statement changes. The connection knows the number.

use rusqlite::{Connection, Statement};

macro_rules! statements {
    ($($name:ident = $sql:expr;)*) => {
        /// Kept for the life of the connection.
        pub(crate) struct LedgerStatements<'c> { $(pub(crate) $name: Statement<'c>,)* }

        /// The statements by their names.
        #[cfg(test)]
        const ALL: &[(&str, &str)] = &[$((stringify!($name), $sql),)*];

        impl<'c> LedgerStatements<'c> {
            pub(crate) fn prepare(conn: &'c Connection) -> rusqlite::Result<LedgerStatements<'c>> {
                Ok(LedgerStatements { $($name: conn.prepare($sql)?,)* })
            }
        }
    };
}

/// A state that can be selected, and is free for a holder (?5) at a time (?6).
macro_rules! candidates {
    ($rest:literal) => {
        candidates!(
            " AND in_flight IS NULL AND (lock_until IS NULL OR lock_until <= ?6 OR lock_holder = ?5)",
            $rest
        )
    };
    ($free:literal, $rest:literal) => {
        concat!(
            "SELECT tx, idx, quantity, lock_holder, lock_claim, lock_until, in_flight FROM vault_state \
             WHERE identity = ?1 AND type = ?2 AND token = ?3 AND token IS NOT NULL AND consumed_by IS NULL AND relevant = 1 \
             AND (?4 IS NULL OR issuer = ?4) AND (?7 IS NULL OR notary = ?7)",
            $free,
            $rest
        )
    };
}

statements! {
    transaction = "SELECT status, signatures FROM ledger_tx WHERE identity = ?1 AND id = ?2";
    add_transaction = "INSERT INTO ledger_tx (identity, id, status, kind, recorded, signatures, flow, part, states) \
                       VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
    add_body = "INSERT INTO ledger_body (tx, body) VALUES (?1, ?2)";
    add_parent = "INSERT INTO ledger_parent (tx, parent) VALUES (?1, ?2)";
    // It came again: its time is that of becoming part of the ledger, or of its first coming.
    set_transaction = "UPDATE ledger_tx SET recorded = CASE WHEN status < 2 AND ?3 = 2 THEN ?4 ELSE recorded END, status = ?3, \
                       signatures = ?5, flow = CASE WHEN ?3 = 1 THEN coalesce(?6, flow) END, \
                       part = CASE WHEN ?3 = 1 THEN coalesce(?7, part) END, \
                       states = CASE WHEN ?3 = 1 THEN coalesce(?8, states) END WHERE identity = ?1 AND id = ?2";
    set_settlement = "UPDATE ledger_tx SET flow = ?3, part = ?4, states = ?5 WHERE identity = ?1 AND id = ?2 AND status = 1";
    drop_transaction = "DELETE FROM ledger_tx WHERE identity = ?1 AND id = ?2 RETURNING number";
    drop_body = "DELETE FROM ledger_body WHERE tx = ?1";
    drop_parents = "DELETE FROM ledger_parent WHERE tx = ?1";

    known = "SELECT number IS NOT NULL, CASE WHEN number IS NOT NULL THEN consumed_by ELSE \
             (SELECT s.consumed_by FROM ledger_spent s WHERE s.identity = ?1 AND s.tx = ?2 AND s.idx = ?3) END \
             FROM (SELECT 1) LEFT JOIN vault_state ON identity = ?1 AND tx = ?2 AND idx = ?3";
    add_change = "INSERT INTO vault_change (identity, tx, at) VALUES (?1, ?2, ?3)";
    add_state = "INSERT INTO vault_state (identity, tx, idx, type, notary, constraint_kind, relevant, recorded, consumed, \
                 consumed_by, change_in, change_out, state, participants, fields, linear_id, token, issuer, quantity, bucket, \
                 lock_holder, lock_claim, lock_until, lock_flow) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, \
                 ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23, ?24)";
    add_field = "INSERT INTO vault_field (identity, name, value, state) VALUES (?1, ?2, ?3, ?4)";
    add_shape = "INSERT OR IGNORE INTO vault_shape (identity, type, fields) VALUES (?1, ?2, ?3)";
    consume = "UPDATE vault_state SET consumed = ?5, consumed_by = ?4, change_out = ?6, in_flight = NULL, lock_holder = NULL, \
               lock_claim = NULL, lock_until = NULL, lock_flow = NULL WHERE identity = ?1 AND tx = ?2 AND idx = ?3";
    // A state of the vault says itself what has consumed it.
    add_spent = "INSERT OR IGNORE INTO ledger_spent (identity, tx, idx, consumed_by) SELECT ?1, ?2, ?3, ?4 \
                 WHERE NOT EXISTS (SELECT 1 FROM vault_state WHERE identity = ?1 AND tx = ?2 AND idx = ?3)";
    // As long as one transaction in flight has the state, its id is all that the column has.
    set_in_flight = "UPDATE vault_state SET in_flight = ?4 WHERE identity = ?1 AND tx = ?2 AND idx = ?3 AND consumed_by IS NULL \
                     AND in_flight IS NULL";
    clear_in_flight = "UPDATE vault_state SET in_flight = NULL WHERE identity = ?1 AND tx = ?2 AND idx = ?3 AND in_flight = ?4";
    in_flight = "SELECT in_flight FROM vault_state WHERE identity = ?1 AND tx = ?2 AND idx = ?3 AND in_flight IS NOT NULL";
    put_in_flight = "UPDATE vault_state SET in_flight = ?4 WHERE identity = ?1 AND tx = ?2 AND idx = ?3";

    from_bucket = candidates!(" AND bucket >= ?8 ORDER BY bucket LIMIT ?9");
    largest = candidates!(" AND bucket >= ?8 ORDER BY bucket DESC LIMIT ?9");
    any = candidates!("", " AND bucket >= ?8 AND ?5 = ?5 AND ?6 = ?6 ORDER BY bucket DESC LIMIT ?9");
    lease = "SELECT lock_holder, lock_claim, lock_until FROM vault_state WHERE identity = ?1 AND tx = ?2 AND idx = ?3 \
             AND consumed_by IS NULL AND relevant = 1 AND in_flight IS NULL";
    set_lease = "UPDATE vault_state SET lock_holder = ?4, lock_claim = ?5, lock_until = ?6, lock_flow = ?7 \
                 WHERE identity = ?1 AND tx = ?2 AND idx = ?3";
    // By the claim's index: the pluses keep SQLite from reading the whole vault for the sake of its order.
    claimed = "SELECT tx, idx FROM vault_state WHERE identity = ?1 AND lock_claim = ?2 AND lock_claim IS NOT NULL \
               AND lock_until > ?3 ORDER BY +tx, +idx";
    renew = "UPDATE vault_state SET lock_until = max(lock_until, ?3) WHERE identity = ?1 AND lock_flow IS NOT NULL \
             AND lock_holder = ?2 AND lock_until > ?4";
    release_all = "UPDATE vault_state SET lock_holder = NULL, lock_claim = NULL, lock_until = NULL, lock_flow = NULL \
                   WHERE identity = ?1 AND lock_flow IS NOT NULL AND lock_holder = ?2";
    release_one = "UPDATE vault_state SET lock_holder = NULL, lock_claim = NULL, lock_until = NULL, lock_flow = NULL \
                   WHERE identity = ?1 AND lock_holder = ?2 AND tx = ?3 AND idx = ?4";
    release_flow = "UPDATE vault_state SET lock_holder = NULL, lock_claim = NULL, lock_until = NULL, lock_flow = NULL \
                    WHERE lock_flow = ?1 AND lock_flow IS NOT NULL";

    next_batch = "INSERT INTO notary (identity, batch, at) VALUES (?1, 1, ?2) ON CONFLICT (identity) \
                  DO UPDATE SET batch = batch + 1, at = max(at, ?2) RETURNING batch, at";
    consumer = "SELECT consumed_by FROM notary_state WHERE identity = ?1 AND tx = ?2 AND idx = ?3";
    outcome = "SELECT batch, at FROM notary_tx WHERE identity = ?1 AND id = ?2";
    add_consumed = "INSERT INTO notary_state (identity, tx, idx, consumed_by) VALUES (?1, ?2, ?3, ?4)";
    add_outcome = "INSERT OR REPLACE INTO notary_tx (identity, id, batch, at) VALUES (?1, ?2, ?3, ?4)";
    log_request = "INSERT INTO notary_request (identity, id, caller, states, batch, at, answered, conflicting, conflicts) \
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
    count_batch = "UPDATE notary SET committed = committed + ?2, conflicts = conflicts + ?3, states = states + ?4 \
                   WHERE identity = ?1";
    add_attachment = "INSERT OR IGNORE INTO attachment (identity, id, uploader, at, body) VALUES (?1, ?2, ?3, ?4, ?5)";
    imports = "SELECT EXISTS (SELECT 1 FROM attachment WHERE identity = ?1 AND id = ?2), count(*), \
               coalesce(sum(length(body)), 0) FROM attachment WHERE identity = ?1 AND substr(uploader, 1, 4) = 'rpc:'";
    add_parameters = "INSERT OR IGNORE INTO network_parameters (identity, hash, at, body) VALUES (?1, ?2, ?3, ?4)";
    assign_key = "INSERT OR IGNORE INTO key_external_id (identity, id, external_id, at) VALUES (?1, ?2, ?3, ?4)";
    add_key = "INSERT OR IGNORE INTO ledger_key (identity, id, key, party, nonce, at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use rusqlite::config::DbConfig;

    use super::*;

    /// Tables that have a row for each state, transaction or change that an identity ever had.
    const LARGE: [&str; 10] = [
        "ledger_tx",
        "ledger_body",
        "ledger_parent",
        "ledger_spent",
        "vault_change",
        "vault_state",
        "vault_field",
        "notary_state",
        "notary_tx",
        "notary_request",
    ];

    fn steps(conn: &Connection, sql: &str) -> Vec<String> {
        let mut statement = conn.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
        for number in 1..=statement.parameter_count() {
            statement.raw_bind_parameter(number, 1).unwrap();
        }
        let mut rows = statement.raw_query();
        let mut steps = Vec::new();
        while let Some(row) = rows.next().unwrap() {
            steps.push(row.get::<_, String>(3).unwrap());
        }
        steps
    }

    #[test]
    fn no_statement_of_the_committer_reads_a_whole_ledger() {
        let conn = Connection::open_in_memory().unwrap();
        // As the committer's connection is set up (`maxhost_sqlite::open_writer`).
        conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).unwrap();
        for migration in [
            include_str!("../migrations/0004_ledger.sql"),
            include_str!("../migrations/0007_ledger_key.sql"),
            include_str!("../migrations/0009_network_parameters.sql"),
            include_str!("../migrations/0010_vault_order.sql"),
            include_str!("../migrations/0012_states_to_record.sql"),
            include_str!("../migrations/0014_log_and_key_ids.sql"),
        ] {
            conn.execute_batch(migration).unwrap();
        }
        for (name, sql) in ALL {
            for step in steps(&conn, sql) {
                let of_large = LARGE.iter().any(|table| step.split(' ').any(|word| word == *table));
                if !of_large {
                    continue;
                }
                assert!(step.starts_with("SEARCH"), "{name}: {step}");
                // An identity alone is no condition, unless the index has few of its rows: those that are locked.
                let by_identity = step.ends_with("(identity=?)") && !step.contains("vault_state_locked");
                assert!(!by_identity, "{name} reads all that the identity has: {step}");
            }
        }
        assert!(ALL.len() > 30);
    }

    #[test]
    fn no_row_is_returned_by_what_inserts_it() {
        let batches = "next_batch";
        for (name, sql) in ALL.iter().filter(|(name, sql)| sql.starts_with("INSERT") && *name != batches) {
            assert!(!sql.contains("RETURNING"), "{name} copies every page that it changes");
        }
    }
}
