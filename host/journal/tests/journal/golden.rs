//! Journals as this format version wrote them: every later host has to restore and replay them. And whatever stands in
//! a database, it is restored or refused, never more.
//!
//! The files are written once for each format version:
//! `cargo test -p maxhost-journal --test journal -- --ignored write_the_files`.

use std::path::PathBuf;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use maxhost_journal::{Awaited, Call, FrameBatch, Limits, Segment, StartRecord, Step, WaitKind};
use maxhost_model::{ErrorId, ErrorKind, FlowError, FlowRow, SessionId};
use prost::Message;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::common::*;

const FILES: [&str; 5] = ["initiator", "responder", "finishing", "begun", "awaiting"];

/// The flow behind each file. What it does here is what it must be told again from the file.
fn scenario(net: &mut Net, name: &str) -> usize {
    match name {
        "initiator" => initiator(net),
        "responder" => responder(net),
        "awaiting" => awaiting(net),
        "finishing" => {
            let a = net.start("A");
            net.session(a, "B");
            net.ok(a, send(0, "one"));
            net.ok(a, send(0, "two"));
            net.finish(a, Ok("done"));
            a
        }
        _ => {
            let a = net.start("A");
            net.session(a, "B");
            net.blocks(a, ask(0, "hello"));
            net.respond()
        }
    }
}

/// Every call and every outcome that has a place in the journal.
fn initiator(net: &mut Net) -> usize {
    let a = net.start("A");
    net.progress(a, "asking");
    let error = Box::new(FlowError::new(ErrorKind::IllegalArgument, "there is no party X"));
    net.fails(a, Call::RefuseSession { party: "X".to_owned(), error });
    for peer in ["B", "C", "D", "E"] {
        net.session(a, peer);
    }
    net.note(a, "party B", "known");
    net.random(a, 40);
    net.now(a);
    net.fails(a, Call::Close(vec![0]));
    net.ok(a, Call::Send(vec![(0, Bytes::from("one")), (0, Bytes::from("two")), (1, Bytes::from("three"))]));
    net.blocks(a, Call::FlowInfo(0));
    let (b, c) = (net.respond(), net.respond());
    net.gets(a);
    net.ok(b, send(0, "from B"));
    net.flush(b);
    net.blocks(a, Call::ReceiveAll(vec![0, 1]));
    net.ok(c, send(0, "from C"));
    net.flush(c);
    net.gets(a);
    net.blocks(a, ask(2, "a question"));
    net.reject("no such flow");
    net.gets_error(a);
    net.progress(a, "waiting");
    let deadline = net.now / 1_000_000 + 5;
    net.blocks(a, Call::WaitAny { sessions: vec![0, 1], deadline: Some(deadline) });
    net.now += 6_000_000;
    net.gets(a);
    net.blocks(a, Call::WaitAny { sessions: vec![0, 1], deadline: None });
    net.finish(b, Err(business("out of stock")));
    net.gets(a);
    net.fails(a, receive(0));
    net.returns(c);
    net.ok(a, receive_or_end(1));
    net.fails(a, Call::Sleep(999_999));
    net.blocks(a, Call::Sleep(1));
    net.now += 2_000_000;
    net.gets(a);
    net.blocks(a, Call::FlowInfo(3));
    let e = net.respond();
    net.gets(a);
    net.ok(e, send(0, "kept"));
    net.ok(e, send(0, "not read"));
    net.flush(e);
    net.ok(a, receive(3));
    net.ok(a, Call::Close(vec![3]));
    net.session(a, "F");
    net.ok(a, send(4, "first"));
    net.ok(a, send(4, "held back"));
    net.blocks(a, Call::Sleep(60_000));
    a
}

fn responder(net: &mut Net) -> usize {
    let a = net.start("A");
    net.session(a, "B");
    net.blocks(a, ask(0, "hello"));
    let b = net.respond();
    net.ok(b, receive(0));
    net.progress(b, "answering");
    net.ok(b, send(0, "well"));
    net.blocks(b, receive(0));
    net.gets(a);
    net.ok(a, send(0, "more"));
    net.ok(a, send(0, "unread"));
    net.flush(a);
    net.gets(b);
    net.blocks(b, Call::Sleep(60_000));
    b
}

