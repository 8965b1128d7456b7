//! What the journal costs without a database and without a guest: restoring a flow of 1,000 entries and replaying it,
//! and one live step (a call that waits, its flush, the arrival, the answer).
//!
//! `cargo run --release -p maxhost-journal --example journal_cost`

#![allow(clippy::print_stdout)]

use std::error::Error;
use std::time::{Duration, Instant};

use bytes::Bytes;
use maxhost_journal::wire::{Confirm, FrameKind};
use maxhost_journal::{Arrival, Call, Frame, FrameBatch, Limits, Machine, Nanos, Origin, StartRecord, Step};
use maxhost_model::{ErrorId, FlowRow};
use prost::Message;

const ROUNDS: u32 = 500;
const TIMES: usize = 101;
const NOW: Nanos = 1_700_000_000_000_000_000;
const ROW: FlowRow = FlowRow(1);

/// A flow that has asked its peer [`ROUNDS`] times: two entries and one message a round, one segment each.
#[derive(Default)]
struct Conversation {
    log: Vec<(u32, Bytes)>,
    inbox: Vec<Arrival>,
    calls: Vec<Call>,
}

fn start_record() -> StartRecord {
    StartRecord {
        flow_id: [0; 16],
        flow: "ping".to_owned(),
        flow_version: 1,
        cordapp: "ping-pong".to_owned(),
        cordapp_version: "1.0.0".to_owned(),
        component: [0; 32],
        arguments: Bytes::new(),
        origin: Origin::Rpc { user: "local".to_owned() },
        seed: [1; 32],
        started: NOW,
        owning_key: None,
    }
}

fn payload(round: u32) -> Bytes {
    Bytes::from(round.to_be_bytes().repeat(16))
}

fn batch(frames: Vec<Frame>) -> FrameBatch {
    FrameBatch { from: "O=Bob, L=New York, C=US".to_owned(), frames, token: 1 }
}

impl Conversation {
    fn hold(&mut self, machine: &mut Machine) -> Result<Vec<Duration>, Box<dyn Error>> {
        let party = "O=Bob, L=New York, C=US".to_owned();
        let open = Call::OpenSession { protocol: "ping-pong/ping".to_owned(), version: 1, party };
        machine.begin(open.clone(), NOW)?;
        self.calls.push(open);
        let mut steps = Vec::new();
        for round in 0..ROUNDS {
            let call = Call::SendAndReceive { session: 0, payload: payload(round) };
            self.calls.push(call.clone());
            let mut frames = vec![Frame::data(payload(round))];
            let mut seq = round + 1;
            if round == 0 {
                let confirm = Confirm { session: 1 << 20, version: 1, app: "ping-pong".to_owned(), token: 1 };
                frames.insert(0, FrameKind::Confirm(confirm).into());
                seq = 0;
            }
            let batch = batch(frames);
            let row = (ROW.session(0), seq, Bytes::from(batch.encode_to_vec()));
            let begun = Instant::now();
            let blocked = machine.begin(call, NOW)? == Step::Blocked;
            let flush = machine.flush(NOW);
            machine.deliver(0, seq, &batch);
            let answered = matches!(machine.resume(NOW), Step::Done(Ok(_)));
            steps.push(begun.elapsed());
            if !blocked || !answered {
                return Err("the conversation does not go as it should".into());
            }
            self.log.extend(flush.segment);
            self.inbox.push(row);
        }
        self.log.extend(machine.flush(NOW).segment);
        Ok(steps)
    }

    fn restore(&self, start: &StartRecord) -> Result<Machine, Box<dyn Error>> {
        let me = "O=Alice, L=London, C=GB".into();
        Ok(Machine::restore(me, ROW, start, Limits::default(), &self.log, &self.inbox)?)
    }
}

/// Median and minimum, microseconds: on a busy machine the minimum says more.
fn spread(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    let at = |index: usize| times.get(index).map_or(0.0, |time| time.as_secs_f64() * 1e6);
    format!("{:8.2} us (least {:.2})", at(times.len() / 2), at(0))
}

fn main() -> Result<(), Box<dyn Error>> {
    let start = start_record();
    let mut conversation = Conversation::default();
    let mut machine = Machine::start("O=Alice, L=London, C=GB".into(), ROW, &start, Limits::default());
    let steps = conversation.hold(&mut machine)?;
    let (mut restores, mut replays) = (Vec::new(), Vec::new());
    for _ in 0..TIMES {
        let begun = Instant::now();
        let mut machine = conversation.restore(&start)?;
        restores.push(begun.elapsed());
        let begun = Instant::now();
        for call in &conversation.calls {
            if !matches!(machine.begin(call.clone(), NOW)?, Step::Done(Ok(_))) {
                return Err("a call was not answered from the log".into());
            }
        }
        replays.push(begun.elapsed());
        machine.finish(Ok(Bytes::new()), ErrorId(1))?;
    }
    println!("entries                {}", machine.entries());
    println!("segments               {}", conversation.log.len());
    println!("journal                {} bytes", machine.bytes());
    println!("restore              {}", spread(restores));
    println!("replay               {}", spread(replays));
    println!("live step            {}: call, flush, arrival, answer; 64-byte messages", spread(steps));
    Ok(())
}
