//! The session protocol: states, calls, and what a peer may do to us (docs/behaviour.md 5).

use bytes::Bytes;
use maxhost_journal::{Answer, Call, Step, WaitKind};
use maxhost_model::{ErrorKind, SessionId};

use crate::common::*;

/// Ends a responder that has nothing more to say.
fn both_return(net: &mut Net, a: usize, b: usize) {
    net.returns(a);
    net.returns(b);
}

#[test]
fn opening_a_session_sends_nothing() {
    both(|net| {
        let a = net.start("A");
        net.session(a, "B");
        assert_eq!(net.states(a), ["uninitiated"]);
        net.blocks(a, Call::Sleep(1));
        assert!(net.wire.is_empty());
        net.now += 1_000_000;
        net.gets(a);
        net.returns(a);
        assert!(net.wire.is_empty());
    });
}

#[test]
fn each_first_use_initiates() {
    let uses = [
        receive(0),
        receive_or_end(0),
        Call::ReceiveAll(vec![0]),
        Call::WaitAny { sessions: vec![0], deadline: None },
        Call::FlowInfo(0),
    ];
    for first in uses {
        both(|net| {
            let a = net.start("A");
            net.session(a, "B");
            net.blocks(a, first.clone());
            assert_eq!(net.wire, ["A→B Initial"]);
            assert_eq!(net.states(a), ["initiating"]);
        });
    }
}

#[test]
fn states_of_a_session() {
    both(|net| {
        let (a, b) = pair(net);
        assert_eq!((net.states(a), net.states(b)), (vec!["initiated"], vec!["initiated"]));
        net.returns(b);
        assert_eq!(net.states(a), ["initiated"], "the flow has not looked yet");
        assert_eq!(net.ok(a, receive_or_end(0)), Answer::Ended);
        assert_eq!(net.states(a), ["ended"]);
        assert_eq!(net.ok(a, receive_or_end(0)), Answer::Ended, "and again");
        for call in [receive(0), send(0, "x"), ask(0, "x"), Call::FlowInfo(0), Call::ReceiveAll(vec![0])] {
            assert_eq!(net.fails(a, call).kind, ErrorKind::UnexpectedEnd);
        }
        net.ok(a, Call::Close(vec![0]));
        assert_eq!(net.ok(a, Call::WaitAny { sessions: vec![0], deadline: None }), Answer::Ready(Some(0)));
        net.returns(a);
        assert_eq!(net.wire, ["B→A End"], "a peer that has ended is told nothing");
    });
}

#[test]
fn sends_before_the_confirmation_are_held_back_and_flushed_in_order() {
    both(|net| {
        let a = net.start("A");
        net.session(a, "B");
        net.ok(a, send(0, "1"));
        net.ok(a, send(0, "2"));
        net.ok(a, Call::Send(vec![(0, Bytes::from("3")), (0, Bytes::from("4"))]));
        net.blocks(a, Call::Sleep(1_000));
        assert_eq!(net.wire, ["A→B Initial(1)"]);
        let b = net.respond();
        assert_eq!(net.wire[1..], ["B→A Confirm", "A→B Data(2)", "A→B Data(3)", "A→B Data(4)"], "though it sleeps");
        for expected in ["1", "2", "3", "4"] {
            assert_eq!(net.ok(b, receive(0)), message(expected));
        }
    });
}

#[test]
fn one_send_may_name_a_new_session_twice() {
    both(|net| {
        let a = net.start("A");
        net.session(a, "B");
        net.ok(a, Call::Send(vec![(0, Bytes::from("1")), (0, Bytes::from("2"))]));
        net.blocks(a, receive(0));
        let b = net.respond();
        assert_eq!(net.ok(b, receive(0)), message("1"));
        assert_eq!(net.ok(b, receive(0)), message("2"));
    });
}

#[test]
fn data_before_an_end_stays_receivable() {
    both(|net| {
        let (a, b) = pair(net);
        net.ok(b, send(0, "1"));
        net.ok(b, send(0, "2"));
        net.returns(b);
        assert_eq!(net.ok(a, receive(0)), message("1"));
        net.ok(a, send(0, "into the void"));
        assert_eq!(net.ok(a, receive(0)), message("2"));
        let error = net.fails(a, receive(0));
        assert_eq!((error.kind, error.peer.as_deref()), (ErrorKind::UnexpectedEnd, Some("B")));
    });
}

#[test]
fn a_flow_that_only_sends_is_not_disturbed_by_an_early_end() {
    both(|net| {
        let (a, b) = pair(net);
        net.returns(b);
        net.ok(a, send(0, "1"));
        net.ok(a, send(0, "2"));
        net.returns(a);
    });
}

