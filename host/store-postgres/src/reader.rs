//! Reads: committed rows, through a small pool of connections to the primary.
//!
//! Each read is one statement, so it sees one moment, and no snapshot outlives it. A read that meets a lost connection is
//! asked again for a while.

use async_trait::async_trait;
use bytes::Bytes;
use futures::TryStreamExt;
use maxhost_model::{FlowRow, IdentityRow, SessionId};
use maxhost_store::{
    Client, ClientReader, FlowFilter, FlowReader, FlowRecord, FlowState, Head, IdentityReader, IdentityRecord,
    JournalReader, LateConfirm, LeftRows, LeftWork, LiveFlow, MessageReader, OutboxDestination, OutboxRow,
    SizedJournal, StoreError, StoredJournal,
};
use maxhost_store_sql::columns::{bytes, column, corrupt, count, sequence};
use maxhost_store_sql::host::{
    client, client_use, due, first_initiation, flow_record, identity_record, initiation, late_confirm, left_work,
    live_count, live_flow, outbox_destination, outbox_row, place, session, start, state, state_count,
};
use maxhost_store_sql::page_bytes;
use sqlx::{AssertSqlSafe, Row};

use crate::error::failed;
use crate::open::PostgresStore;
use crate::options::Layout;
use crate::persist::persist;

/// Flows, live and ended: each is in one of two tables.
macro_rules! flows {
    ($condition:literal) => {
        flows!("start_body", "end_body", "labels", "", $condition)
    };
    ($start:literal, $end:literal, $labels:literal, $more:literal, $condition:literal) => {
        concat!(
            "SELECT id, identity, state::int8, attempts, started, NULL::int8 AS finished, NULL::int8 AS expires, tag, \
             name, \"user\", client_id, reason, revision, NULL::int8 AS result_read, ",
            $start,
            " AS start_body, NULL::bytea AS end_body, NULL::bytea AS labels",
            $more,
            " FROM maxhost.flow WHERE ",
            $condition,
            " UNION ALL SELECT id, identity, state::int8, attempts, started, finished, expires, tag, name, \"user\", \
             client_id, NULL, revision, result_read, ",
            $start,
            ", ",
            $end,
            ", ",
            $labels,
            $more,
            " FROM maxhost.ended WHERE ",
            $condition,
        )
    };
}

/// One table's part of a list of flows: without bodies. The table is not looked into where none of its states is wanted.
macro_rules! list {
    ($table:literal, $wanted:literal, $finished:literal, $expires:literal, $reason:literal, $read:literal, $end:literal) => {
        concat!(
            "SELECT id, identity, state::int8, attempts, started, ",
            $finished,
            " AS finished, ",
            $expires,
            " AS expires, tag, name, \"user\", client_id, ",
            $reason,
            " AS reason, revision, ",
            $read,
            " AS result_read, ''::bytea AS start_body, ",
            $end,
            " AS end_body, NULL::bytea AS labels FROM maxhost.",
            $table,
            " WHERE ",
            $wanted,
            " AND id < $1 AND ($2::int8 IS NULL OR identity = $2) AND state = ANY($3) AND ($4::text IS NULL OR name = $4) \
             ORDER BY id DESC LIMIT $5"
        )
    };
}

/// The last of the states of flows that have not ended, which are in a table of their own.
const LAST_LIVE: i16 = FlowState::Hospital as i16;

/// From identity to identity by a table's index, instead of reading every row.
macro_rules! leap {
    ($name:literal, $table:literal) => {
        concat!(
            "SELECT min(identity) FROM maxhost.",
            $table,
            " UNION ALL SELECT (SELECT min(t.identity) FROM maxhost.",
            $table,
            " t WHERE t.identity > leap.identity) FROM ",
            $name,
            " leap WHERE leap.identity IS NOT NULL"
        )
    };
}

