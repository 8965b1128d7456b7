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
    let text = fs::read_to_string(&file).unwrap();
    assert!(!text.contains("secret") && text.starts_with("# The users of this host"), "{text}");
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

/// What a command answers to whoever has the token in this file.
fn with_token(network: &Network, file: &str, words: &[&str]) -> cli::Answer {
    let mut command = network.command(words);
    command.env("MAXHOST_TOKEN_FILE", network.path(file));
    cli::answer(command, None)
}

fn is_refused(answer: &cli::Answer, code: &str) -> bool {
    answer.exit != 0 && answer.error()["code"] == code
}

/// Makes a token; gives its id and keeps it in a file.
fn token(network: &Network, file: &str, words: &[&str]) -> String {
    let path = network.path(file).display().to_string();
    let made = network.cli(&[&["token", "new", "--file", &path], words].concat()).ok().object();
    assert!(made["token"].is_null() && made["state"] == "valid", "{made}");
    let mode = fs::metadata(&path).map(|file| std::os::unix::fs::PermissionsExt::mode(&file.permissions()) & 0o777);
    assert_eq!(mode.unwrap(), 0o600);
    made["id"].as_str().unwrap().to_owned()
}

#[test]
fn a_token_is_its_user_as_far_as_it_reaches_until_it_is_revoked() {
    let network = Network::new().setting("rpc.users.file=users.toml");
    network.add_user("ann", "secret", &["--permission", "StartFlow.ping-pong/*", "--permission", "Status"]);
    network.add_user("operator", "boss", &["--permission", "ALL"]);
    // Shown once, kept nowhere.
    let shown = network.cli(&["token", "new", "--user", "ann", "--note", "by hand"]).ok().object();
    let secret = shown["token"].as_str().unwrap().to_owned();
    assert!(secret.starts_with(&format!("mht_{}_", shown["id"].as_str().unwrap())), "{shown}");
    fs::write(network.path("by-hand"), format!("{secret}\n")).unwrap();
    let narrow =
        token(&network, "narrow", &["--user", "ann", "--permission", "StartFlow.*/ping", "--identity", "Alice"]);
    let short = token(&network, "short", &["--user", "ann", "--expires", "1s"]);
    let gone = token(&network, "gone", &["--user", "operator", "--expires", "3660d"]);
    let mut command = network.run_command();
    command.env("MAXHOST_LOG", "debug,h2=trace,hyper=trace,tonic=trace,tower=trace,maxhost_rpc=trace");
    let host = Host::up(command, network.folder());

    assert_eq!(with_token(&network, "by-hand", &["status"]).ok().object()["identities"]["cold"].as_u64(), Some(4));
    let words = start(ALICE);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let started = with_token(&network, "narrow", &words).ok().object();
    assert_eq!(started["result"], json!({"rounds": 2}));
    // What the token does not reach, though its user may.
    with_token(&network, "narrow", &["status"]).fails(4, "permission-denied");
    let words = start(BOB);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    with_token(&network, "narrow", &words).fails(3, "identity-not-found");
    // What its user may not, whatever the token says.
    with_token(&network, "by-hand", &["audit", "list"]).fails(4, "permission-denied");
    // What he started belongs to her, by whatever she logs in with.
    let flow = started["flow_id"].as_str().unwrap();
    assert_eq!(network.as_user("ann", "secret", &["flow", "show", flow]).ok().object()["flow_id"], flow);

    // One that is made while the host runs counts at once.
    let _new = token(&network, "new", &["--user", "ann"]);
    let _status = with_token(&network, "new", &["status"]).ok();

    until("its time is over", || is_refused(&with_token(&network, "short", &["status"]), "token-expired"));
    let forged = format!("mht_{}_{}", shown["id"].as_str().unwrap(), "0".repeat(64));
    fs::write(network.path("forged"), forged).unwrap();
    with_token(&network, "forged", &["status"]).fails(4, "token-unknown");
    fs::write(network.path("none"), "secret\n").unwrap();
    with_token(&network, "none", &["status"]).fails(4, "token-invalid");
    with_token(&network, "nowhere", &["status"]).fails(3, "file-not-found");
    let mut both = network.command(&["status", "--user", "ann"]);
    both.env("MAXHOST_TOKEN_FILE", network.path("by-hand"));
    cli::answer(both, None).fails(2, "usage");

    // Within a second, while the host runs.
    assert_eq!(network.cli(&["token", "revoke", &narrow]).ok().object()["state"], "revoked");
    until("it is revoked", || is_refused(&with_token(&network, "narrow", &["status"]), "token-revoked"));
    let listed = network.cli(&["token", "list"]).ok();
    assert!(!listed.to_string().contains("sha256"), "no hash is shown: {listed}");
    let states: Vec<_> = listed.objects().iter().map(|token| (token["id"].clone(), token["state"].clone())).collect();
    let known =
        [(shown["id"].clone(), json!("valid")), (json!(narrow), json!("revoked")), (json!(short), json!("expired"))];
    assert_eq!(states[..3], known);
    // With its user his tokens go, and they are not those of the next one who is called so.
    let _user = network.cli(&["user", "remove", "operator"]).ok();
    network.add_user("operator", "boss", &["--permission", "ALL"]);
    until("his token is gone", || is_refused(&with_token(&network, "gone", &["status"]), "token-unknown"));
    let ours = network.cli(&["token", "list", "--user", "operator"]).ok().objects();
    assert!(ours.is_empty(), "{gone}: {ours:?}");

    let rows = network.as_user("operator", "boss", &["audit", "list"]).ok().objects();
    let has = |token: &str, user: &str, code: Option<&str>| {
        rows.iter().any(|row| row["token"] == token && row["user"] == user && row["code"].as_str() == code)
    };
    assert!(has(shown["id"].as_str().unwrap(), "ann", None), "{rows:#?}");
    assert!(has(shown["id"].as_str().unwrap(), "(nobody)", Some("token-unknown")), "{rows:#?}");
    assert!(has(&narrow, "ann", Some("token-revoked")) && has(&short, "ann", Some("token-expired")), "{rows:#?}");
    drop(host);
    // However much is logged, no secret is.
    let log = fs::read_to_string(network.path("host.log")).unwrap();
    let users = fs::read_to_string(network.path("users.toml")).unwrap();
    for text in [secret, fs::read_to_string(network.path("narrow")).unwrap()] {
        let part = &text.trim()[21..53];
        assert!(!log.contains(part) && !users.contains(part) && !format!("{rows:?}").contains(part));
    }
    assert!(log.contains("TRACE"), "the log has all there is");
}

