//! Processes with one role each: workers that answer clients for all identities, and hosts that come and go.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use maxhost_broker_amqp::test_servers::Artemis;
use maxhost_model::{Code, SecureHash};
use maxhost_rpc::proto::externalscaler as scaler;
use maxhost_rpc::proto::externalscaler::external_scaler_client::ExternalScalerClient;
use maxhost_rpc::proto::v1 as pb;
use maxhost_tests::{ALICE, BOB, CAROL, End, Host, Network, cli, eventually, flows};
use serde_json::{Value, json};
use tonic::Streaming;
use tonic::transport::Channel;

use crate::cluster::{Cluster, Servers};

/// An autoscaler that asks a worker, as KEDA does.
struct Autoscaler(ExternalScalerClient<Channel>);

impl Autoscaler {
    async fn of(worker: &Host) -> Autoscaler {
        let endpoint = format!("http://{}", worker.ready()["grpc"].as_str().unwrap());
        Autoscaler(ExternalScalerClient::connect(endpoint).await.unwrap())
    }

    fn object() -> scaler::ScaledObjectRef {
        let (name, namespace) = ("max-nodes".to_owned(), "default".to_owned());
        scaler::ScaledObjectRef { name, namespace, ..scaler::ScaledObjectRef::default() }
    }

    async fn is_active(&mut self) -> Result<bool, tonic::Status> {
        Ok(self.0.is_active(Autoscaler::object()).await?.into_inner().result)
    }

    /// The metric, which both of its fields tell.
    async fn slots(&mut self) -> Result<u64, tonic::Status> {
        let metric_name = "maxhost_demand_slots".to_owned();
        let request = scaler::GetMetricsRequest { scaled_object_ref: Some(Autoscaler::object()), metric_name };
        let values = self.0.get_metrics(request).await?.into_inner().metric_values;
        let [value] = values.as_slice() else { panic!("{values:?}") };
        assert_eq!(value.metric_name, "maxhost_demand_slots");
        assert_eq!(value.metric_value as f64, value.metric_value_float);
        Ok(u64::try_from(value.metric_value).unwrap())
    }

    async fn stream(&mut self) -> Streaming<scaler::IsActiveResponse> {
        self.0.stream_is_active(Autoscaler::object()).await.unwrap().into_inner()
    }
}

/// The next that a stream tells.
async fn told(stream: &mut Streaming<scaler::IsActiveResponse>) -> Result<bool, tonic::Status> {
    let next = tokio::time::timeout(Duration::from_secs(60), stream.message()).await.expect("nothing is told");
    next.map(|answer| answer.expect("the stream goes on").result)
}

/// A start that waits for its answer beside the test. No host may be there for longer than a call lasts; under its client id
/// it is the same start whenever it is repeated.
fn begin(
    worker: &Host,
    (client_id, identity): (&str, &str),
    flow: &str,
    arguments: Value,
) -> tokio::task::JoinHandle<pb::StartedFlow> {
    let (client, request) = (worker.client().clone(), flows::request(identity, flow, &arguments));
    let request = pb::StartFlowRequest { client_id: Some(client_id.to_owned()), ..request };
    tokio::spawn(async move {
        loop {
            match client.start_flow(request.clone()).await {
                Ok(started) => return started.flow.unwrap(),
                Err(problem) => assert_eq!(problem.code, Code::Timeout, "{problem}"),
            }
        }
    })
}

