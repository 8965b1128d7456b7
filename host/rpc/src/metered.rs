//! Counts requests from their headers on: a layer below the audit trail and above the login.

use std::future::{Future, Ready, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::future::Either;
use http_body::{Body as HttpBody, Frame, SizeHint};
use maxhost_model::{Code, Problem};
use tokio::time::{Sleep, sleep};
use tonic::Status;
use tonic::body::Body;
use tower::{Layer, Service};

use crate::budget::{Budget, Kind, Share};
use crate::inflate::{ENCODING, GZIP, Inflated, PREFIX};
use crate::status::to_status;

/// What a request has to bring in the time after which it counts as stalled, bytes.
const LEAST: usize = 64 << 10;
/// What a message may have beside its payload: names, ids, error details. Bytes.
pub(crate) const MESSAGE_OVERHEAD: usize = 64 * 1024;
/// Paths of the methods that take payloads.
const TAKES_PAYLOADS: &str = "/maxhost.v1.FlowService/";
/// How long tools may think between two questions about the host's methods.
const THINKING: Duration = Duration::from_secs(60);

/// Lets requests in, counts what they bring, and gives up those that do not come.
#[derive(Clone)]
pub(crate) struct MeterLayer {
    pub(crate) budget: Budget,
    /// A request that brings next to nothing for so long has stalled.
    pub(crate) silence: Duration,
}

impl<S> Layer<S> for MeterLayer {
    type Service = MeterService<S>;

    fn layer(&self, inner: S) -> MeterService<S> {
        MeterService { meter: self.clone(), inner }
    }
}

/// See [`MeterLayer`].
#[derive(Clone)]
pub(crate) struct MeterService<S> {
    meter: MeterLayer,
    inner: S,
}

type Refusal<E> = Ready<Result<http::Response<Body>, E>>;
type Answer<E> = Pin<Box<dyn Future<Output = Result<http::Response<Body>, E>> + Send>>;

impl<S> Service<http::Request<Body>> for MeterService<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = S::Error;
    type Future = Either<S::Future, Either<Answer<S::Error>, Refusal<S::Error>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let share = match self.meter.budget.admit(request.uri().path()) {
            Ok(share) => Arc::new(share),
            Err(problem) => return Either::Right(Either::Right(ready(Ok(to_status(problem).into_http())))),
        };
        let answer = self.inner.call(self.meter.metered(request, &share));
        if !share.kind().is_open() {
            return Either::Left(answer);
        }
        // Nobody else keeps the share of a request to an open service until the end of its answer.
        Either::Right(Either::Left(Box::pin(async move {
            let answer = answer.await?;
            Ok(answer.map(|body| Body::new(Held { body, _share: share })))
        })))
    }
}

impl MeterLayer {
    /// Bytes of the largest message that a method takes.
    fn largest(&self, path: &str) -> usize {
        if path.starts_with(TAKES_PAYLOADS) { self.budget.largest() } else { MESSAGE_OVERHEAD }
    }

    fn metered(&self, request: http::Request<Body>, share: &Arc<Share>) -> http::Request<Body> {
        let (is_single, silence) = match share.kind() {
            Kind::Reflection => (false, THINKING),
            Kind::Import => (false, self.silence),
            Kind::Call | Kind::Probe | Kind::Watch => (true, self.silence),
        };
        let (mut parts, body) = request.into_parts();
        parts.extensions.insert(Arc::clone(share));
        let came = Came { is_single, prefix: [0; PREFIX], bytes: 0 };
        let metered = Metered { body, share: Arc::clone(share), came, silence, stall: None, lately: 0 };
        let is_gzip = parts.headers.get(ENCODING).is_some_and(|encoding| encoding.as_bytes() == GZIP);
        let body = match is_gzip && share.kind() == Kind::Call {
            true => Body::new(Inflated::new(metered, Arc::clone(share), self.largest(parts.uri.path()))),
            false => Body::new(metered),
        };
        http::Request::from_parts(parts, body)
    }
}

