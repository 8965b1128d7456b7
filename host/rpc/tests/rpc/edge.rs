//! The edge against a host without an engine: what is mapped, refused, limited and ended.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::support::{FakeHost, eventually, flow_id, options, rounds, serve};
use maxhost_flows::api::{Arguments, HostApi};
use maxhost_model::{Code, Problem};
use maxhost_rpc::proto::v1 as pb;
use maxhost_rpc::proto::v1::flow_event::Event;
use maxhost_rpc::proto::v1::flow_service_client::FlowServiceClient;
use maxhost_rpc::proto::v1::network_service_client::NetworkServiceClient;
use maxhost_rpc::{Client, FollowFrom, FollowOptions, Observation, RpcOptions, RpcServer, status};

fn start(arguments: Option<pb::start_flow_request::Arguments>) -> pb::StartFlowRequest {
    pb::StartFlowRequest {
        identity: "Alice".to_owned(),
        flow: "ping".to_owned(),
        arguments,
        client_id: None,
        encoding: pb::Encoding::Json.into(),
    }
}

fn select(row: i64) -> Option<pb::get_flow_request::Selector> {
    Some(pb::get_flow_request::Selector::FlowId(flow_id(row).to_string()))
}

const PATIENT: FollowOptions = FollowOptions { deadline: None, patience: Duration::from_secs(20) };

fn watch(row: i64, cursor: u64, encoding: pb::Encoding) -> FollowFrom {
    FollowFrom::Flow { flow_id: flow_id(row).to_string(), cursor, encoding }
}

#[tokio::test]
async fn a_start_carries_its_arguments_in_either_encoding() {
    let served = serve(options()).await;
    let client = served.client();
    let json = pb::start_flow_request::Arguments::Json(r#"{"count": 3}"#.to_owned());
    let started = client.start_flow(start(Some(json))).await.unwrap().flow.unwrap();
    assert_eq!((started.flow_id, started.new), (flow_id(1).to_string(), true));
    let cbor = pb::start_flow_request::Arguments::Cbor(rounds(1));
    client.start_flow(start(Some(cbor))).await.unwrap();
    client.start_flow(start(None)).await.unwrap();
    let given: Vec<Arguments> = served.host.starts.lock().iter().map(|start| start.arguments.clone()).collect();
    assert_eq!(
        given,
        [
            Arguments::Json(serde_json::json!({"count": 3})),
            Arguments::Cbor(rounds(1)),
            Arguments::Json(serde_json::json!({})),
        ]
    );
}

#[tokio::test]
async fn errors_keep_code_remedy_and_facts() {
    let served = serve(options()).await;
    let unknown = pb::StartFlowRequest { identity: "Zoe".to_owned(), ..start(None) };
    let problem = served.client().start_flow(unknown.clone()).await.unwrap_err();
    assert_eq!(problem, Problem::new(Code::IdentityNotFound, "no identity fits 'Zoe'").detail("identity", "Zoe"));

    // What a client without our code sees.
    let mut bare = FlowServiceClient::connect(served.endpoint.clone()).await.unwrap();
    let status = bare.start_flow(unknown).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::NotFound);
    assert_eq!(status.metadata().get(status::CODE_KEY).unwrap(), "identity-not-found");
}

#[tokio::test]
async fn bad_requests_name_the_field() {
    let served = serve(options()).await;
    let client = served.client();
    let json = pb::start_flow_request::Arguments::Json("{\n\"a\": }".to_owned());
    let problem = client.start_flow(start(Some(json))).await.unwrap_err();
    assert_eq!(problem.code, Code::ArgumentsInvalid);
    assert_eq!(problem.details["line"], "2");

    let problem = client.start_flow(pb::StartFlowRequest { flow: " ".to_owned(), ..start(None) }).await.unwrap_err();
    assert_eq!((problem.code, problem.details["field"].as_str()), (Code::RequestInvalid, "flow"));

    let selector = Some(pb::get_flow_request::Selector::FlowId("12".to_owned()));
    let problem = client.get_flow(pb::GetFlowRequest { selector, encoding: 0 }).await.unwrap_err();
    assert_eq!(problem.code, Code::FlowIdInvalid);
    let other = "6ba7b810-9dad-41d1-80b4-00c04fd430c8";
    let selector = Some(pb::get_flow_request::Selector::FlowId(other.to_owned()));
    let problem = client.get_flow(pb::GetFlowRequest { selector, encoding: 0 }).await.unwrap_err();
    assert_eq!((problem.code, problem.details["flow_id"].as_str()), (Code::FlowNotFound, other));
    let problem = client.get_flow(pb::GetFlowRequest { selector: None, encoding: 0 }).await.unwrap_err();
    assert_eq!(problem.code, Code::RequestInvalid);
    let problem = client.get_flow(pb::GetFlowRequest { selector: select(1), encoding: 99 }).await.unwrap_err();
    assert_eq!(problem.code, Code::RequestInvalid);
    let states = pb::ListFlowsRequest { states: vec![77], ..Default::default() };
    assert_eq!(client.list_flows(states).await.unwrap_err().code, Code::RequestInvalid);
}

