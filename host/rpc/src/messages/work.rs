//! One request, from the moment that a worker is given it until it may be forgotten.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use maxhost_broker::{Acks, BrokerError, ClientAnswer, ClientQueues, ClientRequest, Delivery, Permanent, QueueName};
use maxhost_flows::Facts;
use maxhost_flows::api::HostApi;
use maxhost_flows::api::audit::AuditEntry;
use maxhost_model::{Code, Problem};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout};

use super::MessageOptions;
use super::calls::{Call, VERSION};
use super::counts::Counts;
use super::envelope::{Complaints, Envelope};
use super::held::Held;
use crate::audit::{Open, now_ms};
use crate::login::Logins;

/// The largest request, bytes. What is larger goes by gRPC.
const LARGEST: usize = ClientRequest::SAFE;
/// How long one attempt may take, as a gRPC call may.
const ATTEMPT: Duration = Duration::from_secs(60);
/// How long the broker may take for one message.
const SENDING: Duration = Duration::from_secs(30);
/// How soon it is looked again whether a flow has ended, or trouble has passed: after this part of the time that it has taken so
/// far, within these bounds.
const PART: u32 = 8;
const SOONEST: Duration = Duration::from_millis(50);
const LATEST: Duration = Duration::from_secs(15);
/// The same for requests that had to make room and wait in the broker.
const SOONEST_BACK: Duration = Duration::from_secs(30);
const LATEST_BACK: Duration = Duration::from_secs(600);
/// Whose a row of the audit trail is about a request that is of nobody.
const BROKER: &str = "(broker)";
/// The subject of an answer that is no error.
const OK: &str = "ok";

/// What all requests of a worker share.
pub(super) struct Work {
    pub options: MessageOptions,
    pub logins: Arc<dyn Logins>,
    pub queues: Arc<dyn ClientQueues>,
    pub api: Arc<dyn HostApi>,
    /// The queue of requests.
    pub queue: QueueName,
    pub held: Arc<Held>,
    pub complaints: Complaints,
    pub counts: Arc<Counts>,
    /// Requests that are worked on at once.
    pub turns: Semaphore,
}

/// What has become of a request.
enum Outcome {
    Answer(Result<Value, Problem>),
    /// It has to make room.
    PutBack,
}

/// Whether the broker may forget a request.
#[derive(PartialEq, Eq)]
enum Settled {
    Done,
    PutBack,
    /// The connection is closed for good: it is given out again.
    Closed,
}

impl Work {
    /// Answers a request. Giving this up loses nothing: the request is given out again.
    pub async fn answer(self: Arc<Work>, delivery: Delivery<ClientRequest>, acks: Arc<dyn Acks>) {
        let Delivery { tag, message: request } = delivery;
        let settled = match self.settle(&request).await {
            Settled::PutBack => self.put_back(&request).await,
            settled => settled,
        };
        if settled == Settled::Done
            && let Err(error) = acks.ack(tag).await
        {
            tracing::debug!(%error, "a request that was answered is given out again");
        }
    }

    async fn settle(&self, request: &ClientRequest) -> Settled {
        let open = Open::begin(&self.api, None);
        let envelope = match Envelope::read(request) {
            Ok(envelope) => envelope,
            Err(cause) => {
                self.drop_request(request, cause);
                return Settled::Done;
            }
        };
        open.whose().is_named(&envelope.user);
        if let Err(problem) = envelope.caller(&*self.logins) {
            open.end(Some(problem.code));
            // Anybody who reaches the broker can make such requests. A user is told, but not without end, and nobody else is.
            if !self.logins.has_key(&envelope.user) || !self.complaints.may_answer(&envelope.user) {
                Counts::count(&self.counts.dropped);
                return Settled::Done;
            }
            return self.send(request, &envelope, Err(problem)).await;
        }
        match self.work(request, &envelope, open).await {
            Outcome::Answer(answer) => self.send(request, &envelope, answer).await,
            Outcome::PutBack => Settled::PutBack,
        }
    }

