//! Consuming one queue, on a session of its own.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use fe2o3_amqp::link::RecvError;
use fe2o3_amqp::link::delivery::DeliveryInfo;
use fe2o3_amqp::types::messaging::{AmqpValue, Body, Message as AmqpMessage, MessageId as AmqpId};
use fe2o3_amqp::types::primitives::{SimpleValue, Value as AmqpAny};
use fe2o3_amqp::{Receiver, ReceiverDisposer};
use maxhost_broker::{
    Acks, BrokerError, ClientRequest, Consumer, Credit, Delivery, Message, MessageId, Permanent, QueueName, Requests,
    Tag,
};
use maxhost_model::SecureHash;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::attaching::{Attaching, BESIDES, detach};
use crate::budget::Share;
use crate::connection::{Session, becomes_true};
use crate::error::unavailable;
use crate::shared::Shared;

/// Messages that are asked for ahead at most, whatever the credit: what they have in bytes is known only when they come.
const AHEAD: usize = 16;

/// What the messages of a queue are read as.
pub(crate) trait Readable: Sized + Send + std::fmt::Debug + 'static {
    /// Whether several consume the queue at once.
    const SHARED: bool;

    /// A message as its senders make it; of anything else, as much as can be told, for the receiver to refuse.
    fn read(message: AmqpMessage<Body<AmqpAny>>) -> Self;

    /// What the message counts against credits, in bytes.
    fn bytes(&self) -> usize;

    /// What is left of a message that is too large, for the receiver to refuse.
    fn without_body(self) -> Self;
}

/// An attachment to a queue, which is made again when it is lost.
pub(crate) struct AmqpConsumer<M: Readable> {
    shared: Arc<Shared>,
    queue: QueueName,
    credit: Credit,
    in_hand: Arc<InHand>,
    link: Option<Link<M>>,
    attaching: Attaching,
    /// A message came that is too large. Messages are asked for one by one, until it is clear which it is.
    searching: bool,
}

/// A link, as long as it lasts.
struct Link<M> {
    session: Session,
    receiver: Receiver,
    /// What came and was not given out yet.
    ready: VecDeque<Received<M>>,
    /// What a message is thought to have in bytes: the largest that came lately.
    typical: usize,
}

struct Received<M> {
    info: DeliveryInfo,
    message: M,
    share: Share,
}

/// What was given out and not acknowledged, shared with whoever acknowledges.
#[derive(Default)]
struct InHand {
    state: Mutex<State>,
    acknowledged: Notify,
}

#[derive(Default)]
struct State {
    /// `None`: there is no link, and nothing that was given out can be acknowledged.
    disposer: Option<ReceiverDisposer>,
    deliveries: HashMap<Tag, (DeliveryInfo, Share)>,
    bytes: usize,
    /// The first tag of this link, and the next one.
    first: u64,
    next: u64,
}

impl State {
    fn begin(&mut self, disposer: ReceiverDisposer) {
        self.disposer = Some(disposer);
    }

    /// Forgets what was given out: the broker delivers it again.
    fn end(&mut self) {
        *self = State { first: self.next, next: self.next, ..State::default() };
    }

    /// Whether one more delivery may be given out. The bytes of that one do not count yet: a message that is larger
    /// than the whole credit must come, too.
    fn has_room(&self, credit: Credit) -> bool {
        self.deliveries.len() < credit.messages as usize && (self.bytes < credit.bytes || self.deliveries.is_empty())
    }

    fn give<M>(&mut self, received: Received<M>) -> Delivery<M> {
        let tag = Tag(self.next);
        self.next += 1;
        self.bytes += received.share.bytes;
        self.deliveries.insert(tag, (received.info, received.share));
        Delivery { tag, message: received.message }
    }

    fn remove(&mut self, tag: Tag) {
        if let Some((_, share)) = self.deliveries.remove(&tag) {
            self.bytes -= share.bytes;
        }
    }
}

impl<M: Readable> AmqpConsumer<M> {
    /// Attaches to a queue, which is made if there is none.
    pub async fn attach(shared: Arc<Shared>, queue: QueueName, credit: Credit) -> Result<AmqpConsumer<M>, BrokerError> {
        let credit = Credit { messages: credit.messages.max(1), ..credit };
        let (in_hand, attaching) = (Arc::default(), Attaching::default());
        let mut consumer = AmqpConsumer { shared, queue, credit, in_hand, link: None, attaching, searching: false };
        consumer.attach_again().await?;
        Ok(consumer)
    }

    async fn attach_again(&mut self) -> Result<(), BrokerError> {
        let attached = self.attaching.attach(&self.shared, Some(&self.queue)).await;
        let (session, receiver) = attached.inspect_err(|_| self.shared.queues.forget(&self.queue))?;
        self.in_hand.state.lock().begin(receiver.disposer());
        let typical = (self.credit.bytes / 2).clamp(1, self.shared.options.max_message_bytes);
        self.link = Some(Link { session, receiver, ready: VecDeque::new(), typical });
        Ok(())
    }

