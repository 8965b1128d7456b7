//! What the host keeps beside one instance: its side of the calls, and the budgets of the run.

use std::time::Duration;

use async_trait::async_trait;
use wasmtime::{ResourceLimiterAsync, UpdateDeadline};

use crate::erased::ErasedHost;
use crate::host::{CallError, CallResult, GuestLogLevel, Tick};
use crate::output::{Output, Stream};
use crate::thread_time::{note_going_on, since_going_on};
use crate::wasi::Wasi;

/// Entries of one function table. A guest of 240 KB needs 137.
pub(crate) const TABLE_ELEMENTS: usize = 8192;

/// Why the host ends a run in the middle: travels through wasmtime as an error that the guest cannot catch.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EndOfRun {
    #[error("ended by the host")]
    Stop,
    #[error("computed for more than {} ms without waiting for anything", .limit.as_millis())]
    Cpu { limit: Duration },
    #[error("asked for {asked} bytes of memory, {limit} are allowed")]
    Memory { asked: usize, limit: usize },
    #[error("logged too much: {0}")]
    Log(String),
    #[error("{0}")]
    Refused(String),
}

/// What lives in the store of one instance.
pub(crate) struct RunState {
    /// None while `describe` runs.
    host: Option<Box<dyn ErasedHost>>,
    pub(crate) memory: MemoryBudget,
    pub(crate) cpu: CpuBudget,
    pub(crate) output: Output,
    pub(crate) wasi: Wasi,
}

impl RunState {
    /// With no host yet: good for `describe`.
    pub(crate) fn new(memory_limit: usize, cpu: CpuBudget, seed: [u8; 32]) -> RunState {
        RunState {
            host: None,
            memory: MemoryBudget::new(memory_limit),
            cpu,
            output: Output::default(),
            wasi: Wasi::new(seed),
        }
    }

    /// From here on the guest has a host.
    pub(crate) fn enter(&mut self, host: Box<dyn ErasedHost>) {
        self.host = Some(host);
    }

    /// The host, for the call of this name.
    pub(crate) fn host(&mut self, call: &'static str) -> wasmtime::Result<&mut dyn ErasedHost> {
        match &mut self.host {
            Some(host) => Ok(host.as_mut()),
            None => Err(EndOfRun::Refused(format!("called `{call}`, which `describe` may not")).into()),
        }
    }

    /// Logical time, nanoseconds since 1970; stands still at zero while `describe` runs.
    pub(crate) fn now(&mut self) -> u64 {
        self.host.as_mut().map_or(0, |host| host.now())
    }

    /// Waits as the flow's own `sleep` does.
    pub(crate) async fn sleep(&mut self, milliseconds: u64) -> wasmtime::Result<()> {
        let slept = self.host("sleep")?.sleep(milliseconds).await;
        if self.has_waited() {
            self.cpu.waited();
        }
        match slept {
            Ok(()) => Ok(()),
            Err(CallError::Stop) => Err(EndOfRun::Stop.into()),
            Err(CallError::Failure(error)) => Err(EndOfRun::Refused(error.message).into()),
        }
    }

    /// At most 65,536 bytes from the host, or from the seed while `describe` runs.
    pub(crate) fn random(&mut self, length: u32) -> wasmtime::Result<Vec<u8>> {
        let Some(host) = &mut self.host else {
            return Ok(self.wasi.random_by_seed(length as usize));
        };
        match host.random(length) {
            Ok(bytes) => Ok(bytes),
            Err(CallError::Stop) => Err(EndOfRun::Stop.into()),
            Err(CallError::Failure(error)) => {
                Err(EndOfRun::Refused(format!("asked for randomness: {}", error.message)).into())
            }
        }
    }

    /// Whether the host says that the guest has waited.
    pub(crate) fn has_waited(&mut self) -> bool {
        self.host.as_mut().is_some_and(|host| host.take_waited())
    }

    /// The host back, when the run is over.
    pub(crate) fn leave(self) -> Option<Box<dyn ErasedHost>> {
        self.host
    }