/// Every end of a wait for the ledger.
fn awaiting(net: &mut Net) -> usize {
    let wait = |kind: WaitKind, what: &str, deadline: Option<u64>| {
        let what = what.to_owned();
        Call::Await { kind, what, deadline }
    };
    let a = net.start("A");
    net.session(a, "B");
    net.ok(a, send(0, "hello"));
    net.flush(a);
    let b = net.respond();
    net.blocks(a, wait(WaitKind::LedgerCommit, "transaction ab", None));
    net.flows[a].machine.awaits_next(Awaited { first: "ab".to_owned(), more: 0 });
    net.still_blocked(a);
    net.flush(a);
    net.found(a, "the transaction");
    let deadline = net.now / 1_000_000 + 5;
    net.blocks(a, wait(WaitKind::StateConsumption, "the consumption of 3 states", Some(deadline)));
    net.flows[a].machine.awaits_next(Awaited { first: "ab:1".to_owned(), more: 2 });
    net.still_blocked(a);
    net.flush(a);
    net.now += 6_000_000;
    net.gets(a);
    net.blocks(a, wait(WaitKind::LedgerCommit, "transaction cd", None));
    net.finish(b, Err(business("no")));
    net.gets_error(a);
    net.blocks(a, Call::Sleep(60_000));
    a
}

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/v1-{name}.bin"))
}

/// Rows one after the other, each with its length: the start record, the log, the inbox.
fn pack(stored: &Stored) -> Bytes {
    let mut out = BytesMut::new();
    let bytes = |out: &mut BytesMut, bytes: &Bytes| {
        out.put_u32(bytes.len() as u32);
        out.put_slice(bytes);
    };
    out.put_i64(stored.row.0);
    bytes(&mut out, &stored.start);
    out.put_u32(stored.log.len() as u32);
    for (seq, body) in &stored.log {
        out.put_u32(*seq);
        bytes(&mut out, body);
    }
    for (session, seq, body) in &stored.inbox {
        out.put_i64(session.0);
        out.put_u32(*seq);
        bytes(&mut out, body);
    }
    out.freeze()
}

fn unpack(mut file: Bytes) -> Stored {
    let bytes = |file: &mut Bytes| {
        let length = file.get_u32() as usize;
        file.split_to(length)
    };
    let row = FlowRow(file.get_i64());
    let start = bytes(&mut file);
    let log = (0..file.get_u32()).map(|_| (file.get_u32(), bytes(&mut file))).collect();
    let mut inbox = Vec::new();
    while file.has_remaining() {
        inbox.push((SessionId(file.get_i64()), file.get_u32(), bytes(&mut file)));
    }
    Stored { row, start, log, inbox }
}

fn golden(name: &str) -> Stored {
    unpack(Bytes::from(std::fs::read(path(name)).unwrap()))
}

#[test]
#[ignore = "writes the files of the current format version"]
fn write_the_files() {
    for name in FILES {
        let mut net = Net::new(false);
        let flow = scenario(&mut net, name);
        if !path(name).exists() {
            std::fs::write(path(name), pack(&net.flows[flow].stored())).unwrap();
        }
    }
}

#[test]
fn old_journals_are_restored_and_replayed() {
    for name in FILES {
        let mut net = Net::new(false);
        let flow = scenario(&mut net, name);
        net.flows[flow].was_told("use a scheduled state", "sleep several times, or wait for a deadline");
        let now = net.tick();
        let (mut machine, step) = net.flows[flow].replayed(&golden(name), net.limits, now);
        assert_eq!(step, Step::Blocked, "{name}");
        assert!(machine.flush(now).is_empty(), "{name}");
        let killed = machine.abort(FlowError::new(ErrorKind::Killed, "killed"), ErrorId(5));
        assert_eq!(killed.error_id, Some(ErrorId(5)));
    }
}

