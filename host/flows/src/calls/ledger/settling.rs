//! Settling what a flow has left in flight: it was killed, or failed, between giving a transaction to those whom it concerns and
//! learning what the notary said. A flow of the platform does it for each such transaction, begun when the flow ends or, at
//! the latest, when the identity wakes next.
//!
//! Only whoever made the transaction has the notary decide ([`Part::Asking`]); those who got it ask what was decided
//! ([`Part::Awaiting`]), or one could finalise what another has taken back. They ask too when they were told that the notary
//! has refused it: nobody has signed that. Their transaction is taken back once one of its states is consumed by another at
//! the notary, or its time-window is over there and nothing was decided.

use bytes::Bytes;
use maxhost_journal::{Answer, Call};
use maxhost_ledger::notary::{MAX_STATES, NotaryError, Outcome, sign_committed};
use maxhost_ledger::tx::{NotaryRole, TransactionSignature};
use maxhost_ledger::vault::recording::{StatesToRecord, TransactionEvent, TransactionStatus};
use maxhost_model::network::PLATFORM_VERSION;
use maxhost_model::{Code, ErrorKind, FlowError, Problem, SecureHash, from_cbor, to_cbor};
use maxhost_sandbox::{CallError, CallResult};
use maxhost_store::ledger::codec::chosen;
use maxhost_store::ledger::{DecidedSoFar, LedgerOp, LedgerReceipt, Part, Settlement, Unsettled};
use serde::{Deserialize, Serialize};

use super::notary::{NOTHING, SESSION};
use super::protocol::{Decided, Encoded, NotaryOutcome, WhatIsDecided};
use super::refusal;
use super::transactions::Signed;
use crate::base::trouble::Trouble;
use crate::calls::FlowCalls;
use crate::guests::flow_code::DECIDED;

/// The version of the protocol.
const VERSION: u32 = 1;
/// The first pause before a notary is asked again, and the longest, milliseconds.
const FIRST_PAUSE_MS: u64 = 500;
const LONGEST_PAUSE_MS: u64 = 300_000;

/// The argument of the flow.
#[derive(Serialize, Deserialize)]
struct ToSettle {
    id: SecureHash,
    part: i64,
    /// Which states come into the vault. A release that knew no choice did not say: one's own.
    #[serde(default)]
    states: Option<i64>,
}

/// The argument of the flow that settles a transaction.
///
/// # Errors
/// It has no encoding, which is a defect.
pub(crate) fn to_settle(left: Unsettled) -> Result<Bytes, Problem> {
    let Unsettled { id, part, states } = left;
    let argument = to_cbor(&ToSettle { id, part: part.number(), states: Some(states.number()) });
    argument.map(Bytes::from).map_err(|error| Problem::new(Code::Internal, error.to_string()))
}

impl FlowCalls {
    /// From now on this flow settles a transaction in flight so.
    pub(super) async fn settle_by(&mut self, id: SecureHash, part: Part, states: StatesToRecord) -> CallResult<()> {
        let settlement = Settlement { flow: self.flow.row, part, states };
        self.step(&format!("ask the notary for {id}"), async move {
            Ok(Ok(((), vec![LedgerOp::Settle { id, settlement }])))
        })
        .await
    }

    /// Settles one transaction.
    pub(super) async fn settle(&mut self, argument: &[u8]) -> CallResult<Bytes> {
        let unreadable = |text: String| FlowError::new(ErrorKind::IllegalArgument, text);
        let ToSettle { id, part, states } = from_cbor(argument).map_err(|error| unreadable(error.to_string()))?;
        let states = chosen(states).ok_or_else(|| unreadable("it is no choice of states".to_owned()))?;
        let part = Part::of(part).ok_or_else(|| unreadable(format!("{part} is no way to settle a transaction")))?;
        let environment = self.environment();
        let found: Option<Encoded> = self
            .step(&format!("find {id}, which is in flight"), async move {
                let Some((TransactionStatus::InFlight, signed)) = environment.stored(&id).await? else {
                    return Ok(Ok((None, Vec::new())));
                };
                let bytes = signed.encode().map_err(|refused| refusal::refused(&refused));
                Ok(bytes.map(|bytes| (Some(Encoded(bytes)), Vec::new())))
            })
            .await?;
        let Some(found) = found else { return Ok(Bytes::from_static(NOTHING)) };
        let signed = self.given(&found.0)?;
        match self.outcome_of(&signed, part).await? {
            Some(signatures) => {
                let whole = signed.plus(signatures).map_err(|refused| refusal::refused(&refused))?;
                self.record_states(&whole, "finalise", TransactionEvent::Finalised, states).await?;
            }
            None => self.record(&signed, "take back", TransactionEvent::Refused).await?,
        }
        Ok(Bytes::from_static(NOTHING))
    }

