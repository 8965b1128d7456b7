//! The rows of the database within a batch, for the rules of the store. Nothing here writes: changes stand in
//! [`crate::pending`] until the batch is written.

use bytes::Bytes;
use maxhost_group_commit::{Fault, FaultKind};
use maxhost_model::{FlowRow, IdentityRow, SessionId};
use maxhost_store::{
    Backlog, Claim, End, FlowVersion, IdentityRecord, LeftBehind, NOBODY, NewFlow, OutboxContent, Rows, RunId,
    StateChange, Waiting,
};
use maxhost_store_sql::host::identity_record;
use sqlx::Row;

use crate::batch::{Found, client_key};
use crate::committer::PostgresRows;
use crate::numbers::Kind;
use crate::pending::{Change, Confirmed, Ending, LOG, Outgoing, Touched};

impl PostgresRows {
    /// Makes a live flow of an identity that is held one that can be changed. False if there is none.
    fn touch(&mut self, row: FlowRow) -> Result<bool, Fault> {
        if let Some(touched) = self.batch.pending.flows.get(&row) {
            return Ok(touched.is_live());
        }
        match self.batch.stored_flow(row)? {
            Found::Ours(flow) => {
                self.batch.pending.flows.put(row, Touched::stored(flow));
                Ok(true)
            }
            Found::Foreign(_) | Found::Nothing => Ok(false),
        }
    }

    /// Whether the journal of a touched flow has this row.
    fn has_entry(&mut self, flow: FlowRow, stream: i32, seq: u32) -> Result<bool, Fault> {
        let pending = &self.batch.pending;
        let newest = pending.flows.get(&flow).and_then(|touched| touched.flow.heads.newest(stream));
        if newest.is_none_or(|newest| newest < seq) {
            return Ok(false);
        }
        if newest == Some(seq) || pending.journal.get(&(flow, stream, seq)).is_some() {
            return Ok(true);
        }
        if pending.flows.get(&flow).is_some_and(|touched| touched.new.is_some()) {
            return Ok(false);
        }
        self.batch.ask(async |conn| {
            let sql = "SELECT EXISTS (SELECT FROM maxhost.journal WHERE flow = $1 AND stream = $2 AND seq = $3)";
            sqlx::query_scalar(sql).bind(flow.0).bind(stream).bind(i64::from(seq)).fetch_one(conn).await
        })
    }

    fn add_entry(&mut self, flow: FlowRow, stream: i32, seq: u32, body: &Bytes) -> Result<bool, Fault> {
        if !self.touch(flow)? || self.has_entry(flow, stream, seq)? {
            return Ok(false);
        }
        self.batch.pending.add_entry(flow, stream, seq, body);
        Ok(true)
    }
}

impl Rows for PostgresRows {
    fn run(&self) -> RunId {
        self.batch.run
    }

    fn backlog(&mut self) -> &mut Backlog {
        &mut self.batch.backlog
    }

    fn claim(&mut self, identity: IdentityRow) -> Result<Option<Claim>, Fault> {
        let claim = self.batch.identity(identity)?;
        if self.batch.pending.released.get(&identity).is_some() {
            return Ok(claim.map(|claim| Claim { run: NOBODY, ..claim }));
        }
        Ok(claim)
    }

    fn identity(&mut self, identity: IdentityRow) -> Result<Option<IdentityRecord>, Fault> {
        let row = self.batch.ask(async |conn| {
            let sql = "SELECT id, name, generation, epoch, owner, wake_at, unclean, moved_to, key_fp \
                       FROM maxhost.identity WHERE id = $1";
            sqlx::query(sql).bind(identity.0).fetch_optional(conn).await
        })?;
        let record = row.as_ref().map(identity_record).transpose();
        record.map_err(|error| Fault::new(FaultKind::Corrupt, error))
    }

    fn release(&mut self, identity: IdentityRow, wake_at: Option<i64>) -> Result<(), Fault> {
        self.batch.pending.released.put(identity, wake_at);
        Ok(())
    }

