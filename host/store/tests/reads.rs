//! What can be asked of the store.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::time::Instant;

use common::*;
use maxhost_model::{FlowId, FlowRow};
use maxhost_store::{FlowFilter, FlowState, NewFlow, Op};

#[tokio::test]
async fn heads_are_the_newest_of_each_lane() {
    let f = Fixture::new().await;
    let (talks, silent) = (f.start(f.alice).await, f.start(f.bob).await);
    let mut ops: Vec<Op> = (0..20).map(|seq| log(talks, seq)).collect();
    ops.extend((0..30).map(|seq| deliver(talks.session(0), seq)));
    ops.extend((0..3).map(|seq| deliver(talks.session(65_535), seq)));
    f.commit(f.alice, ops).await.unwrap();
    let heads = f.store.heads(&[silent, FlowRow(999), talks]).await.unwrap();
    assert_eq!(heads.len(), 3);
    assert_eq!((heads[0].flow, &heads[0].last, heads[0].inbox.len()), (silent, &None, 0));
    assert_eq!((heads[1].flow, &heads[1].last), (FlowRow(999), &None));
    assert_eq!(heads[2].last, Some((19, text("log 19"))));
    assert_eq!(heads[2].inbox, [(talks.session(0), 29), (talks.session(65_535), 2)]);
}

#[tokio::test]
async fn flows_are_listed_newest_first_in_pages() {
    let f = Fixture::new().await;
    let mut rows = Vec::new();
    for n in 0..10 {
        let identity = if n % 2 == 0 { f.alice } else { f.bob };
        let row = f.store.next_flow_row();
        let name = if n < 8 { "a/b" } else { "c/d" };
        let new = NewFlow { name: name.into(), ..new_flow(row) };
        f.commit(identity, vec![Op::StartFlow(Box::new(new))]).await.unwrap();
        rows.push(row);
    }
    f.commit(f.alice, vec![end_kept(rows[0], 1)]).await.unwrap();
    let store = &f.store;
    let list = |filter: FlowFilter| async move {
        let found = store.list_flows(&filter).await.unwrap();
        found.into_iter().map(|flow| flow.row).collect::<Vec<_>>()
    };
    let all: Vec<FlowRow> = rows.iter().rev().copied().collect();
    assert_eq!(list(FlowFilter::default()).await, all);
    assert_eq!(list(FlowFilter { limit: 4, ..FlowFilter::default() }).await, all[..4]);
    assert_eq!(list(FlowFilter { limit: 4, before: Some(all[3]), ..FlowFilter::default() }).await, all[4..8]);
    assert_eq!(list(FlowFilter { name: Some("c/d".into()), ..FlowFilter::default() }).await, all[..2]);
    let ended = vec![FlowState::Completed, FlowState::Killed];
    assert_eq!(list(FlowFilter { states: ended.clone(), ..FlowFilter::default() }).await, rows[..1]);
    assert!(list(FlowFilter { states: ended, identity: Some(f.bob), ..FlowFilter::default() }).await.is_empty());
    assert_eq!(list(FlowFilter { identity: Some(f.bob), ..FlowFilter::default() }).await.len(), 5);
}

#[tokio::test]
async fn an_id_leads_to_its_flow() {
    let f = Fixture::new().await;
    let row = f.start(f.alice).await;
    let record = f.store.flow(row).await.unwrap().unwrap();
    assert_eq!(record.id, FlowId::new(row, 0xfeed));
    assert_eq!(f.store.flow(FlowRow(row.0 + 1)).await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_see_whole_units_while_the_committer_writes() {
    let f = Fixture::new().await;
    let flow = f.start(f.alice).await;
    let store = f.store.clone();
    let alice = f.alice;
    let writer = tokio::spawn(async move {
        for seq in 0..300 {
            store.commit(alice, EPOCH, vec![log(flow, seq), deliver(flow.session(0), seq)]).await.unwrap();
        }
    });
    let mut readers = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let store = f.store.clone();
        readers.spawn(async move {
            let mut seen = 0;
            while seen < 300 {
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_thousand_live_flows_are_scanned_quickly() {
    const FLOWS: usize = 200_000;
    let f = Fixture::new().await;
    for chunk in 0..FLOWS / 500 {
        let ops = (0..500).map(|_| start(f.store.next_flow_row())).collect();
        let answer = submit(&f.store, if chunk % 2 == 0 { f.alice } else { f.bob }, None, ops);
        if chunk % 20 == 19 {
            answer.await.unwrap().unwrap();
        }
    }
    f.commit(f.alice, vec![]).await.unwrap();
    let started = Instant::now();
    let flows = f.store.live_flows().await.unwrap();
    let scan = started.elapsed();
    assert_eq!(flows.len(), FLOWS);
    assert!(flows.windows(2).all(|pair| pair[0].row < pair[1].row));
    let some: Vec<FlowRow> = flows.iter().step_by(10).map(|flow| flow.row).collect();
    let started = Instant::now();
    assert_eq!(f.store.heads(&some).await.unwrap().len(), some.len());
    println!("{FLOWS} live flows: scan {scan:?}; heads of {}: {:?}", some.len(), started.elapsed());
}
