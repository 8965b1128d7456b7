//! The requests that wait for a notary, and how long they will.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use maxhost_ledger::notary::{NotaryError, UniquenessRequest, WaitEstimate};
use maxhost_ledger::tx::TransactionSignature;
use maxhost_model::{Code, Problem};
use maxhost_store::ledger::NewParameters;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::trouble::Trouble;

/// The most requests of a batch.
const MAX_BATCH: usize = 1_000;
/// The most states of a batch.
const MAX_STATES: usize = 20_000;
/// The most requests that wait.
const MAX_WAITING: usize = 100_000;

/// What a request comes to.
pub(crate) type Decided = Result<Result<TransactionSignature, NotaryError>, Trouble>;

/// A request that waits.
pub(crate) struct WaitingRequest {
    /// Who asks.
    pub caller: String,
    /// For what.
    pub request: UniquenessRequest,
    /// The network parameters that it was checked by, if the notary's ledger does not have them yet. They are kept in the commit
    /// that decides it: what is committed can be asked for again, whichever parameters are in force then.
    pub parameters: Option<NewParameters>,
    /// Gets what it comes to.
    pub answer: oneshot::Sender<Decided>,
}

impl WaitingRequest {
    /// How many states it names.
    pub fn states(&self) -> usize {
        self.request.inputs.len() + self.request.references.len()
    }
}

/// The requests to one notary.
#[derive(Default)]
pub(crate) struct NotaryQueue {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<WaitingRequest>,
    states: usize,
    deciding: bool,
    estimate: WaitEstimate,
}

impl NotaryQueue {
    /// How many requests wait.
    pub fn len(&self) -> usize {
        self.state.lock().waiting.len()
    }

    /// How long one who asks now will wait, if that is long enough to be told, milliseconds.
    pub fn wait_ms(&self) -> Option<u64> {
        let state = self.state.lock();
        let wait = state.estimate.update(state.states)?;
        Some(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX))
    }

    /// Adds a request. If nobody decides what waits, whoever adds has to.
    ///
    /// # Errors
    /// Too many wait.
    pub fn add(self: &Arc<NotaryQueue>, waiting: WaitingRequest) -> Result<Option<Deciding>, Trouble> {
        let mut state = self.state.lock();
        if state.waiting.len() >= MAX_WAITING {
            let text = format!("{MAX_WAITING} requests wait for this notary");
            return Err(Trouble::Passing(Problem::new(Code::Overloaded, text)));
        }
        state.states += waiting.states();
        state.waiting.push_back(waiting);
        let begins = !std::mem::replace(&mut state.deciding, true);
        Ok(begins.then(|| Deciding { queue: self.clone(), is_over: false }))
    }

    /// So many states were decided in so long.
    pub fn measure(&self, states: usize, took: Duration) {
        self.state.lock().estimate.measure(states, took);
    }
}

/// Deciding what waits: one at a time does. However it ends, whoever comes next begins anew.
pub(crate) struct Deciding {
    queue: Arc<NotaryQueue>,
    is_over: bool,
}

impl Deciding {
    /// The requests.
    pub fn queue(&self) -> &NotaryQueue {
        &self.queue
    }

    /// The next batch; if it is empty, whoever comes next begins anew.
    pub fn take(&mut self) -> Vec<WaitingRequest> {
        let mut state = self.queue.state.lock();
        let (mut batch, mut states) = (Vec::new(), 0);
        while let Some(waiting) = state.waiting.front() {
            let more = waiting.states();
            if batch.len() == MAX_BATCH || (states + more > MAX_STATES && !batch.is_empty()) {
                break;
            }
            states += more;
            batch.extend(state.waiting.pop_front());
        }
        state.states = state.states.saturating_sub(states);
        state.deciding = !batch.is_empty();
        self.is_over = batch.is_empty();
        batch
    }
}

impl Drop for Deciding {
    fn drop(&mut self) {
        // Once it is over, somebody else may have begun.
        if !self.is_over {
            self.queue.state.lock().deciding = false;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use maxhost_model::SecureHash;

    use super::*;

    fn request() -> WaitingRequest {
        let id = SecureHash::of(b"transaction");
        let request = UniquenessRequest { id, inputs: Vec::new(), references: Vec::new(), window: None };
        WaitingRequest { caller: "O=Alice".to_owned(), request, parameters: None, answer: oneshot::channel().0 }
    }

    #[test]
    fn whoever_comes_behind_one_that_has_panicked_decides_what_waits() {
        let queue = Arc::new(NotaryQueue::default());
        let deciding = queue.add(request()).unwrap().unwrap();
        assert!(queue.add(request()).unwrap().is_none(), "one decides");
        let defect = catch_unwind(AssertUnwindSafe(move || {
            let _deciding = deciding;
            panic!("on purpose");
        }));
        assert!(defect.is_err());
        let mut next = queue.add(request()).unwrap().unwrap();
        assert_eq!(next.take().len(), 3);
        assert_eq!(next.take().len(), 0);
        let another = queue.add(request()).unwrap();
        drop(next);
        assert!(
            another.is_some() && queue.add(request()).unwrap().is_none(),
            "one that is over takes nothing from the next"
        );
    }
}
