//! Reading the audit trail.

use std::time::Duration;

use async_trait::async_trait;
use maxhost_model::text::is_storable;
use maxhost_model::{Code, Problem};
use maxhost_store::{AuditClass, AuditFilter, AuditPlace, AuditRow};

use crate::api::ApiResult;
use crate::api::access::Caller;
use crate::api::access::{self, Action, Subject};
use crate::api::audit::{AuditApi, AuditEntry, AuditQuery, AuditView};
use crate::api::ledger::Paged;
use crate::host::lifecycle::Host;

/// Rows of a page when no number is named, and the most that there may be.
const PAGE: u32 = 100;
const MAX_PAGE: u32 = 1_000;
/// How long a reader waits for what this host has noted and not written yet.
const SETTLING: Duration = Duration::from_secs(2);

#[async_trait]
impl AuditApi for Host {
    fn note(&self, entry: AuditEntry) {
        self.parts.audit.note(entry);
    }

    async fn audit(&self, caller: &Caller, query: AuditQuery) -> ApiResult<Paged<AuditView>> {
        access::check(caller, Action::ListAudit, &Subject::default())?;
        let before = query.cursor.as_deref().map(place).transpose()?;
        let (identity, unknown) = match query.identity.as_deref() {
            None => (None, None),
            Some(name) => match self.resolve(caller, name) {
                Ok(entry) => (Some(entry.text.to_string()), None),
                // It may be one that is hosted no more, or a name that was asked for and was none.
                Err(problem) if problem.code == Code::IdentityNotFound => (Some(name.to_owned()), Some(problem)),
                Err(problem) => return Err(problem),
            },
        };
        let limit = match query.limit {
            0 => PAGE,
            limit => limit.min(MAX_PAGE),
        };
        if before.is_none() {
            self.parts.audit.settled(SETTLING).await;
        }
        // No row has a name that not every database can hold; as there are none of a name, there are none of this.
        if query.user.iter().chain(&identity).any(|name| !is_storable(name)) {
            return unknown.map_or_else(|| Ok(Paged { items: Vec::new(), cursor: None }), Err);
        }
        let mut filter = AuditFilter { user: query.user, identity, since: query.since_ms, before, limit: limit + 1 };
        let mut found: Vec<(AuditPlace, AuditRow)> = Vec::new();
        loop {
            let page = self.parts.store.audit(&filter).await.map_err(Problem::from)?;
            let is_last = page.len() < filter.limit as usize;
            filter.before = page.last().map(|(place, _)| *place).or(filter.before);
            found.extend(page.into_iter().filter(|(_, row)| is_seen(caller, row)));
            if is_last || found.len() > limit as usize {
                break;
            }
        }
        if let Some(problem) = unknown.filter(|_| found.is_empty() && query.cursor.is_none()) {
            return Err(problem);
        }
        let has_more = found.len() > limit as usize;
        found.truncate(limit as usize);
        let cursor = found.last().filter(|_| has_more).map(|(place, _)| cursor(*place));
        Ok(Paged { items: found.into_iter().map(|(_, row)| view(row)).collect(), cursor })
    }
}

/// Whoever has not all identities sees what is about his.
fn is_seen(caller: &Caller, row: &AuditRow) -> bool {
    caller.rights.see_all() || row.identity.as_deref().is_some_and(|identity| caller.rights.see(identity))
}

fn cursor(place: AuditPlace) -> String {
    format!("{}.{}.{}", place.at, place.class as i64, place.number)
}

fn place(cursor: &str) -> ApiResult<AuditPlace> {
    let read = || {
        let mut parts = cursor.split('.');
        let at = parts.next()?.parse().ok()?;
        let class = AuditClass::of(parts.next()?.parse().ok()?)?;
        let number = parts.next()?.parse().ok()?;
        parts.next().is_none().then_some(AuditPlace { at, class, number })
    };
    read().ok_or_else(|| Problem::new(Code::CursorInvalid, format!("cursor: '{cursor}' was not sent by this server")))
}

fn view(row: AuditRow) -> AuditView {
    AuditView {
        at_ms: row.at,
        host: row.host.to_string(),
        user: row.user,
        action: row.action,
        identity: row.identity,
        flow: row.flow,
        flow_id: row.flow_id,
        detail: row.detail,
        token: row.token,
        allowed: row.allowed,
        code: row.code,
        count: row.count.unsigned_abs(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_as_it_was_written() {
        let here = AuditPlace { at: -5, class: AuditClass::Change, number: 7 };
        assert_eq!(place(&cursor(here)).ok(), Some(here));
        for text in ["", "1.1", "1.2.3", "1.1.3.4", "x.1.2"] {
            assert!(place(text).is_err(), "{text}");
        }
    }
}
