//! What a peer, or somebody who pretends to be one, may do to a session (docs/behaviour.md 5.1, 5.4).

use bytes::Bytes;
use maxhost_journal::wire::{Confirm, FrameKind};
use maxhost_journal::{Answer, Call, Delivery, Frame, FrameBatch, Outgoing};
use maxhost_model::{ErrorId, ErrorKind};
use prost::Message;

use crate::common::*;

#[test]
fn two_peers_may_number_their_sessions_alike() {
    both(|net| {
        let a = net.start("A");
        let confirm =
            |session| FrameKind::Confirm(Confirm { session, version: 1, app: "app".to_owned(), token: 0 }).into();
        for (index, peer) in ["B", "C"].iter().enumerate() {
            net.session(a, peer);
            net.blocks(a, Call::FlowInfo(index as u32));
            net.initiations.pop_front();
            let ours = net.flows[a].row.session(index as u16);
            net.deliver_from(peer, ours, 0, vec![confirm(99 << 16)]);
            net.gets(a);
        }
        net.held = Some(Vec::new());
        net.ok(a, send(0, "for B"));
        net.ok(a, send(1, "for C"));
        net.ok(a, send(0, "for B too"));
        let flush = net.flows[a].machine.flush(net.now);
        let batches: Vec<_> = flush
            .outgoing
            .iter()
            .map(|outgoing| match outgoing {
                Outgoing::Deliver { party, batch, .. } => (party.to_string(), batch.frames.len()),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(batches, [("B".to_owned(), 2), ("C".to_owned(), 1)]);
    });
}

#[test]
fn batches_twice_out_of_order_and_with_gaps() {
    both(|net| {
        let (a, b) = pair(net);
        net.held = Some(Vec::new());
        for payload in ["1", "2", "3"] {
            net.ok(b, send(0, payload));
            net.flush(b);
        }
        net.returns(b);
        let held = net.held.take().unwrap();
        assert_eq!(held.len(), 4);
        let hand = |net: &mut Net, at: usize| net.deliver(held[at].0, held[at].1, &held[at].2);
        assert_eq!(hand(net, 3), Some(Delivery::Taken), "the end first");
        assert_eq!(hand(net, 2), Some(Delivery::Taken));
        net.blocks(a, receive(0));
        net.still_blocked(a);
        assert_eq!(hand(net, 2), Some(Delivery::Duplicate));
        assert_eq!(hand(net, 0), Some(Delivery::Taken));
        assert_eq!(net.gets(a), message("1"));
        assert_eq!(hand(net, 0), Some(Delivery::Duplicate));
        net.blocks(a, receive(0));
        assert_eq!(hand(net, 1), Some(Delivery::Taken));
        assert_eq!(net.gets(a), message("2"));
        assert_eq!(net.ok(a, receive(0)), message("3"));
        assert_eq!(net.ok(a, receive_or_end(0)), Answer::Ended);
        assert_eq!(hand(net, 1), Some(Delivery::Duplicate));
    });
}

#[test]
fn data_may_overtake_the_confirmation() {
    both(|net| {
        let a = net.start("A");
        net.session(a, "B");
        net.blocks(a, receive(0));
        net.held = Some(Vec::new());
        let b = net.respond();
        net.ok(b, send(0, "early"));
        net.flush(b);
        let held = net.held.take().unwrap();
        net.deliver(held[1].0, held[1].1, &held[1].2);
        net.still_blocked(a);
        assert_eq!(net.states(a), ["initiating"]);
        net.deliver(held[0].0, held[0].1, &held[0].2);
        assert_eq!(net.gets(a), message("early"));
    });
}

#[test]
fn nobody_can_speak_for_another() {
    both(|net| {
        let (a, b) = pair(net);
        let ours = net.flows[a].row.session(0);
        for frame in [Frame::data(Bytes::from("forged")), Frame::end(), Frame::error(&business("forged"))] {
            assert_eq!(net.deliver_from("M", ours, 1, vec![frame]), Some(Delivery::ForeignSender));
        }
        net.blocks(a, receive(0));
        net.ok(b, send(0, "true"));
        net.flush(b);
        assert_eq!(net.gets(a), message("true"));
        let unknown = net.flows[a].row.session(1);
        let frames = || vec![Frame::data(Bytes::from("x"))];
        assert_eq!(net.deliver_from("B", unknown, 0, frames()), Some(Delivery::UnknownSession));
        net.session(a, "B");
        assert_eq!(net.deliver_from("B", unknown, 0, frames()), Some(Delivery::UnknownSession), "not used yet");
    });
}

#[test]
fn forged_rows_in_the_inbox_do_not_survive_a_restore() {
    both(|net| {
        let (a, b) = pair(net);
        net.blocks(a, receive(0));
        let ours = net.flows[a].row.session(0);
        let forged = FrameBatch { from: "M".to_owned(), frames: vec![Frame::data(Bytes::from("forged"))], token: 0 };
        let body = Bytes::from(forged.encode_to_vec());
        net.flows[a].inbox.insert(0, (ours, 1, body));
        net.replay(a);
        net.still_blocked(a);
        net.ok(b, send(0, "true"));
        net.flush(b);
        assert_eq!(net.gets(a), message("true"));
    });
}

#[test]
fn what_has_been_read_cannot_be_changed_afterwards() {
    both(|net| {
        let (a, b) = pair(net);
        net.ok(b, send(0, "1"));
        net.ok(b, send(0, "2"));
        net.flush(b);
        assert_eq!(net.ok(a, receive(0)), message("1"));
        assert_eq!(net.ok(a, receive(0)), message("2"));
        let ours = net.flows[a].row.session(0);
        let changed = ["other", "news"].map(|payload| Frame::data(Bytes::from(payload)));
        assert_eq!(net.deliver_from("B", ours, 2, changed.to_vec()), Some(Delivery::Duplicate));
        net.blocks(a, Call::Sleep(0));
        net.replay(a);
        net.gets(a);
    });
}

#[test]
fn an_initiator_cannot_change_its_first_message() {
    both(|net| {
        let a = net.start("A");
        net.session(a, "B");
        net.blocks(a, ask(0, "first"));
        let b = net.respond();
        let theirs = net.flows[b].row.session(0);
        let other = || vec![Frame::data(Bytes::from("other"))];
        assert_eq!(net.deliver_from("A", theirs, 0, other()), Some(Delivery::Duplicate));
        assert_eq!(net.ok(b, receive(0)), message("first"));
        let body = FrameBatch { from: "A".to_owned(), frames: other(), token: 0 };
        net.flows[b].inbox.push((theirs, 0, Bytes::from(body.encode_to_vec())));
        net.blocks(b, Call::Sleep(0));
        net.replay(b);
        net.gets(b);
    });
}

#[test]
fn a_breach_of_the_protocol_ends_that_session_only() {
    let confirm = || Frame::from(FrameKind::Confirm(Confirm { session: 1, version: 1, app: String::new(), token: 0 }));
    let reject = || Frame::reject("again", ErrorId(1));
    let unknown = || Frame { kind: None };
    for breach in [confirm(), reject(), unknown()] {
        both(|net| {
            let (a, b) = pair(net);
            net.session(a, "C");
            net.blocks(a, Call::FlowInfo(1));
            net.respond();
            net.gets(a);
            net.ok(b, send(0, "before"));
            net.flush(b);
            let ours = net.flows[a].row.session(0);
            net.deliver_from("B", ours, 2, vec![breach.clone()]);
            assert_eq!(net.ok(a, receive(0)), message("before"));
            let error = net.fails(a, receive_or_end(0));
            assert_eq!((error.kind, error.peer.as_deref()), (ErrorKind::UnexpectedEnd, Some("B")));
            assert_eq!(net.states(a), ["errored", "initiated"]);
            net.ok(a, send(1, "the other goes on"));
            net.returns(a);
        });
    }
}

#[test]
fn an_answer_that_is_none_ends_the_session() {
    let data = || Frame::data(Bytes::from("x"));
    let unknown = || Frame { kind: None };
    for answer in [data(), Frame::end(), Frame::error(&business("x")), unknown()] {
        both(|net| {
            let a = net.start("A");
            net.session(a, "B");
            net.blocks(a, receive(0));
            let ours = net.flows[a].row.session(0);
            net.initiations.clear();
            net.deliver_from("B", ours, 0, vec![answer.clone()]);
            let error = net.gets_error(a);
            assert_eq!((error.kind, error.peer.as_deref()), (ErrorKind::UnexpectedEnd, Some("B")));
            net.blocks(a, Call::Sleep(0));
            net.gets(a);
            net.returns(a);
        });
    }
}

#[test]
fn numbers_beyond_all_reach_are_ignored() {
    both(|net| {
        let (a, b) = pair(net);
        let ours = net.flows[a].row.session(0);
        let frames = || vec![Frame::data(Bytes::from("1")), Frame::data(Bytes::from("2"))];
        assert_eq!(net.deliver_from("B", ours, u32::MAX, frames()), Some(Delivery::Duplicate));
        assert_eq!(net.deliver_from("B", ours, u32::MAX - 1, frames()), Some(Delivery::Taken));
        assert_eq!(net.deliver_from("B", ours, 5, Vec::new()), Some(Delivery::Duplicate));
        net.blocks(a, receive(0));
        net.ok(b, send(0, "true"));
        net.flush(b);
        assert_eq!(net.gets(a), message("true"));
    });
}
