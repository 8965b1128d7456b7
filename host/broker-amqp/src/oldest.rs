//! How long the oldest message has waited.
//!
//! RabbitMQ tells with the list of queues when the first message of each was sent. Artemis tells it for one queue at a time; of one that nobody consumes this
//! does not change while nothing of it is acknowledged, so it is asked for once, however often somebody looks.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use futures::StreamExt;
use maxhost_broker::{BrokerError, QueueName};
use parking_lot::Mutex;

use crate::management::{First as FirstMessage, Listed};
use crate::queues::Queues;

/// Queues that are asked about at once, and in one look: those beyond it are asked about in the next.
const AT_ONCE: usize = 32;
const IN_ONE_LOOK: usize = 512;

/// When the first messages of queues were sent that nobody consumes.
#[derive(Debug, Default)]
pub(crate) struct Oldest {
    known: Mutex<HashMap<QueueName, First>>,
}

#[derive(Debug, Clone, Copy)]
struct First {
    /// What the queue had acknowledged then: as long as that stays, so does its first message.
    acked: u64,
    sent_at: i64,
}

impl Oldest {
    /// For how long the oldest message has waited that no consumer has been given; `None` if there is none.
    ///
    /// # Errors
    /// The broker does not answer.
    pub async fn look(&self, queues: &Queues) -> Result<Option<Duration>, BrokerError> {
        let holding = queues.holding().await?;
        let told = holding.iter().filter_map(|queue| match queue.first {
            FirstMessage::SentAt(at) => at,
            FirstMessage::ToBeAsked => None,
        });
        let told = told.min();
        let (known, unknown) =
            self.keep(holding.into_iter().filter(|queue| queue.first == FirstMessage::ToBeAsked).collect());
        let mut oldest = told.into_iter().chain(known).min();
        let asking = unknown.into_iter().take(IN_ONE_LOOK).map(async |queue| {
            let sent_at = queues.management.first_sent_at(&queue.name).await?;
            Ok::<_, BrokerError>((queue, sent_at))
        });
        let mut asking = futures::stream::iter(asking).buffer_unordered(AT_ONCE);
        while let Some(asked) = asking.next().await {
            let (queue, Some(sent_at)) = asked? else { continue };
            oldest = Some(oldest.map_or(sent_at, |oldest: i64| oldest.min(sent_at)));
            if let (0, Some(acked)) = (queue.consumers, queue.acked) {
                self.known.lock().insert(queue.name, First { acked, sent_at });
            }
        }
        Ok(oldest.map(|at| Duration::from_millis(u64::try_from(now_ms().saturating_sub(at)).unwrap_or(0))))
    }

    /// The oldest of what is known already and still so, and the queues that have to be asked about: first those that nobody
    /// consumes.
    fn keep(&self, holding: Vec<Listed>) -> (Option<i64>, Vec<Listed>) {
        let mut known = self.known.lock();
        let mut kept = HashMap::new();
        let mut unknown = Vec::new();
        for queue in holding {
            match known.remove(&queue.name) {
                Some(first) if queue.consumers == 0 && queue.acked == Some(first.acked) => {
                    kept.insert(queue.name, first);
                }
                _ => unknown.push(queue),
            }
        }
        unknown.sort_by_key(|queue| queue.consumers);
        let oldest = kept.values().map(|first| first.sent_at).min();
        *known = kept;
        (oldest, unknown)
    }
}

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn holding(name: &str, consumers: u64, acked: u64) -> Listed {
        let name = QueueName::inbound(&maxhost_model::SecureHash::of(name.as_bytes()));
        Listed { name, consumers, acked: Some(acked), first: FirstMessage::ToBeAsked }
    }

    #[test]
    fn a_queue_is_asked_about_again_when_something_of_it_was_taken() {
        let oldest = Oldest::default();
        let names = |unknown: Vec<Listed>| unknown.into_iter().map(|queue| queue.name).collect::<Vec<_>>();
        let (a, b) = (holding("a", 0, 3), holding("b", 1, 0));
        let (a_name, b_name) = (a.name.clone(), b.name.clone());
        assert_eq!(names(oldest.keep(vec![b, a]).1), [a_name.clone(), b_name.clone()], "those without consumers first");
        oldest.known.lock().insert(a_name.clone(), First { acked: 3, sent_at: 17 });
        let (first, unknown) = oldest.keep(vec![holding("a", 0, 3), holding("b", 1, 0)]);
        assert_eq!((first, names(unknown)), (Some(17), vec![b_name]));
        let (first, unknown) = oldest.keep(vec![holding("a", 0, 4)]);
        assert_eq!((first, names(unknown)), (None, vec![a_name]));
        assert!(oldest.known.lock().is_empty(), "what holds nothing is forgotten");
    }
}
