//! Programs that send requests as messages, through a real broker, to workers that die.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use maxhost_broker_amqp::test_servers::{Answer, Artemis, Client};
use maxhost_pki::{PrivateKey, signing_key_file};
use maxhost_tests::{ALICE, BOB, Host, Network, cli, eventually};
use serde_json::{Value, json};

use crate::cluster::{Cluster, Servers};
use crate::roles::metric;

/// What must come has so long, on a machine that is busy.
const DEADLINE: Duration = Duration::from_secs(90);
const ANSWERS: &str = "rpc.client.ann.1";
const OPERATOR: (&str, &str) = ("boss", "secret");
const DAY: Duration = Duration::from_secs(24 * 3_600);

/// A network with a file of users: ann has a key, and one who may do everything a password.
struct Users {
    key: PrivateKey,
    key_file: PathBuf,
}

/// Makes the users, and has all hosts of the cluster take messages.
fn prepare(cluster: &mut Cluster<'_>) -> Users {
    let folder = cluster.network.path("users");
    std::fs::create_dir_all(&folder).unwrap();
    let (users, key_file) = (folder.join("users.toml"), folder.join("ann.key"));
    cluster.more = format!("[rpc.users]\nfile = \"{}\"\n[rpc.messages]\nenabled = true\n", users.display());
    cluster.configure("rpc-1");
    let user = |words: &[&str], input: Option<&str>| {
        let words: Vec<&str> = ["user"].iter().chain(words).copied().collect();
        cli::answer(cluster.command("rpc-1", &words), input)
    };
    let permissions = ["StartFlow.heartbeat/*", "ListFlows", "ListIdentities", "QueryVault"];
    let given: Vec<&str> = permissions.iter().flat_map(|permission| ["--permission", permission]).collect();
    let ann: Vec<&str> = ["add", "ann", "--no-password", "--identity", "Alice"].into_iter().chain(given).collect();
    assert_eq!(user(&ann, None).ok().object()["key"], false);
    let _ = user(&["add", OPERATOR.0, "--permission", "ALL"], Some(&format!("{}\n", OPERATOR.1))).ok();
    let _ = user(&["add", "Zo\u{eb}", "--no-password", "--permission", "ALL"], None).ok();

    // The key is made once, and may be taken away and given back.
    let file = key_file.display().to_string();
    assert_eq!(user(&["key", "ann", "--file", &file], None).ok().object()["key"], true);
    assert_eq!(user(&["key", "ann", "--remove"], None).ok().object()["key"], false);
    assert_eq!(user(&["key", "ann", "--file", &file], None).ok().object()["key"], true);
    user(&["key", "nobody"], None).fails(3, "user-not-found");
    user(&["key", "Zo\u{eb}", "--file", &file], None).fails(4, "user-invalid");
    let key = signing_key_file::read(&key_file).unwrap();
    assert!(!std::fs::read_to_string(&users).unwrap().contains("PRIVATE"));
    Users { key, key_file }
}

/// A worker as `boss` reaches it.
fn ask(cluster: &Cluster<'_>, host: &str, words: &[&str]) -> Vec<Value> {
    let mut command = cluster.command_as(host, "rpc", words);
    command.env("MAXHOST_USER", OPERATOR.0).env("MAXHOST_PASSWORD", OPERATOR.1);
    cli::answer(command, None).ok().objects()
}

/// A program of ann.
struct Program {
    client: Client,
    sent: u32,
    /// Answers that have come, by the ids of their requests.
    came: HashMap<String, Answer>,
}

/// Who signs, and when.
#[derive(Clone, Copy)]
struct Signer<'a> {
    key: &'a PrivateKey,
    user: &'a str,
    age: Duration,
}

impl Program {
    async fn start(cluster: &Cluster<'_>) -> Program {
        let client = Client::connect(cluster.servers.artemis.address(), Artemis::CLIENT, ANSWERS).await;
        Program { client, sent: 0, came: HashMap::new() }
    }

    /// Sends a body; gives the id.
    async fn send_body(&mut self, signer: Signer<'_>, body: &str) -> String {
        self.sent += 1;
        let id = format!("request-{}", self.sent);
        let at = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap() - signer.age;
        let at = at.as_millis().to_string();
        let signed = format!("maxhost-rpc-message-1\n{}\n{at}\n{id}\n{ANSWERS}\n{body}", signer.user);
        let signature = STANDARD.encode(signer.key.sign(signed.as_bytes()).unwrap());
        let properties = [("maxhost_user", signer.user), ("maxhost_time", &at), ("maxhost_signature", &signature)];
        self.client.request(Some(&id), Some(ANSWERS), &properties, body).await;
        id
    }

