//! Connections that come and stay, more than there may be files.

use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use maxhost_rpc::Client;
use maxhost_rpc::proto::v1 as pb;
use maxhost_tests::{ALICE, BOB, Host, Network};
use serde_json::json;

/// Processor time that a process has used (proc(5), stat).
fn processor_time(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

/// A host that may open so few files.
fn host_with_files(network: &Network, files: u32) -> Host {
    let run = network.run_command();
    let mut command = Command::new("bash");
    command.arg("-c").arg(format!("ulimit -n {files}; exec \"$0\" \"$@\"")).arg(run.get_program()).args(run.get_args());
    for (name, value) in run.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::piped());
    Host::up(command, network.folder())
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_idle_connections_and_few_files_leave_room_for_whoever_asks() {
    let network = Network::new();
    let host = host_with_files(&network, 128);
    let address = host.ready()["grpc"].as_str().unwrap().to_owned();
    // All are taken by the kernel at once, however many the host takes.
    let idle: Vec<TcpStream> = (0..200).map(|_| TcpStream::connect(&address).unwrap()).collect();
    let before = (processor_time(host.pid()), Instant::now());
    // Somebody who comes behind them gets his answer, and a flow its files.
    let client = Client::at(address, Duration::from_secs(60));
    client.status(pb::StatusRequest {}).await.unwrap();
    host.run(ALICE, "ping", json!({"peer": BOB, "count": 3})).await.result();
    // With all places taken again the host waits, and does nothing else.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (used, took) = (processor_time(host.pid()) - before.0, before.1.elapsed());
    assert!(used < took / 4, "{used:?} of {took:?}");
    let told = network.log_lines(&["as many connections as may be"]).len();
    let failed = network.log_lines(&["connections cannot be accepted"]).len();
    assert!(told + failed >= 1 && told <= 1 && failed <= 1, "told {told} times, failed {failed} times");
    drop(idle);
    host.run(ALICE, "ping", json!({"peer": BOB, "count": 3})).await.result();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_attached_is_not_given_up_for_newcomers() {
    let network = Network::new().setting("limits.rpc_connections=4");
    let host = network.run();
    let address = host.ready()["grpc"].as_str().unwrap().to_owned();
    let flow = host.start(ALICE, "sleep-forever", json!({})).await;
    let watching = {
        let (client, flow) = (Client::at(address.clone(), Duration::from_secs(60)), flow.clone());
        let (attached, seen) = tokio::sync::oneshot::channel();
        let watcher = tokio::spawn(async move {
            let mut attached = Some(attached);
            let mut lost = 0;
            let from = maxhost_rpc::FollowFrom::Flow { flow_id: flow, cursor: 0, encoding: pb::Encoding::Json };
            let options = maxhost_rpc::FollowOptions { deadline: None, patience: Duration::from_secs(60) };
            let ended = client.follow(from, options, |observation| match observation {
                maxhost_rpc::Observation::Lost(_) => lost += 1,
                _ => {
                    let _told_before = attached.take().map(|attached| attached.send(()));
                }
            });
            let ended = ended.await.unwrap();
            (ended.state(), lost)
        });
        seen.await.unwrap();
        watcher
    };
    let idle: Vec<TcpStream> = (0..20).map(|_| TcpStream::connect(&address).unwrap()).collect();
    for _ in 0..3 {
        Client::at(address.clone(), Duration::from_secs(60)).status(pb::StatusRequest {}).await.unwrap();
    }
    assert!(host.kill(&flow).await);
    assert_eq!(watching.await.unwrap(), (pb::FlowState::Killed, 0));
    drop(idle);
}
