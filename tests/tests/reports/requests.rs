//! Requests as clients of other makes send them.

use std::time::Duration;

use maxhost_model::Code;
use maxhost_rpc::proto::v1 as pb;
use maxhost_rpc::proto::v1::flow_service_client::FlowServiceClient;
use maxhost_rpc::proto::v1::host_service_client::HostServiceClient;
use maxhost_rpc::status::to_problem;
use maxhost_tests::{ALICE, BOB, Host, Network, peak};
use serde_json::json;
use tonic::codec::CompressionEncoding;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code as GrpcCode, Request};

async fn channel(host: &Host) -> Channel {
    let address = format!("http://{}", host.ready()["grpc"].as_str().unwrap());
    Endpoint::from_shared(address).unwrap().connect_timeout(Duration::from_secs(30)).connect().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_compresses_is_understood() {
    let network = Network::new();
    let host = network.run();
    let mut client = FlowServiceClient::new(channel(&host).await)
        .send_compressed(CompressionEncoding::Gzip)
        .accept_compressed(CompressionEncoding::Gzip);
    let start = maxhost_tests::flows::request(ALICE, "ping", &json!({"peer": BOB, "count": 3}));
    let started = client.start_flow(start).await.unwrap().into_inner().flow.unwrap();
    assert_eq!(host.end(&started.flow_id).await.result(), json!({"rounds": 3}));
    // What is small on the way and large behind it is refused by its true size.
    let bomb = maxhost_tests::flows::request(ALICE, "ping", &json!({"peer": "x".repeat(64 << 20), "count": 3}));
    let refused = to_problem(&client.start_flow(bomb).await.unwrap_err());
    assert_eq!(refused.code, Code::MessageTooLarge, "{refused}");
    assert!(host.status().await.rss_bytes < 1 << 30);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_encoding_or_a_method_that_is_not_known_gets_the_status_that_grpc_rules_give_it() {
    let network = Network::new();
    let host = network.run();
    let mut other = Request::new(pb::StatusRequest {});
    other.metadata_mut().insert("grpc-encoding", "snappy".parse().unwrap());
    let refused = HostServiceClient::new(channel(&host).await).status(other).await.unwrap_err();
    assert_eq!(refused.code(), GrpcCode::Unimplemented, "{refused:?}");
    let known = refused.metadata().get("grpc-accept-encoding").map(|known| known.to_str().unwrap().to_owned());
    assert!(known.as_deref().is_some_and(|known| known.contains("gzip")), "{refused:?}");
    let told = to_problem(&refused);
    assert_eq!(told.code, Code::RequestInvalid);
    assert!(told.message.contains("snappy") && told.remedy.contains("gzip"), "{told:?}");

    let mut grpc = tonic::client::Grpc::new(channel(&host).await);
    for path in ["/maxhost.v1.HostService/Nothing", "/some.other.Service/Status"] {
        grpc.ready().await.unwrap();
        let codec = tonic_prost::ProstCodec::<pb::StatusRequest, pb::StatusResponse>::default();
        let refused = grpc.unary(Request::new(pb::StatusRequest {}), path.parse().unwrap(), codec).await.unwrap_err();
        assert_eq!(refused.code(), GrpcCode::Unimplemented, "{path}: {refused:?}");
        assert_eq!(to_problem(&refused).code, Code::RequestInvalid, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_short_list_of_flows_with_long_arguments_takes_little_memory() {
    const FLOWS: usize = 12;
    const LONG: usize = 9_000_000;
    let network = Network::new().setting("flows.evict=every-wait");
    let host = network.run();
    let mut started = Vec::new();
    for _ in 0..FLOWS {
        started.push(host.start(ALICE, "keep", json!({"text": "x".repeat(LONG)})).await);
    }
    for flow in &started {
        host.until_state(flow, "suspended").await;
    }
    let _peak_of_the_starts = peak(host.pid());
    let before = peak(host.pid());
    for limit in [1, 3] {
        let request = pb::ListFlowsRequest { page_size: limit, ..Default::default() };
        let page = host.client().list_flows(request).await.unwrap();
        assert_eq!(page.flows.len(), limit as usize);
        assert!(page.next_page_token.is_some());
    }
    let grown = peak(host.pid()).saturating_sub(before);
    assert!(grown < (FLOWS * LONG) as u64, "{grown} bytes to list one and three of {FLOWS}");
    assert_eq!(host.flows(Some(ALICE), None).await.len(), FLOWS);
}
