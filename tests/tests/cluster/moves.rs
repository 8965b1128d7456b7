//! Identities that are moved to a host, whatever becomes of the command and of the owner that is asked.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use maxhost_flows::api::{Caller, HostApi};
use maxhost_tests::{ALICE, eventually};
use serde_json::json;

use crate::fixture::*;

/// Starts a flow of Alice at a host that nobody competes with, and which owns her from then on.
async fn begin(host: &maxhost_flows::Host) -> maxhost_model::FlowId {
    try_start(host, ALICE, "beat", json!({"beats": 30, "interval_ms": 100})).await.unwrap()
}

async fn host_of(cluster: &Cluster, name: &str) -> String {
    eventually("somebody owns the identity", async || cluster.owner(name).await.ok_or_else(String::new)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_is_moved_though_its_owner_dies_between_the_command_and_letting_go() {
    let cluster = Cluster::new().await;
    let gate = Arc::new(Gate::open(cluster.realm.join_as("a", cluster.store.run())));
    let a = cluster.host_with("a", gate.clone(), |_| ()).await;
    let beat = begin(&a).await;
    assert_eq!(cluster.owner(ALICE).await.as_deref(), Some("a"));
    // The third is nearly always before the second when somebody is wanted, by its slots.
    let (b, _c) = (cluster.host_of("b", 1, |_| ()).await, cluster.host_of("c", 1_000, |_| ()).await);
    let held = gate.hand_overs.acquire().await.unwrap();
    let moving = {
        let b = b.clone();
        tokio::spawn(async move { b.move_identity(&Caller::local(), ALICE, "b").await })
    };
    gate.handing.notified().await;
    // The command is taken and acknowledged, and the demand does not name the host that she was to go to.
    cluster.realm.expire("a");
    drop(held);
    assert_eq!(moving.await.unwrap().unwrap().host.as_deref(), Some("b"));
    assert_eq!(result(&b, beat).await, json!({"beats": 30}));
    assert_eq!(host_of(&cluster, ALICE).await, "b");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_that_was_not_reached_is_asked_again() {
    let mut cluster = Cluster::new().await;
    let lossy = Arc::new(Lossy::new(cluster.broker.clone()));
    cluster.broker = lossy.clone();
    let a = cluster.host("a", |_| ()).await;
    let beat = begin(&a).await;
    let b = cluster.host("b", |_| ()).await;
    lossy.swallowed.store(1, Ordering::Release);
    let moved = b.move_identity(&Caller::local(), ALICE, "b").await.unwrap();
    assert_eq!((moved.host.as_deref(), lossy.swallowed.load(Ordering::Acquire)), (Some("b"), 0));
    assert_eq!(result(&b, beat).await, json!({"beats": 30}));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_sleeps_is_moved_and_a_move_to_where_it_is_changes_nothing() {
    let cluster = Cluster::new().await;
    let (a, b) = (cluster.host("a", |_| ()).await, cluster.host("b", |_| ()).await);
    for target in ["b", "a", "b"] {
        let moved = a.move_identity(&Caller::local(), ALICE, target).await.unwrap();
        assert_eq!(moved.host.as_deref(), Some(target));
        let again = b.move_identity(&Caller::local(), ALICE, target).await.unwrap();
        assert_eq!((again.host, again.epoch), (moved.host, moved.epoch));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_to_move_that_comes_late_moves_nobody_whom_somebody_else_has_moved_since() {
    let mut cluster = Cluster::new().await;
    let lossy = Arc::new(Lossy::new(cluster.broker.clone()));
    cluster.broker = lossy.clone();
    let a = cluster.host("a", |_| ()).await;
    let beat = begin(&a).await;
    assert_eq!(cluster.owner(ALICE).await.as_deref(), Some("a"));
    let (b, c) = (cluster.host("b", |_| ()).await, cluster.host("c", |_| ()).await);
    lossy.taken.lock().unwrap().clear();
    b.move_identity(&Caller::local(), ALICE, "b").await.unwrap();
    let sent = lossy.taken.lock().unwrap().clone();
    let moved = c.move_identity(&Caller::local(), ALICE, "c").await.unwrap();
    assert_eq!(moved.host.as_deref(), Some("c"));
    // The first command stood in her queue a second time, because it was asked again, and comes only now.
    let (queue, message) = sent.into_iter().next().expect("a command for her owner");
    lossy.inner.send(&queue, message, std::time::Duration::from_secs(20)).await.unwrap();
    // What stands behind it in the queue is carried out after it.
    let behind = try_start(&a, ALICE, "beat", json!({"beats": 5, "interval_ms": 50})).await.unwrap();
    assert_eq!((result(&a, behind).await, result(&b, beat).await), (json!({"beats": 5}), json!({"beats": 30})));
    let found = c.whereabouts(&Caller::local(), Some(ALICE)).await.unwrap().remove(0);
    assert_eq!((found.host, found.epoch), (moved.host, moved.epoch), "she has been there all the time");
}