    /// A tick of the engine passed while the guest computed.
    pub(crate) fn on_tick(&mut self) -> wasmtime::Result<UpdateDeadline> {
        let whole = self.cpu.count(since_going_on())?;
        let Some(host) = self.host.as_mut().filter(|_| whole) else {
            note_going_on();
            return Ok(UpdateDeadline::Continue(1));
        };
        if host.tick() == Tick::Stop {
            return Err(EndOfRun::Stop.into());
        }
        // Not a plain yield: the scheduler looks at its timers and sockets before it comes back here.
        let yielding = async {
            tokio::task::yield_now().await;
            note_going_on();
        };
        Ok(UpdateDeadline::YieldCustom(1, Box::pin(yielding)))
    }

    /// A message of the guest's own.
    pub(crate) fn log(&mut self, level: GuestLogLevel, message: String) -> wasmtime::Result<()> {
        if level == GuestLogLevel::Error {
            self.output.said(&message);
        }
        match &mut self.host {
            Some(host) => settle_log(host.log(level, message)),
            None => Ok(()),
        }
    }

    /// Bytes on standard output or standard error; whole lines go to the log.
    pub(crate) fn write(&mut self, stream: Stream, bytes: &[u8]) -> wasmtime::Result<()> {
        let mut rest = bytes;
        while let Some(line) = self.output.next_line(stream, &mut rest) {
            self.log_line(stream, line)?;
        }
        Ok(())
    }

    /// Logs what was left without a line's end. The run is over: there is no one to tell of a limit.
    pub(crate) fn flush(&mut self) {
        for stream in [Stream::Out, Stream::Err] {
            if let Some(line) = self.output.last_line(stream) {
                drop(self.log_line(stream, line));
            }
        }
    }

    fn log_line(&mut self, stream: Stream, line: String) -> wasmtime::Result<()> {
        let level = match stream {
            Stream::Out => GuestLogLevel::Info,
            Stream::Err => GuestLogLevel::Error,
        };
        match &mut self.host {
            Some(host) => settle_log(host.log(level, line)),
            None => Ok(()),
        }
    }
}

/// `log` has no answer that could carry a failure: the run ends instead.
fn settle_log(answer: CallResult<()>) -> wasmtime::Result<()> {
    match answer {
        Ok(()) => Ok(()),
        Err(CallError::Stop) => Err(EndOfRun::Stop.into()),
        Err(CallError::Failure(error)) => Err(EndOfRun::Log(error.message).into()),
    }
}

/// Grants memory up to the run's limit. What is beyond ends the run: a guest that could see the refusal and go on would
/// have to be refused at the same place on replay.
pub(crate) struct MemoryBudget {
    limit: usize,
    granted: usize,
    last_step: usize,
    peak: usize,
}

impl MemoryBudget {
    fn new(limit: usize) -> MemoryBudget {
        MemoryBudget { limit, granted: 0, last_step: 0, peak: 0 }
    }

    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    /// The most the run had, bytes.
    pub(crate) fn peak(&self) -> usize {
        self.peak
    }

    /// Grants a step within the run's own limit.
    fn grant(&mut self, step: usize) -> wasmtime::Result<()> {
        let asked = self.granted.saturating_add(step);
        if asked > self.limit {
            return Err(EndOfRun::Memory { asked, limit: self.limit }.into());
        }
        self.granted = asked;
        self.last_step = step;
        self.peak = self.peak.max(asked);
        Ok(())
    }

    /// The step was granted and the system has no memory for it.
    fn take_back(&mut self) {
        self.granted = self.granted.saturating_sub(std::mem::take(&mut self.last_step));
    }
}

