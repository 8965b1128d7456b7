//! `make bench`: measures what a host costs, against its goals. `docs/benchmarks.md` says what each figure means.
//!
//! ```text
//! bench [--quick] [--only GROUP]...     groups: parts contracts engine alone fair load postgres ledger
//!                                        chain notary vault fleet memory spread
//! ```
//!
//! Every commit is synced to disk. Files are made under `target/`, on the file system that the project is on.

mod alone;
mod chain;
mod contracts;
mod engine;
mod fair;
mod figures;
mod fleet;
mod installation;
mod ledger;
mod load;
mod memory;
mod notary;
mod parts;
mod replayer;
mod setting;
mod spread;
mod vault;

use std::process::ExitCode;

use figures::Report;
use setting::{Outcome, Setting};

// The host's allocator, so that what is measured in this process is what the host does.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const GROUPS: [&str; 14] = [
    "parts",
    "contracts",
    "engine",
    "alone",
    "fair",
    "load",
    "postgres",
    "ledger",
    "chain",
    "notary",
    "vault",
    "fleet",
    "memory",
    "spread",
];

fn main() -> ExitCode {
    let mut quick = false;
    let mut only = Vec::new();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--quick" => quick = true,
            "--only" => match arguments.next().filter(|group| GROUPS.contains(&group.as_str())) {
                Some(group) => only.push(group),
                None => return usage(),
            },
            _ => return usage(),
        }
    }
    match run(&Setting::new(quick), &only) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(missed) => {
            println!("\n{missed} figures miss their goal; docs/benchmarks.md says what bounds them");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("the benchmark could not be run: {error}");
            ExitCode::FAILURE
        }
    }
}

fn usage() -> ExitCode {
    eprintln!("usage: bench [--quick] [--only GROUP]...   groups: {}", GROUPS.join(" "));
    ExitCode::from(2)
}

fn run(setting: &Setting, only: &[String]) -> Result<usize, Box<dyn std::error::Error>> {
    let mut report = Report::default();
    type Measurement = fn(&Setting, &mut Report) -> Outcome;
    let measurements: [Measurement; 14] = [
        parts::measure,
        contracts::measure,
        engine::measure,
        alone::measure,
        fair::measure,
        load::measure,
        load::measure_on_server,
        ledger::measure,
        chain::measure,
        notary::measure,
        vault::measure,
        fleet::measure,
        memory::measure,
        spread::measure,
    ];
    for (group, measure) in GROUPS.iter().zip(measurements) {
        if only.is_empty() || only.iter().any(|wanted| wanted == group) {
            measure(setting, &mut report)?;
        }
    }
    report.write(&setting.result_file(), setting.quick)?;
    Ok(report.missed())
}