/// The rows of a page by their keys, each behind fewer than `$4` bytes of bodies: lengths first, because the server tells them
/// without reading the bodies. `$1` is the identity, `$2` the key before the page, `$3` the most rows.
macro_rules! page_of {
    ($table:literal, $key:literal) => {
        concat!(
            "SELECT ",
            $key,
            ", body FROM maxhost.",
            $table,
            " WHERE identity = $1 AND ",
            $key,
            " IN (SELECT ",
            $key,
            " FROM (SELECT ",
            $key,
            ", sum(bytes) OVER (ORDER BY ",
            $key,
            ") - bytes AS ahead FROM (SELECT ",
            $key,
            ", octet_length(body) AS bytes FROM maxhost.",
            $table,
            " WHERE identity = $1 AND ",
            $key,
            " > $2 ORDER BY ",
            $key,
            " LIMIT $3) page) lengths WHERE ahead < $4) ORDER BY ",
            $key
        )
    };
}

macro_rules! outbox {
    ($condition:literal) => {
        concat!(
            "SELECT id, identity, destination, message_id, body, kind::int8, session, seq FROM maxhost.outbox WHERE ",
            $condition
        )
    };
}

/// Rows as an array.
fn ids(rows: &[FlowRow]) -> Vec<i64> {
    rows.iter().map(|row| row.0).collect()
}

impl PostgresStore {
    /// How many flows that have not ended each identity has in each state.
    pub(crate) async fn live_states_of_each(&self) -> Result<Vec<(IdentityRow, FlowState, u64)>, StoreError> {
        let sql = "SELECT identity, state::int8, count(*)::int8 FROM maxhost.flow GROUP BY 1, 2";
        let rows = persist!(sqlx::query(sql).fetch_all(&self.pool)).map_err(failed)?;
        let read = |row| Ok((IdentityRow(column(row, 0, "flow")?), state(row, 1)?, count(row, 2, "flow")?));
        rows.iter().map(read).collect()
    }
}

#[async_trait]
impl IdentityReader for PostgresStore {
    async fn identities(&self) -> Result<Vec<IdentityRecord>, StoreError> {
        let sql = "SELECT id, name, generation, epoch, owner, wake_at, unclean, moved_to, key_fp \
                   FROM maxhost.identity ORDER BY id";
        let rows = persist!(sqlx::query(sql).fetch_all(&self.pool)).map_err(failed)?;
        rows.iter().map(identity_record).collect()
    }

    async fn due(&self, now: i64) -> Result<(Vec<(IdentityRow, i64)>, Option<i64>), StoreError> {
        // The next one stands at the end: it is the only one that is later.
        let sql = "SELECT id, wake_at FROM maxhost.identity WHERE wake_at <= $1 \
                   UNION ALL SELECT id, wake_at FROM (SELECT id, wake_at FROM maxhost.identity WHERE wake_at > $1 \
                   ORDER BY wake_at LIMIT 1) next ORDER BY wake_at";
        let rows = persist!(sqlx::query(sql).bind(now).fetch_all(&self.pool)).map_err(failed)?;
        due(&rows, now)
    }

    async fn left_work(&self, now: i64) -> Result<Vec<LeftWork>, StoreError> {
        // Each table is leapt through by its index, from identity to identity.
        let sql = concat!(
            "WITH RECURSIVE i (identity) AS (",
            leap!("i", "initiation"),
            "), l (identity) AS (",
            leap!("l", "late_confirm"),
            "), o (identity) AS (",
            leap!("o", "outbox"),
            ") SELECT identity, bool_or(i), bool_or(l), bool_or(o), bool_or(d) FROM ( \
                 SELECT identity, true AS i, false AS l, false AS o, false AS d FROM i \
                 UNION ALL SELECT identity, false, true, false, false FROM l \
                 UNION ALL SELECT identity, false, false, true, false FROM o \
                 UNION ALL SELECT id, false, false, false, true FROM maxhost.identity WHERE wake_at <= $1 \
             ) work WHERE identity IS NOT NULL GROUP BY identity ORDER BY identity"
        );
        let rows = persist!(sqlx::query(sql).bind(now).fetch_all(&self.pool)).map_err(failed)?;
        rows.iter().map(left_work).collect()
    }

