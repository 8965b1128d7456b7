//! Values at the edges of JSON and CBOR: they arrive as what they are, or are refused with their place and the reason.

use maxhost_cbor::readable;
use maxhost_rpc::proto::v1 as pb;
use maxhost_tests::{ALICE, Network};
use serde_json::{Value, json};

fn request(flow: &str, arguments: pb::start_flow_request::Arguments) -> pb::StartFlowRequest {
    pb::StartFlowRequest {
        identity: ALICE.to_owned(),
        flow: flow.to_owned(),
        arguments: Some(arguments),
        ..pb::StartFlowRequest::default()
    }
}

fn as_json(text: &str) -> pb::StartFlowRequest {
    request("reflect", pb::start_flow_request::Arguments::Json(text.to_owned()))
}

fn as_cbor(value: &impl serde::Serialize) -> pb::StartFlowRequest {
    request("reflect", pb::start_flow_request::Arguments::Cbor(readable::to_vec(value).unwrap()))
}

#[tokio::test(flavor = "multi_thread")]
async fn arguments_arrive_as_they_are() {
    let network = Network::new();
    let host = network.run();
    for text in [
        r#"{"small":-128}"#,
        r#"{"unsigned":18446744073709551615}"#,
        r#"{"signed":-9223372036854775808}"#,
        r#"{"signed":9223372036854775807}"#,
        r#"{"wide":18446744073709551615}"#,
        r#"{"float":0.1}"#,
        r#"{"float":-0.0}"#,
        r#"{"float":1e300}"#,
        r#"{"float":5e-324}"#,
        r#"{"float":9007199254740992.0}"#,
        r#"{"narrow":1.5}"#,
        r#"{"text":"a\u0000b\u2028\ud83e\udd80"}"#,
        r#"{"numbered":{"-9223372036854775808":"lowest","7":"seven"}}"#,
        r#"{"inner":{"inner":{"unsigned":9223372036854775808}}}"#,
    ] {
        let started = host.try_start(as_json(text)).await.unwrap_or_else(|problem| panic!("{text}: {problem}"));
        let result = host.end(&started.flow_id).await.result();
        assert_eq!(result.to_string(), serde_json::from_str::<Value>(text).unwrap().to_string());
    }
    // What is the same number in other words.
    for (given, taken) in [
        (r#"{"float":3}"#, r#"{"float":3.0}"#),
        (r#"{"float":9007199254740992}"#, r#"{"float":9007199254740992.0}"#),
        (r#"{"signed":3.0}"#, r#"{"signed":3}"#),
        (r#"{"signed":-0.0}"#, r#"{"signed":0}"#),
        (r#"{"signed":-9007199254740991.0}"#, r#"{"signed":-9007199254740991}"#),
        (r#"{"unsigned":1e18}"#, r#"{"unsigned":1000000000000000000}"#),
        (r#"{"wide":25e17}"#, r#"{"wide":2500000000000000000}"#),
    ] {
        let started = host.try_start(as_json(given)).await.unwrap();
        assert_eq!(host.end(&started.flow_id).await.result().to_string(), taken);
    }
    // CBOR holds more: 128 bits, and as a result they are text.
    for wide in [i128::MIN, i128::from(i64::MIN) - 1, i128::from(u64::MAX) + 1, i128::MAX] {
        let started = host.try_start(as_cbor(&std::collections::BTreeMap::from([("wide", wide)]))).await.unwrap();
        assert_eq!(host.end(&started.flow_id).await.result(), json!({"wide": wide.to_string()}));
    }
    // The command line takes and shows the same.
    let shown = network.cli(&[
        "flow",
        "start",
        "--identity",
        "Alice",
        "reflect",
        r#"{"unsigned":18446744073709551615}"#,
        "--wait",
    ]);
    assert!(shown.ok().object().to_string().contains("18446744073709551615"));
}

#[tokio::test(flavor = "multi_thread")]
async fn arguments_that_would_change_are_refused_with_their_place() {
    let network = Network::new();
    let host = network.run();
    let deep = format!(r#"{{"nested":{}{}}}"#, "[".repeat(200), "]".repeat(200));
    let cases: &[(&str, Option<&str>, &str)] = &[
        (r#"{"small":-129}"#, Some("/small"), "-128"),
        (r#"{"small":128}"#, Some("/small"), "127"),
        (r#"{"unsigned":-1}"#, Some("/unsigned"), "minimum"),
        (r#"{"unsigned":18446744073709551616}"#, Some("/unsigned"), "beyond 64 bits"),
        (r#"{"signed":-9223372036854775809}"#, Some("/signed"), "beyond 64 bits"),
        (r#"{"signed":9223372036854775808}"#, Some("/signed"), "9223372036854775807"),
        (r#"{"signed":-9223372036854775809.0}"#, Some("/signed"), "would be rounded"),
        (r#"{"wide":340282366920938463463374607431768211456}"#, Some("/wide"), "beyond 64 bits"),
        (r#"{"signed":1.5}"#, Some("/signed"), "integer"),
        (r#"{"signed":1.0000000000000001}"#, Some("/signed"), "would be rounded"),
        (r#"{"signed":9007199254740993.0}"#, Some("/signed"), "would be rounded"),
        (r#"{"float":0.50000000000000001}"#, Some("/float"), "would be rounded"),
        (r#"{"float":0.1234567890123456789}"#, Some("/float"), "would be rounded"),
        (r#"{"float":1e-400}"#, Some("/float"), "would be rounded"),
        (r#"{"float":1e400}"#, None, "too large"),
        (r#"{"float":NaN}"#, None, "not JSON"),
        (r#"{"float":"NaN"}"#, Some("/float"), "NaN"),
        (r#"{"text":"a","text":"b"}"#, Some(""), "the key 'text' twice"),
        (r#"{"inner":{"text":"a","\u0074ext":"b"}}"#, Some("/inner"), "the key 'text' twice"),
        (r#"{"text":"\ud800"}"#, None, "not JSON"),
        (&deep, None, "nested too deep"),
    ];
    for (text, path, words) in cases {
        let problem = host.try_start(as_json(text)).await.unwrap_err();
        assert_eq!(problem.code, maxhost_model::Code::ArgumentsInvalid, "{text}: {problem}");
        assert_eq!(problem.details.get("path").map(String::as_str), *path, "{text}: {problem}");
        assert!(format!("{problem} {:?}", problem.details).contains(words), "{text}: {problem:?}");
        // The command line says the same without asking.
        let refused = network.cli(&["flow", "start", "--identity", "Alice", "reflect", text]);
        let error = refused.fails(4, "arguments-invalid");
        assert_eq!(error["details"].get("path").and_then(Value::as_str), *path, "{error}");
    }

    // Bytes that are CBOR, and are no arguments: the key twice, an integer beyond its field, NaN, no CBOR at all.
    for (cbor, words) in [
        (&b"\xa2\x64text\x61a\x64text\x61b"[..], "the key 'text' twice"),
        (b"\xa1\x66signed\x3b\x80\0\0\0\0\0\0\0", "-9223372036854775808"),
        (b"\xa1\x68unsigned\xc2\x49\x01\0\0\0\0\0\0\0\0", "18446744073709551615"),
        (b"\xa1\x64wide\xc2\x51\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", "128 bits"),
        (b"\xa1\x65float\xf9\x7e\0", "NaN"),
        (b"\xa1\x64text\x61\xff", "UTF-8"),
        (b"\xa1\x64text", "end after"),
        (b"\xa1\x64text\xe0", "no meaning"),
    ] {
        let given = pb::start_flow_request::Arguments::Cbor(cbor.to_vec());
        let problem = host.try_start(request("reflect", given)).await.unwrap_err();
        assert_eq!(problem.code, maxhost_model::Code::ArgumentsInvalid, "{cbor:?}: {problem}");
        assert!(format!("{problem} {:?}", problem.details).contains(words), "{cbor:?}: {problem:?}");
    }
    assert_eq!(host.flows(None, None).await.len(), 0);
}

/// What the text of a number says is not all that decides: where an integer is expected, a float may be another one.
#[tokio::test(flavor = "multi_thread")]
async fn numbers_that_a_flow_would_read_as_others_are_refused_before_it_begins() {
    let network = Network::new();
    let host = network.run();
    for (text, path, words) in [
        (r#"{"wide":1e30}"#, "/wide", "no integer exactly"),
        (r#"{"wide":-1e22}"#, "/wide", "no integer exactly"),
        (r#"{"wide":9223372036854775808.0}"#, "/wide", "no integer exactly"),
        (r#"{"signed":-9223372036854775808.0}"#, "/signed", "no integer exactly"),
        (r#"{"signed":7.205759403792795e16}"#, "/signed", "no integer exactly"),
        (r#"{"unsigned":1e19}"#, "/unsigned", "no integer exactly"),
        (r#"{"unsigned":1e30}"#, "/unsigned", "18446744073709551615"),
        (r#"{"inner":{"inner":{"wide":1e30}}}"#, "/inner/inner/wide", "no integer exactly"),
        (r#"{"float":9007199254740993}"#, "/float", "more digits than a float holds"),
        (r#"{"float":-9223372036854775807}"#, "/float", "more digits than a float holds"),
        (r#"{"narrow":1e39}"#, "/narrow", "beyond the range of a float of 32 bits"),
    ] {
        let problem = host.try_start(as_json(text)).await.unwrap_err();
        assert_eq!(problem.code, maxhost_model::Code::ArgumentsInvalid, "{text}: {problem}");
        assert_eq!(problem.details.get("path").map(String::as_str), Some(path), "{text}: {problem}");
        assert!(format!("{problem} {:?}", problem.details).contains(words), "{text}: {problem:?}");
        let error =
            network.cli(&["flow", "start", "--identity", "Alice", "reflect", text]).fails(4, "arguments-invalid");
        assert_eq!(error["details"]["path"], path, "{error}");
    }
    for (arguments, path, words) in [
        (json!({"float": u64::MAX}), "/float", "more digits than a float holds"),
        (json!({"wide": 1e30}), "/wide", "no integer exactly"),
        (json!({"unsigned": 1e19}), "/unsigned", "no integer exactly"),
        (json!({"inner": {"wide": -1e30}}), "/inner/wide", "no integer exactly"),
    ] {
        let problem = host.try_start(as_cbor(&arguments)).await.unwrap_err();
        assert_eq!(problem.details.get("path").map(String::as_str), Some(path), "{arguments}: {problem}");
        assert!(problem.message.contains(words), "{arguments}: {problem}");
    }
    assert_eq!(host.flows(None, None).await.len(), 0);
    // In CBOR nothing was rounded on the way: a float that is an integer is that one.
    let started = host.try_start(as_cbor(&json!({"signed": 72_057_594_037_927_952.0}))).await.unwrap();
    let result = host.end(&started.flow_id).await.result();
    assert_eq!(result, json!({"signed": 72_057_594_037_927_952_i64}));
}

#[tokio::test(flavor = "multi_thread")]
async fn results_come_out_as_they_are() {
    let network = Network::new();
    let host = network.run();
    for (odd, shown) in [
        ("not-a-number", json!("NaN")),
        ("infinity", json!("-Infinity")),
        ("largest", json!(u64::MAX)),
        ("wide", json!(u128::MAX.to_string())),
        ("lowest", json!(i128::MIN.to_string())),
        ("bytes", json!("/wA=")),
        ("zero", json!("a\0b")),
        ("numbered", json!({"7": true})),
    ] {
        assert_eq!(host.run(ALICE, "produce", json!(odd)).await.result(), shown, "{odd}");
    }
    // As deep as CBOR may be nested: as JSON as far as its readers go, and as CBOR beyond.
    let nested = async |lists: usize| {
        let cbor = [b"\xa1\x66nested".to_vec(), vec![0x81; lists - 1], vec![0x80]].concat();
        let given = pb::start_flow_request::Arguments::Cbor(cbor);
        host.try_start(request("reflect", given)).await.unwrap().flow_id
    };
    let shown = host.end(&nested(126).await).await.result();
    assert_eq!(shown.to_string(), format!(r#"{{"nested":{}{}}}"#, "[".repeat(126), "]".repeat(126)));
    let id = nested(127).await;
    host.until_state(&id, "completed").await;
    let shown = network.cli(&["flow", "show", &id]).ok().object();
    assert!(shown["result"]["cbor"].as_str().unwrap().contains(&"81".repeat(126)), "{shown}");
    // What JSON has no form for comes as CBOR.
    let id = host.start(ALICE, "produce", json!("twice")).await;
    host.until_state(&id, "completed").await;
    let shown = network.cli(&["flow", "show", &id]).ok().object();
    assert_eq!(shown["result"], json!({"cbor": "a2616101616102"}), "{shown}");
}

/// A component that breaks the contract with its host: the flow ends, and says so.
#[tokio::test(flavor = "multi_thread")]
async fn a_result_that_is_no_cbor_is_an_unexpected_error() {
    let network = Network::new();
    let host = network.run();
    let failure = host.run(ALICE, "produce", json!("broken")).await.failure();
    assert_eq!(failure.kind, "unexpected");
    assert!(failure.message.contains("the flow returned no result: the bytes are not valid CBOR"), "{failure:?}");
}
