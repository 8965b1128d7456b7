//! A log and events that nobody reads.

use std::io::Read;
use std::process::Stdio;
use std::time::Duration;

use maxhost_rpc::Client;
use maxhost_rpc::proto::v1 as pb;
use maxhost_tests::{ALICE, BOB, CAROL, Network, eventually};
use serde_json::json;

/// Reads the endpoint that a host wrote down.
async fn client_of(network: &Network) -> Client {
    let file = network.path("data/endpoint");
    let endpoint =
        eventually("an endpoint", async || std::fs::read_to_string(&file).map_err(|error| error.to_string())).await;
    Client::at(endpoint.trim().to_owned(), Duration::from_secs(60))
}

async fn run(client: &Client, identity: &str, flow: &str, arguments: serde_json::Value) -> pb::Flow {
    let request = maxhost_tests::flows::request(identity, flow, &arguments);
    let options = maxhost_rpc::FollowOptions { deadline: None, patience: Duration::from_secs(1) };
    client.follow(maxhost_rpc::FollowFrom::Start(request), options, |_| {}).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_reads_and_the_host_goes_on() {
    let network = Network::new().setting("limits.log_lines=1000000");
    for output in ["log", "events"] {
        let mut command = network.run_command();
        command.env("MAXHOST_LOG", "debug");
        let (blocked, other) = if output == "log" { (true, false) } else { (false, true) };
        command.stderr(if blocked { Stdio::piped() } else { Stdio::null() });
        command.stdout(if other { Stdio::piped() } else { Stdio::null() });
        let mut child = command.spawn().unwrap();
        let client = client_of(&network).await;
        // More than a pipe and the queue before it hold: four megabytes of log each, and as many lines.
        for _ in 0..4 {
            run(&client, CAROL, "flood-log", json!({})).await;
        }
        for _ in 0..50 {
            let ended = run(&client, ALICE, "ping", json!({"peer": BOB, "count": 1})).await;
            assert_eq!(ended.state(), pb::FlowState::Completed);
        }
        if blocked {
            // Whoever reads at last is told what he missed.
            let mut pipe = child.stderr.take().unwrap();
            let mut text = Vec::new();
            let mut part = [0; 65_536];
            let notice = "nobody read standard error";
            while !String::from_utf8_lossy(&text).contains(notice) {
                let read = pipe.read(&mut part).unwrap();
                assert!(read > 0, "the log ended without the notice");
                text.extend_from_slice(&part[..read]);
            }
            let text = String::from_utf8_lossy(&text);
            let line = text.lines().find(|line| line.contains(notice)).unwrap();
            let dropped = line.rsplit_once("dropped=").map(|(_, count)| count.trim().parse::<u64>());
            assert!(dropped.is_none_or(|count| count.is_ok_and(|count| count > 0)), "{line}");
        }
        // SAFETY: sends a signal to our own child, which was not waited for.
        unsafe { libc::kill(libc::pid_t::try_from(child.id()).unwrap(), libc::SIGTERM) };
        let ended = maxhost_tests::cli::wait(&mut child, Duration::from_secs(30));
        let _ = child.kill();
        assert!(ended.is_some_and(|status| status.success()), "it stops in order though nobody reads {output}");
        let _gone = std::fs::remove_file(network.path("data/endpoint"));
    }
}
