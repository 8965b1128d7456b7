//! Changing the notary of states (`docs/behaviour.md` 10.17): whoever wants it proposes the change, every participant signs,
//! and the change becomes part of the ledger of all of them as any other transaction does.
//!
//! A participant answers with a flow of the platform, unless one of its CorDapps has a responder of its own for the protocol:
//! then that decides.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use maxhost_journal::{Answer, Call};
use maxhost_ledger::notary::MAX_STATES;
use maxhost_ledger::refused::Refused;
use maxhost_ledger::time::Timestamp;
use maxhost_ledger::tx::signature::sign;
use maxhost_ledger::tx::{
    Core as TxCore, Header, NotaryChange, NotaryChangeContents, SignedTransaction, StateAndRef, StateRef,
    TransactionSignature,
};
use maxhost_ledger::vault::recording::StatesToRecord;
use maxhost_ledger::{Result as LedgerResult, Rule};
use maxhost_model::network::PLATFORM_VERSION;
use maxhost_model::{ErrorKind, FlowError, Party, X500Name};
use maxhost_sandbox::{CallError, CallResult, GuestNotaryChange, GuestState};

use super::back_chain::{Expected, SignedBy};
use super::build::UNTIL;
use super::environment::LedgerEnvironment;
use super::finality::{Finalising, names_of};
use super::moved::JudgedChange;
use super::notary::{NOTHING, SESSION};
use super::protocol::{Encoded, ToVendor};
use super::refusal;
use super::states::{Noted, circle, unknown};
use super::steps::StepResult;
use super::transactions::{Fresh, Signed, failed};
use crate::base::trouble::Trouble;
use crate::calls::FlowCalls;
use crate::guests::flow_code::CHANGE_NOTARY;

/// The version of the protocol.
const VERSION: u32 = 1;

/// Who looks on at a change of notary, and what of it comes into the own vault.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct LookingOn<'a> {
    /// Sessions with observers. They get the change once every participant has signed.
    pub observers: &'a [u32],
    /// The choice of this identity; each of the others has its own.
    pub states: StatesToRecord,
}

impl FlowCalls {
    /// Has another notary keep a state, with all that it can only be spent together with. Gives the state as it is then.
    pub(super) async fn change_notary(
        &mut self,
        reference: String,
        to: String,
        looking_on: LookingOn<'_>,
    ) -> CallResult<GuestState> {
        self.check_observers(looking_on.observers)?;
        let first: StateRef = reference.parse().map_err(|refused| refusal::refused(&refused))?;
        let until = Timestamp::from_nanos(self.machine.now()).plus(UNTIL);
        let environment = self.environment();
        let proposed: (Encoded, Vec<String>) = self
            .step(&format!("build a change of notary of {first}"), async move {
                Ok(environment.proposed(first, &to, until).await?.map(|proposed| (proposed, Vec::new())))
            })
            .await?;
        let (bytes, parties) = proposed;
        let mut signed = self.given(&bytes.0)?;
        // Nobody has seen it yet: a state that another flow holds stays where it is.
        self.lock(signed.core().inputs().iter().map(ToString::to_string).collect()).await?;
        let mut sessions = Vec::with_capacity(parties.len());
        for party in parties {
            let call = Call::OpenSession { protocol: CHANGE_NOTARY.to_owned(), version: VERSION, party };
            match self.ask_local(call).await? {
                Answer::Session(session) => sessions.push(session),
                other => return self.misanswered(&other),
            }
        }
        for session in &sessions {
            signed = self.signed_by(*session, signed).await?;
        }
        // That nobody's signature is missing is seen here, with the rest of what it says.
        let LookingOn { observers, states } = looking_on;
        let whole = self.finalise_with(signed, Finalising { participants: &sessions, observers, states }).await?;
        let moved = self.moved_states(&whole).await?;
        let at = whole.core().inputs().iter().position(|input| *input == first);
        match at.and_then(|at| moved.into_iter().nth(at)) {
            Some(state) => Ok(state),
            None => Err(unknown(&first).into()),
        }
    }

