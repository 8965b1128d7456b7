//! An identity's way from one database to another.
//!
//! Its row in each database says how far it has come, and each step is one transaction, so a move that was broken off at
//! any point goes on when it is begun again:
//!
//! 1. *Closed*: the row where it lives names the database to come and shows no owner. From then on no unit is written for
//!    it and no claim succeeds; what an owner had under way is refused.
//! 2. *Copied*: all its rows are in the new database, in one transaction that also notes the claim they were read under.
//! 3. *Left*: the former database says that it has gone. From then on the copies count.
//! 4. *Opened*: the row in the new database names no other any more, and the identity can be claimed there.
//!
//! At no moment can it be claimed in two databases. What stays behind is removed by hosts, some time later, when none of
//! them looks for the identity there any more.

use futures::StreamExt;
use maxhost_model::IdentityRow;
use maxhost_store::StoreError;
use sqlx::postgres::{PgConnection, PgTransaction};
use sqlx::{AssertSqlSafe, Connection};

use crate::error::{failed, is_in_the_way, of_server};
use crate::ledger::place::Place;
use crate::ledger::tables;
use crate::options::{Layout, PostgresOptions};
use crate::schema;

/// How long what an identity has left behind stays there, in the time that hosts run, ms. A host learns of a move within
/// seconds; until then it may still read there.
const KEPT_BEHIND: i64 = 10 * 60 * 1_000;
/// Advisory locks of moves have this in their high bits, and the identity's number in the low ones.
const LOCK: i64 = 0x6d6f_7665 << 31;

/// How far a move has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Nobody can write for the identity any more.
    Closed,
    /// So many rows were copied.
    Copied(u64),
    /// It has left the former database.
    Left,
    /// It lives in the new one.
    Opened,
}

/// What became of a move.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Moved {
    /// No identity has this name.
    Unknown,
    /// Another command moves it at this moment.
    Busy,
    /// It is on its way to another database, the one with this id.
    OnItsWay(String),
    /// It lives where it was to be. The rows that were copied for it now; `None` if it lived there before.
    There(Option<u64>),
}

/// Where an identity is, told from its rows.
enum State {
    /// It lives in the database at this place.
    Lives(usize),
    /// It is closed in the database at this place, on its way to that with this id.
    Leaving(usize, String),
    /// It has left for the database at this place, where its rows are.
    Arrived(usize),
}

/// A row of the table of identities.
struct Seen {
    moved_to: Option<String>,
    moving: i16,
    claim: (i64, i64),
}

struct Database {
    place: String,
    layout: Layout,
    id: String,
    conn: PgConnection,
}

impl Database {
    async fn connect(options: &PostgresOptions) -> Result<Database, StoreError> {
        let place = options.place();
        let mut conn = schema::connect(options).await?;
        // Waits for whoever is just writing for the identity.
        let settings =
            "SET lock_timeout = '10s'; SET idle_in_transaction_session_timeout = '60s'; SET synchronous_commit = on";
        sqlx::raw_sql(settings).execute(&mut conn).await.map_err(|error| failed_at(&place, error))?;
        let id: i64 = sqlx::query_scalar("SELECT id FROM maxhost.database")
            .fetch_one(&mut conn)
            .await
            .map_err(|error| failed_at(&place, error))?;
        Ok(Database { place, layout: options.layout, id: id.to_string(), conn })
    }
}

