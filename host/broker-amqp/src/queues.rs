//! The queues of the broker: made by whoever first names them, and looked at before anything is entrusted to them.

use std::collections::{HashMap, HashSet};

use futures::FutureExt;
use futures::future::{BoxFuture, Shared, WeakShared};
use maxhost_broker::{BrokerError, Holding, QueueName};
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::connection::Line;
use crate::error::{refused, unavailable};
use crate::management::Management;

/// Names that are remembered; with more than that, all are asked for again.
const REMEMBERED: usize = 100_000;
/// Queues that are listed at once: a page of all queues of a large broker has taken more memory than it had.
const PAGE: usize = 100;
/// So many queues are asked about one by one; of more, all that hold messages are listed.
const ASKED_ONE_BY_ONE: usize = 16;
/// Queues that hold messages, as many as are told at once.
const TOLD: usize = 10_000;
/// Where notices of backlogs are put: the newest for each queue stays.
pub(crate) const NOTICES: &str = "maxhost.wake";
/// Chooses the messages that Artemis keeps in files of their own, which are those of `amqpMinLargeMessageSize` (100 KiB) and
/// more: for them alone it tells the size 0.
const KEPT_IN_FILES: &str = "AMQSize < 1";
/// The property of a notice that says which queue it is about.
pub(crate) const NOTICE_OF: &str = "id";

/// Makes sure of queues, and lists those that hold messages.
#[derive(Debug)]
pub(crate) struct Queues {
    management: Management,
    line: Line,
    known: Mutex<Known>,
    /// Queues that are being made sure of, each by the connection on which it was begun: whoever wants one of them waits for
    /// that.
    making: Mutex<HashMap<QueueName, Begun>>,
}

type Making = BoxFuture<'static, Result<(), BrokerError>>;
/// The connection on which it was begun, and what there is to wait for.
type Begun = (Option<u64>, WeakShared<Making>);

/// Queues that were found right on one connection: on the next, the broker may be another one.
#[derive(Debug, Default)]
struct Known {
    connection: Option<u64>,
    names: HashSet<QueueName>,
}

/// A queue with messages, as the broker lists it.
#[derive(Debug)]
pub(crate) struct Listed {
    pub name: QueueName,
    pub consumers: u64,
    /// How many messages of it were ever acknowledged, since the broker started, if it tells.
    pub acked: Option<u64>,
}

impl Queues {
    /// Asks by way of this connection.
    pub fn new(management: Management, line: Line) -> Queues {
        Queues { management, line, known: Mutex::default(), making: Mutex::default() }
    }

    /// Makes the queue if there is none, and checks that it keeps what is put into it.
    ///
    /// # Errors
    /// [`maxhost_broker::Permanent::Refused`] if it would lose messages or give them to several consumers.
    pub async fn ensure(&self, name: &QueueName) -> Result<(), BrokerError> {
        let connection = self.line.number();
        if self.is_known(name, connection) {
            return Ok(());
        }
        self.making(name, connection).await?;
        self.remember(name, connection);
        Ok(())
    }

    /// What makes sure of a queue: begun by somebody else, or now.
    fn making(&self, name: &QueueName, connection: Option<u64>) -> Shared<Making> {
        let mut all = self.making.lock();
        if let Some((begun, making)) = all.get(name)
            && *begun == connection
            && let Some(making) = making.upgrade().filter(|making| making.peek().is_none())
        {
            return making;
        }
        // Of what is done, or was given up by all who waited for it, nothing is kept.
        all.retain(|_, (_, making)| making.upgrade().is_some());
        let (management, queue) = (self.management.clone(), name.clone());
        let making =
            async move { make(&management, queue.as_str(), json!({ "exclusive": !queue.is_of_clients() })).await };
        let making = making.boxed().shared();
        // It is not done yet, so there is something to go back to.
        if let Some(weak) = making.downgrade() {
            all.insert(name.clone(), (connection, weak));
        }
        making
    }

