//! What flows say that is kept: progress labels.

use maxhost_tests::{ALICE, BOB, Network};
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn progress_counts_against_the_journal() {
    // By bytes, and by entries.
    for (entries, bytes, word) in [("1000000", "8 MiB", "bytes"), ("5000", "64 MiB", "progress labels")] {
        let network = Network::new()
            .setting(&format!("limits.journal_entries={entries}"))
            .setting(&format!("limits.journal_bytes={bytes}"))
            .setting("flows.shadow_replay=0");
        let host = network.run();
        let before = host.status().await.rss_bytes;
        let failure = host.run(ALICE, "flood-progress", json!({})).await.failure();
        assert_eq!((failure.kind.as_str(), failure.limit.as_deref()), ("limit", Some("journal")), "{failure:?}");
        assert!(failure.message.contains(word), "{failure:?}");
        let after = host.until_quiet().await.rss_bytes;
        assert!(after < before + (128 << 20), "{before} bytes before, {after} after");
    }
}

/// A wait that is over at once is none: who writes more than the disk takes waits for it, and nobody else does.
#[tokio::test(flavor = "multi_thread")]
async fn a_flow_that_sends_without_pause_goes_at_the_pace_of_the_disk() {
    let network = Network::new().settings(&["limits.journal_bytes=1 GiB", "flows.shadow_replay=0"]);
    let host = network.run();
    let flow = host.start(ALICE, "send-without-pause", json!({"peer": BOB, "amount": 400})).await;
    let mut ended = std::pin::pin!(host.end(&flow));
    for number in 0.. {
        let client_id = format!("beside it {number}");
        tokio::select! {
            biased;
            end = &mut ended => {
                assert_eq!(end.result(), json!(400));
                break;
            }
            started = host.start_as(&client_id, BOB, "labels", json!({"amount": 1})) => drop(started.unwrap()),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn labels_that_come_at_once_are_all_shown() {
    let network = Network::new();
    let _host = network.run();
    for count in [255_usize, 256, 1_000] {
        let arguments = json!({ "amount": count }).to_string();
        let answer =
            network.cli(&["flow", "start", "--identity", "Alice", "hostile/labels", &arguments, "--watch"]).ok();
        let labels: Vec<Value> = answer.objects().into_iter().filter(|event| event["event"] == "progress").collect();
        let wanted: Vec<String> = (0..count).map(|number| number.to_string()).collect();
        let told: Vec<&str> = labels.iter().filter_map(|event| event["label"].as_str()).collect();
        assert_eq!(told, wanted, "{count} labels");
        assert!(!answer.err.contains("waiting for the host"), "{answer}");
    }
    // More than a watcher is kept: the latest, and a mark for the gap.
    let arguments = json!({ "amount": 20_000 }).to_string();
    let answer = network.cli(&["flow", "start", "--identity", "Alice", "hostile/labels", &arguments, "--watch"]).ok();
    let events = answer.objects();
    let of_kind = |kind: &str| events.iter().filter(|event| event["event"] == kind).collect::<Vec<_>>();
    let left_out: u64 = of_kind("gap").iter().filter_map(|event| event["labels"].as_u64()).sum();
    let labels = of_kind("progress");
    assert_eq!(labels.len() as u64 + left_out, 20_000);
    assert_eq!(labels.last().unwrap()["label"], "19999");
}