#[test]
fn a_flow_that_has_received_learns_of_the_end_when_it_sends() {
    both(|net| {
        let (a, b) = pair(net);
        net.ok(b, send(0, "1"));
        net.flush(b);
        assert_eq!(net.ok(a, receive(0)), message("1"));
        net.returns(b);
        assert_eq!(net.fails(a, send(0, "x")).kind, ErrorKind::UnexpectedEnd);
        assert_eq!(net.states(a), ["ended"]);
    });
}

#[test]
fn send_and_receive_on_an_ended_session_does_not_send() {
    both(|net| {
        let (a, b) = pair(net);
        net.returns(b);
        assert_eq!(net.fails(a, ask(0, "x")).kind, ErrorKind::UnexpectedEnd);
        net.returns(a);
        assert_eq!(net.wire, ["B→A End"], "nothing was waiting to be sent either");
    });
}

#[test]
fn whether_a_flow_only_sends_is_remembered_when_it_comes_back() {
    for asked in [receive(0), receive_or_end(0), ask(0, "x"), Call::ReceiveAll(vec![0])] {
        both(|net| {
            let (a, b) = pair(net);
            net.ok(b, send(0, "1"));
            net.flush(b);
            net.ok(a, asked.clone());
            net.blocks(a, Call::Sleep(0));
            net.gets(a);
            net.returns(b);
            assert_eq!(net.fails(a, send(0, "x")).kind, ErrorKind::UnexpectedEnd, "{asked:?}");
        });
    }
    both(|net| {
        let (a, b) = pair(net);
        net.returns(b);
        assert_eq!(net.ok(a, Call::WaitAny { sessions: vec![0], deadline: None }), Answer::Ready(Some(0)));
        net.blocks(a, Call::Sleep(0));
        net.gets(a);
        assert_eq!(net.fails(a, send(0, "x")).kind, ErrorKind::UnexpectedEnd, "it has looked for an answer");
    });
}

#[test]
fn frames_that_travel_together_are_bounded() {
    both(|net| {
        let (a, b) = pair(net);
        let payloads: Vec<Bytes> = [100, 100, 100, 400, 1].map(|kib| Bytes::from(vec![b'x'; kib << 10])).to_vec();
        net.held = Some(Vec::new());
        net.ok(b, Call::Send(payloads.iter().map(|payload| (0, payload.clone())).collect()));
        net.flush(b);
        let held = net.held.take().unwrap();
        let shape: Vec<(u32, usize)> = held.iter().map(|(_, seq, batch)| (*seq, batch.frames.len())).collect();
        assert_eq!(shape, [(1, 2), (3, 1), (4, 1), (5, 1)], "a larger one travels alone");
        for (session, seq, batch) in held.iter().rev() {
            net.deliver(*session, *seq, batch);
        }
        for payload in payloads {
            assert_eq!(net.ok(a, receive(0)), Answer::Message(payload));
        }
    });
}

#[test]
fn closing() {
    both(|net| {
        let a = net.start("A");
        let session = net.session(a, "B");
        assert_eq!(net.fails(a, Call::Close(vec![session])).kind, ErrorKind::PrematureClose);
        net.ok(a, send(session, "1"));
        assert_eq!(net.fails(a, Call::Close(vec![session])).kind, ErrorKind::PrematureClose);
        net.blocks(a, Call::FlowInfo(session));
        let b = net.respond();
        net.gets(a);
        net.ok(b, send(0, "unread"));
        net.flush(b);
        net.ok(a, Call::Close(vec![session]));
        net.ok(a, Call::Close(vec![session, session]));
        assert_eq!(net.states(a), ["closed"]);
        for call in [receive(0), receive_or_end(0), send(0, "x"), ask(0, "x"), Call::FlowInfo(0)] {
            assert_eq!(net.fails(a, call).kind, ErrorKind::UnexpectedEnd);
        }
        net.blocks(a, Call::Sleep(0));
        net.gets(a);
        assert_eq!(net.ok(b, receive(0)), message("1"));
        assert_eq!(net.ok(b, receive_or_end(0)), Answer::Ended);
        both_return(net, a, b);
        assert_eq!(net.wire.iter().filter(|line| line.contains("End")).count(), 1, "one End, not two");
    });
}

#[test]
fn what_was_received_before_a_close_is_received_again_in_a_replay() {
    both(|net| {
        let (a, b) = pair(net);
        net.ok(b, send(0, "kept"));
        net.flush(b);
        assert_eq!(net.ok(a, receive(0)), message("kept"));
        net.ok(a, Call::Close(vec![0]));
        net.blocks(a, Call::Sleep(0));
        net.replay(a);
        assert_eq!(net.gets(a), Answer::Done);
    });
}

