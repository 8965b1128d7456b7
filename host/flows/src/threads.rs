//! On which threads a run is polled.
//!
//! A flow that only talks is polled where its identity and the connections are: to hand it over to other threads and back
//! takes longer than its own work. A flow that computes would hold those up. So once it has done so for a whole tick
//! (5 ms, `sandbox/src/state.rs`) it goes to the threads for guests and stays there, and flows of its kind begin there
//! until several have shown that they do not.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::core::Core;
use crate::port::FlowPort;

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A run that is polled on the threads for I/O as long as it does not compute.
struct Light {
    core: Arc<Core>,
    port: Arc<FlowPort>,
    work: Option<Work>,
}

/// Polls the run at this port to its end.
pub(crate) fn spawn(core: &Arc<Core>, port: Arc<FlowPort>, work: impl Future<Output = ()> + Send + 'static) {
    if port.runs_apart() {
        core.guests.spawn(work);
    } else {
        core.io.spawn(Light { core: core.clone(), port, work: Some(Box::pin(work)) });
    }
}

impl Future for Light {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let Some(work) = &mut self.work else { return Poll::Ready(()) };
        if work.as_mut().poll(context).is_ready() {
            return Poll::Ready(());
        }
        if !self.port.runs_apart() {
            return Poll::Pending;
        }
        // Polled there at once, it names whom to wake from now on, so nothing that happens meanwhile is missed.
        if let Some(work) = self.work.take() {
            self.core.guests.spawn(work);
        }
        Poll::Ready(())
    }
}