    async fn left_rows(&self, identity: IdentityRow) -> Result<LeftRows, StoreError> {
        const OF_ALL: &str = "SELECT EXISTS (SELECT FROM maxhost.flow WHERE identity = $1), \
                              EXISTS (SELECT FROM maxhost.initiation WHERE identity = $1), \
                              EXISTS (SELECT FROM maxhost.late_confirm WHERE identity = $1), \
                              EXISTS (SELECT FROM maxhost.outbox WHERE identity = $1), ";
        // Where each identity has tables of its own, a statement of each would be planned anew: there it is told whether it has
        // a ledger, in which there may be something.
        let sql = match self.layout {
            Layout::Shared => {
                "EXISTS (SELECT FROM maxhost.ledger_tx WHERE identity = $1 AND status < 2 AND status = 1)"
            }
            Layout::Schemas => "EXISTS (SELECT FROM maxhost.identity WHERE id = $1 AND ledger > 0)",
        };
        let sql = format!("{OF_ALL}{sql}");
        let query = || sqlx::query(AssertSqlSafe(sql.clone())).bind(identity.0);
        let row = persist!(query().fetch_one(&self.pool)).map_err(failed)?;
        Ok(LeftRows {
            flows: column(&row, 0, "flow")?,
            initiations: column(&row, 1, "initiation")?,
            late_confirms: column(&row, 2, "late_confirm")?,
            outbox: column(&row, 3, "outbox")?,
            unsettled: column(&row, 4, "ledger_tx")?,
        })
    }
}

#[async_trait]
impl FlowReader for PostgresStore {
    async fn live_flows(&self) -> Result<Vec<LiveFlow>, StoreError> {
        let sql = "SELECT id, identity, state::int8 FROM maxhost.flow ORDER BY id";
        // Row by row, because what the server gives of a row is many times as large as what is kept of it.
        let read = async || {
            let (mut flows, mut rows) = (Vec::new(), sqlx::query(sql).fetch(&self.pool));
            while let Some(row) = rows.try_next().await? {
                match live_flow(&row) {
                    Ok(flow) => flows.push(flow),
                    Err(broken) => return Ok(Err(broken)),
                }
            }
            Ok::<Result<_, StoreError>, sqlx::Error>(Ok(flows))
        };
        persist!(read()).map_err(failed)?
    }

    async fn live_flows_of(
        &self,
        identity: IdentityRow,
        after: Option<FlowRow>,
        limit: u32,
    ) -> Result<Vec<LiveFlow>, StoreError> {
        let sql =
            "SELECT id, identity, state::int8 FROM maxhost.flow WHERE identity = $1 AND id > $2 ORDER BY id LIMIT $3";
        let after = after.map_or(i64::MIN, |row| row.0);
        let query = || sqlx::query(sql).bind(identity.0).bind(after).bind(i64::from(limit));
        persist!(query().fetch_all(&self.pool)).map_err(failed)?.iter().map(live_flow).collect()
    }

    async fn live_counts(&self, identities: &[IdentityRow]) -> Result<Vec<(IdentityRow, u64)>, StoreError> {
        let sql = "SELECT identity, count(*)::int8 FROM maxhost.flow WHERE identity = ANY($1) \
                   GROUP BY identity ORDER BY identity";
        let asked: Vec<i64> = identities.iter().map(|identity| identity.0).collect();
        let rows = persist!(sqlx::query(sql).bind(&asked).fetch_all(&self.pool)).map_err(failed)?;
        rows.iter().map(live_count).collect()
    }

    async fn live_states(&self) -> Result<Vec<(FlowState, u64)>, StoreError> {
        let sql = "SELECT state::int8, count(*)::int8 FROM maxhost.flow GROUP BY 1 ORDER BY 1";
        let rows = persist!(sqlx::query(sql).fetch_all(&self.pool)).map_err(failed)?;
        rows.iter().map(state_count).collect()
    }

