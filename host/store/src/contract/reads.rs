//! What can be asked.

use super::*;
use crate::{FlowFilter, IdentityOp};

pub async fn heads_are_the_newest_of_each_stream<D: Databases>() {
    let w = World::<D>::new().await;
    let (talks, silent) = (w.start(w.alice).await, w.start(w.bob).await);
    let mut ops: Vec<Op> = (0..20).map(|seq| log(talks, seq)).collect();
    ops.extend((0..30).map(|seq| deliver(to(w.alice), talks.session(0), seq)));
    ops.extend((0..3).map(|seq| deliver(to(w.alice), talks.session(65_535), seq)));
    w.commit(w.alice, ops).await.unwrap();
    let heads = w.store.heads(&[silent, FlowRow(99_999), talks]).await.unwrap();
    assert_eq!(heads.len(), 3);
    assert_eq!((heads[0].flow, &heads[0].last, heads[0].inbox.len()), (silent, &None, 0));
    assert_eq!((heads[1].flow, &heads[1].last), (FlowRow(99_999), &None));
    assert_eq!(heads[2].last, Some((19, text("log 19"))));
    assert_eq!(heads[2].inbox, [(talks.session(0), 29), (talks.session(65_535), 2)]);
}

pub async fn flows_are_listed_newest_first_in_pages<D: Databases>() {
    let w = World::<D>::new().await;
    let mut rows = Vec::new();
    for n in 0..10 {
        let identity = if n % 2 == 0 { w.alice } else { w.bob };
        let row = w.store.next_flow_row();
        let name = if n < 8 { "a/b" } else { "c/d" };
        let new = NewFlow { name: name.into(), ..new_flow(row) };
        w.commit(identity, vec![FlowOp::Start(Box::new(new)).into()]).await.unwrap();
        rows.push(row);
    }
    w.commit(w.alice, vec![end_kept(rows[0], 9_000_000)]).await.unwrap();
    let store = &w.store;
    let list = |filter: FlowFilter| async move {
        let found = store.list_flows(&filter).await.unwrap();
        found.into_iter().map(|flow| flow.row).collect::<Vec<_>>()
    };
    let bob = Some(w.bob.identity);
    let all: Vec<FlowRow> = rows.iter().rev().copied().collect();
    assert_eq!(list(FlowFilter::default()).await, all);
    assert_eq!(list(FlowFilter { limit: 4, ..FlowFilter::default() }).await, all[..4]);
    assert_eq!(list(FlowFilter { limit: 4, before: Some(all[3]), ..FlowFilter::default() }).await, all[4..8]);
    assert_eq!(list(FlowFilter { name: Some("c/d".into()), ..FlowFilter::default() }).await, all[..2]);
    let ended = vec![FlowState::Completed, FlowState::Killed];
    assert_eq!(list(FlowFilter { states: ended.clone(), ..FlowFilter::default() }).await, rows[..1]);
    assert!(list(FlowFilter { states: ended, identity: bob, ..FlowFilter::default() }).await.is_empty());
    assert_eq!(list(FlowFilter { identity: bob, ..FlowFilter::default() }).await.len(), 5);
    let live = w.store.live_flows().await.unwrap();
    assert_eq!(live.iter().map(|flow| flow.row).collect::<Vec<_>>(), rows[1..]);
}

pub async fn a_list_reads_what_it_shows<D: Databases>() {
    let w = World::<D>::new().await;
    let mut rows = Vec::new();
    for size in [10, 100_000] {
        let row = w.store.next_flow_row();
        let new = NewFlow { start: vec![1; 100_000].into(), ..new_flow(row) };
        let keep = Some(Keep { expires: 9_000_000, end: vec![2; size].into(), labels: None });
        let end = FlowOp::End { flow: row, state: FlowState::Failed, finished: 2000, keep, unconfirmed: vec![] };
        w.commit(w.alice, vec![FlowOp::Start(Box::new(new)).into(), end.into()]).await.unwrap();
        rows.push(row);
    }
    let filter = FlowFilter { end_bytes: 1_000, ..FlowFilter::default() };
    let listed = w.store.list_flows(&filter).await.unwrap();
    assert!(listed.iter().all(|flow| flow.start.is_empty() && flow.labels.is_none()));
    let ends: Vec<_> = listed.iter().map(|flow| flow.end.as_ref().map(Bytes::len)).collect();
    assert_eq!(ends, [None, Some(10)]);
    let whole = w.store.flow(rows[1]).await.unwrap().unwrap();
    assert_eq!((whole.start.len(), whole.end.map(|end| end.len())), (100_000, Some(100_000)));
}

