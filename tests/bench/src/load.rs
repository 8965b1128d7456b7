//! Ping-pong over gRPC against the host's process, as many at once as asked for.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::installation::{HostProcess, cpu_of};
use hdrhistogram::Histogram;
use maxhost_postgres_server::Server;

use crate::figures::{Goal, Report, median};
use crate::setting::{Clients, Outcome, Setting, party, runtime};

/// Pairs of identities that the load is spread over.
const PAIRS: u32 = 10;

/// What is asked of the host over and over.
pub struct Work {
    pub flow: &'static str,
    /// How many are under way at any time.
    pub concurrency: usize,
    /// For each of them, whose flow it is, and its arguments.
    pub request: Arc<dyn Fn(usize) -> (String, String) + Send + Sync>,
}

impl Work {
    /// Ping-pong within pairs of identities.
    fn ping_pong(rounds: u32, concurrency: usize) -> Work {
        let request = move |number: usize| {
            let pair = number as u32 % PAIRS;
            (party(2 * pair + 1), format!(r#"{{"peer":"{}","count":{rounds}}}"#, party(2 * pair + 2)))
        };
        Work { flow: "ping-pong/ping", concurrency, request: Arc::new(request) }
    }
}

/// What one round showed.
pub struct Round {
    pub flows: f64,
    pub seconds: f64,
    pub cpu: Duration,
    pub client_cpu: Duration,
    pub steps: f64,
    pub commits: f64,
    pub latency: Histogram<u64>,
}

pub fn measure(setting: &Setting, report: &mut Report) -> Outcome {
    let installation = setting.small()?;
    let host = installation.start::<&str>(&[])?;
    let runtime = runtime()?;
    let clients = runtime.block_on(Clients::connect(&host))?;
    for (rounds, concurrency) in [(1, 16), (1, 256), (10, 1), (10, 16), (10, 256)] {
        if setting.quick && (rounds, concurrency) != (10, 256) {
            continue;
        }
        report.group(match (rounds, concurrency) {
            (1, 16) => "ping-pong(1) over gRPC, 16 at once (6 steps a flow)",
            (1, _) => "ping-pong(1) over gRPC, 256 at once (6 steps a flow)",
            (_, 1) => "ping-pong(10) over gRPC, 1 at once (24 steps a flow)",
            (_, 16) => "ping-pong(10) over gRPC, 16 at once (24 steps a flow)",
            _ => "ping-pong(10) over gRPC, 256 at once (24 steps a flow)",
        });
        let mut results = Vec::new();
        for _ in 0..setting.rounds() {
            results.push(runtime.block_on(round(setting, &host, &clients, &Work::ping_pong(rounds, concurrency)))?);
        }
        tell(report, &results, rounds, concurrency == 256 && rounds == 10);
    }
    report.add("resident memory of the host after that", host.resident() as f64 / 1e6, "MB", Goal::None);
    host.stop()?;
    Ok(())
}

/// The same with the database on a PostgreSQL server, whose processes count too. The server is as it comes, but for its
/// memory, and lies on the same file system as the host.
pub fn measure_on_server(setting: &Setting, report: &mut Report) -> Outcome {
    let installation = setting.small()?;
    let server = Server::start("shared_buffers = 512MB\nmax_wal_size = 4GB")?;
    server.create_database("bench")?;
    let settings = [
        format!("store.url={}", server.tcp_url("bench")),
        format!("store.password_file={}", server.password_file().display()),
    ];
    let host = installation.start(&settings)?;
    let runtime = runtime()?;
    let clients = runtime.block_on(Clients::connect(&host))?;
    for concurrency in [1, 16, 256] {
        if setting.quick && concurrency != 256 {
            continue;
        }
        report.group(match concurrency {
            1 => "ping-pong(10) on PostgreSQL, 1 at once (24 steps a flow)",
            16 => "ping-pong(10) on PostgreSQL, 16 at once (24 steps a flow)",
            _ => "ping-pong(10) on PostgreSQL, 256 at once (24 steps a flow)",
        });
        let (mut results, mut servers) = (Vec::new(), Vec::new());
        for _ in 0..setting.rounds() {
            let before = cpu_of_server(&server);
            let began = Instant::now();
            let round = runtime.block_on(round(setting, &host, &clients, &Work::ping_pong(10, concurrency)))?;
            // The second in which the load begins counts for the server too: its share of the time is taken off.
            let share = round.seconds / began.elapsed().as_secs_f64();
            servers.push((cpu_of_server(&server) - before).as_secs_f64() * 1e6 * share / (round.flows * 24.0));
            results.push(round);
        }
        let of = |figure: &dyn Fn(&Round) -> f64| median(results.iter().map(figure).collect());
        let host_cpu = of(&|r| r.cpu.as_secs_f64() * 1e6 / (r.flows * 24.0));
        let server_cpu = median(servers);
        let (rate, cpu) = match concurrency {
            256 => (Goal::AtLeast(15_000.0), Goal::AtMost(120.0)),
            _ => (Goal::None, Goal::None),
        };
        report.add("durable steps", of(&|r| r.flows * 24.0 / r.seconds), "/s", rate);
        report.add("CPU of host and server together a step", host_cpu + server_cpu, "µs", cpu);
        report.add("CPU of the server a step", server_cpu, "µs", Goal::None);
        report.add("steps a commit, as the host counts them", of(&|r| r.steps / r.commits), "", Goal::None);
        report.add("commits", of(&|r| r.commits / r.seconds), "/s", Goal::None);
        report.add("a flow, p50", of(&|r| r.latency.value_at_quantile(0.5) as f64 / 1e3), "ms", Goal::None);
        report.add("a flow, p99", of(&|r| r.latency.value_at_quantile(0.99) as f64 / 1e3), "ms", Goal::None);
    }
    host.stop()?;
    Ok(())
}

/// Computing time of all processes of a server.
fn cpu_of_server(server: &Server) -> Duration {
    server.pids().unwrap_or_default().iter().map(|pid| cpu_of(&pid.to_string())).sum()
}

fn tell(report: &mut Report, results: &[Round], rounds: u32, judged: bool) {
    let steps_a_flow = f64::from(2 * rounds + 4);
    let of = |figure: &dyn Fn(&Round) -> f64| median(results.iter().map(figure).collect());
    let (at_least, at_most) =
        if judged { (Goal::AtLeast(80_000.0), Goal::AtMost(25.0)) } else { (Goal::None, Goal::None) };
    report.add("durable steps", of(&|r| r.flows * steps_a_flow / r.seconds), "/s", at_least);
    report.add("CPU of the host a step", of(&|r| r.cpu.as_secs_f64() * 1e6 / (r.flows * steps_a_flow)), "µs", at_most);
    report.add("flows", of(&|r| r.flows / r.seconds), "/s", Goal::None);
    report.add("steps a commit, as the host counts them", of(&|r| r.steps / r.commits), "", Goal::None);
    report.add("commits (one fsync each)", of(&|r| r.commits / r.seconds), "/s", Goal::None);
    report.add("fsyncs a step", of(&|r| r.commits / (r.flows * steps_a_flow)), "", Goal::None);
    report.add("a flow, p50", of(&|r| r.latency.value_at_quantile(0.5) as f64 / 1e3), "ms", Goal::None);
    report.add("a flow, p99", of(&|r| r.latency.value_at_quantile(0.99) as f64 / 1e3), "ms", Goal::None);
    report.add("cores used by the host", of(&|r| r.cpu.as_secs_f64() / r.seconds), "", Goal::None);
    report.add("cores used by the load generator", of(&|r| r.client_cpu.as_secs_f64() / r.seconds), "", Goal::None);
}

/// Keeps the host at work for as long as a measurement takes.
pub async fn round(setting: &Setting, host: &HostProcess, clients: &Clients, work: &Work) -> Outcome<Round> {
    let stop = Arc::new(AtomicBool::new(false));
    let counting = Arc::new(AtomicBool::new(false));
    let mut workers = tokio::task::JoinSet::new();
    for number in 0..work.concurrency {
        let (clients, stop, counting) = (clients.clone(), stop.clone(), counting.clone());
        let ((identity, arguments), flow) = ((work.request)(number), work.flow);
        workers.spawn(async move {
            let mut latencies = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let began = Instant::now();
                let run = clients.run(number, &identity, flow, arguments.clone()).await;
                let known = run.map_err(|error| error.to_string())?;
                if counting.load(Ordering::Relaxed) && !stop.load(Ordering::Relaxed) {
                    latencies.push((known - began).as_micros() as u64);
                }
            }
            Ok::<_, String>(latencies)
        });
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = clients.status().await?.counters;
    let (cpu, client_cpu, began) = (host.cpu(), cpu_of("self"), Instant::now());
    counting.store(true, Ordering::Relaxed);
    tokio::time::sleep(setting.window()).await;
    stop.store(true, Ordering::Relaxed);
    let seconds = began.elapsed().as_secs_f64();
    let (cpu, client_cpu) = (host.cpu() - cpu, cpu_of("self") - client_cpu);
    let after = clients.status().await?.counters;
    let count = |name: &str| {
        let value = |counters: &std::collections::BTreeMap<String, u64>| counters.get(name).copied().unwrap_or(0);
        value(&after).saturating_sub(value(&before)) as f64
    };
    let mut latency = Histogram::new(3)?;
    while let Some(latencies) = workers.join_next().await {
        for micros in latencies?? {
            latency.record(micros)?;
        }
    }
    Ok(Round {
        flows: latency.len() as f64,
        seconds,
        cpu,
        client_cpu,
        steps: count("steps"),
        commits: count("commits"),
        latency,
    })
}