    fn left_behind(&mut self, identity: IdentityRow) -> Result<LeftBehind, Fault> {
        let pending = &self.batch.pending;
        let all = (identity, i64::MIN)..=(identity, i64::MAX);
        let added = pending.initiations.range(all.clone()).any(|(_, body)| body.is_some())
            || pending.late_confirms.range(all.clone()).any(|(_, body)| body.is_some());
        let leaves = pending.outbox.iter().any(|(_, message)| message.sender == identity);
        let taken: Vec<i64> = pending.initiations.range(all.clone()).map(|((_, id), _)| *id).collect();
        let answered: Vec<i64> = pending.late_confirms.range(all).map(|((_, session), _)| *session).collect();
        let sent: Vec<i64> = pending.sent.iter().map(|(id, _)| *id).collect();
        let (inbound, outbox) = self.batch.ask(async |conn| {
            sqlx::query_as::<_, (bool, bool)>(
                "SELECT EXISTS (SELECT FROM maxhost.initiation WHERE identity = $1 AND id <> ALL($2)) \
                 OR EXISTS (SELECT FROM maxhost.late_confirm WHERE identity = $1 AND session <> ALL($3)), \
                 EXISTS (SELECT FROM maxhost.outbox WHERE identity = $1 AND id <> ALL($4))",
            )
            .bind(identity.0)
            .bind(&taken)
            .bind(&answered)
            .bind(&sent)
            .fetch_one(conn)
            .await
        })?;
        Ok(LeftBehind { inbound: inbound || added, outbox: outbox || leaves })
    }

    fn observe_flow(&mut self, row: FlowRow) -> bool {
        self.numbers.observe(Kind::Flow, row.0)
    }

    fn observe_initiation(&mut self, id: i64) -> bool {
        self.numbers.observe(Kind::Initiation, id)
    }

    fn live_flow(&mut self, flow: FlowRow) -> Result<Option<IdentityRow>, Fault> {
        if let Some(touched) = self.batch.pending.flows.get(&flow) {
            return Ok(touched.is_live().then_some(touched.flow.identity));
        }
        Ok(match self.batch.stored_flow(flow)? {
            Found::Ours(stored) => Some(stored.identity),
            Found::Foreign(identity) => Some(identity),
            Found::Nothing => None,
        })
    }

    fn has_ended(&mut self, flow: FlowRow) -> Result<bool, Fault> {
        if let Some(end) = self.batch.pending.flows.get(&flow).and_then(|touched| touched.end.as_ref()) {
            return Ok(end.keep.is_some());
        }
        if self.batch.pending.dropped.get(&flow).is_some() {
            return Ok(false);
        }
        self.batch.ask(async |conn| {
            let sql = "SELECT EXISTS (SELECT FROM maxhost.ended WHERE id = $1)";
            sqlx::query_scalar(sql).bind(flow.0).fetch_one(conn).await
        })
    }

    fn add_flow(&mut self, identity: IdentityRow, new: &NewFlow) -> Result<(), Fault> {
        if self.batch.pending.flows.get(&new.row).is_some() {
            // It ended in this very batch, and a number is not used twice.
            return Err(Fault::new(FaultKind::Constraint, "the row was used in this batch"));
        }
        self.batch.pending.flows.put(new.row, Touched::new(identity, new));
        Ok(())
    }

    fn add_segment(&mut self, flow: FlowRow, seq: u32, body: &Bytes) -> Result<bool, Fault> {
        self.add_entry(flow, LOG, seq, body)
    }

    fn version(&mut self, flow: FlowRow) -> Result<FlowVersion, Fault> {
        self.touch(flow)?;
        let version = |touched: &Touched| FlowVersion {
            segment: touched.flow.heads.newest(LOG),
            revision: touched.flow.revision,
        };
        Ok(self.batch.pending.flows.get(&flow).map(version).unwrap_or_default())
    }

    fn set_state(&mut self, flow: FlowRow, change: &StateChange<'_>) -> Result<(), Fault> {
        self.touch(flow)?;
        if let Some(touched) = self.batch.pending.flows.change(&flow) {
            let reason = change.reason.map(str::to_owned);
            touched.change = Some(Change { state: change.state, reason, attempts: change.attempts });
            touched.flow.revision = touched.flow.revision.saturating_add(1);
        }
        Ok(())
    }