    /// The same for a queue that a client has made, or has not: whether it is there.
    ///
    /// # Errors
    /// As [`Queues::ensure`].
    pub async fn is_usable(&self, name: &QueueName) -> Result<bool, BrokerError> {
        let connection = self.line.number();
        if self.is_known(name, connection) {
            return Ok(true);
        }
        if self.management.attribute(format!("queue.{name}"), "durable").await?.is_err() {
            return Ok(false);
        }
        let found = found(&self.management, name.as_str()).await?;
        check(name.as_str(), &wanted(name.as_str(), json!({})), &found)?;
        self.remember(name, connection);
        Ok(true)
    }

    fn is_known(&self, name: &QueueName, connection: Option<u64>) -> bool {
        let known = self.known.lock();
        known.connection == connection && known.names.contains(name)
    }

    fn remember(&self, name: &QueueName, connection: Option<u64>) {
        let mut known = self.known.lock();
        if known.connection != connection || known.names.len() >= REMEMBERED {
            *known = Known { connection, names: HashSet::new() };
        }
        known.names.insert(name.clone());
    }

    /// Has the queue looked at again before it is used the next time.
    pub fn forget(&self, name: &QueueName) {
        self.known.lock().names.remove(name);
    }

    /// The same as [`Queues::ensure`], for the queue of the notices.
    pub async fn ensure_notices(&self) -> Result<(), BrokerError> {
        make(&self.management, NOTICES, json!({ "exclusive": false, "last-value-key": NOTICE_OF })).await
    }

    /// Removes the first message of a queue, which is too large for any host, and says so in the log. Nobody else may consume
    /// the queue meanwhile, or the first message might be another one.
    pub async fn remove_first(&self, name: &QueueName, bytes: u64) -> Result<(), BrokerError> {
        let object = format!("queue.{name}");
        let refuse =
            |reason: &str| unavailable(format!("a message of {name} that is too large cannot be removed: {reason}"));
        let is_alone = async || -> Result<(), BrokerError> {
            let consumers = self.management.attribute(object.as_str(), "consumerCount").await?;
            match consumers.ok().as_ref().and_then(number) {
                Some(0) => Ok(()),
                _ => Err(refuse("somebody else consumes the queue")),
            }
        };
        is_alone().await?;
        let first = self.management.call(&object, "peekFirstMessageAsJSON", json!([])).await?;
        let first = first.ok().and_then(|first| serde_json::from_str::<Value>(first.as_str()?).ok());
        let Some(id) = first.and_then(|first| first["messageID"].as_u64()) else { return Err(refuse("it is gone")) };
        is_alone().await?;
        match self.management.call(&object, "removeMessage", json!([id])).await? {
            Ok(Value::Bool(true)) => {
                tracing::warn!(target: "audit", event = "message-refused", cause = "too-large", queue = %name, bytes);
                Ok(())
            }
            Ok(_) => Err(refuse("it is gone")),
            Err(reason) => Err(refuse(&reason)),
        }
    }