    async fn flow(&self, row: FlowRow) -> Result<Option<FlowRecord>, StoreError> {
        let found = persist!(sqlx::query(flows!("id = $1")).bind(row.0).fetch_optional(&self.pool)).map_err(failed)?;
        found.as_ref().map(flow_record).transpose()
    }

    async fn flows(&self, rows: &[FlowRow]) -> Result<Vec<FlowRecord>, StoreError> {
        let sql = concat!(flows!("''::bytea", "NULL::bytea", "NULL::bytea", "", "id = ANY($1)"), " ORDER BY id");
        let ids = ids(rows);
        let found = persist!(sqlx::query(sql).bind(&ids).fetch_all(&self.pool)).map_err(failed)?;
        found.iter().map(flow_record).collect()
    }

    async fn starts(&self, rows: &[FlowRow]) -> Result<Vec<(FlowRow, Bytes)>, StoreError> {
        // Lengths first: the server tells them without reading the bodies.
        let sql = "WITH page AS MATERIALIZED (SELECT id FROM ( \
                   SELECT id, sum(bytes) OVER (ORDER BY id) - bytes AS ahead FROM ( \
                   SELECT id, octet_length(start_body) AS bytes FROM maxhost.flow WHERE id = ANY($1) \
                   UNION ALL SELECT id, octet_length(start_body) FROM maxhost.ended WHERE id = ANY($1)) asked) lengths \
                   WHERE ahead < $2) \
                   SELECT f.id, f.start_body FROM page JOIN maxhost.flow f ON f.id = page.id \
                   UNION ALL SELECT e.id, e.start_body FROM page JOIN maxhost.ended e ON e.id = page.id ORDER BY id";
        let ids = ids(rows);
        let found = persist!(sqlx::query(sql).bind(&ids).bind(page_bytes()).fetch_all(&self.pool)).map_err(failed)?;
        found.iter().map(start).collect()
    }

    async fn list_flows(&self, filter: &FlowFilter) -> Result<Vec<FlowRecord>, StoreError> {
        let states: Vec<i16> = match &filter.states[..] {
            [] => FlowState::ALL.iter().map(|state| *state as i16).collect(),
            states => states.iter().map(|state| *state as i16).collect(),
        };
        // The length of a body is known without reading the body. Each table gives a page of its own at most.
        let sql = concat!(
            "SELECT * FROM ((",
            list!("flow", "$7::bool", "NULL::int8", "NULL::int8", "reason", "NULL::int8", "NULL::bytea"),
            ") UNION ALL (",
            list!(
                "ended",
                "$8::bool",
                "finished",
                "expires",
                "NULL",
                "result_read",
                "CASE WHEN octet_length(end_body) <= $6 THEN end_body END"
            ),
            ")) page ORDER BY id DESC LIMIT $5"
        );
        let query = || {
            sqlx::query(sql)
                .bind(filter.before.map_or(i64::MAX, |row| row.0))
                .bind(filter.identity.map(|identity| identity.0))
                .bind(&states)
                .bind(filter.name.as_deref())
                .bind(i64::from(filter.limit))
                .bind(i64::from(filter.end_bytes))
                .bind(states.iter().any(|state| *state <= LAST_LIVE))
                .bind(states.iter().any(|state| *state > LAST_LIVE))
        };
        let rows = persist!(query().fetch_all(&self.pool)).map_err(failed)?;
        rows.iter().map(flow_record).collect()
    }
}

#[async_trait]
impl JournalReader for PostgresStore {
    async fn journal(&self, row: FlowRow) -> Result<Option<StoredJournal>, StoreError> {
        match self.journal_within(row, u64::MAX).await? {
            Some(SizedJournal::Whole(journal)) => Ok(Some(*journal)),
            Some(SizedJournal::Larger(_)) | None => Ok(None),
        }
    }

