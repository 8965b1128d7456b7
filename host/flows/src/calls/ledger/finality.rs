//! Finality in two phases: everybody has the transaction, in flight, before the notary is asked; then everybody learns what
//! it said. A flow that is killed between leaves records that another settles (`settling.rs`); a crash leaves a flow that goes
//! on.

use std::collections::BTreeSet;

use maxhost_ledger::notary::{NotaryError, check_notarised};
use maxhost_ledger::tx::{Core as TxCore, TransactionSignature};
use maxhost_ledger::vault::recording::{StatesToRecord, TransactionEvent};
use maxhost_model::{FlowError, SecureHash};
use maxhost_sandbox::{CallError, CallResult};
use maxhost_store::ledger::{OutputState, Part, Settlement};

use super::back_chain::{Expected, SignedBy};
use super::environment::LedgerEnvironment;
use super::protocol::{NotaryOutcome, ToVendor};
use super::refusal;
use super::steps::StepResult;
use super::transactions::{By, Fresh, Signed};
use super::vending::expected;
use crate::calls::FlowCalls;
use crate::rules::{self, Rule};
use crate::trouble::Trouble;

impl FlowCalls {
    /// Makes a transaction part of the ledger of everybody whom it concerns. Each of them has a session here.
    pub(crate) async fn finalise(&mut self, bytes: &[u8], sessions: &[u32]) -> CallResult<Signed> {
        let (signed, _) = self.given_ordinary(bytes)?;
        self.finalise_with(signed, sessions).await
    }

