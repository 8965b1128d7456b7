//! Who serves an identity's queue, and for how long. Each message is brought into the database by [`super::taking`]; several
//! are on their way at once. Where one cannot be taken yet the consumer stays, and takes no more than its credit: a recipient
//! that has no room for a moment costs that moment and no more.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::FuturesOrdered;
use futures::{FutureExt, StreamExt};
use maxhost_broker::{BrokerError, Consumer, Credit, Holding, QueueName};
use maxhost_model::SecureHash;

use super::RelayServices;
use super::backoff::Backoff;
use super::taking::{InHand, Line, Way, take_told};
use crate::delivery::outbox_notices::{QueueErrand, QueueNotice, QueueNotices};
use crate::registry::entry::{Errand, IdentityEntry, Serving};

/// What one identity may have in hand before it is committed.
const CREDIT: Credit = Credit { messages: 64, bytes: 4 << 20 };
/// How soon a failed step is tried again. The time doubles, up to the longest.
const RETRY: Duration = Duration::from_millis(500);
const LONGEST_RETRY: Duration = Duration::from_secs(15);
/// An identity is kept for so long for the first of the messages that were in its queue when it was claimed.
const FIRST: Duration = Duration::from_secs(2);
/// Whether anything is in the queue of an identity that was claimed is asked so long after its claim.
const FIRST_ASKED: Duration = Duration::from_millis(100);
/// A consumer with nothing to do for so long lets go of its queue; the next message calls it back.
const IDLE: Duration = Duration::from_secs(10);

/// Listens for queues that nobody serves, and serves those of our identities, until the host stops.
pub(crate) async fn run(services: Arc<RelayServices>) {
    while !services.stopping.is_cancelled() {
        let mut notices = match services.broker.backlog_notices().await {
            Ok(notices) => notices,
            Err(error) => {
                tracing::warn!(%error, "the broker's queues cannot be watched; tried again");
                tokio::time::sleep(RETRY).await;
                continue;
            }
        };
        loop {
            let queue = tokio::select! {
                queue = notices.next() => queue,
                () = services.stopping.cancelled() => return,
            };
            match queue {
                Ok(queue) => {
                    if let Some(entry) = entry_of(&services, &queue) {
                        answer(&services, entry).await;
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, "the broker's queues cannot be watched");
                    tokio::time::sleep(RETRY).await;
                    break;
                }
            }
        }
    }
}

/// Whose queue it is, of the identities that have a manifest here.
fn entry_of(services: &RelayServices, queue: &QueueName) -> Option<Arc<IdentityEntry>> {
    services.committer.directory.by_key(&queue.fingerprint()?)
}

/// Has somebody serve an identity's queue of which a notice came. A notice is taken away when the next one is asked for, and
/// until then it is told to another host if this one dies. So where somebody else may have to run the identity this returns when
/// the demand is durable.
async fn answer(services: &Arc<RelayServices>, entry: Arc<IdentityEntry>) {
    let Some((key, _)) = entry.key().zip(services.membership.as_ref()).filter(|_| !entry.is_held()) else {
        return begin(services, QueueNotice { entry, errand: QueueErrand::default() });
    };
    while let Err(error) = services.ownership.demand(key).await {
        tracing::debug!(identity = %entry.text, %error, "a demand could not be raised; tried again");
        tokio::select! {
            () = tokio::time::sleep(RETRY) => {}
            () = services.stopping.cancelled() => return,
        }
    }
}

/// Has somebody serve an identity's queue: this host if it holds the identity. If it does not, somebody has to run the
/// identity first, and looks into the queue then.
fn begin(services: &Arc<RelayServices>, notice: QueueNotice) {
    match notice.entry.is_held() {
        true => services.io.spawn(serve(services.clone(), notice)),
        false => services.committer.waking.ring(&notice.entry),
    }
}