    /// Tries until there is an answer.
    async fn work(&self, request: &ClientRequest, envelope: &Envelope, mut open: Open) -> Outcome {
        let mut call = match self.read(request) {
            Ok(call) => call,
            Err(problem) => return Outcome::Answer(Err(problem)),
        };
        open.is_for(call.action());
        let mut open = Some(open);
        let (since, mut seat) = (Instant::now(), None);
        loop {
            let attempted = self.attempt(envelope, &mut call, open.as_ref()).await;
            let refused = attempted.as_ref().err().filter(|problem| !is_passing(problem.code));
            if (attempted.is_ok() || refused.is_some())
                && let Some(mut open) = open.take()
            {
                if attempted.is_ok() && !call.has_changed() {
                    open.changes_nothing();
                }
                open.end(refused.map(|problem| problem.code));
            }
            match attempted {
                Ok(Some(answer)) => return Outcome::Answer(Ok(answer)),
                Ok(None) => {}
                Err(problem) if is_passing(problem.code) => tracing::debug!(%problem, "a request is tried again later"),
                Err(problem) => return Outcome::Answer(Err(problem)),
            }
            let seat = seat.get_or_insert_with(|| self.held.take(request.bytes()));
            let taken = self.age(envelope).max(since.elapsed());
            tokio::select! {
                () = sleep((taken / PART).clamp(SOONEST, LATEST)) => {}
                () = seat.is_wanted() => return Outcome::PutBack,
            }
        }
    }

    fn read(&self, request: &ClientRequest) -> Result<Call, Problem> {
        let bytes = request.bytes();
        if bytes > LARGEST {
            let text =
                format!("the request has {bytes} bytes with all that is around it; {LARGEST} are allowed in a message");
            return Err(Problem::new(Code::MessageTooLarge, text).detail("limit", LARGEST.to_string()));
        }
        if request.id.is_empty() {
            let text = "the message has neither a correlation id nor a message id that is a text, so no answer could be told from others";
            return Err(Problem::new(Code::RequestInvalid, text).detail("field", "correlation-id"));
        }
        Call::read(&request.body)
    }

    /// One attempt. Who has signed it is looked up each time: his rights may have changed since.
    async fn attempt(
        &self,
        envelope: &Envelope,
        call: &mut Call,
        open: Option<&Open>,
    ) -> Result<Option<Value>, Problem> {
        let caller = envelope.caller(&*self.logins)?;
        if let Some(open) = open {
            open.whose().is_of(&caller);
        }
        let age = envelope.age(now_ms())?;
        let MessageOptions { max_age, max_wait, .. } = self.options;
        let longest = if call.outlives_its_age() { max_wait } else { max_age };
        if age > longest {
            let (age, longest) = (age.as_secs(), longest.as_secs());
            let text = format!("the request is {age} s old, and this host answers none of more than {longest} s");
            return Err(Problem::new(Code::RequestExpired, text));
        }
        let closing = |_| Problem::new(Code::HostStopping, "the host is stopping");
        let _turn = self.turns.acquire().await.map_err(closing)?;
        within(ATTEMPT, call.attempt(&self.api, &caller, age <= max_age)).await
    }

    fn age(&self, envelope: &Envelope) -> Duration {
        envelope.age(now_ms()).unwrap_or_default()
    }