#[test]
fn closing_a_session_that_failed_or_was_rejected() {
    both(|net| {
        let (a, b) = pair(net);
        net.finish(b, Err(business("no")));
        net.wire.clear();
        net.ok(a, Call::Close(vec![0]));
        net.returns(a);
        assert!(net.wire.is_empty(), "a failed peer gets no End");

        let a = net.start("A");
        net.session(a, "B");
        net.ok(a, send(0, "1"));
        net.blocks(a, Call::Sleep(0));
        net.reject("no such flow");
        net.gets(a);
        assert_eq!(net.fails(a, Call::Close(vec![0])).message, "no such flow");
        net.returns(a);
    });
}

#[test]
fn flow_info_of_both_sides() {
    both(|net| {
        let a = net.start("A");
        net.session(a, "B");
        net.blocks(a, Call::FlowInfo(0));
        let b = net.respond();
        let info = Answer::FlowInfo { version: 3, app: "test-app".to_owned() };
        assert_eq!(net.gets(a), info);
        assert_eq!(net.ok(b, Call::FlowInfo(0)), info);
        assert_eq!(net.fails(b, Call::FlowInfo(1)).kind, ErrorKind::IllegalArgument);
        net.finish(b, Err(business("no")));
        assert_eq!(net.fails(a, Call::FlowInfo(0)).message, "no", "asking is a use of the session");
    });
}

#[test]
fn a_self_session_works() {
    both(|net| {
        let a = net.start("A");
        net.session(a, "A");
        net.blocks(a, ask(0, "1"));
        let b = net.respond();
        assert_eq!(net.ok(b, receive(0)), message("1"));
        net.ok(b, send(0, "2"));
        net.returns(b);
        assert_eq!(net.gets(a), message("2"));
        net.returns(a);
    });
}

#[test]
fn a_flow_that_ends_waits_for_its_confirmations() {
    both(|net| {
        let a = net.start("A");
        net.session(a, "B");
        net.session(a, "C");
        net.ok(a, send(0, "1"));
        net.ok(a, send(1, "1"));
        net.ok(a, send(1, "2"));
        assert_eq!(net.finish(a, Ok("done")), Step::Blocked);
        let wait = net.flows[a].machine.wait().unwrap();
        assert_eq!((wait.kind, wait.sessions), (WaitKind::Confirmation, vec![0, 1]));
        net.respond();
        net.still_blocked(a);
        let c = net.respond();
        assert!(net.flows[a].machine.wait().is_none(), "written down now, it must not seem to wait for anything");
        assert_eq!(net.gets(a), message("done"));
        assert_eq!(net.ok(c, receive(0)), message("1"));
        assert_eq!(net.ok(c, receive(0)), message("2"));
        assert_eq!(net.ok(c, receive_or_end(0)), Answer::Ended);
    });
}

#[test]
fn a_waiting_flow_is_woken_by_what_concerns_it_only() {
    both(|net| {
        let a = net.start("A");
        net.session(a, "B");
        net.session(a, "C");
        net.ok(a, send(1, "1"));
        net.ok(a, send(1, "held"));
        net.blocks(a, receive(0));
        let segment = net.last_segment(a);
        assert!(segment.is_news(0, 0), "the session it waits for");
        assert!(segment.is_news(1, 0), "a confirmation sets free what is held back");
        let c = net.respond();
        assert_eq!(net.last_segment(a).entries(), 1, "the confirmation of C");
        let b = net.respond();
        net.still_blocked(a);
        net.ok(c, send(0, "not asked for"));
        net.flush(c);
        let segment = net.last_segment(a);
        assert!(!segment.is_news(1, 1), "a session it does not wait for");
        assert!(!segment.is_news(0, 0), "seen already");
        assert!(segment.is_news(0, 1));
        net.ok(b, send(0, "x"));
        net.flush(b);
        assert_eq!(net.gets(a), message("x"));
    });
}

#[test]
fn sessions_out_of_range_are_illegal_arguments() {
    both(|net| {
        let a = net.start("A");
        let wait = Call::WaitAny { sessions: vec![4], deadline: None };
        for call in [receive(4), send(4, "x"), ask(4, "x"), Call::Close(vec![4]), Call::FlowInfo(4), wait] {
            let error = net.fails(a, call);
            assert_eq!(error.kind, ErrorKind::IllegalArgument);
            assert!(error.message.contains("no session 4"), "{}", error.message);
        }
        net.blocks(a, Call::Sleep(0));
    });
}

#[test]
fn confirmations_name_the_responders_session() {
    both(|net| {
        let a = net.start("A");
        net.session(a, "B");
        net.blocks(a, receive(0));
        let (_, initiation) = net.initiations.front().unwrap();
        assert_eq!(SessionId(initiation.from_session), net.flows[a].row.session(0));
        assert_eq!((initiation.protocol.as_str(), initiation.version), ("test-app/flow", 3));
        assert_eq!(initiation.app, "test-app");
        let b = net.respond();
        assert_eq!(net.flows[b].machine.counterparty(0).map(|peer| peer.to_string()), Some("A".to_owned()));
    });
}