#[tokio::test]
async fn a_request_over_the_limit_is_refused_and_the_connection_goes_on() {
    let served = serve(options()).await;
    let client = served.client();
    let huge = pb::start_flow_request::Arguments::Cbor(vec![0; 1_000_000]);
    let problem = client.start_flow(start(Some(huge))).await.unwrap_err();
    assert_eq!(problem.code, Code::MessageTooLarge);
    assert!(served.host.starts.lock().is_empty());
    client.start_flow(start(None)).await.unwrap();
}

#[tokio::test]
async fn a_flow_is_shown_whole_and_found_by_its_client_id() {
    let served = serve(options()).await;
    let client = served.client();
    let named = pb::ClientId { identity: "Alice".to_owned(), client_id: "known".to_owned() };
    let selector = Some(pb::get_flow_request::Selector::ClientId(named));
    let shown = client.get_flow(pb::GetFlowRequest { selector, encoding: 0 }).await.unwrap();
    let flow = shown.flow.unwrap();
    assert_eq!(flow.flow_id, flow_id(5).to_string());
    assert_eq!(flow.state(), pb::FlowState::Suspended);
    assert_eq!(flow.started.unwrap().seconds, 1);
    assert_eq!(shown.waiting_for.unwrap().what, "receive");
    assert_eq!(shown.journal.unwrap(), pb::Journal { entries: 12, bytes: 3_400 });
    assert_eq!((shown.sessions[0].unread, shown.attempts, shown.in_memory), (2, 2, true));

    let named = pb::ClientId { identity: "Alice".to_owned(), client_id: "other".to_owned() };
    let selector = Some(pb::get_flow_request::Selector::ClientId(named));
    let problem = client.get_flow(pb::GetFlowRequest { selector, encoding: 0 }).await.unwrap_err();
    assert_eq!(problem.code, Code::ClientIdNotFound);
}

#[tokio::test]
async fn pages_follow_each_other_and_sizes_are_bounded() {
    let served = serve(options()).await;
    let client = served.client();
    let first = client.list_flows(pb::ListFlowsRequest { page_size: 2, ..Default::default() }).await.unwrap();
    assert_eq!((first.flows.len(), first.next_page_token.as_deref()), (2, Some("3")));
    let next = pb::ListFlowsRequest { page_size: 50_000, page_token: first.next_page_token, ..Default::default() };
    let second = client.list_flows(next).await.unwrap();
    assert_eq!((second.flows.len(), second.next_page_token), (2, None));
    client.list_flows(pb::ListFlowsRequest::default()).await.unwrap();
    assert_eq!(*served.host.limits.lock(), [2, 10_000, 100]);
    let foreign = pb::ListFlowsRequest { page_token: Some("x".to_owned()), ..Default::default() };
    assert_eq!(client.list_flows(foreign).await.unwrap_err().code, Code::RequestInvalid);
}

