//! What a run tells: a line now and then, a summary as JSON, and where the logs are.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Instant;

use serde_json::{Value, json};

use super::Options;
use super::faults::Faults;
use super::load::Load;

/// Prints, unless standard output is for the summary.
pub struct Report {
    begun: Instant,
    is_quiet: bool,
}

impl Report {
    pub fn new(is_quiet: bool) -> Report {
        Report { begun: Instant::now(), is_quiet }
    }

    /// A line, with the seconds since the begin.
    pub fn say(&self, text: &str) {
        let line = format!("[{:6.1} s] {text}", self.begun.elapsed().as_secs_f64());
        if self.is_quiet {
            eprintln!("{line}");
        } else {
            println!("{line}");
            let _closed = std::io::stdout().flush();
        }
    }

    /// How far it is.
    pub fn progress(&self, options: &Options, load: &Load, faults: &Faults, claims: u64) {
        let (ended, under_way, repeated) = {
            let books = load.books();
            (books.ended.len(), books.under_way.len(), books.repeated.values().sum::<u64>())
        };
        self.say(&format!(
            "faults {}/{} · flows ended {ended}, under way {under_way} · calls repeated {repeated} · claims {claims} · late commits \
             refused {}",
            faults.tally.done.load(Ordering::Relaxed),
            options.faults,
            faults.tally.late_commits.load(Ordering::Relaxed),
        ));
    }

    /// All that was counted.
    pub fn summary(
        &self,
        options: &Options,
        load: &Load,
        faults: &Faults,
        claims: u64,
        outcome: &Result<(), String>,
    ) -> Value {
        let books = load.books();
        let starts: BTreeMap<&str, u32> =
            faults.processes().map(|process| (process.name.as_str(), process.starts())).collect();
        let tally = &faults.tally;
        json!({
            "ok": outcome.is_ok(),
            "error": outcome.as_ref().err(),
            "seed": options.seed,
            "seconds": self.begun.elapsed().as_secs(),
            "identities": options.identities,
            "faults": tally.done.load(Ordering::Relaxed),
            "flows": books.ended.len(),
            "longest_flow_ms": u64::try_from(books.longest.as_millis()).unwrap_or(u64::MAX),
            "money": books.money.values().sum::<i64>(),
            "calls_repeated": books.repeated,
            "claims": claims,
            "starts_of_processes": starts,
            "late_commits_refused": tally.late_commits.load(Ordering::Relaxed),
            "lost_on_the_way_to_the_database": tally.lost.load(Ordering::Relaxed),
            "longest_drain_ms": tally.drain_ms.load(Ordering::Relaxed),
        })
    }
}

/// Where the logs of a run are kept.
pub fn folder(seed: u64) -> PathBuf {
    maxhost_tests::cli::target().join(format!("chaos/{seed}"))
}