    /// Sends an answer, however long the broker cannot be reached.
    async fn send(&self, request: &ClientRequest, envelope: &Envelope, answer: Result<Value, Problem>) -> Settled {
        let mut answer = answer;
        let (mut pause, mut seat) = (SOONEST, None);
        loop {
            let put = self.queues.answer(&envelope.reply_to, self.written(request, &answer), SENDING).await;
            let error = match put {
                Ok(true) => {
                    Counts::count(if answer.is_ok() { &self.counts.answered } else { &self.counts.refused });
                    return Settled::Done;
                }
                Ok(false) => {
                    self.drop_request(request, "no-reply-queue");
                    return Settled::Done;
                }
                Err(BrokerError::Permanent(Permanent::Closed)) => return Settled::Closed,
                Err(BrokerError::Permanent(Permanent::TooLarge { bytes, limit })) if answer.is_ok() => {
                    let text = format!("the answer has {bytes} bytes; {limit} are allowed in a message");
                    answer = Err(Problem::new(Code::MessageTooLarge, text).remedy("ask for less at once, or by gRPC"));
                    continue;
                }
                Err(BrokerError::Permanent(error)) => {
                    tracing::warn!(%error, queue = %envelope.reply_to, "an answer cannot be put into its queue");
                    self.drop_request(request, "reply-queue-refused");
                    return Settled::Done;
                }
                Err(error) => error,
            };
            tracing::debug!(%error, queue = %envelope.reply_to, "an answer is sent again");
            if self.age(envelope) > self.options.max_wait {
                self.drop_request(request, "reply-queue-refused");
                return Settled::Done;
            }
            let seat = seat.get_or_insert_with(|| self.held.take(request.bytes()));
            tokio::select! {
                () = sleep(pause) => pause = (pause * 2).min(LATEST),
                () = seat.is_wanted() => return Settled::PutBack,
            }
        }
    }

    fn written(&self, request: &ClientRequest, answer: &Result<Value, Problem>) -> ClientAnswer {
        let (subject, body) = match answer {
            Ok(result) => (OK, json!({ "version": VERSION, "result": result })),
            Err(Problem { code, message, remedy, details }) => {
                let error = json!({ "code": code.as_str(), "message": message, "remedy": remedy, "details": details });
                (code.as_str(), json!({ "version": VERSION, "error": error }))
            }
        };
        ClientAnswer {
            id: request.id.clone(),
            subject: subject.to_owned(),
            body: Bytes::from(body.to_string()),
            keep: self.options.keep_answers,
        }
    }

    /// Lets the broker keep a request for a while.
    async fn put_back(&self, request: &ClientRequest) -> Settled {
        let age = Envelope::read(request).map(|envelope| self.age(&envelope)).unwrap_or_default();
        let delay = (age / PART).clamp(SOONEST_BACK, LATEST_BACK);
        let mut pause = SOONEST;
        loop {
            match self.queues.put_back(&self.queue, request, delay, SENDING).await {
                Ok(()) => {
                    Counts::count(&self.counts.put_back);
                    return Settled::Done;
                }
                Err(BrokerError::Permanent(Permanent::Closed)) => return Settled::Closed,
                Err(error) => tracing::debug!(%error, "a request is put back later"),
            }
            sleep(pause).await;
            pause = (pause * 2).min(LATEST);
        }
    }

    /// Forgets a request that is answered to nobody, and says so.
    fn drop_request(&self, request: &ClientRequest, cause: &'static str) {
        Counts::count(&self.counts.dropped);
        let detail = format!("a request whose answer is wanted in '{}'", request.reply_to);
        tracing::debug!(target: "audit", event = "message-refused", cause, detail, "a request of a client was dropped");
        self.api.note(AuditEntry {
            at_ms: now_ms(),
            user: BROKER.to_owned(),
            action: "message-refused",
            facts: Facts { detail: Some(detail), ..Facts::default() },
            allowed: false,
            code: Some(cause.to_owned()),
            changes: false,
        });
    }
}

/// Whether a failure is the host's, and passes by itself. The request waits for that; all else is answered.
fn is_passing(code: Code) -> bool {
    matches!(
        code,
        Code::StoreFailed
            | Code::StoreUnreachable
            | Code::DiskFull
            | Code::Overloaded
            | Code::Timeout
            | Code::BrokerUnavailable
            | Code::HostStopping
            | Code::IdentityUnusableHere
            | Code::IdentityDraining
            | Code::IdentityPinned
            | Code::IdentityMoved
    )
}

async fn within<T>(time: Duration, work: impl Future<Output = Result<T, Problem>>) -> Result<T, Problem> {
    timeout(time, work).await.unwrap_or_else(|_| Err(Problem::new(Code::Timeout, "the host did not answer in time")))
}