    /// Sessions of observers are those of others, and each is given once. It is seen before anybody is asked to sign.
    fn check_observers(&self, observers: &[u32]) -> CallResult<()> {
        let us = self.environment().us().name.to_string();
        let mut seen = BTreeSet::new();
        for session in observers {
            if self.peer_of(*session)? == us {
                return Err(refusal::argument("a change of notary is observed without a session with oneself").into());
            }
            if !seen.insert(session) {
                return Err(refusal::argument(format!("the session {session} of an observer is given twice")).into());
            }
        }
        Ok(())
    }

    /// Asks a participant to sign. A refusal is told as one, with who refuses.
    async fn signed_by(&mut self, session: u32, signed: Signed) -> CallResult<Signed> {
        let answer = match self.give(session, &signed).await {
            Err(CallError::Failure(error)) if error.peer.is_some() && error.kind == ErrorKind::FlowException => {
                let peer = self.peer_of(session)?;
                let message = format!("{peer} does not sign the change of notary: {}", error.message);
                let refused = Refused::new(Rule::NotaryChangeRefused, message).of(signed.id()).detail("party", peer);
                return Err(refusal::refused(&refused).into());
            }
            answer => answer?,
        };
        let ToVendor::Signed(signatures) = answer else {
            return Err(refusal::protocol("a signature was expected").into());
        };
        let signed = signed.plus(signatures).map_err(|refused| refusal::refused(&refused))?;
        signed.whole.check_signatures().map_err(|refused| refusal::refused(&refused))?;
        Ok(signed)
    }

    /// The other side of [`FlowCalls::change_notary`], for a guest that decides: gets a change that this identity should sign,
    /// judged with all that it comes from.
    pub(crate) async fn receive_notary_change(&mut self, session: u32) -> CallResult<GuestNotaryChange> {
        let signed = self.proposed_change(session).await?;
        self.shown_change(&signed).await
    }

    /// A change as guests see it, with its states as they are before.
    pub(super) async fn shown_change(&mut self, signed: &Signed) -> CallResult<GuestNotaryChange> {
        let (environment, given) = (self.environment(), signed.clone());
        let states: Vec<Noted> = self
            .step(&format!("show {}", signed.id()), async move {
                let judged = environment.judged_change(&given).await?;
                let noted = |judged: JudgedChange| {
                    let inputs = judged.inputs.iter();
                    inputs.map(|input| Noted::new(&input.reference, &input.state)).collect()
                };
                Ok(judged.map(|judged| (noted(judged), Vec::new())).map_err(|refused| refusal::refused(&refused)))
            })
            .await?;
        let change = signed.change().map_err(|refused| refusal::refused(&refused))?.contents();
        Ok(GuestNotaryChange {
            id: signed.id().to_string(),
            notary: change.notary.name.to_string(),
            new_notary: change.new_notary.name.to_string(),
            states: states.into_iter().map(Noted::guest).collect(),
            bytes: signed.encode().map_err(|refused| refusal::refused(&refused))?,
        })
    }

    /// Signs a change that was got with [`FlowCalls::receive_notary_change`], and takes part in it until it is part of the
    /// ledger. Gives the states as they are then.
    pub(crate) async fn accept_notary_change(&mut self, session: u32, bytes: &[u8]) -> CallResult<Vec<GuestState>> {
        let signed = self.given(bytes)?;
        let whole = self.take_part(session, &signed).await?;
        self.moved_states(&whole).await
    }

    /// The platform's own answer: whoever takes part in the states signs a change to any notary of the network.
    pub(super) async fn take_part_in_notary_change(&mut self) -> CallResult<Bytes> {
        let signed = self.proposed_change(SESSION).await?;
        self.take_part(SESSION, &signed).await?;
        Ok(Bytes::from_static(NOTHING))
    }

