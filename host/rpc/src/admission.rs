//! What every call passes: who is it, is there room, how long may it take, and is the host about to stop.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::Stream;
use futures::stream::BoxStream;
use maxhost_flows::api::{Caller, HostApi};
use maxhost_model::{Code, Problem};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::{Request, Response, Status, Streaming};

use crate::budget::Share;
use crate::conversion::Conversion;
use crate::metered::Large;
use crate::peer;
use crate::status::to_status;

/// What a streaming method answers with.
pub(crate) type Events<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// How long a call that is under way may go on once the host was asked to stop.
const STOP_GRACE: Duration = Duration::from_secs(1);

/// Shared by all services.
#[derive(Clone)]
pub(crate) struct Admission {
    pub(crate) api: Arc<dyn HostApi>,
    calls: Arc<Semaphore>,
    streams: Arc<Semaphore>,
    call_timeout: Duration,
    shutdown: CancellationToken,
}

/// A call that may go on, for as long as this lives.
pub(crate) struct Admitted {
    pub(crate) caller: Caller,
    _permit: OwnedSemaphorePermit,
    /// What the request holds in memory: counted until it is answered.
    share: Option<Arc<Share>>,
}

impl Admitted {
    /// Converts the answer.
    pub(crate) fn conversion(&self) -> Conversion {
        Conversion(self.share.clone())
    }

    /// An answer that may be large: if it is, what it takes is counted until it is sent.
    pub(crate) fn large<T>(&self, mut answer: Response<T>) -> Response<T> {
        if let Some(share) = self.share.as_ref().filter(|share| share.has_large_answer()) {
            answer.extensions_mut().insert(Large(Arc::clone(share)));
        }
        answer
    }
}

impl Admission {
    pub(crate) fn new(
        api: Arc<dyn HostApi>,
        max_calls: usize,
        max_streams: usize,
        call_timeout: Duration,
        shutdown: CancellationToken,
    ) -> Admission {
        let calls = Arc::new(Semaphore::new(max_calls.min(Semaphore::MAX_PERMITS)));
        let streams = Arc::new(Semaphore::new(max_streams.min(Semaphore::MAX_PERMITS)));
        Admission { api, calls, streams, call_timeout, shutdown }
    }

    /// Admits a call that ends with one answer.
    pub(crate) fn call<T>(&self, request: &Request<T>) -> Result<Admitted, Status> {
        self.admit(request, &self.calls, "calls at once (limits.rpc_calls)")
    }

    /// Admits a call that answers with a stream.
    pub(crate) fn stream<T>(&self, request: &Request<T>) -> Result<Admitted, Status> {
        self.admit(request, &self.streams, "attached streams (limits.rpc_streams)")
    }

    /// Admits a call whose request is a stream of messages, and that ends with one answer.
    pub(crate) fn receiving<T>(&self, request: &Request<Streaming<T>>) -> Result<Admitted, Status> {
        self.admit(request, &self.calls, "calls at once (limits.rpc_calls)")
    }

    fn admit<T>(&self, request: &Request<T>, room: &Arc<Semaphore>, what: &str) -> Result<Admitted, Status> {
        if self.shutdown.is_cancelled() {
            return Err(to_status(stopping()));
        }
        let caller = peer::caller(request).map_err(to_status)?;
        match Arc::clone(room).try_acquire_owned() {
            Ok(permit) => {
                let share = request.extensions().get::<Arc<Share>>().cloned();
                Ok(Admitted { caller, _permit: permit, share })
            }
            Err(_) => Err(to_status(Problem::new(Code::Overloaded, format!("the host serves no more {what}")))),
        }
    }

    /// Waits for the engine's answer, within the time a call may take.
    pub(crate) async fn answer<T>(
        &self,
        work: impl Future<Output = Result<T, Problem>>,
    ) -> Result<Response<T>, Status> {
        self.wait(work).await.map(Response::new).map_err(to_status)
    }

    /// As [`Admission::answer`], for a part of a call.
    pub(crate) async fn wait<T>(&self, work: impl Future<Output = Result<T, Problem>>) -> Result<T, Problem> {
        let stop = async {
            self.shutdown.cancelled().await;
            tokio::time::sleep(STOP_GRACE).await;
        };
        tokio::select! {
            answer = tokio::time::timeout(self.call_timeout, work) => match answer {
                Ok(answer) => answer,
                Err(_) => Err(Problem::new(
                    Code::Timeout,
                    format!("the host did not finish the call within {} s", self.call_timeout.as_secs()),
                )),
            },
            () = stop => Err(stopping()),
        }
    }

    /// A stream that keeps its place until it ends, ends behind its first error, and ends when the host stops.
    pub(crate) fn events<T: Send + 'static>(
        &self,
        admitted: Admitted,
        events: impl Stream<Item = Result<T, Problem>> + Send + 'static,
    ) -> Response<Events<T>> {
        let stop = Box::pin(self.shutdown.clone().cancelled_owned());
        Response::new(Box::pin(Guarded { events: Some(Box::pin(events)), stop, _admitted: admitted }))
    }
}

fn stopping() -> Problem {
    Problem::new(Code::HostStopping, "the host is stopping")
        .remedy("when the host is up again, attach again with the cursor of the last event")
}

struct Guarded<T> {
    /// `None` once the stream has ended.
    events: Option<BoxStream<'static, Result<T, Problem>>>,
    stop: Pin<Box<WaitForCancellationFutureOwned>>,
    _admitted: Admitted,
}

impl<T> Stream for Guarded<T> {
    type Item = Result<T, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(events) = self.events.as_mut() else { return Poll::Ready(None) };
        let next = match events.as_mut().poll_next(context) {
            Poll::Ready(next) => next,
            Poll::Pending => {
                ready!(self.stop.as_mut().poll(context));
                Some(Err(stopping()))
            }
        };
        if !matches!(next, Some(Ok(_))) {
            self.events = None;
        }
        Poll::Ready(next.map(|event| event.map_err(to_status)))
    }
}
