//! The service `maxhost.v1.FlowService`.

use futures::{Stream, StreamExt, stream};
use maxhost_flows::api::{Arguments, Caller, FlowEvent, FlowEvents, FlowFilter, StartFlow};
use maxhost_model::{Code, FlowId, Problem};
use tonic::{Request, Response, Status};

use super::{optional, required};
use crate::admission::{Admission, Events};
use crate::conversion::{Conversion, aside};
use crate::convert::{self, PayloadForm};
use crate::proto::v1 as pb;
use crate::proto::v1::flow_service_server::FlowService;
use crate::status::to_status;

/// What ListFlows gives when no page size is named.
const DEFAULT_PAGE: u32 = 100;
/// The most it gives at once.
const LARGEST_PAGE: u32 = 10_000;

pub(crate) struct Flows(pub(crate) Admission);

/// How a request names a flow.
enum Selector {
    Id(String),
    Client(pb::ClientId),
}

/// The three requests that name a flow each have a `oneof` of their own; they say the same.
macro_rules! selector_of {
    ($($module:ident),*) => { $(
        impl From<pb::$module::Selector> for Selector {
            fn from(selector: pb::$module::Selector) -> Selector {
                match selector {
                    pb::$module::Selector::FlowId(id) => Selector::Id(id),
                    pb::$module::Selector::ClientId(client) => Selector::Client(client),
                }
            }
        }
    )* };
}
selector_of!(attach_request, get_flow_request, kill_flow_request);

impl Flows {
    async fn select(&self, caller: &Caller, selector: Option<impl Into<Selector>>) -> Result<FlowId, Problem> {
        match selector.map(Into::into) {
            Some(Selector::Id(id)) => convert::flow_id(&id),
            Some(Selector::Client(client)) => {
                let identity = required("client_id.identity", client.identity)?;
                let client_id = required("client_id.client_id", client.client_id)?;
                self.0.api.find_client_id(caller, &identity, &client_id).await
            }
            None => Err(Problem::new(Code::RequestInvalid, "the field 'flow_id' (or 'client_id') is missing")
                .detail("field", "flow_id")),
        }
    }
}

/// Long JSON is read on a thread that may block.
async fn start_request(request: pb::StartFlowRequest) -> Result<StartFlow, Problem> {
    let bytes = match &request.arguments {
        Some(pb::start_flow_request::Arguments::Json(json)) => json.len(),
        Some(pb::start_flow_request::Arguments::Cbor(_)) | None => 0,
    };
    aside(bytes, move || read_start(request)).await?
}

fn read_start(request: pb::StartFlowRequest) -> Result<StartFlow, Problem> {
    use pb::start_flow_request::Arguments as Given;
    let identity = required("identity", request.identity)?;
    let flow = required("flow", request.flow)?;
    let arguments = match request.arguments {
        None => Arguments::Json(serde_json::Value::Object(serde_json::Map::new())),
        Some(Given::Cbor(cbor)) => Arguments::Cbor(cbor),
        Some(Given::Json(json)) => Arguments::Json(maxhost_model::parse_arguments(&json)?),
    };
    Ok(StartFlow { identity, flow, arguments, client_id: request.client_id })
}

/// Events of the engine as messages. They move `cursor` on.
fn messages(
    events: FlowEvents,
    mut cursor: u64,
    form: PayloadForm,
    conversion: Conversion,
) -> impl Stream<Item = Result<pb::FlowEvent, Problem>> + Send {
    events.then(move |event| {
        if let Ok(FlowEvent::Progress { cursor: at, .. }) = &event {
            cursor = *at;
        }
        let (at, conversion) = (cursor, conversion.clone());
        async move {
            let event = event?;
            let bytes = match &event {
                FlowEvent::Ended { summary } => convert::payload_bytes(summary),
                FlowEvent::Phase { .. } | FlowEvent::Progress { .. } => 0,
            };
            conversion.run(bytes, move || convert::flow_event(event, at, form)).await
        }
    })
}

#[tonic::async_trait]
impl FlowService for Flows {
    async fn start_flow(
        &self,
        request: Request<pb::StartFlowRequest>,
    ) -> Result<Response<pb::StartFlowResponse>, Status> {
        let admitted = self.0.call(&request)?;
        self.0
            .answer(async {
                let start = start_request(request.into_inner()).await?;
                let started = self.0.api.start_flow(&admitted.caller, start).await?;
                Ok(pb::StartFlowResponse { flow: Some(convert::started(started)) })
            })
            .await
    }

    type StartAndAttachStream = Events<pb::FlowEvent>;

