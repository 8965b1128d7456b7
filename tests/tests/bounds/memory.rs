//! The guests' memory.

use futures::future::join_all;
use maxhost_tests::{ALICE, BOB, Network, eventually};
use serde_json::json;

/// What the host takes besides the memory that it gives to guests.
const SLACK: u64 = 160 << 20;

fn hold(mebibytes: u64, milliseconds: u64) -> serde_json::Value {
    json!({ "mebibytes": mebibytes, "milliseconds": milliseconds })
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_is_granted_before_it_is_taken() {
    for evict in ["after-linger", "never", "every-wait"] {
        let network = Network::new().settings(&[
            &format!("flows.evict={evict}"),
            "flows.shadow_replay=0",
            "limits.memory=200 MiB",
            "flows.linger=30 s",
        ]);
        let host = network.run();
        host.run(ALICE, "hold-memory", hold(1, 0)).await.result();
        let before = host.status().await.rss_bytes;
        // Together they want 1,600 MiB, of which there are 200.
        let flows = (0..40).map(|number| host.run([ALICE, BOB][number % 2], "hold-memory", hold(40, 20)));
        let most = std::sync::atomic::AtomicU64::new(0);
        let watching = async {
            loop {
                let rss = host.status().await.rss_bytes;
                most.fetch_max(rss, std::sync::atomic::Ordering::Relaxed);
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            ends = join_all(flows) => {
                for end in ends {
                    assert_eq!(end.result(), json!(40), "{evict}");
                }
            }
            () = watching => {}
        }
        let most = most.into_inner();
        assert!(most < before + (200 << 20) + SLACK, "{evict}: {before} bytes before, {most} at the most");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_that_is_short_of_memory_waits_alone_and_says_so() {
    let network = Network::new()
        .settings(&["flows.evict=never", "flows.shadow_replay=0"])
        .limits("alice", "memory = \"70 MiB\"\ncpu_per_run = \"60 s\"");
    let host = network.run();
    // It computes, so nobody can ask it to give its memory back.
    let busy = host.start(ALICE, "hold-and-spin", json!({ "amount": 50 })).await;
    eventually("memory in use", async || {
        let shown = host.show(&busy).await;
        let label = shown.flow.as_ref().and_then(|flow| flow.progress.clone());
        if label.as_deref() == Some("holding") { Ok(()) } else { Err(format!("{shown:?}")) }
    })
    .await;
    let waiting = host.start(ALICE, "hold-memory", hold(40, 0)).await;
    host.until_waits(&waiting, "memory").await;
    // Others are not concerned.
    assert_eq!(host.run(BOB, "hold-memory", hold(40, 0)).await.result(), json!(40));
    assert!(host.kill(&busy).await);
    assert_eq!(host.end(&waiting).await.result(), json!(40));
    // What can never be had is a limit, not a wait.
    let failure = host.run(ALICE, "hold-memory", hold(90, 0)).await.failure();
    assert_eq!(failure.limit.as_deref(), Some("memory"), "{failure:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn flows_that_only_wait_give_their_memory_to_those_that_compute() {
    let network = Network::new().settings(&["flows.evict=never", "flows.shadow_replay=0", "limits.memory=150 MiB"]);
    let host = network.run();
    let idle = join_all((0..3).map(|_| host.start(ALICE, "hold-memory", hold(40, 250_000)))).await;
    for flow in &idle {
        host.until_waits(flow, "sleep").await;
    }
    assert_eq!(host.run(BOB, "hold-memory", hold(60, 0)).await.result(), json!(60));
    for flow in &idle {
        host.until_waits(flow, "sleep").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_takes_no_huge_pages() {
    let network = Network::new();
    let host = network.run();
    for _ in 0..20 {
        host.run(ALICE, "ping", json!({"peer": BOB, "count": 10})).await.result();
    }
    let text = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", host.pid())).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("AnonHugePages:")).unwrap();
    let kibibytes: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
    // One or two were taken before the program's first line.
    assert!(kibibytes <= 8 << 10, "{kibibytes} KiB");
}