    async fn send(&mut self, signer: Signer<'_>, method: &str, params: Value) -> String {
        let body = json!({"version": 1, "method": method, "params": params}).to_string();
        self.send_body(signer, &body).await
    }

    /// The answer to this request. If it comes twice it is the same.
    async fn answer(&mut self, id: &str) -> (String, Value) {
        while !self.came.contains_key(id) {
            let answer = self.client.next(DEADLINE).await.unwrap_or_else(|| panic!("no answer to {id}"));
            self.came.insert(answer.id.clone(), answer);
        }
        let answer = &self.came[id];
        let body: Value = serde_json::from_str(&answer.body).unwrap();
        assert_eq!(body["version"], 1);
        (answer.subject.clone(), body)
    }

    async fn result(&mut self, id: &str) -> Value {
        let (subject, mut body) = self.answer(id).await;
        assert_eq!(subject, "ok", "{body}");
        body["result"].take()
    }

    /// The code of the error that a request is answered with.
    async fn refusal(&mut self, id: &str) -> String {
        let (subject, body) = self.answer(id).await;
        let error = &body["error"];
        assert_eq!(error["code"], subject.as_str(), "{body}");
        assert!(error["message"].is_string() && error["remedy"].is_string() && error["details"].is_object(), "{body}");
        subject
    }
}

fn start(client_id: &str, beats: u32, interval_ms: u32, wait: bool) -> Value {
    let arguments = json!({"beats": beats, "interval_ms": interval_ms});
    json!({
        "identity": "Alice", "flow": "heartbeat/beat", "arguments": arguments, "client_id": client_id, "wait": wait,
    })
}

/// Waits until a flow of this client id is in one of these states; its id.
async fn until_flow(cluster: &Cluster<'_>, host: &str, client_id: &str, states: &[&str]) -> String {
    eventually(&format!("the flow of {client_id} is {states:?}"), async || {
        let flows = ask(cluster, host, &["flow", "list", "--identity", "Alice"]);
        let ours: Vec<&Value> = flows.iter().filter(|flow| flow["client_id"] == client_id).collect();
        assert!(ours.len() <= 1, "a request has started two flows: {flows:?}");
        match ours.first() {
            Some(flow) if states.iter().any(|state| flow["state"] == *state) => {
                Ok(flow["flow_id"].as_str().unwrap().to_owned())
            }
            Some(flow) if flow["state"] == "failed" || flow["state"] == "killed" => panic!("{client_id}: {flow}"),
            _ => Err(format!("{flows:?}")),
        }
    })
    .await
}

