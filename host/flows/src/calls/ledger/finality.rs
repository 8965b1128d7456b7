//! Finality in two phases: everybody has the transaction, in flight, before the notary is asked; then everybody learns what
//! it said. A flow that is killed between leaves records that another settles (`settling.rs`); a crash leaves a flow that goes
//! on.

use std::collections::BTreeSet;

use maxhost_ledger::notary::NotaryError;
use maxhost_ledger::tx::{Core as TxCore, TransactionSignature};
use maxhost_ledger::vault::recording::{StatesToRecord, TransactionEvent};
use maxhost_model::{FlowError, SecureHash};
use maxhost_sandbox::{CallError, CallResult};
use maxhost_store::ledger::{OutputState, Part, Settlement};

use super::back_chain::{Expected, SignedBy};
use super::environment::LedgerEnvironment;
use super::findings::Findings;
use super::protocol::{NotaryOutcome, ToVendor};
use super::refusal;
use super::steps::StepResult;
use super::transactions::{By, Fresh, Signed};
use super::vending::expected;
use crate::base::rules::{self, Rule};
use crate::base::trouble::Trouble;
use crate::calls::FlowCalls;

/// With whom a transaction is finalised, and what of it comes into the own vault.
#[derive(Debug, Clone, Copy)]
pub(super) struct Finalising<'a> {
    /// Sessions with those whom it concerns.
    pub participants: &'a [u32],
    /// Sessions with those who look on.
    pub observers: &'a [u32],
    /// The choice of this identity; each of the others has its own.
    pub states: StatesToRecord,
}

impl<'a> Finalising<'a> {
    /// With nobody who looks on, and as most want it.
    pub fn among(participants: &'a [u32]) -> Finalising<'a> {
        Finalising { participants, observers: &[], states: StatesToRecord::default() }
    }
}

/// How a step tells what was chosen. What was never a choice before is not told, so that journals of before go on.
pub(super) fn as_chosen(states: StatesToRecord) -> &'static str {
    match states {
        StatesToRecord::None => " without its states",
        StatesToRecord::OnlyRelevant => "",
        StatesToRecord::AllVisible => " with all its states",
    }
}

impl FlowCalls {
    /// Makes a transaction part of the ledger of everybody whom it concerns. Each of them has a session here.
    pub(crate) async fn finalise(&mut self, bytes: &[u8], sessions: &[u32]) -> CallResult<Signed> {
        let (signed, _) = self.given_ordinary(bytes)?;
        self.finalise_with(signed, Finalising::among(sessions)).await
    }

    /// As [`FlowCalls::finalise`], for a transaction of any kind, with those who only look on, and with a choice of what comes
    /// into the own vault. Observers get what participants get.
    pub(super) async fn finalise_with(&mut self, signed: Signed, with: Finalising<'_>) -> CallResult<Signed> {
        self.check_sessions(&signed, with).await?;
        let Finalising { participants, observers, states } = with;
        let sessions = || participants.iter().chain(observers);
        if signed.is_notarised() {
            self.record_states(&signed, "finalise", TransactionEvent::Finalised, states).await?;
            for session in sessions() {
                self.give(*session, &signed).await?;
            }
            return Ok(signed);
        }
        self.in_flight(&signed, "give to those concerned", Part::Giving, states).await?;
        for session in sessions() {
            // Whoever does not take it ends the flow here; then the notary was not asked, and the record goes.
            match self.give(*session, &signed).await {
                Ok(_) => {}
                Err(CallError::Stop) => return Err(CallError::Stop),
                Err(error) => {
                    self.record(&signed, "take back", TransactionEvent::Refused).await?;
                    return Err(error);
                }
            }
        }
        self.settle_by(signed.id(), Part::Asking, states).await?;
        match self.notarise(&signed).await? {
            NotaryOutcome::Notarised(signatures) => {
                let whole = signed.plus(signatures.clone()).map_err(|refused| refusal::refused(&refused))?;
                self.record_states(&whole, "finalise", TransactionEvent::Finalised, states).await?;
                for session in sessions() {
                    self.tell(*session, &NotaryOutcome::Notarised(signatures.clone())).await?;
                }
                Ok(whole)
            }
            // Trouble of the notary decides nothing: it is asked again for as long as it takes, by another flow.
            NotaryOutcome::Refused(error @ NotaryError::General { .. }) => Err(refusal::notary(&error).into()),
            NotaryOutcome::Refused(error) => {
                self.record(&signed, "take back", TransactionEvent::Refused).await?;
                for session in sessions() {
                    self.tell(*session, &NotaryOutcome::Refused(error.clone())).await?;
                }
                Err(refusal::notary(&error).into())
            }
        }
    }

