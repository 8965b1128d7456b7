//! The journal: what a replay answers, where it differs, what is written, limits, and damaged records.

use bytes::{BufMut, Bytes, BytesMut};
use maxhost_journal::{Answer, Call, JournalError, Limits, MAX_LABEL, Machine, Origin, Segment, StartRecord, Step};
use maxhost_model::{ErrorId, ErrorKind, FlowError};

use crate::common::*;

fn restore(net: &Net, flow: usize) -> Result<Machine, JournalError> {
    let it = &net.flows[flow];
    Machine::restore(it.me.clone(), it.row, &it.start, net.limits, &it.log, &it.inbox)
}

/// A flow that made this one call, and its restored machine.
fn after(net: &mut Net, call: Call) -> (usize, Machine) {
    let a = net.start("A");
    net.session(a, "B");
    net.ok(a, send(0, "first"));
    net.blocks(a, Call::FlowInfo(0));
    let b = net.respond();
    net.gets(a);
    net.ok(b, send(0, "reply"));
    net.flush(b);
    match net.call(a, call) {
        Step::Blocked => {
            net.gets(a);
        }
        step => assert!(matches!(step, Step::Done(_)), "{step:?}"),
    }
    net.blocks(a, Call::Sleep(0));
    let machine = restore(net, a).unwrap();
    (a, machine)
}

fn replay_start(machine: &mut Machine, now: u64) {
    for call in [open("B"), send(0, "first"), Call::FlowInfo(0)] {
        machine.begin(call, now).unwrap();
    }
}

#[test]
fn a_different_request_is_a_divergence_that_names_both() {
    let table = [
        (open("C"), "open a session with C under test-app/flow version 3"),
        (send(0, "x"), "send 1 bytes (digest "),
        (Call::Send(vec![(0, "x".into()), (0, "yz".into())]), " on session 0, 2 bytes (digest "),
        (ask(0, "hello"), "send and receive 5 bytes (digest "),
        (receive(0), "receive on session 0"),
        (receive_or_end(0), "receive or end on session 0"),
        (Call::ReceiveAll(vec![0]), "receive on all of sessions [0]"),
        (Call::WaitAny { sessions: vec![0], deadline: Some(9) }, "wait for any of sessions [0] until 9"),
        (Call::WaitAny { sessions: vec![0], deadline: None }, "wait for any of sessions [0]"),
        (Call::Close(vec![0]), "close sessions [0]"),
        (Call::FlowInfo(0), "flow info of session 0"),
        (Call::Sleep(0), "sleep 0 ms"),
    ];
    for (index, (call, expected)) in table.iter().enumerate() {
        both(|net| {
            let (_, mut machine) = after(net, call.clone());
            replay_start(&mut machine, net.now);
            let (other, actual) = &table[(index + 1) % table.len()];
            let divergence = machine.begin(other.clone(), net.now).unwrap_err();
            assert_eq!(divergence.position, 3);
            assert!(divergence.expected.contains(expected), "{divergence}");
            assert!(divergence.actual.contains(actual), "{divergence}");
            assert!(divergence.to_string().starts_with("replay differs at entry 3: expected "));

            let (_, mut machine) = after(net, call.clone());
            replay_start(&mut machine, net.now);
            let divergence = machine.finish(Ok(Bytes::new()), ErrorId(1)).unwrap_err();
            assert!(divergence.expected.contains(expected), "{divergence}");
            assert_eq!(divergence.actual, "the end of the flow");

            let (_, mut machine) = after(net, call.clone());
            replay_start(&mut machine, net.now);
            let divergence = machine.note("the time", Bytes::new).unwrap_err();
            assert_eq!(divergence.actual, "ask the time");
        });
    }
}

