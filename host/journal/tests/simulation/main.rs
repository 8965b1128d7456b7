//! Random programs on a simulated network, with crashes, evictions, duplicates, delays and kills.
//!
//! Each seed makes a plan of programs and runs it to its end. What must hold, whatever happens: answers that were
//! committed never change; every message is consumed once and in order; frames leave once and in order; every flow ends,
//! and one that waits at the end has a reason to; nothing is left over. Plans that follow a script have to see the same
//! in a calm world and in a rough one.
//!
//! `MAXHOST_SIM_SEED=123 cargo test --release -p maxhost-journal --test simulation -- --nocapture` tells one seed's
//! story; `MAXHOST_SIM_FIRST` and `MAXHOST_SIM_COUNT` choose others than the usual ones.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod guest;
mod program;
mod store;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;

use program::{Plan, Rng};
use world::{Counts, World};

const PLANS: u64 = 100_000;

fn run(seed: u64, verbose: bool) -> (Counts, usize) {
    let mut rng = Rng::new(seed);
    let plan = Plan::random(&mut rng);
    if verbose {
        eprintln!("{plan:#?}");
    }
    let mut rough = World::new(&plan, rng.next(), false);
    rough.verbose = verbose;
    let seen = rough.run();
    if plan.scripted {
        let mut calm = World::new(&plan, rng.next(), true);
        assert_eq!(calm.run(), seen, "a calm world and a rough one look the same");
        assert!(seen.values().all(|(_, outcome)| matches!(outcome, Some(Ok(_)))));
    }
    (rough.counts, plan.programs.len())
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap())
}

fn add(total: &mut Counts, one: &Counts) {
    total.flows += one.flows;
    total.commits += one.commits;
    total.lost += one.lost;
    total.crashes += one.crashes;
    total.evictions += one.evictions;
    total.replays += one.replays;
    total.kills += one.kills;
    total.deadlocks += one.deadlocks;
    total.messages += one.messages;
    total.errors += one.errors;
}

/// Runs the seeds of one thread; the first that fails is told.
fn run_all(seeds: impl Iterator<Item = u64>) -> (u64, usize, Counts) {
    let (mut plans, mut programs, mut total) = (0, 0, Counts::default());
    for seed in seeds {
        match catch_unwind(AssertUnwindSafe(|| run(seed, false))) {
            Ok((counts, number)) => {
                add(&mut total, &counts);
                plans += 1;
                programs += number;
            }
            Err(reason) => {
                eprintln!("the simulation failed; to see it again: MAXHOST_SIM_SEED={seed}");
                std::panic::resume_unwind(reason);
            }
        }
    }
    (plans, programs, total)
}

#[test]
fn random_programs_keep_their_promises() {
    if let Some(seed) = number("MAXHOST_SIM_SEED") {
        eprintln!("{:?}", run(seed, true));
        return;
    }
    let first = number("MAXHOST_SIM_FIRST").unwrap_or(1);
    let count = number("MAXHOST_SIM_COUNT").unwrap_or(PLANS);
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let begun = std::time::Instant::now();
    let results: Vec<_> = thread::scope(|scope| {
        let seeds = |thread: usize| (first..first + count).skip(thread).step_by(threads);
        let running: Vec<_> = (0..threads).map(|thread| scope.spawn(move || run_all(seeds(thread)))).collect();
        running.into_iter().map(|thread| thread.join()).collect()
    });
    let (mut plans, mut programs, mut total) = (0, 0, Counts::default());
    for result in results {
        let (of_thread, programs_of_thread, counts) = result.unwrap_or_else(|reason| std::panic::resume_unwind(reason));
        plans += of_thread;
        programs += programs_of_thread;
        add(&mut total, &counts);
    }
    println!("{plans} plans with {programs} programs in {:?}: {total:?}", begun.elapsed());
    assert_eq!(plans, count);
    if count >= PLANS {
        let tried = [total.lost, total.crashes, total.evictions, total.replays, total.kills, total.deadlocks];
        assert!(tried.iter().all(|&times| times > 1_000), "every mishap happens often: {total:?}");
    }
}
