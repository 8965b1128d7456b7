//! The engine in this process, without gRPC: a flow that starts and ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use maxhost_flows::api::{Arguments, Caller, HostApi, StartFlow};
use maxhost_flows::{CordappRef, Host, HostOptions, IdentityLimits, IdentitySpec, Passphrase};
use maxhost_store_sqlite::{SqliteOptions, SqliteStore};
use serde_json::json;

use crate::figures::{Goal, Report, median, percentile};
use crate::installation::{Installation, cpu_of};
use crate::setting::{Outcome, Setting, party};

/// Flows that are started at once.
const AT_ONCE: usize = 256;

pub fn measure(setting: &Setting, report: &mut Report) -> Outcome {
    report.group("a flow that starts and ends (heartbeat of no beats), engine in this process");
    let installation = setting.small()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let (mut cpu, mut wall, mut steps) = (Vec::new(), Vec::new(), Vec::new());
    let mut alone = Vec::new();
    runtime.block_on(async {
        let host = start(&installation).await?;
        for _ in 0..setting.rounds() {
            let round = round(setting, &host).await?;
            cpu.push(round.cpu);
            wall.push(round.wall);
            steps.push(round.units_a_commit);
        }
        for _ in 0..500 {
            let began = Instant::now();
            start_one(&host, 1).await?;
            alone.push(began.elapsed().as_secs_f64() * 1e6);
        }
        host.shutdown(Duration::from_secs(5)).await;
        Outcome::Ok(())
    })?;
    report.add("CPU a flow, 256 at once", median(cpu), "µs", Goal::AtMost(60.0));
    report.add("wall time a flow, 256 at once", median(wall), "µs", Goal::None);
    report.add("flows a commit", median(steps), "", Goal::None);
    report.add("one at a time, commit and all, p50", percentile(&mut alone, 0.5), "µs", Goal::None);
    Ok(())
}

struct Round {
    cpu: f64,
    wall: f64,
    units_a_commit: f64,
}

async fn round(setting: &Setting, host: &Arc<Host>) -> Outcome<Round> {
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut workers = tokio::task::JoinSet::new();
    for number in 0..AT_ONCE {
        let (host, stop, done) = (host.clone(), stop.clone(), done.clone());
        workers.spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                start_one(&host, number as u32 % 20 + 1).await.map_err(|error| error.to_string())?;
                done.fetch_add(1, Ordering::Relaxed);
            }
            Ok::<_, String>(())
        });
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = host.status(&Caller::local()).await.map_err(|problem| problem.to_string())?.counters;
    let (cpu, began, from) = (cpu_of("self"), Instant::now(), done.load(Ordering::Relaxed));
    tokio::time::sleep(setting.window() / 2).await;
    let flows = (done.load(Ordering::Relaxed) - from) as f64;
    let (cpu, wall) = (cpu_of("self") - cpu, began.elapsed());
    let after = host.status(&Caller::local()).await.map_err(|problem| problem.to_string())?.counters;
    stop.store(true, Ordering::Relaxed);
    while let Some(ended) = workers.join_next().await {
        ended??;
    }
    let count = |name: &str| {
        after.get(name).copied().unwrap_or(0).saturating_sub(before.get(name).copied().unwrap_or(0)) as f64
    };
    Ok(Round {
        cpu: cpu.as_secs_f64() * 1e6 / flows,
        wall: wall.as_secs_f64() * 1e6 / flows,
        units_a_commit: count("units") / count("commits"),
    })
}

async fn start_one(host: &Arc<Host>, number: u32) -> Outcome {
    let start = StartFlow {
        identity: party(number),
        flow: "heartbeat/beat".to_owned(),
        arguments: Arguments::Json(json!({"beats": 0, "interval_ms": 0})),
        client_id: None,
    };
    host.start_flow(&Caller::local(), start).await.map_err(|problem| problem.to_string())?;
    Ok(())
}

/// A host over a network folder, with its numbered identities and the default settings.
async fn start(installation: &Installation) -> Outcome<Arc<Host>> {
    let root = installation.root();
    let passphrase = std::fs::read_to_string(root.join("keys/passphrase"))?;
    let options = HostOptions::new(root, Passphrase::new(passphrase));
    let store = SqliteStore::open(SqliteOptions::new(root.join("data/maxhost.db"))).await?;
    let host = Host::start(options, store).await.map_err(|problem| problem.to_string())?;
    let specs = (1..=20).map(|number| IdentitySpec {
        name: party(number),
        cordapps: [CordappRef { name: "heartbeat".to_owned(), version: None, hash: None }].into(),
        keys: root.join(format!("keys/party-{number:05}")),
        limits: IdentityLimits::default(),
        notary: None,
        hosts: Default::default(),
        manifest: root.join(format!("identities/party-{number:05}.toml")),
    });
    let broken = host.put_identities(specs.collect()).await.map_err(|problem| problem.to_string())?;
    match broken.first() {
        Some((spec, problem)) => Err(format!("{}: {problem}", spec.name).into()),
        None => Ok(host),
    }
}