    async fn journal_within(&self, row: FlowRow, most: u64) -> Result<Option<SizedJournal>, StoreError> {
        // One statement, so that the flow and its journal are of one moment. The first row is the flow.
        let sql = concat!(
            flows!(
                "start_body",
                "end_body",
                "labels",
                ", NULL::int8 AS stream, NULL::int8 AS seq, NULL::bytea AS body",
                "id = $1"
            ),
            " UNION ALL SELECT flow, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, \
             NULL, NULL, stream::int8, seq, body FROM maxhost.journal WHERE flow = $1 ORDER BY stream NULLS FIRST, seq"
        );
        let read = async || {
            let (mut rows, mut bytes) = (Vec::new(), 0);
            let mut read = sqlx::query(sql).bind(row.0).fetch(&self.pool);
            while bytes <= most
                && let Some(row) = read.try_next().await?
            {
                bytes += row.try_get::<Option<&[u8]>, _>(19)?.map_or(0, <[u8]>::len) as u64;
                rows.push(row);
            }
            Ok::<_, sqlx::Error>((rows, bytes))
        };
        let (rows, bytes_read) = persist!(read()).map_err(failed)?;
        if bytes_read > most {
            let sql = "SELECT coalesce(sum(octet_length(body)), 0)::int8 FROM maxhost.journal WHERE flow = $1";
            let size: i64 = persist!(sqlx::query_scalar(sql).bind(row.0).fetch_one(&self.pool)).map_err(failed)?;
            return Ok(Some(SizedJournal::Larger(size.unsigned_abs().max(bytes_read))));
        }
        let Some((flow, entries)) = rows.split_first() else { return Ok(None) };
        if column::<Option<i64>>(flow, 17, "journal")?.is_some() {
            return Err(corrupt("journal", format!("{}: its flow is not there", row.0)));
        }
        let mut journal = StoredJournal { record: flow_record(flow)?, log: Vec::new(), inbox: Vec::new() };
        for entry in entries {
            let (seq, body) = (sequence(entry, 18, "journal")?, bytes(entry, 19, "journal")?);
            match session(row, column(entry, 17, "journal")?)? {
                None => journal.log.push((seq, body)),
                Some(session) => journal.inbox.push((session, seq, body)),
            }
        }
        Ok(Some(SizedJournal::Whole(Box::new(journal))))
    }

    async fn heads(&self, rows: &[FlowRow]) -> Result<Vec<Head>, StoreError> {
        // Lengths first: the server tells them without reading the bodies. A row without a stream says how far the page goes.
        let sql = "WITH last AS MATERIALIZED ( \
                       SELECT a.flow, a.place, j.seq, coalesce(j.bytes, 0) AS bytes \
                       FROM unnest($1::int8[]) WITH ORDINALITY a (flow, place) LEFT JOIN LATERAL \
                       (SELECT seq, octet_length(body) AS bytes FROM maxhost.journal WHERE flow = a.flow AND stream = -1 \
                        ORDER BY seq DESC LIMIT 1) j ON true), \
                   page AS MATERIALIZED (SELECT flow, place, seq FROM \
                       (SELECT flow, place, seq, sum(bytes) OVER (ORDER BY place) - bytes AS ahead FROM last) lengths \
                       WHERE ahead < $2) \
                   SELECT max(place) AS place, NULL::int8 AS stream, NULL::int8 AS seq, NULL::bytea AS body FROM page \
                   UNION ALL \
                   SELECT p.place, -1, j.seq, j.body FROM page p \
                   JOIN maxhost.journal j ON j.flow = p.flow AND j.stream = -1 AND j.seq = p.seq \
                   UNION ALL \
                   SELECT p.place, j.stream::int8, max(j.seq), NULL FROM page p \
                   JOIN maxhost.journal j ON j.flow = p.flow AND j.stream >= 0 \
                   GROUP BY p.place, j.stream ORDER BY place, stream";
        let ids = ids(rows);
        let found = persist!(sqlx::query(sql).bind(&ids).bind(page_bytes()).fetch_all(&self.pool)).map_err(failed)?;
        let mut heads: Vec<Head> = rows.iter().map(|&flow| Head { flow, last: None, inbox: Vec::new() }).collect();
        for row in &found {
            let Some(stream) = column::<Option<i64>>(row, 1, "journal")? else {
                let end = column::<Option<i64>>(row, 0, "journal")?.and_then(|end| usize::try_from(end).ok());
                heads.truncate(end.unwrap_or(0));
                continue;
            };
            // Places count from 1.
            let Some(head) = place(row)?.checked_sub(1).and_then(|place| heads.get_mut(place)) else { continue };
            let seq = sequence(row, 2, "journal")?;
            match session(head.flow, stream)? {
                None => head.last = Some((seq, bytes(row, 3, "journal")?)),
                Some(session) => head.inbox.push((session, seq)),
            }
        }
        Ok(heads)
    }
}

