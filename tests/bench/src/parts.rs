//! The parts alone: an instance, and a replay.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use maxhost_journal::{Limits, Machine, Origin, StartRecord};
use maxhost_model::{FlowId, FlowRow, SessionId};
use maxhost_sandbox::{FlowComponent, Invocation, Outcome as End, RunParameters, Sandbox, SandboxOptions};
use maxhost_store::{Author, Caution, ClaimRequest, FencingToken, FlowOp, MessageOp, NewFlow, Op, Recipient, Store};
use maxhost_store_sqlite::{SqliteOptions, SqliteStore};

use crate::figures::{Goal, Report, percentile};
use crate::installation::cordapps;
use crate::replayer::{Replayer, party_cbor};
use crate::setting::{Outcome, Setting};

/// Entries of the journal that is replayed.
const ENTRIES: u32 = 1_000;
/// A round of ping-pong is two entries: a message sent, a message received.
const ROUNDS: u32 = ENTRIES / 2;
/// What `measured.md` found for an instance, µs; the goal is twice that.
const INSTANCE: f64 = 10.0;

const ME: &str = "O=Alice, L=London, C=GB";
const PEER: &str = "O=Bob, L=New York, C=US";

pub fn measure(setting: &Setting, report: &mut Report) -> Outcome {
    let scratch = setting.scratch()?;
    let sandbox = Sandbox::new(SandboxOptions::new(scratch.path()))?;
    let heartbeat = sandbox.load(&std::fs::read(cordapps().join("heartbeat.wasm"))?)?;
    let ping_pong = sandbox.load(&std::fs::read(cordapps().join("ping-pong.wasm"))?)?;
    let turns = if setting.quick { 500 } else { 5_000 };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;

    report.group("an instance: made, called, dropped (heartbeat of no beats, no journal)");
    let mut times = runtime.block_on(instances(&heartbeat, turns))?;
    report.add("p50, one thread", percentile(&mut times, 0.5), "µs", Goal::AtMost(2.0 * INSTANCE));
    report.add("least", percentile(&mut times, 0.0), "µs", Goal::None);

    report.group("replay of 1,000 entries (a ping after 500 rounds, each a send and a receive)");
    let journal = runtime.block_on(Journal::make(&ping_pong))?;
    let (mut bare, mut stored) = (Vec::new(), Vec::new());
    let turns = turns / 10;
    runtime.block_on(async {
        let (store, row) = journal.store(&scratch.path().join("replay.db")).await?;
        for _ in 0..turns {
            let began = Instant::now();
            journal.replay(&ping_pong).await?;
            bare.push(millis(began.elapsed()));
            let began = Instant::now();
            let read = store.journal(row).await?.ok_or("the journal is not there")?;
            let start = StartRecord::decode(&read.record.start)?;
            let read = Journal { start, log: read.log, inbox: read.inbox };
            read.replay(&ping_pong).await?;
            stored.push(millis(began.elapsed()));
        }
        store.close().await;
        Outcome::Ok(())
    })?;
    report.add("without database, p50", percentile(&mut bare, 0.5), "ms", Goal::AtMost(1.0));
    report.add("read from the database, p50", percentile(&mut stored, 0.5), "ms", Goal::AtMost(5.0));
    Ok(())
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn parameters() -> RunParameters {
    RunParameters { seed: [1; 32], memory_limit: 64 << 20, cpu: Duration::from_secs(5) }
}

async fn instances(component: &Arc<FlowComponent>, turns: usize) -> Outcome<Vec<f64>> {
    // {"beats": 0, "interval_ms": 0}
    let start = start_record("beat", b"\xa2\x65beats\x00\x6binterval_ms\x00");
    let mut times = Vec::with_capacity(turns);
    for _ in 0..turns {
        let host = Replayer::new(Machine::start(ME.into(), FlowRow(1), &start, Limits::default()), 0);
        let call = invocation(&start);
        let began = Instant::now();
        let end = component.run(host, call, &parameters()).await;
        times.push(began.elapsed().as_secs_f64() * 1e6);
        if !matches!(end.outcome, End::Returned(_)) {
            return Err(format!("the instance ended with {:?}", end.outcome).into());
        }
    }
    Ok(times)
}

fn start_record(flow: &str, arguments: &[u8]) -> StartRecord {
    StartRecord {
        flow_id: FlowId::new(FlowRow(1), 1).to_bytes(),
        flow: flow.to_owned(),
        flow_version: 1,
        cordapp: "ping-pong".to_owned(),
        cordapp_version: "1".to_owned(),
        component: [0; 32],
        arguments: Bytes::copy_from_slice(arguments),
        origin: Origin::Rpc { user: "local".to_owned() },
        seed: [1; 32],
        started: 1_700_000_000_000_000_000,
        owning_key: None,
    }
}

/// What is stored of a flow.
struct Journal {
    start: StartRecord,
    log: Vec<(u32, Bytes)>,
    inbox: Vec<(SessionId, u32, Bytes)>,
}

impl Journal {
    /// That of a ping whose peer sends back each of its messages, until it waits for one more.
    async fn make(component: &Arc<FlowComponent>) -> Outcome<Journal> {
        let start = start_record("ping", &party_cbor(PEER, ROUNDS + 1));
        let machine = Machine::start(ME.into(), FlowRow(1), &start, Limits::default());
        let end = component.run(Replayer::new(machine, ROUNDS), invocation(&start), &parameters()).await;
        if !matches!(end.outcome, End::Stopped) {
            return Err(format!("the ping to be replayed ended with {:?}", end.outcome).into());
        }
        Ok(Journal { start, log: end.host.log, inbox: end.host.inbox })
    }

    /// Brings the flow back to where it waits.
    async fn replay(&self, component: &Arc<FlowComponent>) -> Outcome {
        let machine = Machine::restore(ME.into(), FlowRow(1), &self.start, Limits::default(), &self.log, &self.inbox)?;
        let end = component.run(Replayer::new(machine, 0), invocation(&self.start), &parameters()).await;
        match end.outcome {
            End::Stopped if end.host.answered == ROUNDS => Ok(()),
            other => Err(format!("the replay ended after {} answers with {other:?}", end.host.answered).into()),
        }
    }

    async fn store(&self, file: &std::path::Path) -> Outcome<(Store, FlowRow)> {
        let store = SqliteStore::open(SqliteOptions::new(file)).await?;
        let identity = store.register_identities(&[ME]).await?[0];
        let claim = store
            .claim(ClaimRequest {
                identity,
                token: FencingToken { generation: 0, epoch: 1 },
                key_fp: None,
                caution: Caution::None,
            })
            .await?;
        let row = store.next_flow_row();
        let new = NewFlow {
            row,
            id: FlowId::new(row, 1),
            name: "ping-pong/ping".into(),
            user: Some("local".to_owned()),
            client_id: None,
            started: 0,
            start: self.start.encode(),
        };
        let mut ops: Vec<Op> = vec![FlowOp::Start(Box::new(new)).into()];
        let log = self.log.iter().map(|(seq, body)| FlowOp::AppendLog { flow: row, seq: *seq, body: body.clone() });
        ops.extend(log.map(Op::from));
        let inbox = self.inbox.iter().map(|(session, seq, body)| MessageOp::Deliver {
            to: Recipient { identity, claim },
            session: row.session(session.index()),
            seq: *seq,
            body: body.clone(),
            confirms: false,
        });
        ops.extend(inbox.map(Op::from));
        store.commit(Author { identity, claim }, ops).await?;
        Ok((store, row))
    }
}

fn invocation(start: &StartRecord) -> Invocation {
    Invocation { flow: start.flow.clone(), arguments: start.arguments.to_vec(), session: None }
}
