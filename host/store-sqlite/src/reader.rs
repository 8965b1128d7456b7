//! Reads: committed rows, through a small pool of connections.

use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::TryStreamExt;
use maxhost_group_commit::{Fault, FaultKind};
use maxhost_model::{FlowRow, IdentityRow, SessionId};
use maxhost_sqlite::kind_of_code;
use maxhost_store::{
    Client, ClientReader, Committer, FlowFilter, FlowReader, FlowRecord, FlowState, Head, IdentityReader,
    IdentityRecord, JournalReader, LateConfirm, LeftWork, LiveFlow, MessageReader, OutboxDestination, OutboxRow,
    SizedJournal, StoreError, StoredJournal,
};
use maxhost_store_sql::columns::{bytes, column, sequence};
use maxhost_store_sql::host::{
    client, client_use, due, first_initiation, flow_record, identity_record, initiation, late_confirm, left_work,
    live_count, live_flow, outbox_destination, outbox_row, place, session, start, state_count,
};
use maxhost_store_sql::page_bytes;
use sqlx::SqlitePool;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};

use crate::SqliteStore;
use crate::point_reads::PointReads;

/// So many rows a connection has read before somebody takes them.
const ROWS_AHEAD: usize = 16;

/// The pool, and what reads beside it.
pub(crate) struct Reader {
    pool: SqlitePool,
    points: PointReads,
}

impl Reader {
    pub(crate) async fn open(path: &Path, readers: u32) -> Result<Reader, StoreError> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .busy_timeout(Duration::from_secs(5))
            .pragma("query_only", "ON")
            .pragma("cache_size", "-2048")
            .row_buffer_size(ROWS_AHEAD)
            .thread_name(|number| format!("reader-{number}"));
        let pool = SqlitePoolOptions::new()
            .max_connections(readers.max(1))
            .acquire_timeout(Duration::from_secs(10))
            .test_before_acquire(false)
            .connect_with(options)
            .await
            .map_err(|error| StoreError::of_file(path, fault_of(error)))?;
        Ok(Reader { pool, points: PointReads::new(path, readers.max(1)) })
    }

    pub(crate) async fn close(&self) {
        self.points.close();
        self.pool.close().await;
    }
}

/// What SQLite said through the pool.
pub(crate) fn fault_of(error: sqlx::Error) -> Fault {
    let kind = match &error {
        sqlx::Error::Database(database) => {
            let code = database.code().and_then(|code| code.parse().ok());
            code.map_or(FaultKind::Other, kind_of_code)
        }
        sqlx::Error::PoolTimedOut => FaultKind::Busy,
        sqlx::Error::Io(_) => FaultKind::Io,
        _ => FaultKind::Other,
    };
    Fault::new(kind, error)
}

/// What a read says that failed.
pub(crate) fn failed(error: sqlx::Error) -> StoreError {
    match error {
        sqlx::Error::PoolClosed => StoreError::Closed,
        other => fault_of(other).into(),
    }
}

/// Flows, live and ended: each is in one of two tables.
macro_rules! flows {
    ($condition:literal) => {
        flows!("start_body", "end_body", "labels", $condition)
    };
    ($start:literal, $end:literal, $labels:literal, $condition:literal) => {
        concat!(
            "SELECT id, identity, state, attempts, started, NULL, NULL, tag, name, user, client_id, reason, revision, \
             NULL, ",
            $start,
            ", NULL, NULL FROM flow WHERE ",
            $condition,
            " UNION ALL \
             SELECT id, identity, state, attempts, started, finished, expires, tag, name, user, client_id, NULL, \
             revision, result_read, ",
            $start,
            ", ",
            $end,
            ", ",
            $labels,
            " FROM ended WHERE ",
            $condition,
        )
    };
}

/// Rows as SQL can take any number of them.
fn json(rows: impl IntoIterator<Item = i64>) -> String {
    let numbers: Vec<String> = rows.into_iter().map(|row| row.to_string()).collect();
    format!("[{}]", numbers.join(","))
}

