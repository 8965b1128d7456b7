//! Apache Artemis, which is asked by messages to its management address.

mod checks;
mod questions;

use std::time::Duration;

use async_trait::async_trait;
use maxhost_broker::{BrokerError, QueueName};
use serde_json::{Value, json};

use self::questions::Questions;
use super::dialect::Dialect;
use super::{First, Listed, Management, NOTICE_OF, NOTICES, Since, TOLD};
use crate::connection::Line;
use crate::error::{refused, unavailable};

/// Queues that are listed at once: a page of all queues of a large broker has taken more memory than it had.
const PAGE: usize = 100;
/// When it is looked for a queue that could not be made, each so long after the look before it.
const MADE_BY_ANOTHER: [Duration; 3] = [Duration::ZERO, Duration::from_millis(20), Duration::from_millis(100)];
/// Chooses the messages that Artemis keeps in files of their own, which are those of `amqpMinLargeMessageSize` (100 KiB) and
/// more: for them alone it tells the size 0.
const KEPT_IN_FILES: &str = "AMQSize < 1";

/// An Artemis.
#[derive(Debug)]
pub(crate) struct Artemis {
    questions: Questions,
}

impl Artemis {
    /// Asks by way of this connection; refuses a broker that would lose messages.
    pub async fn open(line: Line) -> Result<Artemis, BrokerError> {
        let questions = Questions::new(line);
        checks::check(&questions).await?;
        Ok(Artemis { questions })
    }

    async fn make(&self, name: &str, particular: Value) -> Result<(), BrokerError> {
        let wanted = wanted(name, particular);
        // With `true`, it is no error if the queue is there already.
        let answer = self.questions.call("broker", "createQueue", json!([wanted.to_string(), true])).await?;
        let made = match answer {
            Ok(Value::String(made)) => serde_json::from_str::<Value>(&made).map_err(unavailable)?,
            Ok(other) => return Err(refused(format!("what it says of queue {name} is not understood: {other}"))),
            // Another host may be making it at this moment: then it is there in a moment, too.
            Err(reason) => {
                for pause in MADE_BY_ANOTHER {
                    tokio::time::sleep(pause).await;
                    if let Ok(found) = self.found(name).await {
                        return check(name, &wanted, &found);
                    }
                }
                return Err(refused(format!("it does not make the queue {name}: {reason}")));
            }
        };
        // A queue that was there already has not been looked at: what is told of it is what was asked for, without a number.
        let made = if made["id"].is_null() { self.found(name).await? } else { made };
        check(name, &wanted, &made)
    }

    /// A count that the broker keeps of a queue; 0 of one that is not there.
    async fn count(&self, name: &QueueName, what: &'static str) -> Result<u64, BrokerError> {
        let answer = self.questions.attribute(format!("queue.{name}"), what).await?;
        Ok(answer.ok().and_then(|value| number(&value)).unwrap_or(0))
    }

    /// What a queue is that was there already, in the words of its configuration.
    async fn found(&self, name: &str) -> Result<Value, BrokerError> {
        const ATTRIBUTES: [(&str, &str); 7] = [
            ("address", "address"),
            ("routingType", "routing-type"),
            ("durable", "durable"),
            ("exclusive", "exclusive"),
            ("purgeOnNoConsumers", "purge-on-no-consumers"),
            ("lastValueKey", "last-value-key"),
            ("ringSize", "ring-size"),
        ];
        let asking = ATTRIBUTES.map(|(attribute, key)| async move {
            let value = self.questions.attribute(format!("queue.{name}"), attribute).await?;
            let value = value.map_err(|reason| unavailable(format!("queue {name} cannot be looked at: {reason}")))?;
            Ok::<_, BrokerError>((key.to_owned(), value))
        });
        Ok(Value::Object(futures::future::try_join_all(asking).await?.into_iter().collect()))
    }
}

#[async_trait]
impl Management for Artemis {
    fn dialect(&self) -> Dialect {
        Dialect::Artemis
    }

    async fn make_queue(&self, name: &QueueName) -> Result<(), BrokerError> {
        self.make(name.as_str(), json!({ "exclusive": !name.is_of_clients() })).await
    }

    async fn make_notices(&self) -> Result<(), BrokerError> {
        self.make(NOTICES, json!({ "exclusive": false, "last-value-key": NOTICE_OF })).await
    }

    async fn is_usable(&self, name: &QueueName) -> Result<bool, BrokerError> {
        if self.questions.attribute(format!("queue.{name}"), "durable").await?.is_err() {
            return Ok(false);
        }
        check(name.as_str(), &wanted(name.as_str(), json!({})), &self.found(name.as_str()).await?)?;
        Ok(true)
    }

    async fn exists(&self, name: &QueueName) -> Result<bool, BrokerError> {
        if self.questions.attribute(format!("queue.{name}"), "durable").await?.is_ok() {
            return Ok(true);
        }
        // It does not say why. A broker that tells nothing of itself either has not said that the queue is not there.
        let itself = self.questions.attribute("broker", "version").await?;
        itself
            .map(|_| false)
            .map_err(|reason| unavailable(format!("it is not told whether queue {name} is there: {reason}")))
    }

