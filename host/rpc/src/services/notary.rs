//! `maxhost.v1.NotaryService`.

use maxhost_flows::api::ledger::Paged;
use maxhost_flows::api::notary::{
    Answered, ConflictView, ConsumerView, ConsumptionView, NotarisedView, RequestView, RequestsQuery,
};
use maxhost_model::{Code, Problem};
use tonic::{Request, Response, Status};

use super::host::whole_ms;
use super::ledger::Ledgers;
use super::{optional, required};
use crate::convert::timestamp;
use crate::proto::v1 as pb;
use crate::proto::v1::notary_service_server::NotaryService;

fn asked_outcome(outcome: i32) -> Result<Option<Answered>, Problem> {
    match pb::NotaryOutcome::try_from(outcome) {
        Ok(pb::NotaryOutcome::Unspecified) => Ok(None),
        Ok(pb::NotaryOutcome::Committed) => Ok(Some(Answered::Committed)),
        Ok(pb::NotaryOutcome::Repeated) => Ok(Some(Answered::Repeated)),
        Ok(pb::NotaryOutcome::Conflict) => Ok(Some(Answered::Conflict)),
        Ok(pb::NotaryOutcome::TooLate) => Ok(Some(Answered::TooLate)),
        Ok(pb::NotaryOutcome::TooEarly) => Ok(Some(Answered::TooEarly)),
        Err(_) => {
            let text = format!("outcome: {outcome} is no known value");
            Err(Problem::new(Code::RequestInvalid, text).detail("field", "outcome"))
        }
    }
}

fn told_outcome(outcome: Option<Answered>) -> pb::NotaryOutcome {
    match outcome {
        None => pb::NotaryOutcome::Unspecified,
        Some(Answered::Committed) => pb::NotaryOutcome::Committed,
        Some(Answered::Repeated) => pb::NotaryOutcome::Repeated,
        Some(Answered::Conflict) => pb::NotaryOutcome::Conflict,
        Some(Answered::TooLate) => pb::NotaryOutcome::TooLate,
        Some(Answered::TooEarly) => pb::NotaryOutcome::TooEarly,
    }
}

fn consumer(consumer: ConsumerView) -> pb::NotaryConsumer {
    pb::NotaryConsumer { id: consumer.id, batch: consumer.batch, at: consumer.at_ms.map(timestamp) }
}

fn conflict(conflict: ConflictView) -> pb::NotaryConflict {
    pb::NotaryConflict {
        r#ref: conflict.reference,
        kind: conflict.kind.to_owned(),
        consumed: conflict.consumed.map(consumer),
    }
}

fn decided(request: RequestView) -> pb::NotaryRequest {
    pb::NotaryRequest {
        id: request.id,
        caller: request.caller,
        states: request.states,
        batch: request.batch,
        at: Some(timestamp(request.at_ms)),
        outcome: told_outcome(request.outcome).into(),
        conflicting: request.conflicting,
        conflicts: request.conflicts.into_iter().map(conflict).collect(),
    }
}

fn notarised(view: NotarisedView) -> pb::GetNotaryRequestResponse {
    pb::GetNotaryRequestResponse {
        id: view.id,
        decided: view.decided.map(|decided| pb::NotaryDecision {
            committed: decided.batch.is_some(),
            batch: decided.batch,
            at: Some(timestamp(decided.at_ms)),
        }),
        requests: view.requests.into_iter().map(decided).collect(),
        more: view.more,
    }
}

fn consumption(view: ConsumptionView) -> pb::NotaryConsumption {
    pb::NotaryConsumption { r#ref: view.reference, consumed: view.consumed.map(consumer) }
}

#[tonic::async_trait]
impl NotaryService for Ledgers {
    async fn status(
        &self,
        request: Request<pb::NotaryStatusRequest>,
    ) -> Result<Response<pb::NotaryStatusResponse>, Status> {
        let admitted = self.0.call(&request)?;
        let request = request.into_inner();
        self.0
            .answer(async {
                let identity = required("identity", request.identity)?;
                let status = self.0.api.notary_status(&admitted.caller, &identity).await?;
                Ok(pb::NotaryStatusResponse {
                    validating: status.validating,
                    committed: status.committed,
                    conflicts: status.conflicts,
                    states: status.states,
                    queue: status.queue,
                })
            })
            .await
    }

    async fn list_requests(
        &self,
        request: Request<pb::ListNotaryRequestsRequest>,
    ) -> Result<Response<pb::ListNotaryRequestsResponse>, Status> {
        let admitted = self.0.call(&request)?;
        let request = request.into_inner();
        self.0
            .answer(async {
                let query = RequestsQuery {
                    identity: required("identity", request.identity)?,
                    caller: optional(request.caller),
                    outcome: asked_outcome(request.outcome)?,
                    from_ms: request.from.as_ref().map(|at| whole_ms("from", at)).transpose()?,
                    until_ms: request.until.as_ref().map(|at| whole_ms("until", at)).transpose()?,
                    limit: request.limit,
                    cursor: optional(request.cursor),
                };
                let Paged { items, cursor } = self.0.api.notary_requests(&admitted.caller, query).await?;
                let requests = items.into_iter().map(decided).collect();
                Ok(pb::ListNotaryRequestsResponse { requests, cursor })
            })
            .await
    }

    async fn get_request(
        &self,
        request: Request<pb::GetNotaryRequestRequest>,
    ) -> Result<Response<pb::GetNotaryRequestResponse>, Status> {
        let admitted = self.0.call(&request)?;
        let request = request.into_inner();
        self.0
            .answer(async {
                let (identity, id) = (required("identity", request.identity)?, required("id", request.id)?);
                Ok(notarised(self.0.api.notary_transaction(&admitted.caller, &identity, &id).await?))
            })
            .await
    }

    async fn consumption(
        &self,
        request: Request<pb::NotaryConsumptionRequest>,
    ) -> Result<Response<pb::NotaryConsumptionResponse>, Status> {
        let admitted = self.0.call(&request)?;
        let request = request.into_inner();
        self.0
            .answer(async {
                let identity = required("identity", request.identity)?;
                if request.states.is_empty() {
                    let problem = Problem::new(Code::RequestInvalid, "the field 'states' is missing");
                    return Err(problem.detail("field", "states"));
                }
                let found = self.0.api.notary_consumption(&admitted.caller, &identity, &request.states).await?;
                Ok(pb::NotaryConsumptionResponse { states: found.into_iter().map(consumption).collect() })
            })
            .await
    }
}
