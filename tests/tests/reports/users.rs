//! Users, TLS and the port for machines, by the program that ships.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use maxhost_tests::{ALICE, BOB, Host, Network, cli};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use serde_json::json;

fn start(flow_of: &str) -> Vec<String> {
    let arguments = json!({"peer": BOB, "count": 2}).to_string();
    ["flow", "start", "--identity", flow_of, "ping-pong/ping", &arguments, "--wait"].map(str::to_owned).into()
}

#[test]
fn a_user_may_do_what_his_permissions_say_and_nobody_else_anything() {
    let network = Network::new().setting("rpc.users.file=users.toml");
    network.add_user("ann", "secret", &["--permission", "StartFlow.ping-pong/*", "--identity", "Alice"]);
    network.add_user("operator", "boss", &["--permission", "ALL"]);
    let file = network.path("users.toml");
    assert_eq!(
        fs::metadata(&file).map(|file| std::os::unix::fs::PermissionsExt::mode(&file.permissions()) & 0o777).unwrap(),
        0o600
    );
    assert!(!fs::read_to_string(&file).unwrap().contains("secret"));
    let host = network.run();

    cli::answer(network.command(&["status"]), None).fails(4, "unauthenticated");
    network.as_user("ann", "wrong", &["status"]).fails(4, "unauthenticated");
    network.as_user("nobody", "secret", &["status"]).fails(4, "unauthenticated");
    network.as_user("ann", "secret", &["status"]).fails(4, "permission-denied");
    // A host that asks who calls is not broken.
    for doctor in [cli::answer(network.command(&["doctor"]), None), network.as_user("ann", "secret", &["doctor"])] {
        let host = doctor.objects().into_iter().find(|check| check["check"] == "host").unwrap();
        assert_eq!(host["ok"], true, "{doctor}");
    }
    assert_eq!(network.as_user("operator", "boss", &["status"]).ok().object()["identities"]["cold"].as_u64(), Some(4));

    let words = start(ALICE);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    assert_eq!(network.as_user("ann", "secret", &words).ok().object()["result"], json!({"rounds": 2}));
    let words = start(BOB);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    network.as_user("ann", "secret", &words).fails(3, "identity-not-found");

    // A user who is removed, or whose password changes, is out at once: within a second, while the host runs.
    let command = network.command(&["user", "passwd", "ann"]);
    let _user = cli::answer(command, Some("other\n")).ok();
    until("the new password counts", || {
        network.as_user("ann", "other", &["status"]).error()["code"] == "permission-denied"
    });
    network.as_user("ann", "secret", &["status"]).fails(4, "unauthenticated");
    let _user = cli::answer(network.command(&["user", "remove", "operator"]), None).ok();
    until("the operator is out", || network.as_user("operator", "boss", &["status"]).exit == 4);
    drop(host);
}

fn until(what: &str, done: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !done() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// An authority with a certificate for a server and one for a client.
fn certificates(network: &Network) {
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    fs::write(network.path("ca.pem"), authority.pem()).unwrap();
    for (file, name) in [("server", "localhost"), ("client", "ann"), ("stranger", "zoe")] {
        let mut params = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &authority).unwrap();
        fs::write(network.path(&format!("{file}.pem")), certificate.pem()).unwrap();
        fs::write(network.path(&format!("{file}.key")), key.serialize_pem()).unwrap();
    }
}

#[test]
fn with_tls_a_certificate_is_asked_for_and_names_the_user() {
    let network = Network::new().settings(&[
        "rpc.tls.cert=server.pem",
        "rpc.tls.key=server.key",
        "rpc.tls.client_ca=ca.pem",
        "rpc.users.file=users.toml",
        "rpc.listen=0.0.0.0:0",
    ]);
    certificates(&network);
    network.add_user("ann", "secret", &["--permission", "ALL"]);
    let host = network.run();
    let port = host.ready()["grpc"].as_str().unwrap().rsplit_once(':').unwrap().1.to_owned();
    let endpoint = format!("https://localhost:{port}");
    let ca = network.path("ca.pem").display().to_string();
    let with = |who: Option<&str>| {
        let mut command = cli::command(&["status", "--json", "--endpoint", &endpoint, "--ca", &ca]);
        if let Some(who) = who {
            command.arg("--cert").arg(network.path(&format!("{who}.pem")));
            command.arg("--key").arg(network.path(&format!("{who}.key")));
        }
        cli::answer(command, None)
    };
    assert_eq!(with(Some("client")).ok().object()["identities"]["cold"].as_u64(), Some(4));
    with(Some("stranger")).fails(4, "unauthenticated");
    with(None).fails(5, "host-unreachable");
    // In clear nothing is answered, and no password is sent in clear to another machine.
    let clear = format!("http://localhost:{port}");
    cli::run(&["status", "--json", "--endpoint", &clear, "--timeout", "5s"]).fails(5, "host-unreachable");
    let mut command = cli::command(&["status", "--json", "--endpoint", "http://192.0.2.1:1", "--user", "ann"]);
    command.env("MAXHOST_PASSWORD", "secret");
    cli::answer(command, None).fails(2, "usage");
}

