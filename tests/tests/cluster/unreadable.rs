//! What a later version of the host wrote, met by this one.

use std::sync::Arc;
use std::time::Duration;

use maxhost_flows::api::{Caller, FlowPhase, HostApi};
use maxhost_flows::{Eviction, HostOptions};
use maxhost_tests::{ALICE, eventually};
use serde_json::json;

use crate::fixture::*;

/// The same bytes as a host would have written whose records have another format: the version is in front, and a checksum behind.
fn of_a_later_version(record: &[u8]) -> Vec<u8> {
    let mut later = record[..record.len() - 4].to_vec();
    later[0] += 1;
    let mut crc = !0_u32;
    for byte in &later {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg());
        }
    }
    later.extend_from_slice(&(!crc).to_be_bytes());
    later
}

/// Hazard 34: a host that cannot read what a later one has written parks the flow, and the first host that can goes on with it.
#[tokio::test(flavor = "multi_thread")]
async fn a_flow_that_one_host_cannot_read_goes_on_at_one_that_can() {
    let cluster = Cluster::new().await;
    let soon = |options: &mut HostOptions| {
        options.idle_close = Duration::from_millis(50);
        options.eviction = Eviction::EveryWait;
    };
    let a = cluster.host("a", soon).await;
    let beat = try_start(&a, ALICE, "beat", json!({"beats": 2, "interval_ms": 5_000})).await.unwrap();
    cluster.until_nobody_owns_anything().await;
    let database = cluster.network.database();
    let newest = "flow = ?1 AND stream = -1 AND seq = (SELECT max(seq) FROM journal WHERE flow = ?1 AND stream = -1)";
    let read = format!("SELECT body FROM journal WHERE {newest}");
    let written: Vec<u8> = database.query_row(&read, [beat.row().0], |row| row.get(0)).unwrap();
    let write = format!("UPDATE journal SET body = ?2 WHERE {newest}");
    let put = |body: &[u8]| database.execute(&write, rusqlite::params![beat.row().0, body]).unwrap();
    assert_eq!(put(&of_a_later_version(&written)), 1);
    let phase = async |host: &Arc<maxhost_flows::Host>| {
        let summary = host.flow(&Caller::local(), beat).await.map_err(|problem| problem.to_string())?.summary;
        Ok::<_, String>((summary.phase, summary.reason))
    };
    eventually("it is parked", async || match phase(&a).await? {
        (FlowPhase::Hospital, Some(reason)) if reason.contains("has format 2") => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    // Nothing else is held up by it. By now its bytes are again what this version writes, as they would be to a host that can read
    // them: the one that could not does not try the same again whenever it has the identity.
    cluster.until_nobody_owns_anything().await;
    assert_eq!(put(&written), 1);
    let other = try_start(&a, ALICE, "beat", json!({"beats": 1, "interval_ms": 1})).await.unwrap();
    assert_eq!(result(&a, other).await, json!({"beats": 1}));
    cluster.until_nobody_owns_anything().await;
    assert_eq!(phase(&a).await.unwrap().0, FlowPhase::Hospital);
    let b = cluster.host("b", soon).await;
    a.leave(Duration::from_secs(20)).await;
    let other = start(&[&b], ALICE, "beat", json!({"beats": 1, "interval_ms": 1})).await;
    assert_eq!((result(&b, other).await, result(&b, beat).await), (json!({"beats": 1}), json!({"beats": 2})));
}