pub async fn live_flows_are_counted_by_identity_and_by_state<D: Databases>() {
    let w = World::<D>::new().await;
    let (alice, bob) = (w.alice.identity, w.bob.identity);
    assert!(w.store.live_counts(&[alice, bob]).await.unwrap().is_empty());
    assert!(w.store.live_states().await.unwrap().is_empty());
    let mut alices = Vec::new();
    for _ in 0..5 {
        alices.push(w.start(w.alice).await);
    }
    let bobs = w.start(w.bob).await;
    w.commit(w.alice, vec![set(alices[0], FlowState::Hospital), set(alices[1], FlowState::Paused)]).await.unwrap();
    w.commit(w.bob, vec![set(bobs, FlowState::Hospital)]).await.unwrap();
    w.commit(w.alice, vec![end_kept(alices[2], 9_000_000)]).await.unwrap();
    // As many as are asked for, in whatever order, and nobody else.
    assert_eq!(w.store.live_counts(&[bob, IdentityRow(99_999), alice]).await.unwrap(), [(alice, 4), (bob, 1)]);
    assert_eq!(w.store.live_counts(&[bob]).await.unwrap(), [(bob, 1)]);
    assert!(w.store.live_counts(&[]).await.unwrap().is_empty());
    let mut states = w.store.live_states().await.unwrap();
    states.sort_by_key(|(state, _)| format!("{state:?}"));
    assert_eq!(states, [(FlowState::Hospital, 2), (FlowState::Live, 2), (FlowState::Paused, 1)]);
    w.commit(w.bob, vec![end(bobs)]).await.unwrap();
    assert_eq!(w.store.live_counts(&[alice, bob]).await.unwrap(), [(alice, 4)]);
}

pub async fn live_flows_of_an_identity_are_read_in_pages<D: Databases>() {
    let w = World::<D>::new().await;
    let (alice, bob) = (w.alice.identity, w.bob.identity);
    let mut alices = Vec::new();
    for _ in 0..5 {
        alices.push(w.start(w.alice).await);
        w.start(w.bob).await;
    }
    w.commit(w.alice, vec![set(alices[1], FlowState::Hospital)]).await.unwrap();
    w.commit(w.alice, vec![end_kept(alices[3], 9_000_000), end(alices[4])]).await.unwrap();
    let read = async |identity, after, limit| {
        let flows = w.store.live_flows_of(identity, after, limit).await.unwrap();
        assert!(flows.iter().all(|flow| flow.identity == identity));
        flows.into_iter().map(|flow| (flow.row, flow.state)).collect::<Vec<_>>()
    };
    let (live, hospital) = (FlowState::Live, FlowState::Hospital);
    let all = [(alices[0], live), (alices[1], hospital), (alices[2], live)];
    assert_eq!(read(alice, None, 9).await, all, "by row, and none that has ended");
    assert_eq!(read(alice, None, 2).await, all[..2]);
    assert_eq!(read(alice, Some(alices[0]), 1).await, all[1..2]);
    assert!(read(alice, Some(alices[2]), 9).await.is_empty());
    assert_eq!(read(bob, None, 9).await.len(), 5);
    assert!(read(IdentityRow(99_999), None, 9).await.is_empty());
    for at_once in [1, 2, 3, 9] {
        let mut given = Vec::new();
        let give = |flow: crate::LiveFlow| given.push((flow.row, flow.state));
        crate::reader::each_live_flow_by(&*w.store, alice, at_once, give).await.unwrap();
        assert_eq!(given, all, "in pages of {at_once}");
    }
}

