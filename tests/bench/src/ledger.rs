//! Money over gRPC against the host's process: issued, and paid to peers, with a notary on the same host.

use std::sync::Arc;

use crate::figures::{Goal, Report, median};
use crate::load::{Round, Work, round};
use crate::setting::{Clients, Outcome, Setting, party, runtime};

/// Identities that issue; every second of them pays the next one.
const PARTIES: u32 = 20;
/// Of one issue; a payment takes a small part of it, so each has change.
const ISSUED: u32 = 1_000_000;

pub fn measure(setting: &Setting, report: &mut Report) -> Outcome {
    let installation = setting.small()?;
    let host = installation.start::<&str>(&[])?;
    let runtime = runtime()?;
    let clients = runtime.block_on(Clients::connect(&host))?;
    for (flow, concurrency) in [("cash/issue", 64), ("cash/pay", 16), ("cash/pay", 64)] {
        if setting.quick && (flow, concurrency) == ("cash/pay", 16) {
            continue;
        }
        report.group(match (flow, concurrency) {
            ("cash/issue", _) => "cash/issue over gRPC, 64 at once: a transaction without a peer",
            (_, 16) => "cash/pay over gRPC, 16 at once: one input, payment and change, payee and notary",
            _ => "cash/pay over gRPC, 64 at once: one input, payment and change, payee and notary",
        });
        let work = Work { flow, concurrency, request: Arc::new(move |number| request(flow, number)) };
        let mut results = Vec::new();
        for _ in 0..setting.rounds() {
            results.push(runtime.block_on(round(setting, &host, &clients, &work))?);
        }
        tell(report, &results, (flow, concurrency));
    }
    report.add("resident memory of the host after that", host.resident() as f64 / 1e6, "MB", Goal::None);
    host.stop()?;
    Ok(())
}

fn request(flow: &str, number: usize) -> (String, String) {
    match flow {
        "cash/issue" => (party(number as u32 % PARTIES + 1), format!(r#"{{"quantity":{ISSUED},"currency":"GBP"}}"#)),
        _ => {
            let pair = number as u32 % (PARTIES / 2);
            let arguments = format!(r#"{{"to":"{}","quantity":7,"currency":"GBP"}}"#, party(2 * pair + 2));
            (party(2 * pair + 1), arguments)
        }
    }
}

fn tell(report: &mut Report, results: &[Round], work: (&str, usize)) {
    let of = |figure: &dyn Fn(&Round) -> f64| median(results.iter().map(figure).collect());
    let (rate, cpu) = match work {
        ("cash/issue", _) => (Goal::AtLeast(4_000.0), Goal::None),
        (_, 64) => (Goal::AtLeast(1_000.0), Goal::AtMost(1_500.0)),
        _ => (Goal::None, Goal::None),
    };
    report.add("flows", of(&|r| r.flows / r.seconds), "/s", rate);
    report.add("CPU of the host a flow", of(&|r| r.cpu.as_secs_f64() * 1e6 / r.flows), "µs", cpu);
    report.add("commits (one fsync each)", of(&|r| r.commits / r.seconds), "/s", Goal::None);
    report.add("a flow, p50", of(&|r| r.latency.value_at_quantile(0.5) as f64 / 1e3), "ms", Goal::None);
    report.add("a flow, p99", of(&|r| r.latency.value_at_quantile(0.99) as f64 / 1e3), "ms", Goal::None);
}