/// Rows of flows, for [`json`].
fn numbers(rows: &[FlowRow]) -> impl Iterator<Item = i64> {
    rows.iter().map(|row| row.0)
}

impl SqliteStore {
    pub(crate) fn pool(&self) -> &SqlitePool {
        &self.reader.pool
    }

    /// Reads that need no thread of their own.
    pub(crate) fn points(&self) -> &PointReads {
        &self.reader.points
    }
}

#[async_trait]
impl IdentityReader for SqliteStore {
    async fn identities(&self) -> Result<Vec<IdentityRecord>, StoreError> {
        let sql =
            "SELECT id, name, generation, epoch, owner, wake_at, unclean, moved_to, key_fp FROM identity ORDER BY id";
        let rows = sqlx::query(sql).fetch_all(self.pool()).await.map_err(failed)?;
        rows.iter().map(identity_record).collect()
    }

    async fn due(&self, now: i64) -> Result<(Vec<(IdentityRow, i64)>, Option<i64>), StoreError> {
        // The next one stands at the end: it is the only one that is later.
        let sql = "SELECT id, wake_at FROM identity WHERE wake_at <= ?1 \
                   UNION ALL SELECT id, wake_at FROM (SELECT id, wake_at FROM identity WHERE wake_at > ?1 \
                   ORDER BY wake_at LIMIT 1) next ORDER BY wake_at";
        let rows = sqlx::query(sql).bind(now).fetch_all(self.pool()).await.map_err(failed)?;
        due(&rows, now)
    }

    async fn left_work(&self, now: i64) -> Result<Vec<LeftWork>, StoreError> {
        // Each table is leapt through by its index, from identity to identity.
        let sql = "WITH RECURSIVE \
             i (identity) AS (SELECT min(identity) FROM initiation UNION ALL \
                 SELECT (SELECT min(identity) FROM initiation WHERE identity > i.identity) FROM i WHERE i.identity IS NOT NULL), \
             l (identity) AS (SELECT min(identity) FROM late_confirm UNION ALL \
                 SELECT (SELECT min(identity) FROM late_confirm WHERE identity > l.identity) FROM l WHERE l.identity IS NOT NULL), \
             o (identity) AS (SELECT min(identity) FROM outbox UNION ALL \
                 SELECT (SELECT min(identity) FROM outbox WHERE identity > o.identity) FROM o WHERE o.identity IS NOT NULL) \
             SELECT identity, max(i), max(l), max(o), max(d) FROM ( \
                 SELECT identity, 1 AS i, 0 AS l, 0 AS o, 0 AS d FROM i \
                 UNION ALL SELECT identity, 0, 1, 0, 0 FROM l UNION ALL SELECT identity, 0, 0, 1, 0 FROM o \
                 UNION ALL SELECT id, 0, 0, 0, 1 FROM identity WHERE wake_at <= ?1 \
             ) WHERE identity IS NOT NULL GROUP BY identity ORDER BY identity";
        let rows = sqlx::query(sql).bind(now).fetch_all(self.pool()).await.map_err(failed)?;
        rows.iter().map(left_work).collect()
    }
}

#[async_trait]
impl FlowReader for SqliteStore {
    async fn live_flows(&self) -> Result<Vec<LiveFlow>, StoreError> {
        // Row by row, because what the database gives of a row is many times as large as what is kept of it.
        let mut rows = sqlx::query("SELECT id, identity, state FROM flow ORDER BY id").fetch(self.pool());
        let mut flows = Vec::new();
        while let Some(row) = rows.try_next().await.map_err(failed)? {
            flows.push(live_flow(&row)?);
        }
        Ok(flows)
    }

    async fn live_flows_of(
        &self,
        identity: IdentityRow,
        after: Option<FlowRow>,
        limit: u32,
    ) -> Result<Vec<LiveFlow>, StoreError> {
        let sql = "SELECT id, identity, state FROM flow WHERE identity = ?1 AND id > ?2 ORDER BY id LIMIT ?3";
        let query = sqlx::query(sql).bind(identity.0).bind(after.map_or(i64::MIN, |row| row.0)).bind(limit);
        query.fetch_all(self.pool()).await.map_err(failed)?.iter().map(live_flow).collect()
    }