#[test]
fn other_arguments_are_a_divergence() {
    let table = [
        (send(0, "x"), send(0, "y")),
        (send(0, "x"), Call::Send(vec![(0, "x".into()), (0, "x".into())])),
        (send(0, "x"), ask(0, "x")),
        (ask(0, "x"), send(0, "x")),
        (open("C"), open("D")),
        (open("C"), Call::OpenSession { protocol: "test-app/flow".into(), version: 4, party: "C".into() }),
        (open("C"), Call::OpenSession { protocol: "test-app/other".into(), version: 3, party: "C".into() }),
        (receive(0), receive(1)),
        (receive(0), receive_or_end(0)),
        (
            Call::WaitAny { sessions: vec![0], deadline: Some(1) },
            Call::WaitAny { sessions: vec![0], deadline: Some(2) },
        ),
        (Call::Sleep(0), Call::Sleep(1)),
    ];
    for (made, other) in table {
        both(|net| {
            let (_, mut machine) = after(net, made.clone());
            replay_start(&mut machine, net.now);
            let divergence = machine.begin(other.clone(), net.now).unwrap_err();
            assert_ne!(divergence.expected, divergence.actual, "a person sees the difference");
        });
    }
}

#[test]
fn the_second_half_of_a_call_is_held_against_the_log_too() {
    both(|net| {
        let (a, _) = after(net, ask(0, "x"));
        let it = &net.flows[a];
        let mut machine = restore(net, a).unwrap();
        replay_start(&mut machine, net.now);
        assert_eq!(machine.begin(ask(0, "x"), net.now), Ok(Step::Done(Ok(message("reply")))));
        assert_eq!(machine.begin(Call::Sleep(0), net.now), Ok(Step::Blocked));
        assert!(!machine.is_replaying());
        assert_eq!(machine.wait(), it.machine.wait());
    });
}

#[test]
fn a_party_that_is_gone_today_does_not_disturb_the_replay() {
    both(|net| {
        let a = net.start("A");
        net.session(a, "B");
        net.blocks(a, Call::Sleep(0));
        let mut machine = restore(net, a).unwrap();
        let error = Box::new(FlowError::new(ErrorKind::IllegalArgument, "there is no party B"));
        let call = Call::RefuseSession { party: "B".to_owned(), error: error.clone() };
        assert_eq!(machine.begin(call, net.now), Ok(Step::Done(Ok(Answer::Session(0)))));
        let mut machine = restore(net, a).unwrap();
        let call = Call::RefuseSession { party: "C".to_owned(), error };
        assert!(machine.begin(call, net.now).is_err());
    });
}

#[test]
fn a_replayed_guest_knows_the_sessions_it_has_opened_so_far() {
    both(|net| {
        let a = net.start("A");
        net.session(a, "B");
        net.session(a, "C");
        net.blocks(a, Call::Sleep(0));
        let mut machine = restore(net, a).unwrap();
        for opened in 0..3 {
            let known = (0..3).filter(|&session| machine.counterparty(session).is_some()).count();
            assert_eq!(known, opened);
            machine.begin(open(["B", "C", "D"][opened]), net.now).ok();
        }
        let named = |session| machine.counterparty(session).map(|peer| peer.to_string());
        assert_eq!((named(0), named(1)), (Some("B".to_owned()), Some("C".to_owned())));
    });
}

#[test]
fn notes_are_asked_once() {
    both(|net| {
        let a = net.start("A");
        assert_eq!(net.note(a, "party Bob", "here"), "here");
        assert_eq!(net.note(a, "party Bob", "moved"), "moved", "each time it is asked");
        net.blocks(a, Call::Sleep(0));
        let mut machine = restore(net, a).unwrap();
        assert_eq!(machine.note("party Bob", || panic!("asked again")).unwrap(), "here");
        let divergence = machine.note("party Carol", Bytes::new).unwrap_err();
        assert_eq!((divergence.expected.as_str(), divergence.actual.as_str()), ("ask party Bob", "ask party Carol"));
    });
}

#[test]
fn time_and_randomness_are_the_same_again_and_cost_nothing() {
    both(|net| {
        let a = net.start("A");
        let times = [net.now(a), net.now(a)];
        assert!(times[0] < times[1] && times[0] > EPOCH);
        assert_ne!(net.random(a, 16), net.random(a, 16));
        net.blocks(a, Call::Sleep(0));
        net.gets(a);
        assert!(net.now(a) > times[1] + 100, "the time of the last event");
        assert!(net.random(a, 0).is_empty());
        net.random(a, 3);
        net.blocks(a, Call::Sleep(0));
        net.replay(a);
        assert_eq!(net.flows[a].machine.entries(), 3, "of sleeping alone");
    });
}