#[test]
fn messages_need_a_broker_that_clients_reach_and_users_who_sign() {
    let network = Network::with_parties(0);
    let refused = |sets: &[&str], says: &str| {
        let mut words = vec!["run", "--set", "rpc.messages.enabled=true"];
        sets.iter().for_each(|set| words.extend(["--set", set]));
        let error = cli::answer(network.command(&words), None).fails(4, "config-invalid");
        assert!(error["message"].as_str().unwrap().contains(says), "{error}");
    };
    refused(&[], "cannot be reached by clients");
    let broker = "broker.url=amqp://127.0.0.1:1";
    refused(&[broker], "rpc.users.file is not set");
    std::fs::write(network.path("users.toml"), "").unwrap();
    let users = "rpc.users.file=users.toml";
    refused(&[broker, users, "rpc.messages.max_age=24h"], "flows.retention");
    refused(&[broker, users, "rpc.messages.keep_answers=50d"], "49 days");
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_are_answered_whatever_becomes_of_workers_and_of_themselves() {
    if Artemis::is_missing() {
        return;
    }
    let servers = Servers::start().await;
    let mut cluster = Cluster::new(&servers, 0, "messages", "/maxhost/messages");
    let Users { key, .. } = prepare(&mut cluster);
    let cluster = cluster;
    let ann = Signer { key: &key, user: "ann", age: Duration::ZERO };

    // Nobody is there when the request is made, and its program is away when the flow ends.
    let mut program = Program::start(&cluster).await;
    let away = program.send(ann, "StartFlow", start("away", 3, 10, true)).await;
    let Program { client, .. } = program;
    drop(client);
    let mut workers = ["rpc-1", "rpc-2"].map(|name| cluster.run_as(name, "rpc"));
    let _node = cluster.run_as("max-1", "flows");
    let first = until_flow(&cluster, "rpc-1", "away", &["completed"]).await;
    let mut program = Program::start(&cluster).await;
    program.sent = 1;
    let ended = program.result(&away).await;
    assert_eq!(
        (&ended["flow_id"], &ended["state"], &ended["result"]),
        (&json!(first), &json!("completed"), &json!({"beats": 3}))
    );

    // Asked again, it is the same flow; an old request finds it, too, and starts none.
    let again = program.send(ann, "StartFlow", start("away", 3, 10, false)).await;
    let again = program.result(&again).await;
    assert_eq!((&again["flow_id"], &again["new"], &again["identity"]), (&json!(first), &json!(false), &json!(ALICE)));
    let old = Signer { age: DAY * 2, ..ann };
    let found = program.send(old, "StartFlow", start("away", 3, 10, true)).await;
    assert_eq!(program.result(&found).await["flow_id"], json!(first));
    let late = program.send(old, "StartFlow", start("late", 3, 10, true)).await;
    assert_eq!(program.refusal(&late).await, "request-expired");
    let late = program.send(old, "ListFlows", json!({})).await;
    assert_eq!(program.refusal(&late).await, "request-expired");

    // Both workers die while the request waits; whoever is started next answers it, and the flow is the one of before.
    let waits = program.send(ann, "StartFlow", start("killed", 60, 100, true)).await;
    let begun = until_flow(&cluster, "rpc-1", "killed", &["running", "suspended"]).await;
    let [one, two] = workers;
    one.kill_9();
    two.kill_9();
    workers = ["rpc-1", "rpc-2"].map(|name| cluster.run_as(name, "rpc"));
    let ended = program.result(&waits).await;
    assert_eq!((&ended["flow_id"], &ended["result"]), (&json!(begun), &json!({"beats": 60})));
    until_flow(&cluster, "rpc-1", "killed", &["completed"]).await;

    // A flow is found by its client id and by its id, killed, and told of when it has ended.
    let long = program.send(ann, "StartFlow", start("long", 600, 1_000, false)).await;
    let long = program.result(&long).await;
    assert_eq!((&long["new"], &long["flow"]), (&json!(true), &json!("heartbeat/beat")));
    let by_client = json!({"identity": "Alice", "client_id": "long"});
    let shown = program.send(ann, "GetFlow", by_client.clone()).await;
    let shown = program.result(&shown).await;
    assert!(shown["state"] == "running" || shown["state"] == "suspended", "{shown}");
    assert_eq!((&shown["flow_id"], &shown["origin"]), (&long["flow_id"], &json!("rpc:ann")));
    let end = program.send(ann, "GetFlow", json!({"flow_id": long["flow_id"], "wait": true})).await;
    let kill = program.send(ann, "KillFlow", by_client).await;
    assert_eq!(program.result(&kill).await, json!({"killed": true}));
    assert_eq!(program.result(&end).await["state"], "killed");
    let listed = program.send(ann, "ListFlows", json!({"states": ["killed"]})).await;
    assert_eq!(program.result(&listed).await["flows"][0]["flow_id"], long["flow_id"]);
    let identities = program.send(ann, "ListIdentities", json!({})).await;
    let identities = program.result(&identities).await;
    let names: Vec<&Value> = identities["identities"].as_array().unwrap().iter().map(|one| &one["name"]).collect();
    assert_eq!(names, [ALICE], "others do not exist for ann");
    let states = program.send(ann, "QueryVault", json!({"identity": "Alice", "status": "all"})).await;
    assert_eq!(program.result(&states).await, json!({"states": [], "cursor": null}));

    what_is_refused(&cluster, &mut program, ann).await;
    what_is_answered_to_nobody(&cluster, &mut program, ann, &workers).await;
}

async fn what_is_refused(cluster: &Cluster<'_>, program: &mut Program, ann: Signer<'_>) {
    let ping = json!({
        "identity": "Alice", "flow": "ping-pong/ping", "arguments": {"peer": BOB, "count": 1}, "client_id": "ping",
    });
    let denied = program.send(ann, "StartFlow", ping).await;
    assert_eq!(program.refusal(&denied).await, "permission-denied");
    let bobs = json!({"identity": "Bob", "flow": "heartbeat/beat", "client_id": "bob"});
    let denied = program.send(ann, "StartFlow", bobs).await;
    assert_eq!(program.refusal(&denied).await, "identity-not-found");
    let wrong = json!({"identity": "Alice", "flow": "heartbeat/beat", "arguments": {"beats": "x"}, "client_id": "x"});
    let wrong = program.send(ann, "StartFlow", wrong).await;
    assert_eq!(program.refusal(&wrong).await, "arguments-invalid");
    for body in [
        "",
        "{\"version\":1",
        "[]",
        "{\"version\":2,\"method\":\"ListFlows\"}",
        "{\"version\":1,\"method\":\"Attach\"}",
    ] {
        let broken = program.send_body(ann, body).await;
        assert_eq!(program.refusal(&broken).await, "request-invalid", "{body}");
    }
    let large = program.send_body(ann, &format!("{{\"version\":1,\"x\":\"{}\"}}", "x".repeat(100 << 10))).await;
    assert_eq!(program.refusal(&large).await, "message-too-large");

    // A signature of another key, and one that is from the future.
    let other = PrivateKey::generate(maxhost_model::KeyAlgorithm::Ed25519).unwrap();
    let forged = program.send(Signer { key: &other, ..ann }, "ListFlows", json!({})).await;
    assert_eq!(program.refusal(&forged).await, "unauthenticated");

    eventually("what was refused is in the trail", async || {
        let rows = ask(cluster, "rpc-1", &["audit", "list", "--user", "ann", "--since", "1h", "--limit", "1000"]);
        let has = |action: &str, code: &str, allowed: bool| {
            rows.iter().any(|row| row["action"] == action && row["code"] == code && row["allowed"] == allowed)
        };
        let is_told = has("StartFlow", "permission-denied", false)
            && has("StartFlow", "identity-not-found", false)
            && has("Login", "unauthenticated", false)
            && rows
                .iter()
                .any(|row| row["action"] == "StartFlow" && row["flow"] == "heartbeat/beat" && row["code"].is_null());
        if is_told { Ok(()) } else { Err(format!("{rows:?}")) }
    })
    .await;
}

async fn what_is_answered_to_nobody(cluster: &Cluster<'_>, program: &mut Program, ann: Signer<'_>, workers: &[Host]) {
    let dropped = || -> f64 {
        workers.iter().filter_map(|worker| metric(worker, "maxhost_rpc_messages_total{outcome=\"dropped\"}")).sum()
    };
    let before = dropped();
    // No queue for the answer, none that is ann's, no signature, and a user who is none.
    program.client.request(Some("a"), None, &[], "{}").await;
    program.client.request(Some("b"), Some("rpc.client.bob"), &[("maxhost_user", "ann")], "{}").await;
    program.client.request(Some("c"), Some(ANSWERS), &[], "{}").await;
    let nobody = [("maxhost_user", "eve"), ("maxhost_time", "1"), ("maxhost_signature", "AAAA")];
    program.client.request(Some("d"), Some("rpc.client.eve"), &nobody, "{}").await;
    eventually("they are dropped", async || {
        let now = dropped();
        if now - before == 4.0 { Ok(()) } else { Err(format!("{before} {now}")) }
    })
    .await;
    // Those behind them are answered.
    let behind = program.send(ann, "ListFlows", json!({"page_size": 1})).await;
    assert_eq!(program.result(&behind).await["flows"].as_array().unwrap().len(), 1);
    eventually("what was dropped is in the trail", async || {
        let rows = ask(cluster, "rpc-1", &["audit", "list", "--since", "1h", "--limit", "1000"]);
        let is_told = rows.iter().any(|row| row["action"] == "message-refused" && row["code"] == "no-reply-queue");
        if is_told { Ok(()) } else { Err(format!("{rows:?}")) }
    })
    .await;
}

/// A file that a page shows.
fn shown(page: &str, head: &str) -> String {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(page)).unwrap();
    let block = text.split(&format!("```{head}\n")).nth(1).unwrap_or_else(|| panic!("{page} has no {head}"));
    block.split("```").next().unwrap().to_owned()
}