    /// The link is gone; what was given out and not acknowledged comes again.
    fn lost(&mut self, error: BrokerError) -> BrokerError {
        self.in_hand.state.lock().end();
        self.shared.queues.forget(&self.queue);
        self.link = None;
        error
    }

    /// A message is too large to be received. The broker has no filter by size, so all are given back and asked for one by one;
    /// what comes alone and is too large is removed.
    fn too_large(&mut self, bytes: u64) -> BrokerError {
        let is_alone = self.in_hand.state.lock().deliveries.is_empty();
        if let Some(Link { session, receiver, ready, .. }) = self.link.take() {
            let removes = M::SHARED || self.searching && is_alone && ready.is_empty();
            let (shared, queue) = (Arc::clone(&self.shared), self.queue.clone());
            self.attaching.begin(&self.shared, Some(&self.queue), async move {
                detach(receiver, session, shared.dialect()).await;
                match (removes, M::SHARED) {
                    (true, true) => shared.queues.management.remove_large(&queue).await,
                    (true, false) => shared.queues.management.remove_first(&queue, bytes).await,
                    (false, _) => Ok(()),
                }
            });
            self.searching = !removes;
        }
        let (queue, limit) = (&self.queue, self.shared.options.max_message_bytes);
        self.lost(unavailable(format!("{queue} has a message of over {limit} bytes, which is removed")))
    }

    /// The next message, or that the broker was closed.
    async fn next_or_closed(&mut self) -> Result<Delivery<M>, BrokerError> {
        let mut closed = self.shared.closed.subscribe();
        tokio::select! {
            biased;
            () = becomes_true(&mut closed) => Err(Permanent::Closed.into()),
            delivery = self.deliver() => delivery,
        }
    }

    async fn deliver(&mut self) -> Result<Delivery<M>, BrokerError> {
        if self.link.is_none() {
            self.attach_again().await?;
        }
        let in_hand = Arc::clone(&self.in_hand);
        loop {
            let acknowledged = in_hand.acknowledged.notified();
            let Some(link) = self.link.as_mut() else { return Err(unavailable("the link to the queue was lost")) };
            {
                let mut state = in_hand.state.lock();
                if state.has_room(self.credit)
                    && let Some(received) = link.ready.pop_front()
                {
                    return Ok(state.give(received));
                }
            }
            if let Err(error) = link.grant(&in_hand, self.credit, self.searching, &self.shared).await {
                return Err(self.lost(error));
            }
            tokio::select! {
                received = link.receiver.recv::<Body<AmqpAny>>() => {
                    if let Err(RecvError::MessageSizeExceeded(error)) = &received {
                        return Err(self.too_large(error.size));
                    }
                    if let Err(error) = link.take(received, &self.queue, &self.shared) {
                        return Err(self.lost(error));
                    }
                }
                () = acknowledged => {}
                error = link.session.ended() => return Err(self.lost(error)),
            }
        }
    }
}

impl<M: Readable> Link<M> {
    /// Lets the broker send as much as there is room for.
    async fn grant(
        &mut self,
        in_hand: &InHand,
        credit: Credit,
        one_by_one: bool,
        shared: &Shared,
    ) -> Result<(), BrokerError> {
        let (held, bytes) = {
            let state = in_hand.state.lock();
            let ready: usize = self.ready.iter().map(|received| received.share.bytes).sum();
            (state.deliveries.len() + self.ready.len(), state.bytes + ready)
        };
        let by_bytes = credit.bytes.saturating_sub(bytes).div_ceil(self.typical);
        let is_full = one_by_one || shared.budget.in_hand() >= shared.options.receiving_bytes;
        let wanted = match held {
            0 => {
                if is_full {
                    1
                } else {
                    by_bytes.max(1)
                }
            }
            _ if is_full => 0,
            _ => by_bytes,
        };
        let room = (credit.messages as usize).saturating_sub(held);
        let wanted = u32::try_from(wanted.min(room).min(AHEAD)).unwrap_or(1);
        let granted = self.receiver.credit();
        // Not for every message: half of what may come must have come.
        if wanted > granted && granted <= wanted / 2 {
            self.receiver.set_credit(wanted).await.map_err(unavailable)?;
        }
        Ok(())
    }

    fn take(
        &mut self,
        received: Result<fe2o3_amqp::Delivery<Body<AmqpAny>>, RecvError>,
        queue: &QueueName,
        shared: &Shared,
    ) -> Result<(), BrokerError> {
        let (info, message) = match received {
            Ok(delivery) => {
                let (info, message) = delivery.into_parts();
                (info, M::read(message))
            }
            // The receiver refuses what it does not understand, and says so.
            Err(RecvError::MessageDecode(error)) => (error.info, M::read(AmqpMessage::from(Body::Empty))),
            Err(error) => return Err(unavailable(error)),
        };
        tracing::trace!(%queue, ?message, "a message came");
        let (bytes, largest) = (message.bytes(), shared.options.max_message_bytes);
        let message = match bytes > largest + BESIDES {
            true => {
                tracing::warn!(target: "audit", event = "message-refused", cause = "too-large", %queue, bytes);
                message.without_body()
            }
            false => message,
        };
        self.typical = bytes.max(self.typical / 4 * 3).max(1);
        self.ready.push_back(Received { info, message, share: Share::take(&shared.budget, bytes) });
        Ok(())
    }
}