#[test]
fn randomness_is_that_of_the_seed() {
    let draw = |seed: u8| {
        let start = StartRecord { seed: [seed; 32], ..start_record("flow", rpc(), EPOCH) };
        Machine::start("A".into(), maxhost_model::FlowRow(1), &start, Limits::default()).random(32)
    };
    assert_eq!(draw(1), draw(1));
    assert_ne!(draw(1), draw(2), "nobody can tell one flow's numbers from another's");
}

#[test]
fn labels_are_numbered_once() {
    both(|net| {
        let a = net.start("A");
        net.progress(a, "one");
        net.progress(a, "two");
        net.blocks(a, Call::Sleep(0));
        net.gets(a);
        net.progress(a, "three");
        net.blocks(a, Call::Sleep(0));
        net.replay(a);
        net.gets(a);
        net.progress(a, "");
        net.progress(a, &"é".repeat(300));
        net.blocks(a, Call::Sleep(0));
        let cut = "é".repeat(MAX_LABEL);
        let expected = [(1, "one"), (2, "two"), (3, "three"), (4, ""), (5, &cut)];
        assert_eq!(net.flows[a].progress, expected.map(|(number, label)| (number, label.to_owned())));
        assert_eq!(net.flows[a].machine.label(), Some(cut.as_str()));
        assert_eq!(net.last_segment(a).progress, ["", &cut]);
    });
}

#[test]
fn labels_alone_fall_due_and_run_into_the_limit() {
    let start = start_record("flow", rpc(), EPOCH);
    let limits = Limits { bytes: 1 << 20, ..Limits::default() };
    let mut machine = Machine::start("A".into(), maxhost_model::FlowRow(1), &start, limits);
    let mut labels = 0;
    while machine.exceeded().is_none() {
        assert!(labels < 1 << 20, "labels without text count too");
        machine.progress(String::new()).unwrap();
        labels += 1;
        if machine.is_flush_due() {
            machine.flush(EPOCH);
        }
    }
    assert!(labels > 1_000);
}

#[test]
fn catching_up_lasts_until_the_first_new_call() {
    both(|net| {
        let a = net.start("A");
        assert!(!net.flows[a].machine.is_catching_up());
        net.session(a, "B");
        net.blocks(a, Call::Sleep(0));
        net.gets(a);
        net.blocks(a, receive(0));
        let mut machine = restore(net, a).unwrap();
        assert!(machine.is_replaying() && machine.is_catching_up());
        machine.begin(open("B"), net.now).unwrap();
        machine.begin(Call::Sleep(0), net.now).unwrap();
        assert!(!machine.is_replaying() && machine.is_catching_up(), "what it logs now, it has logged");
        machine.begin(receive(0), net.now).unwrap();
        assert!(!machine.is_catching_up());
    });
}

#[test]
fn catching_up_ends_with_an_answer_that_no_earlier_life_had() {
    for asked in [Call::Sleep(0), ask(0, "x")] {
        let mut net = Net::new(false);
        let a = net.start("A");
        net.session(a, "B");
        net.blocks(a, asked.clone());
        net.replay(a);
        assert!(net.flows[a].machine.is_catching_up(), "{asked:?}");
        if asked != Call::Sleep(0) {
            let b = net.respond();
            net.ok(b, send(0, "1"));
            net.flush(b);
        }
        net.gets(a);
        assert!(!net.flows[a].machine.is_catching_up(), "what it logs behind {asked:?} is new");
    }
}