    fn note_waiting(&mut self, flow: FlowRow, waiting: Waiting) -> Result<(), Fault> {
        self.touch(flow)?;
        if let Some(touched) = self.batch.pending.flows.change(&flow) {
            touched.waiting = Some(waiting);
        }
        Ok(())
    }

    fn end_flow(&mut self, identity: IdentityRow, flow: FlowRow, end: &End<'_>) -> Result<bool, Fault> {
        if !self.touch(flow)? {
            return Ok(false);
        }
        let forget_at = end
            .keep
            .map_or(0, |keep| self.lived.now().saturating_add(keep.expires.saturating_sub(end.finished).max(0)));
        let pending = &mut self.batch.pending;
        if pending.flows.get(&flow).is_none_or(|touched| touched.flow.identity != identity) {
            return Ok(false);
        }
        pending.drop_entries(flow);
        let Some(touched) = pending.flows.change(&flow) else { return Ok(false) };
        let (state, finished, keep) = (end.state, end.finished, end.keep.cloned());
        touched.end = Some(Ending { state, finished, keep, forget_at });
        let client = touched.flow.client.clone().filter(|_| end.keep.is_none());
        if let Some(client) = client {
            self.remove_client(identity, &client.0, &client.1)?;
        }
        Ok(true)
    }

    fn drop_ended(&mut self, identity: IdentityRow, flow: FlowRow) -> Result<bool, Fault> {
        let pending = &mut self.batch.pending;
        if let Some(touched) = pending.flows.get(&flow) {
            let kept = touched.end.as_ref().is_some_and(|end| end.keep.is_some());
            if !kept || touched.flow.identity != identity {
                return Ok(false);
            }
            if let Some(end) = pending.flows.change(&flow).and_then(|touched| touched.end.as_mut()) {
                end.keep = None;
            }
            return Ok(true);
        }
        if pending.dropped.get(&flow).is_some() {
            return Ok(false);
        }
        let there: bool = self.batch.ask(async |conn| {
            let sql = "SELECT EXISTS (SELECT FROM maxhost.ended WHERE id = $1 AND identity = $2)";
            sqlx::query_scalar(sql).bind(flow.0).bind(identity.0).fetch_one(conn).await
        })?;
        if there {
            self.batch.pending.dropped.put(flow, ());
        }
        Ok(there)
    }

    fn add_message(&mut self, session: SessionId, seq: u32, body: &Bytes) -> Result<bool, Fault> {
        self.add_entry(session.flow(), i32::from(session.index()), seq, body)
    }

    fn first_message(&mut self, session: SessionId) -> Result<Option<Bytes>, Fault> {
        let (flow, stream) = (session.flow(), i32::from(session.index()));
        if let Some(body) = self.batch.pending.journal.get(&(flow, stream, 0)) {
            return Ok(Some(body.clone()));
        }
        if !self.touch(flow)? || !self.has_entry(flow, stream, 0)? {
            return Ok(None);
        }
        let body: Option<Vec<u8>> = self.batch.ask(async |conn| {
            let sql = "SELECT body FROM maxhost.journal WHERE flow = $1 AND stream = $2 AND seq = 0";
            sqlx::query_scalar(sql).bind(flow.0).bind(stream).fetch_optional(conn).await
        })?;
        Ok(body.map(Bytes::from))
    }

    fn add_initiation(&mut self, to: IdentityRow, id: i64, body: &Bytes, new: bool) -> Result<bool, Fault> {
        let there = match self.batch.pending.initiations.get(&(to, id)) {
            Some(body) => body.is_some(),
            None => !new && self.batch.stored_initiation((to, id))?.is_some(),
        };
        if there {
            return Ok(false);
        }
        self.batch.pending.initiations.put((to, id), Some(body.clone()));
        Ok(true)
    }

    fn take_initiation(&mut self, identity: IdentityRow, id: i64) -> Result<Option<u64>, Fault> {
        let key = (identity, id);
        match self.batch.pending.initiations.get(&key) {
            Some(Some(body)) => {
                let bytes = body.len() as u64;
                // One that the batch itself has put there was not in the database before.
                self.batch.pending.initiations.remove(&key);
                Ok(Some(bytes))
            }
            Some(None) => Ok(None),
            None => {
                let bytes = self.batch.stored_initiation(key)?;
                if bytes.is_some() {
                    self.batch.pending.initiations.put(key, None);
                }
                Ok(bytes)
            }
        }
    }