/// What the port for machines answers, with the status before it.
fn get(of: &Host, path: &str) -> String {
    let mut stream = TcpStream::connect(of.ready()["metrics"].as_str().unwrap()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// Waits until a worker tells that a part which it shares with others is away. It answers clients all the same.
async fn until_away(worker: &Host, part: &str) {
    eventually(&format!("{part} is away"), async || {
        let answer = get(worker, "/readyz");
        let is_told = answer.starts_with("HTTP/1.1 503 ") && answer.contains(&format!("{part}: "));
        if is_told { Ok(()) } else { Err(answer) }
    })
    .await;
    let answer = get(worker, "/readyz/clients");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

/// A metric of a process; `None` if it tells nothing of it.
pub fn metric(of: &Host, name: &str) -> Option<f64> {
    let answer = get(of, "/metrics");
    let line = answer.lines().find(|line| line.split(' ').next() == Some(name))?;
    line.split(' ').nth(1).map(|value| value.parse().unwrap())
}

/// Waits until the message that waits longest has done so for a second, or until nothing waits.
async fn until_oldest(cluster: &Cluster<'_>, worker: (&str, &Host), waits: bool) {
    eventually("the age of the oldest message", async || {
        let status = cluster.ask(worker.0, &["cluster", "status"]).remove(0);
        let (told, measured) =
            (status["oldest_message_ms"].as_u64(), metric(worker.1, "maxhost_oldest_message_seconds"));
        let fits = match waits {
            true => told.is_some_and(|ms| ms >= 1_000) && measured.is_some_and(|seconds| seconds >= 1.0),
            false => status["oldest_message_ms"].is_null() && measured == Some(0.0),
        };
        if fits { Ok(()) } else { Err(format!("{measured:?} {status}")) }
    })
    .await;
}

fn roles_of(hosts: &[Value]) -> Vec<(&str, &Value, u64)> {
    hosts.iter().map(|host| (host["host"].as_str().unwrap(), &host["roles"], host["slots"].as_u64().unwrap())).collect()
}

#[test]
fn one_role_alone_is_refused_where_nothing_is_shared() {
    let network = Network::with_parties(0);
    for role in ["rpc", "flows"] {
        let refused = cli::answer(network.command(&["run", "--role", role]), None);
        let error = refused.fails(4, "config-invalid");
        assert!(error["message"].as_str().unwrap().contains("ownership.url"), "{error}");
    }
    let refused = cli::answer(network.command(&["run", "--role", "notary"]), None);
    assert!(refused.fails(4, "config-invalid")["message"].as_str().unwrap().contains("none of flows, rpc"));
}

/// What one worker has taken another gives, and the identity sleeps.
async fn attachments_come_and_go_through_any_worker(one: &Host, two: &Host) {
    let file: Vec<u8> = (0..600_000_u32).map(|at| (at % 251) as u8).collect();
    let announced = pb::ImportedFile {
        identity: CAROL.to_owned(),
        id: SecureHash::of(&file).to_string(),
        bytes: file.len() as u64,
    };
    let message = |part| pb::ImportAttachmentRequest { part: Some(part) };
    let parts = || {
        let first = message(pb::import_attachment_request::Part::File(announced.clone()));
        let chunks =
            file.chunks(200_000).map(|chunk| message(pb::import_attachment_request::Part::Chunk(chunk.to_vec())));
        futures::stream::iter(std::iter::once(first).chain(chunks).collect::<Vec<_>>())
    };
    assert!(one.client().import_attachment(parts()).await.unwrap().new);
    assert!(!two.client().import_attachment(parts()).await.unwrap().new, "it is there");
    let list = pb::ListAttachmentsRequest { identity: CAROL.to_owned(), ..pb::ListAttachmentsRequest::default() };
    let listed = two.client().list_attachments(list).await.unwrap().attachments;
    let [listed] = listed.as_slice() else { panic!("{listed:?}") };
    assert_eq!((&listed.id, listed.bytes, listed.source.as_str()), (&announced.id, announced.bytes, "rpc:local"));
    let request = pb::ExportAttachmentRequest { identity: CAROL.to_owned(), id: announced.id.clone() };
    let mut stream = two.client().export_attachment(request).await.unwrap();
    let mut exported = Vec::new();
    while let Some(message) = two.client().next_part(&mut stream).await.unwrap() {
        if let Some(pb::export_attachment_response::Part::Chunk(chunk)) = message.part {
            exported.extend(chunk);
        }
    }
    assert!(exported == file, "{} bytes came", exported.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_answer_for_all_identities_while_hosts_come_and_go() {
    if Artemis::is_missing() {
        return;
    }
    let mut servers = Servers::start().await;
    let (worker, mut keda) = until_quiet_again(&servers).await;

    // Nobody knows the demand while ZooKeeper is away: an error, and never 0.
    servers.zookeeper.kill(0);
    eventually("the demand is not known", async || match keda.slots().await {
        Err(_) => Ok(()),
        Ok(slots) => Err(format!("{slots} slots")),
    })
    .await;
    assert!(keda.is_active().await.is_err());
    until_away(&worker, "ownership").await;
    servers.zookeeper.restart(0);
    eventually("the demand is known again", async || match keda.slots().await {
        Ok(0) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    eventually("the worker is ready again", async || {
        let ready = get(&worker, "/readyz");
        if ready.starts_with("HTTP/1.1 200 ") { Ok(()) } else { Err(ready) }
    })
    .await;
    servers.artemis.kill();
    until_away(&worker, "broker").await;
}

/// All that is tried with servers that are well. Gives a worker that goes on, and the autoscaler that asks it.
async fn until_quiet_again(servers: &Servers) -> (Host, Autoscaler) {
    let cluster = Cluster::new(servers, 0, "roles", "/maxhost/roles");
    let (one, two) = (cluster.run_as("rpc-1", "rpc"), cluster.run_as("rpc-2", "rpc"));
    assert_eq!(one.ready()["roles"], json!(["rpc"]));
    let hosts = cluster.ask("rpc-2", &["host", "list"]);
    assert_eq!(roles_of(&hosts), [("rpc-1", &json!(["rpc"]), 0), ("rpc-2", &json!(["rpc"]), 0)]);

    // Nobody wants anything.
    let mut keda = Autoscaler::of(&one).await;
    let spec = keda.0.get_metric_spec(Autoscaler::object()).await.unwrap().into_inner().metric_specs;
    assert_eq!((spec[0].metric_name.as_str(), spec[0].target_size_float), ("maxhost_demand_slots", 80.0));
    assert_eq!((keda.is_active().await.unwrap(), keda.slots().await.unwrap()), (false, 0));
    let mut active = keda.stream().await;
    assert!(!told(&mut active).await.unwrap());
    until_oldest(&cluster, ("rpc-1", &one), false).await;

    // From none: a start raises the demand, and is answered once a host is there that runs the flow.
    let start = begin(&one, ("first", ALICE), "ping", json!({"peer": BOB, "count": 3}));
    assert!(told(&mut active).await.unwrap());
    assert!(keda.is_active().await.unwrap() && keda.slots().await.unwrap() >= 1);
    until_oldest(&cluster, ("rpc-1", &one), true).await;
    let first = cluster.run_as("max-1", "flows");
    assert_eq!((&first.ready()["grpc"], &first.ready()["roles"]), (&Value::Null, &json!(["flows"])));
    let ping = start.await.unwrap();
    assert_eq!(two.end(&ping.flow_id).await.result(), json!({"rounds": 3}));
    // What is free is told within a second where it is little that changes.
    eventually("the host tells of the identities that it has", async || {
        let hosts = cluster.ask("rpc-1", &["host", "list"]);
        let shown = roles_of(&hosts)[0];
        if shown == ("max-1", &json!(["flows"]), 100) { Ok(()) } else { Err(format!("{shown:?}")) }
    })
    .await;
    let status = cluster.ask("rpc-2", &["cluster", "status"]).remove(0);
    assert!(status["demand"].as_u64().is_some_and(|slots| slots >= 1), "what runs is wanted: {status}");
    // Commands that are typed beside a host without a port say so.
    let refused = cli::answer(cluster.command_as("max-1", "flows", &["status"]), None);
    let error = refused.error();
    assert!(error["message"].as_str().unwrap().contains("only role is flows"), "{error}");

    // Started at one worker and followed at the other, while the host that runs it dies and another takes over.
    let beat = one.start(ALICE, "beat", json!({"beats": 40, "interval_ms": 100})).await;
    let follower = two.end(&beat);
    let dies = async {
        one.until(&beat, |shown| shown.journal.as_ref().is_some_and(|journal| journal.entries > 3)).await;
        first.kill_9();
        tokio::task::block_in_place(|| cluster.run_as("max-2", "flows"))
    };
    let (end, second) = tokio::join!(follower, dies);
    assert_eq!(end.result(), json!({"beats": 40}));
    assert_eq!(cluster.owner("rpc-1", "Alice").as_deref(), Some("max-2"));
    assert_eq!(cluster.ask("rpc-1", &["identity", "list", "Alice"])[0]["state"], "active");

    // A client id means the same flow at each worker, which forgets it too.
    let arguments = json!({"beats": 600, "interval_ms": 100});
    let begun = one.start_as("order-1", BOB, "beat", arguments.clone()).await.unwrap();
    let again = two.start_as("order-1", BOB, "beat", arguments).await.unwrap();
    assert_eq!((begun.new, again.new, &begun.flow_id), (true, false, &again.flow_id));
    assert!(two.flows(Some(BOB), None).await.iter().any(|flow| flow.flow_id == begun.flow_id));
    assert!(two.kill(&begun.flow_id).await);
    assert_eq!(End::of(&one.show(&begun.flow_id).await.flow.unwrap()).state, "killed");
    assert!(!one.kill(&begun.flow_id).await, "it has ended");
    let forget = pb::RemoveClientIdRequest { client_id: "order-1".to_owned(), identity: Some(BOB.to_owned()) };
    assert!(two.client().remove_client_id(forget.clone()).await.unwrap().removed);
    assert!(!one.client().remove_client_id(forget).await.unwrap().removed);

    until_oldest(&cluster, ("rpc-2", &two), false).await;
    attachments_come_and_go_through_any_worker(&one, &two).await;
    // Asked for without an identity that wakes for it.
    assert!(cluster.ask("rpc-2", &["network", "parties"]).len() >= 3);
    assert_eq!(cluster.ask("rpc-1", &["identity", "show", "Carol"])[0]["state"], "cold");
    assert_eq!(cluster.owner("rpc-2", "Carol"), None);

    // Back to none: all sleep, and so may the hosts.
    assert!(!told(&mut active).await.unwrap());
    assert_eq!((keda.is_active().await.unwrap(), keda.slots().await.unwrap()), (false, 0));
    let status = cluster.ask("rpc-2", &["cluster", "status"]).remove(0);
    assert_eq!((&status["demand"], &status["identities"]["owned"]), (&json!(0), &json!(0)));
    second.stop();
    drop(two);
    (one, keda)
}
