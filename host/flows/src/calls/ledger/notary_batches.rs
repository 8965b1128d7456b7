//! A notary's requests in batches: what waits is decided in one commit, and signed with one signature.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use maxhost_ledger::notary::{NotaryError, UniquenessRequest, Verdict, sign_committed};
use maxhost_ledger::tx::{NotaryRole, TransactionSignature};
use maxhost_model::network::PLATFORM_VERSION;
use maxhost_model::{Code, Problem, SecureHash};
use maxhost_store::ledger::{LedgerOp, LedgerReceipt, NewParameters, NotaryOp};
use maxhost_store::{AttemptToken, CommitUnit, Receipt, StoreError};
use smallvec::SmallVec;
use tokio::sync::oneshot;

use super::environment::LedgerEnvironment;
use crate::base::rules::{Rule, holds};
use crate::base::trouble::Trouble;
use crate::ledger::notary_queue::{Added, Decided, Deciding, NotaryQueue, WaitingRequest};

/// What came of a request.
pub(super) enum InBatch {
    /// It is decided.
    Decided(Result<TransactionSignature, NotaryError>),
    /// There is no room for it. It may be asked for again after so long.
    NoRoom(Duration),
}

/// A request.
pub(super) struct Asked<'a> {
    pub caller: &'a str,
    pub request: UniquenessRequest,
    /// Those that it was checked by, unless they are kept.
    pub parameters: Option<NewParameters>,
    /// The attempts that it comes from.
    pub builds_on: SmallVec<[AttemptToken; 2]>,
}

/// Decides a request together with those that wait.
///
/// # Errors
/// The batch was not committed, or not with this request, because what it comes from was not. It may be asked for again.
pub(super) async fn decide_in_batch(
    queue: &Arc<NotaryQueue>,
    environment: LedgerEnvironment,
    role: NotaryRole,
    asked: Asked<'_>,
) -> Result<InBatch, Trouble> {
    let (answer, decided) = oneshot::channel();
    let Asked { caller, request, parameters, builds_on } = asked;
    match queue.add(WaitingRequest { caller: caller.into(), request, parameters, builds_on, answer }) {
        Added::NoRoom(wait) => return Ok(InBatch::NoRoom(wait)),
        Added::Waits => {}
        Added::First => {
            let (deciding, io) = (Deciding::begin(queue.clone()), environment.services.io.clone());
            io.spawn(async move { work(deciding, &environment, role).await });
        }
    }
    let stopped = |_| Err(Trouble::Passing(Problem::new(Code::HostStopping, "the notary stopped")));
    let decided: Decided = decided.await.unwrap_or_else(stopped);
    decided.map(InBatch::Decided)
}

/// Decides batch after batch until nothing waits. A batch that meets a defect is not decided: whoever waits for it is told, and
/// asks again.
async fn work(mut deciding: Deciding, environment: &LedgerEnvironment, role: NotaryRole) {
    loop {
        let batch = deciding.take();
        if batch.is_empty() {
            return;
        }
        let clock = &environment.services.clock;
        let began = clock.monotonic();
        let states = batch.iter().map(WaitingRequest::states).sum();
        if AssertUnwindSafe(decide(environment, role, batch)).catch_unwind().await.is_err() {
            tracing::error!("a notary's batch met a defect of the host");
            continue;
        }
        deciding.queue().measure(states, clock.monotonic().since(began));
    }
}

