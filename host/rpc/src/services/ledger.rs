//! `maxhost.v1.VaultService` and `maxhost.v1.LedgerService`.

use futures::StreamExt;
use maxhost_flows::api::ledger::{
    CheckView, ExaminationView, GraphNode, LockView, Paged, Relevancy, StateView, SumView, TransactionSummary,
    TransactionView, VaultChange, VaultRequest,
};
use maxhost_model::{Code, Problem};
use tonic::{Request, Response, Status};

use super::{optional, required};
use crate::admission::{Admission, Events};
use crate::conversion::aside;
use crate::convert::{PayloadForm, timestamp};
use crate::proto::v1 as pb;
use crate::proto::v1::ledger_service_server::LedgerService;
use crate::proto::v1::vault_service_server::VaultService;
use crate::status::to_status;

/// How many are listed when no number is named.
const DEFAULT_PAGE: u32 = 200;
/// How many transactions of a graph are shown when no number is named.
const DEFAULT_GRAPH: u32 = 1_000;

#[derive(Clone)]
pub(crate) struct Ledgers(pub(crate) Admission);

pub(crate) fn vault_request(request: Option<pb::VaultQueryRequest>) -> Result<(VaultRequest, PayloadForm), Problem> {
    let request = request
        .ok_or_else(|| Problem::new(Code::RequestInvalid, "the field 'query' is missing").detail("field", "query"))?;
    let (unconsumed, consumed) = match pb::StateStatus::try_from(request.status) {
        Ok(pb::StateStatus::Unspecified) => (false, false),
        Ok(pb::StateStatus::Unconsumed) => (true, false),
        Ok(pb::StateStatus::Consumed) => (false, true),
        Ok(pb::StateStatus::All) => (true, true),
        Err(_) => {
            let text = format!("status: {} is no known value", request.status);
            return Err(Problem::new(Code::RequestInvalid, text));
        }
    };
    let form = PayloadForm::of(request.encoding)?;
    let vault = VaultRequest {
        identity: required("identity", request.identity)?,
        types: request.types,
        unconsumed,
        consumed,
        filter: request.r#where,
        relevancy: relevancy(request.relevancy)?,
        external_ids: request.external_ids,
        key_external_ids: request.key_external_ids,
        sort: optional(request.sort),
        limit: request.limit,
        cursor: optional(request.cursor),
    };
    Ok((vault, form))
}

fn relevancy(asked: i32) -> Result<Option<Relevancy>, Problem> {
    match pb::StateRelevancy::try_from(asked) {
        Ok(pb::StateRelevancy::Unspecified) => Ok(None),
        Ok(pb::StateRelevancy::All) => Ok(Some(Relevancy::All)),
        Ok(pb::StateRelevancy::Relevant) => Ok(Some(Relevancy::Relevant)),
        Ok(pb::StateRelevancy::NotRelevant) => Ok(Some(Relevancy::NotRelevant)),
        Err(_) => {
            let text = format!("relevancy: {asked} is no known value");
            Err(Problem::new(Code::RequestInvalid, text).detail("field", "relevancy"))
        }
    }
}