    async fn start_and_attach(
        &self,
        request: Request<pb::StartFlowRequest>,
    ) -> Result<Response<Self::StartAndAttachStream>, Status> {
        let admitted = self.0.stream(&request)?;
        let request = request.into_inner();
        let opened = self.0.wait(async {
            let form = PayloadForm::of(request.encoding)?;
            let start = start_request(request).await?;
            let (started, rest) = self.0.api.start_and_attach(&admitted.caller, start).await?;
            let first =
                pb::FlowEvent { cursor: 0, event: Some(pb::flow_event::Event::Started(convert::started(started))) };
            // The flow is durable already: whatever fails from here on is told in the stream, behind its id.
            let rest = match rest {
                Ok(events) => messages(events, 0, form, admitted.conversion()).boxed(),
                Err(problem) => stream::once(async { Err(problem) }).boxed(),
            };
            Ok(stream::once(async { Ok(first) }).chain(rest))
        });
        let events = opened.await.map_err(to_status)?;
        Ok(self.0.events(admitted, events))
    }

    type AttachStream = Events<pb::FlowEvent>;

    async fn attach(&self, request: Request<pb::AttachRequest>) -> Result<Response<Self::AttachStream>, Status> {
        let admitted = self.0.stream(&request)?;
        let request = request.into_inner();
        let opened = self.0.wait(async {
            let form = PayloadForm::of(request.encoding)?;
            let id = self.select(&admitted.caller, request.selector).await?;
            let events = self.0.api.attach(&admitted.caller, id, request.cursor).await?;
            Ok(messages(events, request.cursor, form, admitted.conversion()))
        });
        let events = opened.await.map_err(to_status)?;
        Ok(self.0.events(admitted, events))
    }

    async fn get_flow(&self, request: Request<pb::GetFlowRequest>) -> Result<Response<pb::GetFlowResponse>, Status> {
        let admitted = self.0.call(&request)?;
        let request = request.into_inner();
        let answer = self.0.answer(async {
            let form = PayloadForm::of(request.encoding)?;
            let id = self.select(&admitted.caller, request.selector).await?;
            let detail = self.0.api.flow(&admitted.caller, id).await?;
            let bytes = convert::payload_bytes(&detail.summary);
            admitted.conversion().run(bytes, move || convert::flow_detail(detail, form)).await
        });
        Ok(admitted.large(answer.await?))
    }

    async fn list_flows(
        &self,
        request: Request<pb::ListFlowsRequest>,
    ) -> Result<Response<pb::ListFlowsResponse>, Status> {
        let admitted = self.0.call(&request)?;
        let request = request.into_inner();
        self.0
            .answer(async {
                let form = PayloadForm::of(request.encoding)?;
                let filter = FlowFilter {
                    identity: optional(request.identity),
                    phases: request.states.into_iter().map(convert::flow_phase).collect::<Result<_, _>>()?,
                    flow: optional(request.flow),
                    limit: if request.page_size == 0 { DEFAULT_PAGE } else { request.page_size.min(LARGEST_PAGE) },
                    page_token: optional(request.page_token),
                };
                let page = self.0.api.list_flows(&admitted.caller, filter).await?;
                Ok(pb::ListFlowsResponse {
                    flows: page.flows.into_iter().map(|flow| convert::flow(flow, form)).collect(),
                    next_page_token: page.next_page_token,
                })
            })
            .await
    }

    async fn kill_flow(&self, request: Request<pb::KillFlowRequest>) -> Result<Response<pb::KillFlowResponse>, Status> {
        let admitted = self.0.call(&request)?;
        let request = request.into_inner();
        self.0
            .answer(async {
                let id = self.select(&admitted.caller, request.selector).await?;
                Ok(pb::KillFlowResponse { killed: self.0.api.kill_flow(&admitted.caller, id).await? })
            })
            .await
    }

    async fn remove_client_id(
        &self,
        request: Request<pb::RemoveClientIdRequest>,
    ) -> Result<Response<pb::RemoveClientIdResponse>, Status> {
        let admitted = self.0.call(&request)?;
        let request = request.into_inner();
        self.0
            .answer(async {
                let identity = optional(request.identity);
                let client_id = required("client_id", request.client_id)?;
                let removed = self.0.api.remove_client_id(&admitted.caller, identity.as_deref(), &client_id).await?;
                Ok(pb::RemoveClientIdResponse { removed })
            })
            .await
    }

    async fn finished_client_ids(
        &self,
        request: Request<pb::FinishedClientIdsRequest>,
    ) -> Result<Response<pb::FinishedClientIdsResponse>, Status> {
        let admitted = self.0.call(&request)?;
        let identity = optional(request.into_inner().identity);
        self.0
            .answer(async {
                let finished = self.0.api.finished_client_ids(&admitted.caller, identity.as_deref()).await?;
                let finished = finished.into_iter().map(convert::finished_client_id).collect();
                Ok(pb::FinishedClientIdsResponse { finished })
            })
            .await
    }

    async fn registered_flows(
        &self,
        request: Request<pb::RegisteredFlowsRequest>,
    ) -> Result<Response<pb::RegisteredFlowsResponse>, Status> {
        let admitted = self.0.call(&request)?;
        let request = request.into_inner();
        self.0
            .answer(async {
                let identity = required("identity", request.identity)?;
                let flows = self.0.api.flow_types(&admitted.caller, &identity).await?;
                Ok(pb::RegisteredFlowsResponse { flows: flows.into_iter().map(convert::flow_type).collect() })
            })
            .await
    }
}