    /// The other side of [`FlowCalls::finalise`]: gets a transaction, and makes it part of the own ledger.
    pub(crate) async fn receive_finality(&mut self, session: u32, id: Option<SecureHash>) -> CallResult<Signed> {
        self.receive_final(session, id, Expected::Ordinary, StatesToRecord::default()).await
    }

    /// As [`FlowCalls::receive_finality`], for a transaction of this kind, with a choice of what comes into the vault.
    pub(super) async fn receive_final(
        &mut self,
        session: u32,
        id: Option<SecureHash>,
        kind: Expected,
        states: StatesToRecord,
    ) -> CallResult<Signed> {
        let signed = self.get(session, SignedBy::AllButNotary, kind).await?;
        expected(&signed, id.as_ref())?;
        self.judge_received(&signed).await?;
        if signed.is_notarised() {
            self.record_states(&signed, "finalise", TransactionEvent::Finalised, states).await?;
            self.tell(session, &ToVendor::Done).await?;
            return Ok(signed);
        }
        self.in_flight(&signed, "await the notary", Part::Awaiting, states).await?;
        match self.ask_peer(session, &ToVendor::Done).await? {
            NotaryOutcome::Notarised(signatures) => {
                let whole = answered(&self.services.findings, &signed, signatures)?;
                self.record_states(&whole, "finalise", TransactionEvent::Finalised, states).await?;
                Ok(whole)
            }
            // That it was refused is a peer's word, which nobody has signed. It stays in flight, and what the notary has decided
            // is found out as after a crash.
            NotaryOutcome::Refused(error) => Err(refusal::notary(&error).into()),
        }
    }

    /// Something happened to a transaction: what that changes is written with the entry that says so.
    pub(super) async fn record(&mut self, signed: &Signed, what: &str, event: TransactionEvent) -> CallResult<()> {
        self.record_states(signed, what, event, StatesToRecord::default()).await
    }

    /// As [`FlowCalls::record`], with a choice of what comes into the vault.
    pub(super) async fn record_states(
        &mut self,
        signed: &Signed,
        what: &str,
        event: TransactionEvent,
        states: StatesToRecord,
    ) -> CallResult<()> {
        if event == TransactionEvent::Refused && !rules::holds(Rule::RefusedIsTakenBack) {
            return Ok(());
        }
        let flow = (event == TransactionEvent::Finalised).then(|| self.holding());
        self.write(signed, what, event, states, By { flow, settlement: None }).await?;
        self.flow.note_settled(&signed.id());
        Ok(())
    }

    /// A transaction is in flight from now on; this flow settles it while it lives.
    async fn in_flight(&mut self, signed: &Signed, what: &str, part: Part, states: StatesToRecord) -> CallResult<()> {
        if !rules::holds(Rule::InFlightIsNoted) {
            return Ok(());
        }
        let settlement = Some(Settlement { flow: self.flow.row, part, states });
        self.write(signed, what, TransactionEvent::SentToNotary, states, By { flow: None, settlement }).await?;
        self.flow.note_in_flight(signed.id());
        Ok(())
    }

    async fn write(
        &mut self,
        signed: &Signed,
        what: &str,
        event: TransactionEvent,
        states: StatesToRecord,
        by: By,
    ) -> CallResult<()> {
        let (environment, signed) = (self.environment(), signed.clone());
        self.step(&format!("{what}{} {}", as_chosen(states), signed.id()), async move {
            let op = environment.recording(&signed, event, states, by).await?;
            Ok(op.map(|op| ((), vec![op])).map_err(|refused| refusal::refused(&refused)))
        })
        .await
    }

    /// A transaction that came from a peer is verified, but for the signature of its notary.
    pub(super) async fn judge_received(&mut self, signed: &Signed) -> CallResult<()> {
        let (environment, signed) = (self.environment(), signed.clone());
        self.step(&format!("verify {}", signed.id()), async move { judged(&environment, &signed).await }).await
    }

