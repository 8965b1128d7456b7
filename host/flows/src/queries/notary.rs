//! Showing what a notary has decided, straight from the database.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use maxhost_ledger::notary::{ConflictKind, Outcome};
use maxhost_ledger::time::Timestamp;
use maxhost_ledger::tx::StateRef;
use maxhost_model::text::is_storable;
use maxhost_model::{Code, Problem, X500Name};
use maxhost_store::ledger::{Conflicting, Consumption, LOOKED_AT, ListRequests, LoggedRequest, RequestPlace};

use super::ledger::{kind_of_notary, parse_id};
use super::state_views::ms;
use crate::api::access::Action;
use crate::api::ledger::Paged;
use crate::api::notary::{
    ConflictView, ConsumerView, ConsumptionView, DecidedView, NotarisedView, NotaryApi, RequestView, RequestsQuery,
};
use crate::api::{ApiResult, Caller};
use crate::host::lifecycle::Host;
use crate::registry::entry::IdentityEntry;

/// Requests of a page when no number is named, and the most that there may be. Each has 2 KiB at most, most of which is a name.
const PAGE: u32 = 200;
const MAX_PAGE: u32 = 1_000;
/// The most requests that are shown of one transaction.
const OF_ONE: u32 = 100;
/// The most states that are asked about at once.
const MAX_STATES: usize = 100;

fn cursor(place: RequestPlace) -> String {
    format!("{}.{}", place.at, place.number)
}

fn place(cursor: &str) -> ApiResult<RequestPlace> {
    let read = || {
        let (at, number) = cursor.split_once('.')?;
        Some(RequestPlace { at: at.parse().ok()?, number: number.parse().ok()? })
    };
    read().ok_or_else(|| {
        Problem::new(Code::CursorInvalid, "this is no cursor of a list of requests").detail("field", "cursor")
    })
}

/// A time that a client names; one before 1970 is before all that there is.
fn time(ms: i64) -> Timestamp {
    Timestamp::from_nanos(u64::try_from(ms).unwrap_or_default().saturating_mul(1_000_000))
}

fn view(request: LoggedRequest) -> RequestView {
    RequestView {
        id: request.id.to_string(),
        caller: request.caller,
        states: request.states,
        batch: request.stamp.batch,
        at_ms: ms(request.stamp.at),
        outcome: request.answered,
        conflicting: request.conflicting,
        conflicts: Vec::new(),
    }
}

fn consumer(consumption: &Consumption) -> ConsumerView {
    ConsumerView {
        id: consumption.consumed_by.to_string(),
        batch: consumption.stamp.map(|stamp| stamp.batch),
        at_ms: consumption.stamp.map(|stamp| ms(stamp.at)),
    }
}

fn reference(text: &str) -> ApiResult<StateRef> {
    text.parse().map_err(|_| {
        let shown: String = text.chars().take(80).collect();
        Problem::new(Code::RequestInvalid, format!("states: '{shown}' is no reference of a state"))
            .remedy("write references as ID:INDEX")
            .detail("field", "states")
    })
}

impl Host {
    fn notary_of(&self, caller: &Caller, name: &str) -> ApiResult<Arc<IdentityEntry>> {
        let entry = self.ledger_of(caller, Action::ReadLedger, name)?;
        kind_of_notary(&entry)?;
        Ok(entry)
    }

    /// What has consumed these states, by their references.
    async fn consumers(
        &self,
        entry: &IdentityEntry,
        states: &[StateRef],
    ) -> ApiResult<HashMap<StateRef, ConsumerView>> {
        if states.is_empty() {
            return Ok(HashMap::new());
        }
        let found = self.parts.store.notary_consumed(entry.row, states).await.map_err(Problem::from)?;
        Ok(found.iter().map(|one| (one.reference, consumer(one))).collect())
    }
}

