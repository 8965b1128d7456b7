//! Names of queues, as a type that cannot hold a bad one.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use maxhost_model::SecureHash;

/// The name of a queue: 1 to 255 bytes of ASCII letters, digits, `.`, `-` and `_`, below one of [`QueueName::PREFIXES`].
///
/// The inbound queue of an identity is named after its key, as in Corda 4: `p2p.inbound.DL` and the base 58 text of the
/// SHA-256 hash of the encoded key. So its length does not depend on the identity's name.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct QueueName(Arc<str>);

/// What the queues of clients begin with: those of requests, and those of answers.
const CLIENTS: &str = "rpc.";
const ANSWERS: &str = "rpc.client.";
/// What inbound queues begin with.
const INBOUND: &str = "p2p.inbound.";
/// What Corda puts before the hash of a key ("distinguished legal entity").
const KEY: &str = "DL";
/// An address of every AMQP broker may be so long.
const LONGEST: usize = 255;

/// The text is no name for a queue.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{0}' is no name for a queue: 1 to 255 letters, digits, '.', '-' or '_' below p2p.inbound., maxhost. or rpc. are \
     allowed"
)]
pub struct BadQueueName(String);

impl QueueName {
    /// What every name begins with, so that a broker can be configured for all of them beforehand.
    pub const PREFIXES: [&'static str; 3] = [INBOUND, "maxhost.", CLIENTS];

    /// The inbound queue of the identity whose key has this fingerprint.
    #[must_use]
    pub fn inbound(fingerprint: &SecureHash) -> QueueName {
        QueueName(format!("{INBOUND}{KEY}{}", bs58::encode(fingerprint.as_bytes()).into_string()).into())
    }

    /// The marker of this number, for hosts that use this database in this incarnation.
    #[must_use]
    pub fn marker(database: i64, incarnation: i32, number: i64) -> QueueName {
        QueueName(format!("maxhost.marker.{database}.{incarnation}.{number}").into())
    }

    /// The fingerprint of the key whose inbound queue this is; `None` for every other queue.
    #[must_use]
    pub fn fingerprint(&self) -> Option<SecureHash> {
        let text = self.0.strip_prefix(INBOUND)?.strip_prefix(KEY)?;
        let mut bytes = [0; 32];
        let length = bs58::decode(text).onto(&mut bytes[..]).ok()?;
        (length == bytes.len()).then(|| SecureHash::from_bytes(bytes))
    }

    /// The queue that workers take the requests of clients from.
    #[must_use]
    pub fn requests() -> QueueName {
        QueueName("rpc.server".into())
    }

    /// Whether it is a queue of requests or answers, which several may consume at once.
    #[must_use]
    pub fn is_of_clients(&self) -> bool {
        self.0.starts_with(CLIENTS)
    }

    /// Whether it is a queue of answers. What is in it waits for a client, who may be away for days.
    #[must_use]
    pub fn is_for_answers(&self) -> bool {
        self.0.starts_with(ANSWERS)
    }

    /// Whether this user may have answers put into it: `rpc.client.USER`, or a name below that.
    #[must_use]
    pub fn is_for_answers_to(&self, user: &str) -> bool {
        let rest = self.0.strip_prefix(ANSWERS).and_then(|rest| rest.strip_prefix(user));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for QueueName {
    type Err = BadQueueName;

    fn from_str(text: &str) -> Result<QueueName, BadQueueName> {
        let is_below = |prefix: &&str| text.len() > prefix.len() && text.starts_with(prefix);
        let is_good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        if text.len() <= LONGEST && text.chars().all(is_good) && QueueName::PREFIXES.iter().any(is_below) {
            Ok(QueueName(text.into()))
        } else {
            Err(BadQueueName(text.chars().take(64).collect()))
        }
    }
}

impl Borrow<str> for QueueName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for QueueName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for QueueName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_inbound_queue_is_named_after_the_key_and_names_it() {
        let mut longest = 0;
        for n in 0..200_u32 {
            let fingerprint = SecureHash::of(&n.to_be_bytes());
            let queue = QueueName::inbound(&fingerprint);
            assert_eq!(queue.fingerprint(), Some(fingerprint));
            assert_eq!(queue.as_str().parse::<QueueName>().unwrap(), queue);
            longest = longest.max(queue.as_str().len());
        }
        assert_eq!(longest, 58);
        // Leading zeros of the hash are kept.
        let zeros = SecureHash::from_bytes([0; 32]);
        assert_eq!(QueueName::inbound(&zeros).fingerprint(), Some(zeros));
        // SHA-256 of "abc" in base 58.
        let known = QueueName::inbound(&SecureHash::of(b"abc"));
        assert_eq!(known.as_str(), "p2p.inbound.DLDYu3G8aGTMBW1WrTw76zxQJQU4DHLw9MLyy7peG4LKkY");
    }

    #[test]
    fn other_names_are_checked() {
        let marker = QueueName::marker(i64::MAX, 3, 7);
        assert_eq!((marker.as_str().parse(), marker.fingerprint()), (Ok(marker.clone()), None));
        for good in ["maxhost.wake", "rpc.client.alice.1-2_3", &format!("rpc.{}", "x".repeat(251))] {
            let queue: QueueName = good.parse().unwrap();
            assert_eq!((queue.as_str(), queue.fingerprint()), (good, None));
        }
        let long = format!("rpc.{}", "x".repeat(252));
        for bad in ["", "rpc.", "wake", "maxhost", "maxhost.a b", "maxhost.a/b", "maxhost.ä", "p2p.inbound.", &long] {
            assert!(bad.parse::<QueueName>().is_err(), "{bad}");
        }
        for foreign in ["p2p.inbound.DL", "p2p.inbound.DL0OIl", "p2p.inbound.DLabc", "p2p.inbound.XXabc"] {
            assert_eq!(foreign.parse::<QueueName>().unwrap().fingerprint(), None, "{foreign}");
        }
    }
}
