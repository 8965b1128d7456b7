//! Whether a RabbitMQ keeps what is put into it.

use maxhost_broker::{BrokerError, QueueName};
use serde_json::Value;

use super::http::Http;
use crate::error::{refused, unavailable};
use crate::management::NOTICES;
use crate::management::dialect::Dialect;

/// What a policy may say of queues that loses messages. A bound that rejects is among them: RabbitMQ 3 ends a host's connection
/// when a queue rejects one of its messages.
const LOSING: [&str; 5] = ["message-ttl", "expires", "max-length", "max-length-bytes", "delivery-limit"];

/// Refuses a broker that would lose messages, and tells how it is spoken to.
pub(super) async fn check(http: &Http) -> Result<Dialect, BrokerError> {
    let overview = http.get("overview").await?.value;
    let version = overview["product_version"].as_str().or(overview["rabbitmq_version"].as_str()).unwrap_or_default();
    let dialect = dialect(overview["product_name"].as_str(), version)?;
    tracing::info!(version, "the broker is RabbitMQ");
    let nodes = http.get("nodes?columns=name,type").await?.value;
    check_nodes(nodes.as_array().ok_or_else(|| unavailable("the broker does not tell its nodes"))?)?;
    for kind in ["policies", "operator-policies"] {
        let policies = http.get(&format!("{kind}/%2F")).await?.value;
        for policy in policies.as_array().map(Vec::as_slice).unwrap_or_default() {
            check_policy(policy)?;
        }
    }
    Ok(dialect)
}

fn dialect(product: Option<&str>, version: &str) -> Result<Dialect, BrokerError> {
    let mut numbers = version.split('.').map(|part| part.parse::<u32>().ok());
    match (product, numbers.next().flatten(), numbers.next().flatten()) {
        (Some("RabbitMQ"), Some(3), Some(10..)) => Ok(Dialect::RabbitMq3),
        (Some("RabbitMQ"), Some(4..), Some(_)) => Ok(Dialect::RabbitMq4),
        (Some("RabbitMQ"), ..) => Err(refused(format!("it is RabbitMQ {version}: take 3.10 or later"))),
        _ => Err(refused("what broker.management names is not the management of a RabbitMQ")),
    }
}

fn check_nodes(nodes: &[Value]) -> Result<(), BrokerError> {
    match nodes.iter().find(|node| node["type"] == "ram") {
        None => Ok(()),
        Some(node) => Err(refused(format!(
            "its node {} keeps its queues in memory: make it a node of type disc",
            node["name"].as_str().unwrap_or_default()
        ))),
    }
}

/// Refuses a policy that may concern queues of hosts, and would lose messages of them.
fn check_policy(policy: &Value) -> Result<(), BrokerError> {
    let Some(key) = losing(&policy["definition"]) else { return Ok(()) };
    let beginning = beginning(policy["pattern"].as_str().unwrap_or_default());
    let concerns =
        QueueName::PREFIXES.iter().any(|prefix| prefix.starts_with(&beginning) || beginning.starts_with(prefix));
    if policy["apply-to"] == "exchanges" || !concerns || NOTICES == beginning {
        return Ok(());
    }
    Err(refused(format!(
        "its policy {} sets {key} for queues of hosts, which would lose messages: remove the policy, or give it a pattern such \
         as ^other\\. that begins otherwise than {}",
        policy["name"].as_str().unwrap_or_default(),
        QueueName::PREFIXES.join(", ")
    )))
}

/// What of a definition loses messages.
pub(super) fn losing(definition: &Value) -> Option<&'static str> {
    LOSING.into_iter().find(|key| !definition[key].is_null())
}

/// The text that every name begins with which matches this pattern, as far as that is plain to see.
fn beginning(pattern: &str) -> String {
    let Some(rest) = pattern.strip_prefix('^') else { return String::new() };
    // With an alternative, a name may begin in more than one way.
    if rest.contains('|') {
        return String::new();
    }
    let (mut beginning, mut letters) = (String::new(), rest.chars().peekable());
    while let Some(letter) = letters.next() {
        let letter = match letter {
            '\\' if letters.peek() == Some(&'.') => letters.next().unwrap_or('.'),
            letter if letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_') => letter,
            _ => break,
        };
        // The letter may be left out.
        if matches!(letters.peek(), Some('?' | '*' | '{')) {
            break;
        }
        beginning.push(letter);
    }
    beginning
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn a_broker_is_known_by_its_version() {
        assert_eq!(dialect(Some("RabbitMQ"), "3.10.8").unwrap(), Dialect::RabbitMq3);
        assert_eq!(dialect(Some("RabbitMQ"), "3.13.0-rc.1").unwrap(), Dialect::RabbitMq3);
        assert_eq!(dialect(Some("RabbitMQ"), "4.1.2").unwrap(), Dialect::RabbitMq4);
        for old in ["3.9.13", "2.8.4", "3", ""] {
            assert!(dialect(Some("RabbitMQ"), old).unwrap_err().to_string().contains("take 3.10"), "{old}");
        }
        assert!(dialect(None, "3.10.8").unwrap_err().to_string().contains("broker.management"));
    }

    #[test]
    fn a_node_without_a_disk_is_refused() {
        check_nodes(&[json!({ "name": "a", "type": "disc" }), json!({ "name": "b" })]).unwrap();
        let error = check_nodes(&[json!({ "name": "rabbit@b", "type": "ram" })]).unwrap_err().to_string();
        assert!(error.contains("rabbit@b") && error.contains("disc"), "{error}");
    }

    #[test]
    fn a_policy_that_would_lose_messages_is_refused_unless_it_is_for_others() {
        let check = |pattern: &str, applies_to: &str, definition: Value| {
            check_policy(&json!({ "name": "p", "pattern": pattern, "apply-to": applies_to, "definition": definition }))
        };
        let ttl = json!({ "message-ttl": 1000 });
        for pattern in [
            "",
            ".*",
            "^",
            "^p2p\\.",
            "^p2p.inbound",
            "^rpc\\.client",
            "^max",
            "inbound",
            "^other|.*",
            "^o?p2p",
            "^(p2p)",
        ] {
            for applies_to in ["all", "queues", "classic_queues"] {
                let error = check(pattern, applies_to, ttl.clone()).unwrap_err().to_string();
                assert!(error.contains("message-ttl"), "{pattern}: {error}");
            }
            check(pattern, "exchanges", ttl.clone()).unwrap();
            check(pattern, "queues", json!({ "ha-mode": "all" })).unwrap();
        }
        for pattern in ["^other", "^other\\.", "^p2p\\.outbound", "^rpc2"] {
            check(pattern, "queues", ttl.clone()).unwrap();
        }
        for key in LOSING {
            assert!(check(".*", "all", json!({ key: 10 })).is_err(), "{key}");
        }
    }
}