#[tokio::test]
async fn client_ids_and_kills_are_answered() {
    let served = serve(options()).await;
    let client = served.client();
    let remove = |id: &str| pb::RemoveClientIdRequest { identity: None, client_id: id.to_owned() };
    assert!(client.remove_client_id(remove("known")).await.unwrap().removed);
    assert!(!client.remove_client_id(remove("unknown")).await.unwrap().removed);
    assert_eq!(client.remove_client_id(remove("foreign")).await.unwrap_err().code, Code::ClientIdForeign);
    assert_eq!(client.remove_client_id(remove("running")).await.unwrap_err().code, Code::ClientIdRunning);
    assert_eq!(client.remove_client_id(remove("")).await.unwrap_err().code, Code::RequestInvalid);
    let finished = client.finished_client_ids(pb::FinishedClientIdsRequest { identity: None }).await.unwrap();
    let outcomes: Vec<(String, bool)> =
        finished.finished.into_iter().map(|one| (one.client_id, one.succeeded)).collect();
    assert_eq!(outcomes, [("good".to_owned(), true), ("bad".to_owned(), false)]);
    let kill =
        |row| pb::KillFlowRequest { selector: Some(pb::kill_flow_request::Selector::FlowId(flow_id(row).to_string())) };
    assert!(client.kill_flow(kill(1)).await.unwrap().killed);
    assert!(!client.kill_flow(kill(2)).await.unwrap().killed);
    let types = client.registered_flows(pb::RegisteredFlowsRequest { identity: "Alice".to_owned() }).await.unwrap();
    assert_eq!(types.flows[0].arguments.as_deref(), Some(r#"{"type":"object"}"#));
}

#[tokio::test]
async fn following_tells_progress_in_order_and_the_end_in_the_chosen_encoding() {
    let served = serve(options()).await;
    let mut seen = Vec::new();
    let flow = served
        .client()
        .follow(FollowFrom::Start(start(None)), PATIENT, |observation| {
            if let Observation::Event { event, .. } = observation {
                seen.push(match event {
                    Event::Started(started) => format!("started {}", started.new),
                    Event::State(change) => format!("{:?}", change.state()),
                    Event::Progress(label) => label.clone(),
                    Event::Ended(_) => "ended".to_owned(),
                });
            }
        })
        .await
        .unwrap();
    assert_eq!(seen, ["started true", "Running", "step 1", "step 2", "step 3", "ended"]);
    let json = pb::payload::Encoding::Json(r#"{"rounds":3}"#.to_owned());
    assert_eq!(flow.end, Some(pb::flow::End::Result(pb::Payload { encoding: Some(json) })));

    let mut labels = Vec::new();
    let flow = served
        .client()
        .follow(watch(13, 2, pb::Encoding::Cbor), PATIENT, |observation| {
            if let Observation::Event { event: Event::Progress(label), .. } = observation {
                labels.push(label.clone());
            }
        })
        .await
        .unwrap();
    assert_eq!(labels, ["step 3"]);
    let Some(pb::flow::End::Error(error)) = flow.end else { panic!("{flow:?}") };
    assert_eq!((error.kind.as_str(), error.error_id.as_deref()), ("flow-exception", Some("0000000000000abc")));
    assert_eq!(error.data.unwrap().encoding, Some(pb::payload::Encoding::Cbor(rounds(9))));
}

/// HTTP/2 libraries hold it against a peer when a stream is given up while frames are still coming.
#[tokio::test]
async fn a_stream_that_was_followed_is_read_to_its_end() {
    let served = serve(options()).await;
    served.host.late_end.store(true, Ordering::SeqCst);
    let flow = served.client().follow(watch(1, 0, pb::Encoding::Json), PATIENT, |_| {}).await.unwrap();
    assert_eq!(flow.state(), pb::FlowState::Completed);
    assert_eq!(served.host.whole_streams.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn following_an_unknown_flow_fails_at_once() {
    let served = serve(options()).await;
    let problem = served.client().follow(watch(404, 0, pb::Encoding::Json), PATIENT, |_| {}).await.unwrap_err();
    assert_eq!(problem.code, Code::FlowNotFound);
    assert_eq!(problem.details["flow_id"], flow_id(404).to_string());
}

#[tokio::test]
async fn following_goes_on_behind_the_cursor_when_the_host_is_back_elsewhere() {
    let first = serve(options()).await;
    first.host.endless.store(true, Ordering::SeqCst);
    let second = serve(options()).await;
    second.host.labels.store(5, Ordering::SeqCst);

    let endpoint = Arc::new(parking_lot::Mutex::new(first.endpoint.clone()));
    let source = {
        let endpoint = Arc::clone(&endpoint);
        Arc::new(move || Ok(endpoint.lock().clone()))
    };
    let client = Client::new(source, Duration::from_secs(5));
    let mut seen = Vec::new();
    let flow = client
        .follow(watch(1, 0, pb::Encoding::Json), PATIENT, |observation| match observation {
            Observation::Event { event: Event::Progress(label), .. } => {
                seen.push(label.clone());
                if label == "step 3" {
                    first.shutdown.cancel();
                }
            }
            Observation::Lost(problem) => {
                assert_eq!(problem.code, Code::HostStopping);
                seen.push("lost".to_owned());
                *endpoint.lock() = second.endpoint.clone();
            }
            Observation::Back => seen.push("back".to_owned()),
            Observation::Event { .. } => {}
        })
        .await
        .unwrap();
    assert_eq!(seen, ["step 1", "step 2", "step 3", "lost", "back", "step 4", "step 5"]);
    assert_eq!(*second.host.attached_at.lock(), [3]);
    assert_eq!(flow.state(), pb::FlowState::Completed);
}

/// A host that takes requests and goes away without an answer.
async fn breaking() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = tokio::io::AsyncReadExt::read(&mut stream, &mut [0; 4096]).await;
        }
    });
    format!("http://{address}")
}

#[tokio::test]
async fn a_start_whose_answer_got_lost_says_what_to_do() {
    let client = Client::at(breaking().await, Duration::from_secs(5));
    let plain = client.start_flow(start(None)).await.unwrap_err();
    assert_eq!(plain.code, Code::HostUnreachable, "{plain}");
    assert!(plain.remedy.contains("flow list") && plain.remedy.contains("--client-id"), "{plain}");
    let followed = client.follow(FollowFrom::Start(start(None)), PATIENT, |_| {}).await.unwrap_err();
    assert_eq!((followed.code, followed.remedy), (plain.code, plain.remedy));
    let named = pb::StartFlowRequest { client_id: Some("mine".to_owned()), ..start(None) };
    let named = client.start_flow(named).await.unwrap_err();
    assert!(named.remedy.contains("again with the same client id"), "{named}");
    // One that was never sent was not started.
    let nobody = Client::at("http://127.0.0.1:1", Duration::from_secs(5)).start_flow(start(None)).await.unwrap_err();
    assert_eq!((nobody.code, nobody.remedy.as_str()), (Code::HostUnreachable, Code::HostUnreachable.remedy()));
}

#[tokio::test]
async fn following_ends_at_its_deadline_and_leaves_the_flow() {
    let served = serve(options()).await;
    served.host.endless.store(true, Ordering::SeqCst);
    let deadline = Some(tokio::time::Instant::now() + Duration::from_millis(100));
    let options = FollowOptions { deadline, ..PATIENT };
    let problem = served.client().follow(watch(1, 0, pb::Encoding::Json), options, |_| {}).await.unwrap_err();
    assert_eq!(problem.code, Code::Timeout);
    assert_eq!(problem.details["flow_id"], flow_id(1).to_string());
}

#[tokio::test]
async fn a_client_that_leaves_ends_its_stream_in_the_host() {
    let served = serve(options()).await;
    served.host.endless.store(true, Ordering::SeqCst);
    let client = served.client();
    let follower = tokio::spawn(async move { client.follow(watch(1, 0, pb::Encoding::Json), PATIENT, |_| {}).await });
    eventually("a stream is open", || served.host.open_streams.load(Ordering::SeqCst) == 1).await;
    follower.abort();
    eventually("the stream is closed", || served.host.open_streams.load(Ordering::SeqCst) == 0).await;
}

#[tokio::test]
async fn streams_and_calls_beyond_the_limits_are_refused() {
    let served = serve(RpcOptions { max_streams: 1, max_calls: 1, ..options() }).await;
    served.host.endless.store(true, Ordering::SeqCst);
    served.host.stuck.store(true, Ordering::SeqCst);
    let (holder, client) = (served.client(), served.client());
    let stream = tokio::spawn({
        let holder = holder.clone();
        async move { holder.follow(watch(1, 0, pb::Encoding::Json), PATIENT, |_| {}).await }
    });
    eventually("a stream is open", || served.host.open_streams.load(Ordering::SeqCst) == 1).await;
    let problem = client.follow(watch(2, 0, pb::Encoding::Json), PATIENT, |_| {}).await.unwrap_err();
    assert_eq!(problem.code, Code::Overloaded);
    stream.abort();

    let call = tokio::spawn(async move { holder.status(pb::StatusRequest {}).await });
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        match client.get_flow(pb::GetFlowRequest { selector: select(1), encoding: 0 }).await {
            Err(problem) => break assert_eq!(problem.code, Code::Overloaded),
            Ok(_) => assert!(Instant::now() < deadline, "the stuck call took no place"),
        }
    }
    call.abort();
}