    async fn live_counts(&self, identities: &[IdentityRow]) -> Result<Vec<(IdentityRow, u64)>, StoreError> {
        let sql = "SELECT identity, count(*) FROM flow WHERE identity IN (SELECT value FROM json_each(?1)) \
                   GROUP BY identity ORDER BY identity";
        let asked = json(identities.iter().map(|identity| identity.0));
        let rows = sqlx::query(sql).bind(asked).fetch_all(self.pool()).await.map_err(failed)?;
        rows.iter().map(live_count).collect()
    }

    async fn live_states(&self) -> Result<Vec<(FlowState, u64)>, StoreError> {
        let sql = "SELECT state, count(*) FROM flow GROUP BY state ORDER BY state";
        let rows = sqlx::query(sql).fetch_all(self.pool()).await.map_err(failed)?;
        rows.iter().map(state_count).collect()
    }

    async fn flow(&self, row: FlowRow) -> Result<Option<FlowRecord>, StoreError> {
        let found = sqlx::query(flows!("id = ?1")).bind(row.0).fetch_optional(self.pool()).await.map_err(failed)?;
        found.as_ref().map(flow_record).transpose()
    }

    async fn flows(&self, rows: &[FlowRow]) -> Result<Vec<FlowRecord>, StoreError> {
        let sql = concat!(flows!("x''", "NULL", "NULL", "id IN (SELECT value FROM json_each(?1))"), " ORDER BY id");
        let found = sqlx::query(sql).bind(json(numbers(rows))).fetch_all(self.pool()).await.map_err(failed)?;
        found.iter().map(flow_record).collect()
    }

    async fn starts(&self, rows: &[FlowRow]) -> Result<Vec<(FlowRow, Bytes)>, StoreError> {
        // Lengths first: SQLite tells them without reading the bodies.
        let sql = "WITH page AS MATERIALIZED (SELECT id FROM ( \
                       SELECT id, sum(bytes) OVER (ORDER BY id) - bytes AS ahead FROM ( \
                           SELECT id, length(start_body) AS bytes FROM flow WHERE id IN (SELECT value FROM json_each(?1)) \
                           UNION ALL \
                           SELECT id, length(start_body) FROM ended WHERE id IN (SELECT value FROM json_each(?1)) \
                       ) \
                   ) WHERE ahead < ?2) \
                   SELECT id, start_body FROM flow WHERE id IN page \
                   UNION ALL SELECT id, start_body FROM ended WHERE id IN page ORDER BY id";
        let found = sqlx::query(sql)
            .bind(json(numbers(rows)))
            .bind(page_bytes())
            .fetch_all(self.pool())
            .await
            .map_err(failed)?;
        found.iter().map(start).collect()
    }

    async fn list_flows(&self, filter: &FlowFilter) -> Result<Vec<FlowRecord>, StoreError> {
        let states = match &filter.states[..] {
            [] => i64::MAX,
            states => states.iter().fold(0, |mask, state| mask | (1 << *state as i64)),
        };
        // The length of a body is known without reading the body.
        let sql = concat!(
            flows!(
                "x''",
                "CASE WHEN length(end_body) <= ?6 THEN end_body END",
                "NULL",
                "id < ?1 AND (?2 IS NULL OR identity = ?2) AND ((?3 >> state) & 1) = 1 AND (?4 IS NULL OR name = ?4)"
            ),
            " ORDER BY id DESC LIMIT ?5"
        );
        let rows = sqlx::query(sql)
            .bind(filter.before.map_or(i64::MAX, |row| row.0))
            .bind(filter.identity.map(|identity| identity.0))
            .bind(states)
            .bind(filter.name.as_deref())
            .bind(filter.limit)
            .bind(filter.end_bytes)
            .fetch_all(self.pool())
            .await
            .map_err(failed)?;
        rows.iter().map(flow_record).collect()
    }
}

