//! Reads: committed rows, through a small pool of connections.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use maxhost_model::{FlowId, FlowRow, IdentityRow, SessionId};
use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions, SqliteRow};
use sqlx::{Row, SqlitePool};

use crate::error::{StoreError, fault_of};
use crate::record::{
    Client, FlowFilter, FlowRecord, FlowState, Head, IdentityRecord, LiveFlow, OutboxRow, StoredJournal,
};
use crate::store::Store;

/// The pool.
pub(crate) struct Reader {
    pool: SqlitePool,
}

impl Reader {
    pub(crate) async fn open(path: &Path, readers: u32) -> Result<Reader, StoreError> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .busy_timeout(Duration::from_secs(5))
            .pragma("query_only", "ON")
            .pragma("cache_size", "-2048")
            .thread_name(|number| format!("reader-{number}"));
        let pool = SqlitePoolOptions::new()
            .max_connections(readers.max(1))
            .acquire_timeout(Duration::from_secs(10))
            .test_before_acquire(false)
            .connect_with(options)
            .await
            .map_err(|error| StoreError::of_file(path, fault_of(error)))?;
        Ok(Reader { pool })
    }

    pub(crate) async fn close(&self) {
        self.pool.close().await;
    }
}

/// Flows, live and ended: each is in one of two tables.
macro_rules! flows {
    ($condition:literal) => {
        concat!(
            "SELECT id, identity, state, attempts, started, NULL, NULL, tag, name, user, client_id, reason, start_body, \
             NULL FROM flow WHERE ",
            $condition,
            " UNION ALL \
             SELECT id, identity, state, attempts, started, finished, expires, tag, name, user, client_id, NULL, \
             start_body, end_body FROM ended WHERE ",
            $condition,
        )
    };
    ($condition:literal, $order:literal) => {
        concat!(flows!($condition), " ", $order)
    };
}

fn corrupt(table: &'static str, key: impl ToString) -> StoreError {
    StoreError::Corrupt { table, key: key.to_string() }
}

/// A column; what does not fit its type is a broken row, named by the table's key.
fn column<'r, T>(row: &'r SqliteRow, index: usize, table: &'static str) -> Result<T, StoreError>
where
    T: sqlx::Decode<'r, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite>,
{
    row.try_get(index).map_err(|error| {
        let key = row.try_get_unchecked::<i64, _>(0).map_or_else(|_| "?".to_owned(), |key| key.to_string());
        corrupt(table, format!("{key}: {error}"))
    })
}

fn bytes(row: &SqliteRow, index: usize, table: &'static str) -> Result<Bytes, StoreError> {
    column::<Vec<u8>>(row, index, table).map(Bytes::from)
}

/// A number within a flow or session: a segment or message.
fn sequence(row: &SqliteRow, index: usize, table: &'static str) -> Result<u32, StoreError> {
    let number: i64 = column(row, index, table)?;
    u32::try_from(number).map_err(|_| corrupt(table, format!("number {number}")))
}

fn state(row: &SqliteRow, index: usize) -> Result<FlowState, StoreError> {
    let number: i64 = column(row, index, "flow")?;
    FlowState::of(number).ok_or_else(|| corrupt("flow", format!("state {number}")))
}

fn flow_record(row: &SqliteRow) -> Result<FlowRecord, StoreError> {
    const T: &str = "flow";
    let number: i64 = column(row, 0, T)?;
    let tag: Vec<u8> = column(row, 7, T)?;
    let id = <[u8; 16]>::try_from(tag).ok().and_then(FlowId::from_bytes);
    Ok(FlowRecord {
        row: FlowRow(number),
        identity: IdentityRow(column(row, 1, T)?),
        state: state(row, 2)?,
        attempts: sequence(row, 3, T)?,
        started: column(row, 4, T)?,
        finished: column(row, 5, T)?,
        expires: column(row, 6, T)?,
        id: id.filter(|id| id.row().0 == number).ok_or_else(|| corrupt(T, format!("{number}: its id")))?,
        name: column(row, 8, T)?,
        user: column(row, 9, T)?,
        client_id: column(row, 10, T)?,
        reason: column(row, 11, T)?,
        start: bytes(row, 12, T)?,
        end: column::<Option<Vec<u8>>>(row, 13, T)?.map(Bytes::from),
    })
}

/// What a lane of a flow's journal is: the log, or the inbox of a session.
fn session(flow: FlowRow, lane: i64) -> Result<Option<SessionId>, StoreError> {
    match lane {
        -1 => Ok(None),
        _ => match u16::try_from(lane) {
            Ok(index) => Ok(Some(flow.session(index))),
            Err(_) => Err(corrupt("journal", format!("{}: lane {lane}", flow.0))),
        },
    }
}

/// Which of the rows asked for (see [`json`]) this is about.
fn place(row: &SqliteRow) -> Result<usize, StoreError> {
    sequence(row, 0, "journal").map(|place| place as usize)
}

