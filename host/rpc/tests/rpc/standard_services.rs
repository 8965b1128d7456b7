//! Health and reflection, as other people's clients use them.

use crate::support::{options, serve};
use futures::stream;
use maxhost_rpc::proto::FILE_DESCRIPTOR_SET;
use prost::Message;
use tonic::transport::Channel;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus};

async fn channel(endpoint: &str) -> Channel {
    Channel::from_shared(endpoint.to_owned()).unwrap().connect().await.unwrap()
}

#[tokio::test]
async fn health_knows_the_services() {
    let served = serve(options()).await;
    let mut health = HealthClient::new(channel(&served.endpoint).await);
    let services =
        ["", "maxhost.v1.FlowService", "maxhost.v1.NetworkService", "maxhost.v1.HostService"].map(str::to_owned);
    for service in services {
        let answer = health.check(HealthCheckRequest { service: service.clone() }).await.unwrap().into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving, "{service}");
    }
    let unknown = HealthCheckRequest { service: "maxhost.v1.Nothing".to_owned() };
    assert_eq!(health.check(unknown).await.unwrap_err().code(), tonic::Code::NotFound);
}

#[tokio::test]
async fn reflection_lists_the_services_in_both_versions() {
    let served = serve(options()).await;
    let names = {
        use tonic_reflection::pb::v1::ServerReflectionRequest;
        use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
        use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
        use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
        let mut client = ServerReflectionClient::new(channel(&served.endpoint).await);
        let message_request = Some(MessageRequest::ListServices(String::new()));
        let request = ServerReflectionRequest { host: String::new(), message_request };
        let mut answers = client.server_reflection_info(stream::iter([request])).await.unwrap().into_inner();
        match answers.message().await.unwrap().unwrap().message_response.unwrap() {
            MessageResponse::ListServicesResponse(list) => {
                list.service.into_iter().map(|service| service.name).collect::<Vec<_>>()
            }
            other => panic!("{other:?}"),
        }
    };
    for service in
        ["maxhost.v1.FlowService", "maxhost.v1.NetworkService", "maxhost.v1.HostService", "grpc.health.v1.Health"]
    {
        assert!(names.iter().any(|name| name == service), "{service} is not in {names:?}");
    }

    use tonic_reflection::pb::v1alpha::ServerReflectionRequest;
    use tonic_reflection::pb::v1alpha::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1alpha::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1alpha::server_reflection_response::MessageResponse;
    let mut client = ServerReflectionClient::new(channel(&served.endpoint).await);
    let message_request = Some(MessageRequest::FileContainingSymbol("maxhost.v1.FlowService.StartFlow".to_owned()));
    let request = ServerReflectionRequest { host: String::new(), message_request };
    let mut answers = client.server_reflection_info(stream::iter([request])).await.unwrap().into_inner();
    let answer = answers.message().await.unwrap().unwrap().message_response.unwrap();
    assert!(matches!(answer, MessageResponse::FileDescriptorResponse(_)), "{answer:?}");
}

#[test]
fn every_service_method_and_message_is_documented() {
    let files = prost_types::FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap();
    let ours = files.file.iter().filter(|file| file.package() == "maxhost.v1");
    for file in ours {
        let comments: std::collections::HashMap<&[i32], &str> = file
            .source_code_info
            .iter()
            .flat_map(|info| &info.location)
            .map(|location| (location.path.as_slice(), location.leading_comments()))
            .collect();
        let documented = |path: &[i32]| comments.get(path).is_some_and(|comment| !comment.trim().is_empty());
        for (at, service) in file.service.iter().enumerate() {
            assert!(documented(&[6, at as i32]), "{} has no comment", service.name());
            for (method_at, method) in service.method.iter().enumerate() {
                assert!(documented(&[6, at as i32, 2, method_at as i32]), "{} has no comment", method.name());
            }
        }
        for message in file.message_type.iter().enumerate() {
            let name = message.1.name();
            let plain = ["Request", "Response", "PartyList", "SnapshotEnd"].iter().any(|end| name.ends_with(end));
            assert!(plain || documented(&[4, message.0 as i32]), "{name} has no comment");
        }
    }
}

#[tokio::test]
async fn an_autoscaler_is_told_the_demand() {
    use maxhost_rpc::proto::externalscaler as pb;
    use maxhost_rpc::proto::externalscaler::external_scaler_client::ExternalScalerClient;

    let served = serve(options()).await;
    let mut client = ExternalScalerClient::new(channel(&served.endpoint).await);
    let object = |slots: Option<&str>| pb::ScaledObjectRef {
        name: "max-nodes".to_owned(),
        namespace: "default".to_owned(),
        scaler_metadata: slots.map(|slots| ("slotsPerHost".to_owned(), slots.to_owned())).into_iter().collect(),
    };
    assert!(client.is_active(object(None)).await.unwrap().into_inner().result);
    let mut stream = client.stream_is_active(object(None)).await.unwrap().into_inner();
    assert!(stream.message().await.unwrap().unwrap().result);
    for (slots, float, whole) in
        [(None, 400.0, 400), (Some("200"), 160.0, 160), (Some("1"), 1.0, 1), (Some("7"), 5.6, 5)]
    {
        let specs = client.get_metric_spec(object(slots)).await.unwrap().into_inner().metric_specs;
        let [spec] = specs.as_slice() else { panic!("{specs:?}") };
        assert_eq!(spec.metric_name, "maxhost_demand_slots");
        assert!((spec.target_size_float - float).abs() < 1e-9 && spec.target_size == whole, "{spec:?}");
    }
    for wrong in ["", "0", "-1", "many", "1000001"] {
        let refused = client.get_metric_spec(object(Some(wrong))).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::InvalidArgument, "{wrong}");
    }
    let ask =
        |name: &str| pb::GetMetricsRequest { scaled_object_ref: Some(object(None)), metric_name: name.to_owned() };
    for name in ["maxhost_demand_slots", ""] {
        let values = client.get_metrics(ask(name)).await.unwrap().into_inner().metric_values;
        assert_eq!((values[0].metric_value, values[0].metric_value_float), (3, 3.0));
    }
    assert_eq!(client.get_metrics(ask("load")).await.unwrap_err().code(), tonic::Code::InvalidArgument);
}
