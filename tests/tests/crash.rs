//! The host is killed at random moments under load, hundreds of times, and nothing is lost, doubled or left over. Where
//! the database is on a server, the server is killed too.
//!
//! `MAXHOST_CRASH_KILLS` sets how often (200 unless it says otherwise, 20 on a server), `MAXHOST_CRASH_SEED` repeats the draws of an
//! earlier run: the order of events on a busy machine is not repeatable, so the same seed is a similar run.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use maxhost_rpc::proto::v1 as pb;
use maxhost_tests::crash::{Address, Site};
use maxhost_tests::network::is_on_server;
use maxhost_tests::{Host, Network, eventually};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// Numbered identities, beside the usual ones.
const PARTIES: u32 = 24;
/// Flows that are under way at once.
const LANES: usize = 32;
/// Every so many kills one comes before the host is ready.
const EARLY: u32 = 8;

fn number(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).ok().map_or(otherwise, |text| text.parse().expect("a number"))
}

/// How the next life of the host treats flows that wait: each way in its turn, at random.
fn settings(random: &mut StdRng) -> Vec<String> {
    let evict = match random.random_range(0..5) {
        0 => "never".to_owned(),
        1 => "every-wait".to_owned(),
        2 => format!("random:{}", random.random::<u32>()),
        _ => "after-linger".to_owned(),
    };
    vec![
        format!("flows.evict={evict}"),
        format!("flows.linger={} ms", [5, 20, 100][random.random_range(0..3)]),
        format!("flows.idle_close={} ms", [50, 300, 60_000][random.random_range(0..3)]),
        format!("flows.shadow_replay={}", [0.0, 0.1, 1.0][random.random_range(0..3)]),
    ]
}