/// What has come of a request.
struct Came {
    /// Whether it is a request of one message, as all are but imports and those of reflection.
    is_single: bool,
    /// Its first bytes.
    prefix: [u8; PREFIX],
    bytes: u64,
}

impl Came {
    /// Notes more bytes.
    ///
    /// # Errors
    /// There is more behind the message.
    fn note(&mut self, data: &[u8]) -> Result<(), Problem> {
        let before = self.bytes;
        self.bytes += data.len() as u64;
        if !self.is_single {
            return Ok(());
        }
        if before < PREFIX as u64 {
            let missing = self.prefix.iter_mut().skip(usize::try_from(before).unwrap_or(PREFIX));
            missing.zip(data).for_each(|(place, byte)| *place = *byte);
        }
        if self.bytes < PREFIX as u64 {
            return Ok(());
        }
        let [_, length @ ..] = self.prefix;
        if self.bytes > PREFIX as u64 + u64::from(u32::from_be_bytes(length)) {
            let text = "more came than one message, and the method takes one";
            return Err(Problem::new(Code::RequestInvalid, text));
        }
        Ok(())
    }
}

/// A body whose bytes are counted, and that is given up when it stalls.
struct Metered {
    body: Body,
    share: Arc<Share>,
    came: Came,
    silence: Duration,
    /// Goes off when it is to be looked whether the request has stalled. Most requests are there at once and need none.
    stall: Option<Pin<Box<Sleep>>>,
    /// Bytes that came since that was looked at.
    lately: usize,
}

impl Metered {
    fn count(&mut self, data: &[u8]) -> Result<(), Problem> {
        self.lately = self.lately.saturating_add(data.len());
        self.share.take(data.len())?;
        self.came.note(data)
    }

    /// Ready when too little has come for too long.
    fn poll_stalled(&mut self, context: &mut Context<'_>) -> Poll<Problem> {
        loop {
            let silence = self.silence;
            let stall = self.stall.get_or_insert_with(|| Box::pin(sleep(silence)));
            if stall.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
            if self.lately < LEAST {
                let text = format!("the request has not come within {silence:?}");
                return Poll::Ready(Problem::new(Code::Timeout, text));
            }
            (self.stall, self.lately) = (None, 0);
        }
    }
}

impl HttpBody for Metered {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) else {
            return self.poll_stalled(context).map(|problem| Some(Err(to_status(problem))));
        };
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
            && let Err(problem) = self.count(data)
        {
            return Poll::Ready(Some(Err(to_status(problem))));
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The body of an answer that counts until it is sent.
struct Held {
    body: Body,
    _share: Arc<Share>,
}

impl HttpBody for Held {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Marks an answer that is large, by what it takes.
#[derive(Clone)]
pub(crate) struct Large(pub(crate) Arc<Share>);

/// What a large answer takes is kept until it is sent.
pub(crate) fn keep(mut answer: http::Response<Body>) -> http::Response<Body> {
    match answer.extensions_mut().remove::<Large>() {
        None => answer,
        Some(Large(share)) => answer.map(|body| Body::new(Held { body, _share: share })),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_request_is_one_message_however_it_is_cut() {
        let message = [&[0, 0, 0, 0, 3][..], b"abc"].concat();
        for cut in 1..=message.len() {
            let mut came = Came { is_single: true, prefix: [0; PREFIX], bytes: 0 };
            for part in message.chunks(cut) {
                came.note(part).unwrap();
            }
            assert!(came.note(b"").is_ok());
            assert_eq!(came.note(b"x").unwrap_err().code, Code::RequestInvalid);
        }
        let mut several = Came { is_single: false, prefix: [0; PREFIX], bytes: 0 };
        assert!(several.note(&message).is_ok() && several.note(&message).is_ok());
    }
}
