//! RabbitMQ, whose queues are managed over HTTP (its manual, "Management Plugin", section "HTTP API").
//!
//! Queues are classic ones, durable, with a single active consumer. What the plugin for AMQP 1.0 of RabbitMQ 3 leaves to be done
//! is done here:
//! - It confirms a message that no queue was found for. So messages go to an exchange of ours, whose alternate exchange leads to
//!   a queue that rejects everything: a host is told, and makes the queue again.
//! - It takes messages when the broker's disk or memory is full, which other protocols are blocked for. So alarms are asked for.

mod checks;
pub(crate) mod http;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use hyper::StatusCode;
use maxhost_broker::{BrokerError, QueueName, Transient};
use serde_json::{Value, json};
use tokio::time::Instant;

use self::http::Http;
use super::dialect::Dialect;
use super::{First, Listed, Management, NOTICES, Since, TOLD};
use crate::error::{refused, unavailable};
use crate::options::{AmqpOptions, ManagementAddress};

/// Where messages go that no queue was found for, and the queue that rejects them.
const REFUSE: &str = "maxhost.refuse";
/// Notices that are kept; the oldest ones go first. What is lost with them is found by looking at the queues.
const NOTICES_KEPT: u32 = 10_000;
/// Queues that are listed at once.
const PAGE: usize = 500;
/// What is told of a queue is up to 5 s old, if `management.sample_retention_policies` has no shorter samples
/// (`docs/cluster.md`, "RabbitMQ"), and a little more on its way.
const LAG: Duration = Duration::from_secs(6);
/// How often alarms are asked for.
const ALARMS: Duration = Duration::from_secs(2);

/// A RabbitMQ.
#[derive(Debug)]
pub(crate) struct RabbitMq {
    http: Arc<Http>,
    dialect: Dialect,
    is_full: Arc<AtomicBool>,
}

/// The broker has sounded an alarm.
#[derive(Debug, thiserror::Error)]
#[error(
    "RabbitMQ has sounded an alarm: its disk or its memory is fuller than disk_free_limit or vm_memory_high_watermark allow"
)]
struct Alarm;

impl RabbitMq {
    /// Asks by way of this address; refuses a broker that would lose messages.
    pub async fn open(options: &AmqpOptions, address: &ManagementAddress) -> Result<RabbitMq, BrokerError> {
        let http = Arc::new(Http::new(options, address)?);
        let dialect = checks::check(&http).await?;
        let is_full = Arc::new(AtomicBool::new(has_alarm(&http).await?));
        tokio::spawn(watch_alarms(Arc::downgrade(&http), Arc::clone(&is_full)));
        let rabbit = RabbitMq { http, dialect, is_full };
        rabbit.make_exchanges().await?;
        Ok(rabbit)
    }

    /// Makes what RabbitMQ 3 finds queues by.
    async fn make_exchanges(&self) -> Result<(), BrokerError> {
        if self.dialect != Dialect::RabbitMq3 {
            return Ok(());
        }
        self.declare(&format!("exchanges/%2F/{REFUSE}"), &json!({ "type": "fanout", "durable": true })).await?;
        let rejecting = json!({ "x-queue-type": "classic", "x-max-length": 0, "x-overflow": "reject-publish" });
        self.declare_queue(REFUSE, rejecting).await?;
        self.bind(REFUSE, REFUSE).await?;
        let exchange = json!({ "type": "direct", "durable": true, "arguments": { "alternate-exchange": REFUSE } });
        self.declare(&format!("exchanges/%2F/{}", Dialect::EXCHANGE), &exchange).await?;
        Ok(())
    }

    /// Makes something, or makes sure that it is as it would be made; whether it was there.
    async fn declare(&self, path: &str, value: &Value) -> Result<bool, BrokerError> {
        let answer = self.http.put(path, value).await?;
        match answer.status {
            StatusCode::CREATED => Ok(false),
            StatusCode::NO_CONTENT => Ok(true),
            _ => Err(refused(format!(
                "it does not make {}: {}; if there is one that is otherwise, remove it when it is empty, and it is made anew",
                path.replace("%2F/", ""),
                answer.reason()
            ))),
        }
    }

    async fn declare_queue(&self, name: &str, arguments: Value) -> Result<bool, BrokerError> {
        let queue = json!({ "durable": true, "auto_delete": false, "arguments": arguments });
        self.declare(&format!("queues/%2F/{name}"), &queue).await
    }

