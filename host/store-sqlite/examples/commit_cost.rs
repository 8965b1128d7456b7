//! What a commit costs: units a second and CPU a unit, by how many are in flight, how many identities there are and
//! how many flows sleep in the same file.
//!
//! ```text
//! cargo run --release -p maxhost-store-sqlite --example commit_cost [-- SECONDS]
//! ```
//!
//! A unit appends a log segment and delivers a message, 220 bytes each. A flow lives for 24 units and is then replaced
//! by a new one. Files are made in the system's temporary folder, every commit is synced. The first line is the same
//! rows written by bare prepared statements, 512 units a transaction: what there is to be had.

use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use maxhost_model::{FlowId, FlowRow};
use maxhost_store::{
    Author, Caution, ClaimRequest, CommitUnit, FencingToken, FlowOp, FlowState, GroupStats, MessageOp, NewFlow, Op,
    Recipient, Store, StoreError,
};
use maxhost_store_sqlite::{SqliteOptions, SqliteStore};

const BODY: usize = 220;
const STEPS: u32 = 24;

type Outcome = Result<(), Box<dyn std::error::Error>>;

struct Slot {
    flow: FlowRow,
    author: Author,
    step: u32,
}

fn main() -> Outcome {
    let seconds = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(3.0);
    let duration = Duration::from_secs_f64(seconds);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    println!(
        "{:>10} {:>10} {:>9} {:>9} {:>8} {:>11} {:>9} {:>9} {:>8} {:>10} {:>9}",
        "identities",
        "sleeping",
        "in flight",
        "units/s",
        "CPU µs",
        "units/fsync",
        "queue µs",
        "apply µs",
        "fsync µs",
        "fsync p99",
        "chkpt max"
    );
    runtime.block_on(bare(duration))?;
    for (identities, sleeping) in [(1, 0), (10_000, 0), (10_000, 200_000)] {
        for in_flight in [1, 64, 512] {
            runtime.block_on(measure(identities, sleeping, in_flight, duration))?;
        }
    }
    Ok(())
}

async fn measure(identities: usize, sleeping: usize, in_flight: usize, duration: Duration) -> Outcome {
    let dir = tempfile::tempdir()?;
    let store = SqliteStore::open(SqliteOptions::new(dir.path().join("cost.db"))).await?;
    let names: Vec<String> = (0..identities).map(|n| format!("O=Party {n:05}, L=London, C=GB")).collect();
    let rows = store.register_identities(&names).await?;
    let token = FencingToken { generation: 0, epoch: 1 };
    let claims = rows.iter().map(|&identity| ClaimRequest { identity, token, key_fp: None, caution: Caution::None });
    let claims = store.claim_all(claims.collect()).await?;
    let authors: Result<Vec<Author>, StoreError> =
        rows.iter().zip(claims).map(|(&identity, claim)| Ok(Author { identity, claim: claim? })).collect();
    let authors = authors?;
    let body = Bytes::from(vec![7; BODY]);
    for chunk in (0..sleeping).collect::<Vec<_>>().chunks(4096) {
        let mut last = None;
        for &n in chunk {
            let flow = store.next_flow_row();
            let (reply, answer) = tokio::sync::oneshot::channel();
            let ops =
                vec![start(flow, &body), append(flow, 0, &body), deliver(authors[n % identities], flow, 0, &body)];
            let done = Box::new(move |outcome: Result<_, StoreError>| drop(reply.send(outcome)));
            store.submit(CommitUnit {
                author: authors[n % identities],
                attempt: None,
                depends_on: Default::default(),
                ops,
                done,
            });
            last = Some(answer);
        }
        if let Some(last) = last {
            last.await??;
        }
    }
    let outcome = tokio::task::block_in_place(|| drive(&store, &authors, &body, in_flight, duration));
    let (before, units, elapsed, cpu) = outcome?;
    let after = store.stats();
    let commits = after.commits - before.commits;
    println!(
        "{identities:>10} {sleeping:>10} {in_flight:>9} {:>9.0} {:>8.1} {:>11.1} {:>9} {:>9} {:>8} {:>10} {:>9}",
        units as f64 / elapsed.as_secs_f64(),
        cpu.as_secs_f64() * 1e6 / units as f64,
        units as f64 / commits.max(1) as f64,
        after.queue.mean_us,
        after.apply.mean_us,
        after.commit.mean_us,
        after.commit.p99_us,
        after.checkpoint.max_us,
    );
    store.close().await;
    Ok(())
}

