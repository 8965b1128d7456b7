//! Replay is invisible: the same flows, kept in memory and put away, end the same.
//!
//! Every flow of the samples that ends by itself runs in every mode, all at once, and is run again from its journal when
//! it has ended (`shadow_replay = 1.0`), but for one mode, because a flow that is compared ends later than others do;
//! messages take the direct way or the one through the broker. What a flow ends with must be what is expected, and the
//! same in all modes.

use std::collections::BTreeMap;

use futures::future::join_all;
use maxhost_tests::flows::{state, with};
use maxhost_tests::{ALICE, BOB, CAROL, End, Host, Network};
use serde_json::{Value, json};

/// A way to run a host, and what shows that it was this way.
struct Mode {
    name: &'static str,
    settings: &'static [&'static str],
    evicts: bool,
    compares: bool,
}

const MODES: &[Mode] = &[
    Mode { name: "never", settings: &["flows.evict=never"], evicts: false, compares: true },
    Mode { name: "every-wait", settings: &["flows.evict=every-wait"], evicts: true, compares: true },
    Mode { name: "random", settings: &["flows.evict=random:20260722"], evicts: true, compares: true },
    Mode {
        name: "not compared",
        settings: &["flows.evict=never", "flows.shadow_replay=0.0"],
        evicts: false,
        compares: false,
    },
    Mode {
        name: "broker",
        settings: &["flows.evict=never", "flows.always_broker=true"],
        evicts: false,
        compares: true,
    },
    Mode {
        name: "broker, every-wait",
        settings: &["flows.evict=every-wait", "flows.always_broker=true"],
        evicts: true,
        compares: true,
    },
];

/// Small, so that those who reach them do so soon.
const LIMITS: &[&str] = &["limits.journal_entries=3000", "limits.log_lines=2000"];
/// Of Carol, who computes without end. Others reach other limits first, however slow the machine is.
const LIMITS_OF_CAROL: &str = "cpu_per_run = \"300 ms\"";
const LIMITS_OF_OTHERS: &str = "cpu_per_run = \"60 s\"";

struct Case {
    name: String,
    identity: &'static str,
    flow: &'static str,
    arguments: Value,
    expected: Expected,
}

