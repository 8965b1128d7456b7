//! What many flows of one identity that compute without end cost another identity that only talks.

use std::time::Instant;

use crate::figures::{Goal, Report, percentile};
use crate::installation::HostProcess;
use crate::setting::{Clients, Outcome, Setting, party};

/// Flows that are measured in one go before the surroundings change.
const TURN: u32 = 100;
/// Rounds of a ping-pong that is measured.
const COUNT: u32 = 10;
/// So many flows compute.
const CROWDS: [usize; 2] = [60, 600];

pub fn measure(setting: &Setting, report: &mut Report) -> Outcome {
    report.group("ping-pong(10) over gRPC, one at a time, beside flows of another identity that compute without end");
    let installation = setting.small()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let turns = if setting.quick { 2 } else { 6 };
    for crowd in CROWDS {
        let (mut alone, mut beside, mut share) = (Vec::new(), Vec::new(), 0.0);
        // In turns, so that what else the machine does meanwhile falls on both.
        for _ in 0..turns {
            installation.forget_flows()?;
            let host = installation.start::<&str>(&[])?;
            share += runtime.block_on(async {
                let clients = Clients::connect(&host).await?;
                talk(&clients, TURN, &mut Vec::new()).await?;
                talk(&clients, TURN, &mut alone).await?;
                spin(&clients, crowd).await?;
                let (cpu, began) = (host.cpu(), Instant::now());
                talk(&clients, TURN, &mut beside).await?;
                still_computing(&host, &clients, crowd).await?;
                Outcome::Ok((host.cpu() - cpu).as_secs_f64() / began.elapsed().as_secs_f64())
            })?;
            // In order, it would wait for the flows that compute.
            host.kill()?;
        }
        let (median_alone, median_beside) = (percentile(&mut alone, 0.5), percentile(&mut beside, 0.5));
        report.add(format!("alone, before {crowd} compute, p50"), median_alone, "ms", Goal::None);
        report.add("the same, p99", percentile(&mut alone, 0.99), "ms", Goal::None);
        report.add(format!("beside {crowd}, p50"), median_beside, "ms", Goal::None);
        report.add("the same, p99", percentile(&mut beside, 0.99), "ms", Goal::None);
        report.add("cores used by the host meanwhile", share / f64::from(turns), "", Goal::None);
        report.add("ratio of the p50", median_beside / median_alone, "×", Goal::AtMost(2.0));
        report.add("ratio of the means", mean(&beside) / mean(&alone), "×", Goal::AtMost(2.0));
    }
    Ok(())
}

/// Starts flows that compute without end, all at once: the start of each is durable when it has had its first turn.
async fn spin(clients: &Clients, crowd: usize) -> Outcome {
    let mut starting = tokio::task::JoinSet::new();
    for number in 0..crowd {
        let clients = clients.clone();
        starting.spawn(async move {
            let started = clients.start(number, &party(3), "hostile/spin", "{}".to_owned()).await;
            started.map(drop).map_err(|error| error.to_string())
        });
    }
    while let Some(started) = starting.join_next().await {
        started??;
    }
    Ok(())
}

/// Milliseconds of each of so many flows.
async fn talk(clients: &Clients, flows: u32, times: &mut Vec<f64>) -> Outcome {
    let arguments = format!(r#"{{"peer":"{}","count":{COUNT}}}"#, party(2));
    for _ in 0..flows {
        let began = Instant::now();
        let known = clients.run(0, &party(1), "ping-pong/ping", arguments.clone()).await?;
        times.push((known - began).as_secs_f64() * 1e3);
    }
    Ok(())
}

/// What was measured was measured beside all of them.
async fn still_computing(host: &HostProcess, clients: &Clients, crowd: usize) -> Outcome {
    let flows = clients.status().await?.flows;
    let over = flows.get("failed").copied().unwrap_or(0);
    match over {
        0 => Ok(()),
        over => Err(format!("{over} of {crowd} flows of the host at {} are over already", host.endpoint()).into()),
    }
}

fn mean(times: &[f64]) -> f64 {
    times.iter().sum::<f64>() / times.len() as f64
}
