//! How a run waits: what it did is written down, then it looks for news, until it is put away.

use std::task::Poll;
use std::time::Duration;

use maxhost_journal::Delivery;
use maxhost_model::Problem;
use maxhost_sandbox::CallResult;
use maxhost_store::AttemptToken;
use smallvec::SmallVec;
use tokio::sync::oneshot;

use super::{FlowCalls, Stop};
use crate::base::clock::Moment;
use crate::base::rules::{Rule, holds};
use crate::commit::unit::Unit;
use crate::flow::offer::Runner;
use crate::flow::running_flow::{Lack, Signal};
use crate::options::Eviction;
use crate::registry::message::{StartFailure, answer_start};

/// What a run that does not wait may have on its way to the disk, bytes. With more it waits for the disk.
const MAX_UNWRITTEN: usize = 4 << 20;
/// So long a run that has an instance waits for more memory. Then it gives up what it has, and waits without: of two
/// runs that wait for each other's memory, one goes on.
const WAIT_FOR_MEMORY: Duration = Duration::from_millis(250);

impl FlowCalls {
    /// Writes down what is new. Nothing waits for it: the next unit of this run comes after it, or not at all.
    pub fn flush(&mut self) {
        if self.shadow {
            return;
        }
        let mut unit = Unit::default();
        let reply = self.take_start(&mut unit);
        self.unwritten += self.machine.unwritten_bytes();
        let flush = self.machine.flush(self.services.now());
        unit.flush(&self.services.committer, self.flow.row, flush);
        self.take_ledger_ops(&mut unit);
        if unit.is_empty() {
            return;
        }
        self.build_on(&mut unit);
        unit.submit_for(&self.services.committer, self.opened.author(), &self.flow, move |result| {
            answer_start(reply, result)
        });
    }

    /// Writes down what is new if that is much, at the pace of the disk.
    pub(super) async fn flush_if_due(&mut self) -> CallResult<()> {
        if !self.machine.is_flush_due() {
            return Ok(());
        }
        self.flush();
        self.keep_pace().await
    }

    /// Waits for the disk if this run has much on its way there, or everybody has: then each has one unit there at a time, so
    /// that no flow fills the queue of the committer for all others, however it goes on.
    pub(super) async fn keep_pace(&mut self) -> CallResult<()> {
        let is_congested = self.services.committer.store.is_congested_for(self.opened.entry.row);
        if !is_congested && self.unwritten <= MAX_UNWRITTEN {
            return Ok(());
        }
        self.flow.settle().await;
        self.unwritten = 0;
        self.check_signals()
    }

    /// Moves the flow's start into a unit, if it is not written yet.
    pub fn take_start(&mut self, unit: &mut Unit) -> Option<oneshot::Sender<Result<(), StartFailure>>> {
        let start = self.start.take()?;
        start.ops.into_iter().for_each(|op| unit.op(op));
        self.commit_hint = Some(start.commit_hint);
        start.reply
    }

    /// Moves changes of the ledger into the unit that has the entries which say so.
    pub fn take_ledger_ops(&mut self, unit: &mut Unit) {
        self.ledger_ops.drain(..).for_each(|op| unit.op(op));
    }

    /// Whoever started the flow is told that it could not be, and why. Nothing of it is written.
    pub fn refuse_start(&mut self, problem: &Problem) {
        if let Some(reply) = self.start.take().and_then(|start| start.reply) {
            // Whoever has gone need not be told.
            let _ = reply.send(Err(StartFailure::Problem(problem.clone())));
        }
    }

    /// The unit is written only if what the run has read is.
    pub fn build_on(&mut self, unit: &mut Unit) {
        let attempts = std::mem::take(&mut self.depends_on);
        if holds(Rule::UnitsNameWhatTheyBuildOn) {
            unit.depends_on(attempts);
        }
    }

