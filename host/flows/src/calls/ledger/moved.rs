//! Judging changes of notary, and describing what they make (`docs/behaviour.md` 10.17).

use std::collections::BTreeSet;
use std::sync::Arc;

use maxhost_ledger::refused::Refused;
use maxhost_ledger::tx::{Core as TxCore, NotaryChange, StateAndRef, StateRef, TransactionState};
use maxhost_ledger::{Result as LedgerResult, Rule};
use maxhost_model::{Problem, PublicKey, SecureHash};
use maxhost_store::ledger::OutputState;

use super::environment::LedgerEnvironment;
use super::trace::{Traced, Transactions, trace};
use super::transactions::{Fresh, Signed};
use crate::base::trouble::Trouble;
use crate::ledger::parameters::KnownParameters;

/// The ledger of an identity, and what a flow has verified and not written yet.
struct Known<'a> {
    environment: &'a LedgerEnvironment,
    fresh: &'a Fresh,
}

impl Transactions for Known<'_> {
    type Error = Trouble;

    async fn core(&self, id: &SecureHash) -> Result<Option<TxCore>, Trouble> {
        self.environment.verified_core(id, self.fresh).await
    }

    fn made_by_change(&self, id: &SecureHash) -> Option<Arc<[Traced]>> {
        self.environment.services.findings.moved(id)
    }
}

/// What judging a change of notary finds out.
#[derive(Debug, Clone)]
pub(crate) struct JudgedChange {
    /// The states that move.
    pub inputs: Vec<StateAndRef>,
    /// As they are made.
    pub outputs: Arc<[OutputState]>,
}

impl JudgedChange {
    /// The keys of the parties that must sign: those of all participants.
    pub fn party_keys(&self) -> BTreeSet<PublicKey> {
        self.outputs.iter().flat_map(|output| output.described.participants.iter().cloned()).collect()
    }
}

/// The states that a change of notary makes of those that it consumes.
///
/// # Errors
/// As [`NotaryChange::outputs`].
fn states_made(change: &NotaryChange, inputs: &[StateAndRef], traced: &[Traced]) -> LedgerResult<Arc<[Traced]>> {
    let outputs = change.outputs(inputs)?.into_iter().zip(traced);
    let outputs = outputs.map(|(state, from)| Traced {
        state,
        attachments: from.attachments.clone(),
        parameters: from.parameters,
    });
    Ok(outputs.collect())
}

impl LedgerEnvironment {
    /// The state of a reference, and where its code is.
    pub async fn traced(&self, reference: &StateRef, fresh: &Fresh) -> Result<Option<Traced>, Trouble> {
        trace(&Known { environment: self, fresh }, reference).await
    }

    /// What a change of notary makes. It is found out once.
    pub async fn made_by_change(
        &self,
        change: &NotaryChange,
        fresh: &Fresh,
    ) -> Result<Result<(Vec<StateAndRef>, Arc<[Traced]>), Refused>, Trouble> {
        let (mut inputs, mut traced) = (Vec::new(), Vec::new());
        for reference in &change.contents().inputs {
            let Some(found) = self.traced(reference, fresh).await? else {
                let message = format!("the state {reference} is not known");
                let refused = Refused::new(Rule::StateUnknown, message).of(change.id());
                return Ok(Err(refused.detail("state", reference)));
            };
            inputs.push(StateAndRef { state: found.state.clone(), reference: *reference });
            traced.push(found);
        }
        Ok(states_made(change, &inputs, &traced).map(|made| (inputs, made)))
    }

    /// Whether what a change of notary says is good, whoever has signed. No contract judges it: code is asked who takes part
    /// in its states, and nothing else.
    pub async fn judge_change(
        &self,
        change: &Arc<NotaryChange>,
        fresh: &Fresh,
    ) -> Result<Result<JudgedChange, Refused>, Trouble> {
        let id = change.id();
        let parameters = match self.parameters_of(Some(&change.contents().parameters)).await? {
            Ok(parameters) => parameters,
            Err(refused) => return Ok(Err(refused.of(id))),
        };
        let epochs = self.check_epochs(&TxCore::NotaryChange(change.clone()), &parameters, fresh).await?;
        let checked = epochs.and_then(|()| change.contents().header.check_network(&self.network()));
        if let Err(refused) = checked.and_then(|()| change.check_new_notary(&parameters.rules.notaries)) {
            return Ok(Err(refused.of(id)));
        }
        let (inputs, made) = match self.made_by_change(change, fresh).await? {
            Ok(found) => found,
            Err(refused) => return Ok(Err(refused)),
        };
        if let Err(refused) = change.check_old_notary(&inputs, &parameters.rules.notaries) {
            return Ok(Err(refused));
        }
        let outputs = match self.described_of_change(change, &made).await? {
            Ok(outputs) => outputs,
            Err(refused) => return Ok(Err(refused)),
        };
        self.services.findings.accept(id);
        self.services.findings.keep_moved(id, made);
        Ok(Ok(JudgedChange { inputs, outputs }))
    }

    /// As [`LedgerEnvironment::judge_change`], with the signatures of all participants.
    pub async fn judge_signed_change(
        &self,
        signed: &Signed,
        change: &Arc<NotaryChange>,
        fresh: &Fresh,
    ) -> Result<Result<JudgedChange, Refused>, Trouble> {
        let judged = self.judge_change(change, fresh).await?;
        Ok(judged.and_then(|judged| {
            signed.whole.verify_signatures_by(&judged.party_keys(), self.services.findings.verifier())?;
            Ok(judged)
        }))
    }

    /// The states that a change of notary makes, as their contracts describe them.
    pub async fn describe_change(
        &self,
        change: &NotaryChange,
        fresh: &Fresh,
    ) -> Result<Result<Arc<[OutputState]>, Refused>, Trouble> {
        match self.made_by_change(change, fresh).await? {
            Ok((_, made)) => self.described_of_change(change, &made).await,
            Err(refused) => Ok(Err(refused)),
        }
    }

    async fn described_of_change(
        &self,
        change: &NotaryChange,
        made: &[Traced],
    ) -> Result<Result<Arc<[OutputState]>, Refused>, Trouble> {
        let id = change.id();
        let mut with_code = Vec::with_capacity(made.len());
        for Traced { state, attachments, parameters } in made {
            let attachments = match self.attached(attachments, Some(&change.contents().parameters)).await? {
                Ok(attachments) => attachments,
                Err(refused) => return Ok(Err(refused.of(id))),
            };
            // Successions may have gone since: who takes part is still said by the code that made the state.
            with_code.push((state.clone(), attachments, self.named_or_in_force(parameters.as_ref()).await?));
        }
        // What was found out before is used only while the code is here.
        if let Some(outputs) = self.services.findings.outputs(&id) {
            return Ok(Ok(outputs));
        }
        let contracts = self.services.contracts.clone();
        let described = self.work(move || {
            let describe = |(state, attachments, parameters): (TransactionState, Vec<_>, Arc<KnownParameters>)| {
                contracts.describe(&state, &attachments, &parameters.rules)
            };
            with_code.into_iter().map(describe).collect::<Result<LedgerResult<Vec<OutputState>>, Problem>>()
        });
        let described = match described.await?.map_err(Trouble::Passing)? {
            Ok(described) => described,
            Err(refused) => return Ok(Err(refused.of(id))),
        };
        let outputs: Arc<[OutputState]> = described.into();
        self.services.findings.describe(id, outputs.clone());
        Ok(Ok(outputs))
    }
}