    async fn proposed_change(&mut self, session: u32) -> CallResult<Signed> {
        let signed = self.get(session, SignedBy::SoFar, Expected::NotaryChange).await?;
        let (environment, given) = (self.environment(), signed.clone());
        self.step(
            &format!("judge the change of notary {}", signed.id()),
            async move { environment.may_sign(&given).await },
        )
        .await?;
        Ok(signed)
    }

    async fn take_part(&mut self, session: u32, signed: &Signed) -> CallResult<Signed> {
        let (environment, given) = (self.environment(), signed.clone());
        let signatures: Vec<TransactionSignature> = self
            .step(&format!("sign the change of notary {}", signed.id()), async move {
                environment.sign_change(&given).await
            })
            .await?;
        self.tell(session, &ToVendor::Signed(signatures)).await?;
        self.receive_final(session, Some(signed.id()), Expected::NotaryChange, StatesToRecord::default()).await
    }

    /// The states that a change has made, which is part of the ledger.
    async fn moved_states(&mut self, whole: &Signed) -> CallResult<Vec<GuestState>> {
        let change = whole.change().map_err(|refused| refusal::refused(&refused))?.clone();
        let environment = self.environment();
        let moved: Vec<Noted> = self
            .step(&format!("show what {} has made", whole.id()), async move {
                let made = environment.made_by_change(&change, &Fresh::new()).await?;
                let noted = made.map(|(_, made)| {
                    let numbered = (0_u32..).zip(made.iter());
                    numbered.map(|(at, one)| Noted::new(&StateRef::new(change.id(), at), &one.state)).collect()
                });
                Ok(noted.map(|noted| (noted, Vec::new())).map_err(|refused| refusal::refused(&refused)))
            })
            .await?;
        Ok(moved.into_iter().map(Noted::guest).collect())
    }
}

type Built<T> = Result<Result<T, FlowError>, Trouble>;

fn refuse<T>(refused: &Refused) -> Built<T> {
    Ok(Err(refusal::refused(refused)))
}

impl LedgerEnvironment {
    /// The states that move together with one, and the notary that is to keep them. Each must be there to be spent.
    async fn moving(&self, first: StateRef, to: &str) -> Built<(Vec<StateAndRef>, Party)> {
        let name = match X500Name::parse(to) {
            Ok(name) => name,
            Err(error) => return Ok(Err(refusal::argument(error.to_string()))),
        };
        let Some(to) = self.notaries().into_iter().find(|notary| notary.name == name) else {
            let message = format!("{name} is no notary of the network");
            return refuse(&Refused::new(Rule::NotaryUntrusted, message).detail("notary", name));
        };
        let states = match circle(self, first).await? {
            Ok(states) => states,
            Err(error) => return Ok(Err(error)),
        };
        if states.len() >= MAX_STATES {
            let message = format!("{} states move together, fewer than {MAX_STATES} can", states.len());
            return refuse(&Refused::new(Rule::TooManyStates, message).detail("state", first));
        }
        let references: Vec<StateRef> = states.iter().map(|state| state.reference).collect();
        let spent = self.services.committer.store.spent_by(self.opened.entry.row, &references).await.map_err(failed)?;
        if let Some((state, by)) = spent.first() {
            let message = format!("the state {state} was consumed by the transaction {by}");
            let refused = Refused::new(Rule::StateConsumed, message).detail("state", state);
            return refuse(&refused.detail("consumed_by", by));
        }
        if let Some(kept) = states.iter().find(|state| state.state.notary.name == to.name) {
            let message = format!("the state {} is kept by {to} already", kept.reference);
            return refuse(&Refused::new(Rule::NotaryUnchanged, message).detail("state", kept.reference));
        }
        Ok(Ok((states, to)))
    }

