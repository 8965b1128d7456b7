//! What requests may take in memory, all together: from the first byte of a request to its answer.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use maxhost_model::{Code, Problem};
use tonic::Status;
use tonic::body::Body;

use crate::status::to_status;

/// What all requests together may hold.
#[derive(Debug, Clone)]
pub(crate) struct Budget {
    limit: usize,
    held: Arc<AtomicUsize>,
}

/// What one request holds. It is among the request's extensions; whoever works on the request keeps it until the answer.
#[derive(Debug)]
pub(crate) struct Share {
    budget: Budget,
    bytes: AtomicUsize,
}

impl Budget {
    pub(crate) fn new(limit: usize) -> Budget {
        Budget { limit, held: Arc::default() }
    }

    /// Counts what a request brings from now on.
    pub(crate) fn meter(&self, request: http::Request<Body>) -> http::Request<Body> {
        let share = Arc::new(Share { budget: self.clone(), bytes: AtomicUsize::new(0) });
        let (mut parts, body) = request.into_parts();
        parts.extensions.insert(Arc::clone(&share));
        http::Request::from_parts(parts, Body::new(Metered { body, share }))
    }
}

impl Share {
    /// Counts more bytes; false if there is no room for them.
    fn take(&self, bytes: usize) -> bool {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.budget.held.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes) <= self.budget.limit
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.held.fetch_sub(*self.bytes.get_mut(), Ordering::Relaxed);
    }
}

/// A body whose bytes are counted.
struct Metered {
    body: Body,
    share: Arc<Share>,
}

impl HttpBody for Metered {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
            && !self.share.take(data.len())
        {
            let text = format!("requests hold {} bytes already", self.share.budget.limit);
            return Poll::Ready(Some(Err(to_status(Problem::new(Code::Overloaded, text)))));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_request_held_is_free_when_it_ends() {
        let budget = Budget::new(100);
        let share = || Share { budget: budget.clone(), bytes: AtomicUsize::new(0) };
        let (first, second) = (share(), share());
        assert!(first.take(60) && second.take(40) && !second.take(1));
        drop(second);
        assert!(share().take(40));
        drop(first);
        assert_eq!(budget.held.load(Ordering::Relaxed), 0);
    }
}