enum Expected {
    /// Exactly this.
    Result(Value),
    /// Something that this finds right.
    Fits(fn(&Value)),
    /// An error of this kind; these words are in its text.
    Fails { kind: &'static str, words: &'static str, peer: Option<&'static str> },
    /// The end at a limit.
    Limit(&'static str),
}

use Expected::{Fails, Fits, Limit, Result as Ends};

fn case(flow: &'static str, arguments: Value, expected: Expected) -> Case {
    Case { name: format!("{flow} {arguments}"), identity: ALICE, flow, arguments, expected }
}

fn fails(kind: &'static str, words: &'static str) -> Expected {
    Fails { kind, words, peer: None }
}

fn cases() -> Vec<Case> {
    [samples(), sessions(), errors(), provocations(), abuses()].into_iter().flatten().collect()
}

fn samples() -> Vec<Case> {
    let quotes = |item: &str| json!({"dealers": [BOB, CAROL], "item": item, "quantity": 10, "deadline_ms": 60_000});
    let best = |result: &Value| {
        assert_eq!(result["answers"], 2);
        assert!(result["price"].as_u64().unwrap() > 0 && [BOB, CAROL].contains(&result["winner"].as_str().unwrap()));
    };
    vec![
        case("ping-pong/ping", json!({"peer": BOB, "count": 10}), Ends(json!({"rounds": 10}))),
        // A party may talk to itself.
        case("ping-pong/ping", json!({"peer": ALICE, "count": 3}), Ends(json!({"rounds": 3}))),
        case("ping", json!({"peer": BOB, "count": 0}), Ends(json!({"rounds": 0}))),
        case("ping", json!({"peer": "O=Nobody, L=London, C=GB", "count": 0}), fails("illegal-argument", "O=Nobody")),
        case("heartbeat/beat", json!({"beats": 5, "interval_ms": 20}), Ends(json!({"beats": 5}))),
        case("beat", json!({"beats": 1, "interval_ms": 300_001}), fails("flow-exception", "300000 ms")),
        case("quotes/request", quotes("XS1"), Fits(best)),
        case("quotes/request", quotes("XS2"), Fits(best)),
        case("statics", json!({"times": 10}), Ends(json!({"static": 10, "thread_local": 10}))),
        case("determinism", with(BOB), Fits(five_different_observations)),
    ]
}

fn five_different_observations(result: &Value) {
    let observations = result["observations"].as_array().unwrap();
    assert_eq!(observations.len(), 5);
    for field in ["random", "now"] {
        let different: std::collections::BTreeSet<String> =
            observations.iter().map(|observation| observation[field].to_string()).collect();
        assert_eq!(different.len(), 5, "{field}: {result}");
    }
}

fn sessions() -> Vec<Case> {
    let both = json!({"peers": [BOB, CAROL], "value": 5});
    let wait = |deadline: u64, answer: u64| json!({"peer": BOB, "deadline_ms": deadline, "answer_ms": answer});
    let protocols =
        json!({"own": "sub-flows", "initiating": "inner", "inlined": "sub-flows", "own_again": "sub-flows"});
    vec![
        case("send-only", json!({"peer": BOB, "value": 7}), Ends(Value::Null)),
        case("both-send-first", with(BOB), Ends(json!([20, 21]))),
        case("both-send-first", with(ALICE), Ends(json!([20, 21]))),
        case("fan-out", both.clone(), Ends(json!(2))),
        case("receive-all", both, Ends(json!([[5, BOB], [6, CAROL]]))),
        case("same-session-twice", with(BOB), fails("illegal-argument", "")),
        case("flow-info", with(BOB), Ends(json!({"version": 3, "app": "hostile"}))),
        case("premature-close", with(BOB), fails("premature-close", "")),
        case(
            "double-close",
            with(BOB),
            Ends(json!({"answer": 1, "send": "unexpected-end", "receive": "unexpected-end"})),
        ),
        case("wait-any-deadline", wait(60_000, 10), Ends(json!({"ready": true, "answer": 10}))),
        case("wait-any-deadline", wait(50, 3_000), Ends(json!({"ready": false, "answer": null}))),
        case("many-sessions", json!({"peer": BOB, "value": 20}), Ends(json!(210))),
        case("many-sessions", json!({"peer": ALICE, "value": 5}), Ends(json!(15))),
        case("sub-flows", with(BOB), Ends(protocols)),
        case("peer-leaves", json!({"peer": BOB, "value": 10}), Ends(json!(10))),
    ]
}

fn errors() -> Vec<Case> {
    let unanswered = |receive: bool| json!({"peer": BOB, "receive": receive});
    let relay = |rethrow: bool| json!({"via": BOB, "target": CAROL, "behaviour": "throw", "rethrow": rethrow});
    vec![
        case("throw", json!({}), fails("flow-exception", "thrown on purpose")),
        case("fail", json!({}), fails("unexpected", "invalid digit found in string")),
        case("panic", json!({}), fails("unexpected", "this panic is on purpose")),
        case("throw-on-start", with(BOB), Fails { kind: "flow-exception", words: "thrown on start", peer: Some(BOB) }),
        case("panic-on-start", with(BOB), Fails { kind: "unexpected-end", words: "", peer: Some(BOB) }),
        case("end-on-start", with(BOB), Fails { kind: "unexpected-end", words: "", peer: Some(BOB) }),
        case("unanswered", unanswered(true), fails("unexpected-end", "hostile/unanswered is not registered")),
        // Nobody listens, and it is told all the same.
        case("unanswered", unanswered(false), fails("unexpected-end", "hostile/unanswered is not registered")),
        case("send-then-throw", json!({"peer": BOB, "count": 3}), fails("flow-exception", "thrown after 3 messages")),
        case("relay", relay(false), Fits(|result| assert_eq!(result["caught"]["kind"], "unexpected-end"))),
        case(
            "relay",
            relay(true),
            Fits(|result| {
                let caught = &result["caught"];
                assert_eq!(caught["message"], "relayed: thrown on purpose");
                assert_eq!((&caught["kind"], &caught["peer"]), (&json!("flow-exception"), &json!(BOB)));
            }),
        ),
        case(
            "recover",
            with(BOB),
            Fits(|result| {
                assert_eq!(result["received"], json!(["late"]));
                assert_eq!(result["caught"]["kind"], "flow-exception");
            }),
        ),
    ]
}

/// What arrives of what a peer does wrong.
fn provocations() -> Vec<Case> {
    fn provoke(behaviour: Value, receives: u32, expected: Expected) -> Case {
        case("provoke", json!({"peer": BOB, "behaviour": behaviour, "receives": receives, "catch": true}), expected)
    }
    fn ended_only(result: &Value) {
        assert_eq!(result["caught"]["kind"], "unexpected-end", "{result}");
        assert!(!result.to_string().contains("secret"), "{result}");
    }
    let uncaught = json!({"peer": BOB, "behaviour": "throw-typed"});
    vec![
        provoke(
            json!("throw-typed"),
            1,
            Ends(json!({"received": [], "caught": {
                "kind": "flow-exception", "message": "thrown on purpose", "exception": "hostile/thrown",
                "data": "some data", "peer": BOB, "has_error_id": true,
            }})),
        ),
        case("provoke", uncaught, Fails { kind: "flow-exception", words: "thrown on purpose", peer: Some(BOB) }),
        provoke(json!("fail"), 1, Fits(ended_only)),
        provoke(json!("panic"), 1, Fits(ended_only)),
        provoke(json!("end"), 1, Fits(ended_only)),
        provoke(json!("wrong-type"), 1, Fits(ended_only)),
        provoke(json!({"reply-after": 30}), 1, Ends(json!({"received": ["late"], "caught": null}))),
        provoke(
            json!("reply-then-throw"),
            2,
            Fits(|result| {
                assert_eq!(result["received"], json!(["first an answer"]));
                assert_eq!(result["caught"]["kind"], "flow-exception");
            }),
        ),
        provoke(
            json!({"reply-then-close": 50}),
            2,
            Fits(|result| {
                assert_eq!(result["received"], json!(["closing"]));
                assert_eq!(result["caught"]["kind"], "unexpected-end");
            }),
        ),
    ]
}

fn abuses() -> Vec<Case> {
    let huge = |bytes: usize| json!({"peer": BOB, "bytes": bytes});
    vec![
        Case { identity: CAROL, ..case("spin", json!({}), Limit("cpu")) },
        case("eat-memory", json!({}), Limit("memory")),
        case("recurse", json!({}), Limit("stack")),
        case("flood-log", json!({}), Limit("log")),
        case("flood-journal", json!({}), Limit("journal")),
        case("huge-message", huge(1_000_000), Ends(json!(1_000_000))),
        // The largest message there may be: ten mebibytes, with the five bytes that say how long the text is.
        case("huge-message", huge((10 << 20) - 5), Ends(json!((10 << 20) - 5))),
        case("huge-message", huge((10 << 20) - 4), Limit("message")),
    ]
}

fn check(mode: &str, case: &Case, end: &End) {
    let at = format!("{} in mode {mode}: {end:?}", case.name);
    match &case.expected {
        Ends(expected) => {
            assert_eq!((end.state.as_str(), end.result.as_ref()), ("completed", Some(expected)), "{at}");
        }
        Fits(fits) => {
            assert_eq!(end.state, "completed", "{at}");
            fits(end.result.as_ref().unwrap_or_else(|| panic!("{at}")));
        }
        Fails { kind, words, peer } => {
            let error = end.error.as_ref().unwrap_or_else(|| panic!("{at}"));
            assert_eq!(
                (end.state.as_str(), error.kind.as_str(), error.limit.as_ref()),
                ("failed", *kind, None),
                "{at}"
            );
            assert!(error.message.contains(words), "{at}");
            assert!(peer.is_none() || error.peer.as_deref() == *peer, "{at}");
            assert!(error.error_id.is_some(), "{at}");
        }
        Limit(limit) => {
            let error = end.error.as_ref().unwrap_or_else(|| panic!("{at}"));
            assert_eq!((error.kind.as_str(), error.limit.as_deref()), ("limit", Some(*limit)), "{at}");
        }
    }
}

/// An end without what differs from run to run: numbers of errors, amounts at which a limit was met, what was drawn.
fn comparable(case: &Case, end: &End) -> String {
    let error = end.error.as_ref().map(|error| {
        let message = if error.limit.is_some() { "" } else { &error.message };
        json!({"kind": error.kind, "message": message, "exception": error.exception, "peer": error.peer, "limit": error.limit})
    });
    let result = if case.flow == "determinism" { &None } else { &end.result };
    without_error_ids(&json!({"state": end.state, "result": result, "error": error}).to_string())
}

/// An error id is sixteen hexadecimal digits.
fn without_error_ids(text: &str) -> String {
    let is_id = |word: &str| word.len() == 16 && word.chars().all(|c| c.is_ascii_hexdigit());
    let words = text.split_inclusive(|c: char| !c.is_ascii_alphanumeric());
    words
        .map(|word| if is_id(word.trim_end_matches(|c: char| !c.is_ascii_alphanumeric())) { "ID" } else { word })
        .collect()
}

/// What a mode came to: how each case ended, and how often each flow, responders too, ended how.
type Outcome = (BTreeMap<String, String>, BTreeMap<String, u32>);

fn network(mode: &Mode) -> Network {
    let network = Network::new().settings(mode.settings).settings(LIMITS).limits("carol", LIMITS_OF_CAROL);
    ["alice", "bob"].iter().fold(network, |network, name| network.limits(name, LIMITS_OF_OTHERS))
}

async fn outcome(mode: &Mode, host: Host) -> Outcome {
    let cases = cases();
    let ends = join_all(cases.iter().map(|case| host.run(case.identity, case.flow, case.arguments.clone()))).await;
    let mut results = BTreeMap::new();
    for (case, end) in cases.iter().zip(&ends) {
        check(mode.name, case, end);
        assert!(results.insert(case.name.clone(), comparable(case, end)).is_none(), "{} is there twice", case.name);
    }
    let tally = tally(mode, &host).await;
    host.stop();
    (results, tally)
}

async fn tally(mode: &Mode, host: &Host) -> BTreeMap<String, u32> {
    let status = host.until_quiet().await;
    let counters = &status.counters;
    assert_eq!((status.flows["hospital"], counters["hospitalised"]), (0, 0), "mode {}:\n{}", mode.name, host.log());
    // All that ended by themselves were run again and compared; those that a limit ended have nothing to compare.
    let completed = status.flows["completed"];
    assert!(completed > 60, "mode {}: {status:?}", mode.name);
    if mode.compares {
        assert!(counters["shadow_replays"] >= completed, "mode {}: {status:?}", mode.name);
    } else {
        assert_eq!(counters["shadow_replays"], 0, "mode {}", mode.name);
    }
    if mode.evicts {
        assert!(counters["evictions"] > 50 && counters["replays"] > 50, "mode {}: {counters:?}", mode.name);
    } else {
        assert_eq!((counters["evictions"], counters["replays"]), (0, 0), "mode {}", mode.name);
    }
    let mut tally = BTreeMap::new();
    for flow in host.flows(None, None).await {
        *tally.entry(format!("{} {}", flow.flow, state(flow.state()))).or_default() += 1;
    }
    tally
}

#[tokio::test(flavor = "multi_thread")]
async fn every_flow_ends_the_same_in_every_mode() {
    // All are up before the first call: starting one blocks, and meanwhile the calls to others would come to their deadlines.
    let networks: Vec<Network> = MODES.iter().map(network).collect();
    let hosts: Vec<Host> = networks.iter().map(Network::run).collect();
    let outcomes = join_all(MODES.iter().zip(hosts).map(|(mode, host)| outcome(mode, host))).await;
    let (results, tally) = &outcomes[0];
    for (mode, (other_results, other_tally)) in MODES.iter().zip(&outcomes) {
        for (case, end) in results {
            assert_eq!(other_results.get(case), Some(end), "{case} in mode {}", mode.name);
        }
        assert_eq!(other_tally, tally, "mode {}", mode.name);
    }
}