/// Decides a batch. A request may have been read ahead of the disk, and whoever asked for it may never learn what is decided: he goes
/// back to before he asked, and may ask for something else then. So none is decided unless what it comes from is written.
async fn decide(environment: &LedgerEnvironment, role: NotaryRole, mut batch: Vec<WaitingRequest>) {
    loop {
        let committed = match commit(environment, &batch).await {
            Err(error @ StoreError::Superseded) => {
                let (void, rest): (Vec<_>, Vec<_>) = batch.into_iter().partition(WaitingRequest::is_void);
                // Without one that is void nothing gets better by doing it again.
                let (told, rest) = if void.is_empty() { (rest, void) } else { (void, rest) };
                tell_all(told, &Problem::from(error), Trouble::Passing);
                if rest.is_empty() {
                    return;
                }
                batch = rest;
                continue;
            }
            committed => committed,
        };
        let verdicts = committed.map_err(Problem::from).and_then(|receipt| verdicts(receipt, batch.len()));
        return match verdicts.and_then(|verdicts| sign(environment, role, &batch, verdicts)) {
            Ok(answers) => {
                for (waiting, answer) in batch.into_iter().zip(answers) {
                    // Whoever has gone asks again and gets the same.
                    let _ = waiting.answer.send(Ok(answer));
                }
            }
            Err(problem) => tell_all(batch, &problem, Trouble::from),
        };
    }
}

/// These are not decided.
fn tell_all(batch: Vec<WaitingRequest>, problem: &Problem, trouble: impl Fn(Problem) -> Trouble) {
    for waiting in batch {
        let _ = waiting.answer.send(Err(trouble(problem.clone())));
    }
}

async fn commit(environment: &LedgerEnvironment, batch: &[WaitingRequest]) -> Result<Receipt, StoreError> {
    let requests = batch.iter().map(|waiting| (waiting.caller.to_string(), waiting.request.clone())).collect();
    let parameters: BTreeMap<SecureHash, &NewParameters> =
        batch.iter().filter_map(|waiting| waiting.parameters.as_ref()).map(|one| (one.hash, one)).collect();
    let keep = parameters.into_values().map(|one| LedgerOp::KeepParameters(Box::new(one.clone())));
    let decide = LedgerOp::Notarise(Box::new(NotaryOp { requests, at: environment.now() }));
    let ops = keep.chain([decide]).map(Into::into).collect();
    let (reply, committed) = oneshot::channel();
    let builds_on = batch.iter().flat_map(|waiting| &waiting.builds_on);
    let builds_on = builds_on.filter(|_| holds(Rule::NotariesDecideWhatIsWritten));
    environment.services.committer.store.submit(CommitUnit {
        author: environment.opened.author(),
        attempt: None,
        depends_on: builds_on.cloned().collect(),
        ops,
        done: Box::new(move |outcome| drop(reply.send(outcome))),
    });
    committed.await.unwrap_or(Err(StoreError::Closed))
}

fn verdicts(receipt: Receipt, requests: usize) -> Result<Vec<Verdict>, Problem> {
    let decided = receipt.ledger.into_iter().find_map(|(_, answer)| match answer {
        LedgerReceipt::Notarised(verdicts) => Some(verdicts),
        _ => None,
    });
    decided
        .filter(|verdicts| verdicts.len() == requests)
        .ok_or_else(|| Problem::new(Code::Internal, "the ledger did not decide the batch"))
}

type Answers = Vec<Result<TransactionSignature, NotaryError>>;

fn sign(
    environment: &LedgerEnvironment,
    role: NotaryRole,
    batch: &[WaitingRequest],
    verdicts: Vec<Verdict>,
) -> Result<Answers, Problem> {
    let committed: Vec<_> = batch
        .iter()
        .zip(&verdicts)
        .filter_map(|(waiting, verdict)| verdict.as_ref().ok().map(|done| (waiting.request.id, done.stamp)))
        .collect();
    let signed = match committed.is_empty() {
        true => Vec::new(),
        false => sign_committed(&committed, role, environment.parameters(), &environment.signer(), PLATFORM_VERSION)
            .map_err(|refused| Problem::new(Code::Internal, refused.to_string()))?,
    };
    let mut signed = signed.into_iter();
    let missing = || NotaryError::General { message: "a transaction was not signed".to_owned() };
    let answer = |verdict: Verdict| match verdict {
        Ok(_) => signed.next().ok_or_else(missing),
        Err(error) => Err(error),
    };
    Ok(verdicts.into_iter().map(answer).collect())
}
