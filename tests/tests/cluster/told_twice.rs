//! What is told more than once: notices of the broker, and commands.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::StreamExt;
use maxhost_broker::QueueName;
use maxhost_flows::IdentitySpec;
use maxhost_flows::api::{Arguments, Caller, FlowEvent, HostApi, StartFlow};
use maxhost_model::FlowId;
use maxhost_ownership::Change;
use maxhost_store::FlowFilter;
use maxhost_tests::{ALICE, BOB, eventually};
use serde_json::json;
use tokio::sync::oneshot;

use crate::fixture::*;

/// There are these flows, and each once.
async fn assert_no_others(cluster: &Cluster, mut flows: Vec<FlowId>) {
    let listed = cluster.store.list_flows(&FlowFilter::default()).await.unwrap();
    let mut listed: Vec<FlowId> = listed.iter().map(|flow| flow.id).collect();
    listed.sort();
    flows.sort();
    assert_eq!(listed, flows);
}

/// Hazard 38: whoever takes a notice and dies before the demand is durable has it told to another.
#[tokio::test(flavor = "multi_thread")]
async fn a_notice_of_the_broker_is_taken_away_when_the_demand_is_durable() {
    let mut cluster = Cluster::new().await;
    let map = maxhost_pki::NetworkMap::load(&cluster.network.path("network")).unwrap();
    let alice = map.party(&ALICE.parse().unwrap()).unwrap().unwrap().party.owning_key.fingerprint();
    let (told, was_wanted) = oneshot::channel();
    let lossy = Lossy::new(cluster.broker.clone());
    *lossy.bell.lock().unwrap() = Some(Bell {
        queue: Some(QueueName::inbound(&alice)),
        onlooker: cluster.onlooker.clone(),
        identity: alice,
        was_wanted: Some(told),
    });
    cluster.broker = Arc::new(lossy);
    let gate = Arc::new(Gate::open(cluster.realm.join_as("a", cluster.store.run())));
    // The ownership service does not take it at first.
    gate.lost_demands.store(2, Ordering::Release);
    let _a = cluster.host_with("a", gate.clone(), |_| ()).await;
    let was_wanted = tokio::time::timeout(LONG, was_wanted).await.unwrap().unwrap();
    assert!(was_wanted, "the notice was taken away before anybody knew that Alice is wanted");
    assert_eq!(gate.lost_demands.load(Ordering::Acquire), 0);
    eventually("somebody runs Alice", async || match cluster.owner(ALICE).await.as_deref() {
        Some("a") => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
}

/// Hazards 13 and 15: a command that comes again is carried out once and answered, and so is who asks another host for what
/// became of it.
#[tokio::test(flavor = "multi_thread")]
async fn commands_that_come_twice_start_one_flow_and_are_answered_by_any_host() {
    let mut cluster = Cluster::new().await;
    let lossy = Arc::new(Lossy::new(cluster.broker.clone()));
    cluster.broker = lossy.clone();
    let (a, b) = (cluster.host("a", |_| ()).await, cluster.host("b", |_| ()).await);
    let first = try_start(&b, BOB, "beat", json!({"beats": 1, "interval_ms": 1})).await.unwrap();
    assert_eq!(result(&b, first).await, json!({"beats": 1}));
    assert_eq!(cluster.owner(BOB).await.as_deref(), Some("b"));
    lossy.doubles.store(true, Ordering::Release);
    let mut flows = vec![first];
    for client_id in [None, Some("once".to_owned())] {
        let arguments = Arguments::Json(json!({"beats": 3, "interval_ms": 20}));
        let request = StartFlow { identity: BOB.to_owned(), flow: "beat".to_owned(), arguments, client_id };
        let started = a.start_flow(&Caller::local(), request).await.unwrap();
        assert!(started.new);
        flows.push(started.flow_id);
    }
    for (flow, beats) in flows.iter().zip([1, 3, 3]) {
        assert_eq!(result(&a, *flow).await, json!({ "beats": beats }));
        // The labels outlive the journal, and every host has them.
        let events: Vec<_> = a.attach(&Caller::local(), *flow, 0).await.unwrap().collect().await;
        let labels = events.iter().filter(|event| matches!(event, Ok(FlowEvent::Progress { .. }))).count();
        assert_eq!(labels, beats, "{events:?}");
    }
    // Carried out in the order of the queue, so when one that is sent later is done nothing of these is left to do.
    let last = try_start(&a, BOB, "beat", json!({"beats": 1, "interval_ms": 1})).await.unwrap();
    assert_eq!(result(&a, last).await, json!({"beats": 1}));
    flows.push(last);
    assert_no_others(&cluster, flows).await;
    assert!(lossy.taken.lock().unwrap().len() >= 3);
}

/// Rule 12: that a command is told ahead makes nothing sure.
#[tokio::test(flavor = "multi_thread")]
async fn a_command_whose_recipient_could_not_be_told_ahead_is_rung_for_all_the_same() {
    let cluster = Cluster::new().await;
    let gate = Arc::new(Gate::open(cluster.realm.join_as("a", cluster.store.run())));
    // A start that was not told ahead does not wait before the broker has it.
    let worker = cluster.begin("a", (gate.clone(), 0), |options| options.start_held = LONG).await;
    let b = cluster.host("b", |_| ()).await;
    gate.lost_demands.store(1, Ordering::Release);
    let beat = try_start(&worker, ALICE, "beat", json!({"beats": 1, "interval_ms": 1})).await.unwrap();
    assert_eq!(gate.lost_demands.load(Ordering::Acquire), 0, "the first demand was lost");
    assert_eq!(result(&b, beat).await, json!({"beats": 1}));
    assert_eq!(cluster.owner(ALICE).await.as_deref(), Some("b"));
}

/// Rule 12: a start goes along with the demand. It is carried out though the broker has not taken it, and once though the broker gives
/// it out as well.
#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_goes_along_with_the_demand_is_carried_out_once_whatever_the_broker_does() {
    let mut cluster = Cluster::new().await;
    let lossy = Arc::new(Lossy::new(cluster.broker.clone()));
    cluster.broker = lossy.clone();
    let worker = cluster.host_of("a", 0, |options| options.start_held = Duration::ZERO).await;
    let b = cluster.host("b", |options| options.idle_close = Duration::from_millis(200)).await;
    lossy.swallowed.store(1, Ordering::Release);
    let mut flows = vec![try_start(&worker, ALICE, "beat", json!({"beats": 1, "interval_ms": 1})).await.unwrap()];
    assert!(lossy.taken.lock().unwrap().is_empty(), "the broker has nothing");
    cluster.until_nobody_owns_anything().await;
    lossy.doubles.store(true, Ordering::Release);
    flows.push(try_start(&worker, ALICE, "beat", json!({"beats": 1, "interval_ms": 1})).await.unwrap());
    for flow in &flows {
        assert_eq!(result(&b, *flow).await, json!({"beats": 1}));
    }
    // An identity sleeps when nothing is left in its queue.
    cluster.until_nobody_owns_anything().await;
    assert_no_others(&cluster, flows).await;
}

/// Rule 12: the broker is not given a start that was carried out for the demand. A demand has one start, so the broker has all of
/// several; each is carried out once.
#[tokio::test(flavor = "multi_thread")]
async fn the_broker_is_not_given_a_start_that_was_carried_out_for_the_demand() {
    let mut cluster = Cluster::new().await;
    let lossy = Arc::new(Lossy::new(cluster.broker.clone()));
    cluster.broker = lossy.clone();
    let worker = cluster.host_of("a", 0, |options| options.start_held = LONG).await;
    let b = cluster.host("b", |options| options.idle_close = Duration::from_millis(200)).await;
    let start = async || try_start(&worker, ALICE, "beat", json!({"beats": 1, "interval_ms": 1})).await.unwrap();
    let mut flows = vec![start().await];
    assert_eq!(result(&b, flows[0]).await, json!({"beats": 1}));
    cluster.until_nobody_owns_anything().await;
    assert!(lossy.taken.lock().unwrap().is_empty(), "the broker was given nothing");
    flows.extend(<[_; 3]>::from(tokio::join!(start(), start(), start())));
    for flow in &flows {
        assert_eq!(result(&b, *flow).await, json!({"beats": 1}));
    }
    cluster.until_nobody_owns_anything().await;
    assert_no_others(&cluster, flows).await;
}

/// Rule 10: where a start came along, the owner's node is made while the keys are opened. Who cannot open them gives it back, and has
/// claimed nothing in the database.
#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_cannot_open_the_keys_for_a_start_gives_the_identity_back() {
    let cluster = Cluster::new().await;
    let worker = cluster.host_of("w", 0, |_| ()).await;
    let a = cluster.host("a", |_| ()).await;
    let (alice, own) = (cluster.network.path("keys/alice"), cluster.network.path("keys/alice-of-a"));
    std::fs::create_dir(&own).unwrap();
    std::fs::set_permissions(&own, std::fs::metadata(&alice).unwrap().permissions()).unwrap();
    for file in std::fs::read_dir(&alice).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), own.join(file.file_name())).unwrap();
    }
    let spec = IdentitySpec { keys: own.clone(), ..cluster.spec(ALICE, "alice") };
    assert!(a.put_identities(vec![spec]).await.unwrap().is_empty());
    std::fs::remove_dir_all(&own).unwrap();
    let mut changes = cluster.onlooker.changes();
    let gives_back = async {
        while !matches!(changes.next().await, Some(Change::Released(owner)) if &*owner.host == "a") {}
        let records = cluster.store.identities().await.unwrap();
        let record = records.iter().find(|record| record.name == ALICE).unwrap();
        assert_eq!((record.owner(), record.unclean), (None, 0), "{record:?}");
        cluster.host("b", |_| ()).await
    };
    let started = try_start(&worker, ALICE, "beat", json!({"beats": 1, "interval_ms": 1}));
    let (b, beat) = tokio::join!(tokio::time::timeout(LONG, gives_back), started);
    assert_eq!(result(&b.unwrap(), beat.unwrap()).await, json!({"beats": 1}));
    assert_eq!(cluster.owner(ALICE).await.as_deref(), Some("b"));
}
