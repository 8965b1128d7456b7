//! The host as a process: crashes, orderly stops, and what keeps it from starting.

use std::time::{Duration, Instant};

use futures::future::join_all;
use maxhost_tests::{ALICE, BOB, CAROL, Host, Network, cli, eventually};
use serde_json::{Value, json};

/// The longest an orderly stop may take.
const SOON: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread")]
async fn suspended_flows_go_on_after_a_crash() {
    let network = Network::new();
    let host = network.run();
    let beat = json!({"beats": 10, "interval_ms": 100});
    let reply = json!({"peer": CAROL, "behaviour": {"reply-after": 1_500}});
    let quotes = json!({"dealers": [BOB, CAROL], "item": "XS1", "quantity": 10, "deadline_ms": 60_000});
    let starts = [
        (ALICE, "beat", beat.clone(), json!({"beats": 10})),
        (BOB, "beat", beat, json!({"beats": 10})),
        (ALICE, "provoke", reply.clone(), json!({"received": ["late"], "caught": null})),
        (BOB, "provoke", reply, json!({"received": ["late"], "caught": null})),
        (CAROL, "statics", json!({"times": 300}), json!({"static": 300, "thread_local": 300})),
    ];
    let flows =
        join_all(starts.iter().map(|(identity, flow, arguments, _)| host.start(identity, flow, arguments.clone())));
    let flows = flows.await;
    let quote = host.start(ALICE, "quotes/request", quotes).await;
    let mut host = host;
    for _ in 0..3 {
        host.kill_9();
        host = network.run();
    }
    for (flow, (_, name, _, result)) in flows.iter().zip(&starts) {
        assert_eq!(&host.end(flow).await.result(), result, "{name}");
    }
    assert_eq!(host.end(&quote).await.result()["answers"], 2);
    let status = host.until_quiet().await;
    assert_eq!(status.flows["hospital"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_orderly_stop_is_quick_even_while_a_guest_computes() {
    let network = Network::new().limits("alice", "cpu_per_run = \"100 s\"");
    let host = network.run();
    assert!(host.stop() < SOON, "nothing to do");

    let host = network.run();
    let spin = host.start(ALICE, "spin", json!({})).await;
    let spin_too = host.start(ALICE, "spin", json!({})).await;
    let beat = host.start(BOB, "beat", json!({"beats": 10, "interval_ms": 100})).await;
    host.until_state(&spin, "running").await;
    let took = host.stop();
    assert!(took < SOON, "it took {took:?}");

    let host = network.run();
    host.until_state(&spin, "running").await;
    for flow in [&spin, &spin_too] {
        assert!(host.kill(flow).await);
    }
    assert_eq!(host.end(&beat).await.result(), json!({"beats": 10}));
    host.until_quiet().await;
    let stopped = host.stop();
    assert!(stopped < SOON, "it took {stopped:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_stop_is_an_orderly_one() {
    let network = Network::new();
    for stops in 1..=8 {
        assert!(network.run().stop() < SOON);
        // The engine is asked to stop; it is not left to end with the process.
        let log = std::fs::read_to_string(network.path("host.log")).unwrap();
        assert_eq!(log.matches("stopping").count(), stops, "{log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_host_on_the_same_data_is_refused_and_the_first_unharmed() {
    let network = Network::new();
    let mut host = network.run();
    let refused = network.refused();
    let error = refused.fails(4, "data-locked");
    let message = error["message"].as_str().unwrap();
    assert!(message.contains(&host.pid().to_string()), "{message}");
    assert!(host.is_running());
    assert_eq!(host.run(ALICE, "ping", json!({"peer": BOB, "count": 1})).await.result(), json!({"rounds": 1}));
    // The command line still finds the first.
    assert_eq!(network.cli(&["status"]).ok().object()["flows"]["hospital"], 0);
    host.kill_9();
    // A crash leaves no lock behind.
    let _again = network.run();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_whose_lock_was_removed_makes_it_again_or_gives_way() {
    let network = Network::new();
    let first = network.run();
    let lock = network.path("data/host.lock");
    std::fs::remove_file(&lock).unwrap();
    eventually("the lock is there again", async || {
        let again = std::fs::read_to_string(&lock).unwrap_or_default();
        if again.contains(&first.pid().to_string()) { Ok(()) } else { Err(again) }
    })
    .await;
    network.refused().fails(4, "data-locked");

    // This time another host is quicker. From then on it alone counts, and the first one says so and ends.
    let beat = first.start(ALICE, "beat", json!({"beats": 30, "interval_ms": 100})).await;
    let second = loop {
        // The first one may make its lock again in between.
        let _gone_already = std::fs::remove_file(&lock);
        if let Some(host) = Host::try_up(&mut network.run_command(), network.folder()) {
            break host;
        }
    };
    assert_eq!(first.ends(), 4);
    let told = network.log_lines(&["data-locked", "another host has taken the data folder"]);
    assert!(!told.is_empty() && told.iter().all(|line| line.contains(&second.pid().to_string())), "{told:#?}");
    assert_eq!(second.end(&beat).await.result(), json!({"beats": 30}));
    assert!(network.cli(&["status"]).ok().object()["version"].is_string(), "the command line finds the second");
    second.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_keeps_a_host_from_starting_is_told() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let network = Network::new().setting(&format!("rpc.listen={address}"));
    let error = network.refused().fails(4, "port-in-use");
    assert!(error["message"].as_str().unwrap().contains(&address.port().to_string()), "{error}");

    let network = Network::new();
    let mut wrong = network.run_command();
    wrong.env("MAXHOST_PASSPHRASE", "not the passphrase");
    cli::answer(wrong, None).fails(4, "passphrase-wrong");
    std::fs::remove_file(network.path("keys/passphrase")).unwrap();
    network.refused().fails(4, "passphrase-missing");

    let network = Network::new().setting("rpc.listen=0.0.0.0:0");
    network.refused().fails(4, "listen-refused");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_folder_that_cannot_be_used_is_told() {
    // A file where the folder should be: nobody can write there, not even the superuser.
    let network = Network::new();
    std::fs::remove_dir_all(network.path("data")).unwrap();
    std::fs::write(network.path("data"), "in the way").unwrap();
    let error = network.refused().fails(4, "directory-unwritable");
    assert!(error["message"].as_str().unwrap().contains("data"), "{error}");

    let network = Network::new();
    std::fs::write(network.path("data/maxhost.db"), "this is no database, however long it is made".repeat(100))
        .unwrap();
    let error = network.refused().fails(1, "journal-corrupt");
    assert!(error["message"].as_str().unwrap().contains("maxhost.db"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_under_load_loses_nothing() {
    let network = Network::new();
    let host = network.run();
    let pings = (0..40).map(|_| host.start(ALICE, "ping", json!({"peer": BOB, "count": 20})));
    let flows = join_all(pings).await;
    let begun = Instant::now();
    host.stop();
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    let host = network.run();
    for flow in &flows {
        assert_eq!(host.end(flow).await.result(), json!({"rounds": 20}));
    }
    host.until_quiet().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_can_be_read_by_programs() {
    let network = Network::new();
    let host = network.run_with(&["--log-format", "json"]);
    assert_eq!(host.run(ALICE, "throw", json!({})).await.failure().kind, "flow-exception");
    host.event("flow-ended", |event| event["flow"] == "hostile/throw" && event["state"] == "failed");
    host.stop();
    let log = std::fs::read_to_string(network.path("host.log")).unwrap();
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let told = |words: &str| lines.iter().any(|line| line["message"].as_str().unwrap_or_default().contains(words));
    assert!(told("ready") && told("flow ended in an error") && told("stopped"), "{log}");
}
