//! The one statement that writes a batch.
//!
//! Rows go over as arrays, a column each. Parts that have nothing to write are left out, so there are few different
//! texts, and each is planned once a connection. No part sees what another has written, and each row is in one part
//! only: that is what [`Pending`] is for.

use std::collections::BTreeMap;

use maxhost_model::{FlowRow, IdentityRow, RunId};
use maxhost_store::{FlowState, OutboxContent};
use sqlx::Arguments;
use sqlx::encode::Encode;
use sqlx::postgres::{PgArguments, PgHasArrayType, Postgres};
use sqlx::types::Type;

use crate::ledger::write::ledger_parts;
use crate::options::Layout;
use crate::pending::{Ending, Pending, Touched};

/// What a batch stands on: it is written only if all of this holds.
#[derive(Debug)]
pub(crate) struct Fence<'f> {
    pub run: RunId,
    /// The batch before has this number less one.
    pub batch: i64,
    /// Generation and epoch of each identity that is written for.
    pub held: &'f BTreeMap<IdentityRow, (i64, i64)>,
}

/// A statement and its arguments.
pub(crate) struct Write {
    pub sql: String,
    pub arguments: PgArguments,
    /// Whether there are few statements like it, so that its plan is worth keeping.
    pub kept: bool,
}

/// Collects parts of a statement.
pub(crate) struct Builder {
    arguments: PgArguments,
    parts: Vec<String>,
    count: usize,
    /// What each part depends on.
    condition: &'static str,
    failed: Option<sqlx::error::BoxDynError>,
}

impl Builder {
    /// One whose parts depend on nothing.
    pub(crate) fn new() -> Builder {
        Builder { arguments: PgArguments::default(), parts: Vec::new(), count: 0, condition: "true", failed: None }
    }

    /// The parts, and the arguments of all.
    pub(crate) fn finish(self) -> Result<(Vec<String>, PgArguments), sqlx::Error> {
        match self.failed {
            Some(error) => Err(sqlx::Error::Encode(error)),
            None => Ok((self.parts, self.arguments)),
        }
    }

    /// A name for the next part, of which there may be many alike, and what it depends on.
    pub(crate) fn next(&self) -> (String, &'static str) {
        (format!("part_{}", self.parts.len()), self.condition)
    }

    /// Adds an argument and gives its name.
    pub(crate) fn bind<'q, T: Encode<'q, Postgres> + Type<Postgres>>(&mut self, value: T) -> String {
        if let Err(error) = self.arguments.add(value) {
            self.failed.get_or_insert(error);
        }
        self.count += 1;
        format!("${}", self.count)
    }

    /// Adds a column as an array of this type.
    pub(crate) fn column<'q, T>(&mut self, kind: &str, values: Vec<T>) -> String
    where
        T: PgHasArrayType + Type<Postgres> + Encode<'q, Postgres>,
        Vec<T>: Encode<'q, Postgres>,
    {
        let name = self.bind(values);
        format!("{name}::{kind}[]")
    }

    pub(crate) fn part(&mut self, sql: String) {
        self.parts.push(sql);
    }
}

/// Makes the statement. Without a fence it writes unconditionally, for a transaction that has the locks already.
pub(crate) fn statement(pending: &Pending, layout: Layout, fence: Option<&Fence<'_>>) -> Result<Write, sqlx::Error> {
    let condition = if fence.is_some() { "EXISTS (SELECT FROM fence)" } else { "true" };
    let mut b = Builder { condition, ..Builder::new() };
    if let Some(fence) = fence {
        fence_part(&mut b, fence);
    }
    flow_parts(&mut b, pending);
    journal_part(&mut b, pending);
    message_parts(&mut b, pending);
    client_parts(&mut b, pending);
    release_part(&mut b, pending);
    ledger_parts(&mut b, &pending.ledger, layout);
    let kept = layout == Layout::Shared || pending.ledger.is_empty();
    let answer = if fence.is_some() { "(SELECT count(*) FROM fence)" } else { "1::bigint" };
    let (parts, arguments) = b.finish()?;
    let sql = match parts.is_empty() {
        true => format!("SELECT {answer}"),
        false => format!("WITH {} SELECT {answer}", parts.join(", ")),
    };
    Ok(Write { sql, arguments, kept })
}

