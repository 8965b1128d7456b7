//! What contracts say of the states of a transaction.

use std::collections::BTreeMap;
use std::sync::Arc;

use maxhost_ledger::Result as LedgerResult;
use maxhost_ledger::refused::Refused;
use maxhost_ledger::tx::{Core as TxCore, LedgerRules, StateAndRef, StateRef, WireTransaction};
use maxhost_model::{Problem, SecureHash};
use maxhost_sandbox::contract::Attached;
use maxhost_store::ledger::{OutputState, StateContent};

use super::environment::LedgerEnvironment;
use crate::base::trouble::Trouble;
use crate::ledger::contracts::Contracts;

impl LedgerEnvironment {
    /// The outputs of a transaction, as its contracts describe them.
    pub async fn describe(&self, core: &TxCore) -> Result<Result<Arc<[OutputState]>, Refused>, Trouble> {
        let wire = match core {
            TxCore::Wire(wire) => wire,
            TxCore::NotaryChange(change) => return self.describe_change(change, &BTreeMap::new()).await,
        };
        let id = wire.id();
        let attachments = match self.attached(&wire.contents().attachments, wire.contents().parameters.as_ref()).await?
        {
            Ok(attachments) => attachments,
            Err(refused) => return Ok(Err(refused.of(id))),
        };
        if let Some(outputs) = self.services.findings.outputs(&id) {
            return Ok(Ok(outputs));
        }
        let parameters = self.named_or_in_force(wire.contents().parameters.as_ref()).await?;
        let (contracts, wire) = (self.services.contracts.clone(), wire.clone());
        let described = self
            .ask_contracts(states_of(&wire), move || outputs(&*contracts, &wire, &attachments, &parameters.rules))
            .await?;
        if let Ok(outputs) = &described {
            self.services.findings.describe(id, outputs.clone());
        }
        Ok(described)
    }

    /// The states that a transaction consumes, as the contracts that come with it describe them.
    pub async fn describe_inputs(
        &self,
        wire: &Arc<WireTransaction>,
    ) -> Result<Result<Vec<OutputState>, Refused>, Trouble> {
        if wire.contents().inputs.is_empty() {
            return Ok(Ok(Vec::new()));
        }
        let id = wire.id();
        let inputs = match self.states(&wire.contents().inputs, &BTreeMap::new()).await? {
            Ok(inputs) => inputs,
            Err(refused) => return Ok(Err(refused.of(id))),
        };
        let attachments = match self.attached(&wire.contents().attachments, wire.contents().parameters.as_ref()).await?
        {
            Ok(attachments) => attachments,
            Err(refused) => return Ok(Err(refused.of(id))),
        };
        let parameters = self.named_or_in_force(wire.contents().parameters.as_ref()).await?;
        let contracts = self.services.contracts.clone();
        let ask = move || {
            let describe = |input: &StateAndRef| contracts.describe(&input.state, &attachments, &parameters.rules);
            inputs.iter().map(describe).collect::<Result<LedgerResult<Vec<OutputState>>, Problem>>()
        };
        Ok(self.ask_contracts(wire.contents().inputs.len(), ask).await?.map_err(|refused| refused.of(id)))
    }

    /// What the states say that a transaction looks at, as the contracts that come with it describe them. One that they do not
    /// describe is left out: it is not kept then, and decides nothing about the transaction.
    pub async fn describe_references(
        &self,
        core: &TxCore,
        fresh: &BTreeMap<SecureHash, TxCore>,
    ) -> Result<BTreeMap<StateRef, StateContent>, Trouble> {
        if core.references().is_empty() {
            return Ok(BTreeMap::new());
        }
        let Ok(references) = self.states(core.references(), fresh).await? else { return Ok(BTreeMap::new()) };
        let Ok(attachments) = self.attached(core.attachments(), core.parameters()).await? else {
            return Ok(BTreeMap::new());
        };
        let parameters = self.named_or_in_force(core.parameters()).await?;
        let contracts = self.services.contracts.clone();
        let described = self.work(move || {
            let mut found = BTreeMap::new();
            for StateAndRef { state, reference } in references {
                if let Ok(output) = contracts.describe(&state, &attachments, &parameters.rules)? {
                    found.insert(reference, output.content);
                }
            }
            Ok::<_, Problem>(found)
        });
        described.await?.map_err(Trouble::Passing)
    }
}

/// How many states a transaction names and makes.
pub(super) fn states_of(wire: &WireTransaction) -> usize {
    let contents = wire.contents();
    contents.inputs.len() + contents.references.len() + contents.outputs.len()
}

/// What the contracts of a transaction say of its outputs. Blocking.
pub(super) fn outputs(
    contracts: &dyn Contracts,
    wire: &WireTransaction,
    attachments: &[Attached],
    rules: &LedgerRules,
) -> Result<Result<Arc<[OutputState]>, Refused>, Problem> {
    let mut described = Vec::with_capacity(wire.contents().outputs.len());
    for output in &wire.contents().outputs {
        match contracts.describe(output, attachments, rules)? {
            Ok(output) => described.push(output),
            Err(refused) => return Ok(Err(refused.of(wire.id()))),
        }
    }
    Ok(Ok(described.into()))
}
