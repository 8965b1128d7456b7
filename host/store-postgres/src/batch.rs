//! What a batch knows of the database: read ahead for all its units at once, and row by row where that was not enough.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use maxhost_group_commit::Fault;
use maxhost_model::{Claim, FlowRow, IdentityRow, RunId};
use maxhost_store::{Backlog, ClientOp, CommitUnit, FencingToken, FlowOp, MessageOp, NOBODY, Op};
use parking_lot::Mutex;
use sqlx::Row;
use sqlx::postgres::PgConnection;

use crate::error::fault_of;
use crate::known::Known;
use crate::ledger::read::{LedgerRead, LedgerWants, Ledgers};
use crate::options::Layout;
use crate::pending::{ClientKey, Heads, Pending, StoredFlow};
use crate::session::Session;

/// The claims that this run has made and has not lost, as far as it knows.
pub(crate) type Claims = Arc<Mutex<HashMap<IdentityRow, Claim>>>;

/// What was read for the batch under way.
#[derive(Debug, Default)]
pub(crate) struct Read {
    /// What the rows of identities show; `None`: there is no such identity.
    pub identities: HashMap<IdentityRow, Option<Claim>>,
    /// Flows that are not live.
    absent: HashSet<FlowRow>,
    /// Live flows of identities that this run does not hold.
    foreign: HashMap<FlowRow, IdentityRow>,
    initiations: HashMap<(IdentityRow, i64), Option<u64>>,
    outbox: HashMap<i64, Option<(IdentityRow, u64)>>,
    processed: HashMap<(IdentityRow, [u8; 16]), bool>,
    clients: HashMap<ClientKey, Option<FlowRow>>,
    pub ledger: LedgerRead,
}

impl Read {
    /// Within a transaction that goes on, what was written is what is there.
    pub(crate) fn written(&mut self, pending: &Pending) {
        for (row, touched) in pending.flows.iter() {
            if touched.is_live() {
                self.absent.remove(row);
            } else {
                self.absent.insert(*row);
            }
        }
        for (key, body) in pending.initiations.iter() {
            self.initiations.insert(*key, body.as_ref().map(|body| body.len() as u64));
        }
        for (key, flow) in pending.clients.iter() {
            self.clients.insert(key.clone(), *flow);
        }
        for (id, _) in pending.sent.iter() {
            self.outbox.insert(*id, None);
        }
        for (key, _) in pending.processed.iter() {
            self.processed.insert(*key, true);
        }
        for (identity, _) in pending.released.iter() {
            if let Some(Some(claim)) = self.identities.get_mut(identity) {
                claim.run = NOBODY;
            }
        }
        self.ledger.written(&pending.ledger);
    }
}

/// The committer's view of the database.
pub(crate) struct Batch {
    pub session: Session,
    pub layout: Layout,
    pub run: RunId,
    pub claims: Claims,
    pub known: Known,
    pub backlog: Backlog,
    /// Under which claim the backlog of an identity was counted.
    counted: HashMap<IdentityRow, Claim>,
    pub ledgers: Ledgers,
    pub read: Read,
    pub pending: Pending,
    /// A transaction is under way, with the rows of the identities locked, and units are undone one by one in it.
    pub singly: bool,
}

impl Batch {
    pub(crate) fn new(session: Session, layout: Layout, run: RunId, claims: Claims, backlog: Backlog) -> Batch {
        Batch {
            session,
            layout,
            run,
            claims,
            known: Known::default(),
            backlog,
            counted: HashMap::new(),
            ledgers: HashMap::new(),
            read: Read::default(),
            pending: Pending::default(),
            singly: false,
        }
    }

    /// Asks the database. Outside of a transaction until it answers.
    pub(crate) fn ask<T>(
        &mut self,
        statement: impl AsyncFn(&mut PgConnection) -> Result<T, sqlx::Error>,
    ) -> Result<T, Fault> {
        if self.singly { self.session.ask_once(statement) } else { self.session.ask(statement) }
    }