/// Locks the rows of the identities, compares them, and counts the batch: the first two in the order of the rows, so
/// that no two hosts wait for each other.
fn fence_part(b: &mut Builder, fence: &Fence<'_>) {
    let ids: Vec<i64> = fence.held.keys().map(|identity| identity.0).collect();
    let generations: Vec<i64> = fence.held.values().map(|token| token.0).collect();
    let epochs: Vec<i64> = fence.held.values().map(|token| token.1).collect();
    let (ids, generations, epochs) = (b.column("int8", ids), b.column("int8", generations), b.column("int8", epochs));
    let (run, batch) = (b.bind(fence.run.0), b.bind(fence.batch));
    b.part(format!(
        "held AS MATERIALIZED (SELECT i.id FROM maxhost.identity i \
         JOIN unnest({ids}, {generations}, {epochs}) u (id, g, e) \
         ON i.id = u.id AND i.generation = u.g AND i.epoch = u.e \
         WHERE i.owner = {run} ORDER BY i.id FOR NO KEY UPDATE OF i), \
         fence AS (UPDATE maxhost.committer SET batch = {batch} WHERE run = {run} AND batch = {batch} - 1 \
         AND (SELECT count(*) FROM held) = cardinality({ids}) RETURNING batch)"
    ));
}

fn flow_parts(b: &mut Builder, pending: &Pending) {
    let (mut new, mut changed, mut ended_new, mut ended) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (row, touched) in pending.flows.iter() {
        match (&touched.new, &touched.end) {
            (Some(_), None) => new.push((*row, touched)),
            (Some(_), Some(end)) if end.keep.is_some() => ended_new.push((*row, touched)),
            (Some(_), Some(_)) => {}
            (None, Some(end)) => ended.push((*row, touched, end)),
            (None, None) if touched.change.is_some() || touched.waiting.is_some() => changed.push((*row, touched)),
            (None, None) => {}
        }
    }
    new_flows(b, &new);
    changed_flows(b, &changed);
    ended_flows(b, &ended);
    new_ended_flows(b, &ended_new);
    if !pending.dropped.is_empty() {
        let rows = b.column("int8", pending.dropped.iter().map(|(row, ())| row.0).collect());
        b.part(format!("dropped AS (DELETE FROM maxhost.ended WHERE id = ANY({rows}) AND {})", b.condition));
    }
}

/// The columns that come from a flow's start, as a flow has them live and ended.
fn start_columns(b: &mut Builder, flows: &[(FlowRow, &Touched)]) -> String {
    let starts = || flows.iter().filter_map(|(_, touched)| touched.new.as_deref());
    let tags: Vec<[u8; 16]> = starts().map(|new| new.id.to_bytes()).collect();
    [
        b.column("int8", flows.iter().map(|(row, _)| row.0).collect()),
        b.column("int8", flows.iter().map(|(_, touched)| touched.flow.identity.0).collect()),
        b.column("int8", starts().map(|new| new.started).collect()),
        b.column("bytea", tags.iter().map(|tag| &tag[..]).collect::<Vec<&[u8]>>()),
        b.column("text", starts().map(|new| &*new.name).collect::<Vec<&str>>()),
        b.column("text", starts().map(|new| new.user.as_deref()).collect::<Vec<Option<&str>>>()),
        b.column("text", starts().map(|new| new.client_id.as_deref()).collect::<Vec<Option<&str>>>()),
        b.column("bytea", starts().map(|new| &new.start[..]).collect::<Vec<&[u8]>>()),
        b.column("int8", flows.iter().map(|(_, touched)| i64::from(touched.flow.revision)).collect()),
        b.column("int8", flows.iter().map(|(_, touched)| attempts(touched).unwrap_or(0)).collect()),
    ]
    .join(", ")
}

