//! The session protocol: what travels when two flows talk, from the first frame to the last (docs/behaviour.md 5).

use bytes::Bytes;
use maxhost_journal::{Call, Step};
use maxhost_model::{ErrorId, ErrorKind};

use crate::common::*;

fn between_a_and(peer: &str, line: &str) -> bool {
    line.starts_with(&format!("{peer}→A")) || line.starts_with(&format!("A→{peer}"))
}

#[test]
fn transcript_send_only() {
    both(|net| {
        let a = net.start("A");
        net.session(a, "B");
        net.ok(a, send(0, "10"));
        assert_eq!(net.finish(a, Ok("done")), Step::Blocked);
        let b = net.respond();
        assert_eq!(net.gets(a), message("done"));
        assert_eq!(net.ok(b, receive(0)), message("10"));
        net.returns(b);
        assert_eq!(net.wire, ["A→B Initial(10)", "B→A Confirm", "A→B End", "B→A End"]);
    });
}

#[test]
fn transcript_both_send_first_then_receive_twice() {
    both(|net| {
        let a = net.start("A");
        net.session(a, "B");
        net.ok(a, send(0, "10"));
        net.blocks(a, receive(0));
        let b = net.respond();
        net.ok(b, send(0, "20"));
        net.flush(b);
        assert_eq!(net.gets(a), message("20"));
        net.ok(a, send(0, "11"));
        net.blocks(a, receive(0));
        assert_eq!(net.ok(b, receive(0)), message("10"));
        net.ok(b, send(0, "21"));
        net.flush(b);
        assert_eq!(net.gets(a), message("21"));
        net.returns(a);
        assert_eq!(net.ok(b, receive(0)), message("11"));
        net.returns(b);
        let expected =
            ["A→B Initial(10)", "B→A Confirm", "B→A Data(20)", "A→B Data(11)", "B→A Data(21)", "A→B End", "B→A End"];
        assert_eq!(net.wire, expected);
    });
}

#[test]
fn transcript_responder_throws_on_start() {
    both(|net| {
        for (error, expected) in [(business("no"), "B→A Error(no)"), (panicked(), "B→A Error")] {
            net.wire.clear();
            let a = net.start("A");
            net.session(a, "B");
            net.blocks(a, receive(0));
            let b = net.respond();
            assert!(matches!(net.finish(b, Err(error)), Step::Over(_)));
            assert_eq!(net.wire, ["A→B Initial", "B→A Confirm", expected]);
            net.gets_error(a);
            net.returns(a);
            assert_eq!(net.wire.len(), 3, "a failed peer is told nothing");
        }
    });
}

#[test]
fn transcript_rejections() {
    both(|net| {
        for words in ["test-app/flow is not registered", "test-app/flow is not a flow"] {
            net.wire.clear();
            let a = net.start("A");
            net.session(a, "B");
            net.blocks(a, ask(0, "1"));
            net.reject(words);
            let error = net.gets_error(a);
            assert_eq!((error.kind, error.message.as_str()), (ErrorKind::UnexpectedEnd, words));
            assert_eq!((error.error_id, error.peer.as_deref()), (Some(ErrorId(0xbad)), Some("B")));
            net.returns(a);
            assert_eq!(net.wire, ["A→B Initial(1)".to_owned(), format!("B→A Reject({words})")]);
        }
    });
}

#[test]
fn transcript_two_peers() {
    both(|net| {
        let a = net.start("A");
        let (to_b, to_c) = (net.session(a, "B"), net.session(a, "C"));
        net.ok(a, Call::Send(vec![(to_b, Bytes::from("5")), (to_c, Bytes::from("5"))]));
        assert_eq!(net.finish(a, Ok("done")), Step::Blocked);
        net.respond();
        net.still_blocked(a);
        net.respond();
        net.gets(a);
        for peer in ["B", "C"] {
            let of_peer = net.wire.iter().filter(|line| between_a_and(peer, line)).cloned().collect::<Vec<_>>();
            let expected = [format!("A→{peer} Initial(5)"), format!("{peer}→A Confirm"), format!("A→{peer} End")];
            assert_eq!(of_peer, expected);
        }
    });
}