fn lock(lock: LockView) -> pb::StateLock {
    pb::StateLock { r#ref: lock.reference, holder: lock.holder, until: Some(timestamp(lock.until_ms)) }
}

pub(crate) fn state(state: StateView, form: PayloadForm) -> pb::VaultState {
    let status = if state.is_consumed { pb::StateStatus::Consumed } else { pb::StateStatus::Unconsumed };
    pb::VaultState {
        r#ref: state.reference,
        r#type: state.type_name,
        state: Some(form.payload(state.data)),
        status: status.into(),
        recorded: Some(timestamp(state.recorded_ms)),
        consumed: state.consumed_ms.map(timestamp),
        consumed_by: state.consumed_by,
        notary: state.notary,
        participants: state.participants,
        relevant: state.relevant,
        external_id: state.external_id,
        key_external_ids: state.key_external_ids,
        lock: state.lock.map(lock),
        encumbered_by: state.encumbered_by,
        in_flight: state.in_flight,
    }
}

/// Bytes of the states' data.
fn data_bytes(states: &[StateView]) -> usize {
    states.iter().map(|state| state.data.len()).sum()
}

fn update(change: VaultChange, form: PayloadForm) -> pb::VaultUpdate {
    pb::VaultUpdate {
        cursor: change.cursor,
        transaction: change.transaction,
        produced: change.produced.into_iter().map(|one| state(one, form)).collect(),
        consumed: change.consumed,
        more: change.more,
    }
}

fn summary(summary: TransactionSummary) -> pb::TransactionSummary {
    pb::TransactionSummary {
        id: summary.id,
        status: summary.status.as_str().to_owned(),
        recorded: Some(timestamp(summary.recorded_ms)),
    }
}

fn transaction(view: TransactionView, form: PayloadForm) -> pb::GetTransactionResponse {
    pb::GetTransactionResponse {
        summary: Some(summary(view.summary)),
        inputs: view.inputs,
        references: view.references,
        outputs: view
            .outputs
            .into_iter()
            .map(|output| pb::TransactionOutput {
                r#type: output.type_name,
                state: Some(form.payload(output.data)),
                notary: output.notary,
                constraint: output.constraint,
                encumbrance: output.encumbrance,
            })
            .collect(),
        commands: view
            .commands
            .into_iter()
            .map(|command| pb::TransactionCommand {
                r#type: command.type_name,
                value: Some(form.payload(command.value)),
                signers: command.signers,
            })
            .collect(),
        attachments: view.attachments,
        time_window: view.time_window.map(|(from, until)| pb::TransactionWindow { from, until }),
        notary: view.notary,
        new_notary: view.new_notary,
        signatures: view
            .signatures
            .into_iter()
            .map(|signature| pb::LedgerSignature { by: signature.by, key: signature.key })
            .collect(),
    }
}

fn examination(view: ExaminationView) -> pb::ExamineResponse {
    let check = |check: CheckView| {
        let (code, message) = check.wrong.map_or((None, String::new()), |(code, message)| (Some(code), message));
        pb::TransactionCheck {
            what: check.what.to_owned(),
            subject: check.subject,
            code,
            message,
            details: check.details.into_iter().collect(),
        }
    };
    pb::ExamineResponse {
        valid: view.checks.iter().all(|check| check.wrong.is_none()),
        summary: Some(summary(view.summary)),
        checks: view.checks.into_iter().map(check).collect(),
    }
}

fn limit(asked: u32, otherwise: u32) -> u32 {
    if asked == 0 { otherwise } else { asked }
}

#[tonic::async_trait]
impl VaultService for Ledgers {
    async fn query(&self, request: Request<pb::VaultQueryRequest>) -> Result<Response<pb::VaultQueryResponse>, Status> {
        let admitted = self.0.call(&request)?;
        let request = request.into_inner();
        let answer = self.0.answer(async {
            let (request, form) = vault_request(Some(request))?;
            let Paged { items, cursor } = self.0.api.vault_query(&admitted.caller, request).await?;
            let bytes = data_bytes(&items);
            let answer = move || {
                let states = items.into_iter().map(|one| state(one, form)).collect();
                pb::VaultQueryResponse { states, cursor }
            };
            admitted.conversion().run(bytes, answer).await
        });
        Ok(admitted.large(answer.await?))
    }

    async fn count(&self, request: Request<pb::VaultQueryRequest>) -> Result<Response<pb::VaultCountResponse>, Status> {
        let admitted = self.0.call(&request)?;
        let request = request.into_inner();
        self.0
            .answer(async {
                let (request, _) = vault_request(Some(request))?;
                Ok(pb::VaultCountResponse { count: self.0.api.vault_count(&admitted.caller, request).await? })
            })
            .await
    }

    async fn sum(&self, request: Request<pb::VaultSumRequest>) -> Result<Response<pb::VaultSumResponse>, Status> {
        let admitted = self.0.call(&request)?;
        let pb::VaultSumRequest { query, field, by } = request.into_inner();
        self.0
            .answer(async {
                let (request, _) = vault_request(query)?;
                let (field, by) = (required("field", field)?, optional(by));
                let sums = self.0.api.vault_sum(&admitted.caller, request, &field, by.as_deref()).await?;
                let sum = |one: SumView| pb::VaultSum {
                    by: serde_json::to_string(&one.by).unwrap_or_default(),
                    sum: one.sum.to_string(),
                    count: one.count,
                };
                Ok(pb::VaultSumResponse { sums: sums.into_iter().map(sum).collect() })
            })
            .await
    }

    type TrackStream = Events<pb::VaultUpdate>;

    async fn track(&self, request: Request<pb::VaultTrackRequest>) -> Result<Response<Self::TrackStream>, Status> {
        let admitted = self.0.stream(&request)?;
        let pb::VaultTrackRequest { query, cursor } = request.into_inner();
        let opened = self.0.wait(async {
            let (request, form) = vault_request(query)?;
            let changes = self.0.api.vault_track(&admitted.caller, request, optional(cursor)).await?;
            Ok(changes.then(move |change| async move {
                let change = change?;
                aside(data_bytes(&change.produced), move || update(change, form)).await
            }))
        });
        let events = opened.await.map_err(to_status)?;
        Ok(self.0.events(admitted, events))
    }

    async fn locks(&self, request: Request<pb::VaultLocksRequest>) -> Result<Response<pb::VaultLocksResponse>, Status> {
        let admitted = self.0.call(&request)?;
        let request = request.into_inner();
        self.0
            .answer(async {
                let identity = required("identity", request.identity)?;
                let (cursor, limit) = (optional(request.cursor), limit(request.limit, DEFAULT_PAGE));
                let Paged { items, cursor } =
                    self.0.api.vault_locks(&admitted.caller, &identity, cursor, limit).await?;
                Ok(pb::VaultLocksResponse { locks: items.into_iter().map(lock).collect(), cursor })
            })
            .await
    }
}

#[tonic::async_trait]
impl LedgerService for Ledgers {
    async fn get_transaction(
        &self,
        request: Request<pb::GetTransactionRequest>,
    ) -> Result<Response<pb::GetTransactionResponse>, Status> {
        let admitted = self.0.call(&request)?;
        let request = request.into_inner();
        let answer = self.0.answer(async {
            let form = PayloadForm::of(request.encoding)?;
            let (identity, id) = (required("identity", request.identity)?, required("id", request.id)?);
            let view = self.0.api.ledger_transaction(&admitted.caller, &identity, &id).await?;
            let outputs: usize = view.outputs.iter().map(|output| output.data.len()).sum();
            let commands: usize = view.commands.iter().map(|command| command.value.len()).sum();
            admitted.conversion().run(outputs + commands, move || transaction(view, form)).await
        });
        Ok(admitted.large(answer.await?))
    }

    async fn list_transactions(
        &self,
        request: Request<pb::ListTransactionsRequest>,
    ) -> Result<Response<pb::ListTransactionsResponse>, Status> {
        let admitted = self.0.call(&request)?;
        let request = request.into_inner();
        self.0
            .answer(async {
                let identity = required("identity", request.identity)?;
                let (cursor, limit) = (optional(request.cursor), limit(request.limit, DEFAULT_PAGE));
                let Paged { items, cursor } =
                    self.0.api.ledger_list(&admitted.caller, &identity, cursor, limit).await?;
                let transactions = items.into_iter().map(summary).collect();
                Ok(pb::ListTransactionsResponse { transactions, cursor })
            })
            .await
    }

    async fn examine(&self, request: Request<pb::ExamineRequest>) -> Result<Response<pb::ExamineResponse>, Status> {
        let admitted = self.0.call(&request)?;
        let request = request.into_inner();
        self.0
            .answer(async {
                let (identity, id) = (required("identity", request.identity)?, required("id", request.id)?);
                Ok(examination(self.0.api.ledger_examine(&admitted.caller, &identity, &id).await?))
            })
            .await
    }

    async fn graph(
        &self,
        request: Request<pb::LedgerGraphRequest>,
    ) -> Result<Response<pb::LedgerGraphResponse>, Status> {
        let admitted = self.0.call(&request)?;
        let request = request.into_inner();
        self.0
            .answer(async {
                let (identity, id) = (required("identity", request.identity)?, required("id", request.id)?);
                let limit = limit(request.limit, DEFAULT_GRAPH);
                let nodes = self.0.api.ledger_graph(&admitted.caller, &identity, &id, limit).await?;
                let node = |one: GraphNode| pb::LedgerNode {
                    id: one.id,
                    status: one.status.map(|status| status.as_str().to_owned()),
                    depth: one.depth,
                    parents: one.parents,
                };
                Ok(pb::LedgerGraphResponse { nodes: nodes.into_iter().map(node).collect() })
            })
            .await
    }
}