#[async_trait]
impl MessageReader for PostgresStore {
    async fn initiations(
        &self,
        identity: IdentityRow,
        after: i64,
        limit: u32,
    ) -> Result<Vec<(i64, Bytes)>, StoreError> {
        let sql = page_of!("initiation", "id");
        let query = || sqlx::query(sql).bind(identity.0).bind(after).bind(i64::from(limit)).bind(page_bytes());
        let rows = persist!(query().fetch_all(&self.pool)).map_err(failed)?;
        rows.iter().map(initiation).collect()
    }

    async fn first_initiations(&self) -> Result<Vec<(IdentityRow, i64)>, StoreError> {
        let sql = concat!(
            "WITH RECURSIVE i (identity) AS (",
            leap!("i", "initiation"),
            ") SELECT identity, (SELECT min(id) FROM maxhost.initiation f WHERE f.identity = i.identity) \
             FROM i WHERE identity IS NOT NULL ORDER BY identity"
        );
        let rows = persist!(sqlx::query(sql).fetch_all(&self.pool)).map_err(failed)?;
        rows.iter().map(first_initiation).collect()
    }

    async fn late_confirms(
        &self,
        identity: IdentityRow,
        after: Option<SessionId>,
        limit: u32,
    ) -> Result<Vec<LateConfirm>, StoreError> {
        let sql = page_of!("late_confirm", "session");
        let after = after.map_or(i64::MIN, |session| session.0);
        let query = || sqlx::query(sql).bind(identity.0).bind(after).bind(i64::from(limit)).bind(page_bytes());
        let rows = persist!(query().fetch_all(&self.pool)).map_err(failed)?;
        rows.iter().map(late_confirm).collect()
    }

    async fn outbox(&self, after: i64, limit: u32) -> Result<Vec<OutboxRow>, StoreError> {
        let sql = outbox!(
            "id IN (SELECT id FROM (SELECT id, sum(bytes) OVER (ORDER BY id) - bytes AS ahead FROM \
             (SELECT id, octet_length(body) AS bytes FROM maxhost.outbox WHERE id > $1 ORDER BY id LIMIT $2) page) lengths \
             WHERE ahead < $3) ORDER BY id"
        );
        let query = || sqlx::query(sql).bind(after).bind(i64::from(limit)).bind(page_bytes());
        let rows = persist!(query().fetch_all(&self.pool)).map_err(failed)?;
        rows.iter().map(outbox_row).collect()
    }

    async fn oldest_outbox(&self) -> Result<Option<i64>, StoreError> {
        let sql = "SELECT lived FROM maxhost.outbox ORDER BY id LIMIT 1";
        let oldest = persist!(sqlx::query(sql).fetch_optional(&self.pool)).map_err(failed)?;
        let written: Option<i64> = oldest.map(|row| column(&row, 0, "outbox")).transpose()?;
        Ok(written.map(|written| self.lived.now().saturating_sub(written).max(0)))
    }