#[async_trait]
impl NotaryApi for Host {
    async fn notary_requests(&self, caller: &Caller, query: RequestsQuery) -> ApiResult<Paged<RequestView>> {
        let entry = self.notary_of(caller, &query.identity)?;
        let before = query.cursor.as_deref().map(place).transpose()?;
        let limit = match query.limit {
            0 => PAGE,
            limit => limit.min(MAX_PAGE),
        };
        // As the log has names. No row has a text that not every database can hold.
        let asked = query.caller.map(|name| X500Name::parse(&name).map_or(name, |parsed| parsed.to_string()));
        if asked.as_deref().is_some_and(|name| !is_storable(name)) {
            return Ok(Paged { items: Vec::new(), cursor: None });
        }
        let list = ListRequests {
            before,
            from: query.from_ms.map(time),
            until: query.until_ms.map(time),
            caller: asked,
            answered: query.outcome,
            limit,
            look: LOOKED_AT,
        };
        let found = self.parts.store.notary_requests(entry.row, &list).await.map_err(Problem::from)?;
        let items = found.rows.into_iter().map(|(_, request)| view(request)).collect();
        Ok(Paged { items, cursor: found.next.map(cursor) })
    }

    async fn notary_transaction(&self, caller: &Caller, identity: &str, id: &str) -> ApiResult<NotarisedView> {
        caller.about.detail(id);
        let entry = self.notary_of(caller, identity)?;
        let id = parse_id(id)?;
        let store = &self.parts.store;
        let mut found = store.notary_requests_of(entry.row, &id, OF_ONE + 1).await.map_err(Problem::from)?;
        let outcome = store.notary_outcome(entry.row, &id).await.map_err(Problem::from)?;
        if found.is_empty() && outcome.is_none() {
            let text = format!("{} has decided nothing about the transaction {id}", entry.text);
            return Err(Problem::new(Code::TransactionNotFound, text).detail("transaction", id.to_string()));
        }
        let more = found.len() > OF_ONE as usize;
        found.truncate(OF_ONE as usize);
        let mut states: Vec<StateRef> =
            found.iter().flat_map(|(_, request)| &request.conflicts).map(|conflict| conflict.reference).collect();
        states.sort_unstable();
        states.dedup();
        let consumers = self.consumers(&entry, &states).await?;
        let conflict = |conflict: &Conflicting| ConflictView {
            reference: conflict.reference.to_string(),
            kind: match conflict.kind {
                ConflictKind::Input => "input",
                ConflictKind::Reference => "reference",
            },
            consumed: consumers.get(&conflict.reference).cloned(),
        };
        let requests = found.into_iter().map(|(_, request)| {
            let conflicts = request.conflicts.iter().map(conflict).collect();
            RequestView { conflicts, ..view(request) }
        });
        Ok(NotarisedView {
            id: id.to_string(),
            decided: outcome.map(|outcome| match outcome {
                Outcome::Committed(stamp) => DecidedView { batch: Some(stamp.batch), at_ms: ms(stamp.at) },
                Outcome::TooLate(at) => DecidedView { batch: None, at_ms: ms(at) },
            }),
            requests: requests.collect(),
            more,
        })
    }

    async fn notary_consumption(
        &self,
        caller: &Caller,
        identity: &str,
        states: &[String],
    ) -> ApiResult<Vec<ConsumptionView>> {
        if let [one] = states {
            caller.about.detail(one);
        }
        let entry = self.notary_of(caller, identity)?;
        if states.len() > MAX_STATES {
            let text = format!("states: at most {MAX_STATES} are asked about at once, not {}", states.len());
            return Err(Problem::new(Code::RequestInvalid, text).detail("field", "states"));
        }
        let states = states.iter().map(|state| reference(state)).collect::<ApiResult<Vec<StateRef>>>()?;
        let consumers = self.consumers(&entry, &states).await?;
        let view = |state: &StateRef| ConsumptionView {
            reference: state.to_string(),
            consumed: consumers.get(state).cloned(),
        };
        Ok(states.iter().map(view).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_as_it_was_written() {
        let here = RequestPlace { at: 5, number: 7 };
        assert_eq!(place(&cursor(here)).ok(), Some(here));
        for text in ["", "1", "1.2.3", "x.1", "1."] {
            assert!(place(text).is_err(), "{text}");
        }
    }
}
