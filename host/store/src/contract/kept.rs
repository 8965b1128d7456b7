//! What is kept of messages that the broker has confirmed. A database that no two hosts use keeps nothing.

use super::*;
use crate::{IdentityOp, OutboxContent};

const HOUR: Duration = Duration::from_secs(3600);

fn message(n: u8) -> Op {
    MessageOp::Outbox { destination: Arc::from("x"), message_id: [n; 16], body: text("m") }.into()
}

impl<D: Databases> World<D> {
    /// The broker has these messages, which lie in the outbox: they are kept under this marker.
    async fn confirm(&self, author: Author, messages: &[u8], marker: i64) {
        let waiting = self.store.outbox(0, 100).await.unwrap();
        let sent = waiting.iter().filter(|row| messages.contains(&number(&row.content)));
        let sent = sent.map(|row| MessageOp::OutboxSent { id: row.id, marker: Some(marker) }.into());
        self.commit(author, sent.collect()).await.unwrap();
    }

    async fn waiting(&self) -> Vec<u8> {
        self.store.outbox(0, 100).await.unwrap().iter().map(|row| number(&row.content)).collect()
    }
}

fn number(content: &OutboxContent) -> u8 {
    match content {
        OutboxContent::Message { message_id, .. } => message_id[0],
        other => panic!("no message: {other:?}"),
    }
}

pub async fn what_the_broker_has_is_no_work_that_is_left<D: Databases>() {
    let w = World::<D>::new().await;
    w.commit(w.alice, vec![message(1), message(2)]).await.unwrap();
    w.confirm(w.alice, &[1, 2], 1).await;
    assert!(w.store.outbox(0, 10).await.unwrap().is_empty());
    assert!(w.store.outbox_to("x", 0, 10).await.unwrap().is_empty());
    assert!(w.store.outbox_destinations("", 10).await.unwrap().is_empty());
    assert_eq!(w.store.oldest_outbox().await.unwrap(), None);
    // It is let go without being handed over, which is refused while there is work.
    w.commit(w.alice, vec![IdentityOp::Release { wake_at: None, hand_over: false }.into()]).await.unwrap();
    assert!(w.store.left_work(0).await.unwrap().is_empty());
    assert_eq!(w.store.purge(10).await.unwrap(), 0, "for days");
}

pub async fn what_is_kept_is_forgotten_in_time_and_beyond_a_number<D: Databases>() {
    let w = World::<D>::new().await;
    let Some(kept) = w.store.kept_messages() else { return };
    w.commit(w.alice, (1..=5).map(message).collect()).await.unwrap();
    w.confirm(w.alice, &[1, 2, 3, 4, 5], 1).await;
    assert_eq!(kept.forget(1, HOUR, 5, 10).await.unwrap(), 0);
    assert_eq!(kept.forget(2, Duration::ZERO, 0, 10).await.unwrap(), 0, "it is kept under another marker");
    assert_eq!(kept.forget(1, HOUR, 3, 10).await.unwrap(), 2, "the oldest ones");
    assert_eq!(kept.forget(1, Duration::ZERO, 3, 2).await.unwrap(), 2, "as many as are asked for");
    assert_eq!(kept.send_again(2, 10).await.unwrap(), 1);
    assert_eq!(w.waiting().await, [5]);
}

/// Whatever becomes of the broker, nothing is sent again that its receiver may have forgotten.
pub async fn what_receivers_have_forgotten_is_not_kept<D: Databases>() {
    let w = World::<D>::with(Settings { processed_retention: Duration::ZERO, ..Settings::default() }).await;
    let Some(kept) = w.store.kept_messages() else { return };
    w.commit(w.alice, vec![message(1), message(2)]).await.unwrap();
    w.confirm(w.alice, &[1], 1).await;
    w.confirm(w.alice, &[2], 2).await;
    assert_eq!(w.store.purge(1).await.unwrap(), 1, "as many as are asked for");
    assert_eq!(w.store.purge(10).await.unwrap(), 1);
    assert_eq!(kept.send_again(3, 10).await.unwrap(), 0);
}

pub async fn what_a_lost_broker_had_is_sent_again<D: Databases>() {
    let w = World::<D>::new().await;
    let Some(kept) = w.store.kept_messages() else { return };
    assert_eq!(kept.marker().await.unwrap(), 0);
    assert_eq!(kept.next_marker(0).await.unwrap(), Some(1));
    assert_eq!(kept.next_marker(0).await.unwrap(), None, "another host was first");
    w.commit(w.alice, vec![message(1), message(2)]).await.unwrap();
    w.commit(w.bob, vec![message(3)]).await.unwrap();
    w.commit(w.alice, vec![message(4), message(5), message(6)]).await.unwrap();
    w.confirm(w.alice, &[1, 2], 1).await;
    w.confirm(w.bob, &[3], 1).await;
    assert_eq!(kept.send_again(1, 10).await.unwrap(), 0, "the broker has them");
    // The broker is another one. A message that it had is only now noted as sent.
    assert_eq!(kept.next_marker(1).await.unwrap(), Some(2));
    assert_eq!(kept.marker().await.unwrap(), 2);
    w.confirm(w.alice, &[5], 1).await;
    w.confirm(w.alice, &[6], 2).await;
    // Several hosts notice.
    let (one, other) = tokio::join!(kept.send_again(2, 10), kept.send_again(2, 10));
    // One of them may have left what the other was about to take.
    let rest = kept.send_again(2, 10).await.unwrap();
    assert_eq!((one.unwrap() + other.unwrap() + rest, kept.send_again(2, 10).await.unwrap()), (4, 0), "each once");
    let waiting = w.waiting().await;
    assert_eq!(waiting[0], 4, "what was not sent yet comes before: {waiting:?}");
    let mut sorted = waiting.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, [1, 2, 3, 4, 5]);
    let alices: Vec<u8> = waiting.into_iter().filter(|n| [1, 2, 5].contains(n)).collect();
    assert_eq!(alices, [1, 2, 5], "those of an identity in their order");
    // They are messages like any others: work for their senders, and kept when the broker has them.
    let release = || vec![IdentityOp::Release { wake_at: None, hand_over: false }.into()];
    assert_eq!(w.conflict(w.bob, release()).await, crate::Conflict::WorkLeft(w.bob.identity));
    w.confirm(w.bob, &[3], 2).await;
    w.commit(w.bob, release()).await.unwrap();
    assert_eq!((kept.send_again(2, 10).await.unwrap(), kept.send_again(3, 1).await.unwrap()), (0, 1));
    // A database that was opened again knows the marker.
    let w = w.reopen().await;
    assert_eq!(w.store.kept_messages().unwrap().marker().await.unwrap(), 2);
}
