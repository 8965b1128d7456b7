//! A long back-chain over gRPC against the host's process: money that has gone through many transactions is paid to somebody
//! who has none of them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::figures::{Goal, Report, median};
use crate::installation::HostProcess;
use crate::setting::{Clients, Outcome, Setting, party, runtime};

/// Transactions behind the issue.
const LENGTH: u32 = 10_000;
/// And when it is to be quick.
const QUICK: u32 = 2_000;
/// So many are made by one flow.
const BY_ONE: u32 = 500;
/// How often memory is looked at.
const LOOK: Duration = Duration::from_millis(10);

pub fn measure(setting: &Setting, report: &mut Report) -> Outcome {
    let length = if setting.quick { QUICK } else { LENGTH };
    report.group(match setting.quick {
        true => "a back-chain of 2,000 transactions, got and verified by a payee on the same host",
        false => "a back-chain of 10,000 transactions, got and verified by a payee on the same host",
    });
    let installation = setting.small()?;
    let host = installation.start::<&str>(&[])?;
    let runtime = runtime()?;
    let clients = runtime.block_on(Clients::connect(&host))?;
    let owner = party(1);
    let run = |flow: &'static str, arguments: String| runtime.block_on(clients.run(0, &owner, flow, arguments));
    run("cash/issue", r#"{"quantity":1000000,"currency":"GBP"}"#.to_owned())?;
    for _ in 0..length / BY_ONE {
        run("hostile/lengthen", format!(r#"{{"currency":"GBP","times":{BY_ONE}}}"#))?;
    }
    let (mut rates, mut growths, mut cpus) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..setting.rounds() {
        std::thread::sleep(Duration::from_secs(2));
        let payee = party(u32::try_from(number)? + 2);
        let (before, cpu, began) = (host.resident(), host.cpu(), Instant::now());
        let done = AtomicBool::new(false);
        let (paid, peak) = std::thread::scope(|scope| {
            let peak = scope.spawn(|| highest(&host, &done));
            let paid = run("cash/pay", format!(r#"{{"to":"{payee}","quantity":7,"currency":"GBP"}}"#));
            done.store(true, Ordering::Relaxed);
            (paid.map_err(|error| error.to_string()), peak.join())
        });
        let took = (paid? - began).as_secs_f64();
        let peak = peak.map_err(|_| "memory could not be looked at")?;
        rates.push(f64::from(length) / took);
        growths.push((peak.saturating_sub(before)) as f64 / 1e6);
        cpus.push((host.cpu() - cpu).as_secs_f64() * 1e6 / f64::from(length));
    }
    report.add("transactions resolved and verified", median(rates), "/s", Goal::AtLeast(5_000.0));
    report.add("CPU of the host a transaction, both sides", median(cpus), "µs", Goal::None);
    report.add("resident memory of the host, at most above that before", median(growths), "MB", Goal::AtMost(32.0));
    host.stop()?;
    Ok(())
}

/// The most memory that the host has until it is done.
fn highest(host: &HostProcess, done: &AtomicBool) -> u64 {
    let mut highest = 0;
    while !done.load(Ordering::Relaxed) {
        highest = highest.max(host.resident());
        std::thread::sleep(LOOK);
    }
    highest
}