/// Moves the identity of this name to the database at the place `to` among these, which hosts use as they stand here; the
/// first one knows all identities. It was opened with the others before. `told` hears of each step when it is durable, and
/// may break the move off.
///
/// # Errors
/// [`StoreError::Unreachable`], [`StoreError::Denied`]: the move goes on when it is begun again. [`StoreError::Unfit`] if
/// the identity lives in none of the databases. What `told` says.
pub async fn move_identity(
    databases: &[PostgresOptions],
    name: &str,
    to: usize,
    mut told: impl FnMut(Step) -> Result<(), StoreError>,
) -> Result<Moved, StoreError> {
    let mut open = Vec::with_capacity(databases.len());
    for options in databases {
        open.push(Database::connect(options).await?);
    }
    let Some(first) = open.first_mut() else { return Err(StoreError::Closed) };
    let (place, conn) = (first.place.clone(), &mut first.conn);
    let of = |error| failed_at(&place, error);
    let sql = "SELECT id FROM maxhost.identity WHERE name = $1 COLLATE \"C\"";
    let Some(id) = sqlx::query_scalar(sql).bind(name).fetch_optional(&mut *conn).await.map_err(of)? else {
        return Ok(Moved::Unknown);
    };
    // Held until the connection ends. Steps of two moves cannot harm each other, but each would undo what the other does.
    let sql = "SELECT pg_try_advisory_lock($1)";
    if !sqlx::query_scalar::<_, bool>(sql).bind(LOCK | id).fetch_one(&mut *conn).await.map_err(of)? {
        return Ok(Moved::Busy);
    }
    let identity = IdentityRow(id);
    let mut moving = Moving { databases: open, identity, name: name.to_owned(), to };
    let mut copied = None;
    loop {
        match moving.state().await? {
            State::Lives(at) if at == to => return Ok(Moved::There(copied)),
            State::Lives(at) => {
                moving.close(at).await?;
                told(Step::Closed)?;
            }
            State::Leaving(at, _) if at == to => moving.stay(at).await?,
            State::Leaving(_, goal) if goal != moving.databases[to].id => return Ok(Moved::OnItsWay(goal)),
            State::Leaving(at, _) => {
                let Some((claim, rows)) = moving.copy(at).await? else { continue };
                copied = Some(rows);
                told(Step::Copied(rows))?;
                moving.leave(at, claim).await?;
                told(Step::Left)?;
            }
            State::Arrived(at) => {
                moving.open(at).await?;
                copied = copied.or(Some(0));
                told(Step::Opened)?;
            }
        }
    }
}

/// What a database says that keeps the move from going on. `place`: the server and the database.
fn failed_at(place: &str, error: sqlx::Error) -> StoreError {
    match is_in_the_way(&error) {
        true => failed(error),
        false => of_server(place, error),
    }
}

/// A move under way.
struct Moving {
    databases: Vec<Database>,
    identity: IdentityRow,
    name: String,
    to: usize,
}

impl Moving {
    async fn state(&mut self) -> Result<State, StoreError> {
        let mut seen = Vec::with_capacity(self.databases.len());
        for database in &mut self.databases {
            seen.push(read(database, self.identity).await?);
        }
        let place = |wanted: &dyn Fn(&Seen) -> bool| seen.iter().position(|seen| seen.as_ref().is_some_and(wanted));
        if let Some(at) = place(&|seen| seen.moved_to.is_none()) {
            return Ok(State::Lives(at));
        }
        if let Some(at) = place(&|seen| seen.moving == LEAVING) {
            let goal = seen[at].as_ref().and_then(|seen| seen.moved_to.clone()).unwrap_or_default();
            return Ok(State::Leaving(at, goal));
        }
        // Copies of a move that was called off may lie anywhere; those that count are where its last place says.
        for (at, database) in self.databases.iter().enumerate() {
            let Some(there) = seen[at].as_ref().filter(|seen| seen.moving == COPIED) else { continue };
            let names = |other: &Seen| other.moved_to.as_ref() == Some(&database.id) && other.claim == there.claim;
            if place(&|other| other.moving == 0 && names(other)).is_some() {
                return Ok(State::Arrived(at));
            }
        }
        let reason = format!("identity {} lives in none of them: one was put back to an earlier moment", self.name);
        Err(StoreError::Unfit { place: self.databases[0].place.clone(), reason })
    }

