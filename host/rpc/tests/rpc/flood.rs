//! Requests that want no answer: of nobody, unfinished, or more than one caller may have.

use std::sync::Arc;
use std::time::Duration;

use crate::support::{FakeHost, options, serve};
use futures::{StreamExt, stream};
use maxhost_flows::api::HostApi;
use maxhost_model::Code;
use maxhost_rpc::proto::v1 as pb;
use maxhost_rpc::{Client, Login, RpcOptions, RpcServer, UserLogins, Users, hash_password, status};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tonic::Request;
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_prost::ProstCodec;
use zeroize::Zeroizing;

const START: &str = "/maxhost.v1.FlowService/StartFlow";
const STATUS: &str = "/maxhost.v1.HostService/Status";
/// `ann:secret`, who may do next to nothing.
const ANN: &str = "Basic YW5uOnNlY3JldA==";
/// By when something has happened that comes at once, or never.
const DEADLINE: Duration = Duration::from_secs(30);
const NEVER: Duration = Duration::from_secs(3_600);

/// Nothing ends by itself within the time of a test.
fn patient() -> RpcOptions {
    RpcOptions { call_timeout: NEVER, request_silence: NEVER, ..options() }
}

/// A host with the users `ann` and `ben`, who may do everything.
async fn serve_users(options: RpcOptions) -> String {
    let user = |name: &str, permission: &str| {
        let hash = hash_password("secret").unwrap();
        format!(
            "[[user]]\nname = \"{name}\"\npassword = \"{hash}\"\npermissions = [\"{permission}\"]\nidentities = [\"*\"]\n"
        )
    };
    let users = Users::parse(&[user("ann", "Parties"), user("ben", "ALL")].concat()).unwrap();
    let host = Arc::new(FakeHost::default()) as Arc<dyn HostApi>;
    let bound = RpcServer::bind(options, Some(Arc::new(UserLogins::new(users))), host).await.unwrap();
    let endpoint = format!("http://{}", bound.local_addr());
    tokio::spawn(bound.serve(CancellationToken::new()));
    endpoint
}

async fn channel(endpoint: &str) -> Channel {
    Endpoint::from_shared(endpoint.to_owned()).unwrap().connect().await.unwrap()
}

fn start(bytes: usize) -> pb::StartFlowRequest {
    pb::StartFlowRequest {
        identity: "Alice".to_owned(),
        flow: "ping".to_owned(),
        arguments: Some(pb::start_flow_request::Arguments::Cbor(vec![0; bytes])),
        ..pb::StartFlowRequest::default()
    }
}

/// Sends these messages to a method, and never that there are no more. Gives the code with which it was refused.
async fn unfinished(channel: Channel, path: &str, login: Option<&str>, messages: Vec<pb::StartFlowRequest>) -> Code {
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await.unwrap();
    let mut request = Request::new(stream::iter(messages).chain(stream::pending()));
    if let Some(login) = login {
        request.metadata_mut().insert("authorization", login.parse().unwrap());
    }
    let codec = ProstCodec::<pb::StartFlowRequest, ()>::default();
    let refused = grpc.client_streaming(request, path.parse().unwrap(), codec).await.unwrap_err();
    status::to_problem(&refused).code
}

#[tokio::test]
async fn nobody_is_refused_before_his_request_has_come() {
    let endpoint = serve_users(patient()).await;
    let channel = channel(&endpoint).await;
    for path in [START, STATUS, "/x.Y/Z"] {
        for messages in [vec![], vec![start(90_000)]] {
            let refused = timeout(DEADLINE, unfinished(channel.clone(), path, None, messages)).await;
            assert_eq!(refused.ok(), Some(Code::Unauthenticated), "{path}");
        }
    }
    let check = HealthCheckRequest { service: String::new() };
    let health = HealthClient::new(channel).check(check).await.unwrap().into_inner();
    assert_eq!(health.status(), ServingStatus::Serving, "probes need no login");
}