    /// Everybody whom the transaction concerns, and is not this identity, has one of the sessions with participants. No session
    /// is with this identity itself, and none is that of a participant and of an observer.
    async fn check_sessions(&mut self, signed: &Signed, with: Finalising<'_>) -> CallResult<()> {
        let mut peers = BTreeSet::new();
        for session in with.participants {
            peers.insert(self.peer_of(*session)?);
        }
        let mut all = peers.clone();
        for session in with.observers {
            all.insert(self.peer_of(*session)?);
        }
        let participants: BTreeSet<&u32> = with.participants.iter().collect();
        let twice = with.observers.iter().find(|session| participants.contains(session)).copied();
        let (environment, signed) = (self.environment(), signed.clone());
        let checked: Vec<String> = self
            .step(&format!("verify and see whom {} concerns", signed.id()), async move {
                if let Some(session) = twice {
                    let text = format!("the session {session} is that of a participant and that of an observer");
                    return Ok(Err(refusal::argument(text)));
                }
                if all.contains(&environment.us().name.to_string()) {
                    return Ok(Err(refusal::argument("a transaction is finalised without a session with oneself")));
                }
                let concerned = concerned(&environment, &signed).await?;
                Ok(concerned.map(|names| (names.into_iter().collect(), Vec::new())))
            })
            .await?;
        match checked.iter().find(|name| !peers.contains(*name)) {
            None => Ok(()),
            Some(name) => {
                let whose = if with.observers.is_empty() { "sessions" } else { "sessions with participants" };
                let text = format!("the transaction concerns {name}, and none of the {whose} is with that party");
                Err(refusal::argument(text).into())
            }
        }
    }
}

async fn judged(environment: &LedgerEnvironment, signed: &Signed) -> StepResult<()> {
    // Who must sign an ordinary transaction was known when it came, and the signatures were verified then. Who must sign a
    // change of notary is known once its states are.
    let judged = match signed.core() {
        TxCore::Wire(wire) => environment.judge_contents(wire, &Fresh::new()).await?.map(|_| ()),
        TxCore::NotaryChange(_) => environment.judge(signed, &Fresh::new()).await?,
    };
    Ok(judged.map(|()| ((), Vec::new())).map_err(|refused| refusal::refused(&refused)))
}

/// The names of those whom a transaction concerns, this identity apart, as far as the states that it consumes and makes, or
/// their keys, tell. The transaction is verified first.
async fn concerned(
    environment: &LedgerEnvironment,
    signed: &Signed,
) -> Result<Result<BTreeSet<String>, FlowError>, Trouble> {
    if let Err(refused) = environment.judge(signed, &Fresh::new()).await? {
        return Ok(Err(refusal::refused(&refused)));
    }
    let outputs = match environment.describe(signed.core()).await? {
        Ok(outputs) => outputs,
        Err(refused) => return Ok(Err(refusal::refused(&refused))),
    };
    let mut names = names_of(environment, &outputs).await?;
    // Whoever takes part in what is consumed would have it as unconsumed for ever. A change of notary makes what it consumes.
    if let TxCore::Wire(wire) = signed.core() {
        match environment.describe_inputs(wire).await? {
            Ok(inputs) => names.extend(names_of(environment, &inputs).await?),
            Err(refused) => return Ok(Err(refusal::refused(&refused))),
        }
    }
    Ok(Ok(names))
}

/// The names of those who take part in states, this identity apart, as far as the states or their keys tell.
pub(super) async fn names_of(
    environment: &LedgerEnvironment,
    states: &[OutputState],
) -> Result<BTreeSet<String>, Trouble> {
    let own = environment.us().name.to_string();
    // Of keys without a name those are concerned whose keys they are known to be.
    let known = environment.known_keys(&environment.unnamed(states)).await?;
    let mut names: BTreeSet<String> =
        known.into_values().map(|known| known.party).filter(|name| *name != own).collect();
    for state in states {
        // Participants are names and fingerprints of keys; only names can be met.
        let named = state.content.participants.iter().filter(|one| one.contains('='));
        names.extend(named.filter(|name| **name != own).cloned());
    }
    Ok(names)
}

/// A transaction with its notary's answer that came through a peer. All that came is checked as one's own answer is: what is
/// recorded is given to others, and they refuse a transaction for any signature that does not verify.
fn answered(findings: &Findings, signed: &Signed, answer: Vec<TransactionSignature>) -> Result<Signed, FlowError> {
    let Some(key) = signed.notary_key() else {
        return Err(refusal::protocol("a notary's answer came for a transaction that needs no notary"));
    };
    findings
        .check_notarised(&signed.id(), &key, signed.core().time_window(), &answer)
        .and_then(|()| signed.plus(answer))
        .map_err(|refused| refusal::refused(&refused))
}