/// Serves whatever waits in the broker for identities that are held since a moment ago, and rings for those that were let go
/// and have something in their queue, until the host stops.
pub(crate) async fn look_for_held(services: Arc<RelayServices>) {
    let (served, others) = (Arc::<QueueNotices>::default(), Arc::<QueueNotices>::default());
    services.io.spawn(ask_about(services.clone(), served.clone(), FIRST_ASKED));
    services.io.spawn(ask_about(services.clone(), others.clone(), Duration::ZERO));
    loop {
        let noted = tokio::select! {
            noted = services.queues.take() => noted,
            () = services.stopping.cancelled() => return,
        };
        // Whoever is held now waits neither for those that were held before nor for what the broker tells of its queue.
        let (held, rest): (Vec<_>, Vec<_>) = noted.into_iter().partition(|notice| is_served(&services, &notice.entry));
        for notice in &held {
            match notice.entry.take_told_with_demand() {
                Some(command) => services.io.spawn(serve_after(command, services.clone(), notice.clone())),
                None => services.io.spawn(serve(services.clone(), notice.clone())),
            }
        }
        if !held.is_empty() {
            served.again(held);
        }
        if !rest.is_empty() {
            others.again(rest);
        }
    }
}

/// Carries out what came with the demand for an identity, and then serves its queue, in which that is known again. For a while:
/// who waits for a database that is away need not keep the queue.
async fn serve_after(command: Arc<[u8]>, services: Arc<RelayServices>, notice: QueueNotice) {
    let under_way = Errand::of(&notice.entry);
    let told = take_told(&services, &notice.entry, Bytes::copy_from_slice(&command));
    let _over = tokio::time::timeout(FIRST, told).await;
    drop(under_way);
    serve(services, notice).await;
}

/// Whether an identity's queue is served for as long as the identity is held, also an empty one: where other hosts may hold it.
fn is_served(services: &RelayServices, entry: &IdentityEntry) -> bool {
    services.membership.is_some() && entry.is_held()
}

/// Asks the broker about queues that were noted, `after` a while: what was in a queue that is served has mostly come by then, and
/// nothing need be asked.
async fn ask_about(services: Arc<RelayServices>, notices: Arc<QueueNotices>, after: Duration) {
    loop {
        let waiting = async {
            let mut noted = notices.take().await;
            if !after.is_zero() {
                tokio::time::sleep(after).await;
                noted.retain(|notice| notice.errand.is_there() || !is_served(&services, &notice.entry));
            }
            noted
        };
        let noted = tokio::select! {
            noted = waiting => noted,
            () = services.stopping.cancelled() => return,
        };
        if noted.is_empty() {
            continue;
        }
        let queues: Vec<QueueName> =
            noted.iter().filter_map(|notice| notice.entry.key()).map(|key| QueueName::inbound(&key)).collect();
        let holding = match services.broker.holding(&queues).await {
            Ok(holding) => holding,
            Err(error) => {
                tracing::warn!(%error, "the broker's queues cannot be read; tried again");
                notices.again(noted);
                tokio::select! {
                    () = tokio::time::sleep(RETRY) => continue,
                    () = services.stopping.cancelled() => return,
                }
            }
        };
        let of_key = |queue: Holding| Some((queue.queue.fingerprint()?, queue.is_consumed));
        let holding: HashMap<SecureHash, bool> = holding.into_iter().filter_map(of_key).collect();
        for notice in noted {
            match notice.entry.key().and_then(|key| holding.get(&key)) {
                None => notice.errand.end(),
                // Whoever serves it ends the errand.
                Some(_) if is_served(&services, &notice.entry) => {}
                Some(false) => begin(&services, notice),
                // Whoever consumes it now takes what is in it.
                Some(true) => {}
            }
        }
    }
}

