//! Whether a broker keeps what is put into it: asked when a host starts, before anything is entrusted to it.

use maxhost_broker::{BrokerError, QueueName};
use serde_json::{Value, json};

use super::questions::{Answer, Questions};
use crate::error::{refused, unavailable};

/// Refuses a broker that would lose messages, and says what to set.
pub(crate) async fn check(questions: &Questions) -> Result<(), BrokerError> {
    let version = value(questions.attribute("broker", "version").await?, "its version")?;
    tracing::info!(version = version.as_str().unwrap_or_default(), "the broker is Artemis");
    for (attribute, element) in [
        ("persistenceEnabled", "persistence-enabled"),
        ("journalSyncNonTransactional", "journal-sync-non-transactional"),
    ] {
        if value(questions.attribute("broker", attribute).await?, attribute)? != Value::Bool(true) {
            return Err(refused(format!(
                "it confirms messages that are not on its disk yet: set <{element}>true</{element}> in its broker.xml"
            )));
        }
    }
    for prefix in QueueName::PREFIXES {
        let answer = questions.call("broker", "getAddressSettingsAsJSON", json!([format!("{prefix}probe")])).await?;
        let text = value(answer, "its address settings")?;
        let settings: Value = serde_json::from_str(text.as_str().unwrap_or_default()).map_err(unavailable)?;
        check_settings(prefix, &settings)?;
    }
    Ok(())
}

fn value(answer: Answer, what: &str) -> Result<Value, BrokerError> {
    answer.map_err(|reason| {
        refused(format!(
            "it does not tell {what} ({reason}): give the host's user the permissions that deploy/artemis/broker.xml has \
             for activemq.management.#"
        ))
    })
}

/// What the settings of the addresses below a prefix must be, why, and how it is written in broker.xml.
fn check_settings(prefix: &str, settings: &Value) -> Result<(), BrokerError> {
    let text = |key: &str| match &settings[key] {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let wanted = [
        (
            "addressFullMessagePolicy",
            "PAGE",
            "address-full-policy",
            "messages that do not fit into its memory must go to its disk",
        ),
        ("maxDeliveryAttempts", "-1", "max-delivery-attempts", "a message that was given back is deleted"),
        (
            "defaultAddressRoutingType",
            "ANYCAST",
            "default-address-routing-type",
            "a message for a queue that is gone is lost",
        ),
        (
            "defaultQueueRoutingType",
            "ANYCAST",
            "default-queue-routing-type",
            "a message for a queue that is gone is lost",
        ),
        ("autoCreateQueues", "true", "auto-create-queues", "a message for a queue that is gone is lost"),
        ("autoCreateAddresses", "true", "auto-create-addresses", "a queue cannot be made on demand"),
        ("autoDeleteQueues", "false", "auto-delete-queues", "a queue is deleted while hosts count on it"),
        ("autoDeleteAddresses", "false", "auto-delete-addresses", "a queue is deleted while hosts count on it"),
        ("expiryDelay", "-1", "expiry-delay", "messages are deleted when they have waited for long"),
        ("maxExpiryDelay", "-1", "max-expiry-delay", "messages are deleted when they have waited for long"),
    ];
    for (key, right, element, why) in wanted {
        let told = text(key);
        // What is not told has its default, which is -1 for delays.
        let is_right = told.eq_ignore_ascii_case(right) || (right == "-1" && told == "null" && key.ends_with("Delay"));
        if !is_right {
            return Err(refused(format!(
                "{why}: set <{element}>{right}</{element}> for {prefix}# in the address-settings of its broker.xml (it \
                 is {told} now)"
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn settings() -> Value {
        json!({
            "addressFullMessagePolicy": "PAGE", "maxDeliveryAttempts": -1, "defaultAddressRoutingType": "ANYCAST",
            "defaultQueueRoutingType": "ANYCAST", "autoCreateQueues": true, "autoCreateAddresses": true,
            "autoDeleteQueues": false, "autoDeleteAddresses": false, "expiryDelay": -1, "maxExpiryDelay": -1,
        })
    }

    #[test]
    fn what_would_lose_messages_is_refused_and_said_how_it_is_mended() {
        check_settings("p2p.inbound.", &settings()).unwrap();
        for (key, wrong, remedy) in [
            ("addressFullMessagePolicy", json!("DROP"), "<address-full-policy>PAGE<"),
            ("addressFullMessagePolicy", json!("BLOCK"), "<address-full-policy>PAGE<"),
            ("maxDeliveryAttempts", json!(10), "<max-delivery-attempts>-1<"),
            ("defaultAddressRoutingType", json!("MULTICAST"), "<default-address-routing-type>ANYCAST<"),
            ("defaultQueueRoutingType", json!("MULTICAST"), "<default-queue-routing-type>ANYCAST<"),
            ("autoCreateQueues", json!(false), "<auto-create-queues>true<"),
            ("autoCreateAddresses", json!(false), "<auto-create-addresses>true<"),
            ("autoDeleteQueues", json!(true), "<auto-delete-queues>false<"),
            ("autoDeleteAddresses", json!(true), "<auto-delete-addresses>false<"),
            ("expiryDelay", json!(5000), "<expiry-delay>-1<"),
            ("maxExpiryDelay", json!(5000), "<max-expiry-delay>-1<"),
        ] {
            let mut settings = settings();
            settings[key] = wrong;
            let error = check_settings("p2p.inbound.", &settings).unwrap_err().to_string();
            assert!(error.contains(remedy) && error.contains("p2p.inbound.#"), "{error}");
        }
        // What is not told at all is no reason to trust it.
        assert!(check_settings("rpc.", &json!({})).is_err());
    }
}