#[tokio::test]
async fn one_user_takes_no_memory_from_others() {
    let endpoint = serve_users(RpcOptions { max_request_bytes: 400_000, ..patient() }).await;
    let channel = channel(&endpoint).await;
    let client = |user: &str| {
        let login = Login { user: user.to_owned(), password: Zeroizing::new("secret".to_owned()) };
        Client::at(endpoint.clone(), DEADLINE).with_login(&login).unwrap()
    };
    // From now on her login costs nothing.
    client("ann").status(pb::StatusRequest {}).await.unwrap();
    // Four requests fit into what there is; one fits into what one user may have of it.
    let mut held = JoinSet::new();
    for _ in 0..4 {
        let channel = channel.clone();
        held.spawn(async move { unfinished(channel, START, Some(ANN), vec![start(90_000)]).await });
    }
    for _ in 0..3 {
        let refused = timeout(DEADLINE, held.join_next()).await.expect("all but one are refused");
        assert_eq!(refused.unwrap().unwrap(), Code::Overloaded);
    }
    client("ben").start_flow(start(90_000)).await.unwrap();
}

#[tokio::test]
async fn a_request_that_does_not_come_is_given_up() {
    let served = serve(RpcOptions { request_silence: Duration::from_millis(100), ..patient() }).await;
    let channel = channel(&served.endpoint).await;
    for messages in [vec![], vec![start(10)]] {
        let refused = timeout(DEADLINE, unfinished(channel.clone(), START, None, messages)).await;
        assert_eq!(refused.ok(), Some(Code::Timeout));
    }
    assert!(served.host.starts.lock().is_empty());
}

#[tokio::test]
async fn a_request_is_one_message() {
    let served = serve(patient()).await;
    let channel = channel(&served.endpoint).await;
    let refused = timeout(DEADLINE, unfinished(channel, START, None, vec![start(10), start(10)])).await;
    assert_eq!(refused.ok(), Some(Code::RequestInvalid));
    assert!(served.host.starts.lock().is_empty());
}

#[tokio::test]
async fn requests_count_from_their_headers_on() {
    let served = serve(RpcOptions { max_calls: 1, max_streams: 1, ..patient() }).await;
    let mut unfinished_ones = JoinSet::<()>::new();
    for _ in 0..2 {
        let channel = channel(&served.endpoint).await;
        unfinished_ones.spawn(async move {
            // It is refused if the calls below are there first.
            loop {
                unfinished(channel.clone(), STATUS, None, vec![]).await;
            }
        });
    }
    let client = served.client();
    let until = async |wanted: Option<Code>| {
        let asking = async {
            while client.status(pb::StatusRequest {}).await.err().map(|problem| problem.code) != wanted {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        assert!(timeout(DEADLINE, asking).await.is_ok(), "never {wanted:?}");
    };
    until(Some(Code::Overloaded)).await;
    unfinished_ones.abort_all();
    until(None).await;
}

#[tokio::test]
async fn open_services_are_bounded_and_take_nothing_from_others() {
    let served = serve(patient()).await;
    let mut health = HealthClient::new(channel(&served.endpoint).await);
    let all = || HealthCheckRequest { service: String::new() };
    let mut watches = Vec::new();
    for _ in 0..256 {
        watches.push(health.watch(all()).await.unwrap().into_inner());
    }
    let refused = health.watch(all()).await.unwrap_err();
    assert_eq!(status::to_problem(&refused).code, Code::Overloaded);
    health.check(all()).await.unwrap();
    served.client().status(pb::StatusRequest {}).await.unwrap();
    drop(watches);
    let again = async {
        while health.watch(all()).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(DEADLINE, again).await.expect("places are free again");
    let long = HealthCheckRequest { service: "x".repeat(5_000) };
    assert_eq!(status::to_problem(&health.check(long).await.unwrap_err()).code, Code::MessageTooLarge);
}

/// Without a login anybody can send bytes.
#[tokio::test]
async fn bytes_that_ask_for_nothing_keep_no_connection() {
    const SETTINGS: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    const PING: &[u8] = b"\0\0\x08\x06\0\0\0\0\0pingping";
    let served = serve(RpcOptions { max_connections: 4, ..patient() }).await;
    let address = served.endpoint.trim_start_matches("http://").to_owned();
    for _ in 0..4 {
        let mut connection = TcpStream::connect(&address).await.unwrap();
        connection.write_all(SETTINGS).await.unwrap();
        tokio::spawn(async move {
            let mut answers = [0; 4_096];
            loop {
                tokio::select! {
                    read = connection.read(&mut answers) => {
                        if matches!(read, Ok(0) | Err(_)) {
                            return;
                        }
                    }
                    () = tokio::time::sleep(Duration::from_millis(100)) => {
                        if connection.write_all(PING).await.is_err() {
                            return;
                        }
                    }
                }
            }
        });
    }
    Client::at(served.endpoint.clone(), DEADLINE).status(pb::StatusRequest {}).await.unwrap();
}
