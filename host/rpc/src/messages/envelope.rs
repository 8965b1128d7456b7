//! What is around the body of a request: who has sent it, when, and where the answer is to go. All of it is signed.

use std::collections::HashMap;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use maxhost_broker::{ClientRequest, QueueName};
use maxhost_flows::api::Caller;
use maxhost_model::{Code, Problem};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::login::Logins;

/// What the signed bytes begin with, so that no signature for anything else is one of a request.
const HEAD: &str = "maxhost-rpc-message-1";
/// The properties of the application in which a request says who has sent it, when (milliseconds since 1970), and shows the
/// signature (base 64).
const USER: &str = "maxhost_user";
const TIME: &str = "maxhost_time";
const SIGNATURE: &str = "maxhost_signature";
/// The longest id of a request, bytes.
const LONGEST_ID: usize = 256;
/// So far the clock of a client may be ahead.
const AHEAD: Duration = Duration::from_secs(300);
/// Users' complaints about signatures that are remembered; with more, all are forgotten.
const REMEMBERED: usize = 4_096;
/// Answers to requests with wrong signatures that go into the queues of one user in a time. Anybody who reaches the broker can
/// send such requests in his name.
const COMPLAINTS: u32 = 10;
const WINDOW: Duration = Duration::from_secs(60);

/// Who a request says that it is of, and where its answer is to go.
pub(super) struct Envelope {
    pub user: String,
    pub reply_to: QueueName,
    /// When it was signed, milliseconds since 1970.
    pub at_ms: i64,
    bytes: Vec<u8>,
    signature: Vec<u8>,
}

impl Envelope {
    /// Reads what is around a request. Nothing of it is known to be true.
    ///
    /// # Errors
    /// There is nobody whom an answer could be sent to; the word says why.
    pub fn read(request: &ClientRequest) -> Result<Envelope, &'static str> {
        let reply_to = request.reply_to.parse::<QueueName>().ok().filter(QueueName::is_for_answers);
        let reply_to = reply_to.ok_or("no-reply-queue")?;
        let text = |name: &str| request.properties.get(name).map(String::as_str).ok_or("unsigned");
        let (user, time, signature) = (text(USER)?, text(TIME)?, text(SIGNATURE)?);
        if !reply_to.is_for_answers_to(user) {
            return Err("foreign-reply-queue");
        }
        // Lines end where they are said to end, or one signature would fit several requests.
        if request.id.len() > LONGEST_ID
            || [&request.id, user, time].iter().any(|text| text.chars().any(char::is_control))
        {
            return Err("malformed");
        }
        let at_ms = time.parse().map_err(|_| "malformed")?;
        let mut bytes = [HEAD, user, time, &request.id, &request.reply_to].join("\n").into_bytes();
        bytes.push(b'\n');
        bytes.extend_from_slice(&request.body);
        // What is no base 64 is the signature of nobody.
        let signature = STANDARD.decode(signature).unwrap_or_default();
        Ok(Envelope { user: user.to_owned(), reply_to, at_ms, bytes, signature })
    }

    /// Who has signed it.
    ///
    /// # Errors
    /// `unauthenticated`.
    pub fn caller(&self, logins: &dyn Logins) -> Result<Caller, Problem> {
        logins.signed(&self.user, &self.bytes, &self.signature)
    }

    /// How old it is.
    ///
    /// # Errors
    /// `request-expired` if it is from the future.
    pub fn age(&self, now_ms: i64) -> Result<Duration, Problem> {
        let ahead = u64::try_from(self.at_ms.saturating_sub(now_ms)).unwrap_or(0);
        if u128::from(ahead) > AHEAD.as_millis() {
            let text = format!("the request is of a time {} s ahead of the host's clock", ahead / 1_000);
            return Err(Problem::new(Code::RequestExpired, text));
        }
        Ok(Duration::from_millis(u64::try_from(now_ms.saturating_sub(self.at_ms)).unwrap_or(0)))
    }
}

/// How many requests with a wrong signature were answered, by the user they name.
#[derive(Default)]
pub(super) struct Complaints(Mutex<HashMap<String, (Instant, u32)>>);

impl Complaints {
    /// Whether one more is answered.
    pub fn may_answer(&self, user: &str) -> bool {
        let mut all = self.0.lock();
        if all.len() >= REMEMBERED {
            all.clear();
        }
        let now = Instant::now();
        let (since, count) = all.entry(user.to_owned()).or_insert((now, 0));
        if now.duration_since(*since) >= WINDOW {
            (*since, *count) = (now, 0);
        }
        *count = count.saturating_add(1);
        *count <= COMPLAINTS
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn request(id: &str, reply_to: &str, user: &str) -> ClientRequest {
        let properties = [(USER, user), (TIME, "1000"), (SIGNATURE, "AA==")];
        ClientRequest {
            id: id.to_owned(),
            reply_to: reply_to.to_owned(),
            properties: properties.map(|(name, text)| (name.to_owned(), text.to_owned())).into(),
            body: "{}".into(),
        }
    }

    #[test]
    fn what_is_signed_is_what_the_page_says() {
        let envelope = Envelope::read(&request("7", "rpc.client.ann.1", "ann")).unwrap();
        assert_eq!(envelope.bytes, b"maxhost-rpc-message-1\nann\n1000\n7\nrpc.client.ann.1\n{}");
        assert_eq!((envelope.at_ms, envelope.user.as_str()), (1_000, "ann"));
    }

    #[test]
    fn an_answer_goes_to_a_queue_of_the_user_only() {
        for reply_to in ["rpc.client.ann", "rpc.client.ann.", "rpc.client.ann.a.b"] {
            assert!(Envelope::read(&request("7", reply_to, "ann")).is_ok(), "{reply_to}");
        }
        for (id, reply_to, user, why) in [
            ("7", "", "ann", "no-reply-queue"),
            ("7", "rpc.server", "ann", "no-reply-queue"),
            ("7", "p2p.inbound.DLx", "ann", "no-reply-queue"),
            ("7", "rpc.client.ann/x", "ann", "no-reply-queue"),
            ("7", "rpc.client.annie", "ann", "foreign-reply-queue"),
            ("7", "rpc.client.bob", "ann", "foreign-reply-queue"),
            ("7", "rpc.client.ann", "", "foreign-reply-queue"),
            ("7\nx", "rpc.client.ann", "ann", "malformed"),
        ] {
            assert_eq!(Envelope::read(&request(id, reply_to, user)).err(), Some(why), "{reply_to}");
        }
        let mut unsigned = request("7", "rpc.client.ann", "ann");
        unsigned.properties.remove(SIGNATURE);
        assert_eq!(Envelope::read(&unsigned).err(), Some("unsigned"));
    }

    #[test]
    fn a_request_from_the_future_is_refused() {
        let envelope = Envelope::read(&request("7", "rpc.client.ann", "ann")).unwrap();
        assert_eq!(envelope.age(5_000).unwrap(), Duration::from_secs(4));
        assert_eq!(envelope.age(-200_000).unwrap(), Duration::ZERO);
        assert_eq!(envelope.age(-400_000).unwrap_err().code, Code::RequestExpired);
    }

    #[test]
    fn complaints_are_bounded_for_each_user() {
        let complaints = Complaints::default();
        assert_eq!((0..20).filter(|_| complaints.may_answer("ann")).count(), 10);
        assert!(complaints.may_answer("bob"));
    }
}
