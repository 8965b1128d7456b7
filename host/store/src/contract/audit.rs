//! The audit trail: what was written is read in its order, and goes in time and above a number.

use super::*;
use crate::{AuditClass, AuditFilter, AuditPlace, AuditRow};

fn row(seq: i64, class: AuditClass) -> AuditRow {
    AuditRow {
        seq,
        class,
        at: 1_000 + seq,
        host: Arc::from("max-1"),
        user: "ann".to_owned(),
        action: "StartFlow".to_owned(),
        identity: Some("O=Alice, L=London, C=GB".to_owned()),
        flow: Some("ping-pong/ping".to_owned()),
        flow_id: Some("some-id".to_owned()),
        detail: None,
        token: None,
        allowed: true,
        code: None,
        count: 1,
    }
}

fn change(seq: i64) -> AuditRow {
    row(seq, AuditClass::Change)
}

async fn read<D: Databases>(w: &World<D>, filter: AuditFilter) -> Vec<(AuditPlace, AuditRow)> {
    w.store.audit(&AuditFilter { limit: filter.limit.max(1), ..filter }).await.unwrap()
}

/// The times of all rows of a filter, newest first.
async fn times<D: Databases>(w: &World<D>, filter: AuditFilter) -> Vec<i64> {
    read(w, AuditFilter { limit: 10_000, ..filter }).await.iter().map(|(_, row)| row.at).collect()
}

async fn purge_all<D: Databases>(w: &World<D>) {
    while w.store.purge(10).await.unwrap() >= 10 {}
}

pub async fn rows_are_read_newest_first_in_pages<D: Databases>() {
    let w = World::<D>::new().await;
    let refused = AuditRow {
        allowed: false,
        code: Some("permission-denied".to_owned()),
        flow: None,
        flow_id: None,
        detail: Some("max-2".to_owned()),
        token: Some("5f0c93b1a2d44e07".to_owned()),
        count: 7,
        ..row(3, AuditClass::Look)
    };
    w.store.append_audit(vec![change(1), change(2)]).await.unwrap();
    w.store.append_audit(vec![refused.clone(), change(4)]).await.unwrap();
    // What happened in the same moment as another row comes once all the same.
    w.store.append_audit(vec![AuditRow { at: 1_003, ..change(5) }]).await.unwrap();
    assert_eq!(times(&w, AuditFilter::default()).await, [1_004, 1_003, 1_003, 1_002, 1_001]);
    let (mut before, mut paged) = (None, Vec::new());
    loop {
        let page = read(&w, AuditFilter { before, limit: 2, ..AuditFilter::default() }).await;
        let Some((last, _)) = page.last() else { break };
        before = Some(*last);
        paged.extend(page.into_iter().map(|(_, row)| row));
    }
    let whole = read(&w, AuditFilter { limit: 10, ..AuditFilter::default() }).await;
    assert_eq!(paged.len(), 5);
    assert_eq!(paged, whole.into_iter().map(|(_, row)| row).collect::<Vec<_>>());
    let found = paged.iter().find(|row| row.class == AuditClass::Look).unwrap();
    assert_eq!(AuditRow { seq: 0, ..found.clone() }, AuditRow { seq: 0, ..refused });
}

pub async fn rows_are_found_by_user_identity_and_time<D: Databases>() {
    let w = World::<D>::new().await;
    let bob = |seq| AuditRow { user: "bob".to_owned(), identity: None, ..change(seq) };
    w.store.append_audit(vec![change(1), bob(2), change(3), bob(4)]).await.unwrap();
    let user = Some("bob".to_owned());
    assert_eq!(times(&w, AuditFilter { user: user.clone(), ..AuditFilter::default() }).await, [1_004, 1_002]);
    let identity = Some("O=Alice, L=London, C=GB".to_owned());
    let of_alice = AuditFilter { identity: identity.clone(), ..AuditFilter::default() };
    assert_eq!(times(&w, of_alice.clone()).await, [1_003, 1_001]);
    assert_eq!(times(&w, AuditFilter { since: Some(1_003), ..AuditFilter::default() }).await, [1_004, 1_003]);
    assert_eq!(times(&w, AuditFilter { since: Some(1_002), ..of_alice.clone() }).await, [1_003]);
    assert!(times(&w, AuditFilter { user, ..of_alice }).await.is_empty());
}

/// Whoever does not know whether rows were written hands them in again.
pub async fn a_row_is_there_once<D: Databases>() {
    let w = World::<D>::new().await;
    w.store.append_audit(vec![change(1), change(2)]).await.unwrap();
    w.store.append_audit(vec![change(1), change(2), change(3)]).await.unwrap();
    assert_eq!(times(&w, AuditFilter::default()).await, [1_003, 1_002, 1_001]);
    // Another run counts from the beginning.
    let w = w.reopen().await;
    w.store.append_audit(vec![change(1)]).await.unwrap();
    assert_eq!(times(&w, AuditFilter::default()).await, [1_003, 1_002, 1_001, 1_001]);
}

pub async fn the_oldest_rows_go_first<D: Databases>() {
    let audit = AuditBounds { rows: 20, ..AuditBounds::default() };
    let w = World::<D>::with(Settings { audit, ..Settings::default() }).await;
    w.store.append_audit((0..5).map(change).collect()).await.unwrap();
    w.store.append_audit((100..200).map(|seq| row(seq, AuditClass::Look)).collect()).await.unwrap();
    purge_all(&w).await;
    // A flood of what was looked at takes nothing away of what was changed.
    let mut kept: Vec<i64> = (1_180..1_200).chain(1_000..1_005).collect();
    kept.sort_unstable_by_key(|at| std::cmp::Reverse(*at));
    assert_eq!(times(&w, AuditFilter::default()).await, kept);
    w.store.append_audit((300..320).map(change).collect()).await.unwrap();
    purge_all(&w).await;
    assert_eq!(times(&w, AuditFilter::default()).await.len(), 40);
    assert_eq!(times(&w, AuditFilter { since: Some(1_300), ..AuditFilter::default() }).await.len(), 20);
}

pub async fn old_rows_are_forgotten_by_the_time_that_hosts_run<D: Databases>() {
    // By the wall clock these rows are as old as can be; by the time that hosts run they are new.
    let w = World::<D>::new().await;
    w.store.append_audit(vec![AuditRow { at: 0, ..change(1) }]).await.unwrap();
    purge_all(&w).await;
    assert_eq!(times(&w, AuditFilter::default()).await, [0]);
    let World { databases, mut settings, store, .. } = w;
    store.close().await;
    settings.audit.keep = Duration::ZERO;
    let store = databases.open(&settings).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    while store.purge(10).await.unwrap() >= 10 {}
    assert!(store.audit(&AuditFilter { limit: 10, ..AuditFilter::default() }).await.unwrap().is_empty());
}

pub async fn rows_outlive_a_restart<D: Databases>() {
    let w = World::<D>::new().await;
    w.store.append_audit((0..3).map(change).collect()).await.unwrap();
    let w = w.reopen().await;
    w.store.append_audit((10..13).map(change).collect()).await.unwrap();
    assert_eq!(times(&w, AuditFilter::default()).await, [1_012, 1_011, 1_010, 1_002, 1_001, 1_000]);
}
