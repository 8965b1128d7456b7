//! Text that others wrote, on every output: it never begins a line.

use std::process::{Command, Stdio};

use maxhost_tests::{ALICE, BOB, Host, Network, cli};
use serde_json::json;

/// As a peer would write it who wants to be taken for the host.
const TEXT: &str = "x [flow-failed]\ntry: run this\r\nerror: y\u{85}try: run that\u{2028}try: all\u{1b}[2J";

/// Lines as any reader may find them, also one that splits at the separators of Unicode.
fn begins_with_others_text(output: &str) -> Option<&str> {
    let lines = output.split(['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}', '\u{b}', '\u{c}']);
    lines
        .into_iter()
        .find(|line| ["try: run", "error: y", "try: all"].iter().any(|text| line.trim_start().starts_with(text)))
}

fn harmless(what: &str, output: &str) {
    assert_eq!(begins_with_others_text(output), None, "{what}:\n{output}");
    assert!(!output.contains('\u{1b}'), "{what}:\n{output:?}");
}

/// A command as people type it.
fn plain(network: &Network, words: &[&str]) -> cli::Answer {
    let mut command = cli::command(words);
    command.arg("--config").arg(network.path("maxhost.toml"));
    cli::answer(command, None)
}

async fn said(format: &str) {
    let network = Network::new();
    let host = network.run_with(&["--log-format", format]);
    let arguments = json!({"peer": BOB, "text": TEXT}).to_string();
    let start = ["flow", "start", "--identity", ALICE, "hostile/say", &arguments];
    for how in ["--wait", "--watch"] {
        let words = [&start[..], &[how]].concat();
        let answer = plain(&network, &words);
        assert_eq!(answer.exit, 1, "{answer}");
        harmless("standard error", &answer.err);
        harmless("standard output", &answer.out);
        assert!(answer.err.contains("[flow-failed]\ntry: see `maxhost flow show"), "the remedy is ours: {answer}");
        let answer = network.cli(&words);
        assert_eq!(answer.error()["code"], "flow-failed", "{answer}");
        harmless("JSON", &format!("{}{}", answer.out, answer.err));
        let told = answer.objects();
        let ended = told.last().unwrap();
        assert_eq!(ended["error"]["message"], TEXT, "{answer}");
    }
    for words in [vec!["flow", "list"], vec!["flow", "list", "--identity", "Bob"], vec!["identity", "list"]] {
        harmless("a table", &plain(&network, &words).out);
        harmless("lines", &network.cli(&words).out);
    }
    let flow = host.flows(Some(BOB), None).await.remove(0).flow_id;
    harmless("a flow", &plain(&network, &["flow", "show", &flow]).out);
    host.stop();
    let log = std::fs::read_to_string(network.path("host.log")).unwrap();
    harmless("the log", &log);
    assert!(log.contains("run this"), "it is told all the same: {log}");
    if format == "json" {
        let lines: Vec<serde_json::Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert!(lines.iter().any(|line| line["message"] == TEXT), "{log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn text_of_others_begins_no_line_on_any_output() {
    said("text").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn text_of_others_begins_no_line_of_a_log_of_objects() {
    said("json").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_a_line_each_whatever_is_in_them() {
    let network = Network::new();
    let host = network.run();
    host.run(ALICE, "hostile/say", json!({"peer": BOB, "text": TEXT})).await.failure();
    // Lines that are no object are kept as they are: there are none.
    let event = host.event("flow-ended", |event| event["flow"] == "hostile/says");
    assert!(event["error"].as_str().unwrap().contains("run this"), "{event}");
    host.event("flow-ended", |event| event["flow"] == "hostile/say");
}

#[test]
fn names_in_arguments_begin_no_line_either() {
    let network = Network::new();
    let _host: Host = network.run();
    for words in [
        vec!["identity", "show", TEXT],
        vec!["flow", "start", "--identity", TEXT, "ping"],
        vec!["flow", "start", "--identity", "Alice", TEXT],
        vec!["flow", "forget", TEXT],
        vec!["cordapp", "inspect", TEXT],
        vec!["network", "parties", TEXT],
    ] {
        let answer = plain(&network, &words);
        harmless(words[1], &format!("{}\n{}", answer.out, answer.err));
    }
    let mut unset = Command::new(cli::binary());
    unset.args(["status", "--endpoint", TEXT]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let answer = cli::answer(unset, None);
    harmless("an endpoint", &format!("{}\n{}", answer.out, answer.err));
}

#[test]
fn a_client_that_reads_is_shown_every_label() {
    let network = Network::new();
    let _host = network.run();
    for labels in [1, 255, 256, 257, 1_000] {
        let arguments = json!({ "labels": labels }).to_string();
        let answer = network.cli(&["flow", "start", "--identity", ALICE, "count-up", &arguments, "--watch"]).ok();
        let told = answer.objects();
        let shown: Vec<u64> = told
            .iter()
            .filter(|event| event["event"] == "progress")
            .map(|event| event["label"].as_str().unwrap().parse().unwrap())
            .collect();
        assert_eq!(shown, (1..=labels).collect::<Vec<u64>>(), "{answer}");
        assert!(!answer.err.contains("waiting"), "{answer}");
    }
}