/// The same rows without a committer.
async fn bare(duration: Duration) -> Outcome {
    const FLOWS: i64 = 512;
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("bare.db");
    SqliteStore::open(SqliteOptions::new(&path)).await?.close().await;
    let conn = rusqlite::Connection::open(&path)?;
    conn.execute_batch("PRAGMA synchronous=FULL; PRAGMA cache_size=-65536; PRAGMA wal_autocheckpoint=10000")?;
    let mut start = conn.prepare(
        "INSERT INTO flow (id, identity, state, started, tag, name, start_body) VALUES (?1, 1, 0, 0, x'00', 'f', ?2)",
    )?;
    let mut insert = conn.prepare("INSERT INTO journal (flow, seq, stream, body) VALUES (?1, ?2, ?3, ?4)")?;
    let mut end_flow = conn.prepare("DELETE FROM flow WHERE id = ?1")?;
    let mut end_journal = conn.prepare("DELETE FROM journal WHERE flow = ?1")?;
    let body = vec![7_u8; BODY];
    let mut next = 0;
    let mut flows: Vec<(i64, u32)> = (0..FLOWS).map(|n| (0, n as u32 % STEPS)).collect();
    let (started, cpu, mut units) = (Instant::now(), cpu_time(), 0_u64);
    while started.elapsed() < duration {
        conn.execute_batch("BEGIN IMMEDIATE")?;
        for (flow, step) in &mut flows {
            if *step == STEPS || *flow == 0 {
                end_flow.execute([*flow])?;
                end_journal.execute([*flow])?;
                next += 1;
                (*flow, *step) = (next, if *flow == 0 { *step % STEPS } else { 0 });
                start.execute(rusqlite::params![*flow, &body[..]])?;
            }
            insert.execute(rusqlite::params![*flow, *step, -1, &body[..]])?;
            insert.execute(rusqlite::params![*flow, *step, 0, &body[..]])?;
            *step += 1;
            units += 1;
        }
        conn.execute_batch("COMMIT")?;
    }
    let (elapsed, cpu) = (started.elapsed(), cpu_time() - cpu);
    println!(
        "{:>10} {:>10} {FLOWS:>9} {:>9.0} {:>8.1} {FLOWS:>11}",
        "bare",
        0,
        units as f64 / elapsed.as_secs_f64(),
        cpu.as_secs_f64() * 1e6 / units as f64
    );
    Ok(())
}

type Measured = (GroupStats, u64, Duration, Duration);

/// Keeps so many units in flight for so long, from one thread.
fn drive(
    store: &Store,
    authors: &[Author],
    body: &Bytes,
    in_flight: usize,
    duration: Duration,
) -> Result<Measured, Box<dyn std::error::Error>> {
    let (told, tell) = mpsc::channel::<Result<usize, StoreError>>();
    let mut turn = 0;
    let mut slots: Vec<Slot> =
        (0..in_flight).map(|_| Slot { flow: FlowRow(0), author: authors[0], step: STEPS }).collect();
    let mut send = |index: usize, slot: &mut Slot| {
        let mut ops = Vec::with_capacity(4);
        if slot.step == STEPS {
            // The next identity takes over, so all of them are in use.
            if slot.flow.0 != 0 {
                submit(store, slot.author, vec![end(slot.flow)], |_| {});
            }
            turn += 7919;
            *slot = Slot { flow: store.next_flow_row(), author: authors[turn % authors.len()], step: 0 };
            ops.push(start(slot.flow, body));
        }
        ops.push(append(slot.flow, slot.step, body));
        ops.push(deliver(slot.author, slot.flow, slot.step, body));
        slot.step += 1;
        let told = told.clone();
        submit(store, slot.author, ops, move |outcome| drop(told.send(outcome.map(|()| index))));
    };
    for (index, slot) in slots.iter_mut().enumerate() {
        send(index, slot);
    }
    let before = store.stats();
    let (started, cpu) = (Instant::now(), cpu_time());
    let (mut units, mut flying) = (0, in_flight);
    while flying > 0 {
        let index = tell.recv()??;
        units += 1;
        flying -= 1;
        if started.elapsed() < duration {
            send(index, &mut slots[index]);
            flying += 1;
        }
    }
    Ok((before, units, started.elapsed(), cpu_time() - cpu))
}

fn submit(store: &Store, author: Author, ops: Vec<Op>, done: impl FnOnce(Result<(), StoreError>) + Send + 'static) {
    let done = Box::new(move |outcome: Result<_, StoreError>| done(outcome.map(|_| ())));
    store.submit(CommitUnit { author, attempt: None, depends_on: Default::default(), ops, done });
}

fn append(flow: FlowRow, seq: u32, body: &Bytes) -> Op {
    FlowOp::AppendLog { flow, seq, body: body.clone() }.into()
}

fn deliver(author: Author, flow: FlowRow, seq: u32, body: &Bytes) -> Op {
    let to = Recipient { identity: author.identity, claim: author.claim };
    MessageOp::Deliver { to, session: flow.session(0), seq, body: body.clone(), confirms: false }.into()
}

fn start(row: FlowRow, body: &Bytes) -> Op {
    FlowOp::Start(Box::new(NewFlow {
        row,
        id: FlowId::new(row, 77),
        name: Arc::from("ping-pong/ping"),
        user: None,
        client_id: None,
        started: 0,
        start: body.clone(),
    }))
    .into()
}

fn end(flow: FlowRow) -> Op {
    FlowOp::End { flow, state: FlowState::Completed, finished: 0, keep: None, unconfirmed: Vec::new() }.into()
}

/// User and system time of this process.
fn cpu_time() -> Duration {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the pointer is to a rusage of this frame; all-zero is a valid one, so it is initialised either way.
    let usage = unsafe {
        libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr());
        usage.assume_init()
    };
    let of = |time: libc::timeval| Duration::new(time.tv_sec as u64, time.tv_usec as u32 * 1000);
    of(usage.ru_utime) + of(usage.ru_stime)
}