#[tokio::test]
async fn calls_end_in_time_at_either_side() {
    let served = serve(RpcOptions { call_timeout: Duration::from_millis(100), ..options() }).await;
    served.host.stuck.store(true, Ordering::SeqCst);
    assert_eq!(served.client().status(pb::StatusRequest {}).await.unwrap_err().code, Code::Timeout);
    let served = serve(options()).await;
    served.host.stuck.store(true, Ordering::SeqCst);
    let hasty = Client::at(served.endpoint.clone(), Duration::from_millis(100));
    assert_eq!(hasty.status(pb::StatusRequest {}).await.unwrap_err().code, Code::Timeout);
}

#[tokio::test]
async fn stopping_ends_streams_with_a_remedy_within_two_seconds() {
    let served = serve(options()).await;
    served.host.endless.store(true, Ordering::SeqCst);
    let mut bare = FlowServiceClient::connect(served.endpoint.clone()).await.unwrap();
    let selector = Some(pb::attach_request::Selector::FlowId(flow_id(1).to_string()));
    let request = pb::AttachRequest { selector, cursor: 0, encoding: 0 };
    let mut events = bare.attach(request).await.unwrap().into_inner();
    events.message().await.unwrap().unwrap();
    let stopped = Instant::now();
    served.shutdown.cancel();
    let status = loop {
        match events.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the stream ended without a word"),
            Err(status) => break status,
        }
    };
    assert_eq!(status.code(), tonic::Code::Unavailable);
    let problem = status::to_problem(&status);
    assert_eq!(problem.code, Code::HostStopping);
    assert!(problem.remedy.contains("attach again"), "{}", problem.remedy);
    served.task.await.unwrap();
    assert!(stopped.elapsed() < Duration::from_secs(2), "{:?}", stopped.elapsed());
    let problem = Client::at(served.endpoint, Duration::from_secs(2)).status(pb::StatusRequest {}).await.unwrap_err();
    assert_eq!(problem.code, Code::HostUnreachable);
}

