//! Faults of every kind, in an order that a seed decides, hit real servers and hosts under load; nothing may be lost, doubled or
//! stuck.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod deployment;
mod faults;
mod invariants;
mod load;
mod orders;
mod report;
pub mod schedule;

use std::sync::Arc;
use std::time::{Duration, Instant};

use deployment::{Deployment, Plan};
use faults::Faults;
use load::Load;
use report::Report;
use schedule::{Fault, Kind};
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// How often it is looked at what must hold, and how far it is.
const LOOK: Duration = Duration::from_secs(1);
const TELL: Duration = Duration::from_secs(10);

/// What is to be tried.
#[derive(Debug, Clone)]
pub struct Options {
    pub seed: u64,
    pub faults: usize,
    pub kinds: Vec<Kind>,
    pub identities: u32,
    /// Clients that each run a flow at a time.
    pub clients: usize,
    /// Faults at the same time.
    pub at_once: usize,
    /// After so many faults all are mended, and everything is looked at.
    pub settle_every: usize,
    /// Standard output is for the summary.
    pub is_quiet: bool,
}

/// Runs it. The summary says how it went; the logs of all processes are kept in a folder of the seed.
pub async fn run(options: &Options) -> (Value, Result<(), String>) {
    let report = Report::new(options.is_quiet);
    report.say(&format!("seed {}: {} faults, {} identities", options.seed, options.faults, options.identities));
    let plan = Plan { nodes: 3, nodes_answer: false, workers: 2, parties: options.identities, has_lines: true };
    let deployment = Arc::new(Deployment::start(plan).await);
    report.say("three ZooKeeper servers, PostgreSQL, Artemis, three Max Nodes and two RPC workers are up");
    let load = Load::new(deployment.clone(), options.seed, options.identities);
    let faults = Arc::new(Faults::new(deployment.clone()));
    let trial = Trial { options, report: &report, deployment: &deployment, load: &load, faults: &faults };
    let outcome = trial.carry_out().await;
    let claims = invariants::claims(&deployment).await.unwrap_or(0);
    let summary = report.summary(options, &load, &faults, claims, &outcome);
    let folder = report::folder(options.seed);
    deployment.keep_logs(&folder).await;
    if let Err(problem) = &outcome {
        report.say(&format!("FAILED with seed {}: {problem}\nThe logs are in {}", options.seed, folder.display()));
    }
    (summary, outcome)
}

struct Trial<'a> {
    options: &'a Options,
    report: &'a Report,
    deployment: &'a Arc<Deployment>,
    load: &'a Arc<Load>,
    faults: &'a Arc<Faults>,
}

impl Trial<'_> {
    async fn carry_out(&self) -> Result<(), String> {
        invariants::note_claims(self.deployment).await?;
        self.load.issue().await;
        self.report.say("the payers have their money; the load begins");
        let clients = self.load.begin(self.options.clients);
        let schedule = schedule::draw(self.options.seed, self.options.faults, &self.options.kinds);
        let mut outcome = Ok(());
        for part in schedule.chunks(self.options.settle_every.max(1)) {
            outcome = self.strike(part).await;
            if outcome.is_err() {
                break;
            }
            self.load.pause(true);
            outcome = self.settle().await;
            if outcome.is_err() {
                break;
            }
            self.load.settle_purses();
            self.load.pause(false);
        }
        self.load.pause(true);
        if outcome.is_ok() {
            outcome = self.finish().await;
        }
        clients.iter().for_each(tokio::task::JoinHandle::abort);
        outcome
    }

    /// Faults one after the other, some at the same time. Returns when all are mended.
    async fn strike(&self, part: &[Fault]) -> Result<(), String> {
        let at_once = Arc::new(Semaphore::new(self.options.at_once));
        let mut under_way = JoinSet::new();
        let mut coming = part.iter();
        let mut next = coming.next();
        let mut due = Instant::now();
        let mut told = Instant::now();
        while next.is_some() || !under_way.is_empty() {
            invariants::while_it_runs(self.deployment, self.load)?;
            if told.elapsed() >= TELL {
                told = Instant::now();
                self.tell().await;
            }
            while let Some(done) = under_way.try_join_next() {
                let done: Result<(), String> = done.map_err(|error| error.to_string())?;
                done?;
            }
            if let Some(fault) = next
                && Instant::now() >= due
                && let Ok(place) = at_once.clone().try_acquire_owned()
            {
                self.report.say(&format!("fault {}: {fault}", fault.number));
                let (faults, fault) = (self.faults.clone(), fault.clone());
                next = coming.next();
                due = Instant::now() + next.map_or(Duration::ZERO, |next| next.gap);
                under_way.spawn(async move {
                    let done = faults.carry_out(&fault).await;
                    drop(place);
                    done.map_err(|problem| format!("fault {}, {fault}: {problem}", fault.number))
                });
            }
            tokio::time::sleep(LOOK / 5).await;
        }
        Ok(())
    }

    /// While nothing new is begun, everything comes to its end.
    async fn settle(&self) -> Result<(), String> {
        let begun = Instant::now();
        invariants::when_mended(self.deployment, self.load, 20).await?;
        self.report.say(&format!(
            "all mended: everything has ended and is right, {:.1} s later",
            begun.elapsed().as_secs_f64()
        ));
        Ok(())
    }

    async fn finish(&self) -> Result<(), String> {
        self.tell().await;
        invariants::when_mended(self.deployment, self.load, 200).await?;
        invariants::all_sleep(self.deployment).await?;
        self.report.say("nothing is left, and all identities sleep");
        Ok(())
    }

    async fn tell(&self) {
        // The database may be away.
        let claims = invariants::claims(self.deployment).await.unwrap_or(0);
        self.report.progress(self.options, self.load, self.faults, claims);
    }
}