#[test]
fn a_long_run_falls_due() {
    both(|net| {
        let a = net.start("A");
        net.session(a, "B");
        net.blocks(a, receive(0));
        net.respond();
        for sent in 1.. {
            net.flows[a].machine.abort(panicked(), ErrorId(1));
            let mut machine = Machine::start("A".into(), net.flows[a].row, &net.flows[a].start, net.limits);
            machine.begin(open("B"), net.now).unwrap();
            for _ in 0..sent {
                machine.begin(Call::Send(vec![(0, Bytes::from(vec![0; 100 * 1024]))]), net.now).unwrap();
            }
            if machine.is_flush_due() {
                assert_eq!(sent, 3, "by the bytes that it sends");
                let flush = machine.flush(net.now);
                assert_eq!((flush.segment.is_some(), flush.outgoing.len()), (true, 1));
                assert!(!machine.is_flush_due() && !machine.is_dirty());
                break;
            }
        }
        let mut machine = Machine::start("A".into(), net.flows[a].row, &net.flows[a].start, net.limits);
        machine.begin(open("B"), net.now).unwrap();
        for entry in 1..128 {
            assert!(!machine.is_flush_due(), "{entry}");
            machine.begin(send(0, ""), net.now).unwrap();
        }
        assert!(machine.is_flush_due(), "by its entries");
    });
}

#[test]
fn the_message_limit_refuses_the_message_only() {
    both(|net| {
        net.limits = Limits { message: 10, ..Limits::default() };
        let a = net.start("A");
        net.session(a, "B");
        for call in [send(0, "12345678901"), ask(0, "12345678901")] {
            let error = net.fails(a, call);
            assert_eq!((error.kind, error.limit.as_deref()), (ErrorKind::Limit, Some("message")));
        }
        assert_eq!(net.states(a), ["uninitiated"]);
        net.ok(a, send(0, "1234567890"));
        net.blocks(a, receive(0));
    });
}

#[test]
fn the_journal_limit_ends_the_flow() {
    both(|net| {
        net.limits = Limits { entries: 5, ..Limits::default() };
        let a = net.start("A");
        for _ in 0..2 {
            net.blocks(a, Call::Sleep(0));
            net.gets(a);
        }
        net.session(a, "B");
        let Step::Over(error) = net.call(a, send(0, "x")) else { panic!("not over") };
        assert_eq!((error.kind, error.limit.as_deref()), (ErrorKind::Limit, Some("journal")));
        assert!(error.message.contains("5 journal entries"), "{error}");
        net.abort(a, error);

        net.limits = Limits { bytes: 10_000, ..Limits::default() };
        let a = net.start("A");
        net.session(a, "B");
        net.blocks(a, receive(0));
        let b = net.respond();
        net.still_blocked(a);
        net.ok(b, send(0, &"x".repeat(6_000)));
        net.ok(b, send(0, &"x".repeat(6_000)));
        net.flush(b);
        let Step::Over(error) = net.resume(a) else { panic!("not over") };
        assert_eq!(error.limit.as_deref(), Some("journal"), "a peer may not fill it either");
        net.abort(a, error);
        assert_eq!(net.wire.last().map(String::as_str), Some("A→B Error"));
    });
}

#[test]
fn the_session_limit_ends_the_flow() {
    both(|net| {
        net.limits = Limits { sessions: 2, ..Limits::default() };
        let a = net.start("A");
        net.session(a, "B");
        net.session(a, "B");
        let Step::Over(error) = net.call(a, open("B")) else { panic!("not over") };
        assert_eq!(error.limit.as_deref(), Some("sessions"));
    });
}

#[test]
fn bytes_count_the_same_after_a_restore() {
    both(|net| {
        let (a, machine) = after(net, receive(0));
        assert_eq!(machine.bytes(), net.flows[a].machine.bytes());
        assert_eq!(machine.entries(), net.flows[a].machine.entries());
        assert!(machine.bytes() > 100);
    });
}

/// A record with its checksum made right again.
fn sealed(mut record: Vec<u8>) -> Bytes {
    record.truncate(record.len() - 4);
    let mut out = BytesMut::from(record.as_slice());
    out.put_u32(crc32fast::hash(&record));
    out.freeze()
}

fn reason(result: Result<Machine, JournalError>) -> String {
    result.err().expect("an error").to_string()
}