    fn add_late_confirm(&mut self, identity: IdentityRow, session: SessionId, body: &Bytes) -> Result<bool, Fault> {
        let key = (identity, session.0);
        if self.batch.pending.late_confirms.get(&key).is_some() || self.stored_late_confirm(key)?.is_some() {
            // One that was answered in this very batch has been answered: a copy of it is a duplicate.
            return Ok(false);
        }
        self.batch.pending.late_confirms.put(key, Some(body.clone()));
        Ok(true)
    }

    fn take_late_confirm(&mut self, identity: IdentityRow, session: SessionId) -> Result<Option<u64>, Fault> {
        let key = (identity, session.0);
        match self.batch.pending.late_confirms.get(&key) {
            Some(Some(body)) => {
                let bytes = body.len() as u64;
                self.batch.pending.late_confirms.remove(&key);
                Ok(Some(bytes))
            }
            Some(None) => Ok(None),
            None => {
                let bytes = self.stored_late_confirm(key)?;
                if bytes.is_some() {
                    self.batch.pending.late_confirms.put(key, None);
                }
                Ok(bytes)
            }
        }
    }

    fn add_outbox(&mut self, sender: IdentityRow, destination: &str, content: &OutboxContent) -> Result<(), Fault> {
        let lived = self.lived.now();
        let message = Outgoing { sender, destination: destination.into(), content: content.clone(), lived };
        self.batch.pending.push_outbox(message);
        Ok(())
    }

    fn take_outbox(&mut self, sender: IdentityRow, id: i64, marker: Option<i64>) -> Result<Option<u64>, Fault> {
        if self.batch.pending.sent.get(&id).is_some() {
            return Ok(None);
        }
        let bytes = self.batch.stored_outbox(sender, id)?;
        if bytes.is_some() {
            let at = self.lived.now();
            self.batch.pending.sent.put(id, Confirmed { marker, at });
        }
        Ok(bytes)
    }

    fn add_processed(&mut self, identity: IdentityRow, message_id: &[u8; 16]) -> Result<bool, Fault> {
        let key = (identity, *message_id);
        if self.batch.pending.processed.get(&key).is_some() || self.batch.was_processed(key)? {
            return Ok(false);
        }
        let lived = self.lived.now();
        self.batch.pending.processed.put(key, lived);
        Ok(true)
    }

    fn client(&mut self, identity: IdentityRow, user: &str, client_id: &str) -> Result<Option<FlowRow>, Fault> {
        let key = client_key(identity, user, client_id);
        match self.batch.pending.clients.get(&key) {
            Some(flow) => Ok(*flow),
            None => self.batch.stored_client(&key),
        }
    }

    fn add_client(&mut self, identity: IdentityRow, user: &str, client_id: &str, flow: FlowRow) -> Result<bool, Fault> {
        if self.client(identity, user, client_id)?.is_some() {
            return Ok(false);
        }
        self.batch.pending.clients.put(client_key(identity, user, client_id), Some(flow));
        Ok(true)
    }

    fn remove_client(&mut self, identity: IdentityRow, user: &str, client_id: &str) -> Result<(), Fault> {
        self.batch.pending.clients.put(client_key(identity, user, client_id), None);
        Ok(())
    }
}

impl PostgresRows {
    /// The bytes of a late confirmation in the database.
    fn stored_late_confirm(&mut self, key: (IdentityRow, i64)) -> Result<Option<u64>, Fault> {
        let row = self.batch.ask(async |conn| {
            let sql = "SELECT octet_length(body) FROM maxhost.late_confirm WHERE identity = $1 AND session = $2";
            sqlx::query(sql).bind(key.0.0).bind(key.1).fetch_optional(conn).await
        })?;
        let bytes = row.map(|row| row.try_get::<i32, _>(0)).transpose().map_err(crate::error::fault_of)?;
        Ok(bytes.map(|bytes| u64::from(bytes.unsigned_abs())))
    }
}