    async fn remove_first(&self, name: &QueueName, bytes: u64) -> Result<(), BrokerError> {
        let object = format!("queue.{name}");
        let refuse =
            |reason: &str| unavailable(format!("a message of {name} that is too large cannot be removed: {reason}"));
        let is_alone = async || -> Result<(), BrokerError> {
            let consumers = self.questions.attribute(object.as_str(), "consumerCount").await?;
            match consumers.ok().as_ref().and_then(number) {
                Some(0) => Ok(()),
                _ => Err(refuse("somebody else consumes the queue")),
            }
        };
        is_alone().await?;
        let first = self.questions.call(&object, "peekFirstMessageAsJSON", json!([])).await?;
        let first = first.ok().and_then(|first| serde_json::from_str::<Value>(first.as_str()?).ok());
        let Some(id) = first.and_then(|first| first["messageID"].as_u64()) else { return Err(refuse("it is gone")) };
        is_alone().await?;
        match self.questions.call(&object, "removeMessage", json!([id])).await? {
            Ok(Value::Bool(true)) => {
                tracing::warn!(target: "audit", event = "message-refused", cause = "too-large", queue = %name, bytes);
                Ok(())
            }
            Ok(_) => Err(refuse("it is gone")),
            Err(reason) => Err(refuse(&reason)),
        }
    }

    async fn remove_large(&self, name: &QueueName) -> Result<(), BrokerError> {
        let answer = self.questions.call(&format!("queue.{name}"), "removeMessages", json!([KEPT_IN_FILES])).await?;
        match answer.as_ref().map(number) {
            Ok(Some(count)) if count > 0 => {
                tracing::warn!(target: "audit", event = "message-refused", cause = "too-large", queue = %name, count);
                Ok(())
            }
            Ok(_) => Err(unavailable(format!("a message of {name} that is too large is not in its queue at present"))),
            Err(reason) => {
                Err(unavailable(format!("a message of {name} that is too large cannot be removed: {reason}")))
            }
        }
    }

    async fn listed(&self) -> Result<Vec<Listed>, BrokerError> {
        let filter = json!({ "field": "MESSAGE_COUNT", "operation": "GREATER_THAN", "value": "0" }).to_string();
        let mut found = Vec::new();
        for page in 1..=TOLD / PAGE {
            let arguments = json!([filter, page, PAGE]);
            let answer = self.questions.call("broker", "listQueues", arguments).await?;
            let text = answer.map_err(|reason| unavailable(format!("the queues cannot be listed: {reason}")))?;
            let listed: Value = serde_json::from_str(text.as_str().unwrap_or_default()).map_err(unavailable)?;
            let rows = listed["data"].as_array().map(Vec::as_slice).unwrap_or_default();
            // Others' queues do not concern us.
            found.extend(rows.iter().filter_map(|row| {
                let name: QueueName = row["name"].as_str()?.parse().ok()?;
                let acked = number(&row["messagesAcked"]);
                Some(Listed { name, consumers: number(&row["consumerCount"])?, acked, first: First::ToBeAsked })
            }));
            if rows.len() < PAGE {
                break;
            }
        }
        Ok(found)
    }

    async fn first_sent_at(&self, name: &QueueName) -> Result<Option<i64>, BrokerError> {
        let answer = self.questions.attribute(format!("queue.{name}"), "firstMessageTimestamp").await?;
        // A queue that is not there any more holds nothing.
        let at = answer.ok().as_ref().and_then(number).and_then(|at| i64::try_from(at).ok());
        Ok(at.filter(|at| *at > 0))
    }

    async fn is_consumed(&self, name: &QueueName) -> Result<Option<bool>, BrokerError> {
        if self.count(name, "messageCount").await? == 0 {
            return Ok(None);
        }
        Ok(Some(self.count(name, "consumerCount").await? > 0))
    }

    async fn is_waiting(&self, name: &QueueName, _since: Since) -> Result<bool, BrokerError> {
        // Most of the time there is a consumer, and one question is enough.
        Ok(self.count(name, "consumerCount").await? == 0 && self.count(name, "messageCount").await? > 0)
    }
}

/// A number, which the broker may have written as text.
fn number(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}

/// What a queue is to be, in the words of its configuration.
fn wanted(name: &str, particular: Value) -> Value {
    let mut wanted = json!({
        "name": name, "address": name, "routing-type": "ANYCAST", "durable": true, "max-consumers": -1,
        "auto-delete": false, "auto-create-address": true, "purge-on-no-consumers": false,
    });
    if let (Some(wanted), Value::Object(particular)) = (wanted.as_object_mut(), particular) {
        wanted.extend(particular);
    }
    wanted
}

/// Whether a queue is as it must be.
fn check(name: &str, wanted: &Value, made: &Value) -> Result<(), BrokerError> {
    let told = |key: &str| match &made[key] {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let differs = |key: &str| told(key) != wanted[key].as_str().map_or_else(|| wanted[key].to_string(), str::to_owned);
    let remedy = "remove the queue when it is empty, and it is made anew";
    let is_bad = |what: &str| Err(refused(format!("queue {name} {what}: {remedy}")));
    if differs("address") {
        return is_bad("is bound to another address");
    }
    if differs("routing-type") {
        return is_bad("is not of routing type ANYCAST, so messages may be lost or come to several consumers");
    }
    if differs("durable") {
        return is_bad("is not durable, so the broker loses its messages when it stops");
    }
    if wanted["exclusive"] == Value::Bool(true) && differs("exclusive") {
        return is_bad("is not exclusive, so two hosts may consume it at once");
    }
    if differs("purge-on-no-consumers") {
        return is_bad("loses its messages when nobody consumes it");
    }
    if differs("last-value-key") && wanted["last-value-key"].is_null()
        || made["ring-size"].as_i64().is_some_and(|size| size >= 0)
    {
        return is_bad("drops older messages for newer ones");
    }
    Ok(())
}
