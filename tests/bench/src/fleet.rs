//! Ten thousand identities: asleep, and waking up.

use std::time::Instant;

use crate::figures::{Goal, Report, median, percentile};
use crate::setting::{Clients, LARGE, Outcome, Setting, party, runtime};

/// Sleeping identities that are woken, one after the other.
const WOKEN: u32 = 1_000;

pub fn measure(setting: &Setting, report: &mut Report) -> Outcome {
    report.group("10,000 identities");
    let small = setting.small()?;
    // The first start compiles the CorDapps; what that leaves in memory is not what an idle host holds.
    let compiling = small.start::<&str>(&[])?;
    settle();
    report.add("resident memory after a start that compiled", compiling.resident() as f64 / 1e6, "MB", Goal::None);
    compiling.stop()?;
    let base = small.start::<&str>(&[])?;
    settle();
    let base_bytes = base.resident() as f64;
    base.stop()?;

    let large = setting.large()?;
    // The first start registers them in the database; the others are what an operator sees.
    let first = large.start::<&str>(&[])?;
    report.add("first start of the host, which registers them", first.start_time().as_secs_f64(), "s", Goal::None);
    first.stop()?;
    let mut starts = Vec::new();
    for _ in 0..setting.rounds() {
        let host = large.start::<&str>(&[])?;
        starts.push(host.start_time().as_secs_f64());
        host.stop()?;
    }
    report.add("start of the host", median(starts), "s", Goal::AtMost(3.0));

    let host = large.start::<&str>(&["flows.idle_close=600 s"])?;
    settle();
    let asleep = host.resident() as f64;
    report.add("resident memory, all asleep", asleep / 1e6, "MB", Goal::AtMost(150.0));
    report.add("of that no file's pages", host.anonymous() as f64 / 1e6, "MB", Goal::None);
    report.add("resident memory with 24 identities", base_bytes / 1e6, "MB", Goal::None);
    let each = (asleep - base_bytes).max(0.0) / 1024.0 / f64::from(LARGE - 20);
    report.add("an identity beyond that", each, "KiB", Goal::AtMost(4.0));

    let mut wakes = Vec::new();
    runtime()?.block_on(async {
        let clients = Clients::connect(&host).await?;
        // The connection, and the code of the CorDapp, are warm; the identities are not.
        for number in 1..=5 {
            clients.start(0, &party(number), "heartbeat/beat", beat()).await?;
        }
        let woken = if setting.quick { WOKEN / 5 } else { WOKEN };
        for number in 0..woken {
            let identity = party(10 + number * 9);
            let began = Instant::now();
            clients.start(0, &identity, "heartbeat/beat", beat()).await?;
            wakes.push(began.elapsed().as_secs_f64() * 1e3);
        }
        Outcome::Ok(())
    })?;
    report.add("asleep to a durable flow, by gRPC, p50", percentile(&mut wakes, 0.5), "ms", Goal::None);
    report.add("the same, p99", percentile(&mut wakes, 0.99), "ms", Goal::AtMost(10.0));
    host.stop()?;
    Ok(())
}

fn beat() -> String {
    r#"{"beats":0,"interval_ms":0}"#.to_owned()
}

/// Lets whatever a start leaves behind come to rest.
fn settle() {
    std::thread::sleep(std::time::Duration::from_secs(3));
}
