//! Following a flow: nothing is missed and nothing told twice, over restarts of the host.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use maxhost_model::{Code, Problem};
use maxhost_rpc::proto::v1 as pb;
use maxhost_rpc::proto::v1::flow_event::Event;
use maxhost_rpc::proto::v1::flow_service_client::FlowServiceClient;
use maxhost_rpc::{Client, FollowFrom, FollowOptions, Observation};
use maxhost_tests::{ALICE, BOB, Host, Network, eventually};
use serde_json::json;
use tonic::transport::Endpoint;

/// What a follower was told.
#[derive(Default)]
struct Told {
    labels: Vec<(u64, String)>,
    lost: Vec<Code>,
    back: usize,
}

/// A client that finds the host again wherever it listens after a restart.
fn client(network: &Network) -> Client {
    let file = network.path("data/endpoint");
    let source = move || {
        let text = std::fs::read_to_string(&file)
            .map_err(|error| Problem::new(Code::HostUnreachable, format!("no endpoint: {error}")))?;
        Ok(text.trim().to_owned())
    };
    Client::new(Arc::new(source), Duration::from_secs(10))
}

async fn follow(client: Client, flow_id: String, cursor: u64, told: Arc<Mutex<Told>>) -> pb::Flow {
    let from = FollowFrom::Flow { flow_id, cursor, encoding: pb::Encoding::Json };
    let options = FollowOptions { deadline: None, patience: Duration::from_secs(60) };
    let observe = |observation: Observation<'_>| {
        let mut told = told.lock().unwrap();
        match observation {
            Observation::Event { event: Event::Progress(label), cursor } => told.labels.push((cursor, label.clone())),
            Observation::Event { .. } => {}
            Observation::Lost(problem) => told.lost.push(problem.code),
            Observation::Back => told.back += 1,
        }
    };
    client.follow(from, options, observe).await.unwrap()
}

fn labels(beats: u32) -> Vec<String> {
    (1..=beats).map(|beat| format!("beat {beat} of {beats}")).collect()
}

async fn until_told(told: &Arc<Mutex<Told>>, count: usize) {
    eventually("progress", async || {
        let seen = told.lock().unwrap().labels.len();
        if seen >= count { Ok(()) } else { Err(format!("{seen} labels")) }
    })
    .await;
}