/// Rows as SQL can take any number of them.
fn json(rows: &[FlowRow]) -> String {
    let numbers: Vec<String> = rows.iter().map(|row| row.0.to_string()).collect();
    format!("[{}]", numbers.join(","))
}

/// Reads see what was committed before they began. Errors: the retriable ones, [`StoreError::Corrupt`] for a broken row,
/// [`StoreError::Closed`].
#[allow(clippy::missing_errors_doc)]
impl Store {
    fn pool(&self) -> &SqlitePool {
        &self.reader().pool
    }

    /// All identities that were ever registered, by row.
    pub async fn identities(&self) -> Result<Vec<IdentityRecord>, StoreError> {
        let rows = sqlx::query("SELECT id, name, epoch FROM identity ORDER BY id").fetch_all(self.pool()).await?;
        rows.iter()
            .map(|row| {
                Ok(IdentityRecord {
                    row: IdentityRow(column(row, 0, "identity")?),
                    name: column(row, 1, "identity")?,
                    epoch: column(row, 2, "identity")?,
                })
            })
            .collect()
    }

    /// All flows that have not ended, by row: what a host reads once when it starts.
    pub async fn live_flows(&self) -> Result<Vec<LiveFlow>, StoreError> {
        let sql = "SELECT id, identity, state FROM flow ORDER BY id";
        let rows = sqlx::query(sql).fetch_all(self.pool()).await?;
        rows.iter()
            .map(|row| {
                Ok(LiveFlow {
                    row: FlowRow(column(row, 0, "flow")?),
                    identity: IdentityRow(column(row, 1, "flow")?),
                    state: state(row, 2)?,
                })
            })
            .collect()
    }

    /// One flow.
    pub async fn flow(&self, row: FlowRow) -> Result<Option<FlowRecord>, StoreError> {
        let found = sqlx::query(flows!("id = ?1")).bind(row.0).fetch_optional(self.pool()).await?;
        found.as_ref().map(flow_record).transpose()
    }

    /// Those of these flows that are there, by row.
    pub async fn flows(&self, rows: &[FlowRow]) -> Result<Vec<FlowRecord>, StoreError> {
        let sql = flows!("id IN (SELECT value FROM json_each(?1))", "ORDER BY id");
        let found = sqlx::query(sql).bind(json(rows)).fetch_all(self.pool()).await?;
        found.iter().map(flow_record).collect()
    }

    /// A flow with its log and its inbox, all of one moment.
    pub async fn journal(&self, row: FlowRow) -> Result<Option<StoredJournal>, StoreError> {
        let mut snapshot = self.pool().begin().await?;
        let found = sqlx::query(flows!("id = ?1")).bind(row.0).fetch_optional(&mut *snapshot).await?;
        let Some(found) = found else { return Ok(None) };
        let rows = sqlx::query("SELECT lane, seq, body FROM journal WHERE flow = ?1 ORDER BY lane, seq")
            .bind(row.0)
            .fetch_all(&mut *snapshot)
            .await?;
        snapshot.commit().await?;
        let mut journal = StoredJournal { record: flow_record(&found)?, log: Vec::new(), inbox: Vec::new() };
        for entry in &rows {
            let (seq, body) = (sequence(entry, 1, "journal")?, bytes(entry, 2, "journal")?);
            match session(row, column(entry, 0, "journal")?)? {
                None => journal.log.push((seq, body)),
                Some(session) => journal.inbox.push((session, seq, body)),
            }
        }
        Ok(Some(journal))
    }

    /// The heads of these flows' journals, in the order asked for.
    pub async fn heads(&self, rows: &[FlowRow]) -> Result<Vec<Head>, StoreError> {
        let asked = json(rows);
        let mut snapshot = self.pool().begin().await?;
        let last = sqlx::query(
            "SELECT asked.key, journal.seq, journal.body FROM json_each(?1) AS asked CROSS JOIN journal \
             ON journal.flow = asked.value AND journal.lane = -1 AND journal.seq = \
             (SELECT seq FROM journal WHERE flow = asked.value AND lane = -1 ORDER BY seq DESC LIMIT 1)",
        )
        .bind(&asked)
        .fetch_all(&mut *snapshot)
        .await?;
        let inbox = sqlx::query(
            "SELECT asked.key, journal.lane, max(journal.seq) FROM json_each(?1) AS asked CROSS JOIN journal \
             ON journal.flow = asked.value AND journal.lane >= 0 \
             GROUP BY asked.key, journal.lane ORDER BY asked.key, journal.lane",
        )
        .bind(&asked)
        .fetch_all(&mut *snapshot)
        .await?;
        snapshot.commit().await?;
        let mut heads: Vec<Head> = rows.iter().map(|&flow| Head { flow, last: None, inbox: Vec::new() }).collect();
        for row in &last {
            if let Some(head) = heads.get_mut(place(row)?) {
                head.last = Some((sequence(row, 1, "journal")?, bytes(row, 2, "journal")?));
            }
        }
        for row in &inbox {
            if let Some(head) = heads.get_mut(place(row)?)
                && let Some(session) = session(head.flow, column(row, 1, "journal")?)?
            {
                head.inbox.push((session, sequence(row, 2, "journal")?));
            }
        }
        Ok(heads)
    }