const START_COLUMNS: &str = "id, identity, started, tag, name, \"user\", client_id, start_body, revision, attempts";

fn attempts(touched: &Touched) -> Option<i64> {
    touched.change.as_ref().map(|change| change.attempts.into())
}

fn new_flows(b: &mut Builder, flows: &[(FlowRow, &Touched)]) {
    if flows.is_empty() {
        return;
    }
    let start = start_columns(b, flows);
    let state = |touched: &Touched| touched.change.as_ref().map_or(FlowState::Live, |change| change.state) as i16;
    let reason = |touched: &'_ Touched| touched.change.as_ref().and_then(|change| change.reason.clone());
    let waiting = |touched: &Touched| touched.waiting.unwrap_or_default();
    let states = b.column("int2", flows.iter().map(|(_, touched)| state(touched)).collect());
    let reasons = b.column("text", flows.iter().map(|(_, touched)| reason(touched)).collect::<Vec<Option<String>>>());
    let messages = b.column("int8", flows.iter().map(|(_, touched)| waiting(touched).messages.cast_signed()).collect());
    let bytes = b.column("int8", flows.iter().map(|(_, touched)| waiting(touched).bytes.cast_signed()).collect());
    b.part(format!(
        "started AS (INSERT INTO maxhost.flow ({START_COLUMNS}, state, reason, waiting_messages, waiting_bytes) \
         SELECT * FROM unnest({start}, {states}, {reasons}, {messages}, {bytes}) WHERE {})",
        b.condition
    ));
}

fn changed_flows(b: &mut Builder, flows: &[(FlowRow, &Touched)]) {
    if flows.is_empty() {
        return;
    }
    let change = |touched: &'_ Touched| touched.change.clone();
    let rows = b.column("int8", flows.iter().map(|(row, _)| row.0).collect());
    let states: Vec<Option<i16>> =
        flows.iter().map(|(_, touched)| touched.change.as_ref().map(|change| change.state as i16)).collect();
    let reasons: Vec<Option<String>> =
        flows.iter().map(|(_, touched)| change(touched).and_then(|change| change.reason)).collect();
    let attempts: Vec<Option<i64>> = flows.iter().map(|(_, touched)| attempts(touched)).collect();
    let revisions: Vec<i64> = flows.iter().map(|(_, touched)| touched.flow.revision.into()).collect();
    let messages: Vec<Option<i64>> =
        flows.iter().map(|(_, touched)| touched.waiting.map(|waiting| waiting.messages.cast_signed())).collect();
    let bytes: Vec<Option<i64>> =
        flows.iter().map(|(_, touched)| touched.waiting.map(|waiting| waiting.bytes.cast_signed())).collect();
    let columns = [
        rows,
        b.column("int2", states),
        b.column("text", reasons),
        b.column("int8", attempts),
        b.column("int8", revisions),
        b.column("int8", messages),
        b.column("int8", bytes),
    ]
    .join(", ");
    b.part(format!(
        "changed AS (UPDATE maxhost.flow f SET state = coalesce(u.state, f.state), \
         reason = CASE WHEN u.state IS NULL THEN f.reason ELSE u.reason END, \
         attempts = coalesce(u.attempts, f.attempts), revision = u.revision, \
         waiting_messages = coalesce(u.messages, f.waiting_messages), \
         waiting_bytes = coalesce(u.bytes, f.waiting_bytes) \
         FROM unnest({columns}) u (id, state, reason, attempts, revision, messages, bytes) \
         WHERE f.id = u.id AND {})",
        b.condition
    ));
}

