//! On which threads a run is polled.
//!
//! A flow that only talks is polled where its identity and the connections are: to hand it over to other threads and back
//! takes longer than its own work. A flow that computes would hold those up. So once it has done so for a whole tick
//! (5 ms, `sandbox/src/state.rs`), or for [`LONG`] until its wait, it goes to the threads for guests and stays there; and
//! flows of its kind begin there until several have shown that they do not.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use crate::core::Core;
use crate::running_flow::RunningFlow;

/// So long a run may work at a stretch and still count as one that only talks.
const LONG: Duration = Duration::from_millis(2);
/// Light runs that weigh as much as one long stretch.
const WEIGHT: u32 = 8;
/// So many light runs it takes at most until a flow no longer counts as one that computes.
const MOST: u32 = 64;

/// What the runs of one flow were like of late.
#[derive(Debug, Default)]
pub(crate) struct CpuProfile(AtomicU32);

impl CpuProfile {
    /// Whether the next run is likely to compute.
    pub fn computes(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 0
    }

    fn note_long_stretch(&self) {
        let more = |weight: u32| Some((weight + WEIGHT).min(MOST));
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
    }

    fn note_light_run(&self) {
        let less = |weight: u32| weight.checked_sub(1);
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }
}

/// How long one run works from one wait to the next. By the clock on the wall: a run that the machine held up in the
/// middle counts as long too, which costs a few of its kind their place and no more.
#[derive(Debug)]
pub(crate) struct BusyTimer {
    since: Instant,
    long: bool,
}

impl BusyTimer {
    pub fn new() -> BusyTimer {
        BusyTimer { since: Instant::now(), long: false }
    }

    /// The run works again.
    pub fn begin(&mut self) {
        self.since = Instant::now();
    }

    /// The run waits, or is over.
    pub fn end(&mut self, habit: &CpuProfile, port: &RunningFlow) {
        if self.since.elapsed() > LONG {
            self.computes(habit, port);
        }
    }

    /// The run has been working for long.
    pub fn computes(&mut self, habit: &CpuProfile, port: &RunningFlow) {
        self.long = true;
        habit.note_long_stretch();
        port.run_apart();
    }

    /// The guest is done; what its end still takes is the host's.
    pub fn close(&mut self, habit: &CpuProfile, port: &RunningFlow) {
        self.end(habit, port);
        self.begin();
        if !self.long {
            habit.note_light_run();
        }
    }
}

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A run that is polled on the threads for I/O as long as it does not compute.
struct Light {
    core: Arc<Core>,
    port: Arc<RunningFlow>,
    work: Option<Work>,
}

/// Polls the run at this port to its end.
pub(crate) fn spawn(core: &Arc<Core>, port: Arc<RunningFlow>, work: impl Future<Output = ()> + Send + 'static) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flow_counts_as_one_that_computes_until_several_runs_did_not() {
        let habit = CpuProfile::default();
        habit.note_light_run();
        assert!(!habit.computes());
        habit.note_long_stretch();
        for _ in 1..WEIGHT {
            habit.note_light_run();
            assert!(habit.computes());
        }
        habit.note_light_run();
        assert!(!habit.computes());
        (0..1_000).for_each(|_| habit.note_long_stretch());
        (0..MOST).for_each(|_| habit.note_light_run());
        assert!(!habit.computes(), "however much it computed once");
    }
}
