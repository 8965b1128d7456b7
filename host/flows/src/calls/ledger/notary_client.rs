//! Asking a notary.

use maxhost_journal::{Answer, Call};
use maxhost_ledger::notary::{NotaryError, NotaryPayload, NotaryRequest};
use maxhost_ledger::refused::Refused;
use maxhost_ledger::tx::{FilteredTransaction, Shown};
use maxhost_ledger::{Result as LedgerResult, Rule};
use maxhost_model::Party;
use maxhost_sandbox::CallResult;

use super::environment::LedgerEnvironment;
use super::pieces::Asked;
use super::protocol::{Encoded, FromVendor, NotaryAnswer, NotaryOutcome, ToVendor};
use super::refusal;
use super::transactions::Signed;
use super::vending::Vended;
use crate::base::trouble::Trouble;
use crate::calls::{FlowCalls, Stop};
use crate::guests::flow_code::NOTARISE;

/// The version of the protocol.
const VERSION: u32 = 1;
/// How often a notary with trouble of its own is asked again.
const ATTEMPTS: u32 = 5;
/// How long is waited before that, milliseconds, unless the notary has said how long it will take.
const PAUSE_MS: u64 = 500;
/// It is asked again after so long in any case, milliseconds.
const LONGEST_PAUSE_MS: u64 = 300_000;

impl FlowCalls {
    /// Asks the transaction's notary. What it answers is checked.
    pub(super) async fn notarise(&mut self, signed: &Signed) -> CallResult<NotaryOutcome> {
        let environment = self.environment();
        let window = signed.core().time_window();
        let Some(notary) = signed.core().notary().cloned() else {
            return Err(refusal::argument("the transaction has no notary").into());
        };
        let gets_chain = match gets_chain(&environment, signed, &notary).await {
            Ok(told) => told.map_err(|refused| refusal::refused(&refused))?,
            Err(trouble) => return self.stop(Stop::Trouble(trouble)),
        };
        let request = request(signed, gets_chain)
            .and_then(|payload| NotaryRequest::sign(payload, &environment.signer())?.encode())
            .map_err(|refused| refusal::refused(&refused))?;
        for attempt in 1.. {
            let (answer, wait) = self.ask_notary(&notary.name.to_string(), signed, gets_chain, &request).await?;
            match answer {
                NotaryAnswer::Signed(signatures) => {
                    let checked =
                        self.services.findings.check_notarised(&signed.id(), &notary.owning_key, window, &signatures);
                    checked.map_err(|refused| refusal::refused(&refused))?;
                    return Ok(NotaryOutcome::Notarised(signatures));
                }
                NotaryAnswer::Refused(NotaryError::General { .. }) if attempt < ATTEMPTS => {
                    self.ask(Call::Sleep(wait.clamp(PAUSE_MS, LONGEST_PAUSE_MS))).await?;
                }
                NotaryAnswer::Refused(error) => return Ok(NotaryOutcome::Refused(error)),
                NotaryAnswer::Wait(_) | NotaryAnswer::FetchParameters(_) => {
                    return Err(refusal::protocol("the notary gave no answer").into());
                }
            }
        }
        Err(refusal::protocol("the notary was asked too often").into())
    }

    /// Asks a notary once. What it says, and how long it said last that this would take, milliseconds. However long that is, it is
    /// waited for: the request is in its database, and whoever waits leaves memory.
    async fn ask_notary(
        &mut self,
        name: &str,
        signed: &Signed,
        gets_chain: bool,
        request: &[u8],
    ) -> CallResult<(NotaryAnswer, u64)> {
        let call = Call::OpenSession { protocol: NOTARISE.to_owned(), version: VERSION, party: name.to_owned() };
        let session = match self.ask_local(call).await? {
            Answer::Session(session) => session,
            other => return self.misanswered(&other),
        };
        self.tell(session, &Encoded(request.to_vec())).await?;
        if gets_chain {
            // It verifies what the transaction comes from, and asks for it.
            match self.give(session, signed).await? {
                ToVendor::Done => {}
                _ => return Err(refusal::protocol("the notary does not keep to its protocol").into()),
            }
        }
        let mut wait = 0;
        loop {
            match self.hear(session).await? {
                NotaryAnswer::Wait(milliseconds) => {
                    wait = milliseconds;
                    if !self.machine.is_replaying() {
                        tracing::info!(flow_id = %self.flow.id(), notary = name, milliseconds, "the notary is busy");
                    }
                }
                NotaryAnswer::FetchParameters(wanted) => {
                    let piece = self.vend_piece(&Vended::default(), signed, Asked::Parameters, &wanted).await?;
                    self.tell(session, &FromVendor::Piece(piece)).await?;
                }
                answer => return Ok((answer, wait)),
            }
        }
    }
}

/// Whether a notary gets a transaction whole, with all that it comes from. The parameters that the transaction names decide: it
/// may be off the list by those in force, and has to be asked all the same for what it may have committed already. It is no
/// step, because it is the same whenever a flow is run again: parameters are named by their hash.
async fn gets_chain(
    environment: &LedgerEnvironment,
    signed: &Signed,
    notary: &Party,
) -> Result<LedgerResult<bool>, Trouble> {
    // What it gets of a change is the same whatever it does with it, and it may be off the list.
    if signed.change().is_ok() {
        return Ok(Ok(true));
    }
    Ok(environment.parameters_of(signed.core().parameters()).await?.and_then(|named| {
        named.validates(notary).ok_or_else(|| {
            let message = format!("{notary} is no notary of the network by the parameters that the transaction names");
            Refused::new(Rule::NotaryUntrusted, message).of(signed.id())
        })
    }))
}

/// As much of a transaction as its notary is to see: all of it, if it gets the chain too.
fn request(signed: &Signed, whole: bool) -> Result<NotaryPayload, Refused> {
    if whole {
        return Ok(NotaryPayload::Full(Box::new(signed.whole.clone())));
    }
    let shown = |shown: Shown<'_>| !matches!(shown, Shown::Output(_) | Shown::Command(..) | Shown::Attachment(_));
    Ok(NotaryPayload::Filtered(Box::new(FilteredTransaction::new(signed.ordinary()?, shown)?)))
}
