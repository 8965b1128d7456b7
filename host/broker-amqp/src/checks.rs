//! Whether a broker keeps what is put into it: asked when a host starts, before anything is entrusted to it.

use maxhost_broker::{BrokerError, QueueName};
use serde_json::{Value, json};

use crate::error::{refused, unavailable};
use crate::management::{Answer, Management};

/// Refuses a broker that would lose messages, and says what to set.
pub(crate) async fn check(management: &Management) -> Result<(), BrokerError> {
    let version = value(management.attribute("broker", "version").await?, "its version")?;
    tracing::info!(version = version.as_str().unwrap_or_default(), "the broker is Artemis");
    for (attribute, element) in [
        ("persistenceEnabled", "persistence-enabled"),
        ("journalSyncNonTransactional", "journal-sync-non-transactional"),
    ] {
        if value(management.attribute("broker", attribute).await?, attribute)? != Value::Bool(true) {
            return Err(refused(format!(
                "it confirms messages that are not on its disk yet: set <{element}>true</{element}> in its broker.xml"
            )));
        }
    }
    for prefix in QueueName::PREFIXES {
        let answer = management.call("broker", "getAddressSettingsAsJSON", json!([format!("{prefix}probe")])).await?;
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