fn start(network: &Network, settings: &[String]) -> std::process::Command {
    let mut command = network.run_command();
    for setting in settings {
        command.arg("--set").arg(setting);
    }
    command
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_or_doubled_over_hundreds_of_kills() {
    let kills = number("MAXHOST_CRASH_KILLS", if is_on_server() { 20 } else { 200 }) as u32;
    let seed = number("MAXHOST_CRASH_SEED", rand::random::<u32>().into());
    println!("{kills} kills, MAXHOST_CRASH_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let network = Network::with_parties(PARTIES).on_own_server();
    let address: Address = Arc::new(Mutex::new(None));
    let parties = (1..=PARTIES).map(|number| format!("O=Party {number:05}, L=London, C=GB")).collect();
    let site = Site::new(parties, address.clone());
    let mut lanes = tokio::task::JoinSet::new();
    for lane in 0..LANES {
        lanes.spawn(site.clone().lane(lane, seed));
    }

    let began = Instant::now();
    let mut starting = Vec::new();
    for kill in 0..kills {
        let command = start(&network, &settings(&mut random));
        if kill % EARLY == EARLY - 1 {
            kill_early(command, Duration::from_millis(random.random_range(1..250)));
            continue;
        }
        let begun = Instant::now();
        let host = up(&network, command);
        starting.push(begun.elapsed());
        announce(&address, Some(&host));
        // The random moment. What is in flight then is what the test is about.
        tokio::time::sleep(Duration::from_millis(random.random_range(5..700))).await;
        if let Some(server) = network.server().filter(|_| kill % 3 == 0) {
            // The server goes first, and the host works on for a moment without it, or with it again.
            let away = Duration::from_millis(random.random_range(5..300));
            tokio::task::block_in_place(|| {
                server.kill().unwrap();
                std::thread::sleep(away);
                server.resume().unwrap();
            });
            tokio::time::sleep(Duration::from_millis(random.random_range(5..300))).await;
        }
        announce(&address, None);
        tokio::task::spawn_blocking(move || host.kill_9()).await.unwrap();
    }
    starting.sort();
    let median = starting.get(starting.len() / 2).copied().unwrap_or_default();
    println!("killed {kills} times in {:.0?}; median start {median:.0?}", began.elapsed());

    site.close();
    let host = up(&network, start(&network, &["flows.linger=50 ms".to_owned()]));
    announce(&address, Some(&host));
    while let Some(lane) = lanes.join_next().await {
        lane.unwrap();
    }
    let wrong = site.read(|books| books.wrong.clone());
    assert!(
        wrong.is_empty(),
        "{} things went wrong, such as:\n{}",
        wrong.len(),
        wrong[..wrong.len().min(10)].join("\n")
    );
    look_at_the_end(&site, &host).await;
    host.stop();
    look_at_the_database(&site, &network);
    site.read(|books| {
        println!(
            "{} flows ended as they must, {} starts repeated under their client ids, {} starts of unknown outcome",
            books.ended, books.repeated, books.unknown
        );
        assert_eq!(books.ended as usize, books.promised.len(), "every flow that was started has ended");
        assert!(books.ended > u64::from(kills), "the host did work between the kills");
    });
}

fn up(network: &Network, command: std::process::Command) -> Host {
    tokio::task::block_in_place(|| Host::up(command, network.folder()))
}

fn announce(address: &Address, host: Option<&Host>) {
    *address.lock().unwrap() = host.map(|host| host.ready()["grpc"].as_str().unwrap().to_owned());
}

/// Kills a host that may not be ready yet.
fn kill_early(mut command: std::process::Command, after: Duration) {
    tokio::task::block_in_place(|| {
        command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        let mut child = command.spawn().unwrap();
        std::thread::sleep(after);
        child.kill().unwrap();
        child.wait().unwrap();
    });
}

/// No flow is left, none has failed, none needs a person, and every flow that was promised is known.
async fn look_at_the_end(site: &Site, host: &Host) {
    // Those whose start was never answered may still be at work, and responders.
    eventually("an end to all flows", async || {
        let status = host.status().await;
        let live: u64 = ["running", "suspended", "paused"].iter().map(|phase| status.flows[*phase]).sum();
        if live + status.instances == 0 { Ok(()) } else { Err(describe_some(host, &status).await) }
    })
    .await;
    let status = host.status().await;
    for phase in ["hospital", "failed", "killed"] {
        assert_eq!(status.flows[phase], 0, "{phase}: {status:?}");
    }
    let mut known = BTreeSet::new();
    let mut page_token = None;
    loop {
        let request = pb::ListFlowsRequest { page_size: 1_000, page_token, ..Default::default() };
        let page = site.client().list_flows(request).await.unwrap();
        for flow in page.flows {
            assert_eq!(flow.state(), pb::FlowState::Completed, "{flow:?}");
            known.insert(flow.flow_id);
        }
        page_token = page.next_page_token;
        if page_token.is_none() {
            break;
        }
    }
    let lost = site.read(|books| books.lost(&known));
    assert!(lost.is_empty(), "{} flows that were promised are not known, such as {:?}", lost.len(), lost.first());
    let request = pb::FinishedClientIdsRequest::default();
    let finished = site.client().finished_client_ids(request).await.unwrap().finished;
    let finished: Vec<_> = finished.into_iter().map(|f| ((f.identity, f.client_id), f.flow_id)).collect();
    site.read(|books| {
        let expected: Vec<_> = books.clients.clone().into_iter().collect();
        let unanswered = finished.iter().filter(|(key, _)| !books.clients.contains_key(key)).count();
        assert_eq!(unanswered, 0, "client ids that nobody was told of");
        assert_eq!(finished.iter().collect::<BTreeSet<_>>(), expected.iter().collect(), "one flow a client id");
        assert_eq!(finished.len(), expected.len());
    });
}

/// Where the first few live flows stand.
async fn describe_some(host: &Host, status: &pb::StatusResponse) -> String {
    let live = [pb::FlowState::Running, pb::FlowState::Suspended, pb::FlowState::Paused];
    let states = live.map(i32::from).to_vec();
    let request = pb::ListFlowsRequest { states, page_size: 5, ..Default::default() };
    let mut text = format!("{status:?}");
    for flow in host.client().list_flows(request).await.unwrap().flows {
        text.push_str(&format!("\n{:?}", host.try_show(&flow.flow_id).await));
    }
    text
}

/// What is left in the database: the ends of the flows, and nothing of their lives.
fn look_at_the_database(site: &Site, network: &Network) {
    let count = |sql: &str| network.sql(sql).parse::<i64>().unwrap();
    for table in ["journal", "initiation", "outbox"] {
        assert_eq!(count(&format!("SELECT count(*) FROM {table}")), 0, "rows left in {table}");
    }
    assert_eq!(count("SELECT count(*) FROM flow"), 0, "live flows");
    assert_eq!(count("SELECT count(*) FROM ended WHERE state <> 3"), 0, "flows that did not complete");
    let (kept, clients) = (count("SELECT count(*) FROM ended"), count("SELECT count(*) FROM client"));
    site.read(|books| {
        let promised = books.promised.len() as i64;
        assert!((promised..=promised + books.unknown as i64).contains(&kept), "{kept} flows kept, {promised} promised");
        assert_eq!(clients, books.clients.len() as i64, "client ids");
    });
    if network.server().is_none() {
        assert_eq!(network.sql("PRAGMA integrity_check"), "ok");
    }
}