#[async_trait]
impl JournalReader for SqliteStore {
    async fn journal(&self, row: FlowRow) -> Result<Option<StoredJournal>, StoreError> {
        match self.journal_within(row, u64::MAX).await? {
            Some(SizedJournal::Whole(journal)) => Ok(Some(*journal)),
            Some(SizedJournal::Larger(_)) | None => Ok(None),
        }
    }

    async fn journal_within(&self, row: FlowRow, most: u64) -> Result<Option<SizedJournal>, StoreError> {
        let mut snapshot = self.pool().begin().await.map_err(failed)?;
        let found = sqlx::query(flows!("id = ?1")).bind(row.0).fetch_optional(&mut *snapshot).await.map_err(failed)?;
        let Some(found) = found else { return Ok(None) };
        let mut journal = StoredJournal { record: flow_record(&found)?, log: Vec::new(), inbox: Vec::new() };
        let mut read = 0;
        {
            let sql = "SELECT stream, seq, body FROM journal WHERE flow = ?1 ORDER BY stream, seq";
            let mut entries = sqlx::query(sql).bind(row.0).fetch(&mut *snapshot);
            while read <= most
                && let Some(entry) = entries.try_next().await.map_err(failed)?
            {
                let (seq, body) = (sequence(&entry, 1, "journal")?, bytes(&entry, 2, "journal")?);
                read += body.len() as u64;
                match session(row, column(&entry, 0, "journal")?)? {
                    None => journal.log.push((seq, body)),
                    Some(session) => journal.inbox.push((session, seq, body)),
                }
            }
        }
        if read > most {
            let sql = "SELECT sum(length(body)) FROM journal WHERE flow = ?1";
            let size = sqlx::query(sql).bind(row.0).fetch_one(&mut *snapshot).await.map_err(failed)?;
            snapshot.commit().await.map_err(failed)?;
            return Ok(Some(SizedJournal::Larger(column::<i64>(&size, 0, "journal")?.unsigned_abs())));
        }
        snapshot.commit().await.map_err(failed)?;
        Ok(Some(SizedJournal::Whole(Box::new(journal))))
    }

    async fn heads(&self, rows: &[FlowRow]) -> Result<Vec<Head>, StoreError> {
        let mut snapshot = self.pool().begin().await.map_err(failed)?;
        // Lengths first: SQLite tells them without reading the bodies.
        let lengths = sqlx::query(
            "SELECT asked.key, length(journal.body) FROM json_each(?1) AS asked CROSS JOIN journal \
             ON journal.flow = asked.value AND journal.stream = -1 AND journal.seq = \
             (SELECT seq FROM journal WHERE flow = asked.value AND stream = -1 ORDER BY seq DESC LIMIT 1) ORDER BY asked.key",
        )
        .bind(json(numbers(rows)))
        .fetch_all(&mut *snapshot)
        .await
        .map_err(failed)?;
        let (mut ahead, mut page) = (0, rows.len());
        for row in &lengths {
            if ahead >= page_bytes() {
                page = place(row)?;
                break;
            }
            ahead += column::<i64>(row, 1, "journal")?;
        }
        let rows = rows.get(..page).unwrap_or(rows);
        let asked = json(numbers(rows));
        let last = sqlx::query(
            "SELECT asked.key, journal.seq, journal.body FROM json_each(?1) AS asked CROSS JOIN journal \
             ON journal.flow = asked.value AND journal.stream = -1 AND journal.seq = \
             (SELECT seq FROM journal WHERE flow = asked.value AND stream = -1 ORDER BY seq DESC LIMIT 1)",
        )
        .bind(&asked)
        .fetch_all(&mut *snapshot)
        .await
        .map_err(failed)?;
        let inbox = sqlx::query(
            "SELECT asked.key, journal.stream, max(journal.seq) FROM json_each(?1) AS asked CROSS JOIN journal \
             ON journal.flow = asked.value AND journal.stream >= 0 \
             GROUP BY asked.key, journal.stream ORDER BY asked.key, journal.stream",
        )
        .bind(&asked)
        .fetch_all(&mut *snapshot)
        .await
        .map_err(failed)?;
        snapshot.commit().await.map_err(failed)?;
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
}

#[async_trait]
impl MessageReader for SqliteStore {
    async fn initiations(
        &self,
        identity: IdentityRow,
        after: i64,
        limit: u32,
    ) -> Result<Vec<(i64, Bytes)>, StoreError> {
        let sql = "SELECT id, body FROM initiation WHERE identity = ?1 AND id IN ( \
                       SELECT id FROM ( \
                           SELECT id, sum(bytes) OVER (ORDER BY id) - bytes AS ahead FROM ( \
                               SELECT id, length(body) AS bytes FROM initiation WHERE identity = ?1 AND id > ?2 \
                               ORDER BY id LIMIT ?3 \
                           ) \
                       ) WHERE ahead < ?4 \
                   ) ORDER BY id";
        let query = sqlx::query(sql).bind(identity.0).bind(after).bind(limit).bind(page_bytes());
        let rows = query.fetch_all(self.pool()).await.map_err(failed)?;
        rows.iter().map(initiation).collect()
    }