#[test]
fn what_a_token_cannot_be_is_refused_and_changes_nothing() {
    let network = Network::new().setting("rpc.users.file=users.toml");
    network.add_user("ann", "secret", &["--permission", "Status"]);
    let before = fs::read_to_string(network.path("users.toml")).unwrap();
    let there = network.path("maxhost.toml").display().to_string();
    for (words, exit, code) in [
        (vec!["token", "new", "--user", "zoe"], 3, "user-not-found"),
        (vec!["token", "new", "--user", "ann", "--permission", "Fly"], 4, "token-invalid"),
        (vec!["token", "new", "--user", "ann", "--identity", "Nobody"], 3, "identity-not-found"),
        (vec!["token", "new", "--user", "ann", "--expires", "0s"], 4, "token-invalid"),
        (vec!["token", "new", "--user", "ann", "--expires", "3661d"], 4, "token-invalid"),
        (vec!["token", "new", "--user", "ann", "--note", &"x".repeat(129)], 4, "token-invalid"),
        (vec!["token", "new", "--user", "ann", "--file", &there], 4, "token-invalid"),
        (vec!["token", "new"], 2, "usage"),
        (vec!["token", "revoke", "0123456789abcdef"], 3, "token-not-found"),
    ] {
        network.cli(&words).fails(exit, code);
        assert_eq!(fs::read_to_string(network.path("users.toml")).unwrap(), before, "{words:?}");
    }
    // One user has no more than a hundred that count.
    for _ in 0..100 {
        let _token = network.cli(&["token", "new", "--user", "ann"]).ok();
    }
    network.cli(&["token", "new", "--user", "ann"]).fails(4, "token-invalid");
    let first = network.cli(&["token", "list"]).ok().objects()[0]["id"].as_str().unwrap().to_owned();
    let _revoked = network.cli(&["token", "revoke", &first]).ok();
    let _token = network.cli(&["token", "new", "--user", "ann"]).ok();
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
