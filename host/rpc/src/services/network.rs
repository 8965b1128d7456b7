//! The service `maxhost.v1.NetworkService`.

use futures::{StreamExt, stream};
use tonic::{Request, Response, Status};

use super::{optional, required};
use crate::admission::{Admission, Events};
use crate::convert;
use crate::proto::v1 as pb;
use crate::proto::v1::network_map_feed_response::Event;
use crate::proto::v1::network_service_server::NetworkService;
use crate::status::to_status;

/// Parties in one message of a snapshot: some 200 KB.
const SNAPSHOT_PART: usize = 1_000;

pub(crate) struct Network(pub(crate) Admission);

#[tonic::async_trait]
impl NetworkService for Network {
    async fn parties(&self, request: Request<pb::PartiesRequest>) -> Result<Response<pb::PartiesResponse>, Status> {
        let admitted = self.0.call(&request)?;
        let request = request.into_inner();
        let query = optional(request.query);
        self.0
            .answer(async {
                let parties = self.0.api.parties(&admitted.caller, query.as_deref(), request.exact).await?;
                Ok(pb::PartiesResponse { parties: parties.into_iter().map(convert::party).collect() })
            })
            .await
    }

    async fn node_info(&self, request: Request<pb::NodeInfoRequest>) -> Result<Response<pb::NodeInfoResponse>, Status> {
        let admitted = self.0.call(&request)?;
        let request = request.into_inner();
        self.0
            .answer(async {
                let party = required("party", request.party)?;
                Ok(convert::node_info(self.0.api.node_info(&admitted.caller, &party).await?))
            })
            .await
    }

    async fn network_parameters(
        &self,
        request: Request<pb::NetworkParametersRequest>,
    ) -> Result<Response<pb::NetworkParametersResponse>, Status> {
        let admitted = self.0.call(&request)?;
        self.0.answer(async { Ok(convert::parameters(self.0.api.network_parameters(&admitted.caller).await?)) }).await
    }

    type NetworkMapFeedStream = Events<pb::NetworkMapFeedResponse>;

    async fn network_map_feed(
        &self,
        request: Request<pb::NetworkMapFeedRequest>,
    ) -> Result<Response<Self::NetworkMapFeedStream>, Status> {
        let admitted = self.0.stream(&request)?;
        let feed = self.0.wait(self.0.api.network_feed(&admitted.caller)).await;
        let (snapshot, changes) = feed.map_err(to_status)?;
        let mut parts = Vec::with_capacity(snapshot.len() / SNAPSHOT_PART + 2);
        let mut parties = snapshot.into_iter().map(convert::party).peekable();
        while parties.peek().is_some() {
            parts.push(Event::Snapshot(pb::PartyList { parties: parties.by_ref().take(SNAPSHOT_PART).collect() }));
        }
        parts.push(Event::SnapshotEnd(pb::SnapshotEnd {}));
        let snapshot = stream::iter(parts).map(|event| Ok(pb::NetworkMapFeedResponse { event: Some(event) }));
        let changes = changes.map(|change| change.map(convert::network_change));
        Ok(self.0.events(admitted, snapshot.chain(changes)))
    }
}
