//! The service `maxhost.v1.HostService`.

use maxhost_flows::api::audit::AuditQuery;
use maxhost_flows::api::ledger::Paged;
use maxhost_model::{Code, Problem};
use tonic::{Request, Response, Status};

use super::{optional, required};
use crate::admission::Admission;
use crate::convert;
use crate::proto::v1 as pb;
use crate::proto::v1::host_service_server::HostService;

pub(crate) struct Hosts(pub(crate) Admission);

#[tonic::async_trait]
impl HostService for Hosts {
    async fn status(&self, request: Request<pb::StatusRequest>) -> Result<Response<pb::StatusResponse>, Status> {
        let admitted = self.0.call(&request)?;
        self.0.answer(async { Ok(convert::status(self.0.api.status(&admitted.caller).await?)) }).await
    }

    async fn list_identities(
        &self,
        request: Request<pb::ListIdentitiesRequest>,
    ) -> Result<Response<pb::ListIdentitiesResponse>, Status> {
        let admitted = self.0.call(&request)?;
        let filter = optional(request.into_inner().filter);
        self.0
            .answer(async {
                let identities = self.0.api.identities(&admitted.caller, filter.as_deref()).await?;
                Ok(pb::ListIdentitiesResponse { identities: identities.into_iter().map(convert::identity).collect() })
            })
            .await
    }

    async fn get_identity(
        &self,
        request: Request<pb::GetIdentityRequest>,
    ) -> Result<Response<pb::GetIdentityResponse>, Status> {
        let admitted = self.0.call(&request)?;
        let request = request.into_inner();
        self.0
            .answer(async {
                let name = required("name", request.name)?;
                let identity = self.0.api.identity(&admitted.caller, &name).await?;
                Ok(pb::GetIdentityResponse { identity: Some(convert::identity(identity)) })
            })
            .await
    }

    async fn list_hosts(
        &self,
        request: Request<pb::ListHostsRequest>,
    ) -> Result<Response<pb::ListHostsResponse>, Status> {
        let admitted = self.0.call(&request)?;
        self.0
            .answer(async {
                let hosts = self.0.api.hosts(&admitted.caller).await?;
                Ok(pb::ListHostsResponse { hosts: hosts.into_iter().map(convert::cluster_host).collect() })
            })
            .await
    }

    async fn set_draining(
        &self,
        request: Request<pb::SetDrainingRequest>,
    ) -> Result<Response<pb::SetDrainingResponse>, Status> {
        let admitted = self.0.call(&request)?;
        let request = request.into_inner();
        self.0
            .answer(async {
                let host = required("host", request.host)?;
                let host = self.0.api.set_draining(&admitted.caller, &host, request.draining).await?;
                Ok(pb::SetDrainingResponse { host: Some(convert::cluster_host(host)) })
            })
            .await
    }

    async fn move_identity(
        &self,
        request: Request<pb::MoveIdentityRequest>,
    ) -> Result<Response<pb::MoveIdentityResponse>, Status> {
        let admitted = self.0.call(&request)?;
        let request = request.into_inner();
        self.0
            .answer(async {
                let (identity, host) = (required("identity", request.identity)?, required("host", request.host)?);
                let found = self.0.api.move_identity(&admitted.caller, &identity, &host).await?;
                Ok(pb::MoveIdentityResponse { identity: Some(convert::whereabouts(found)) })
            })
            .await
    }

    async fn find_identities(
        &self,
        request: Request<pb::FindIdentitiesRequest>,
    ) -> Result<Response<pb::FindIdentitiesResponse>, Status> {
        let admitted = self.0.call(&request)?;
        let name = optional(request.into_inner().name);
        self.0
            .answer(async {
                let found = self.0.api.whereabouts(&admitted.caller, name.as_deref()).await?;
                Ok(pb::FindIdentitiesResponse { identities: found.into_iter().map(convert::whereabouts).collect() })
            })
            .await
    }

    async fn list_audit(
        &self,
        request: Request<pb::ListAuditRequest>,
    ) -> Result<Response<pb::ListAuditResponse>, Status> {
        let admitted = self.0.call(&request)?;
        let request = request.into_inner();
        self.0
            .answer(async {
                let query = AuditQuery {
                    user: optional(request.user),
                    identity: optional(request.identity),
                    since_ms: request.since.as_ref().map(since).transpose()?,
                    limit: request.limit,
                    cursor: optional(request.cursor),
                };
                let Paged { items, cursor } = self.0.api.audit(&admitted.caller, query).await?;
                Ok(pb::ListAuditResponse { rows: items.into_iter().map(convert::audit_row).collect(), cursor })
            })
            .await
    }

    async fn cluster_status(
        &self,
        request: Request<pb::ClusterStatusRequest>,
    ) -> Result<Response<pb::ClusterStatusResponse>, Status> {
        let admitted = self.0.call(&request)?;
        self.0.answer(async { Ok(convert::cluster_status(self.0.api.cluster_status(&admitted.caller).await?)) }).await
    }
}

/// Milliseconds since 1970 of a time that a request names.
fn since(at: &prost_types::Timestamp) -> Result<i64, Problem> {
    whole_ms("since", at)
}

/// A time of a field, ms since 1970.
pub(super) fn whole_ms(field: &str, at: &prost_types::Timestamp) -> Result<i64, Problem> {
    let ms = at.seconds.checked_mul(1_000).and_then(|ms| ms.checked_add(i64::from(at.nanos / 1_000_000)));
    ms.ok_or_else(|| Problem::new(Code::RequestInvalid, format!("{field}: it is no time")).detail("field", field))
}