    /// As [`FlowCalls::finalise`], for a transaction of any kind.
    pub(super) async fn finalise_with(&mut self, signed: Signed, sessions: &[u32]) -> CallResult<Signed> {
        self.check_sessions(&signed, sessions).await?;
        if signed.is_notarised() {
            self.record(&signed, "finalise", TransactionEvent::Finalised).await?;
            for session in sessions {
                self.give(*session, &signed).await?;
            }
            return Ok(signed);
        }
        self.in_flight(&signed, "give to those concerned", Part::Giving).await?;
        for session in sessions {
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
        self.settle_by(signed.id(), Part::Asking).await?;
        match self.notarise(&signed).await? {
            NotaryOutcome::Notarised(signatures) => {
                let whole = signed.plus(signatures.clone()).map_err(|refused| refusal::refused(&refused))?;
                self.record(&whole, "finalise", TransactionEvent::Finalised).await?;
                for session in sessions {
                    self.tell(*session, &NotaryOutcome::Notarised(signatures.clone())).await?;
                }
                Ok(whole)
            }
            // Trouble of the notary decides nothing: it is asked again for as long as it takes, by another flow.
            NotaryOutcome::Refused(error @ NotaryError::General { .. }) => Err(refusal::notary(&error).into()),
            NotaryOutcome::Refused(error) => {
                self.record(&signed, "take back", TransactionEvent::Refused).await?;
                for session in sessions {
                    self.tell(*session, &NotaryOutcome::Refused(error.clone())).await?;
                }
                Err(refusal::notary(&error).into())
            }
        }
    }

    /// The other side of [`FlowCalls::finalise`]: gets a transaction, and makes it part of the own ledger.
    pub(crate) async fn receive_finality(&mut self, session: u32, id: Option<SecureHash>) -> CallResult<Signed> {
        self.receive_final(session, id, Expected::Ordinary).await
    }

    /// As [`FlowCalls::receive_finality`], for a transaction of this kind.
    pub(super) async fn receive_final(
        &mut self,
        session: u32,
        id: Option<SecureHash>,
        kind: Expected,
    ) -> CallResult<Signed> {
        let signed = self.get(session, SignedBy::AllButNotary, kind).await?;
        expected(&signed, id.as_ref())?;
        self.judge_received(&signed).await?;
        if signed.is_notarised() {
            self.record(&signed, "finalise", TransactionEvent::Finalised).await?;
            self.tell(session, &ToVendor::Done).await?;
            return Ok(signed);
        }
        self.in_flight(&signed, "await the notary", Part::Awaiting).await?;
        match self.ask_peer(session, &ToVendor::Done).await? {
            NotaryOutcome::Notarised(signatures) => {
                let whole = answered(&signed, signatures)?;
                self.record(&whole, "finalise", TransactionEvent::Finalised).await?;
                Ok(whole)
            }
            // That it was refused is a peer's word, which nobody has signed. It stays in flight, and what the notary has decided
            // is found out as after a crash.
            NotaryOutcome::Refused(error) => Err(refusal::notary(&error).into()),
        }
    }

    /// Something happened to a transaction: what that changes is written with the entry that says so.
    pub(super) async fn record(&mut self, signed: &Signed, what: &str, event: TransactionEvent) -> CallResult<()> {
        if event == TransactionEvent::Refused && !rules::holds(Rule::RefusedIsTakenBack) {
            return Ok(());
        }
        let flow = (event == TransactionEvent::Finalised).then(|| self.holding());
        self.write(signed, what, event, By { flow, settlement: None }).await?;
        self.flow.note_settled(&signed.id());
        Ok(())
    }

    /// A transaction is in flight from now on; this flow settles it while it lives.
    async fn in_flight(&mut self, signed: &Signed, what: &str, part: Part) -> CallResult<()> {
        if !rules::holds(Rule::InFlightIsNoted) {
            return Ok(());
        }
        let settlement = Some(Settlement { flow: self.flow.row, part });
        self.write(signed, what, TransactionEvent::SentToNotary, By { flow: None, settlement }).await?;
        self.flow.note_in_flight(signed.id());
        Ok(())
    }

    async fn write(&mut self, signed: &Signed, what: &str, event: TransactionEvent, by: By) -> CallResult<()> {
        let (environment, signed) = (self.environment(), signed.clone());
        self.step(&format!("{what} {}", signed.id()), async move {
            let op = environment.recording(&signed, event, StatesToRecord::OnlyRelevant, by).await?;
            Ok(op.map(|op| ((), vec![op])).map_err(|refused| refusal::refused(&refused)))
        })
        .await
    }

    /// A transaction that came from a peer is verified, but for the signature of its notary.
    pub(super) async fn judge_received(&mut self, signed: &Signed) -> CallResult<()> {
        let (environment, signed) = (self.environment(), signed.clone());
        self.step(&format!("verify {}", signed.id()), async move { judged(&environment, &signed).await }).await
    }

    /// Everybody whom the transaction concerns, and is not this identity, has one of the sessions.
    async fn check_sessions(&mut self, signed: &Signed, sessions: &[u32]) -> CallResult<()> {
        let mut peers = BTreeSet::new();
        for session in sessions {
            peers.insert(self.peer_of(*session)?);
        }
        let (environment, signed) = (self.environment(), signed.clone());
        let checked: Vec<String> = self
            .step(&format!("verify and see whom {} concerns", signed.id()), async move {
                let concerned = concerned(&environment, &signed).await?;
                Ok(concerned.map(|names| (names.into_iter().collect(), Vec::new())))
            })
            .await?;
        match checked.iter().find(|name| !peers.contains(*name)) {
            None => Ok(()),
            Some(name) => {
                let text = format!("the transaction concerns {name}, and none of the sessions is with that party");
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
    let mut states = match environment.describe(signed.core()).await? {
        Ok(outputs) => outputs.to_vec(),
        Err(refused) => return Ok(Err(refusal::refused(&refused))),
    };
    // Whoever takes part in what is consumed would have it as unconsumed for ever. A change of notary makes what it consumes.
    if let TxCore::Wire(wire) = signed.core() {
        match environment.describe_inputs(wire).await? {
            Ok(inputs) => states.extend(inputs),
            Err(refused) => return Ok(Err(refusal::refused(&refused))),
        }
    }
    Ok(Ok(names_of(environment, &states).await?))
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
fn answered(signed: &Signed, answer: Vec<TransactionSignature>) -> Result<Signed, FlowError> {
    let Some(key) = signed.notary_key() else {
        return Err(refusal::protocol("a notary's answer came for a transaction that needs no notary"));
    };
    check_notarised(&signed.id(), &key, signed.core().time_window(), &answer)
        .and_then(|()| signed.plus(answer))
        .map_err(|refused| refusal::refused(&refused))
}
