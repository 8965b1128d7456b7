//! How a flow ends in the file: what is kept of it, and for how long.

use maxhost_model::{FlowRow, IdentityRow};
use maxhost_sqlite::SqliteError;
use maxhost_store::{End, Keep};
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Row, Statement, params};

use super::SqliteRows;
use crate::write_buffer::BufferedFlow;

/// What the row of a live flow says: attempts, started, tag, name, user, client id, start record, revision.
type LiveRow<'r> = [ValueRef<'r>; 8];

impl SqliteRows<'_> {
    /// Keeps what is to be kept of a flow that is not live any more, or frees its client id.
    fn keep_or_forget(
        keep_end: &mut Statement<'_>,
        remove_client: &mut Statement<'_>,
        lived: i64,
        (identity, flow): (IdentityRow, FlowRow),
        end: &End<'_>,
        live: LiveRow<'_>,
    ) -> Result<(), SqliteError> {
        let (user, client_id) = (live[4], live[5]);
        let [attempts, started, tag, name, user_column, client_column, start, revision] =
            live.map(ToSqlOutput::Borrowed);
        match end.keep {
            Some(Keep { expires, end: body, labels }) => {
                let (state, labels) = (end.state as i64, labels.as_ref().map(|labels| &labels[..]));
                let forget_at = lived.saturating_add(expires.saturating_sub(end.finished).max(0));
                keep_end.execute(params![
                    flow.0,
                    identity.0,
                    state,
                    attempts,
                    started,
                    end.finished,
                    expires,
                    tag,
                    name,
                    user_column,
                    client_column,
                    start,
                    revision,
                    &body[..],
                    labels,
                    forget_at
                ])?;
            }
            None if client_id == ValueRef::Null => {}
            None => {
                let user = if user == ValueRef::Null { ValueRef::Text(b"") } else { user };
                remove_client.execute(params![identity.0, ToSqlOutput::Borrowed(user), client_column])?;
            }
        }
        Ok(())
    }

    pub(super) fn end_stored(
        &mut self,
        identity: IdentityRow,
        flow: FlowRow,
        end: &End<'_>,
    ) -> Result<bool, SqliteError> {
        let lived = self.lived.now();
        let mut live = self.sql.drop_flow.query(params![flow.0, identity.0])?;
        let Some(row) = live.next()? else { return Ok(false) };
        let mut columns: LiveRow<'_> = [ValueRef::Null; 8];
        for (index, column) in columns.iter_mut().enumerate() {
            *column = row.get_ref(index)?;
        }
        let of = (identity, flow);
        Self::keep_or_forget(&mut self.sql.keep_end, &mut self.sql.remove_client, lived, of, end, columns)?;
        // A statement that is not read to its end has not ended, and would keep the transaction from committing.
        while live.next()?.is_some() {}
        drop(live);
        self.sql.drop_journal.execute([flow.0])?;
        Ok(true)
    }

    pub(super) fn end_buffered(
        &mut self,
        identity: IdentityRow,
        flow: FlowRow,
        end: &End<'_>,
        buffered: &BufferedFlow,
    ) -> Result<(), SqliteError> {
        let BufferedFlow { new, attempts, revision, .. } = buffered;
        let tag = new.id.to_bytes();
        let columns = [
            ValueRef::Integer((*attempts).into()),
            ValueRef::Integer(new.started),
            ValueRef::Blob(&tag),
            ValueRef::from(&*new.name),
            new.user.as_deref().into(),
            new.client_id.as_deref().into(),
            ValueRef::Blob(&new.start),
            ValueRef::Integer((*revision).into()),
        ];
        let lived = self.lived.now();
        let of = (identity, flow);
        Self::keep_or_forget(&mut self.sql.keep_end, &mut self.sql.remove_client, lived, of, end, columns)
    }

    pub(super) fn expire_rows(&mut self, limit: u32) -> Result<u64, SqliteError> {
        let lived = self.lived.now();
        self.sql.set_meta.execute(params!["lived", lived])?;
        self.lived.noted = lived;
        type Expired = (i64, i64, Option<String>, Option<String>);
        let read = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?));
        let expired: Vec<Expired> =
            self.sql.expire.query_map(params![lived, limit], read)?.collect::<Result<_, _>>()?;
        for (flow, identity, user, client_id) in &expired {
            if let Some(client_id) = client_id {
                // Only while it names this flow: it may have been given to another one since.
                let user = user.as_deref().unwrap_or_default();
                self.sql.remove_client_of.execute(params![identity, user, client_id, flow])?;
            }
        }
        Ok(expired.len() as u64)
    }
}
