//! Waits for the ledger: what ends them, what is stored of them, and that a replay is told the same.

use bytes::Bytes;
use maxhost_journal::{Answer, Awaited, Call, Millis, WaitKind, to_millis};
use maxhost_model::ErrorKind;

use crate::common::*;

fn commit(deadline: Option<Millis>) -> Call {
    Call::Await { kind: WaitKind::LedgerCommit, what: "transaction ab".to_owned(), deadline }
}

fn consumption(deadline: Option<Millis>) -> Call {
    Call::Await { kind: WaitKind::StateConsumption, what: "the consumption of 3 states".to_owned(), deadline }
}

/// A flow with a session whose peer has confirmed it, and that peer.
fn pair(net: &mut Net) -> (usize, usize) {
    let a = net.start("A");
    net.session(a, "B");
    net.ok(a, send(0, "hello"));
    net.flush(a);
    (a, net.respond())
}

/// Somebody has looked in vain.
fn lacks(net: &mut Net, flow: usize, first: &str, more: u32) {
    net.flows[flow].machine.awaits_next(Awaited { first: first.to_owned(), more });
    net.still_blocked(flow);
    net.flush(flow);
}

fn found(answer: &str) -> Answer {
    Answer::Found(Some(Bytes::from(answer.to_owned())))
}

#[test]
fn what_is_found_is_told_and_told_again() {
    both(|net| {
        let (a, b) = pair(net);
        // Nobody has looked, so it blocks whatever is there.
        net.blocks(a, commit(None));
        lacks(net, a, "ab", 0);
        let wait = net.last_segment(a).waits_for().unwrap();
        assert_eq!((wait.kind, wait.sessions, wait.until), (WaitKind::LedgerCommit, vec![0], None));
        assert_eq!(wait.awaited, Some(Awaited { first: "ab".to_owned(), more: 0 }));
        // What a peer sends is no end of it.
        net.ok(b, send(0, "a word"));
        net.flush(b);
        net.still_blocked(a);
        assert_eq!(net.found(a, "the transaction"), found("the transaction"));
        let then = net.now(a);
        assert!(then > EPOCH);
        net.blocks(a, consumption(None));
        lacks(net, a, "ab:1", 2);
        lacks(net, a, "ab:2", 1);
        let wait = net.last_segment(a).waits_for().unwrap();
        assert_eq!((wait.kind, wait.sessions), (WaitKind::StateConsumption, vec![]));
        assert_eq!(wait.awaited, Some(Awaited { first: "ab:2".to_owned(), more: 1 }));
        assert_eq!(net.found(a, ""), found(""));
        assert_eq!(net.ok(a, receive(0)), message("a word"));
        net.returns(a);
    });
}

#[test]
fn a_deadline_ends_a_wait_and_one_that_has_passed_at_once() {
    both(|net| {
        let (a, _) = pair(net);
        for call in [commit, consumption] {
            let now = to_millis(net.now);
            net.blocks(a, call(Some(now + 1_000)));
            lacks(net, a, "ab", 0);
            net.now += 1_000_000_000;
            assert_eq!(net.gets(a), Answer::Found(None));
            net.blocks(a, call(Some(now)));
            assert_eq!(net.gets(a), Answer::Found(None), "it has passed");
            // What is there counts before the deadline does.
            net.blocks(a, call(Some(now)));
            assert_eq!(net.found(a, "it"), found("it"));
            net.flush(a);
        }
        net.returns(a);
    });
}

#[test]
fn an_error_of_any_session_ends_the_wait_for_a_transaction_once() {
    both(|net| {
        let (a, b) = pair(net);
        net.session(a, "C");
        net.ok(a, send(1, "hello"));
        net.flush(a);
        net.blocks(a, commit(None));
        lacks(net, a, "ab", 0);
        assert_eq!(net.last_segment(a).waits_for().unwrap().sessions, [0, 1]);
        net.abort(b, business("no"));
        let error = net.gets_error(a);
        assert_eq!((error.kind, error.peer.as_deref()), (ErrorKind::FlowException, Some("B")));
        net.flush(a);
        // The flow knows it, and waits all the same; then another session is rejected.
        net.blocks(a, commit(None));
        lacks(net, a, "ab", 0);
        assert_eq!(net.last_segment(a).waits_for().unwrap().sessions, [1]);
        net.reject("there is no such flow");
        let error = net.gets_error(a);
        assert_eq!((error.kind, error.message.as_str()), (ErrorKind::UnexpectedEnd, "there is no such flow"));
        net.flush(a);
        net.blocks(a, commit(None));
        lacks(net, a, "ab", 0);
        assert_eq!(net.found(a, "it"), found("it"));
        net.returns(a);
    });
}

#[test]
fn an_error_is_no_end_of_a_wait_for_states_nor_an_orderly_end_of_one_for_a_transaction() {
    both(|net| {
        let (a, b) = pair(net);
        net.session(a, "C");
        net.ok(a, send(1, "hello"));
        net.flush(a);
        let c = net.respond();
        net.blocks(a, commit(None));
        lacks(net, a, "ab", 0);
        net.returns(c);
        net.still_blocked(a);
        assert_eq!(net.found(a, "it"), found("it"));
        net.blocks(a, consumption(None));
        lacks(net, a, "ab:0", 0);
        net.abort(b, business("no"));
        net.still_blocked(a);
        assert_eq!(net.found(a, ""), found(""));
        // The error is told by whatever touches the session.
        assert_eq!(net.fails(a, receive(0)).kind, ErrorKind::FlowException);
        net.returns(a);
    });
}