/// A Python with the packages of the client; `None`, and a word about it, where PyPI cannot be reached.
fn python() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let made = Command::new(root.join("tests/python-messages/environment.sh")).output().unwrap();
    let said = String::from_utf8_lossy(&made.stderr);
    assert!(made.status.success(), "{said}");
    if said.contains("SKIPPED") {
        eprint!("{said}");
        return None;
    }
    // The link in the environment, and not the Python that it leads to, which has no packages.
    Some(root.canonicalize().unwrap().join("target/python-messages/venv/bin/python"))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_python_client_of_the_page_runs() {
    if Artemis::is_missing() {
        return;
    }
    let Some(python) = tokio::task::block_in_place(python) else { return };
    let servers = Servers::start().await;
    let mut cluster = Cluster::new(&servers, 0, "python", "/maxhost/python");
    let Users { key_file, .. } = prepare(&mut cluster);
    let _host = cluster.run("max-1");
    let folder = key_file.parent().unwrap();
    std::fs::write(folder.join("client.py"), shown("docs/messages.md", "python file=client.py")).unwrap();
    let (user, password) = Artemis::CLIENT;
    let mut command = Command::new(python);
    command
        .arg("client.py")
        .current_dir(folder)
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped());
    command
        .env("BROKER", format!("amqp://{}", servers.artemis.address()))
        .env("BROKER_USER", user)
        .env("BROKER_PASSWORD", password);
    let answer = tokio::task::spawn_blocking(|| cli::answer(command, None)).await.unwrap().ok();
    assert_eq!(answer.out, shown("docs/messages.md", "text python-output"), "{}", answer.err);
}
