//! How errors travel between flows and what a kill does (docs/behaviour.md 4).

use bytes::Bytes;
use maxhost_journal::wire::{Confirm, FrameKind};
use maxhost_journal::{Answer, Call, Delivery, Frame, Limits, Step};
use maxhost_model::{ErrorId, ErrorKind, FlowError};

use crate::common::*;

/// An initiator with a confirmed session to each of these.
fn initiator(net: &mut Net, peers: &[&str]) -> (usize, Vec<usize>) {
    let a = net.start("A");
    let mut responders = Vec::new();
    for (index, peer) in peers.iter().enumerate() {
        net.session(a, peer);
        net.blocks(a, Call::FlowInfo(index as u32));
        responders.push(net.respond());
        net.gets(a);
    }
    net.wire.clear();
    (a, responders)
}

fn over(step: Step) -> FlowError {
    match step {
        Step::Over(error) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_business_error_reaches_the_peer_whole_at_its_next_use_of_the_session() {
    both(|net| {
        let (a, peers) = initiator(net, &["B"]);
        let own = over(net.finish(peers[0], Err(business("out of stock"))));
        assert_eq!((own.error_id, own.peer), (Some(ErrorId(101)), None));
        net.blocks(a, Call::Sleep(0));
        assert_eq!(net.gets(a), Answer::Done, "a flow that does not touch the session goes on");
        let received = net.fails(a, receive(0));
        let expected =
            FlowError { error_id: Some(ErrorId(101)), peer: Some("B".to_owned()), ..business("out of stock") };
        assert_eq!(received, expected);
        assert_eq!(net.fails(a, receive(0)).kind, ErrorKind::UnexpectedEnd, "the exception is told once");
    });
}

#[test]
fn every_use_of_a_session_tells_its_error() {
    let uses = [receive(0), receive_or_end(0), send(0, "x"), ask(0, "x"), Call::FlowInfo(0), Call::ReceiveAll(vec![0])];
    for call in uses {
        both(|net| {
            let (a, peers) = initiator(net, &["B"]);
            net.finish(peers[0], Err(business("no")));
            let wait = Call::WaitAny { sessions: vec![0], deadline: None };
            assert_eq!(net.ok(a, wait), Answer::Ready(Some(0)), "an error is something to receive");
            assert_eq!(net.fails(a, call.clone()).message, "no");
            assert_eq!(net.states(a), ["errored"]);
            net.returns(a);
            assert_eq!(net.wire, ["B→A Error(no)"]);
        });
    }
}

#[test]
fn any_other_error_reaches_the_peer_as_its_number_only() {
    let limit = FlowError::limit("memory", "the secret reason");
    for error in [panicked(), limit, FlowError::new(ErrorKind::IllegalState, "the secret reason")] {
        both(|net| {
            let (a, peers) = initiator(net, &["B"]);
            let own = over(net.finish(peers[0], Err(error.clone())));
            assert_eq!((own.kind, own.message.as_str()), (error.kind, "the secret reason"));
            let received = net.fails(a, receive(0));
            assert_eq!((received.kind, received.error_id), (ErrorKind::UnexpectedEnd, own.error_id));
            assert_eq!(received.peer.as_deref(), Some("B"));
            assert!(!received.message.contains("secret") && received.limit.is_none(), "{received}");
        });
    }
}

#[test]
fn data_sent_before_an_error_is_received_before_it() {
    both(|net| {
        let (a, peers) = initiator(net, &["B"]);
        net.ok(peers[0], send(0, "1"));
        net.finish(peers[0], Err(business("no")));
        net.ok(a, send(0, "the error is behind the data"));
        assert_eq!(net.ok(a, receive(0)), message("1"));
        assert_eq!(net.fails(a, receive(0)).message, "no");
    });
}

#[test]
fn a_received_exception_is_not_forwarded() {
    both(|net| {
        let (a, peers) = initiator(net, &["B", "C"]);
        net.finish(peers[0], Err(business("of B")));
        let received = net.fails(a, receive(0));
        let own = over(net.finish(a, Err(received.clone())));
        assert_eq!(own, received, "our caller sees the exception, its sender and its number");
        assert_eq!(net.wire, ["B→A Error(of B)", "A→C Error"], "nothing to the session it came from");
        let at_c = net.fails(peers[1], receive(0));
        assert_eq!((at_c.kind, at_c.error_id), (ErrorKind::UnexpectedEnd, received.error_id));
        assert_eq!(at_c.peer.as_deref(), Some("A"));
    });
}

#[test]
fn a_peer_that_failed_is_told_nothing_though_nobody_looked() {
    for (outcome, to_the_other) in [(Ok("done"), "A→C End"), (Err(business("of A")), "A→C Error(of A)")] {
        both(|net| {
            let (a, peers) = initiator(net, &["B", "C"]);
            net.finish(peers[0], Err(business("of B")));
            net.wire.clear();
            net.finish(a, outcome.clone());
            assert_eq!(net.wire, [to_the_other]);
        });
    }
}

#[test]
fn a_flow_cannot_claim_that_a_peer_threw() {
    both(|net| {
        let (a, _) = initiator(net, &["B"]);
        let claimed = FlowError { peer: Some("B".to_owned()), error_id: Some(ErrorId(4)), ..business("invented") };
        let own = over(net.finish(a, Err(claimed)));
        assert_eq!((own.peer, own.error_id), (None, Some(ErrorId(4))));
        assert_eq!(net.wire, ["A→B Error(invented)"], "it is our own");
    });
}

#[test]
fn a_caught_exception_does_no_harm() {
    both(|net| {
        let (a, peers) = initiator(net, &["B", "C"]);
        net.finish(peers[0], Err(business("no")));
        net.fails(a, receive(0));
        net.ok(a, send(1, "go on"));
        net.returns(a);
        assert_eq!(net.wire, ["B→A Error(no)", "A→C Data(go on)", "A→C End"]);
    });
}

#[test]
fn an_exception_too_big_to_send_goes_plain() {
    both(|net| {
        net.limits = Limits { message: 64, ..Limits::default() };
        let (a, peers) = initiator(net, &["B"]);
        net.finish(peers[0], Err(FlowError { data: Some(vec![0; 100]), ..business("too much data") }));
        let received = net.fails(a, receive(0));
        assert_eq!((received.kind, received.message.as_str()), (ErrorKind::FlowException, "too much data"));
        assert_eq!((received.data, received.exception), (None, None));

        let (a, peers) = initiator(net, &["B"]);
        let own = over(net.finish(peers[0], Err(business(&"é".repeat(100)))));
        assert_eq!(own.message.len(), 200, "our caller sees it whole");
        assert_eq!(net.fails(a, receive(0)).message, "é".repeat(32));
    });
}

#[test]
fn an_orderly_end_is_an_unexpected_end_for_who_waits_to_receive() {
    both(|net| {
        let (a, peers) = initiator(net, &["B"]);
        net.blocks(a, receive(0));
        net.returns(peers[0]);
        let error = net.gets_error(a);
        assert_eq!((error.kind, error.error_id), (ErrorKind::UnexpectedEnd, None));
        let own = over(net.finish(a, Err(error)));
        assert_eq!((own.kind, own.error_id), (ErrorKind::UnexpectedEnd, Some(ErrorId(100))), "numbered by us");
        assert_eq!(net.wire, ["B→A End"]);
    });
}

#[test]
fn a_rejection_fails_even_a_flow_that_only_sends() {
    both(|net| {
        let a = net.start("A");
        net.session(a, "B");
        net.ok(a, send(0, "1"));
        net.ok(a, send(0, "2"));
        assert_eq!(net.finish(a, Ok("done")), Step::Blocked);
        net.reject("not registered");
        let error = over(net.resume(a));
        assert_eq!((error.kind, error.message.as_str()), (ErrorKind::UnexpectedEnd, "not registered"));
        assert_eq!((error.error_id, error.peer.as_deref()), (Some(ErrorId(0xbad)), Some("B")));
    });
}

#[test]
fn a_rejection_that_was_told_does_not_fail_the_flow_again() {
    both(|net| {
        let a = net.start("A");
        net.session(a, "B");
        net.ok(a, send(0, "1"));
        net.blocks(a, Call::Sleep(0));
        net.reject("not registered");
        net.gets(a);
        for _ in 0..2 {
            assert_eq!(net.fails(a, send(0, "2")).message, "not registered", "every later use throws");
        }
        net.returns(a);
    });
}

#[test]
fn a_rejection_that_a_wait_any_only_named_is_not_told() {
    both(|net| {
        let a = net.start("A");
        net.session(a, "B");
        net.blocks(a, Call::WaitAny { sessions: vec![0], deadline: None });
        net.reject("not registered");
        assert_eq!(net.gets(a), Answer::Ready(Some(0)));
        assert_eq!(over(net.finish(a, Ok("done"))).message, "not registered");
    });
}

#[test]
fn the_other_peers_learn_of_a_rejection_as_a_number() {
    both(|net| {
        let (a, _) = initiator(net, &["B"]);
        net.session(a, "C");
        net.ok(a, send(1, "1"));
        assert_eq!(net.finish(a, Ok("done")), Step::Blocked);
        net.reject("not registered");
        over(net.resume(a));
        assert_eq!(net.wire[2..], ["A→B Error"]);
    });
}

#[test]
fn an_error_while_initiating_reaches_the_peer_after_its_confirmation() {
    both(|net| {
        let a = net.start("A");
        net.session(a, "B");
        net.ok(a, send(0, "1"));
        net.ok(a, send(0, "held"));
        over(net.finish(a, Err(business("no"))));
        let held = vec![Bytes::from("held")];
        assert_eq!(net.flows[a].machine.unconfirmed(), [(net.flows[a].row.session(0), held)]);
        assert_eq!(net.wire, ["A→B Initial(1)"], "an error does not wait");
        let b = net.respond();
        assert_eq!(net.wire[1..], ["B→A Confirm", "A→B Data(held)", "A→B Error"]);
        assert_eq!(net.ok(b, receive(0)), message("1"));
        assert_eq!(net.ok(b, receive(0)), message("held"), "it was decided before the error");
        assert_eq!(net.fails(b, receive(0)).kind, ErrorKind::UnexpectedEnd);
    });
}

#[test]
fn several_errors_pending_the_first_is_thrown() {
    both(|net| {
        let (a, peers) = initiator(net, &["B", "C"]);
        net.finish(peers[1], Err(business("of C")));
        net.finish(peers[0], Err(business("of B")));
        let all = Call::Send(vec![(0, Bytes::from("x")), (1, Bytes::from("x"))]);
        assert_eq!(net.fails(a, all).message, "of B");
        assert_eq!(net.states(a), ["errored", "initiated"]);
    });
}

#[test]
fn a_failing_send_to_several_sends_to_none() {
    both(|net| {
        let (a, peers) = initiator(net, &["B", "C"]);
        net.finish(peers[1], Err(business("no")));
        net.wire.clear();
        net.fails(a, Call::Send(vec![(0, Bytes::from("x")), (1, Bytes::from("x"))]));
        net.returns(a);
        assert_eq!(net.wire, ["A→B End"]);
    });
}

#[test]
fn a_refused_opening_is_refused_again() {
    both(|net| {
        let a = net.start("A");
        let error = FlowError::new(ErrorKind::IllegalArgument, "there is no party 'X'");
        let refuse = || Call::RefuseSession { party: "X".to_owned(), error: Box::new(error.clone()) };
        assert_eq!(net.fails(a, refuse()), error);
        assert_eq!(net.session(a, "B"), 0);
        net.blocks(a, Call::Sleep(0));
    });
}

#[test]
fn a_kill_ends_every_wait_and_tells_the_peers_by_number() {
    let calls = [
        receive(0),
        ask(0, "x"),
        Call::ReceiveAll(vec![0, 1]),
        Call::WaitAny { sessions: vec![0], deadline: Some(u64::MAX) },
        Call::Sleep(60_000),
        Call::FlowInfo(2),
    ];
    for call in calls {
        both(|net| {
            let (a, peers) = initiator(net, &["B", "C"]);
            net.session(a, "D");
            net.blocks(a, call.clone());
            net.wire.clear();
            let killed = net.abort(a, FlowError::new(ErrorKind::Killed, "killed by an operator"));
            assert_eq!((killed.kind, killed.error_id), (ErrorKind::Killed, Some(ErrorId(100))));
            assert_eq!(net.wire, ["A→B Error", "A→C Error"]);
            for peer in peers {
                net.blocks(peer, Call::Sleep(0));
                net.gets(peer);
                let error = loop {
                    match net.call(peer, receive(0)) {
                        Step::Done(Ok(_)) => {}
                        Step::Done(Err(error)) => break error,
                        other => panic!("{other:?}"),
                    }
                };
                assert_eq!((error.kind, error.error_id), (ErrorKind::UnexpectedEnd, Some(ErrorId(100))));
            }
        });
    }
}

#[test]
fn a_kill_needs_no_guest() {
    both(|net| {
        let (a, _) = initiator(net, &["B"]);
        net.ok(a, send(0, "1"));
        net.blocks(a, receive(0));
        let it = &net.flows[a];
        let restored =
            maxhost_journal::Machine::restore(it.me.clone(), it.row, &it.start, net.limits, &it.log, &it.inbox);
        net.flows[a].machine = restored.unwrap();
        net.abort(a, FlowError::new(ErrorKind::Killed, "killed"));
        assert_eq!(net.wire, ["A→B Data(1)", "A→B Error"]);
    });
}

#[test]
fn a_kill_while_waiting_for_confirmations() {
    both(|net| {
        let (a, _) = initiator(net, &["B"]);
        net.session(a, "C");
        net.ok(a, send(1, "1"));
        assert_eq!(net.finish(a, Ok("done")), Step::Blocked);
        net.wire.clear();
        net.abort(a, FlowError::new(ErrorKind::Killed, "killed"));
        net.respond();
        assert_eq!(net.wire, ["A→B Error", "C→A Confirm", "A→C Error"]);
    });
}

#[test]
fn peers_are_told_once() {
    both(|net| {
        let (a, _) = initiator(net, &["B"]);
        let error = over(net.finish(a, Err(business("no"))));
        let again = net.flows[a].machine.abort(error.clone(), ErrorId(7));
        assert_eq!(again, error);
        assert!(net.flows[a].machine.flush(net.now).is_empty());
        net.returns(0);
    });
}

#[test]
fn an_ended_machine_takes_nothing_in() {
    both(|net| {
        let a = net.start("A");
        net.session(a, "B");
        net.ok(a, send(0, "1"));
        net.ok(a, send(0, "held"));
        let mut it = net.flows.remove(a);
        it.machine.finish(Err(business("no")), ErrorId(1)).unwrap();
        it.machine.flush(net.now);
        let confirm = FrameKind::Confirm(Confirm { session: 9, version: 1, app: String::new(), token: 0 });
        let batch = maxhost_journal::FrameBatch { from: "B".to_owned(), frames: vec![Frame::from(confirm)], token: 0 };
        assert_eq!(it.machine.deliver(0, 0, &batch), Delivery::UnknownSession);
        assert!(it.machine.flush(net.now).is_empty());
    });
}

#[test]
fn the_number_of_an_exception_is_kept_if_it_has_one() {
    both(|net| {
        let (a, peers) = initiator(net, &["B"]);
        net.finish(peers[0], Err(FlowError { error_id: Some(ErrorId(77)), ..business("no") }));
        assert_eq!(net.fails(a, receive(0)).error_id, Some(ErrorId(77)));
    });
}