/// Flows of earlier batches that end: what is kept of them is copied from their rows.
fn ended_flows(b: &mut Builder, flows: &[(FlowRow, &Touched, &Ending)]) {
    if flows.is_empty() {
        return;
    }
    let rows = b.column("int8", flows.iter().map(|(row, ..)| row.0).collect());
    b.part(format!(
        "gone AS (DELETE FROM maxhost.flow WHERE id = ANY({rows}) AND {condition} RETURNING *), \
         log_gone AS (DELETE FROM maxhost.journal WHERE flow = ANY({rows}) AND {condition})",
        condition = b.condition
    ));
    let kept: Vec<_> = flows.iter().filter(|(.., end)| end.keep.is_some()).collect();
    if kept.is_empty() {
        return;
    }
    let columns = [
        b.column("int8", kept.iter().map(|(row, ..)| row.0).collect()),
        b.column("int8", kept.iter().map(|(_, touched, _)| attempts(touched)).collect::<Vec<Option<i64>>>()),
        b.column("int8", kept.iter().map(|(_, touched, _)| i64::from(touched.flow.revision)).collect()),
        end_columns(b, &kept.iter().map(|(.., end)| *end).collect::<Vec<_>>()),
    ]
    .join(", ");
    b.part(format!(
        "kept AS (INSERT INTO maxhost.ended ({START_COLUMNS}, {END_COLUMNS}) \
         SELECT g.id, g.identity, g.started, g.tag, g.name, g.\"user\", g.client_id, g.start_body, u.revision, \
         coalesce(u.attempts, g.attempts), u.state, u.finished, u.expires, u.end_body, u.labels, \
         u.forget_at FROM gone g JOIN unnest({columns}) \
         u (id, attempts, revision, state, finished, expires, end_body, labels, forget_at) ON g.id = u.id)"
    ));
}

/// Flows that began and ended in this batch.
fn new_ended_flows(b: &mut Builder, flows: &[(FlowRow, &Touched)]) {
    if flows.is_empty() {
        return;
    }
    let start = start_columns(b, flows);
    let ends: Vec<&Ending> = flows.iter().filter_map(|(_, touched)| touched.end.as_ref()).collect();
    let end = end_columns(b, &ends);
    b.part(format!(
        "short AS (INSERT INTO maxhost.ended ({START_COLUMNS}, {END_COLUMNS}) SELECT * FROM unnest({start}, {end}) \
         WHERE {})",
        b.condition
    ));
}

const END_COLUMNS: &str = "state, finished, expires, end_body, labels, forget_at";

fn end_columns(b: &mut Builder, ends: &[&Ending]) -> String {
    let keeps = || ends.iter().filter_map(|end| end.keep.as_ref());
    [
        b.column("int2", ends.iter().map(|end| end.state as i16).collect()),
        b.column("int8", ends.iter().map(|end| end.finished).collect()),
        b.column("int8", keeps().map(|keep| keep.expires).collect()),
        b.column("bytea", keeps().map(|keep| &keep.end[..]).collect::<Vec<&[u8]>>()),
        b.column("bytea", keeps().map(|keep| keep.labels.as_deref()).collect::<Vec<Option<&[u8]>>>()),
        b.column("int8", ends.iter().map(|end| end.forget_at).collect()),
    ]
    .join(", ")
}

fn journal_part(b: &mut Builder, pending: &Pending) {
    if pending.journal.is_empty() {
        return;
    }
    let entries = || pending.journal.iter();
    let columns = [
        b.column("int8", entries().map(|((flow, ..), _)| flow.0).collect()),
        b.column("int4", entries().map(|((_, stream, _), _)| *stream).collect()),
        b.column("int8", entries().map(|((.., seq), _)| i64::from(*seq)).collect()),
        b.column("bytea", entries().map(|(_, body)| &body[..]).collect::<Vec<&[u8]>>()),
    ]
    .join(", ");
    b.part(format!(
        "log AS (INSERT INTO maxhost.journal (flow, stream, seq, body) SELECT * FROM unnest({columns}) WHERE {})",
        b.condition
    ));
}

