//! Messages that the broker has confirmed are kept for a while, and sent again if the broker has lost what it had.
//!
//! A broker whose disk was emptied, or that was put back to an earlier state, is known by its marker, a queue whose name has
//! a number that the database knows ([`maxhost_store::KeptMessages`]). Every host looks for it now and then. Where it is
//! missing, one of them takes the next number and makes the next marker; then every host puts back into the outbox what is
//! kept under other numbers, and each message is put there by one of them.
//!
//! Why nothing is missed: a message is kept under the number of a marker that its host had seen before it sent the message.
//! A broker that loses the message afterwards loses that marker with it, and the marker is never made again, because it was
//! made in a single attempt. So it is missed, and there is another number. A message whose confirmation is written only
//! after that is kept under the former number, and found at the next look.
//!
//! A database that was put back to an earlier moment is in another incarnation and has other markers. What was kept at that
//! moment is sent again, because receivers that went back with it have not taken it any more.
//!
//! Receivers know messages again for much longer than they are kept, so a message that was not lost does no harm. Commands
//! for other hosts are in no outbox and are not kept: whoever has sent one waits for what becomes of it.

use std::sync::Arc;
use std::time::Duration;

use maxhost_broker::{Broker, BrokerError, Markers, QueueName};
use maxhost_store::{KeptMessages, Store, StoreError};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::delivery::outbox_notices::OutboxNotices;
use crate::options::KeptBounds;

/// How often a host looks for the marker, and for what has been kept for long enough.
const LOOK: Duration = Duration::from_secs(10);
/// The same while the present marker was not seen.
const SOON: Duration = Duration::from_secs(1);
/// For so long a host that starts sends nothing because it has not seen the marker yet: what it sent would not be kept.
const FIRST_LOOK: Duration = Duration::from_secs(5);
/// Messages that are put back at once. The rows of their senders are locked meanwhile.
const PIECE: u32 = 256;
/// Messages that are forgotten at once.
const FORGOTTEN: u32 = 1_000;

/// Why a look was broken off. The next one goes on.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("{0}")]
    Store(#[from] StoreError),
    #[error("{0}")]
    Broker(#[from] BrokerError),
}

/// Keeps what was sent, on a host of a cluster whose broker is on the network.
pub(crate) struct Kept {
    store: Store,
    markers: Arc<dyn Markers>,
    bounds: KeptBounds,
    /// The marker that was seen in the broker; `None` if the present one was not.
    seen: watch::Sender<Option<i64>>,
}

impl Kept {
    /// `None` if nothing need be kept: the broker is this process's own, no other host uses the database, or the bounds say
    /// so.
    pub fn new(store: &Store, broker: &Arc<dyn Broker>, bounds: KeptBounds) -> Option<Arc<Kept>> {
        let markers = broker.markers().filter(|_| !bounds.time.is_zero())?;
        store.kept_messages()?;
        let seen = watch::Sender::new(None);
        Some(Arc::new(Kept { store: store.clone(), markers, bounds, seen }))
    }

    /// What a message that is sent from now on is kept under. `None`: it is not, because the marker was not seen.
    pub fn marker(&self) -> Option<i64> {
        *self.seen.borrow()
    }

    /// Waits until the host has seen the marker, for a few seconds at the most.
    pub async fn has_seen(&self) {
        let mut seen = self.seen.subscribe();
        drop(tokio::time::timeout(FIRST_LOOK, seen.wait_for(Option::is_some)).await);
    }

    fn name(&self, marker: i64) -> QueueName {
        let lineage = self.store.lineage();
        QueueName::marker(lineage.database, lineage.incarnation, marker)
    }

    /// Looks once. `missed` is the marker that was not there at the last look. Gives whether it is clear which marker it is.
    async fn look(&self, outbox: &OutboxNotices, missed: &mut Option<i64>) -> Result<bool, Trouble> {
        let Some(kept) = self.store.kept_messages() else { return Ok(true) };
        let present = kept.marker().await?;
        if self.marker().is_some_and(|seen| seen != present) {
            self.seen.send_replace(None);
        }
        let Some(marker) = self.present_or_next(kept, present, missed).await? else { return Ok(false) };
        self.seen.send_replace(Some(marker));
        self.send_again(kept, outbox, marker).await?;
        // Only now: while the broker is away, what it may have lost is kept, for as long as receivers would know it again.
        while kept.forget(marker, self.bounds.time, self.bounds.messages, FORGOTTEN).await? > 0 {}
        Ok(true)
    }

    /// The marker that the broker has; `None` if that is not clear yet.
    async fn present_or_next(
        &self,
        kept: &dyn KeptMessages,
        present: i64,
        missed: &mut Option<i64>,
    ) -> Result<Option<i64>, Trouble> {
        if present > 0 {
            if self.markers.has_marker(&self.name(present)).await? {
                *missed = None;
                return Ok(Some(present));
            }
            // Whoever has taken the number is about to make it, unless it is missing the next time, too.
            if missed.replace(present) != Some(present) {
                return Ok(None);
            }
        }
        let Some(next) = kept.next_marker(present).await? else { return Ok(None) };
        if present > 0 {
            let (missing, marker) = (self.name(present), self.name(next));
            let what = "the broker has lost what it had, or the database was put back: messages of late are sent again";
            tracing::warn!(%missing, %marker, "{what}");
        }
        // Never tried again: a broker that has lost something in between would have the marker of one that has not.
        self.markers.make_marker(&self.name(next)).await?;
        *missed = None;
        Ok(Some(next))
    }

    async fn send_again(&self, kept: &dyn KeptMessages, outbox: &OutboxNotices, marker: i64) -> Result<(), Trouble> {
        let mut messages = 0;
        loop {
            match kept.send_again(marker, PIECE).await? {
                0 => break,
                some => messages += some,
            }
            outbox.look_at_all();
        }
        if messages > 0 {
            tracing::warn!(messages, "messages that the broker had confirmed, and may have lost, are sent again");
        }
        Ok(())
    }
}

/// Looks for the marker until the host stops.
pub(crate) async fn run(kept: Arc<Kept>, outbox: Arc<OutboxNotices>, stopping: CancellationToken) {
    let mut missed = None;
    loop {
        let looked = tokio::select! {
            looked = kept.look(&outbox, &mut missed) => looked,
            () = stopping.cancelled() => return,
        };
        let pause = match looked {
            Ok(true) => LOOK,
            Ok(false) => SOON,
            Err(trouble) => {
                tracing::debug!(%trouble, "it cannot be told whether the broker has what it had");
                if kept.marker().is_some() { LOOK } else { SOON }
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stopping.cancelled() => return,
        }
    }
}