    /// The initiations that wait for an identity, from the one after `after` on, oldest first.
    pub async fn initiations(
        &self,
        identity: IdentityRow,
        after: i64,
        limit: u32,
    ) -> Result<Vec<(i64, Bytes)>, StoreError> {
        let sql = "SELECT id, body FROM initiation WHERE identity = ?1 AND id > ?2 ORDER BY id LIMIT ?3";
        let rows = sqlx::query(sql).bind(identity.0).bind(after).bind(limit).fetch_all(self.pool()).await?;
        rows.iter().map(|row| Ok((column(row, 0, "initiation")?, bytes(row, 1, "initiation")?))).collect()
    }

    /// The identities for which initiations wait.
    pub async fn identities_with_initiations(&self) -> Result<Vec<IdentityRow>, StoreError> {
        // Leaps from identity to identity instead of reading every row.
        let sql = "WITH RECURSIVE leap (identity) AS ( \
                       SELECT min(identity) FROM initiation \
                       UNION ALL \
                       SELECT (SELECT min(identity) FROM initiation WHERE identity > leap.identity) \
                       FROM leap WHERE leap.identity IS NOT NULL \
                   ) SELECT identity FROM leap WHERE identity IS NOT NULL";
        let rows = sqlx::query(sql).fetch_all(self.pool()).await?;
        rows.iter().map(|row| column(row, 0, "initiation").map(IdentityRow)).collect()
    }

    /// The flow that a client id names, and whose the client id is.
    pub async fn client(
        &self,
        identity: IdentityRow,
        client_id: &str,
    ) -> Result<Option<(Option<String>, FlowRow)>, StoreError> {
        let sql = "SELECT flow, user FROM client WHERE identity = ?1 AND client_id = ?2";
        let found = sqlx::query(sql).bind(identity.0).bind(client_id).fetch_optional(self.pool()).await?;
        found.map(|row| Ok((column(&row, 1, "client")?, FlowRow(column(&row, 0, "client")?)))).transpose()
    }

    /// The client ids of an identity, of one user or of all, in alphabetical order.
    pub async fn clients(&self, identity: IdentityRow, user: Option<&str>) -> Result<Vec<Client>, StoreError> {
        let sql = "SELECT client.flow, client.client_id, client.user, coalesce(flow.state, ended.state) AS state \
                   FROM client LEFT JOIN flow ON flow.id = client.flow LEFT JOIN ended ON ended.id = client.flow \
                   WHERE client.identity = ?1 AND (?2 IS NULL OR client.user = ?2) \
                   AND coalesce(flow.state, ended.state) IS NOT NULL ORDER BY client.client_id";
        let rows = sqlx::query(sql).bind(identity.0).bind(user).fetch_all(self.pool()).await?;
        rows.iter()
            .map(|row| {
                Ok(Client {
                    flow: FlowRow(column(row, 0, "client")?),
                    client_id: column(row, 1, "client")?,
                    user: column(row, 2, "client")?,
                    state: state(row, 3)?,
                })
            })
            .collect()
    }

    /// Flows, newest first.
    pub async fn list_flows(&self, filter: &FlowFilter) -> Result<Vec<FlowRecord>, StoreError> {
        let states = match &filter.states[..] {
            [] => i64::MAX,
            states => states.iter().fold(0, |mask, state| mask | (1 << *state as i64)),
        };
        let sql = flows!(
            "id < ?1 AND (?2 IS NULL OR identity = ?2) AND ((?3 >> state) & 1) = 1 AND (?4 IS NULL OR name = ?4)",
            "ORDER BY id DESC LIMIT ?5"
        );
        let rows = sqlx::query(sql)
            .bind(filter.before.map_or(i64::MAX, |row| row.0))
            .bind(filter.identity.map(|identity| identity.0))
            .bind(states)
            .bind(filter.name.as_deref())
            .bind(filter.limit)
            .fetch_all(self.pool())
            .await?;
        rows.iter().map(flow_record).collect()
    }

    /// Messages for the broker, from the one after `after` on, oldest first.
    pub async fn outbox(&self, after: i64, limit: u32) -> Result<Vec<OutboxRow>, StoreError> {
        const T: &str = "outbox";
        let sql = "SELECT id, identity, destination, message_id, body FROM outbox WHERE id > ?1 ORDER BY id LIMIT ?2";
        let rows = sqlx::query(sql).bind(after).bind(limit).fetch_all(self.pool()).await?;
        rows.iter()
            .map(|row| {
                let id: i64 = column(row, 0, T)?;
                let message_id: Vec<u8> = column(row, 3, T)?;
                Ok(OutboxRow {
                    id,
                    identity: IdentityRow(column(row, 1, T)?),
                    destination: column(row, 2, T)?,
                    message_id: message_id.try_into().map_err(|_| corrupt(T, format!("{id}: its message id")))?,
                    body: bytes(row, 4, T)?,
                })
            })
            .collect()
    }
}