fn message_parts(b: &mut Builder, pending: &Pending) {
    keyed_bodies(b, "initiation", "id", pending.initiations.iter());
    keyed_bodies(b, "late_confirm", "session", pending.late_confirms.iter());
    outbox_part(b, pending);
    sent_parts(b, pending);
    if !pending.processed.is_empty() {
        let taken = || pending.processed.iter();
        let columns = [
            b.column("int8", taken().map(|((identity, _), _)| identity.0).collect()),
            b.column("bytea", taken().map(|((_, id), _)| &id[..]).collect::<Vec<&[u8]>>()),
            b.column("int8", taken().map(|(_, at)| *at).collect()),
        ]
        .join(", ");
        b.part(format!(
            "taken AS (INSERT INTO maxhost.processed (identity, message_id, at) SELECT * FROM unnest({columns}) \
             WHERE {})",
            b.condition
        ));
    }
}

/// Messages that the broker has: those that are kept go from the one table to the other.
fn sent_parts(b: &mut Builder, pending: &Pending) {
    let (kept, gone): (Vec<_>, Vec<_>) = pending.sent.iter().partition(|(_, confirmed)| confirmed.marker.is_some());
    if !gone.is_empty() {
        let rows = b.column("int8", gone.iter().map(|(id, _)| **id).collect());
        b.part(format!("sent AS (DELETE FROM maxhost.outbox WHERE id = ANY({rows}) AND {})", b.condition));
    }
    if kept.is_empty() {
        return;
    }
    let columns = [
        b.column("int8", kept.iter().map(|(id, _)| **id).collect()),
        b.column("int8", kept.iter().map(|(_, confirmed)| confirmed.marker).collect::<Vec<Option<i64>>>()),
        b.column("int8", kept.iter().map(|(_, confirmed)| confirmed.at).collect()),
    ]
    .join(", ");
    b.part(format!(
        "leaving AS (DELETE FROM maxhost.outbox o USING unnest({columns}) u (id, marker, at) \
         WHERE o.id = u.id AND {} RETURNING u.marker, u.at, o.*), \
         kept AS (INSERT INTO maxhost.sent (marker, identity, destination, message_id, body, kind, session, seq, at) \
         SELECT marker, identity, destination, message_id, body, kind, session, seq, at FROM leaving ORDER BY id)",
        b.condition
    ));
}

/// Rows of a table that is keyed by identity and a number: with a body they are put, without they go.
fn keyed_bodies<'p>(
    b: &mut Builder,
    table: &str,
    key: &str,
    rows: impl Iterator<Item = (&'p (IdentityRow, i64), &'p Option<bytes::Bytes>)>,
) {
    let (put, gone): (Vec<_>, Vec<_>) = rows.partition(|(_, body)| body.is_some());
    if !put.is_empty() {
        let columns = [
            b.column("int8", put.iter().map(|((identity, _), _)| identity.0).collect()),
            b.column("int8", put.iter().map(|((_, id), _)| *id).collect()),
            b.column("bytea", put.iter().map(|(_, body)| body.as_deref().unwrap_or_default()).collect::<Vec<&[u8]>>()),
        ]
        .join(", ");
        b.part(format!(
            "put_{table} AS (INSERT INTO maxhost.{table} (identity, {key}, body) SELECT * FROM unnest({columns}) \
             WHERE {})",
            b.condition
        ));
    }
    if !gone.is_empty() {
        let identities = b.column("int8", gone.iter().map(|((identity, _), _)| identity.0).collect());
        let ids = b.column("int8", gone.iter().map(|((_, id), _)| *id).collect());
        b.part(format!(
            "drop_{table} AS (DELETE FROM maxhost.{table} t USING unnest({identities}, {ids}) u (identity, id) \
             WHERE t.identity = u.identity AND t.{key} = u.id AND {})",
            b.condition
        ));
    }
}