    /// What the notary says in the end: its signatures, or that it has refused the transaction or will.
    async fn outcome_of(&mut self, signed: &Signed, part: Part) -> CallResult<Option<Vec<TransactionSignature>>> {
        let mut pause = FIRST_PAUSE_MS;
        loop {
            let asked = match part {
                Part::Giving => return Ok(None),
                Part::Asking => self.decision_on(signed).await,
                Part::Awaiting => self.decision_so_far(signed).await,
            };
            match asked {
                Ok(Some(outcome)) => return Ok(outcome),
                Ok(None) => {}
                Err(CallError::Failure(error)) => {
                    tracing::warn!(flow_id = %self.flow.id(), transaction = %signed.id(), %error, "the notary gave no answer");
                }
                Err(stop) => return Err(stop),
            }
            self.ask(Call::Sleep(pause)).await?;
            pause = (pause * 2).min(LONGEST_PAUSE_MS);
        }
    }

    /// Has the notary decide. `None`: it has trouble of its own.
    async fn decision_on(&mut self, signed: &Signed) -> CallResult<Option<Option<Vec<TransactionSignature>>>> {
        Ok(match self.notarise(signed).await? {
            NotaryOutcome::Notarised(signatures) => Some(Some(signatures)),
            NotaryOutcome::Refused(NotaryError::General { .. }) => None,
            NotaryOutcome::Refused(_) => Some(None),
        })
    }

    /// Asks the notary what it has decided. `None`: nothing yet.
    async fn decision_so_far(&mut self, signed: &Signed) -> CallResult<Option<Option<Vec<TransactionSignature>>>> {
        let window = signed.core().time_window();
        let Some(notary) = signed.core().notary().cloned() else {
            return Err(refusal::argument("the transaction has no notary").into());
        };
        let party = notary.name.to_string();
        let call = Call::OpenSession { protocol: DECIDED.to_owned(), version: VERSION, party };
        let session = match self.ask_local(call).await? {
            Answer::Session(session) => session,
            other => return self.misanswered(&other),
        };
        let core = signed.core();
        let states = core.inputs().iter().chain(core.references()).copied().collect();
        Ok(match self.ask_peer(session, &WhatIsDecided { id: signed.id(), states }).await? {
            Decided::Signed(signatures) => {
                let checked =
                    self.services.findings.check_notarised(&signed.id(), &notary.owning_key, window, &signatures);
                checked.map_err(|refused| refusal::refused(&refused))?;
                Some(Some(signatures))
            }
            Decided::TooLate | Decided::Conflict => Some(None),
            Decided::Nothing(clock) => {
                let until = window.and_then(|window| window.until());
                until.is_some_and(|until| until <= clock).then_some(None)
            }
        })
    }

    /// The notary's side: says what was decided about a transaction. Whoever knows its id may ask.
    pub(super) async fn say_what_is_decided(&mut self) -> CallResult<Bytes> {
        let WhatIsDecided { id, states } = self.asked_what_is_decided().await?;
        if states.len() >= MAX_STATES {
            let text = format!("{} states are named, and a transaction has fewer than {MAX_STATES}", states.len());
            return Err(refusal::protocol(text).into());
        }
        let environment = self.environment();
        let states = states.into_iter().collect();
        let answer = self.commit_now(LedgerOp::Outcome { id, states, at: environment.now() });
        let decided: Decided = self
            .step(&format!("look what is decided about {id}"), async move {
                let LedgerReceipt::Outcome(so_far) = answer.await? else {
                    return Err(Trouble::defect("the ledger did not answer what is decided"));
                };
                let stamp = match so_far {
                    DecidedSoFar::Outcome(Outcome::Committed(stamp)) => stamp,
                    DecidedSoFar::Outcome(Outcome::TooLate(_)) => return Ok(Ok((Decided::TooLate, Vec::new()))),
                    DecidedSoFar::Conflict => return Ok(Ok((Decided::Conflict, Vec::new()))),
                    DecidedSoFar::Nothing(clock) => return Ok(Ok((Decided::Nothing(clock), Vec::new()))),
                };
                let validating = environment.opened.notary.as_ref().is_some_and(|notary| notary.validating);
                let role = if validating { NotaryRole::Validated } else { NotaryRole::Uniqueness };
                let (parameters, signer) = (environment.parameters(), environment.signer());
                let signed = sign_committed(&[(id, stamp)], role, parameters, &signer, PLATFORM_VERSION);
                Ok(signed
                    .map(|signatures| (Decided::Signed(signatures), Vec::new()))
                    .map_err(|refused| refusal::refused(&refused)))
            })
            .await?;
        self.tell(SESSION, &decided).await?;
        Ok(Bytes::from_static(NOTHING))
    }

    /// The question, of this release or of an earlier one.
    async fn asked_what_is_decided(&mut self) -> CallResult<WhatIsDecided> {
        let question = match self.ask(Call::Receive { session: SESSION, or_end: false }).await? {
            Answer::Message(question) => question,
            other => return self.misanswered(&other),
        };
        if let Ok(id) = from_cbor::<SecureHash>(&question) {
            return Ok(WhatIsDecided { id, states: Vec::new() });
        }
        from_cbor(&question).map_err(|error| {
            refusal::protocol(format!("what came does not ask what is decided about a transaction: {error}")).into()
        })
    }
}