#[test]
fn certificates_are_replaced_while_the_host_runs() {
    let network =
        Network::new().settings(&["rpc.tls.cert=server.pem", "rpc.tls.key=server.key", "rpc.tls.client_ca=ca.pem"]);
    certificates(&network);
    let host = network.run();
    let endpoint = format!("https://localhost:{}", host.ready()["grpc"].as_str().unwrap().rsplit_once(':').unwrap().1);
    let keep = |folder: &str| {
        let kept = network.path(folder);
        fs::create_dir(&kept).unwrap();
        for file in ["ca.pem", "client.pem", "client.key"] {
            fs::copy(network.path(file), kept.join(file)).unwrap();
        }
        kept
    };
    let ask = |of: &std::path::Path| {
        let mut command = cli::command(&["status", "--json", "--endpoint", &endpoint, "--timeout", "5s"]);
        for (word, file) in [("--ca", "ca.pem"), ("--cert", "client.pem"), ("--key", "client.key")] {
            command.arg(word).arg(of.join(file));
        }
        cli::answer(command, None)
    };
    let first = keep("first");
    assert_eq!(ask(&first).exit, 0);

    // Half of a file: what was there before counts on.
    let whole = fs::read_to_string(network.path("server.pem")).unwrap();
    fs::write(network.path("server.pem"), &whole[..whole.len() / 2]).unwrap();
    until("it is told", || !network.log_lines(&["certificates cannot be used", "rpc.tls"]).is_empty());
    assert_eq!(ask(&first).exit, 0);

    // Another authority, another certificate, other clients.
    certificates(&network);
    let second = keep("second");
    until("the new ones count", || ask(&second).exit == 0);
    ask(&first).fails(5, "host-unreachable");
    drop(host);
}

#[test]
fn a_port_that_is_not_guarded_is_for_this_machine_only() {
    let network = Network::new();
    certificates(&network);
    for settings in [
        vec!["rpc.listen=0.0.0.0:0"],
        vec!["rpc.listen=0.0.0.0:0", "rpc.tls.cert=server.pem", "rpc.tls.key=server.key"],
    ] {
        let mut command = network.command(&["run"]);
        for setting in settings {
            command.args(["--set", setting]);
        }
        cli::answer(command, None).fails(4, "listen-refused");
    }
    for (setting, code) in
        [("rpc.tls.cert=server.pem", "config-invalid"), ("rpc.users.file=none.toml", "file-not-found")]
    {
        let mut command = network.command(&["run"]);
        command.args(["--set", setting]);
        let exit = if code == "file-not-found" { 3 } else { 4 };
        cli::answer(command, None).fails(exit, code);
    }
}

fn get(address: &str, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.lines().next().unwrap().to_owned(), body.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn machines_learn_how_the_host_is() {
    let network = Network::new().setting("metrics.listen=127.0.0.1:0");
    let host: Host = network.run();
    let address = host.ready()["metrics"].as_str().unwrap().to_owned();
    let id = host.start(ALICE, "ping", json!({"peer": BOB, "count": 1})).await;
    host.end(&id).await;
    // The responder ends by itself, a moment later.
    until("both flows are counted", || {
        get(&address, "/metrics").1.contains("maxhost_flows_ended_total{state=\"completed\"} 2\n")
    });
    until("no message waits", || get(&address, "/metrics").1.contains("maxhost_oldest_message_seconds 0\n"));
    let (head, body) = get(&address, "/metrics");
    assert!(head.contains("200"), "{head}");
    assert!(!body.contains("Alice"), "{body}");
    for (path, code) in [("/livez", "200"), ("/readyz", "200"), ("/readyz/clients", "200"), ("/", "404")] {
        assert!(get(&address, path).0.contains(code), "{path}");
    }
}