impl Readable for Message {
    const SHARED: bool = false;

    fn read(message: AmqpMessage<Body<AmqpAny>>) -> Message {
        let body = bytes_of(message.body);
        let id = match message.properties.and_then(|properties| properties.message_id) {
            Some(AmqpId::Binary(id)) => <[u8; 16]>::try_from(id.as_slice()).ok(),
            _ => None,
        };
        let id = id.unwrap_or_else(|| {
            let mut id = [0; 16];
            id.copy_from_slice(&SecureHash::of(&body).as_bytes()[..16]);
            id
        });
        Message { id: MessageId(id), body }
    }

    fn bytes(&self) -> usize {
        Message::bytes(self)
    }

    fn without_body(self) -> Message {
        Message { body: Bytes::new(), ..self }
    }
}

impl Readable for ClientRequest {
    const SHARED: bool = true;

    fn read(message: AmqpMessage<Body<AmqpAny>>) -> ClientRequest {
        let text = |id: Option<AmqpId>| match id {
            Some(AmqpId::String(id)) => Some(id),
            _ => None,
        };
        let properties = message.properties.unwrap_or_default();
        let texts = message.application_properties.into_iter().flat_map(|all| all.0.into_iter());
        ClientRequest {
            id: text(properties.correlation_id).or(text(properties.message_id)).unwrap_or_default(),
            reply_to: properties.reply_to.unwrap_or_default(),
            properties: texts
                .filter_map(|(name, value)| match value {
                    SimpleValue::String(value) => Some((name, value)),
                    _ => None,
                })
                .collect(),
            // Clients that send texts send them as values.
            body: match message.body {
                Body::Value(AmqpValue(AmqpAny::String(text))) => Bytes::from(text),
                Body::Value(AmqpValue(AmqpAny::Binary(bytes))) => Bytes::from(bytes.into_vec()),
                body => bytes_of(body),
            },
        }
    }

    fn bytes(&self) -> usize {
        ClientRequest::bytes(self)
    }

    fn without_body(self) -> ClientRequest {
        ClientRequest::default()
    }
}

/// The data in a body; nothing if it is of another kind.
fn bytes_of(body: Body<AmqpAny>) -> Bytes {
    let Body::Data(parts) = body else { return Bytes::new() };
    let mut parts = parts.into_inner().into_iter().map(|part| part.0.into_vec());
    match (parts.next(), parts.next()) {
        (None, _) => Bytes::new(),
        (Some(only), None) => Bytes::from(only),
        (Some(first), Some(second)) => {
            let mut all = BytesMut::from(&first[..]);
            all.extend_from_slice(&second);
            parts.for_each(|part| all.extend_from_slice(&part));
            all.freeze()
        }
    }
}

#[async_trait]
impl Consumer for AmqpConsumer<Message> {
    async fn next(&mut self) -> Result<Delivery, BrokerError> {
        self.next_or_closed().await
    }

    fn acks(&self) -> Arc<dyn Acks> {
        Arc::clone(&self.in_hand) as Arc<dyn Acks>
    }
}

#[async_trait]
impl Requests for AmqpConsumer<ClientRequest> {
    async fn next(&mut self) -> Result<Delivery<ClientRequest>, BrokerError> {
        self.next_or_closed().await
    }

    fn acks(&self) -> Arc<dyn Acks> {
        Arc::clone(&self.in_hand) as Arc<dyn Acks>
    }
}

impl<M: Readable> Drop for AmqpConsumer<M> {
    fn drop(&mut self) {
        self.in_hand.state.lock().end();
        let Some(Link { session, receiver, .. }) = self.link.take() else { return };
        let (shared, queue) = (Arc::clone(&self.shared), self.queue.clone());
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                detach(receiver, session, shared.dialect()).await;
                if !M::SHARED {
                    shared.notice_sender.left(queue);
                }
            });
        }
    }
}

#[async_trait]
impl Acks for InHand {
    async fn ack(&self, tag: Tag) -> Result<(), BrokerError> {
        let (info, disposer) = {
            let state = self.state.lock();
            let Some(disposer) = &state.disposer else { return Err(Permanent::Detached.into()) };
            match state.deliveries.get(&tag) {
                Some((info, _)) => (info.clone(), disposer.clone()),
                None if tag.0 < state.first => return Err(Permanent::Detached.into()),
                None => return Ok(()),
            }
        };
        disposer.accept(info).await.map_err(|_| Permanent::Detached)?;
        self.state.lock().remove(tag);
        self.acknowledged.notify_one();
        Ok(())
    }
}
