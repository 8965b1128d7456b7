//! The command line against a running host: every field and exit code that is promised.

use maxhost_tests::{ALICE, BOB, CAROL, Network, cli};
use serde_json::{Value, json};

/// Insists that an object has these fields, null or not.
fn has(object: &Value, fields: &[&str]) {
    for field in fields {
        assert!(object.get(field).is_some(), "no '{field}' in {object}");
    }
}

/// The command that starts a ping, and what follows in it.
fn start<'a>(tail: &[&'a str]) -> Vec<&'a str> {
    [&["flow", "start", "--identity", "Alice", "ping-pong/ping"], tail].concat()
}

/// RFC 3339, UTC.
fn is_time(value: &Value) -> bool {
    let text = value.as_str().unwrap_or_default();
    text.len() >= 20 && text.as_bytes()[10] == b'T' && text.ends_with('Z')
}

const NOTARY: &str = "C=CH";

#[tokio::test(flavor = "multi_thread")]
async fn the_host_at_a_glance() {
    let network = Network::new();
    let host = network.run();
    has(host.ready(), &["event", "grpc", "identities", "start_ms"]);
    assert_eq!((&host.ready()["event"], &host.ready()["identities"]), (&json!("ready"), &json!(4)));
    assert!(host.ready()["grpc"].as_str().unwrap().starts_with("127.0.0.1:") && host.ready()["start_ms"].is_u64());
    host.run(ALICE, "statics", json!({"times": 1})).await.result();

    let status = network.cli(&["status"]).ok().object();
    for state in ["cold", "opening", "active", "draining", "quarantined"] {
        assert!(status["identities"][state].is_u64(), "{state}: {status}");
    }
    for state in ["running", "suspended", "paused", "hospital", "completed", "failed", "killed"] {
        assert!(status["flows"][state].is_u64(), "{state}: {status}");
    }
    assert_eq!((&status["identities"]["active"], &status["flows"]["completed"]), (&json!(1), &json!(1)));
    assert!(
        status["rss_bytes"].as_u64().unwrap() > 1 << 20
            && status["uptime_ms"].is_u64()
            && status["version"].is_string()
    );

    // The same without a configuration, with an endpoint; and for people.
    let endpoint = format!("http://{}", host.ready()["grpc"].as_str().unwrap());
    assert_eq!(cli::run(&["status", "--json", "--endpoint", &endpoint]).ok().object()["version"], status["version"]);
    let mut command = cli::command(&["status", "--json"]);
    command.env("MAXHOST_ENDPOINT", &endpoint);
    assert_eq!(cli::answer(command, None).ok().object()["version"], status["version"]);
    let mut command = cli::command(&["identity", "list", "--json"]);
    command.env("MAXHOST_CONFIG", network.path("maxhost.toml"));
    assert_eq!(cli::answer(command, None).ok().objects().len(), 4);
    let text = cli::run(&["status", "--endpoint", &endpoint, "--color", "never"]).ok();
    assert!(text.out.contains("identities") && !text.out.contains('\u{1b}') && text.err.is_empty(), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn identities_parties_and_parameters() {
    let network = Network::new();
    let host = network.run();
    let identities = network.cli(&["identity", "list"]).ok().objects();
    assert_eq!(identities.len(), 4);
    for identity in &identities {
        has(identity, &["name", "state", "reason", "cordapps", "flows"]);
        assert_eq!((&identity["state"], &identity["flows"]), (&json!("cold"), &json!(0)), "{identity}");
    }
    let alice = network.cli(&["identity", "show", "Alice"]).ok().object();
    assert_eq!(alice["name"], ALICE);
    has(&alice["cordapps"][0], &["name", "version", "hash"]);
    let mut command = cli::command(&["identity", "show", "Alice"]);
    command.env("MAXHOST_CONFIG", network.path("maxhost.toml"));
    let text = cli::answer(command, None).ok().out;
    assert!(text.contains("ping-pong 0.1.0") && !text.contains("hash"), "people read no hashes: {text}");

    // A host that is alone has the name that its first event tells.
    let name = &host.ready()["host"];
    let listed = network.cli(&["host", "list"]).ok().object();
    assert_eq!((&listed["host"], &listed["state"]), (name, &json!("up")));
    host.run(ALICE, "statics", json!({"times": 1})).await.result();
    assert_eq!(&network.cli(&["identity", "where", "Alice"]).ok().object()["host"], name);

    let parties = network.cli(&["network", "parties"]).ok().objects();
    assert_eq!(parties.len(), 4);
    for party in &parties {
        has(party, &["name", "owning_key", "notary"]);
        let key = party["owning_key"].as_str().unwrap();
        assert!(!key.is_empty() && key.chars().all(|c| c.is_ascii_hexdigit()), "{party}");
        assert_eq!(party["notary"], json!(party["name"].as_str().unwrap().contains(NOTARY)), "{party}");
    }
    let bob = network.cli(&["network", "parties", "bo"]).ok().objects();
    assert_eq!((bob.len(), &bob[0]["name"]), (1, &json!(BOB)));
    let parameters = network.cli(&["network", "parameters"]).ok().object();
    assert!(parameters["max_message_size"].is_u64(), "{parameters}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_doctor_says() {
    let network = Network::new();
    let _host = network.run();
    let checks = network.cli(&["doctor"]).objects();
    assert!(checks.len() >= 10, "{checks:?}");
    for check in &checks {
        has(check, &["check", "ok", "detail", "remedy"]);
        assert_eq!(check["remedy"].is_string(), check["ok"] == false, "{check}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_be_started() {
    let network = Network::new();
    let _host = network.run();
    let types = network.cli(&["flow", "types", "--identity", "Alice"]).ok().objects();
    let ping = types.iter().find(|flow| flow["name"] == "ping-pong/ping").unwrap();
    has(ping, &["name", "doc", "arguments"]);
    assert!(ping["doc"].as_str().unwrap().starts_with("Bounces a message"), "{ping}");
    let properties = &ping["arguments"]["properties"];
    assert!(properties["peer"].is_object() && properties["count"].is_object(), "{ping}");
    assert!(!types.iter().any(|flow| flow["name"] == "ping-pong/pong"), "a responder cannot be started");
    for flow in ["statics", "spin", "eat-memory", "recurse", "panic", "flood-log", "flood-journal", "huge-message"] {
        assert!(types.iter().any(|known| known["name"] == format!("hostile/{flow}")), "{flow}");
    }
    for flow in ["heartbeat/beat", "quotes/request"] {
        assert!(types.iter().any(|known| known["name"] == flow), "{flow}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flow_from_its_start_to_its_end() {
    let network = Network::new();
    let _host = network.run();
    let ping = json!({"peer": BOB, "count": 3}).to_string();

    let waited = network.cli(&start(&[&ping, "--client-id", "c1", "--wait"])).ok().object();
    has(&waited, &["flow_id", "client_id", "identity", "flow", "state", "result"]);
    assert_eq!((&waited["client_id"], &waited["identity"]), (&json!("c1"), &json!(ALICE)));
    assert_eq!((&waited["flow"], &waited["state"]), (&json!("ping-pong/ping"), &json!("completed")));
    assert_eq!(waited["result"], json!({"rounds": 3}));

    let watched = network.cli(&start(&[&ping, "--watch"])).ok().objects();
    let labels: Vec<&str> = watched.iter().filter_map(|event| event["label"].as_str()).collect();
    assert_eq!(labels, ["round 1 of 3", "round 2 of 3", "round 3 of 3"]);
    assert_eq!(watched.last().unwrap()["result"], json!({"rounds": 3}));
    assert!(watched.first().unwrap()["flow_id"].is_string());

    // Arguments from a file and from standard input.
    std::fs::write(network.path("ping.json"), &ping).unwrap();
    assert_eq!(network.cli(&start(&["@ping.json", "--wait"])).ok().object()["result"], json!({"rounds": 3}));
    let piped = cli::answer(network.command(&start(&["-", "--wait"])), Some(&ping)).ok();
    assert_eq!(piped.object()["result"], json!({"rounds": 3}));

    let started = network.cli(&start(&[&ping])).ok().object();
    has(&started, &["flow_id", "client_id", "identity", "flow", "state"]);
    let id = started["flow_id"].as_str().unwrap();
    let last = network.cli(&["flow", "watch", id]).ok().objects().pop().unwrap();
    assert_eq!((&last["flow_id"], &last["state"]), (&json!(id), &json!("completed")));
    let shown = network.cli(&["flow", "show", id]).ok().object();
    let fields = [
        "flow_id",
        "client_id",
        "identity",
        "flow",
        "state",
        "result",
        "cordapp",
        "waiting_for",
        "progress",
        "sessions",
        "journal",
        "attempts",
        "started",
        "finished",
    ];
    has(&shown, &fields);
    assert!(is_time(&shown["started"]) && is_time(&shown["finished"]), "{shown}");
    has(&shown["sessions"][0], &["peer", "state"]);
    assert_eq!(shown["sessions"][0]["peer"], BOB);
    assert!(shown["journal"]["entries"].as_u64().unwrap() > 0 && shown["journal"]["bytes"].as_u64().unwrap() > 0);
    assert!(shown["attempts"].as_u64().unwrap() >= 1 && shown["cordapp"].as_str().unwrap().starts_with("ping-pong"));
    assert_eq!(shown["progress"], "round 3 of 3");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flow_that_waits() {
    let network = Network::new();
    let host = network.run();
    let id = host.start(ALICE, "wait-forever", json!({"peer": CAROL})).await;
    host.until_waits(&id, "receive").await;
    let shown = network.cli(&["flow", "show", &id]).ok().object();
    assert_eq!((&shown["state"], &shown["finished"]), (&json!("suspended"), &Value::Null));
    assert_eq!(shown["waiting_for"]["what"], "receive");
    assert_eq!(shown["waiting_for"]["parties"], json!([CAROL]));
    assert!(is_time(&shown["waiting_for"]["since"]), "{shown}");

    let list = |words: &[&str]| network.cli(&[&["flow", "list"], words].concat()).ok().objects();
    assert_eq!(list(&["--identity", "Alice", "--state", "suspended"]).len(), 1);
    assert_eq!(list(&["--flow", "wait-forever"])[0]["flow_id"], id);
    assert!(list(&["--state", "hospital"]).is_empty());
    host.run(ALICE, "statics", json!({"times": 1})).await.result();
    assert_eq!(list(&["--limit", "1"]).len(), 1);
    let killed = network.cli(&["flow", "kill", &id]).ok().object();
    assert_eq!((&killed["flow_id"], &killed["state"]), (&json!(id), &json!("killed")));
    assert_eq!(list(&["--identity", "Alice", "--state", "killed", "--state", "completed"]).len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_error_a_flow_ends_in() {
    let network = Network::new().limits("alice", "cpu_per_run = \"200 ms\"");
    let _host = network.run();
    let cases = [
        ("throw", json!({}), "flow-exception"),
        ("throw-on-start", json!({"peer": BOB}), "flow-exception"),
        ("panic-on-start", json!({"peer": BOB}), "unexpected-end"),
        ("unanswered", json!({"peer": BOB, "receive": true}), "unexpected-end"),
        ("panic", json!({}), "unexpected"),
        ("same-session-twice", json!({"peer": BOB}), "illegal-argument"),
        ("premature-close", json!({"peer": BOB}), "premature-close"),
        ("spin", json!({}), "limit"),
    ];
    for (flow, arguments, kind) in cases {
        let answer = network.cli(&["flow", "start", "--identity", "Alice", flow, &arguments.to_string(), "--wait"]);
        let problem = answer.fails(1, "flow-failed");
        assert_eq!(problem["details"]["kind"], kind, "{flow}: {problem}");
        let object = answer.object();
        assert_eq!(object["state"], "failed", "{flow}");
        let error = &object["error"];
        has(error, &["kind", "message", "error_id", "peer", "limit"]);
        assert_eq!(error["kind"], kind, "{flow}");
        assert_eq!(error["error_id"].as_str().map(str::len), Some(16), "{flow}: {error}");
        let received = ["throw-on-start", "panic-on-start", "unanswered"].contains(&flow);
        assert_eq!(error["peer"], if received { json!(BOB) } else { Value::Null }, "{flow}");
        assert_eq!(error["limit"], if kind == "limit" { json!("cpu") } else { Value::Null }, "{flow}");
        let id = object["flow_id"].as_str().unwrap();
        assert_eq!(&network.cli(&["flow", "show", id]).ok().object()["error"], error, "{flow}");
        network.cli(&["flow", "watch", id]).fails(1, "flow-failed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_gives_up_when_its_time_is_over() {
    let network = Network::new();
    let host = network.run();
    let waits =
        network.cli(&["flow", "start", "--identity", "Alice", "sleep-forever", "{}", "--wait", "--timeout", "300ms"]);
    let error = waits.fails(5, "timeout");
    // The flow goes on.
    let id = error["details"]["flow_id"].as_str().unwrap();
    assert_eq!(host.until_state(id, "suspended").await.flow.unwrap().flow_id, id);
    host.kill_9();
    network.cli(&["status"]).fails(5, "host-unreachable");
}