/// Changes a few bytes, or many.
fn mutate(rng: &mut SmallRng, bytes: &Bytes) -> Bytes {
    let mut out = bytes.to_vec();
    match rng.random_range(0..4) {
        0 => out.truncate(rng.random_range(0..=out.len())),
        1 => out.extend((0..rng.random_range(1..9)).map(|_| rng.random::<u8>())),
        _ => {
            for _ in 0..rng.random_range(1..4) {
                if !out.is_empty() {
                    let at = rng.random_range(0..out.len());
                    out[at] = if rng.random() { rng.random() } else { out[at].wrapping_add(1) };
                }
            }
        }
    }
    Bytes::from(out)
}

/// The same, but with a checksum that fits.
fn mutate_sealed(rng: &mut SmallRng, record: &Bytes) -> Bytes {
    let content = mutate(rng, &record.slice(1..record.len() - 4));
    let mut out = BytesMut::from(&record[..1]);
    out.put_slice(&content);
    let sum = crc32fast::hash(&out);
    out.put_u32(sum);
    out.freeze()
}

fn mutate_stored(rng: &mut SmallRng, stored: &Stored) -> Stored {
    let mut changed = stored.clone();
    if rng.random_ratio(1, 3) {
        changed.start = mutate_sealed(rng, &stored.start);
    }
    if !changed.log.is_empty() {
        let at = rng.random_range(0..changed.log.len());
        changed.log[at].1 = mutate_sealed(rng, &stored.log[at].1);
    }
    if !changed.inbox.is_empty() && rng.random() {
        let at = rng.random_range(0..changed.inbox.len());
        let row = &mut changed.inbox[at];
        row.1 = if rng.random() { row.1 } else { rng.random() };
        row.2 = mutate(rng, &row.2);
    }
    changed
}

#[test]
fn damaged_records_are_refused() {
    let mut rng = SmallRng::seed_from_u64(7);
    for name in FILES {
        let stored = golden(name);
        for _ in 0..2_000 {
            let start = mutate(&mut rng, &stored.start);
            assert!(start == stored.start || StartRecord::decode(&start).is_err());
            for (seq, body) in &stored.log {
                let changed = mutate(&mut rng, body);
                assert!(changed == body || Segment::decode_sealed(&changed, *seq).is_err());
            }
        }
    }
}

#[test]
fn no_record_can_bring_a_machine_down() {
    let mut rng = SmallRng::seed_from_u64(8);
    let (mut restored, mut refused) = (0, 0);
    for name in FILES {
        let mut net = Net::new(false);
        let flow = scenario(&mut net, name);
        let (me, calls, stored) = (net.flows[flow].me.clone(), net.flows[flow].calls(), golden(name));
        for _ in 0..5_000 {
            match mutate_stored(&mut rng, &stored).restore(&me, Limits::default()) {
                Err(_) => refused += 1,
                Ok(mut machine) => {
                    restored += 1;
                    use_machine(&mut machine, &calls, net.now);
                }
            }
        }
    }
    assert!(restored > 1_000 && refused > 1_000, "{restored} restored, {refused} refused");
}

/// Everything an engine may do with a machine.
fn use_machine(machine: &mut maxhost_journal::Machine, calls: &[Call], now: u64) {
    for call in calls {
        machine.progress("label".to_owned()).unwrap();
        machine.now();
        match machine.begin(call.clone(), now) {
            Ok(Step::Done(_)) => {}
            Ok(_) | Err(_) => break,
        }
    }
    machine.resume(u64::MAX);
    let peer = machine.counterparty(0).map(|peer| peer.to_string());
    machine.deliver(0, u32::MAX - 1, &FrameBatch { from: peer.unwrap_or_default(), ..FrameBatch::default() });
    let _ = machine.summaries();
    machine.flush(now);
    let _ = machine.finish(Ok(Bytes::new()), ErrorId(1));
    machine.abort(FlowError::new(ErrorKind::Killed, "killed"), ErrorId(1));
    machine.flush(now);
}

#[test]
fn random_bytes_are_never_believed() {
    let mut rng = SmallRng::seed_from_u64(9);
    for length in 0..2_000 {
        let bytes: Vec<u8> = (0..length % 300).map(|_| rng.random()).collect();
        let bytes = Bytes::from(bytes);
        assert!(StartRecord::decode(&bytes).is_err());
        assert!(Segment::decode_sealed(&bytes, 0).is_err());
        let _ = FrameBatch::decode(bytes);
    }
}
