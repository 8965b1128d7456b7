//! The session protocol: waiting for several sessions, for one of them, and for a time (docs/behaviour.md 5).

use bytes::Bytes;
use maxhost_journal::{Answer, Call, WaitKind};
use maxhost_model::ErrorKind;

use crate::common::*;

#[test]
fn receive_all_waits_for_each_and_answers_in_its_own_order() {
    both(|net| {
        let a = net.start("A");
        let sessions: Vec<u32> = ["B", "C", "D"].iter().map(|peer| net.session(a, peer)).collect();
        net.blocks(a, Call::ReceiveAll(vec![2, 0, 1]));
        assert_eq!(net.flows[a].machine.wait().unwrap().kind, WaitKind::ReceiveAll);
        let peers: Vec<usize> = sessions.iter().map(|_| net.respond()).collect();
        for (peer, payload) in peers.iter().zip(["d", "b", "c"]) {
            net.still_blocked(a);
            net.ok(*peer, send(0, payload));
            net.flush(*peer);
        }
        let expected = ["d", "b", "c"].map(|payload| Bytes::from(payload.to_owned()));
        assert_eq!(net.gets(a), Answer::Messages(expected.to_vec()));
        assert_eq!(net.ok(a, Call::ReceiveAll(Vec::new())), Answer::Messages(Vec::new()));
        assert_eq!(net.fails(a, Call::ReceiveAll(vec![1, 0, 1])).kind, ErrorKind::IllegalArgument);
        assert_eq!(net.fails(a, Call::ReceiveAll(vec![3])).kind, ErrorKind::IllegalArgument);
    });
}

#[test]
fn the_first_failed_session_fails_a_receive_all() {
    both(|net| {
        let a = net.start("A");
        for peer in ["B", "C", "D"] {
            net.session(a, peer);
        }
        net.blocks(a, Call::ReceiveAll(vec![0, 1, 2]));
        let peers: Vec<usize> = (0..3).map(|_| net.respond()).collect();
        net.finish(peers[2], Err(business("third")));
        net.finish(peers[1], Err(business("second")));
        let error = net.gets_error(a);
        assert_eq!((error.message.as_str(), error.peer.as_deref()), ("second", Some("C")), "in the order asked for");
        assert_eq!(net.states(a), ["initiated", "errored", "initiated"]);
        assert_eq!(net.fails(a, receive(2)).message, "third");
        net.ok(peers[0], send(0, "still there"));
        net.flush(peers[0]);
        assert_eq!(net.ok(a, receive(0)), message("still there"), "a failed receive-all has consumed nothing");
    });
}

#[test]
fn a_failed_receive_all_counts_as_receiving_for_every_session() {
    both(|net| {
        let a = net.start("A");
        net.session(a, "B");
        net.session(a, "C");
        net.blocks(a, Call::ReceiveAll(vec![0, 1]));
        let (b, c) = (net.respond(), net.respond());
        net.finish(b, Err(business("no")));
        net.gets_error(a);
        net.returns(c);
        net.blocks(a, Call::Sleep(0));
        net.gets(a);
        assert_eq!(net.fails(a, send(1, "x")).kind, ErrorKind::UnexpectedEnd);
    });
}

#[test]
fn wait_any_names_the_ready_session_and_consumes_nothing() {
    both(|net| {
        let a = net.start("A");
        net.session(a, "B");
        net.session(a, "C");
        let wait = Call::WaitAny { sessions: vec![0, 1], deadline: None };
        net.blocks(a, wait.clone());
        let (_b, c) = (net.respond(), net.respond());
        net.still_blocked(a);
        net.ok(c, send(0, "first"));
        net.flush(c);
        assert_eq!(net.gets(a), Answer::Ready(Some(1)));
        assert_eq!(net.ok(a, wait), Answer::Ready(Some(1)), "still there");
        assert_eq!(net.ok(a, receive(1)), message("first"));
        net.returns(c);
        assert_eq!(net.ok(a, Call::WaitAny { sessions: vec![1], deadline: None }), Answer::Ready(Some(1)), "an end");
        let twice = Call::WaitAny { sessions: vec![1, 1], deadline: None };
        assert_eq!(net.fails(a, twice).kind, ErrorKind::IllegalArgument);
        let nothing = Call::WaitAny { sessions: Vec::new(), deadline: None };
        assert_eq!(net.fails(a, nothing).kind, ErrorKind::IllegalArgument);
    });
}

#[test]
fn wait_any_ends_at_its_deadline() {
    both(|net| {
        let (a, b) = pair(net);
        let deadline = net.now / 1_000_000 + 50;
        net.blocks(a, Call::WaitAny { sessions: vec![0], deadline: Some(deadline) });
        assert_eq!(net.flows[a].machine.wait_until(), Some(deadline));
        let told = net.now(a) / 1_000_000;
        assert_eq!(net.flows[a].machine.reckoned_from(), told, "the flow can have reckoned from nothing later");
        net.now = (deadline - 1) * 1_000_000;
        net.still_blocked(a);
        net.now = deadline * 1_000_000;
        assert_eq!(net.gets(a), Answer::Ready(None));
        assert!(net.now(a) >= deadline * 1_000_000, "the flow's own clock has passed it too");
        assert_eq!(net.ok(a, Call::WaitAny { sessions: Vec::new(), deadline: Some(1) }), Answer::Ready(None));
        net.ok(b, send(0, "late"));
        net.flush(b);
        let past = Call::WaitAny { sessions: vec![0], deadline: Some(1) };
        assert_eq!(net.ok(a, past), Answer::Ready(Some(0)), "what is there wins over a deadline in the past");
    });
}

#[test]
fn sleeping() {
    both(|net| {
        let a = net.start("A");
        net.blocks(a, Call::Sleep(0));
        assert_eq!(net.gets(a), Answer::Done);
        net.blocks(a, Call::Sleep(100));
        let until = net.flows[a].machine.wait_until().unwrap();
        let from = net.flows[a].machine.reckoned_from();
        assert_eq!((from, until - from), (net.now / 1_000_000, 100));
        net.now += 40_000_000;
        net.still_blocked(a);
        net.replay(a);
        assert_eq!(net.flows[a].machine.reckoned_from(), from);
        assert_eq!(net.flows[a].machine.wait_until(), Some(until), "a restart does not begin the wait anew");
        net.now = until * 1_000_000;
        assert_eq!(net.gets(a), Answer::Done);
        let error = net.fails(a, Call::Sleep(300_001));
        assert_eq!(error.kind, ErrorKind::FlowException);
        assert_eq!(net.fails(a, Call::Sleep(u64::MAX)).kind, ErrorKind::FlowException);
        net.blocks(a, Call::Sleep(300_000));
    });
}
