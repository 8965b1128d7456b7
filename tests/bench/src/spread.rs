//! The same rate of flows over ever more identities.

use std::time::Duration;

use maxhost_rpc::proto::v1 as pb;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use crate::figures::{Goal, Report, median};
use crate::installation::HostProcess;
use crate::setting::{Clients, LARGE, Outcome, Setting, party, runtime};

/// Flows a second.
const RATE: u32 = 2_000;
/// Identities that are woken at once.
const AT_ONCE: usize = 256;

pub fn measure(setting: &Setting, report: &mut Report) -> Outcome {
    report.group("ping-pong(1) over gRPC at 2,000 flows a second, spread over ever more identities, all awake");
    let installation = setting.large()?;
    let runtime = runtime()?;
    const SPREADS: [u32; 4] = [1, 100, 1_000, LARGE];
    let mut rounds = SPREADS.map(|_| Vec::new());
    // In turns, so that what else the machine does meanwhile falls on all of them.
    for _ in 0..setting.rounds() {
        for (identities, rounds) in SPREADS.into_iter().zip(&mut rounds) {
            installation.forget_flows()?;
            let host = installation.start(&["flows.idle_close=1 h"])?;
            rounds.push(runtime.block_on(async {
                let clients = Clients::connect(&host).await?;
                wake(&clients, identities).await?;
                round(setting, &host, &clients, identities).await
            })?);
            host.stop()?;
        }
    }
    let costs: Vec<f64> = rounds.into_iter().map(median).collect();
    for (identities, cost) in SPREADS.iter().zip(&costs) {
        report.add(format!("{identities} identities, CPU of the host a flow"), *cost, "µs", Goal::None);
    }
    let least = costs.iter().copied().fold(f64::INFINITY, f64::min);
    let most = costs.iter().copied().fold(0.0, f64::max);
    report.add("most over least", most / least, "×", Goal::AtMost(1.2));
    Ok(())
}

/// Has each identity talk to the one that it will talk to, so that what is measured is neither their waking nor the
/// check of a party's certificates, which a host does once for each party that it meets.
async fn wake(clients: &Clients, identities: u32) -> Outcome {
    let mut waking = tokio::task::JoinSet::new();
    for number in 1..=identities {
        if waking.len() >= AT_ONCE
            && let Some(woken) = waking.join_next().await
        {
            woken??;
        }
        let clients = clients.clone();
        let (from, arguments) = pair(number - 1, identities);
        waking.spawn(async move {
            let run = clients.run(number as usize, &from, "ping-pong/ping", arguments).await;
            run.map(drop).map_err(|error| error.to_string())
        });
    }
    while let Some(woken) = waking.join_next().await {
        woken??;
    }
    Ok(())
}

/// An initiator, and the arguments that name its responder. A single identity talks to itself.
fn pair(from: u32, identities: u32) -> (String, String) {
    let to = (from + 1) % identities;
    (party(from + 1), format!(r#"{{"peer":"{}","count":1}}"#, party(to + 1)))
}

/// CPU a flow, µs.
async fn round(setting: &Setting, host: &HostProcess, clients: &Clients, identities: u32) -> Outcome<f64> {
    let mut flows = tokio::task::JoinSet::new();
    let mut ticks = interval(Duration::from_secs(1) / RATE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let before = completed(&clients.status().await?);
    let (cpu, end) = (host.cpu(), Instant::now() + setting.window() / 2);
    let mut number = 0_u32;
    while Instant::now() < end {
        ticks.tick().await;
        // A stride that visits all of them, in no order that the host could know.
        let (from, arguments) = pair(number.wrapping_mul(7_919) % identities, identities);
        let clients = clients.clone();
        flows.spawn(async move {
            let run = clients.run(number as usize, &from, "ping-pong/ping", arguments).await;
            run.map_err(|error| error.to_string())
        });
        number += 1;
    }
    while let Some(flow) = flows.join_next().await {
        flow??;
    }
    // Responders end a moment after their initiators.
    sleep_until(Instant::now() + Duration::from_millis(200)).await;
    let cpu = host.cpu() - cpu;
    let flows = (completed(&clients.status().await?) - before) / 2.0;
    Ok(cpu.as_secs_f64() * 1e6 / flows)
}

/// Flows that have ended well, of both sides.
fn completed(status: &pb::StatusResponse) -> f64 {
    status.flows.get("completed").copied().unwrap_or(0) as f64
}