    /// What others write for this run must name: it is written only if what the run has read is, and what it has handed in.
    pub fn built_on(&self) -> SmallVec<[AttemptToken; 2]> {
        let read = self.depends_on.iter().filter(|_| holds(Rule::UnitsNameWhatTheyBuildOn));
        read.chain([&self.flow.attempt]).cloned().collect()
    }

    /// True if the run has read messages that no unit of its own builds on yet.
    pub fn has_read_ahead(&self) -> bool {
        !self.depends_on.is_empty()
    }

    /// Takes in what has arrived. True if there was something.
    pub(super) fn absorb(&mut self) -> bool {
        let mut arrivals = self.flow.take();
        arrivals.retain(|arrival| !arrival.runner.as_ref().is_some_and(Runner::give_up));
        let any = !arrivals.is_empty();
        if any {
            // Before what the arrivals announced is dropped with them.
            self.commit_hint = Some(self.services.committer.store.commit_hint_for(self.opened.entry.row));
        }
        for arrival in arrivals {
            if let Some(runner) = arrival.runner.filter(|runner| !runner.speculation.is_written()) {
                self.depends_on.push(runner.sender);
            }
            match self.machine.deliver(arrival.session, arrival.seq, &arrival.batch) {
                Delivery::Taken | Delivery::Duplicate => {}
                Delivery::UnknownSession => {
                    tracing::warn!(flow_id = %self.flow.id(), session = arrival.session, "message for a session that the flow does not have");
                }
                Delivery::ForeignSender => {
                    tracing::warn!(flow_id = %self.flow.id(), from = arrival.batch.from, "message of a party that is not the session's counterparty");
                }
            }
        }
        any
    }

    /// The open call has no answer yet: returns when it is worth looking again.
    pub async fn suspend(&mut self) -> CallResult<()> {
        self.check_signals()?;
        // Run first, commit once: what is there already is consumed before anything is written.
        if self.absorb() {
            return Ok(());
        }
        let back = self.machine.is_catching_up();
        self.flush();
        self.keep_pace().await?;
        self.suspensions += 1;
        let due = self.deadline();
        // A flow that came back to a wait that is over must go on: evicted, it would come back to it for ever.
        let over = back && due.is_some_and(|due| due <= self.services.clock.monotonic());
        if !over && (self.is_to_leave() || self.evicts_now()) {
            return self.stop(Stop::Evicted);
        }
        self.commit_hint = None;
        self.memory.keep_what_is_used();
        self.busy.end(self.code.profile(), &self.flow.place);
        let result = self.linger(due).await;
        self.busy.begin();
        self.flow.show_waiting(None);
        result
    }