    /// Binds a queue to an exchange by its name; false if one of them is not there.
    async fn bind(&self, exchange: &str, queue: &str) -> Result<bool, BrokerError> {
        let path = format!("bindings/%2F/e/{exchange}/q/{queue}");
        let answer = self.http.post(&path, &json!({ "routing_key": queue })).await?;
        match answer.status {
            StatusCode::CREATED => Ok(true),
            StatusCode::NOT_FOUND => Ok(false),
            _ => Err(unavailable(format!("queue {queue} cannot be bound: {}", answer.reason()))),
        }
    }

    async fn make(&self, name: &str, arguments: Value) -> Result<(), BrokerError> {
        let was_there = self.declare_queue(name, arguments).await?;
        if was_there && let Some(queue) = self.look(name, "effective_policy_definition").await? {
            let loses = checks::losing(&queue["effective_policy_definition"]).filter(|_| name != NOTICES);
            if let Some(key) = loses {
                return Err(refused(format!(
                    "queue {name} loses messages: remove {key} from the policy that concerns it"
                )));
            }
        }
        if self.dialect == Dialect::RabbitMq3 && !self.bind(Dialect::EXCHANGE, name).await? {
            // The broker has lost everything since the host has started.
            self.make_exchanges().await?;
            if !self.bind(Dialect::EXCHANGE, name).await? {
                return Err(unavailable(format!("queue {name} is gone again")));
            }
        }
        Ok(())
    }

    /// These columns of a queue; `None` if there is no such queue.
    async fn look(&self, name: &str, columns: &str) -> Result<Option<Value>, BrokerError> {
        let answer = self.http.get(&format!("queues/%2F/{name}?columns={columns}")).await?;
        match answer.status {
            StatusCode::OK => Ok(Some(answer.value)),
            StatusCode::NOT_FOUND => Ok(None),
            _ => Err(unavailable(format!("queue {name} cannot be looked at: {}", answer.reason()))),
        }
    }

    /// Lists the queues with messages, and tells whether there is one of which nothing is told yet: a broker that has just started
    /// tells nothing of any.
    async fn list(&self) -> Result<(Vec<Listed>, bool), BrokerError> {
        let (mut found, mut is_unknown) = (Vec::new(), false);
        for page in 1..=TOLD / PAGE {
            let path = format!(
                "queues/%2F?page={page}&page_size={PAGE}&sort=messages&sort_reverse=true&columns=name,messages,consumers,\
                 head_message_timestamp"
            );
            let answer = self.http.get(&path).await?;
            // There are no more pages.
            if answer.status == StatusCode::BAD_REQUEST && page > 1 {
                break;
            }
            let Some(rows) = answer.value["items"].as_array() else {
                return Err(unavailable(format!("the queues cannot be listed: {}", answer.reason())));
            };
            let mut is_last = rows.len() < PAGE;
            for row in rows {
                // Others' queues do not concern us.
                let name = row["name"].as_str().and_then(|name| name.parse::<QueueName>().ok());
                match (row["messages"].as_u64(), name) {
                    (Some(0), _) => is_last = true,
                    (None, Some(_)) => is_unknown = true,
                    (Some(_), Some(name)) => found.push(Listed {
                        name,
                        consumers: row["consumers"].as_u64().unwrap_or(0),
                        acked: None,
                        first: First::SentAt(sent_at(&row["head_message_timestamp"])),
                    }),
                    (_, None) => {}
                }
            }
            if is_last {
                break;
            }
        }
        Ok((found, is_unknown))
    }
}

#[async_trait]
impl Management for RabbitMq {
    fn dialect(&self) -> Dialect {
        self.dialect
    }

    fn lag(&self) -> Duration {
        LAG
    }

    fn check_room(&self) -> Result<(), BrokerError> {
        match self.is_full.load(Ordering::Relaxed) {
            true => Err(Transient::NoSpace(Arc::new(Alarm)).into()),
            false => Ok(()),
        }
    }

    async fn make_queue(&self, name: &QueueName) -> Result<(), BrokerError> {
        let arguments = match name.is_of_clients() {
            true => json!({ "x-queue-type": "classic" }),
            false => json!({ "x-queue-type": "classic", "x-single-active-consumer": true }),
        };
        self.make(name.as_str(), arguments).await
    }

