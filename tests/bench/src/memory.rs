//! Five thousand flows that wait: in memory, and not.

use std::time::{Duration, Instant};

use crate::figures::{Goal, Report};
use crate::installation::HostProcess;
use crate::setting::{Clients, Outcome, Setting, party, runtime};

/// Flows that wait.
const WAITING: u32 = 5_000;
/// Starts that are under way at once.
const AT_ONCE: usize = 64;

pub fn measure(setting: &Setting, report: &mut Report) -> Outcome {
    report.group("5,000 suspended flows (heartbeat between two beats)");
    let installation = setting.small()?;
    let runtime = runtime()?;
    let host = installation.start(&["flows.evict=never", "limits.instances=6000"])?;
    let clients = runtime.block_on(Clients::connect(&host))?;
    // Code, connections and caches are there before the first is counted.
    runtime.block_on(start(&clients, 200, 0))?;
    let before = resident(&host);
    runtime.block_on(start(&clients, WAITING, 300_000))?;
    let in_memory = runtime.block_on(clients.status())?.instances;
    report.add("instances in memory", in_memory as f64, "", Goal::AtLeast(f64::from(WAITING)));
    let each = (resident(&host) - before) / 1024.0 / f64::from(WAITING);
    report.add("a suspended flow in memory", each, "KiB", Goal::AtMost(100.0));
    host.kill()?;

    // The same flows again, brought back to a host that does not keep them in memory.
    let host = installation.start(&["flows.linger=100 ms", "flows.idle_close=1 s", "limits.instances=6000"])?;
    let clients = runtime.block_on(Clients::connect(&host))?;
    runtime.block_on(until_none_is_in_memory(&clients))?;
    let waiting = resident(&host);
    let status = runtime.block_on(clients.status())?;
    let suspended = status.flows.get("suspended").copied().unwrap_or(0);
    report.add("suspended, none in memory", suspended as f64, "", Goal::AtLeast(f64::from(WAITING)));
    host.stop()?;
    installation.forget()?;
    let host = installation.start(&["flows.linger=100 ms", "limits.instances=6000"])?;
    std::thread::sleep(Duration::from_secs(3));
    let each = (waiting - resident(&host)) / 1024.0 / f64::from(WAITING);
    report.add("an evicted flow, against a host without flows", each, "KiB", Goal::None);
    host.stop()?;
    Ok(())
}

fn resident(host: &HostProcess) -> f64 {
    std::thread::sleep(Duration::from_secs(2));
    host.resident() as f64
}

async fn start(clients: &Clients, flows: u32, interval_ms: u64) -> Outcome {
    let mut starting = tokio::task::JoinSet::new();
    for number in 0..flows {
        if starting.len() >= AT_ONCE
            && let Some(started) = starting.join_next().await
        {
            started??;
        }
        let clients = clients.clone();
        let arguments = format!(r#"{{"beats":1,"interval_ms":{interval_ms}}}"#);
        starting.spawn(async move {
            let started = clients.start(number as usize, &party(number % 20 + 1), "heartbeat/beat", arguments).await;
            started.map(drop).map_err(|error| error.to_string())
        });
    }
    while let Some(started) = starting.join_next().await {
        started??;
    }
    Ok(())
}

async fn until_none_is_in_memory(clients: &Clients) -> Outcome {
    let deadline = Instant::now() + Duration::from_secs(60);
    while clients.status().await?.instances > 0 {
        if Instant::now() > deadline {
            return Err("flows were not evicted within a minute".into());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}
