//! Reading what a client asks of a vault.

use std::sync::Arc;

use maxhost_ledger::Refused;
use maxhost_ledger::vault::query::{
    Builtin, Criterion, Cursor, Field, Query, Relevancy, of_external_ids, of_key_external_ids,
};
use maxhost_model::Problem;
use maxhost_sandbox::VaultQuery;
use maxhost_store::StoreError;

use crate::api::ApiResult;
use crate::api::ledger::VaultRequest;
use crate::calls::read_query;
use crate::registry::entry::IdentityEntry;

pub(super) fn refused(error: Refused) -> Problem {
    StoreError::Ledger(error).into()
}

/// A query of an identity's vault. A cursor goes on with its own query: what is said beside it has to say the same. Condition,
/// relevancy and external ids are one thing there: who says one of them again says all.
pub(super) fn read(entry: &Arc<IdentityEntry>, request: &VaultRequest) -> ApiResult<(Query, Option<Cursor>)> {
    let more = more(request)?;
    let request = request.clone();
    let says_status = request.unconsumed || request.consumed;
    let says_filter = request.filter.is_some() || !more.is_empty();
    let mut asked = VaultQuery {
        types: request.types,
        unconsumed: request.unconsumed,
        consumed: request.consumed,
        filter: request.filter,
        sort: request.sort,
        limit: request.limit,
        cursor: request.cursor,
    };
    let (query, cursor) = read_query(&asked).map_err(refused)?;
    let Some(cursor) = cursor else { return Ok((with(query, more), None)) };
    cursor.check_vault(&entry.text).map_err(refused)?;
    asked.cursor = None;
    let (said, _) = read_query(&asked).map_err(refused)?;
    let said = with(said, more);
    let said = Query {
        status: if says_status { said.status } else { query.status },
        types: if asked.types.is_empty() { query.types.clone() } else { said.types },
        filter: if says_filter { said.filter } else { query.filter.clone() },
        sort: if asked.sort.is_some() { said.sort } else { query.sort.clone() },
        limit: query.limit,
    };
    cursor.check(&said).map_err(refused)?;
    Ok((query, Some(cursor)))
}

/// What must hold beside the condition.
fn more(request: &VaultRequest) -> ApiResult<Vec<Criterion>> {
    let relevancy = request.relevancy.and_then(Relevancy::criterion);
    let external = of_external_ids(&request.external_ids).map_err(refused)?;
    let of_keys = of_key_external_ids(&request.key_external_ids).map_err(refused)?;
    Ok(relevancy.into_iter().chain(external).chain(of_keys).collect())
}

fn with(query: Query, more: Vec<Criterion>) -> Query {
    Query { filter: more.into_iter().fold(query.filter, Criterion::and), ..query }
}

/// What is added up is one's own, unless the client says whose it is: a vault may have states of others, and their money is not
/// the identity's.
pub(super) fn of_ones_own(query: Query, request: &VaultRequest) -> Query {
    if request.relevancy.is_some() || query.filter.mentions(&Field::Builtin(Builtin::Relevant)) {
        return query;
    }
    with(query, Relevancy::Relevant.criterion().into_iter().collect())
}
