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
use tokio::sync::oneshot;

use super::environment::LedgerEnvironment;
use crate::base::trouble::Trouble;
use crate::ledger::notary_queue::{Added, Decided, Deciding, NotaryQueue, WaitingRequest};

/// What came of a request.
pub(super) enum InBatch {
    /// It is decided.
    Decided(Result<TransactionSignature, NotaryError>),
    /// There is no room for it. It may be asked for again after so long.
    NoRoom(Duration),
}

/// Decides a request together with those that wait. `parameters`: those that it was checked by, unless they are kept.
///
/// # Errors
/// The batch was not committed. It may be asked for again.
pub(super) async fn decide_in_batch(
    queue: &Arc<NotaryQueue>,
    environment: LedgerEnvironment,
    role: NotaryRole,
    caller: &str,
    request: UniquenessRequest,
    parameters: Option<NewParameters>,
) -> Result<InBatch, Trouble> {
    let (answer, decided) = oneshot::channel();
    match queue.add(WaitingRequest { caller: caller.into(), request, parameters, answer }) {
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

async fn decide(environment: &LedgerEnvironment, role: NotaryRole, batch: Vec<WaitingRequest>) {
    let requests = batch.iter().map(|waiting| (waiting.caller.to_string(), waiting.request.clone())).collect();
    let parameters: BTreeMap<SecureHash, &NewParameters> =
        batch.iter().filter_map(|waiting| waiting.parameters.as_ref()).map(|one| (one.hash, one)).collect();
    let keep = parameters.into_values().map(|one| LedgerOp::KeepParameters(Box::new(one.clone())));
    let decide = LedgerOp::Notarise(Box::new(NotaryOp { requests, at: environment.now() }));
    let ops = keep.chain([decide]).map(Into::into).collect();
    let committed = environment.services.committer.store.commit(environment.opened.author(), ops).await;
    let verdicts = committed.map_err(Problem::from).and_then(|receipt| {
        let decided = receipt.ledger.into_iter().find_map(|(_, answer)| match answer {
            LedgerReceipt::Notarised(verdicts) => Some(verdicts),
            _ => None,
        });
        decided
            .filter(|verdicts| verdicts.len() == batch.len())
            .ok_or_else(|| Problem::new(Code::Internal, "the ledger did not decide the batch"))
    });
    let answers = verdicts.and_then(|verdicts| sign(environment, role, &batch, verdicts));
    match answers {
        Ok(answers) => {
            for (waiting, answer) in batch.into_iter().zip(answers) {
                // Whoever has gone asks again and gets the same.
                let _ = waiting.answer.send(Ok(answer));
            }
        }
        Err(problem) => {
            for waiting in batch {
                let _ = waiting.answer.send(Err(Trouble::from(problem.clone())));
            }
        }
    }
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
