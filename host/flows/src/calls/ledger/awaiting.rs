//! Waiting for the ledger: until a transaction is part of it, or until states are consumed.
//!
//! The machine of the journal knows that the flow waits, and what ends the wait but what is waited for; whether that is there
//! only the database knows. So it is looked for whenever the call blocks. Before a look the flow is noted among those that
//! wait, and whatever is recorded after that brings it back ([`crate::ledger::waits`]).

use std::collections::BTreeSet;

use bytes::Bytes;
use maxhost_journal::{Answer, Awaited, Call, Millis, Step, WaitKind};
use maxhost_ledger::tx::StateRef;
use maxhost_ledger::vault::recording::TransactionStatus;
use maxhost_model::{FlowError, SecureHash};
use maxhost_sandbox::{CallError, CallResult, GuestTransaction};

use super::environment::LedgerEnvironment;
use super::refusal;
use super::states::parsed;
use super::transactions::failed;
use crate::base::trouble::Trouble;
use crate::calls::{FlowCalls, Stop};
use crate::ledger::waits::Watched;

/// The most states whose consumption one call waits for.
const MAX_AWAITED: usize = 1_000;
/// So much of what is no id is repeated to the author, characters.
const SHOWN: usize = 80;

/// What a call waits for.
enum Wanted {
    Transaction(SecureHash),
    /// Each once, at least one.
    States(Vec<StateRef>),
}

/// What a look into the ledger comes to.
enum Look {
    /// It is there: the answer.
    Found(Bytes),
    /// This is not, and so many more may not be.
    Lacks(Watched, usize),
}

impl Wanted {
    fn kind(&self) -> WaitKind {
        match self {
            Wanted::Transaction(_) => WaitKind::LedgerCommit,
            Wanted::States(_) => WaitKind::StateConsumption,
        }
    }

    /// In words that tell it from anything else, for the journal.
    fn what(&self) -> String {
        match self {
            Wanted::Transaction(id) => format!("transaction {id}"),
            Wanted::States(states) => {
                let names: Vec<String> = states.iter().map(ToString::to_string).collect();
                let digest = SecureHash::of(names.join(" ").as_bytes());
                format!("the consumption of {} states ({digest})", states.len())
            }
        }
    }

    /// What is watched before anybody has looked.
    fn first(&self) -> Option<Watched> {
        match self {
            Wanted::Transaction(id) => Some(Watched::Transaction(*id)),
            Wanted::States(states) => states.first().copied().map(Watched::State),
        }
    }
}

impl FlowCalls {
    /// Waits until a transaction is part of the ledger. `None` at the deadline.
    pub(crate) async fn await_commit(
        &mut self,
        id: &str,
        deadline: Option<Millis>,
    ) -> CallResult<Option<GuestTransaction>> {
        let id: SecureHash = id.parse().map_err(|_| {
            let shown: String = id.chars().take(SHOWN).collect();
            CallError::from(refusal::argument(format!("'{shown}' is no id of a transaction")))
        })?;
        match self.await_ledger(&Wanted::Transaction(id), deadline).await? {
            Some(bytes) => {
                let signed = self.given(&bytes)?;
                self.shown(signed).await.map(Some)
            }
            None => Ok(None),
        }
    }

    /// Waits until states are consumed, all of them. False at the deadline.
    pub(crate) async fn await_consumption(
        &mut self,
        references: &[String],
        deadline: Option<Millis>,
    ) -> CallResult<bool> {
        let states = awaited_states(references)?;
        if states.is_empty() {
            return Ok(true);
        }
        Ok(self.await_ledger(&Wanted::States(states), deadline).await?.is_some())
    }

    async fn await_ledger(&mut self, wanted: &Wanted, deadline: Option<Millis>) -> CallResult<Option<Bytes>> {
        let answer = self.look_until_found(wanted, deadline).await;
        // A flow that is put away goes on waiting.
        if !matches!(answer, Err(CallError::Stop)) {
            self.services.committer.ledger_waits.forget(self.opened.entry.row, self.flow.row);
            self.flush_if_due().await?;
        }
        match answer? {
            Answer::Found(answer) => Ok(answer),
            other => self.misanswered(&other),
        }
    }

    async fn look_until_found(&mut self, wanted: &Wanted, deadline: Option<Millis>) -> CallResult<Answer> {
        let mut step = self.begin(Call::Await { kind: wanted.kind(), what: wanted.what(), deadline })?;
        loop {
            if let Some(answer) = self.answer_of(step)? {
                return Ok(answer);
            }
            step = match self.look_into_ledger(wanted).await? {
                Look::Found(answer) => {
                    let time = self.time();
                    self.machine.found(answer, time)
                }
                Look::Lacks(watched, more) => {
                    let more = u32::try_from(more).unwrap_or(u32::MAX);
                    self.machine.awaits_next(Awaited { first: watched.to_string(), more });
                    match self.resume() {
                        Step::Blocked => {
                            self.suspend().await?;
                            Step::Blocked
                        }
                        over => over,
                    }
                }
            };
        }
    }

    /// Looks whether it is there. If not, the flow is told of whatever may change that after the look.
    async fn look_into_ledger(&mut self, wanted: &Wanted) -> CallResult<Look> {
        let Some(mut watched) = wanted.first() else { return Ok(Look::Found(Bytes::new())) };
        self.flow.looks_into_ledger();
        let environment = self.environment();
        loop {
            self.services.committer.ledger_waits.watch(self.opened.entry.row, self.flow.row, watched);
            match environment.look_for(wanted).await {
                Err(trouble) => return self.stop(Stop::Trouble(trouble)),
                // It was not watched before the look.
                Ok(Look::Lacks(next, _)) if next != watched => watched = next,
                Ok(look) => return Ok(look),
            }
        }
    }
}

impl LedgerEnvironment {
    async fn look_for(&self, wanted: &Wanted) -> Result<Look, Trouble> {
        match wanted {
            Wanted::Transaction(id) => match self.stored(id).await? {
                Some((TransactionStatus::Verified, signed)) => {
                    let bytes = signed.encode().map_err(|error| Trouble::defect(error.to_string()))?;
                    Ok(Look::Found(bytes.into()))
                }
                _ => Ok(Look::Lacks(Watched::Transaction(*id), 0)),
            },
            Wanted::States(states) => {
                let spent = self.services.committer.store.spent_by(self.opened.entry.row, states).await;
                let spent: BTreeSet<StateRef> = spent.map_err(failed)?.into_iter().map(|(state, _)| state).collect();
                let mut left = states.iter().filter(|state| !spent.contains(state));
                match left.next() {
                    Some(first) => Ok(Look::Lacks(Watched::State(*first), left.count())),
                    None => Ok(Look::Found(Bytes::new())),
                }
            }
        }
    }
}

/// The states of an author's call, each once, in its order.
fn awaited_states(references: &[String]) -> Result<Vec<StateRef>, FlowError> {
    if references.len() > MAX_AWAITED {
        let text = format!("{} states are waited for at once, at most {MAX_AWAITED} may be", references.len());
        return Err(refusal::argument(text));
    }
    let mut seen = BTreeSet::new();
    Ok(parsed(references)?.into_iter().filter(|state| seen.insert(*state)).collect())
}