fn outbox_part(b: &mut Builder, pending: &Pending) {
    if pending.outbox.is_empty() {
        return;
    }
    struct Row<'p> {
        message_id: &'p [u8],
        kind: i16,
        session: Option<i64>,
        seq: Option<i64>,
    }
    let row = |content: &'_ OutboxContent| match content {
        OutboxContent::Message { .. } => (0, None, None),
        OutboxContent::Initiation { .. } => (1, None, None),
        OutboxContent::Delivery { session, seq, .. } => (2, Some(session.0), Some(i64::from(*seq))),
    };
    let rows: Vec<Row<'_>> = pending
        .outbox
        .iter()
        .map(|(_, message)| {
            let (kind, session, seq) = row(&message.content);
            let message_id = match &message.content {
                OutboxContent::Message { message_id, .. } => &message_id[..],
                _ => &[],
            };
            Row { message_id, kind, session, seq }
        })
        .collect();
    let messages = || pending.outbox.iter().map(|(_, message)| message);
    let columns = [
        b.column("int8", messages().map(|message| message.sender.0).collect()),
        b.column("text", messages().map(|message| &*message.destination).collect::<Vec<&str>>()),
        b.column("bytea", rows.iter().map(|row| row.message_id).collect::<Vec<&[u8]>>()),
        b.column("bytea", messages().map(|message| &message.content.body()[..]).collect::<Vec<&[u8]>>()),
        b.column("int2", rows.iter().map(|row| row.kind).collect()),
        b.column("int8", rows.iter().map(|row| row.session).collect::<Vec<Option<i64>>>()),
        b.column("int8", rows.iter().map(|row| row.seq).collect::<Vec<Option<i64>>>()),
        b.column("int8", messages().map(|message| message.lived).collect()),
    ]
    .join(", ");
    b.part(format!(
        "left_behind AS (INSERT INTO maxhost.outbox (identity, destination, message_id, body, kind, session, seq, lived) \
         SELECT u.a, u.b, u.c, u.d, u.e, u.f, u.g, u.h FROM unnest({columns}) WITH ORDINALITY \
         u (a, b, c, d, e, f, g, h, place) WHERE {} ORDER BY u.place)",
        b.condition
    ));
}

fn client_parts(b: &mut Builder, pending: &Pending) {
    let (put, gone): (Vec<_>, Vec<_>) = pending.clients.iter().partition(|(_, flow)| flow.is_some());
    for (rows, is_put) in [(put, true), (gone, false)] {
        if rows.is_empty() {
            continue;
        }
        let keys = [
            b.column("int8", rows.iter().map(|((identity, ..), _)| identity.0).collect()),
            b.column("text", rows.iter().map(|((_, user, _), _)| &**user).collect::<Vec<&str>>()),
            b.column("text", rows.iter().map(|((.., name), _)| &**name).collect::<Vec<&str>>()),
        ]
        .join(", ");
        let condition = b.condition;
        if is_put {
            let flows = b.column("int8", rows.iter().map(|(_, flow)| flow.map_or(0, |flow| flow.0)).collect());
            b.part(format!(
                "named AS (INSERT INTO maxhost.client (identity, \"user\", client_id, flow) \
                 SELECT * FROM unnest({keys}, {flows}) WHERE {condition} \
                 ON CONFLICT (identity, \"user\", client_id) DO UPDATE SET flow = excluded.flow)"
            ));
        } else {
            b.part(format!(
                "unnamed AS (DELETE FROM maxhost.client c USING unnest({keys}) u (a, b, c) \
                 WHERE c.identity = u.a AND c.\"user\" = u.b AND c.client_id = u.c AND {condition})"
            ));
        }
    }
}

fn release_part(b: &mut Builder, pending: &Pending) {
    if pending.released.is_empty() {
        return;
    }
    let rows = b.column("int8", pending.released.iter().map(|(identity, _)| identity.0).collect());
    let times = b.column("int8", pending.released.iter().map(|(_, at)| *at).collect::<Vec<Option<i64>>>());
    b.part(format!(
        "released AS (UPDATE maxhost.identity i SET owner = NULL, unclean = 0, wake_at = u.at \
         FROM unnest({rows}, {times}) u (id, at) WHERE i.id = u.id AND {})",
        b.condition
    ));
}