async fn survives(crash: bool) {
    let network = Network::new();
    let host = network.run();
    let flow = host.start(ALICE, "beat", json!({"beats": 30, "interval_ms": 60})).await;
    let told = Arc::new(Mutex::new(Told::default()));
    let follower = tokio::spawn(follow(client(&network), flow.clone(), 0, told.clone()));
    until_told(&told, 8).await;
    if crash {
        host.kill_9();
    } else {
        host.stop();
    }
    let host = network.run();
    let ended = follower.await.unwrap();
    assert_eq!(ended.state(), pb::FlowState::Completed);
    let told = Arc::into_inner(told).unwrap().into_inner().unwrap();
    let seen: Vec<String> = told.labels.iter().map(|(_, label)| label.clone()).collect();
    assert_eq!(seen, labels(30), "crash: {crash}");
    assert!(told.labels.windows(2).all(|pair| pair[0].0 < pair[1].0), "cursors rise: {:?}", told.labels);
    assert!(!told.lost.is_empty() && told.back >= 1, "lost {:?}, back {}", told.lost, told.back);
    if !crash {
        assert_eq!(told.lost[0], Code::HostStopping);
    }
    drop(host);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_misses_nothing_over_a_crash() {
    survives(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_misses_nothing_over_an_orderly_stop() {
    survives(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_leaves_out_what_was_told() {
    let network = Network::new();
    let host = network.run();
    let flow = host.start(ALICE, "beat", json!({"beats": 12, "interval_ms": 60})).await;
    let first = Arc::new(Mutex::new(Told::default()));
    let follower = tokio::spawn(follow(client(&network), flow.clone(), 0, first.clone()));
    until_told(&first, 5).await;
    let seen = first.lock().unwrap().labels[4].clone();
    let rest = Arc::new(Mutex::new(Told::default()));
    follow(client(&network), flow.clone(), seen.0, rest.clone()).await;
    let expected = labels(12).split_off(5);
    let told: Vec<String> = rest.lock().unwrap().labels.iter().map(|(_, label)| label.clone()).collect();
    assert_eq!(told, expected);
    follower.await.unwrap();
    // Both saw the same events under the same cursors.
    assert_eq!(first.lock().unwrap().labels[5..], rest.lock().unwrap().labels[..]);
}

/// A short flow can be over before its start is answered; whoever starts and follows it in one call sees all of it.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_starts_and_follows_a_short_flow_misses_nothing() {
    // A flow that is compared with its journal ends later, and is not over that soon.
    let network = Network::new().setting("flows.shadow_replay=0.0");
    let host = network.run();
    let arguments = json!({"peer": BOB, "count": 3}).to_string();
    for _ in 0..100 {
        let request = pb::StartFlowRequest {
            identity: ALICE.to_owned(),
            flow: "ping".to_owned(),
            arguments: Some(pb::start_flow_request::Arguments::Json(arguments.clone())),
            client_id: None,
            encoding: pb::Encoding::Json.into(),
        };
        let options = FollowOptions { deadline: None, patience: Duration::from_secs(60) };
        let mut seen = Vec::new();
        let observe = |observation: Observation<'_>| match observation {
            Observation::Event { event: Event::Progress(label), .. } => seen.push(label.clone()),
            Observation::Event { .. } => {}
            other => panic!("{other:?}"),
        };
        let flow = host.client().follow(FollowFrom::Start(request), options, observe).await.unwrap();
        assert_eq!(flow.state(), pb::FlowState::Completed);
        assert_eq!(seen, ["round 1 of 3", "round 2 of 3", "round 3 of 3"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flow_that_has_ended_is_told_at_once_and_one_that_never_was_not_at_all() {
    let network = Network::new();
    let host = network.run();
    let flow = host.start(ALICE, "beat", json!({"beats": 1, "interval_ms": 1})).await;
    host.end(&flow).await.result();
    let watched = network.cli(&["flow", "watch", &flow]).ok().objects();
    assert_eq!(watched.last().unwrap()["result"], json!({"beats": 1}));
    host.kill_9();
    let host = network.run();
    assert_eq!(host.end(&flow).await.result(), json!({"beats": 1}));

    network.cli(&["flow", "watch", "no-id"]).fails(4, "flow-id-invalid");
    let unknown = "00000000-0000-8000-8000-000000000001";
    network.cli(&["flow", "watch", unknown]).fails(3, "flow-not-found");
    network.cli(&["flow", "show", unknown]).fails(3, "flow-not-found");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_after_the_end_is_told_the_labels_that_he_missed() {
    for evict in ["never", "every-wait"] {
        let network = Network::new().setting(&format!("flows.evict={evict}"));
        let host = network.run();
        let flow = host.start(ALICE, "beat", json!({"beats": 5, "interval_ms": 5})).await;
        host.end(&flow).await.result();
        are_told_after_the_end(&network, &flow).await;
        host.kill_9();
        let _host = network.run();
        are_told_after_the_end(&network, &flow).await;
    }
}

/// The five labels of a flow that has ended, to clients with several cursors.
async fn are_told_after_the_end(network: &Network, flow: &str) {
    let all: Vec<(u64, String)> = (1..).zip(labels(5)).collect();
    for cursor in [0, 3, 5] {
        let told = Arc::new(Mutex::new(Told::default()));
        follow(client(network), flow.to_owned(), cursor, told.clone()).await;
        assert_eq!(told.lock().unwrap().labels, all[cursor as usize..]);
    }
}

/// The labels of a flow from a cursor on, or the code and text of the refusal.
async fn labels_behind(host: &Host, flow_id: &str, cursor: u64) -> Result<usize, Problem> {
    let from = FollowFrom::Flow { flow_id: flow_id.to_owned(), cursor, encoding: pb::Encoding::Json };
    let options = FollowOptions { deadline: None, patience: Duration::ZERO };
    let mut labels = 0;
    let observe = |observation: Observation<'_>| {
        labels += usize::from(matches!(observation, Observation::Event { event: Event::Progress(_), .. }));
    };
    host.client().follow(from, options, observe).await.map(|_| labels)
}

async fn refuses(host: &Host, flow: &str, cursor: u64, last: u64) {
    let problem = labels_behind(host, flow, cursor).await.unwrap_err();
    assert_eq!(problem.code, Code::CursorInvalid, "{problem}");
    assert_eq!(problem.details["last"], last.to_string(), "{problem}");
    assert!(problem.remedy.contains("attach with the cursor of the last event"), "{problem}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_that_the_flow_never_had_is_refused_while_it_lives_and_after() {
    for evict in ["never", "every-wait"] {
        let network = Network::new().setting(&format!("flows.evict={evict}"));
        let host = network.run();
        let fresh = host.start(ALICE, "sleep-forever", json!({})).await;
        refuses(&host, &fresh, 1, 0).await;
        refuses(&host, &fresh, u64::MAX, 0).await;
        let flow = host.start(ALICE, "beat", json!({"beats": 6, "interval_ms": 150})).await;
        let told = Arc::new(Mutex::new(Told::default()));
        let follower = tokio::spawn(follow(client(&network), flow.clone(), 0, told.clone()));
        until_told(&told, 2).await;
        let problem = labels_behind(&host, &flow, 7).await.unwrap_err();
        assert_eq!(problem.code, Code::CursorInvalid, "{evict}: {problem}");
        // The last one that was told is good, however fresh it is.
        let seen = told.lock().unwrap().labels.len() as u64;
        assert_eq!(labels_behind(&host, &flow, seen).await.unwrap() as u64, 6 - seen, "{evict}");
        follower.await.unwrap();

        refuses(&host, &flow, 7, 6).await;
        assert_eq!(labels_behind(&host, &flow, 6).await.unwrap(), 0);
        host.kill_9();
        let host = network.run();
        refuses(&host, &flow, 7, 6).await;
        assert_eq!(labels_behind(&host, &flow, 6).await.unwrap(), 0);
        refuses(&host, &fresh, 1, 0).await;
        network.cli(&["flow", "watch", &flow, "--cursor", "7"]).fails(4, "cursor-invalid");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_from_before_a_crash_is_good_at_any_moment_after_it() {
    let network = Network::new();
    let mut host = network.run();
    let flow = host.start(ALICE, "beat", json!({"beats": 60, "interval_ms": 25})).await;
    let told = Arc::new(Mutex::new(Told::default()));
    for crash in 1..=3 {
        let cursor = told.lock().unwrap().labels.last().map_or(0, |(cursor, _)| *cursor);
        let follower = tokio::spawn(follow(client(&network), flow.clone(), cursor, told.clone()));
        until_told(&told, crash * 12).await;
        follower.abort();
        host.kill_9();
        host = network.run();
    }
    let cursor = told.lock().unwrap().labels.last().map_or(0, |(cursor, _)| *cursor);
    follow(client(&network), flow.clone(), cursor, told.clone()).await;
    let told = told.lock().unwrap();
    let seen: Vec<String> = told.labels.iter().map(|(_, label)| label.clone()).collect();
    assert_eq!(seen, labels(60));
}

/// Reads a stream to its end; the cursor goes along.
async fn read(mut events: tonic::Streaming<pb::FlowEvent>, cursor: &mut u64, labels: &mut Vec<String>) -> pb::Flow {
    loop {
        let event = events.message().await.unwrap().expect("a stream ends with the flow");
        *cursor = event.cursor;
        match event.event {
            Some(Event::Progress(label)) => labels.push(label),
            Some(Event::Ended(flow)) => return flow,
            _ => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_reads_late_misses_nothing_and_holds_up_nobody() {
    const BEATS: u32 = 2_500;
    let network = Network::new().setting("flows.evict=never");
    let host = network.run();
    let flow = host.start(ALICE, "beat", json!({"beats": BEATS, "interval_ms": 1})).await;
    // Next to nothing is under way between the two, so what is not read waits in the host.
    let endpoint = Endpoint::from_shared(format!("http://{}", host.ready()["grpc"].as_str().unwrap())).unwrap();
    let channel = endpoint.initial_stream_window_size(1_024).connect().await.unwrap();
    let mut service = FlowServiceClient::new(channel);
    let mut attach = async |cursor| {
        let selector = Some(pb::attach_request::Selector::FlowId(flow.clone()));
        let request = pb::AttachRequest { selector, cursor, encoding: pb::Encoding::Json.into() };
        service.attach(request).await.unwrap().into_inner()
    };
    let slow = attach(0).await;
    // Meanwhile the flow goes on as if nobody followed it.
    host.until(&flow, |shown| {
        let label = shown.flow.as_ref().and_then(|flow| flow.progress.as_deref());
        let beat = label.and_then(|label| label.split(' ').nth(1)?.parse::<u32>().ok());
        beat.is_some_and(|beat| (900..BEATS).contains(&beat))
    })
    .await;
    let (mut cursor, mut told) = (0, Vec::new());
    let ended = read(slow, &mut cursor, &mut told).await;
    assert_eq!(ended.state(), pb::FlowState::Completed);
    assert_eq!(told, labels(BEATS));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_at_the_very_end_of_a_flow_is_told_of_it() {
    const FLOWS: u64 = 600;
    let network = Network::new();
    let host = network.run();
    host.start(ALICE, "ping", json!({"peer": BOB, "count": 1})).await;
    // A few at a time: the moment between the end of a flow and its going from memory is short, and lies somewhere in the
    // first milliseconds.
    for group in 0..FLOWS / 4 {
        let attached = (0..4).map(|number| {
            let host = &host;
            async move {
                let flow = host.start(ALICE, "ping", json!({"peer": BOB, "count": 2})).await;
                tokio::time::sleep(Duration::from_micros((group * 4 + number) * 7919 % 6_000)).await;
                host.end(&flow).await.result()
            }
        });
        for result in futures::future::join_all(attached).await {
            assert_eq!(result, json!({"rounds": 2}));
        }
    }
}

/// So an operator sees, and a later repair may ask, what of a flow is known outside of the host.
#[tokio::test]
async fn the_database_tells_which_results_a_client_has_had() {
    let network = Network::new();
    let host = network.run();
    let id = host.start(ALICE, "heartbeat/beat", json!({"beats": 1, "interval_ms": 1})).await;
    let ended = "SELECT count(*) FROM ended";
    let read = "SELECT count(*) FROM ended WHERE result_read IS NOT NULL";
    eventually("the end", async || match network.sql(ended).as_str() {
        "1" => Ok(()),
        count => Err(format!("{count} flows have ended")),
    })
    .await;
    assert_eq!(network.sql(read), "0", "nobody has asked");
    assert_eq!(network.cli(&["flow", "show", &id]).ok().object()["flow_id"], json!(id));
    eventually("the note", async || match network.sql(read).as_str() {
        "1" => Ok(()),
        count => Err(format!("{count} results were read")),
    })
    .await;
    host.stop();
}