    async fn linger(&mut self, due: Option<Moment>) -> CallResult<()> {
        let services = self.services.clone();
        let clock = &*services.clock;
        if due.is_some_and(|due| due <= clock.monotonic()) {
            return Ok(());
        }
        if let Some(wait) = self.machine.wait() {
            self.flow.show_waiting(Some((wait, services.now_millis())));
        }
        let evict_at = match self.services.eviction {
            Eviction::AfterLinger(linger) => Some(clock.monotonic() + linger),
            Eviction::Never | Eviction::EveryWait | Eviction::Random(_) => None,
        };
        loop {
            self.check_signals()?;
            if self.absorb() || (self.machine.is_awaiting() && self.flow.is_stirred()) {
                return Ok(());
            }
            let now = clock.monotonic();
            if due.is_some_and(|due| due <= now) {
                return Ok(());
            }
            // Nothing is there for it to get on with, also if it has come back only to wait here again.
            let evicted = self.is_to_leave() || evict_at.is_some_and(|at| at <= now);
            if evicted || self.services.room.slots.is_scarce() || self.memory.is_wanted() {
                return self.stop(Stop::Evicted);
            }
            let next = match (due, evict_at) {
                (Some(due), Some(evict)) => Some(due.min(evict)),
                (due, evict) => due.or(evict),
            };
            let (flow, memory) = (&self.flow, &self.memory);
            let timer = async {
                match next {
                    Some(at) => clock.sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let gives_way = {
                let mut wait = std::pin::pin!(async {
                    tokio::select! {
                        biased;
                        () = flow.wake() => false,
                        () = timer => false,
                        () = services.room.slots.wanted() => true,
                        () = memory.wanted() => true,
                    }
                });
                match futures::poll!(wait.as_mut()) {
                    Poll::Ready(gives_way) => gives_way,
                    Poll::Pending => {
                        // Only a wait that really was one makes the guest's time to compute whole again.
                        self.waited = true;
                        wait.await
                    }
                }
            };
            if gives_way {
                return self.stop(Stop::Evicted);
            }
        }
    }

    pub(crate) fn check_signals(&mut self) -> CallResult<()> {
        if self.shadow {
            return Ok(());
        }
        if self.flow.is_signalled(Signal::Failed) {
            return self.stop(Stop::CommitFailed);
        }
        if self.flow.is_signalled(Signal::Kill) {
            return self.stop(Stop::Killed);
        }
        // A flow that has come back gets on first: evicted before, it would come back to the same for ever.
        let evicted = self.flow.is_signalled(Signal::Evict) && !self.machine.is_catching_up();
        if evicted || (self.got_on && self.is_to_leave()) {
            self.flush();
            return self.stop(Stop::Evicted);
        }
        Ok(())
    }

    /// Whether the instance is to be given up. What found no room in memory is in the database; its mark stays, so the
    /// flow is brought back from there at once.
    fn is_to_leave(&self) -> bool {
        self.flow.is_signalled(Signal::Evict) || self.flow.is_signalled(Signal::MakeRoom) || self.flow.has_missed()
    }

    /// More memory for the guest. It waits a while with its instance, and without it from then on.
    pub(super) async fn grow(&mut self, bytes: u64) -> CallResult<()> {
        if self.memory.try_grow(bytes) {
            return Ok(());
        }
        // Twice what it has, so that it does not come back again and again for a little more.
        let has = self.memory.bytes();
        let wanted = has.saturating_mul(2).min(self.memory_limit()).max(has.saturating_add(bytes));
        if self.shadow {
            return self.stop(Stop::Memory { wanted });
        }
        self.flush();
        self.commit_hint = None;
        self.busy.end(self.code.profile(), &self.flow.place);
        self.flow.show_lack(Some((Lack::Memory, self.services.now_millis())));
        let flow = self.flow.clone();
        let signalled = async {
            while !flow.has_urgent_signal() {
                flow.wake().await;
            }
        };
        let (clock, patience) = (self.services.clock.clone(), self.services.clock.monotonic() + WAIT_FOR_MEMORY);
        let granted = tokio::select! {
            biased;
            granted = self.memory.grow(bytes) => granted,
            () = signalled => false,
            () = clock.sleep_until(patience) => false,
        };
        self.flow.show_lack(None);
        self.busy.begin();
        self.check_signals()?;
        if granted { Ok(()) } else { self.stop(Stop::Memory { wanted }) }
    }

    /// The most that this flow can have.
    pub fn memory_limit(&self) -> u64 {
        let limits = &self.opened.limits;
        self.services.room.memory.most(limits.memory).min(limits.memory_per_flow)
    }

    fn evicts_now(&self) -> bool {
        match self.services.eviction {
            Eviction::EveryWait => true,
            Eviction::Random(seed) => {
                let mut hash = blake3::Hasher::new();
                hash.update(&seed.to_be_bytes()).update(&self.flow.row.0.to_be_bytes());
                hash.update(&self.suspensions.to_be_bytes()).update(&self.machine.entries().to_be_bytes());
                hash.finalize().as_bytes()[0] & 1 == 1
            }
            Eviction::AfterLinger(_) | Eviction::Never => false,
        }
    }
}