    async fn outbox_destinations(&self, after: &str, limit: u32) -> Result<Vec<OutboxDestination>, StoreError> {
        // Leaps from destination to destination by the index.
        let sql = "WITH RECURSIVE leap (destination) AS ( \
                       SELECT min(destination) FROM maxhost.outbox WHERE destination > $1 \
                       UNION ALL \
                       SELECT (SELECT min(destination) FROM maxhost.outbox o WHERE o.destination > leap.destination) \
                       FROM leap WHERE leap.destination IS NOT NULL \
                   ) SELECT destination, (SELECT min(id) FROM maxhost.outbox o WHERE o.destination = leap.destination) \
                   FROM leap WHERE destination IS NOT NULL LIMIT $2";
        let query = || sqlx::query(sql).bind(after).bind(i64::from(limit));
        let rows = persist!(query().fetch_all(&self.pool)).map_err(failed)?;
        // Between the two looks at the table nothing changes, because they are of one statement: none lacks a first row.
        rows.iter().map(outbox_destination).collect()
    }

    async fn outbox_to(&self, destination: &str, after: i64, limit: u32) -> Result<Vec<OutboxRow>, StoreError> {
        // Lengths first: the server tells them without reading the bodies. Whose a row is, is looked up row by row, so that no
        // plan reads all identities.
        let sql = outbox!(
            "id IN (SELECT id FROM (SELECT id, sum(bytes) OVER (ORDER BY id) - bytes AS ahead FROM \
             (SELECT o.id, octet_length(o.body) AS bytes FROM maxhost.outbox o WHERE o.destination = $1 AND o.id > $2 \
             AND (SELECT i.owner FROM maxhost.identity i WHERE i.id = o.identity) = $5 \
             ORDER BY o.id LIMIT $3) page) lengths WHERE ahead < $4) ORDER BY id"
        );
        let (bytes, run) = (page_bytes(), self.run.0);
        let query = || sqlx::query(sql).bind(destination).bind(after).bind(i64::from(limit)).bind(bytes).bind(run);
        let rows = persist!(query().fetch_all(&self.pool)).map_err(failed)?;
        rows.iter().map(outbox_row).collect()
    }
}

#[async_trait]
impl ClientReader for PostgresStore {
    async fn client(&self, identity: IdentityRow, user: &str, client_id: &str) -> Result<Option<FlowRow>, StoreError> {
        let sql = "SELECT flow FROM maxhost.client WHERE identity = $1 AND \"user\" = $2 AND client_id = $3";
        let query = || sqlx::query(sql).bind(identity.0).bind(user).bind(client_id);
        let found = persist!(query().fetch_optional(&self.pool)).map_err(failed)?;
        found.map(|row| column(&row, 0, "client").map(FlowRow)).transpose()
    }

    async fn client_uses(&self, user: &str, client_id: &str) -> Result<Vec<(IdentityRow, FlowRow)>, StoreError> {
        // The limit keeps the key being looked up for each identity: the table may be much larger than there are identities.
        let sql = "SELECT i.id, c.flow FROM maxhost.identity i CROSS JOIN LATERAL (SELECT flow FROM maxhost.client \
                   WHERE identity = i.id AND \"user\" = $1 AND client_id = $2 LIMIT 1) c ORDER BY i.id";
        let query = || sqlx::query(sql).bind(user).bind(client_id);
        let found = persist!(query().fetch_all(&self.pool)).map_err(failed)?;
        found.iter().map(client_use).collect()
    }

    async fn clients(
        &self,
        identity: IdentityRow,
        user: &str,
        after: &str,
        limit: u32,
    ) -> Result<Vec<Client>, StoreError> {
        let sql = "SELECT c.flow, c.client_id, c.\"user\", coalesce(f.state, e.state)::int8, coalesce(f.tag, e.tag) \
                   FROM maxhost.client c LEFT JOIN maxhost.flow f ON f.id = c.flow \
                   LEFT JOIN maxhost.ended e ON e.id = c.flow \
                   WHERE c.identity = $1 AND c.\"user\" = $2 AND c.client_id > $3 \
                   AND coalesce(f.state, e.state) IS NOT NULL ORDER BY c.client_id LIMIT $4";
        let query = || sqlx::query(sql).bind(identity.0).bind(user).bind(after).bind(i64::from(limit));
        let rows = persist!(query().fetch_all(&self.pool)).map_err(failed)?;
        rows.iter().map(client).collect()
    }
}