    async fn make_notices(&self) -> Result<(), BrokerError> {
        let bounded = json!({ "x-queue-type": "classic", "x-max-length": NOTICES_KEPT, "x-overflow": "drop-head" });
        self.make(NOTICES, bounded).await
    }

    async fn is_usable(&self, name: &QueueName) -> Result<bool, BrokerError> {
        let Some(queue) = self.look(name.as_str(), "durable,auto_delete").await? else { return Ok(false) };
        match queue["durable"] == true && queue["auto_delete"] == false {
            true => Ok(true),
            false => {
                Err(refused(format!("queue {name} is not durable, so the broker loses its messages when it stops")))
            }
        }
    }

    async fn exists(&self, name: &QueueName) -> Result<bool, BrokerError> {
        Ok(self.look(name.as_str(), "name").await?.is_some())
    }

    async fn remove_first(&self, name: &QueueName, bytes: u64) -> Result<(), BrokerError> {
        Err(unavailable(format!(
            "the first message of {name} has {bytes} bytes, which is more than RabbitMQ takes by default: set max_message_size \
             lower, and remove the message by hand"
        )))
    }

    async fn remove_large(&self, name: &QueueName) -> Result<(), BrokerError> {
        self.remove_first(name, 0).await
    }

    async fn listed(&self) -> Result<Vec<Listed>, BrokerError> {
        let deadline = Instant::now() + LAG;
        loop {
            let (found, is_unknown) = self.list().await?;
            if !is_unknown || Instant::now() >= deadline {
                return Ok(found);
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    async fn first_sent_at(&self, name: &QueueName) -> Result<Option<i64>, BrokerError> {
        let queue = self.look(name.as_str(), "head_message_timestamp").await?;
        Ok(queue.and_then(|queue| sent_at(&queue["head_message_timestamp"])))
    }

    async fn is_consumed(&self, name: &QueueName) -> Result<Option<bool>, BrokerError> {
        let Some(queue) = self.look(name.as_str(), "messages,consumers").await? else { return Ok(None) };
        let count = |what: &str| queue[what].as_u64().unwrap_or(0);
        Ok((count("messages") > 0).then(|| count("consumers") > 0))
    }

    async fn is_waiting(&self, name: &QueueName, since: Since) -> Result<bool, BrokerError> {
        let Some(queue) = self.look(name.as_str(), "messages,consumers").await? else { return Ok(false) };
        let count = |what: &str| queue[what].as_u64().unwrap_or(0);
        // What was put into it of late may not be told yet.
        Ok(count("consumers") == 0 && (since == Since::Sent || count("messages") > 0))
    }
}

/// When a message was sent, in ms since 1970. Messages of other protocols say it in seconds.
fn sent_at(timestamp: &Value) -> Option<i64> {
    const MILLISECONDS: i64 = 100_000_000_000;
    let at = timestamp.as_i64().filter(|at| *at > 0)?;
    Some(if at < MILLISECONDS { at.saturating_mul(1000) } else { at })
}

async fn has_alarm(http: &Http) -> Result<bool, BrokerError> {
    let answer = http.get("health/checks/alarms").await?;
    match answer.status {
        StatusCode::OK => Ok(false),
        StatusCode::SERVICE_UNAVAILABLE => Ok(true),
        _ => Err(unavailable(format!("the broker does not tell its alarms: {}", answer.reason()))),
    }
}

/// Asks for alarms until nobody uses the broker any more.
async fn watch_alarms(http: std::sync::Weak<Http>, is_full: Arc<AtomicBool>) {
    loop {
        tokio::time::sleep(ALARMS).await;
        let Some(http) = http.upgrade() else { return };
        // While it cannot be asked, what it said last holds: sends find out by themselves whether it is there.
        let Ok(now) = has_alarm(&http).await else { continue };
        if is_full.swap(now, Ordering::Relaxed) != now {
            match now {
                true => tracing::warn!("{Alarm}; no message is sent until it is over"),
                false => tracing::info!("RabbitMQ's alarm is over; messages are sent again"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_in_seconds_or_milliseconds() {
        assert_eq!(sent_at(&json!(1_790_000_000_123_i64)), Some(1_790_000_000_123));
        assert_eq!(sent_at(&json!(1_790_000_000)), Some(1_790_000_000_000));
        for nothing in [json!(null), json!(0), json!("")] {
            assert_eq!(sent_at(&nothing), None);
        }
    }
}
