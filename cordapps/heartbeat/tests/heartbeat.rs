//! Heartbeats on a real host.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use maxhost_testkit::{Result, TestNetwork};
use serde_json::json;

#[test]
fn beats_as_often_as_it_is_told() -> Result<()> {
    let network = TestNetwork::new(["Alice"])?;
    let result = network.start("Alice", "beat", json!({"beats": 5, "interval_ms": 20}))?;
    assert_eq!(result, json!({"beats": 5}));
    Ok(())
}

#[test]
fn wakes_where_it_stopped_after_a_power_cut() -> Result<()> {
    let network = TestNetwork::new(["Alice"])?;
    let flow = network.launch("Alice", "beat", json!({"beats": 20, "interval_ms": 100}))?;
    network.wait_until(&flow, |shown| shown["progress"].to_string().contains("of 20"))?;
    network.kill_and_restart()?;
    assert_eq!(network.wait(&flow)?, json!({"beats": 20}));
    Ok(())
}

#[test]
fn refuses_to_sleep_longer_than_five_minutes() -> Result<()> {
    let network = TestNetwork::new(["Alice"])?;
    let error = network.start("Alice", "beat", json!({"beats": 1, "interval_ms": 300_001})).unwrap_err();
    assert_eq!(error.flow_failure().map(|failure| failure.kind.as_str()), Some("flow-exception"), "{error}");
    Ok(())
}