    /// From now on nobody writes for the identity. One that was running is to be woken where it comes to.
    async fn close(&mut self, at: usize) -> Result<(), StoreError> {
        let (goal, identity) = (self.databases[self.to].id.clone(), self.identity);
        change(&mut self.databases[at], async |transaction| {
            sqlx::query(
                "UPDATE maxhost.identity SET moved_to = $2, moving = 1, owner = NULL, wake_at = CASE WHEN owner IS NULL \
                 THEN wake_at ELSE floor(extract(epoch FROM clock_timestamp()) * 1000)::int8 END \
                 WHERE id = $1 AND moved_to IS NULL",
            )
            .bind(identity.0)
            .bind(&goal)
            .execute(&mut **transaction)
            .await
            .map(|done| done.rows_affected())
        })
        .await
        .map(drop)
    }

    /// It stays where it was to leave from. Copies elsewhere are for hosts to remove.
    async fn stay(&mut self, at: usize) -> Result<(), StoreError> {
        let identity = self.identity;
        for database in &mut self.databases {
            let sql = "UPDATE maxhost.identity SET moving = 0, left_at = (SELECT lived FROM maxhost.database) \
                       WHERE id = $1 AND moving = 2";
            let removed = sqlx::query(sql).bind(identity.0).execute(&mut database.conn).await;
            removed.map_err(|error| failed_at(&database.place, error))?;
        }
        change(&mut self.databases[at], async |transaction| {
            let sql = "UPDATE maxhost.identity SET moved_to = NULL, moving = 0 WHERE id = $1 AND moving = 1";
            sqlx::query(sql).bind(identity.0).execute(&mut **transaction).await.map(|done| done.rows_affected())
        })
        .await
        .map(drop)
    }

    /// Copies all its rows. Gives the claim that they are of, and how many there are; `None` if it is not leaving any more.
    async fn copy(&mut self, at: usize) -> Result<Option<((i64, i64), u64)>, StoreError> {
        let (identity, name) = (self.identity, self.name.clone());
        let Ok([from, to]) = self.databases.get_disjoint_mut([at, self.to]) else { return Ok(None) };
        let has_ledger = prepare(from, to, identity, &name).await?;
        let (place, layout, goal) = (to.place.clone(), to.layout, to.id.clone());
        // Whichever of the two it is: the other one is named by its own errors, as far as they are the server's.
        let failed = |error| failed_at(&place, error);
        let mut source =
            from.conn.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await.map_err(failed)?;
        let mut target = to.conn.begin().await.map_err(failed)?;
        let copied = async {
            let sql = "SELECT generation, epoch, key_fp, wake_at, unclean FROM maxhost.identity \
                       WHERE id = $1 AND moving = 1 AND moved_to = $2";
            type Row = (i64, i64, Option<Vec<u8>>, Option<i64>, i64);
            let found: Option<Row> =
                sqlx::query_as(sql).bind(identity.0).bind(&goal).fetch_optional(&mut *source).await?;
            let Some((generation, epoch, key_fp, wake_at, unclean)) = found else { return Ok(None) };
            // Nobody else copies to here, and no host removes what came before.
            let lives: bool =
                sqlx::query_scalar("SELECT moved_to IS NULL FROM maxhost.identity WHERE id = $1 FOR UPDATE")
                    .bind(identity.0)
                    .fetch_one(&mut *target)
                    .await?;
            if lives {
                return Ok(None);
            }
            let shift = lived(&mut target).await? - lived(&mut source).await?;
            let mut rows = 0;
            for table in tables_of(layout, identity, has_ledger) {
                sqlx::query(AssertSqlSafe(table.remove())).execute(&mut *target).await?;
                rows += pipe(&mut source, &mut target, &table.read(shift), &table.write()).await?;
            }
            sqlx::query(
                "UPDATE maxhost.identity SET generation = $2, epoch = $3, key_fp = $4, wake_at = $5, unclean = $6, \
                 owner = NULL, moving = 2, left_at = NULL WHERE id = $1",
            )
            .bind(identity.0)
            .bind(generation)
            .bind(epoch)
            .bind(key_fp)
            .bind(wake_at)
            .bind(unclean)
            .execute(&mut *target)
            .await?;
            Ok(Some(((generation, epoch), rows)))
        };
        let copied = copied.await.map_err(failed)?;
        if copied.is_some() {
            target.commit().await.map_err(failed)?;
        }
        source.commit().await.map_err(failed)?;
        Ok(copied)
    }

