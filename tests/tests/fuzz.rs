//! Bytes that nobody meant, at every place where the host reads what others wrote: whatever they are, they are read or
//! refused, and never panic, and what was read is written and read again as the same.
//!
//! Each target begins with good inputs and spoils them, from a seed that a failure prints. It runs for a moment; `make fuzz`
//! sets `MAXHOST_FUZZ_SECONDS` and lets each run for longer, from a seed of its own. A seed is repeated with
//! `MAXHOST_FUZZ_SEED`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use bytes::Bytes;
use maxhost_flows::Permission;
use maxhost_journal::wire::{Confirm, FrameKind};
use maxhost_journal::{Frame, FrameBatch, Initiation, Segment, StartRecord};
use maxhost_model::{NameQuery, NodeInfo, Signed, X500Name, cbor_to_json, from_cbor, json_to_cbor};
use prost::Message;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

/// Inputs of one target in the tests, whatever the machine: the same every time.
const ROUNDS: u32 = 20_000;
/// The seed of the tests.
const SEED: u64 = 20;
/// No input grows beyond this.
const LARGEST: usize = 4_096;

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

/// One small change, or a few.
fn spoil(input: &mut Vec<u8>, others: &[Vec<u8>], random: &mut ChaCha8Rng) {
    for _ in 0..random.random_range(1..=4) {
        let at = random.random_range(0..=input.len());
        match random.random_range(0..8) {
            0 if at < input.len() => input[at] ^= 1 << random.random_range(0..8),
            1 if at < input.len() => input[at] = random.random(),
            2 if at < input.len() => input[at] = [0, 1, 0x7f, 0x80, 0xff, b'{', b'"', b'\n'][random.random_range(0..8)],
            3 => input.truncate(at),
            4 => input.insert(at, random.random()),
            5 if at < input.len() => {
                let end = random.random_range(at..=input.len().min(at + 16));
                input.drain(at..end);
            }
            6 if at < input.len() => {
                let end = random.random_range(at..=input.len().min(at + 64));
                let part = input[at..end].to_vec();
                input.splice(at..at, part);
            }
            _ => {
                let other = &others[random.random_range(0..others.len())];
                let from = random.random_range(0..=other.len());
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
        }
        input.truncate(LARGEST);
    }
}

/// Runs a target over spoiled inputs.
fn fuzz(name: &str, corpus: Vec<Vec<u8>>, target: impl Fn(&[u8])) {
    let long = setting("MAXHOST_FUZZ_SECONDS").map(Duration::from_secs);
    let drawn = || if long.is_some() { rand::random() } else { SEED };
    let seed = setting("MAXHOST_FUZZ_SEED").unwrap_or_else(drawn);
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    corpus.iter().for_each(|input| target(input));
    let begun = Instant::now();
    let mut round = 0;
    while long.map_or(round < ROUNDS, |long| begun.elapsed() < long) {
        round += 1;
        let mut input = corpus[random.random_range(0..corpus.len())].clone();
        spoil(&mut input, &corpus, &mut random);
        if catch_unwind(AssertUnwindSafe(|| target(&input))).is_err() {
            panic!("{name} fails with MAXHOST_FUZZ_SEED={seed} in round {round}: {}", hex(&input));
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn json_corpus() -> Vec<Value> {
    vec![
        json!({"peer": "O=Bob, L=New York, C=US", "count": 3, "list": [1, -1, 1.5, true, null, "x"]}),
        json!({"a": {"b": {"c": [[], {}, ""]}}, "n": u64::MAX, "m": i64::MIN, "f": 1e300}),
        json!("caf\u{e9} \u{1f600} \u{0} \u{2028}"),
        json!([0, 23, 24, 255, 256, 65_535, 65_536, 4_294_967_296_u64]),
    ]
}

#[test]
fn cbor_of_anybody_is_json_or_refused() {
    let mut corpus: Vec<Vec<u8>> = json_corpus().iter().map(|json| json_to_cbor(json).unwrap()).collect();
    // Tags, big integers, indefinite lengths, byte strings, half floats, simple values.
    for text in [
        "c249010000000000000000",
        "9f018202039f0405ffff",
        "5f42010243030405ff",
        "f97e00",
        "f0",
        "a161614101",
        "d818456449455446",
    ] {
        corpus.push((0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect());
    }
    fuzz("cbor", corpus, |input| {
        if let Ok(json) = cbor_to_json(input) {
            // What a client is shown it may send, and gets the same.
            let again = cbor_to_json(&json_to_cbor(&json).unwrap()).unwrap();
            assert_eq!(again, json);
        }
    });
}

#[test]
fn json_of_clients_keeps_its_value() {
    let corpus = json_corpus().iter().map(|json| json.to_string().into_bytes()).collect();
    fuzz("json", corpus, |input| {
        if let Ok(json) = serde_json::from_slice::<Value>(input)
            && let Ok(cbor) = json_to_cbor(&json)
        {
            assert_eq!(cbor_to_json(&cbor).unwrap(), json);
        }
    });
}

#[test]
fn frames_of_peers_are_read_or_refused() {
    let confirm = Frame { kind: Some(FrameKind::Confirm(Confirm::default())) };
    let batch = FrameBatch {
        from: "O=Bob, L=New York, C=US".to_owned(),
        frames: vec![confirm.clone(), Frame::default()],
        token: 3,
    };
    let initiation = Initiation {
        from: "O=Bob, L=New York, C=US".to_owned(),
        from_session: i64::MAX,
        protocol: "ping-pong/ping".to_owned(),
        payload: Some(Bytes::from_static(b"\x01")),
        ..Initiation::default()
    };
    let corpus = vec![batch.encode_to_vec(), initiation.encode_to_vec(), confirm.encode_to_vec()];
    fuzz("frames", corpus, |input| {
        if let Ok(batch) = FrameBatch::decode(input) {
            assert_eq!(FrameBatch::decode(batch.encode_to_vec().as_slice()).unwrap(), batch);
        }
        if let Ok(initiation) = Initiation::decode(input) {
            assert_eq!(Initiation::decode(initiation.encode_to_vec().as_slice()).unwrap(), initiation);
        }
    });
}

#[test]
fn records_of_the_journal_are_read_or_refused() {
    let mut segment = Segment::default();
    (segment.progress_count, segment.at, segment.attempt) = (3, 7, 1);
    segment.progress = vec!["a".to_owned(); 2];
    let corpus = vec![segment.encode_sealed().to_vec(), segment.encode_to_vec()];
    fuzz("records", corpus, |input| {
        let bytes = Bytes::copy_from_slice(input);
        // The checksum keeps chance away from what is behind it; a disk or an attacker may not be kept away.
        for segment in [Segment::decode_sealed(&bytes, 1).ok(), Segment::decode(input).ok()].into_iter().flatten() {
            let _wait = segment.waits_for();
            assert_eq!(Segment::decode_sealed(&segment.encode_sealed(), 1).unwrap(), segment);
        }
        if let Ok(start) = StartRecord::decode(&bytes) {
            assert_eq!(StartRecord::decode(&start.encode()).unwrap().flow, start.flow);
        }
    });
}

#[test]
fn names_permissions_and_node_infos_are_read_or_refused() {
    let corpus: Vec<Vec<u8>> = [
        "O=Alice, L=London, C=GB",
        "CN=Node, OU=Unit, O=Caf\u{e9} \\, Ltd, L=New York, ST=NY, C=US",
        "StartFlow.ping-pong/*",
        "*.cash/pay",
    ]
    .iter()
    .map(|text| text.as_bytes().to_vec())
    .collect();
    fuzz("names", corpus, |input| {
        let text = String::from_utf8_lossy(input);
        let query = NameQuery::new(&text);
        if let Ok(name) = X500Name::parse(&text) {
            assert_eq!(X500Name::parse(name.as_str()).unwrap(), name);
            assert!(query.matches(&name), "{name}");
        }
        if let Ok(permission) = text.parse::<Permission>() {
            assert_eq!(permission.to_string().parse::<Permission>().unwrap(), permission);
        }
        if let Ok(signed) = from_cbor::<Signed<NodeInfo>>(input) {
            let _refused_or_not = signed.decode_unverified();
        }
    });
}

#[test]
fn components_of_anybody_are_looked_at_or_refused() {
    let small = wat::parse_str("(component (core module (func (export \"f\"))))").unwrap();
    let core =
        wat::parse_str("(module (memory 1) (func (export \"f\") (param i32) (result i32) local.get 0))").unwrap();
    fuzz("components", vec![small, core], |input| {
        let _refused_or_not = maxhost_sandbox::inspect(input);
    });
}