/// What a guest grows by is granted before it grows: within its own limit at once, within those of its host as soon as
/// there is room. The guest waits meanwhile.
#[async_trait]
impl ResourceLimiterAsync for RunState {
    async fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let step = desired.saturating_sub(current);
        self.memory.grant(step)?;
        let Some(host) = self.host.as_mut().filter(|_| step > 0) else { return Ok(true) };
        match host.memory(step as u64).await {
            Ok(()) => Ok(true),
            Err(CallError::Stop) => Err(EndOfRun::Stop.into()),
            Err(CallError::Failure(error)) => Err(EndOfRun::Refused(error.message).into()),
        }
    }

    fn memory_grow_failed(&mut self, _error: wasmtime::Error) -> wasmtime::Result<()> {
        self.memory.take_back();
        Ok(())
    }

    async fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        if desired > TABLE_ELEMENTS {
            let reason = format!("grows a table to {desired} entries, {TABLE_ELEMENTS} are allowed");
            return Err(EndOfRun::Refused(reason).into());
        }
        Ok(true)
    }

    fn instances(&self) -> usize {
        64
    }

    fn tables(&self) -> usize {
        16
    }

    fn memories(&self) -> usize {
        4
    }
}

/// Computing time since the guest last waited, by the processor's time ([`crate::thread_time`]).
pub(crate) struct CpuBudget {
    limit: Duration,
    /// The most that one tick counts: what a thread has worked since then may have been for others.
    tick: Duration,
    since_wait: Duration,
    total: Duration,
    /// The tick that ends the first, partial interval after a wait. It is not counted: most of that tick may have
    /// passed while the guest waited.
    partial: bool,
}

impl CpuBudget {
    pub(crate) fn new(limit: Duration, tick: Duration) -> CpuBudget {
        CpuBudget { limit, tick, since_wait: Duration::ZERO, total: Duration::ZERO, partial: true }
    }

    /// The guest waited: its budget is whole again.
    pub(crate) fn waited(&mut self) {
        self.since_wait = Duration::ZERO;
        self.partial = true;
    }

    /// All that was counted.
    pub(crate) fn total(&self) -> Duration {
        self.total
    }

    /// A tick has passed, and the guest's thread has worked so long. Gives whether the guest has computed since the tick
    /// before, and not only since a wait.
    fn count(&mut self, worked: Duration) -> wasmtime::Result<bool> {
        if std::mem::take(&mut self.partial) {
            return Ok(false);
        }
        let worked = worked.min(self.tick);
        self.since_wait = self.since_wait.saturating_add(worked);
        self.total = self.total.saturating_add(worked);
        if self.since_wait > self.limit {
            return Err(EndOfRun::Cpu { limit: self.limit }.into());
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn memory_is_granted_up_to_the_limit_over_all_memories() {
        let mut budget = MemoryBudget::new(100);
        budget.grant(60).unwrap();
        budget.grant(40).unwrap();
        let error = budget.grant(1).unwrap_err();
        assert!(matches!(error.downcast_ref(), Some(EndOfRun::Memory { asked: 101, limit: 100 })));
        assert_eq!(budget.peak(), 100);
    }

    #[test]
    fn growth_that_failed_is_given_back() {
        let mut budget = MemoryBudget::new(100);
        budget.grant(100).unwrap();
        budget.take_back();
        budget.grant(100).unwrap();
    }

    #[test]
    fn a_wait_makes_the_computing_budget_whole() {
        let tick = Duration::from_millis(5);
        let mut budget = CpuBudget::new(2 * tick, tick);
        for _ in 0..3 {
            for _ in 0..3 {
                budget.count(tick).unwrap();
            }
            budget.waited();
        }
        assert_eq!(budget.total(), 6 * tick);
        for _ in 0..3 {
            budget.count(tick).unwrap();
        }
        let error = budget.count(tick).unwrap_err();
        assert_eq!(error.to_string(), "computed for more than 10 ms without waiting for anything");
    }

    #[test]
    fn ticks_in_which_others_had_the_processor_cost_nothing() {
        let tick = Duration::from_millis(5);
        let mut budget = CpuBudget::new(2 * tick, tick);
        for _ in 0..100 {
            budget.count(tick / 100).unwrap();
        }
        // What the thread did for others in between is not the guest's.
        budget.count(100 * tick).unwrap();
        let counted = tick / 100 * 99 + tick;
        assert_eq!(budget.total(), counted);
        assert!(budget.count(tick).is_err(), "{counted:?}");
    }
}