    /// Says in the former database that it has gone, if that is as it was when its rows were copied.
    async fn leave(&mut self, at: usize, claim: (i64, i64)) -> Result<(), StoreError> {
        let (goal, identity) = (self.databases[self.to].id.clone(), self.identity);
        change(&mut self.databases[at], async |transaction| {
            sqlx::query(
                "UPDATE maxhost.identity SET moving = 0, wake_at = NULL, left_at = (SELECT lived FROM maxhost.database) \
                 WHERE id = $1 AND moving = 1 AND moved_to = $2 AND generation = $3 AND epoch = $4",
            )
            .bind(identity.0)
            .bind(&goal)
            .bind(claim.0)
            .bind(claim.1)
            .execute(&mut **transaction)
            .await
            .map(|done| done.rows_affected())
        })
        .await
        .map(drop)
    }

    /// Every other database names the one where it lives, and only then it lives there.
    async fn open(&mut self, at: usize) -> Result<(), StoreError> {
        let (goal, identity) = (self.databases[at].id.clone(), self.identity);
        for (place, database) in self.databases.iter_mut().enumerate() {
            if place == at {
                continue;
            }
            let sql = "UPDATE maxhost.identity SET moved_to = $2 \
                       WHERE id = $1 AND moved_to IS NOT NULL AND moved_to <> $2 AND moving <> 1";
            let named = sqlx::query(sql).bind(identity.0).bind(&goal).execute(&mut database.conn).await;
            named.map_err(|error| failed_at(&database.place, error))?;
        }
        change(&mut self.databases[at], async |transaction| {
            let sql = "UPDATE maxhost.identity SET moved_to = NULL, moving = 0 WHERE id = $1 AND moving = 2";
            sqlx::query(sql).bind(identity.0).execute(&mut **transaction).await.map(|done| done.rows_affected())
        })
        .await
        .map(drop)
    }
}

/// Its rows are being copied from here.
const LEAVING: i16 = 1;
/// Its rows were copied to here.
const COPIED: i16 = 2;

async fn read(database: &mut Database, identity: IdentityRow) -> Result<Option<Seen>, StoreError> {
    let sql = "SELECT moved_to, moving, generation, epoch FROM maxhost.identity WHERE id = $1";
    let found: Option<(Option<String>, i16, i64, i64)> = sqlx::query_as(sql)
        .bind(identity.0)
        .fetch_optional(&mut database.conn)
        .await
        .map_err(|error| failed_at(&database.place, error))?;
    Ok(found.map(|(moved_to, moving, generation, epoch)| Seen { moved_to, moving, claim: (generation, epoch) }))
}