    async fn first_initiations(&self) -> Result<Vec<(IdentityRow, i64)>, StoreError> {
        // Leaps from identity to identity instead of reading every row.
        let sql = "WITH RECURSIVE leap (identity) AS ( \
                       SELECT min(identity) FROM initiation \
                       UNION ALL \
                       SELECT (SELECT min(identity) FROM initiation WHERE identity > leap.identity) \
                       FROM leap WHERE leap.identity IS NOT NULL \
                   ) SELECT identity, (SELECT min(id) FROM initiation WHERE initiation.identity = leap.identity) \
                   FROM leap WHERE identity IS NOT NULL";
        let rows = sqlx::query(sql).fetch_all(self.pool()).await.map_err(failed)?;
        rows.iter().map(first_initiation).collect()
    }

    async fn late_confirms(
        &self,
        identity: IdentityRow,
        after: Option<SessionId>,
        limit: u32,
    ) -> Result<Vec<LateConfirm>, StoreError> {
        let sql = "SELECT session, body FROM late_confirm WHERE identity = ?1 AND session IN ( \
                       SELECT session FROM ( \
                           SELECT session, sum(bytes) OVER (ORDER BY session) - bytes AS ahead FROM ( \
                               SELECT session, length(body) AS bytes FROM late_confirm \
                               WHERE identity = ?1 AND session > ?2 ORDER BY session LIMIT ?3 \
                           ) \
                       ) WHERE ahead < ?4 \
                   ) ORDER BY session";
        let after = after.map_or(i64::MIN, |session| session.0);
        let query = sqlx::query(sql).bind(identity.0).bind(after).bind(limit).bind(page_bytes());
        let rows = query.fetch_all(self.pool()).await.map_err(failed)?;
        rows.iter().map(late_confirm).collect()
    }

    async fn outbox(&self, after: i64, limit: u32) -> Result<Vec<OutboxRow>, StoreError> {
        let sql = "SELECT id, identity, destination, message_id, body, kind, session, seq FROM outbox WHERE id IN ( \
                       SELECT id FROM ( \
                           SELECT id, sum(bytes) OVER (ORDER BY id) - bytes AS ahead FROM ( \
                               SELECT id, length(body) AS bytes FROM outbox WHERE id > ?1 ORDER BY id LIMIT ?2 \
                           ) \
                       ) WHERE ahead < ?3 \
                   ) ORDER BY id";
        let query = sqlx::query(sql).bind(after).bind(limit).bind(page_bytes());
        let rows = query.fetch_all(self.pool()).await.map_err(failed)?;
        rows.iter().map(outbox_row).collect()
    }

    async fn oldest_outbox(&self) -> Result<Option<i64>, StoreError> {
        let sql = "SELECT lived FROM outbox ORDER BY id LIMIT 1";
        let oldest = sqlx::query(sql).fetch_optional(self.pool()).await.map_err(failed)?;
        let written = oldest.map(|row| column::<i64>(&row, 0, "outbox")).transpose()?;
        Ok(written.map(|written| self.lived().saturating_sub(written).max(0)))
    }

