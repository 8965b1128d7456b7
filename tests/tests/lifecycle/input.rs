//! Wrong input of a client: what is wrong, where, and what to do.

use maxhost_tests::{ALICE, BOB, Network};
use serde_json::{Value, json};

fn start(network: &Network, identity: &str, flow: &str, arguments: &str) -> maxhost_tests::Answer {
    network.cli(&["flow", "start", "--identity", identity, flow, arguments])
}

fn contains(error: &Value, words: &[&str]) {
    let text = error.to_string();
    for word in words {
        assert!(text.contains(word), "'{word}' is not in {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn arguments_that_do_not_fit_are_refused_with_their_path() {
    let network = Network::new();
    let host = network.run();
    let cases: &[(&str, &str, &str, &[&str])] = &[
        ("ping", r#"{"peer": "O=Bob, L=New York, C=US", "count": "three"}"#, "/count", &["count", "three"]),
        ("ping", r#"{"peer": "O=Bob, L=New York, C=US", "count": -1}"#, "/count", &["-1"]),
        ("ping", r#"{"peer": "O=Bob, L=New York, C=US", "count": 4294967296}"#, "/count", &["4294967295"]),
        ("ping", r#"{"peer": "nonsense", "count": 1}"#, "/peer", &["nonsense", "x500-name"]),
        ("ping", r#"{"count": 1}"#, "/peer", &["missing", "string"]),
        ("ping", "[]", "", &["object"]),
        (
            "ping",
            r#"{"peer": "O=Bob, L=New York, C=US", "cuont": 1}"#,
            "/cuont",
            &["no such field", "did you mean 'count'?"],
        ),
        (
            "reflect",
            r#"{"inner": {"inner": {"xyz": 1}}}"#,
            "/inner/inner/xyz",
            &["no such field", "there are", "unsigned"],
        ),
        ("provoke", r#"{"peer": "O=Bob, L=New York, C=US", "behaviour": "dance"}"#, "/behaviour", &["dance"]),
        (
            "quotes/request",
            r#"{"dealers": ["O=Bob, L=New York, C=US", 7], "item": "x", "quantity": 1, "deadline_ms": 1}"#,
            "/dealers/1",
            &["7"],
        ),
    ];
    for (flow, arguments, path, words) in cases {
        let error = start(&network, "Alice", flow, arguments).fails(4, "arguments-invalid");
        assert_eq!(error["details"]["path"], *path, "{error}");
        contains(&error, words);
    }
    let error = start(&network, "Alice", "ping", "{\n oops").fails(4, "arguments-invalid");
    assert_eq!(error["details"]["line"], 2, "{error}");
    // However long what does not fit is, its place is told, and nothing breaks.
    let long = json!({"peer": BOB, "count": "\u{2603}".repeat(20_000)}).to_string();
    let error = start(&network, "Alice", "ping", &long).fails(4, "arguments-invalid");
    assert_eq!(error["details"]["path"], "/count", "{error}");
    contains(&error, &["integer"]);
    // Nothing was started.
    assert!(host.flows(None, None).await.is_empty());
    assert_eq!(host.status().await.counters["flows_started"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_fit_nothing_or_too_much_are_refused() {
    let network = Network::new();
    let host = network.run();
    let ping = json!({"peer": BOB, "count": 1}).to_string();
    contains(&start(&network, "Zoe", "ping", &ping).fails(3, "identity-not-found"), &["Zoe"]);
    let ambiguous = start(&network, "o", "ping", &ping).fails(4, "identity-ambiguous");
    contains(&ambiguous, &["O=Bob", "O=Carol", "O=Notary"]);
    contains(&start(&network, "Alice", "pnig", &ping).fails(3, "flow-type-not-found"), &["pnig", "ping-pong/ping"]);
    contains(&start(&network, "Alice", "ping-pong/nothing", &ping).fails(3, "flow-type-not-found"), &["nothing"]);
    start(&network, "Alice", "pong", &ping).fails(4, "flow-not-startable");
    network.cli(&["identity", "show", "Zoe"]).fails(3, "identity-not-found");
    let no_id = network.cli(&["flow", "show", "x"]).fails(4, "flow-id-invalid");
    assert_eq!(no_id["details"]["flow_id"], "x", "{no_id}");
    network.cli(&["flow", "types", "--identity", "o"]).fails(4, "identity-ambiguous");
    network.cli(&["flow", "list", "--identity", "Zoe"]).fails(3, "identity-not-found");
    assert!(network.cli(&["network", "parties", "Zoe"]).ok().objects().is_empty());
    // The name of a part is enough where it fits one, and is no matter of case.
    let found = start(&network, "alice", "ping", &ping).ok().object();
    assert_eq!((&found["identity"], &found["flow"]), (&json!(ALICE), &json!("ping-pong/ping")));
    // A party that is not on the network is the flow's error.
    let nobody = json!({"peer": "O=Nobody, L=London, C=GB", "count": 1});
    let failure = host.run(ALICE, "ping", nobody).await.failure();
    assert_eq!(failure.kind, "illegal-argument");
    assert!(failure.message.contains("O=Nobody"), "{failure:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn arguments_over_the_limit_are_refused() {
    let network = Network::new();
    let host = network.run();
    let limit = network.cli(&["network", "parameters"]).ok().object()["max_message_size"].as_u64().unwrap();
    let huge = json!({"text": "x".repeat(usize::try_from(limit).unwrap() + 1)});
    let refused = host.try_start(maxhost_tests::flows::request(ALICE, "reflect", &huge)).await.unwrap_err();
    assert_eq!(refused.code, maxhost_model::Code::MessageTooLarge, "{refused}");
    assert!(refused.message.contains(&limit.to_string()), "{refused}");
    assert!(host.flows(None, None).await.is_empty());
}