#[tokio::test]
async fn a_large_snapshot_comes_in_parts_before_the_changes() {
    let served = serve(options()).await;
    let mut client = NetworkServiceClient::connect(served.endpoint.clone()).await.unwrap();
    let mut feed = client.network_map_feed(pb::NetworkMapFeedRequest {}).await.unwrap().into_inner();
    let (mut parties, mut parts, mut complete, mut added) = (0, 0, false, Vec::new());
    while let Some(message) = feed.message().await.unwrap() {
        use pb::network_map_feed_response::Event;
        match message.event.unwrap() {
            Event::Snapshot(list) => {
                assert!(!complete);
                parties += list.parties.len();
                parts += 1;
            }
            Event::SnapshotEnd(_) => complete = true,
            Event::Added(party) => added.push(party.name),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((parties, parts, complete), (2_500, 3, true));
    assert_eq!(added, ["O=Party 09999, L=London, C=GB"]);
}

#[tokio::test]
async fn only_loopback_addresses_are_listened_on() {
    let bind = |listen: &str| {
        let options = RpcOptions { listen: listen.to_owned(), ..options() };
        RpcServer::bind(options, None, Arc::new(FakeHost::default()) as Arc<dyn HostApi>)
    };
    for listen in ["0.0.0.0:0", "[::]:0", "192.0.2.1:9000"] {
        let problem = Problem::from(bind(listen).await.err().unwrap());
        assert_eq!(problem.code, Code::ListenRefused, "{listen}");
        assert_eq!(problem.details["listen"], listen);
    }
    for listen in ["", "127.0.0.1", "127.0.0.1:port"] {
        assert_eq!(Problem::from(bind(listen).await.err().unwrap()).code, Code::ConfigInvalid, "{listen}");
    }
    let first = bind("127.0.0.1:0").await.unwrap();
    let taken = Problem::from(bind(&first.local_addr().to_string()).await.err().unwrap());
    assert_eq!(taken.code, Code::PortInUse);
}
