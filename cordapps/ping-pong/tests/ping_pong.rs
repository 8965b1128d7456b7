//! Ping-pong on a real host.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use maxhost_testkit::{Result, TestNetwork};
use serde_json::json;

#[test]
fn a_message_comes_back_as_often_as_asked() -> Result<()> {
    let network = TestNetwork::new(["Alice", "Bob"])?;
    let result = network.start("Alice", "ping", json!({"peer": network.party("Bob"), "count": 3}))?;
    assert_eq!(result, json!({"rounds": 3}));
    Ok(())
}

#[test]
fn alice_can_ping_herself_and_nobody_at_all() -> Result<()> {
    let network = TestNetwork::new(["Alice"])?;
    let herself = network.start("Alice", "ping", json!({"peer": network.party("Alice"), "count": 2}))?;
    assert_eq!(herself, json!({"rounds": 2}));
    // Without a round no message would be sent; the party is looked up when the session is opened.
    let nobody = network.start("Alice", "ping", json!({"peer": "O=Nobody, L=London, C=GB", "count": 0})).unwrap_err();
    assert_eq!(nobody.flow_failure().map(|failure| failure.kind.as_str()), Some("illegal-argument"), "{nobody}");
    Ok(())
}

#[test]
fn a_flow_that_leaves_memory_at_every_wait_does_not_notice() -> Result<()> {
    for mode in ["never", "every-wait", "random:7"] {
        let network = TestNetwork::builder().identities(["Alice", "Bob"]).evict(mode).build()?;
        let result = network.start("Alice", "ping", json!({"peer": network.party("Bob"), "count": 10}))?;
        assert_eq!(result, json!({"rounds": 10}), "evict = {mode}");
    }
    Ok(())
}