    async fn outbox_destinations(&self, after: &str, limit: u32) -> Result<Vec<OutboxDestination>, StoreError> {
        // Leaps from destination to destination by the index.
        let sql = "WITH RECURSIVE leap (destination) AS ( \
                       SELECT min(destination) FROM outbox WHERE destination > ?1 \
                       UNION ALL \
                       SELECT (SELECT min(destination) FROM outbox WHERE destination > leap.destination) \
                       FROM leap WHERE leap.destination IS NOT NULL \
                   ) SELECT destination, (SELECT min(id) FROM outbox WHERE outbox.destination = leap.destination) \
                   FROM leap WHERE destination IS NOT NULL LIMIT ?2";
        let rows = sqlx::query(sql).bind(after).bind(limit).fetch_all(self.pool()).await.map_err(failed)?;
        rows.iter().map(outbox_destination).collect()
    }

    async fn outbox_to(&self, destination: &str, after: i64, limit: u32) -> Result<Vec<OutboxRow>, StoreError> {
        // Lengths first: SQLite tells them without reading the bodies.
        let sql = "SELECT id, identity, destination, message_id, body, kind, session, seq FROM outbox WHERE id IN ( \
                       SELECT id FROM ( \
                           SELECT id, sum(bytes) OVER (ORDER BY id) - bytes AS ahead FROM ( \
                               SELECT outbox.id, length(outbox.body) AS bytes FROM outbox \
                               WHERE outbox.destination = ?1 AND outbox.id > ?2 \
                               AND (SELECT owner FROM identity WHERE identity.id = outbox.identity) = ?5 \
                               ORDER BY outbox.id LIMIT ?3 \
                           ) \
                       ) WHERE ahead < ?4 \
                   ) ORDER BY id";
        let query = sqlx::query(sql).bind(destination).bind(after).bind(limit).bind(page_bytes()).bind(self.run().0);
        let rows = query.fetch_all(self.pool()).await.map_err(failed)?;
        rows.iter().map(outbox_row).collect()
    }
}

#[async_trait]
impl ClientReader for SqliteStore {
    async fn client(&self, identity: IdentityRow, user: &str, client_id: &str) -> Result<Option<FlowRow>, StoreError> {
        let sql = "SELECT flow FROM client WHERE identity = ?1 AND user = ?2 AND client_id = ?3";
        let query = sqlx::query(sql).bind(identity.0).bind(user).bind(client_id);
        let found = query.fetch_optional(self.pool()).await.map_err(failed)?;
        found.map(|row| column(&row, 0, "client").map(FlowRow)).transpose()
    }

    async fn client_uses(&self, user: &str, client_id: &str) -> Result<Vec<(IdentityRow, FlowRow)>, StoreError> {
        // Of a cross join the left table is the outer one: the key of the right one is looked up for each identity.
        let sql = "SELECT client.identity, client.flow FROM identity CROSS JOIN client ON client.identity = identity.id \
                   AND client.user = ?1 AND client.client_id = ?2 ORDER BY identity.id";
        let found = sqlx::query(sql).bind(user).bind(client_id).fetch_all(self.pool()).await.map_err(failed)?;
        found.iter().map(client_use).collect()
    }

    async fn clients(
        &self,
        identity: IdentityRow,
        user: &str,
        after: &str,
        limit: u32,
    ) -> Result<Vec<Client>, StoreError> {
        let sql = "SELECT client.flow, client.client_id, client.user, coalesce(flow.state, ended.state) AS state, \
                   coalesce(flow.tag, ended.tag) AS tag \
                   FROM client LEFT JOIN flow ON flow.id = client.flow LEFT JOIN ended ON ended.id = client.flow \
                   WHERE client.identity = ?1 AND client.user = ?2 AND client.client_id > ?3 \
                   AND coalesce(flow.state, ended.state) IS NOT NULL ORDER BY client.client_id LIMIT ?4";
        let query = sqlx::query(sql).bind(identity.0).bind(user).bind(after).bind(limit);
        let rows = query.fetch_all(self.pool()).await.map_err(failed)?;
        rows.iter().map(client).collect()
    }
}