    /// Removes the messages of a shared queue that the broker keeps in files of their own, and says so in the log: it does not
    /// tell their sizes, so one that is larger than any host takes cannot be told from them ([`KEPT_IN_FILES`]). Others may consume
    /// the queue meanwhile; what one of them has been given is not removed.
    ///
    /// # Errors
    /// Nothing was removed.
    pub async fn remove_large(&self, name: &QueueName) -> Result<(), BrokerError> {
        let answer = self.management.call(&format!("queue.{name}"), "removeMessages", json!([KEPT_IN_FILES])).await?;
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

    /// The queues that hold messages.
    pub async fn holding(&self) -> Result<Vec<Listed>, BrokerError> {
        let filter = json!({ "field": "MESSAGE_COUNT", "operation": "GREATER_THAN", "value": "0" }).to_string();
        let mut found = Vec::new();
        for page in 1..=TOLD / PAGE {
            let arguments = json!([filter, page, PAGE]);
            let answer = self.management.call("broker", "listQueues", arguments).await?;
            let text = answer.map_err(|reason| unavailable(format!("the queues cannot be listed: {reason}")))?;
            let listed: Value = serde_json::from_str(text.as_str().unwrap_or_default()).map_err(unavailable)?;
            let rows = listed["data"].as_array().map(Vec::as_slice).unwrap_or_default();
            // Others' queues do not concern us.
            found.extend(rows.iter().filter_map(|row| {
                let name: QueueName = row["name"].as_str()?.parse().ok()?;
                let acked = number(&row["messagesAcked"]);
                Some(Listed { name, consumers: number(&row["consumerCount"])?, acked })
            }));
            if rows.len() < PAGE {
                break;
            }
        }
        // What waits for a client concerns no host.
        found.retain(|queue| queue.name.as_str() != NOTICES && !queue.name.is_for_answers());
        Ok(found)
    }

    /// When the first message of a queue was sent that no consumer has been given: ms since 1970, by the sender's clock.
    /// `None` if there is none, or its sender does not say.
    pub async fn first_sent_at(&self, name: &QueueName) -> Result<Option<i64>, BrokerError> {
        let answer = self.management.attribute(format!("queue.{name}"), "firstMessageTimestamp").await?;
        // A queue that is not there any more holds nothing.
        let at = answer.ok().as_ref().and_then(number).and_then(|at| i64::try_from(at).ok());
        Ok(at.filter(|at| *at > 0))
    }

    /// Of these queues those that hold messages, in the order of their names.
    pub async fn holding_of(&self, names: &[QueueName]) -> Result<Vec<Holding>, BrokerError> {
        let mut found: Vec<Holding> = if names.len() > ASKED_ONE_BY_ONE {
            let wanted: HashSet<&QueueName> = names.iter().collect();
            let all = self.holding().await?.into_iter().filter(|queue| wanted.contains(&queue.name));
            all.map(|queue| Holding { queue: queue.name, is_consumed: queue.consumers > 0 }).collect()
        } else {
            let asking = names.iter().map(|name| async move {
                if self.count(name, "messageCount").await? == 0 {
                    return Ok::<_, BrokerError>(None);
                }
                let is_consumed = self.count(name, "consumerCount").await? > 0;
                Ok(Some(Holding { queue: name.clone(), is_consumed }))
            });
            futures::future::try_join_all(asking).await?.into_iter().flatten().collect()
        };
        found.sort_by(|a, b| a.queue.as_str().cmp(b.queue.as_str()));
        Ok(found)
    }

    /// Whether a queue holds messages and nobody consumes it.
    pub async fn is_waiting(&self, name: &QueueName) -> Result<bool, BrokerError> {
        // Most of the time there is a consumer, and one question is enough.
        Ok(self.count(name, "consumerCount").await? == 0 && self.count(name, "messageCount").await? > 0)
    }

    /// A count that the broker keeps of a queue; 0 of one that is not there.
    async fn count(&self, name: &QueueName, what: &'static str) -> Result<u64, BrokerError> {
        let answer = self.management.attribute(format!("queue.{name}"), what).await?;
        Ok(answer.ok().and_then(|value| number(&value)).unwrap_or(0))
    }
}

/// Makes a queue if there is none, and checks that it is as it must be.
async fn make(management: &Management, name: &str, particular: Value) -> Result<(), BrokerError> {
    let wanted = wanted(name, particular);
    // With `true`, it is no error if the queue is there already.
    let answer = management.call("broker", "createQueue", json!([wanted.to_string(), true])).await?;
    let made = match answer {
        Ok(Value::String(made)) => serde_json::from_str::<Value>(&made).map_err(unavailable)?,
        Ok(other) => return Err(refused(format!("what it says of queue {name} is not understood: {other}"))),
        // Another host may have made it at the same time.
        Err(reason) => match found(management, name).await {
            Ok(found) => return check(name, &wanted, &found),
            Err(_) => return Err(refused(format!("it does not make the queue {name}: {reason}"))),
        },
    };
    // A queue that was there already has not been looked at: what is told of it is what was asked for, without a number.
    let made = if made["id"].is_null() { found(management, name).await? } else { made };
    check(name, &wanted, &made)
}

/// What a queue is that was there already, in the words of its configuration.
async fn found(management: &Management, name: &str) -> Result<Value, BrokerError> {
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
        let value = management.attribute(format!("queue.{name}"), attribute).await?;
        let value = value.map_err(|reason| unavailable(format!("queue {name} cannot be looked at: {reason}")))?;
        Ok::<_, BrokerError>((key.to_owned(), value))
    });
    Ok(Value::Object(futures::future::try_join_all(asking).await?.into_iter().collect()))
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
