//! What the audit trail is told: a row for each call of each method, whoever calls and however it ends.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::support::{FakeHost, eventually, options, serve};
use maxhost_flows::api::HostApi;
use maxhost_flows::api::audit::AuditEntry;
use maxhost_model::Code;
use maxhost_rpc::proto::FILE_DESCRIPTOR_SET;
use maxhost_rpc::proto::v1 as pb;
use maxhost_rpc::{Client, Login, RpcServer, TokenText, UserLogins, Users, hash_password, status};
use prost::Message;
use tokio_util::sync::CancellationToken;
use tonic::Request;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;
use zeroize::Zeroizing;

/// The paths of all methods that the host serves by itself, from the compiled files.
fn methods() -> Vec<String> {
    let files = prost_types::FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap();
    let mut methods = Vec::new();
    for file in &files.file {
        for service in &file.service {
            let name = |method: &prost_types::MethodDescriptorProto| {
                format!("/{}.{}/{}", file.package(), service.name(), method.name())
            };
            methods.extend(service.method.iter().map(name));
        }
    }
    methods
}

/// Calls a method with an empty message. How it ends does not matter here.
async fn call(channel: &Channel, path: &str) {
    let mut grpc = tonic::client::Grpc::new(channel.clone());
    grpc.ready().await.unwrap();
    let path = path.parse().unwrap();
    let _answer = grpc.server_streaming(Request::new(()), path, ProstCodec::<(), ()>::default()).await;
}

#[tokio::test]
async fn every_method_leaves_one_row() {
    let served = serve(options()).await;
    let channel = Endpoint::from_shared(served.endpoint.clone()).unwrap().connect().await.unwrap();
    let methods = methods();
    assert!(methods.len() > 30, "{methods:?}");
    for path in &methods {
        call(&channel, path).await;
        eventually(&format!("{path} is noted"), || served.host.noted.lock().len() == 1).await;
        let entry = served.host.noted.lock().remove(0);
        assert_eq!((entry.user.as_str(), entry.allowed), ("local", true), "{path}: {entry:?}");
        // The action is a permission that can be given.
        entry.action.parse::<maxhost_flows::Permission>().unwrap();
    }
    // What is no method of the API leaves none.
    for path in ["/maxhost.v1.FlowService/Nothing", "/grpc.health.v1.Health/Check", "/x.Y/Z"] {
        call(&channel, path).await;
    }
    call(&channel, "/maxhost.v1.HostService/Status").await;
    eventually("the last one is noted", || !served.host.noted.lock().is_empty()).await;
    let noted = served.host.noted.lock();
    assert_eq!(noted.iter().map(|entry| entry.action).collect::<Vec<_>>(), ["Status"]);
}

#[tokio::test]
async fn a_row_says_how_the_call_ended() {
    let served = serve(options()).await;
    let client = served.client();
    client.list_audit(pb::ListAuditRequest::default()).await.unwrap();
    client.get_identity(pb::GetIdentityRequest { name: "Zoe".to_owned() }).await.unwrap_err();
    let foreign = pb::RemoveClientIdRequest { identity: None, client_id: "foreign".to_owned() };
    client.remove_client_id(foreign).await.unwrap_err();
    let noted: Vec<AuditEntry> = served.host.noted.lock().drain(..).collect();
    let told: Vec<_> = noted.iter().map(|e| (e.action, e.code.as_deref(), e.allowed, e.changes)).collect();
    assert_eq!(
        told,
        [
            ("ListAudit", None, true, false),
            ("GetIdentity", Some("identity-not-found"), true, false),
            ("RemoveClientId", Some("client-id-foreign"), false, true),
        ]
    );
    assert_eq!(noted[0].facts.detail.as_deref(), Some("the trail itself"));
    // A caller that gives up leaves a row too.
    served.host.stuck.store(true, Ordering::SeqCst);
    let hasty = Client::at(served.endpoint.clone(), Duration::from_millis(200));
    hasty.status(pb::StatusRequest {}).await.unwrap_err();
    eventually("the call that was given up is noted", || !served.host.noted.lock().is_empty()).await;
    let entry = served.host.noted.lock().remove(0);
    assert_eq!((entry.action, entry.code.as_deref()), ("Status", Some("cancelled")));
}