    /// Reads what these units need.
    pub(crate) fn read_ahead<'u>(&mut self, units: impl Iterator<Item = &'u CommitUnit>) -> Result<(), Fault> {
        let wants = Wants::of(units);
        self.read_identities(wants.identities.iter().copied())?;
        self.count_backlog(&wants.identities)?;
        let flows: Vec<FlowRow> =
            wants.flows.iter().filter(|row| !wants.started.contains(*row) && !self.has_flow(**row)).copied().collect();
        self.read_flows(&flows)?;
        let initiations: Vec<(IdentityRow, i64)> = wants
            .taken
            .iter()
            .filter(|key| !wants.initiated.contains(*key) && !self.has_initiation(**key))
            .copied()
            .collect();
        self.read_initiations(&initiations)?;
        self.read_outbox(&wants.sent)?;
        self.read_processed(&wants.arrived)?;
        self.read_clients(&wants.clients)?;
        self.read_ledgers(wants.ledger)
    }

    /// The claim that this run holds an identity under.
    pub(crate) fn held(&self, identity: IdentityRow) -> Option<Claim> {
        self.read.identities.get(&identity).copied().flatten().filter(|claim| claim.run == self.run)
    }

    fn has_flow(&mut self, row: FlowRow) -> bool {
        let (read, run) = (&self.read, self.run);
        self.pending.flows.get(&row).is_some()
            || read.absent.contains(&row)
            || self.known.flow(row, |identity| held_in(read, run, identity)).is_some()
    }

    fn has_initiation(&mut self, key: (IdentityRow, i64)) -> bool {
        let claim = self.held(key.0);
        self.pending.initiations.get(&key).is_some() || self.known.initiation(key, claim).is_some()
    }

    /// Finds out who holds these identities: by what this run has claimed, or from their rows.
    fn read_identities(&mut self, wanted: impl Iterator<Item = IdentityRow>) -> Result<(), Fault> {
        let mut missing: Vec<i64> = Vec::new();
        {
            let claims = self.claims.lock();
            for identity in wanted {
                if self.read.identities.contains_key(&identity) {
                    continue;
                }
                match claims.get(&identity) {
                    Some(claim) if !self.singly => {
                        self.read.identities.insert(identity, Some(*claim));
                    }
                    _ => missing.push(identity.0),
                }
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        missing.sort_unstable();
        let (locks, run) = (self.singly, self.run);
        let sql = "SELECT id, generation, epoch, owner FROM maxhost.identity WHERE id = ANY($1)";
        let rows = self.ask(async |conn| {
            let mut rows = Vec::new();
            if locks {
                // In the order of the rows, so that no two hosts wait for each other, and only what this run holds.
                let held = "SELECT id, generation, epoch, owner FROM maxhost.identity WHERE id = ANY($1) AND owner = $2 \
                            ORDER BY id FOR NO KEY UPDATE";
                rows = sqlx::query(held).bind(&missing).bind(run.0).fetch_all(&mut *conn).await?;
            }
            rows.extend(sqlx::query(sql).bind(&missing).fetch_all(conn).await?);
            Ok::<_, sqlx::Error>(rows)
        })?;
        for identity in &missing {
            self.read.identities.insert(IdentityRow(*identity), None);
        }
        let mut locked = HashSet::new();
        for row in &rows {
            let read = || -> Result<(IdentityRow, Claim), sqlx::Error> {
                let token = FencingToken { generation: row.try_get(1)?, epoch: row.try_get(2)? };
                let run = row.try_get::<Option<i64>, _>(3)?.map_or(NOBODY, RunId);
                Ok((IdentityRow(row.try_get(0)?), Claim { token, run }))
            };
            let (identity, claim) = read().map_err(fault_of)?;
            if !locked.contains(&identity) {
                self.read.identities.insert(identity, Some(claim));
                // What was locked comes first, and counts.
                locked.insert(identity);
            }
        }
        // What was believed and is not so is believed no longer.
        let mut claims = self.claims.lock();
        for identity in missing.into_iter().map(IdentityRow) {
            let shown = self.read.identities.get(&identity).copied().flatten();
            if claims.get(&identity).is_some_and(|believed| Some(*believed) != shown) {
                claims.remove(&identity);
            }
        }
        Ok(())
    }

    pub(crate) fn identity(&mut self, identity: IdentityRow) -> Result<Option<Claim>, Fault> {
        if !self.read.identities.contains_key(&identity) {
            self.read_identities(std::iter::once(identity))?;
        }
        Ok(self.read.identities.get(&identity).copied().flatten())
    }

    /// Counts what waits for identities that this run has claimed since it last counted.
    fn count_backlog(&mut self, identities: &BTreeSet<IdentityRow>) -> Result<(), Fault> {
        let mut new = Vec::new();
        for &identity in identities {
            if let Some(claim) = self.held(identity)
                && self.counted.get(&identity) != Some(&claim)
            {
                new.push((identity, claim));
            }
        }
        if new.is_empty() {
            return Ok(());
        }
        let ids: Vec<i64> = new.iter().map(|(identity, _)| identity.0).collect();
        let rows = self.ask(async |conn| {
            sqlx::query(
                "SELECT 0, identity, count(*), sum(octet_length(body))::int8, 0::int8 FROM maxhost.initiation \
                 WHERE identity = ANY($1) GROUP BY identity \
                 UNION ALL SELECT 0, identity, count(*), sum(octet_length(body))::int8, 0 FROM maxhost.late_confirm \
                 WHERE identity = ANY($1) GROUP BY identity \
                 UNION ALL SELECT 1, identity, count(*), sum(octet_length(body))::int8, 0 FROM maxhost.outbox \
                 WHERE identity = ANY($1) GROUP BY identity \
                 UNION ALL SELECT 2, identity, waiting_messages, waiting_bytes, id FROM maxhost.flow \
                 WHERE identity = ANY($1) AND waiting_messages > 0",
            )
            .bind(&ids)
            .fetch_all(conn)
            .await
        })?;
        // The flows of an identity that hold states are known before the first of them can end.
        self.open_ledgers(&new, false)?;
        for (identity, claim) in new {
            self.backlog.forget(identity);
            self.counted.insert(identity, claim);
        }
        let number = |row: &sqlx::postgres::PgRow, index: usize| row.try_get::<i64, _>(index).map(i64::unsigned_abs);
        let mut load = || -> Result<(), sqlx::Error> {
            for row in &rows {
                let (identity, messages, bytes) = (IdentityRow(row.try_get(1)?), number(row, 2)?, number(row, 3)?);
                match row.try_get::<i32, _>(0)? {
                    0 => self.backlog.load_initiations(identity, messages, bytes),
                    1 => self.backlog.load_outbox(identity, messages, bytes),
                    _ => self.backlog.load_flow(identity, FlowRow(row.try_get(4)?), messages, bytes),
                }
            }
            Ok(())
        };
        load().map_err(fault_of)
    }

    fn read_flows(&mut self, rows: &[FlowRow]) -> Result<(), Fault> {
        if rows.is_empty() {
            return Ok(());
        }
        let ids: Vec<i64> = rows.iter().map(|row| row.0).collect();
        let found = self.ask(async |conn| {
            sqlx::query(
                "SELECT f.id, f.identity, f.revision, f.\"user\", f.client_id, j.stream, j.seq \
                 FROM maxhost.flow f LEFT JOIN LATERAL \
                 (SELECT stream, max(seq) AS seq FROM maxhost.journal WHERE flow = f.id GROUP BY stream) j ON true \
                 WHERE f.id = ANY($1)",
            )
            .bind(&ids)
            .fetch_all(conn)
            .await
        })?;
        let mut flows: BTreeMap<FlowRow, StoredFlow> = BTreeMap::new();
        for row in &found {
            let mut read = || -> Result<(), sqlx::Error> {
                let user: Option<String> = row.try_get(3)?;
                let client_id: Option<String> = row.try_get(4)?;
                let client = client_id.map(|client_id| Arc::new((user.unwrap_or_default(), client_id)));
                let flow = flows.entry(FlowRow(row.try_get(0)?)).or_insert(StoredFlow {
                    identity: IdentityRow(row.try_get(1)?),
                    revision: u32::try_from(row.try_get::<i64, _>(2)?).unwrap_or(u32::MAX),
                    client,
                    heads: Heads::default(),
                });
                if let Some(stream) = row.try_get::<Option<i32>, _>(5)? {
                    flow.heads.raise(stream, u32::try_from(row.try_get::<i64, _>(6)?).unwrap_or(u32::MAX));
                }
                Ok(())
            };
            read().map_err(fault_of)?;
        }
        for &row in rows {
            match flows.remove(&row) {
                Some(flow) => {
                    self.identity(flow.identity)?;
                    match self.held(flow.identity) {
                        Some(claim) => self.known.put_flow(row, claim, flow),
                        None => {
                            self.read.foreign.insert(row, flow.identity);
                        }
                    }
                }
                None => {
                    self.read.absent.insert(row);
                }
            }
        }
        Ok(())
    }

    /// Whose live flow this is, by the database.
    pub(crate) fn stored_flow(&mut self, row: FlowRow) -> Result<Found, Fault> {
        for _ in 0..2 {
            let (read, run) = (&self.read, self.run);
            if let Some(flow) = self.known.flow(row, |identity| held_in(read, run, identity)) {
                return Ok(Found::Ours(flow.clone()));
            }
            if self.read.absent.contains(&row) {
                return Ok(Found::Nothing);
            }
            if let Some(identity) = self.read.foreign.get(&row) {
                return Ok(Found::Foreign(*identity));
            }
            self.read_flows(&[row])?;
        }
        Ok(Found::Nothing)
    }

    fn read_initiations(&mut self, keys: &[(IdentityRow, i64)]) -> Result<(), Fault> {
        let keys: Vec<_> = keys.iter().filter(|key| !self.read.initiations.contains_key(*key)).copied().collect();
        if keys.is_empty() {
            return Ok(());
        }
        let identities: Vec<i64> = keys.iter().map(|key| key.0.0).collect();
        let ids: Vec<i64> = keys.iter().map(|key| key.1).collect();
        let rows = self.ask(async |conn| {
            sqlx::query_as::<_, (i64, i64, i32)>(
                "SELECT i.identity, i.id, octet_length(i.body) FROM maxhost.initiation i \
                 JOIN unnest($1::int8[], $2::int8[]) u (a, b) ON i.identity = u.a AND i.id = u.b",
            )
            .bind(&identities)
            .bind(&ids)
            .fetch_all(conn)
            .await
        })?;
        self.read.initiations.extend(keys.into_iter().map(|key| (key, None)));
        for (identity, id, bytes) in rows {
            self.read.initiations.insert((IdentityRow(identity), id), Some(u64::from(bytes.unsigned_abs())));
        }
        Ok(())
    }

    /// The bytes of an initiation in the database.
    pub(crate) fn stored_initiation(&mut self, key: (IdentityRow, i64)) -> Result<Option<u64>, Fault> {
        let claim = self.held(key.0);
        if let Some(bytes) = self.known.initiation(key, claim) {
            return Ok(Some(bytes));
        }
        self.read_initiations(&[key])?;
        Ok(self.read.initiations.get(&key).copied().flatten())
    }

    fn read_outbox(&mut self, ids: &[i64]) -> Result<(), Fault> {
        let ids: Vec<i64> = ids.iter().filter(|id| !self.read.outbox.contains_key(*id)).copied().collect();
        if ids.is_empty() {
            return Ok(());
        }
        let rows = self.ask(async |conn| {
            let sql = "SELECT id, identity, octet_length(body) FROM maxhost.outbox WHERE id = ANY($1)";
            sqlx::query_as::<_, (i64, i64, i32)>(sql).bind(&ids).fetch_all(conn).await
        })?;
        self.read.outbox.extend(ids.into_iter().map(|id| (id, None)));
        for (id, identity, bytes) in rows {
            self.read.outbox.insert(id, Some((IdentityRow(identity), u64::from(bytes.unsigned_abs()))));
        }
        Ok(())
    }

    /// The bytes of an outbox row of this sender in the database.
    pub(crate) fn stored_outbox(&mut self, sender: IdentityRow, id: i64) -> Result<Option<u64>, Fault> {
        self.read_outbox(&[id])?;
        let found = self.read.outbox.get(&id).copied().flatten();
        Ok(found.filter(|(identity, _)| *identity == sender).map(|(_, bytes)| bytes))
    }

    fn read_processed(&mut self, keys: &[(IdentityRow, [u8; 16])]) -> Result<(), Fault> {
        let keys: Vec<_> = keys.iter().filter(|key| !self.read.processed.contains_key(*key)).copied().collect();
        if keys.is_empty() {
            return Ok(());
        }
        let identities: Vec<i64> = keys.iter().map(|key| key.0.0).collect();
        let ids: Vec<&[u8]> = keys.iter().map(|key| &key.1[..]).collect();
        let rows = self.ask(async |conn| {
            sqlx::query_as::<_, (i64, Vec<u8>)>(
                "SELECT p.identity, p.message_id FROM maxhost.processed p \
                 JOIN unnest($1::int8[], $2::bytea[]) u (a, b) ON p.identity = u.a AND p.message_id = u.b",
            )
            .bind(&identities)
            .bind(&ids)
            .fetch_all(conn)
            .await
        })?;
        self.read.processed.extend(keys.iter().map(|key| (*key, false)));
        for (identity, id) in rows {
            if let Ok(id) = id.try_into() {
                self.read.processed.insert((IdentityRow(identity), id), true);
            }
        }
        Ok(())
    }

    pub(crate) fn was_processed(&mut self, key: (IdentityRow, [u8; 16])) -> Result<bool, Fault> {
        self.read_processed(&[key])?;
        Ok(self.read.processed.get(&key).copied().unwrap_or(false))
    }

    fn read_clients(&mut self, keys: &[ClientKey]) -> Result<(), Fault> {
        let keys: Vec<_> = keys.iter().filter(|key| !self.read.clients.contains_key(*key)).cloned().collect();
        if keys.is_empty() {
            return Ok(());
        }
        let identities: Vec<i64> = keys.iter().map(|key| key.0.0).collect();
        let users: Vec<&str> = keys.iter().map(|key| &*key.1).collect();
        let names: Vec<&str> = keys.iter().map(|key| &*key.2).collect();
        let rows = self.ask(async |conn| {
            sqlx::query_as::<_, (i64, String, String, i64)>(
                "SELECT c.identity, c.\"user\", c.client_id, c.flow FROM maxhost.client c \
                 JOIN unnest($1::int8[], $2::text[], $3::text[]) u (a, b, c) \
                 ON c.identity = u.a AND c.\"user\" = u.b AND c.client_id = u.c",
            )
            .bind(&identities)
            .bind(&users)
            .bind(&names)
            .fetch_all(conn)
            .await
        })?;
        self.read.clients.extend(keys.into_iter().map(|key| (key, None)));
        for (identity, user, name, flow) in rows {
            let key = (IdentityRow(identity), Arc::from(user), Arc::from(name));
            self.read.clients.insert(key, Some(FlowRow(flow)));
        }
        Ok(())
    }

    /// The flow that a client id names in the database.
    pub(crate) fn stored_client(&mut self, key: &ClientKey) -> Result<Option<FlowRow>, Fault> {
        self.read_clients(std::slice::from_ref(key))?;
        Ok(self.read.clients.get(key).copied().flatten())
    }
}

/// What the database has under the row of a flow.
pub(crate) enum Found {
    /// A live flow of an identity that this run holds.
    Ours(StoredFlow),
    /// A live flow of another identity.
    Foreign(IdentityRow),
    /// No live flow.
    Nothing,
}

fn held_in(read: &Read, run: RunId, identity: IdentityRow) -> Option<Claim> {
    read.identities.get(&identity).copied().flatten().filter(|claim| claim.run == run)
}

/// What units need to know.
#[derive(Default)]
struct Wants {
    identities: BTreeSet<IdentityRow>,
    flows: BTreeSet<FlowRow>,
    started: HashSet<FlowRow>,
    taken: BTreeSet<(IdentityRow, i64)>,
    initiated: HashSet<(IdentityRow, i64)>,
    sent: Vec<i64>,
    arrived: Vec<(IdentityRow, [u8; 16])>,
    clients: Vec<ClientKey>,
    ledger: LedgerWants,
}

impl Wants {
    fn of<'u>(units: impl Iterator<Item = &'u CommitUnit>) -> Wants {
        let mut wants = Wants::default();
        for unit in units {
            wants.identities.insert(unit.author.identity);
            for op in &unit.ops {
                wants.add(unit.author.identity, op);
            }
        }
        wants
    }

    fn add(&mut self, author: IdentityRow, op: &Op) {
        match op {
            Op::Flow(FlowOp::Start(new)) => {
                self.started.insert(new.row);
                if let Some(client_id) = &new.client_id {
                    self.clients.push(client_key(author, new.user.as_deref().unwrap_or_default(), client_id));
                }
            }
            Op::Flow(FlowOp::AppendLog { flow, .. } | FlowOp::SetState { flow, .. } | FlowOp::End { flow, .. }) => {
                self.flows.insert(*flow);
            }
            Op::Message(MessageOp::Deliver { to, session, .. }) => {
                self.identities.insert(to.identity);
                self.flows.insert(session.flow());
            }
            Op::Message(MessageOp::Initiate { to, id, .. }) => {
                self.identities.insert(to.identity);
                self.initiated.insert((to.identity, *id));
            }
            Op::Message(MessageOp::TakeInitiation { id }) => {
                self.taken.insert((author, *id));
            }
            Op::Message(MessageOp::OutboxSent { id, .. }) => self.sent.push(*id),
            Op::Message(MessageOp::Arrived { message_id }) => self.arrived.push((author, *message_id)),
            Op::Client(ClientOp::Remove { user, client_id }) => {
                self.clients.push(client_key(author, user, client_id));
            }
            Op::Message(MessageOp::AnswerLateConfirm { .. } | MessageOp::Outbox { .. }) | Op::Identity(_) => {}
            Op::Ledger(op) => self.ledger.add(author, op),
        }
    }
}

pub(crate) fn client_key(identity: IdentityRow, user: &str, client_id: &str) -> ClientKey {
    (identity, Arc::from(user), Arc::from(client_id))
}