#[test]
fn damaged_and_missing_records_are_told_apart() {
    both(|net| {
        let (a, _) = after(net, receive(0));
        let log = net.flows[a].log.clone();
        assert!(log.len() >= 3, "{}", log.len());

        let mut bytes = log[1].1.to_vec();
        bytes[3] ^= 1;
        net.flows[a].log[1].1 = Bytes::from(bytes);
        assert_eq!(reason(restore(net, a)), "journal record segment 1 is damaged: its checksum does not match");

        net.flows[a].log[1].1 = Bytes::new();
        assert_eq!(reason(restore(net, a)), "journal record segment 1 is damaged: it is empty");
        net.flows[a].log[1].1 = log[1].1.slice(..4);
        assert_eq!(reason(restore(net, a)), "journal record segment 1 is damaged: it is cut short");

        let mut bytes = log[1].1.to_vec();
        bytes[0] = 2;
        net.flows[a].log[1].1 = sealed(bytes);
        let error = restore(net, a).err().unwrap();
        assert_eq!(error, JournalError::Version { what: "segment 1".to_owned(), found: 2 });

        net.flows[a].log = [&log[..1], &log[2..]].concat();
        assert!(reason(restore(net, a)).contains("segment 1 is missing, segment 2 is there"));

        net.flows[a].log = log.clone();
        let inbox = std::mem::take(&mut net.flows[a].inbox);
        let text = reason(restore(net, a));
        assert!(text.contains("message 1 of session 0 was consumed, but is not in the inbox"), "{text}");

        net.flows[a].inbox = inbox;
        net.flows[a].inbox[0].2 = Bytes::from_static(b"\xff\xff");
        assert!(matches!(restore(net, a), Err(JournalError::Corrupt { .. })));
    });
}

#[test]
fn a_log_that_contradicts_its_inbox_is_refused() {
    both(|net| {
        let a = net.start("A");
        net.session(a, "B");
        net.blocks(a, receive(0));
        let b = net.respond();
        net.finish(b, Err(business("no")));
        net.gets_error(a);
        net.blocks(a, Call::Sleep(0));
        net.flows[a].inbox.retain(|(_, seq, _)| *seq == 0);
        let text = reason(restore(net, a));
        assert!(text.contains("session 0 was over, but its end is not in the inbox"), "{text}");
    });
}

#[test]
fn a_kind_of_entry_from_a_newer_host_is_refused() {
    both(|net| {
        let a = net.start("A");
        net.session(a, "B");
        net.blocks(a, Call::Sleep(0));
        // An item (tag 1) with a field that this host does not know (tag 99, varint).
        let record = [&[1_u8, 0x0a, 0x03, 0x98, 0x06, 0x01][..], &[0; 4]].concat();
        net.flows[a].log.push((1, sealed(record)));
        assert!(reason(restore(net, a)).contains("an entry of a kind this host does not know"));
    });
}

#[test]
fn start_records_survive_their_encoding() {
    let mut start = start_record("flow", rpc(), EPOCH);
    assert_eq!(StartRecord::decode(&start.encode()), Ok(start.clone()));
    start.origin = Origin::Peer(maxhost_journal::Initiation {
        from: "A".to_owned(),
        from_session: 77,
        protocol: "app/flow".to_owned(),
        version: 2,
        app: "app".to_owned(),
        payload: Some(Bytes::from_static(b"hello")),
        from_token: 5,
    });
    assert_eq!(StartRecord::decode(&start.encode()), Ok(start));
    assert!(StartRecord::decode(&Bytes::from_static(b"nonsense")).is_err());
    assert!(matches!(Segment::decode_sealed(&Bytes::new(), 3), Err(JournalError::Corrupt { .. })));
}

#[test]
fn a_responder_that_never_ran_is_restored_with_its_session() {
    both(|net| {
        let a = net.start("A");
        net.session(a, "B");
        net.blocks(a, ask(0, "hello"));
        let b = net.respond();
        assert!(net.flows[b].log.is_empty(), "nothing but its confirmation happened");
        let mut machine = restore(net, b).unwrap();
        assert!(!machine.is_dirty() && !machine.is_catching_up());
        assert_eq!(machine.begin(receive(0), net.now), Ok(Step::Done(Ok(message("hello")))));
    });
}
