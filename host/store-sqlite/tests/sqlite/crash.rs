//! A process that is killed while it commits: what it was told is durable is there, and nothing is there by halves.

use std::collections::{HashMap, HashSet};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use crate::common::*;
use maxhost_model::FlowRow;
use maxhost_store::{CommitUnit, Store};

const DIR: &str = "MAXHOST_STORE_CRASH_DIR";
const FLOWS: usize = 40;
const ROUNDS: usize = 12;

/// The process that is killed: runs only when the other test starts it.
#[test]
#[ignore = "started by the_acknowledged_survives_a_kill"]
fn committing_process() {
    let Ok(dir) = std::env::var(DIR) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let store = runtime.block_on(open(Path::new(&dir)));
    let alice = runtime.block_on(async {
        let identity = store.register_identities(&["Alice"]).await.unwrap()[0];
        claim(&store, identity, store.run().0).await
    });
    let (told, tell) = mpsc::channel();
    let step = |flow: FlowRow, seq: u32| {
        let mut ops = Vec::new();
        if seq == 0 {
            ops.push(start(flow));
        }
        // Four rows, so that half a unit would show.
        let message = |session| deliver(to(alice), flow.session(session), seq);
        ops.extend([log(flow, seq), message(0), message(1)]);
        let told = told.clone();
        let done = Box::new(move |outcome: Result<_, _>| told.send((flow, seq, outcome.is_ok())).unwrap());
        store.submit(CommitUnit { author: alice, attempt: None, depends_on: Default::default(), ops, done });
    };
    for _ in 0..FLOWS {
        step(store.next_flow_row(), 0);
    }
    let mut out = std::io::stdout().lock();
    while let Ok((flow, seq, committed)) = tell.recv() {
        assert!(committed);
        writeln!(out, "acknowledged {} {seq}", flow.0).unwrap();
        out.flush().unwrap();
        if seq == 15 {
            step(store.next_flow_row(), 0);
        } else {
            step(flow, seq + 1);
        }
    }
}

#[test]
fn the_acknowledged_survives_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged: HashMap<FlowRow, u32> = HashMap::new();
    let mut rows_of_earlier_lives = HashSet::new();
    for round in 0..ROUNDS {
        let (lines, heard) = run_and_kill(dir.path(), 150 + round * 137);
        assert!(heard > 0, "round {round}: nothing was committed");
        let mut rows_of_this_life = HashSet::new();
        for (flow, seq) in lines {
            assert!(!rows_of_earlier_lives.contains(&flow), "round {round}: row {flow:?} was used again");
            rows_of_this_life.insert(flow);
            let newest = acknowledged.entry(flow).or_insert(seq);
            *newest = seq.max(*newest);
        }
        rows_of_earlier_lives.extend(rows_of_this_life);
        check(dir.path(), &acknowledged, round);
    }
}

/// Runs the process until it has acknowledged so many units, kills it, and returns all it had acknowledged.
fn run_and_kill(dir: &Path, after: usize) -> (Vec<(FlowRow, u32)>, usize) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crash::committing_process", "--ignored", "--nocapture", "--test-threads=1"])
        .env(DIR, dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    let (line, lines) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        let parsed = output.lines().map_while(Result::ok).filter_map(|text| {
            let mut words = text.strip_prefix("acknowledged ")?.split(' ');
            Some((FlowRow(words.next()?.parse().ok()?), words.next()?.parse().ok()?))
        });
        for pair in parsed {
            line.send(pair).unwrap();
        }
    });
    let mut heard = Vec::new();
    while heard.len() < after {
        heard.push(lines.recv_timeout(Duration::from_secs(60)).expect("the process commits nothing"));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    reader.join().unwrap();
    // What had left the process before it died counts too.
    heard.extend(lines.try_iter());
    let count = heard.len();
    (heard, count)
}

fn check(dir: &Path, acknowledged: &HashMap<FlowRow, u32>, round: usize) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let store: Store = open(dir).await;
        for live in store.live_flows().await.unwrap() {
            let journal = store.journal(live.row).await.unwrap().unwrap();
            let segments = journal.log.len();
            assert!(segments > 0, "round {round}: {live:?} was started by halves");
            assert_eq!(journal.inbox.len(), 2 * segments, "round {round}: {live:?} has half a unit");
            assert!(journal.log.iter().enumerate().all(|(n, (seq, _))| n == *seq as usize));
        }
        for (&flow, &seq) in acknowledged {
            let journal = store.journal(flow).await.unwrap();
            let journal = journal.unwrap_or_else(|| panic!("round {round}: acknowledged {flow:?} is gone"));
            assert!(journal.log.len() > seq as usize, "round {round}: {flow:?} lost segment {seq}");
        }
        let highest = acknowledged.keys().max().copied().unwrap();
        assert!(store.next_flow_row() > highest);
        store.close().await;
    });
}