    /// A change of notary with this identity's signatures, and the other parties that must sign it.
    async fn proposed(&self, first: StateRef, to: &str, until: Timestamp) -> Built<(Encoded, Vec<String>)> {
        let (states, to) = match self.moving(first, to).await? {
            Ok(moving) => moving,
            Err(error) => return Ok(Err(error)),
        };
        let Some(kept_by) = states.first().map(|state| state.state.notary.clone()) else {
            return Ok(Err(unknown(&first)));
        };
        // Its key may have been rotated since the state was made.
        let listed = self.notaries().into_iter().find(|notary| notary.name == kept_by.name);
        let notary = listed.unwrap_or(kept_by);
        let change = NotaryChange::new(NotaryChangeContents {
            header: Header::current(self.network()),
            inputs: states.iter().map(|state| state.reference).collect(),
            notary,
            new_notary: to,
            parameters: self.parameters(),
            until,
        });
        let change = match change {
            Ok(change) => Arc::new(change),
            Err(refused) => return refuse(&refused),
        };
        let judged = match self.judge_change(&change, &Fresh::new()).await? {
            Ok(judged) => judged,
            Err(refused) => return refuse(&refused),
        };
        let signatures = match self.own_signatures(&change, &judged).await? {
            Ok(signatures) => signatures,
            Err(refused) => return refuse(&refused),
        };
        let signed = SignedTransaction::new(TxCore::NotaryChange(change), signatures);
        let bytes = match signed.and_then(|signed| signed.encode()) {
            Ok(bytes) => bytes,
            Err(refused) => return refuse(&refused),
        };
        let parties = names_of(self, &judged.outputs).await?.into_iter().collect();
        Ok(Ok((Encoded(bytes), parties)))
    }

    /// The signatures of those of the identity's keys that must sign a change.
    async fn own_signatures(
        &self,
        change: &NotaryChange,
        judged: &JudgedChange,
    ) -> Result<LedgerResult<Vec<TransactionSignature>>, Trouble> {
        let signers = self.signers_among(&judged.party_keys()).await?;
        if signers.is_empty() {
            let message = format!("{} takes no part in these states", self.us());
            return Ok(Err(Refused::new(Rule::KeyNotOwn, message).of(change.id())));
        }
        Ok(signers.iter().map(|signer| sign(&change.id(), signer, PLATFORM_VERSION)).collect())
    }

    async fn judged_change(&self, signed: &Signed) -> Result<Result<JudgedChange, Refused>, Trouble> {
        match signed.change() {
            Ok(change) => self.judge_change(change, &Fresh::new()).await,
            Err(refused) => Ok(Err(refused)),
        }
    }

    /// Whether a change that a peer proposes is one to sign: it is good, this identity takes part in it, and nothing that it
    /// moves is consumed, as far as is known here.
    async fn may_sign(&self, signed: &Signed) -> StepResult<()> {
        match self.sign_change(signed).await? {
            Ok(_) => {}
            Err(error) => return Ok(Err(error)),
        }
        let inputs = signed.core().inputs();
        let spent = self.services.committer.store.spent_by(self.opened.entry.row, inputs).await.map_err(failed)?;
        match spent.iter().find(|(_, by)| *by != signed.id()) {
            None => Ok(Ok(((), Vec::new()))),
            Some((state, _)) => {
                let message = format!("the state {state} is consumed already");
                refuse(&Refused::new(Rule::StateConsumed, message).of(signed.id()).detail("state", state))
            }
        }
    }

    async fn sign_change(&self, signed: &Signed) -> StepResult<Vec<TransactionSignature>> {
        let change = match signed.change() {
            Ok(change) => change,
            Err(refused) => return refuse(&refused),
        };
        let signatures = match self.judge_change(change, &Fresh::new()).await? {
            Ok(judged) => self.own_signatures(change, &judged).await?,
            Err(refused) => Err(refused),
        };
        Ok(signatures.map(|all| (all, Vec::new())).map_err(|refused| refusal::refused(&refused)))
    }
}
