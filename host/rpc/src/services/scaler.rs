//! The service `externalscaler.ExternalScaler`: how many hosts are wanted, for an autoscaler (KEDA).
//!
//! What is told is the demand, never the present use: an identity is wanted from the moment that somebody has work for it
//! until it sleeps, whether a host runs it or not. So the figure rises while no host is there, and does not fall because a
//! host has come. If it is not known, the answer is an error: an autoscaler that took it for 0 would end hosts that work.

use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, stream};
use maxhost_flows::api::{Caller, HostApi};
use maxhost_model::{Code, Problem};
use tonic::{Request, Response, Status};

use crate::admission::{Admission, Events};
use crate::proto::externalscaler as pb;
use crate::proto::externalscaler::external_scaler_server::ExternalScaler;

/// The name of the metric.
const METRIC: &str = "maxhost_demand_slots";
/// The key in the metadata of a trigger that says how many identities one host runs.
const SLOTS: &str = "slotsPerHost";
/// The most identities that one host may run.
const MOST_SLOTS: u32 = 1_000_000;
/// So much of a host is to be used: with less room left, one host more is wanted.
const USED: f64 = 0.8;
/// How often it is looked whether what was told has changed.
const LOOK: Duration = Duration::from_millis(500);

pub(crate) struct Scaler {
    pub(crate) admission: Admission,
    /// How many identities one host runs, unless the trigger says.
    pub(crate) slots_per_host: u32,
}

impl Scaler {
    /// How much of the metric one host takes.
    fn target(&self, object: &pb::ScaledObjectRef) -> Result<f64, Problem> {
        let slots = match object.scaler_metadata.get(SLOTS) {
            None => self.slots_per_host,
            Some(text) => {
                let slots = text.trim().parse().ok().filter(|slots| (1..=MOST_SLOTS).contains(slots));
                slots.ok_or_else(|| {
                    let text = format!("{SLOTS} is '{text}', and has to be a number from 1 to {MOST_SLOTS}");
                    Problem::new(Code::RequestInvalid, text).detail("field", SLOTS)
                })?
            }
        };
        Ok((f64::from(slots) * USED).max(1.0))
    }
}

#[tonic::async_trait]
impl ExternalScaler for Scaler {
    async fn is_active(&self, request: Request<pb::ScaledObjectRef>) -> Result<Response<pb::IsActiveResponse>, Status> {
        let admitted = self.admission.call(&request)?;
        let api = &self.admission.api;
        let demand = async { Ok(pb::IsActiveResponse { result: api.demand(&admitted.caller).await? > 0 }) };
        self.admission.answer(demand).await
    }

    type StreamIsActiveStream = Events<pb::IsActiveResponse>;

    async fn stream_is_active(
        &self,
        request: Request<pb::ScaledObjectRef>,
    ) -> Result<Response<Self::StreamIsActiveStream>, Status> {
        let admitted = self.admission.stream(&request)?;
        let changes = changes(Arc::clone(&self.admission.api), admitted.caller.clone());
        Ok(self.admission.events(admitted, changes))
    }

    async fn get_metric_spec(
        &self,
        request: Request<pb::ScaledObjectRef>,
    ) -> Result<Response<pb::GetMetricSpecResponse>, Status> {
        let _admitted = self.admission.call(&request)?;
        let target = self.target(&request.into_inner());
        self.admission
            .answer(async {
                let target_size_float = target?;
                // Rounded down, and 1 at least: a target that is too small is on the safe side.
                let target_size = target_size_float as i64;
                let spec = pb::MetricSpec { metric_name: METRIC.to_owned(), target_size, target_size_float };
                Ok(pb::GetMetricSpecResponse { metric_specs: vec![spec] })
            })
            .await
    }

    async fn get_metrics(
        &self,
        request: Request<pb::GetMetricsRequest>,
    ) -> Result<Response<pb::GetMetricsResponse>, Status> {
        let admitted = self.admission.call(&request)?;
        let name = request.into_inner().metric_name;
        self.admission
            .answer(async {
                if !name.is_empty() && name != METRIC {
                    let text = format!("there is no metric '{name}', only {METRIC}");
                    return Err(Problem::new(Code::RequestInvalid, text).detail("field", "metricName"));
                }
                let demand = self.admission.api.demand(&admitted.caller).await?;
                // Whoever reads one of the two fields must not find less than what is wanted.
                let value = pb::MetricValue {
                    metric_name: METRIC.to_owned(),
                    metric_value: i64::try_from(demand).unwrap_or(i64::MAX),
                    metric_value_float: demand as f64,
                };
                Ok(pb::GetMetricsResponse { metric_values: vec![value] })
            })
            .await
    }
}

/// Whether any identity is wanted: now, and whenever that changes. Ends with an error when it is not known; the autoscaler
/// then asks again.
fn changes(
    api: Arc<dyn HostApi>,
    caller: Caller,
) -> impl Stream<Item = Result<pb::IsActiveResponse, Problem>> + Send + 'static {
    stream::unfold((api, caller, None), |(api, caller, told)| async move {
        loop {
            if told.is_some() {
                tokio::time::sleep(LOOK).await;
            }
            match api.demand(&caller).await {
                Ok(demand) if told == Some(demand > 0) => {}
                Ok(demand) => {
                    let result = demand > 0;
                    return Some((Ok(pb::IsActiveResponse { result }), (api, caller, Some(result))));
                }
                // The stream ends behind its first error.
                Err(problem) => return Some((Err(problem), (api, caller, told))),
            }
        }
    })
}