pub async fn the_outbox_is_read_by_destination<D: Databases>() {
    let w = World::<D>::new().await;
    let message = |n: usize| {
        let destination = Arc::from(["x", "a", "m"][n % 3]);
        MessageOp::Outbox { destination, message_id: [n as u8; 16], body: text("m") }.into()
    };
    w.commit(w.alice, (0..10).map(message).collect()).await.unwrap();
    let places = |places: Vec<crate::OutboxDestination>| {
        places.into_iter().map(|place| place.destination.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(places(w.store.outbox_destinations("", 10).await.unwrap()), ["a", "m", "x"]);
    assert_eq!(places(w.store.outbox_destinations("", 2).await.unwrap()), ["a", "m"]);
    assert_eq!(places(w.store.outbox_destinations("m", 2).await.unwrap()), ["x"]);
    let first = w.store.outbox_destinations("a", 1).await.unwrap()[0].first;
    let rows = w.store.outbox_to("m", 0, 2).await.unwrap();
    assert_eq!((rows.len(), rows[0].id), (2, first));
    let rest = w.store.outbox_to("m", rows[1].id, 10).await.unwrap();
    assert_eq!(rest.len(), 1);
    assert!(w.store.outbox_to("m", rest[0].id, 10).await.unwrap().is_empty());
}

pub async fn the_outbox_is_read_for_senders_that_this_run_holds<D: Databases>() {
    let w = World::<D>::new().await;
    let message = |n: u8| MessageOp::Outbox { destination: "m".into(), message_id: [n; 16], body: text("m") }.into();
    w.commit(w.bob, vec![message(1)]).await.unwrap();
    w.commit(w.alice, vec![message(2), message(3)]).await.unwrap();
    let senders = |rows: Vec<crate::OutboxRow>| rows.iter().map(|row| row.identity).collect::<Vec<_>>();
    let (alice, bob) = (w.alice.identity, w.bob.identity);
    assert_eq!(senders(w.store.outbox_to("m", 0, 10).await.unwrap()), [bob, alice, alice]);
    w.commit(w.bob, vec![IdentityOp::Release { wake_at: None, hand_over: true }.into()]).await.unwrap();
    let rows = w.store.outbox_to("m", 0, 1).await.unwrap();
    assert_eq!(senders(rows), [alice], "what another has does not count for the limit");
    assert_eq!(senders(w.store.outbox_to("m", 0, 10).await.unwrap()), [alice, alice]);
    // The places are told all the same: somebody has to send there.
    assert_eq!(w.store.outbox_destinations("", 10).await.unwrap().len(), 1);
    claim(&w.store, bob, 2).await;
    assert_eq!(senders(w.store.outbox_to("m", 0, 10).await.unwrap()), [bob, alice, alice]);
}

pub async fn no_outbox_page_is_much_larger_than_its_bound<D: Databases>() {
    let w = World::<D>::new().await;
    let large = bytes::Bytes::from(vec![7; crate::PAGE_BYTES / 2]);
    for n in 0..4 {
        let op = MessageOp::Outbox { destination: "m".into(), message_id: [n; 16], body: large.clone() };
        w.commit(w.alice, vec![op.into()]).await.unwrap();
    }
    let rows = w.store.outbox_to("m", 0, 10).await.unwrap();
    assert_eq!(rows.len(), 2);
    assert_eq!(w.store.outbox_to("m", rows[0].id, 1).await.unwrap().len(), 1);
    assert_eq!(w.store.outbox_to("m", rows[1].id, 10).await.unwrap().len(), 2);
    // One that is larger alone comes all the same.
    let op = MessageOp::Outbox {
        destination: "x".into(),
        message_id: [9; 16],
        body: bytes::Bytes::from(vec![7; crate::PAGE_BYTES + 1]),
    };
    w.commit(w.alice, vec![op.into()]).await.unwrap();
    assert_eq!(w.store.outbox_to("x", 0, 10).await.unwrap().len(), 1);
}

/// Half of what a page has, so that a page has two.
fn half_a_page() -> Bytes {
    Bytes::from(vec![7; crate::PAGE_BYTES / 2])
}

pub async fn what_waits_is_read_in_pages_of_bounded_bytes<D: Databases>() {
    let w = World::<D>::new().await;
    let (alice, body) = (w.alice.identity, half_a_page());
    let ended = w.start(w.alice).await;
    w.commit(w.alice, vec![end(ended)]).await.unwrap();
    let ids: Vec<i64> = (0..5).map(|_| w.store.next_initiation()).collect();
    for (n, id) in ids.iter().enumerate() {
        let (to, session, body) = (to(w.alice), ended.session(n as u16), body.clone());
        let initiate = MessageOp::Initiate { to, id: *id, body: body.clone() };
        let confirm = MessageOp::Deliver { to, session, seq: 0, body, confirms: true };
        w.commit(w.bob, vec![initiate.into(), confirm.into()]).await.unwrap();
    }
    let initiations = |after| {
        let read = w.store.initiations(alice, after, 10);
        async move { read.await.unwrap().into_iter().map(|(id, _)| id).collect::<Vec<_>>() }
    };
    assert_eq!(initiations(0).await, ids[..2]);
    assert_eq!(initiations(ids[1]).await, ids[2..4]);
    assert_eq!(initiations(ids[3]).await, ids[4..]);
    assert_eq!(w.store.initiations(alice, 0, 1).await.unwrap().len(), 1, "and of a bounded number");

    let confirms = |after| {
        let read = w.store.late_confirms(alice, after, 10);
        async move { read.await.unwrap().into_iter().map(|confirm| confirm.session.index()).collect::<Vec<_>>() }
    };
    assert_eq!(confirms(None).await, [0, 1]);
    assert_eq!(confirms(Some(ended.session(1))).await, [2, 3]);
    assert_eq!(confirms(Some(ended.session(3))).await, [4]);

    for n in 0..3 {
        let op = MessageOp::Outbox { destination: "m".into(), message_id: [n; 16], body: body.clone() };
        w.commit(w.alice, vec![op.into()]).await.unwrap();
    }
    let sent = w.store.outbox(0, 10).await.unwrap();
    assert_eq!(sent.len(), 2);
    assert_eq!(w.store.outbox(sent[1].id, 10).await.unwrap().len(), 1);
}

pub async fn flows_are_read_in_pages_of_bounded_bytes<D: Databases>() {
    let w = World::<D>::new().await;
    let mut rows = Vec::new();
    for n in 0..5 {
        let row = w.store.next_flow_row();
        let new = NewFlow { start: half_a_page(), ..new_flow(row) };
        let mut ops = vec![FlowOp::Start(Box::new(new)).into()];
        match n {
            // An ended one and a silent one among them.
            1 => ops.push(end_kept(row, 9_000_000)),
            2 => {}
            _ => ops.push(FlowOp::AppendLog { flow: row, seq: 3, body: half_a_page() }.into()),
        }
        ops.push(deliver(to(w.alice), row.session(0), n));
        w.commit(w.alice, ops).await.unwrap();
        rows.push(row);
    }
    let plain = w.store.flows(&rows).await.unwrap();
    assert_eq!(plain.iter().map(|flow| flow.row).collect::<Vec<_>>(), rows);
    assert!(plain.iter().all(|flow| flow.start.is_empty() && flow.end.is_none() && flow.labels.is_none()));

    let starts = w.store.starts(&rows).await.unwrap();
    assert_eq!(starts.iter().map(|(row, start)| (*row, start.len())).collect::<Vec<_>>(), {
        rows[..2].iter().map(|row| (*row, crate::PAGE_BYTES / 2)).collect::<Vec<_>>()
    });
    let mut asked: Vec<FlowRow> = rows.iter().rev().copied().collect();
    asked.push(FlowRow(99_999));
    let mut all = Vec::new();
    crate::each_start(&*w.store, &asked, |row, _| all.push(row)).await.unwrap();
    assert_eq!(all, rows, "all of them, each once");

    let asked = [rows[2], rows[0], FlowRow(99_999), rows[3], rows[4], rows[2]];
    let heads = w.store.heads(&asked).await.unwrap();
    assert_eq!(heads.iter().map(|head| head.flow).collect::<Vec<_>>(), asked[..4]);
    assert_eq!(heads[0].inbox, [(rows[2].session(0), 2)]);
    assert_eq!(heads[3].last.as_ref().map(|(seq, body)| (*seq, body.len())), Some((3, crate::PAGE_BYTES / 2)));
    let rest = w.store.heads(&asked[4..]).await.unwrap();
    assert_eq!((rest.len(), rest[0].flow, rest[0].last.is_some(), rest[1].last.is_none()), (2, rows[4], true, true));
}

pub async fn of_a_journal_that_is_too_large_only_its_size_is_told<D: Databases>() {
    let w = World::<D>::new().await;
    let flow = w.start(w.alice).await;
    let mut ops: Vec<Op> = (0..3).map(|seq| log(flow, seq)).collect();
    ops.extend((0..4).map(|seq| deliver(to(w.alice), flow.session(0), seq)));
    w.commit(w.alice, ops).await.unwrap();
    let size = 3 * "log 0".len() as u64 + 4 * "message 0".len() as u64;
    let whole = w.store.journal(flow).await.unwrap().unwrap();
    assert_eq!((whole.log.len(), whole.inbox.len()), (3, 4));
    let within = |most| {
        let read = w.store.journal_within(flow, most);
        async move { read.await.unwrap() }
    };
    assert_eq!(within(size).await, Some(crate::SizedJournal::Whole(Box::new(whole))));
    for most in [0, 1, size / 2, size - 1] {
        assert_eq!(within(most).await, Some(crate::SizedJournal::Larger(size)), "of {most}");
    }
    assert_eq!(w.store.journal_within(FlowRow(99_999), size).await.unwrap(), None);
}

pub async fn readers_see_whole_units<D: Databases>() {
    const ROUNDS: usize = 100;
    let w = World::<D>::new().await;
    let flow = w.start(w.alice).await;
    let (store, alice) = (w.store.clone(), w.alice);
    let writer = tokio::spawn(async move {
        for seq in 0..ROUNDS as u32 {
            let ops = vec![log(flow, seq), deliver(to(alice), flow.session(0), seq)];
            store.commit(alice, ops).await.unwrap();
        }
    });
    let mut readers = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let store = w.store.clone();
        readers.spawn(async move {
            let mut seen = 0;
            while seen < ROUNDS {
                let journal = store.journal(flow).await.unwrap().unwrap();
                assert_eq!(journal.log.len(), journal.inbox.len(), "a unit is seen whole or not at all");
                assert!(journal.log.len() >= seen);
                seen = journal.log.len();
            }
        });
    }
    writer.await.unwrap();
    while let Some(reader) = readers.join_next().await {
        reader.unwrap();
    }
}