#[tokio::test]
async fn logins_that_are_refused_are_noted_without_the_password() {
    let file = format!(
        "[[user]]\nname = \"ann\"\npassword = \"{}\"\npermissions = [\"Status\"]\nidentities = [\"*\"]\n",
        hash_password("secret").unwrap()
    );
    let logins = Arc::new(UserLogins::new(Users::parse(&file).unwrap()));
    let host = Arc::new(FakeHost::default());
    let bound = RpcServer::bind(options(), Some(logins), Arc::clone(&host) as Arc<dyn HostApi>).await.unwrap();
    let endpoint = format!("http://{}", bound.local_addr());
    tokio::spawn(bound.serve(CancellationToken::new()));
    let status = async |login: Option<(&str, &str)>| {
        let client = Client::at(endpoint.clone(), Duration::from_secs(10));
        let client = match login {
            Some((user, password)) => {
                let (user, password) = (user.to_owned(), Zeroizing::new(password.to_owned()));
                client.with_login(&Login { user, password }).unwrap()
            }
            None => client,
        };
        client.status(pb::StatusRequest {}).await.map(drop).map_err(|problem| problem.code)
    };
    assert_eq!(status(Some(("ann", "secret"))).await, Ok(()));
    assert_eq!(status(None).await, Err(Code::Unauthenticated));
    for _ in 0..3 {
        assert_eq!(status(Some(("ann", "guessed-1"))).await, Err(Code::Unauthenticated));
    }
    assert_eq!(status(Some(("ann", "guessed-1"))).await, Err(Code::LoginDelayed));
    let noted: Vec<AuditEntry> = host.noted.lock().drain(..).collect();
    let told: Vec<_> = noted.iter().map(|e| (e.user.as_str(), e.action, e.allowed, e.code.as_deref())).collect();
    let refused = ("ann", "Status", false, Some("unauthenticated"));
    assert_eq!(
        told,
        [
            ("ann", "Status", true, None),
            ("(nobody)", "Status", false, Some("unauthenticated")),
            refused,
            refused,
            refused,
            ("ann", "Status", false, Some("login-delayed")),
        ]
    );
    assert!(!format!("{noted:?}").contains("guessed"), "no password is kept");
    // A password that is tried on a probe is noted as well.
    let channel = Endpoint::from_shared(endpoint.clone()).unwrap().connect().await.unwrap();
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await.unwrap();
    let mut request = Request::new(());
    request.metadata_mut().insert("authorization", "Basic Ym9iOng=".parse().unwrap());
    let path = "/grpc.health.v1.Health/Check".parse().unwrap();
    grpc.unary(request, path, ProstCodec::<(), ()>::default()).await.unwrap_err();
    let entry = host.noted.lock().remove(0);
    assert_eq!((entry.user.as_str(), entry.action, entry.allowed), ("bob", "Login", false));
}

/// A section of the file of users.
fn section(token: &TokenText, user: &str, more: &str) -> String {
    format!(
        "[[token]]\nid = \"{}\"\nuser = \"{user}\"\nhash = \"{}\"\ncreated = \"2020-01-01T00:00:00Z\"\n{more}\n",
        token.id(),
        token.hash_text()
    )
}

#[tokio::test]
async fn a_row_says_which_token_was_shown_and_nothing_of_its_secret() {
    let [valid, expired, revoked, unknown] = [(); 4].map(|()| TokenText::random());
    let far = "expires = \"2999-01-01T00:00:00Z\"";
    let file = [
        "[[user]]\nname = \"ann\"\npermissions = [\"Status\"]\nidentities = [\"*\"]\n".to_owned(),
        section(&valid, "ann", far),
        section(&expired, "ann", "expires = \"2020-01-02T00:00:00Z\""),
        section(&revoked, "ann", &format!("{far}\nrevoked = \"2020-01-02T00:00:00Z\"")),
    ];
    let logins = Arc::new(UserLogins::new(Users::parse(&file.concat()).unwrap()));
    let host = Arc::new(FakeHost::default());
    let bound = RpcServer::bind(options(), Some(logins), Arc::clone(&host) as Arc<dyn HostApi>).await.unwrap();
    let endpoint = format!("http://{}", bound.local_addr());
    tokio::spawn(bound.serve(CancellationToken::new()));
    let ask = async |token: &TokenText| {
        let client = Client::at(endpoint.clone(), Duration::from_secs(10)).with_token(token).unwrap();
        assert!(!format!("{client:?}").contains(&token.expose()[21..]));
        client.status(pb::StatusRequest {}).await.map(drop)
    };
    assert_eq!(ask(&valid).await, Ok(()));
    for (token, code) in
        [(&expired, Code::TokenExpired), (&revoked, Code::TokenRevoked), (&unknown, Code::TokenUnknown)]
    {
        let refused = ask(token).await.unwrap_err();
        assert_eq!(refused.code, code, "{refused}");
        assert_eq!(status::grpc_code(code), tonic::Code::Unauthenticated);
    }
    let noted: Vec<AuditEntry> = host.noted.lock().drain(..).collect();
    let told: Vec<_> = noted
        .iter()
        .map(|e| (e.user.as_str(), e.action, e.allowed, e.code.as_deref(), e.facts.token.as_deref()))
        .collect();
    assert_eq!(
        told,
        [
            ("ann", "Status", true, None, Some(valid.id())),
            ("ann", "Status", false, Some("token-expired"), Some(expired.id())),
            ("ann", "Status", false, Some("token-revoked"), Some(revoked.id())),
            ("(nobody)", "Status", false, Some("token-unknown"), Some(unknown.id())),
        ]
    );
    let shown = format!("{noted:?}");
    assert!([valid, expired, revoked, unknown].iter().all(|token| !shown.contains(&token.expose()[21..])));

    // Of a header that is no token nothing is kept, and one that is tried on a probe is noted.
    let channel = Endpoint::from_shared(endpoint.clone()).unwrap().connect().await.unwrap();
    let call = async |path: &str, header: String| {
        let mut grpc = tonic::client::Grpc::new(channel.clone());
        grpc.ready().await.unwrap();
        let mut request = Request::new(());
        request.metadata_mut().insert("authorization", header.parse().unwrap());
        let path = path.parse().unwrap();
        let refused = grpc.unary(request, path, ProstCodec::<(), ()>::default()).await.unwrap_err();
        (status::to_problem(&refused).code, host.noted.lock().remove(0))
    };
    let (code, entry) = call("/maxhost.v1.HostService/Status", "Bearer of-another-make".to_owned()).await;
    assert_eq!((code, entry.user.as_str(), entry.facts.token), (Code::TokenUnknown, "(nobody)", None));
    let guess = TokenText::random();
    let (code, entry) = call("/grpc.health.v1.Health/Check", format!("bearer {}", guess.expose())).await;
    assert_eq!((code, entry.action, entry.allowed), (Code::TokenUnknown, "Login", false));
    assert_eq!(entry.facts.token.as_deref(), Some(guess.id()));
}