/// Changes the row of an identity in a transaction by which hosts notice that identities come and go. Gives how many rows
/// were changed: one, or none if the row is not what it was.
async fn change(
    database: &mut Database,
    update: impl AsyncFnOnce(&mut PgTransaction<'_>) -> Result<u64, sqlx::Error>,
) -> Result<u64, StoreError> {
    let changed = async {
        let mut transaction = database.conn.begin().await?;
        let changed = update(&mut transaction).await?;
        sqlx::query("UPDATE maxhost.database SET moves = moves + 1").execute(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(changed)
    };
    changed.await.map_err(|error| failed_at(&database.place, error))
}

/// Makes the identity's row in the new database if it was not known there, and the tables of its ledger if it has one.
/// Gives whether it has one.
async fn prepare(
    from: &mut Database,
    to: &mut Database,
    identity: IdentityRow,
    name: &str,
) -> Result<bool, StoreError> {
    let target = async {
        sqlx::query(
            "INSERT INTO maxhost.identity (id, name, moved_to) OVERRIDING SYSTEM VALUE VALUES ($1, $2, $3) \
             ON CONFLICT DO NOTHING",
        )
        .bind(identity.0)
        .bind(name)
        .bind(&from.id)
        .execute(&mut to.conn)
        .await?;
        if to.layout == Layout::Schemas {
            let sql = format!("CREATE SCHEMA IF NOT EXISTS {}", Place::of(to.layout, identity));
            sqlx::query(AssertSqlSafe(sql)).execute(&mut to.conn).await?;
        }
        Ok(())
    };
    target.await.map_err(|error| failed_at(&to.place, error))?;
    if to.layout == Layout::Shared {
        return Ok(true);
    }
    let source = async {
        let sql = "SELECT ledger FROM maxhost.identity WHERE id = $1";
        let version: i64 = sqlx::query_scalar(sql).bind(identity.0).fetch_one(&mut from.conn).await?;
        if version > 0 {
            tables::bring_up(&mut from.conn, identity).await?;
        }
        Ok(version > 0)
    };
    let has_ledger = source.await.map_err(|error| failed_at(&from.place, error))?;
    if has_ledger {
        tables::bring_up(&mut to.conn, identity).await.map_err(|error| failed_at(&to.place, error))?;
    }
    Ok(has_ledger)
}

async fn lived(conn: &mut PgConnection) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar("SELECT lived FROM maxhost.database").fetch_one(conn).await
}

/// Brings what the one statement reads to the other, in pieces, so that memory is bounded whatever there is.
async fn pipe(from: &mut PgConnection, to: &mut PgConnection, read: &str, write: &str) -> Result<u64, sqlx::Error> {
    let mut rows = from.copy_out_raw(read).await?;
    let mut written = to.copy_in_raw(write).await?;
    while let Some(piece) = rows.next().await {
        match piece {
            Ok(piece) => drop(written.send(piece).await?),
            Err(error) => {
                written.abort("its rows cannot be read any more").await?;
                return Err(error);
            }
        }
    }
    written.finish().await
}

/// The rows of an identity in one table.
struct Table {
    place: String,
    name: &'static str,
    /// Named if not all are copied as they are: what the new database numbers itself, and what goes by the time that hosts
    /// have run on it.
    columns: &'static str,
    /// The last of the columns is such a time.
    by_time: bool,
    /// In which order they were written, where that matters.
    order: &'static str,
    identity: IdentityRow,
}

/// The journals of flows have no column of the identity.
const JOURNAL: &str = "journal";

/// Tables with what an identity has, beside its ledger. The journal comes before the flows that it is found by.
const TABLES: [(&str, &str, bool, &str); 10] = [
    (JOURNAL, "", false, ""),
    ("flow", "", false, ""),
    (
        "ended",
        "id, identity, state, attempts, started, finished, expires, tag, name, \"user\", client_id, start_body, \
         revision, result_read, end_body, labels, forget_at",
        true,
        "",
    ),
    ("initiation", "", false, ""),
    ("late_confirm", "", false, ""),
    ("client", "", false, ""),
    ("outbox", "identity, destination, message_id, body, kind, session, seq, lived", true, "id"),
    ("sent", "marker, identity, destination, message_id, body, kind, session, seq, at", true, "number"),
    ("processed", "identity, message_id, at", true, ""),
    ("untaken", "", false, ""),
];

/// Tables of a ledger.
const LEDGER_TABLES: [(&str, &str, bool, &str); 14] = [
    ("ledger_tx", "", false, ""),
    ("ledger_spent", "", false, ""),
    ("vault_change", "", false, ""),
    ("vault_state", "", false, ""),
    ("vault_field", "", false, ""),
    ("notary_state", "", false, ""),
    ("notary_tx", "", false, ""),
    ("notary_request", "identity, id, caller, states, batch, at, answered, conflicting, conflicts", false, "number"),
    ("notary", "", false, ""),
    ("attachment", "", false, ""),
    ("ledger_key", "", false, ""),
    ("key_external_id", "", false, ""),
    ("network_parameters", "", false, ""),
    ("vault_shape", "", false, ""),
];

fn tables_of(layout: Layout, identity: IdentityRow, has_ledger: bool) -> Vec<Table> {
    let in_place = |place: String| {
        move |&(name, columns, by_time, order): &(&'static str, &'static str, bool, &'static str)| Table {
            place: place.clone(),
            name,
            columns,
            by_time,
            order,
            identity,
        }
    };
    let ledger: &[_] = if has_ledger { &LEDGER_TABLES } else { &[] };
    let shared = TABLES.iter().map(in_place("maxhost".to_owned()));
    shared.chain(ledger.iter().map(in_place(Place::of(layout, identity).to_string()))).collect()
}

impl Table {
    fn full(&self) -> String {
        format!("{}.{}", self.place, self.name)
    }

    fn condition(&self) -> String {
        match self.name {
            JOURNAL => format!("flow IN (SELECT id FROM {}.flow WHERE identity = {})", self.place, self.identity.0),
            _ => format!("identity = {}", self.identity.0),
        }
    }

    fn read(&self, shift: i64) -> String {
        let columns = match (self.columns, self.by_time) {
            ("", _) => "*".to_owned(),
            (columns, true) => format!("{columns} + ({shift})"),
            (columns, false) => columns.to_owned(),
        };
        let order = if self.order.is_empty() { String::new() } else { format!(" ORDER BY {}", self.order) };
        let (table, condition) = (self.full(), self.condition());
        format!("COPY (SELECT {columns} FROM {table} WHERE {condition}{order}) TO STDOUT (FORMAT binary)")
    }

    fn write(&self) -> String {
        let columns = if self.columns.is_empty() { String::new() } else { format!(" ({})", self.columns) };
        format!("COPY {}{columns} FROM STDIN (FORMAT binary)", self.full())
    }

    fn remove(&self) -> String {
        format!("DELETE FROM {} WHERE {}", self.full(), self.condition())
    }

    fn remove_some(&self, limit: i64) -> String {
        let (table, condition) = (self.full(), self.condition());
        format!("DELETE FROM {table} WHERE ctid = ANY(ARRAY(SELECT ctid FROM {table} WHERE {condition} LIMIT {limit}))")
    }
}

/// Removes up to `limit` rows that an identity has left behind. Gives how many went.
pub(crate) async fn forget_left(
    transaction: &mut PgConnection,
    layout: Layout,
    lived: i64,
    limit: i64,
) -> Result<u64, sqlx::Error> {
    let sql = "SELECT id, ledger FROM maxhost.identity WHERE left_at <= $1 AND moved_to IS NOT NULL AND moving = 0 \
               ORDER BY left_at LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED";
    let before = lived.saturating_sub(KEPT_BEHIND);
    let found: Option<(i64, i64)> = sqlx::query_as(sql).bind(before).fetch_optional(&mut *transaction).await?;
    let Some((id, ledger)) = found else { return Ok(0) };
    let has_ledger = layout == Layout::Shared || ledger > 0;
    let mut room = limit;
    for table in tables_of(layout, IdentityRow(id), has_ledger) {
        let removed = sqlx::query(AssertSqlSafe(table.remove_some(room))).execute(&mut *transaction).await?;
        room -= i64::try_from(removed.rows_affected()).unwrap_or(room);
        if room <= 0 {
            return Ok(limit.unsigned_abs());
        }
    }
    // All is gone.
    let sql = "UPDATE maxhost.identity SET left_at = NULL WHERE id = $1";
    sqlx::query(sql).bind(id).execute(transaction).await?;
    Ok((limit - room).unsigned_abs())
}