/// Serves one identity's queue until it is empty for a while; where other hosts may hold the identity, for as long as this
/// one does, because a notice of what comes for nobody may reach any host.
async fn serve(services: Arc<RelayServices>, notice: QueueNotice) {
    let QueueNotice { entry, errand } = notice;
    let mut pause = Backoff::new(RETRY, LONGEST_RETRY);
    // The queue is exclusive: a second server would only wait for the first.
    while !services.stopping.is_cancelled()
        && let Some(serving) = Serving::begin(&entry)
    {
        let result = AssertUnwindSafe(serve_once(&services, &entry, &errand, &mut pause)).catch_unwind().await;
        drop(serving);
        let Ok(result) = result else {
            // What was in hand is in the queue again.
            errand.end();
            tracing::error!(identity = %entry.text, "taking messages from the broker met a defect of the host; tried again");
            tokio::select! {
                () = tokio::time::sleep(pause.next()) => {}
                () = services.stopping.cancelled() => return,
            }
            continue;
        };
        match result {
            Ok(Served::All) => pause.reset(),
            // It may be held again since.
            Ok(Served::NotHeld) if entry.is_held() => continue,
            Ok(Served::NotHeld) => {
                // What this host had in hand is in the queue again.
                if services.membership.is_some() && !services.stopping.is_cancelled() {
                    services.queues.let_go(&entry);
                }
                return;
            }
            Err(error) => {
                errand.end();
                tracing::warn!(identity = %entry.text, %error, "messages could not be taken from the broker; tried again");
                tokio::select! {
                    () = tokio::time::sleep(pause.next()) => {}
                    () = services.stopping.cancelled() => return,
                }
            }
        }
        if services.membership.is_some() {
            continue;
        }
        // What came between the last look and the release is told to nobody, because somebody served the queue.
        match services.broker.waiting().await {
            Ok(waiting) if !waiting.iter().any(|queue| queue.fingerprint() == entry.key()) => return,
            Ok(_) | Err(_) => {}
        }
    }
}

/// Why a queue is served no longer, when nothing is wrong.
enum Served {
    /// It has been empty for a while.
    All,
    /// This host does not hold the identity any more: its messages are not for this host to take.
    NotHeld,
}

async fn serve_once(
    services: &Arc<RelayServices>,
    entry: &Arc<IdentityEntry>,
    errand: &QueueErrand,
    pause: &mut Backoff,
) -> Result<Served, BrokerError> {
    let Some(key) = entry.key() else { return Ok(Served::NotHeld) };
    let mut consumer = services.broker.consume(&QueueName::inbound(&key), CREDIT).await?;
    take_all(services, entry, consumer.as_mut(), errand, pause).await
}

/// Takes messages until the identity is not held any more. `pause` ends with the first that was taken: whatever kept the queue
/// from being served before is over.
async fn take_all(
    services: &Arc<RelayServices>,
    entry: &Arc<IdentityEntry>,
    consumer: &mut dyn Consumer,
    errand: &QueueErrand,
    pause: &mut Backoff,
) -> Result<Served, BrokerError> {
    let (acks, line) = (consumer.acks(), Arc::<Line>::default());
    let mut taken: FuturesOrdered<Way> = FuturesOrdered::new();
    loop {
        if !entry.is_held() {
            return Ok(Served::NotHeld);
        }
        tokio::select! {
            biased;
            Some(result) = taken.next() => {
                if !result? {
                    return Ok(Served::NotHeld);
                }
                line.go_on();
                pause.reset();
            }
            delivery = consumer.next(), if taken.len() < CREDIT.messages as usize => {
                let delivery = delivery?;
                let under_way = services.membership.as_ref().map(|_| Errand::of(entry));
                errand.end();
                let message = InHand::new(delivery, acks.clone(), under_way);
                taken.push_back(message.begin(services, entry, &line).await);
            }
            () = entry.no_longer_held.notified() => {}
            // There were messages, and somebody else has taken them.
            () = tokio::time::sleep(FIRST), if errand.is_there() => errand.end(),
            () = tokio::time::sleep(IDLE), if taken.is_empty() && services.membership.is_none() => return Ok(Served::All),
            () = services.stopping.cancelled() => return Ok(Served::NotHeld),
        }
    }
}
