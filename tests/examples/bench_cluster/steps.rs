//! Ping-pong between two hosts through the broker, against the same between identities of one host.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use maxhost_rpc::proto::v1 as pb;
use maxhost_rpc::{Client, FollowFrom, FollowOptions};
use maxhost_tests::flows;
use serde_json::json;

use super::deployment::Deployment;
use super::figures::{Goal, Report};
use super::{party, usage};

/// Pairs of identities of each kind.
const PAIRS: u32 = 10;
const ROUNDS: u32 = 10;
/// Durable steps of such a flow, of both sides.
const STEPS: f64 = 24.0;
const AT_ONCE: [usize; 2] = [16, 256];
const WARM: Duration = Duration::from_secs(2);
const MEASURED: Duration = Duration::from_secs(10);

/// One kind of pair at one load.
struct Outcome {
    steps: f64,
    cpu: f64,
}

pub async fn measure(deployment: &Deployment, report: &mut Report) {
    let clients: Vec<Client> = deployment.nodes.iter().map(|node| node.client().unwrap()).collect();
    for at_once in AT_ONCE {
        report.group(match at_once {
            16 => "ping-pong(10) between two hosts through Artemis, 16 at once (24 steps a flow)",
            _ => "ping-pong(10) between two hosts through Artemis, 256 at once (24 steps a flow)",
        });
        let local = round(deployment, &clients[0], (0, "max-1"), at_once).await;
        let remote = round(deployment, &clients[0], (2 * PAIRS, "max-2"), at_once).await;
        let (rate, ratio) = match at_once {
            256 => (Goal::AtLeast(3_000.0), Goal::AtMost(2.0)),
            _ => (Goal::None, Goal::None),
        };
        report.add("durable steps", remote.steps, "/s", rate);
        report.add("CPU of both hosts a step", remote.cpu, "µs", Goal::None);
        report.add("the same pairs at one host: durable steps", local.steps, "/s", Goal::None);
        report.add("the same pairs at one host: CPU of both hosts a step", local.cpu, "µs", Goal::None);
        report.add("CPU a step through the broker over that at one host", remote.cpu / local.cpu, "×", ratio);
    }
}

/// Has identities run at the hosts where they are wanted: the first of each pair at the first host, the other one at `host`.
async fn place(deployment: &Deployment, client: &Client, first: u32, host: &str) {
    let moves = (1..=2 * PAIRS).map(|number| {
        let host = if number % 2 == 0 { host } else { "max-1" };
        client.move_identity(pb::MoveIdentityRequest { identity: party(first + number), host: host.to_owned() })
    });
    for moved in futures::future::join_all(moves).await {
        if let Err(problem) = moved {
            deployment.keep_logs(std::path::Path::new("target/bench-cluster")).await;
            panic!("{problem:?}; the logs are in target/bench-cluster");
        }
    }
}

/// How many of them a host owns.
async fn owned(client: &Client, first: u32, host: &str) -> usize {
    let hosts = (1..=2 * PAIRS).map(async |number| {
        let request = pb::FindIdentitiesRequest { name: Some(party(first + number)) };
        client.find_identities(request).await.unwrap().identities.iter().filter(|found| found.host() == host).count()
    });
    futures::future::join_all(hosts).await.into_iter().sum()
}

/// Has so many flows under way among the pairs behind `first`, whose responders are at `host`.
async fn round(deployment: &Deployment, client: &Client, (first, host): (u32, &str), at_once: usize) -> Outcome {
    place(deployment, client, first, host).await;
    let (goes_on, ended) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicU64::new(0)));
    let mut running = tokio::task::JoinSet::new();
    for number in 0..at_once {
        let (client, goes_on, ended) = (client.clone(), goes_on.clone(), ended.clone());
        let pair = first + 2 * (u32::try_from(number).unwrap() % PAIRS);
        let arguments = json!({"peer": party(pair + 2), "count": ROUNDS});
        let request = flows::request(&party(pair + 1), "ping-pong/ping", &arguments);
        running.spawn(async move {
            while goes_on.load(Ordering::Relaxed) {
                let options = FollowOptions {
                    deadline: Some(tokio::time::Instant::now() + Duration::from_secs(90)),
                    patience: Duration::from_secs(1),
                };
                let flow = client.follow(FollowFrom::Start(request.clone()), options, |_| {}).await.unwrap();
                assert!(matches!(flow.end, Some(pb::flow::End::Result(_))), "{flow:?}");
                ended.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    tokio::time::sleep(WARM).await;
    let cpu = || -> Duration { deployment.nodes.iter().filter_map(|node| node.pid()).map(usage::cpu).sum() };
    let (cpu_before, before, began) = (cpu(), ended.load(Ordering::Relaxed), Instant::now());
    tokio::time::sleep(MEASURED).await;
    let (cpu, flows) = (cpu() - cpu_before, ended.load(Ordering::Relaxed) - before);
    let seconds = began.elapsed().as_secs_f64();
    let elsewhere = if host == "max-1" { 0 } else { PAIRS as usize };
    assert_eq!(owned(client, first, "max-2").await, elsewhere, "they have stayed where they were moved");
    goes_on.store(false, Ordering::Relaxed);
    while let Some(done) = running.join_next().await {
        done.unwrap();
    }
    let steps = flows as f64 * STEPS;
    Outcome { steps: steps / seconds, cpu: cpu.as_secs_f64() * 1e6 / steps }
}
