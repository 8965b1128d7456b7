//! Contracts as the catalogue has them, run by the engine of the sandbox.

use std::collections::BTreeSet;
use std::sync::Arc;

use maxhost_cordapps::InstalledContracts;
use maxhost_ledger::codec;
use maxhost_ledger::tx::{ContractAttachment, ContractId, SchemaId, TransactionState};
use maxhost_ledger::vault::description::StateDescription;
use maxhost_ledger::vault::query::{Value, fields};
use maxhost_ledger::{Refused, Rule};
use maxhost_model::{Code, Problem, SecureHash};
use maxhost_sandbox::contract::{Attached, ContractComponent, LocalError, ToVerify, Verdict};
use maxhost_store::ledger::{OutputState, StateContent, TokenAmount};

use super::{Contracts, Examined, ToJudge};

/// The contracts that are installed on a host.
pub(crate) struct EngineContracts {
    installed: Arc<InstalledContracts>,
}

impl EngineContracts {
    pub fn new(installed: Arc<InstalledContracts>) -> EngineContracts {
        EngineContracts { installed }
    }

    /// The newest code that holds a contract.
    fn newest(&self, contract: &ContractId) -> Option<Arc<ContractComponent>> {
        let holds = |component: &Arc<ContractComponent>| {
            let signed = match &contract.publisher {
                Some(publisher) => component.signers.contains(publisher),
                None => component.signers.is_empty(),
            };
            signed && component.descriptor.contract(contract.name.as_str()).is_some()
        };
        let found = self.installed.all().into_iter().filter(holds);
        found.max_by_key(|component| (component.descriptor.code_version, component.id))
    }

    /// The installed code of attachments, in their order.
    fn attached(&self, ids: &[SecureHash]) -> Result<Vec<Attached>, Refused> {
        ids.iter()
            .map(|id| match self.installed.by_id(id) {
                Some(component) => Ok(Attached { component, trusted: true }),
                None => {
                    let message = format!("the attachment {id} is not installed here");
                    Err(Refused::new(Rule::AttachmentMissing, message).detail("attachment", id))
                }
            })
            .collect()
    }
}

/// Trouble of this host passes: another attempt may find an instance.
fn local(error: &LocalError) -> Problem {
    Problem::new(Code::Overloaded, error.to_string())
}

impl Contracts for EngineContracts {
    fn installed(&self) -> Vec<ContractAttachment> {
        self.installed.attachments()
    }

    fn has(&self, attachments: &[SecureHash]) -> bool {
        attachments.iter().all(|id| self.installed.by_id(id).is_some())
    }

    fn schema(&self, contract: &ContractId, type_name: &str) -> Option<SchemaId> {
        let component = self.newest(contract)?;
        let of = component.descriptor.contract(contract.name.as_str())?.state(type_name)?;
        Some(of.schema_id())
    }

    fn judge(&self, given: ToJudge<'_>) -> Result<Result<(), Refused>, Problem> {
        let attachments = match self.attached(&given.wire.contents().attachments) {
            Ok(attachments) => attachments,
            Err(refused) => return Ok(Err(refused.of(given.wire.id()))),
        };
        let ToJudge { wire, inputs, references, network, rules } = given;
        let given = ToVerify { wire, inputs, references, attachments: &attachments, network, rules };
        let verification = self.installed.engine().verify(given).map_err(|error| local(&error))?;
        Ok(verification.verdict.refusal(wire.id()).map_or(Ok(()), Err))
    }

    fn examine(&self, given: ToJudge<'_>) -> Result<Vec<Examined>, Problem> {
        let id = given.wire.id();
        let attachments = match self.attached(&given.wire.contents().attachments) {
            Ok(attachments) => attachments,
            Err(refused) => return Ok(vec![Examined { contract: None, refused: Some(refused.of(id)) }]),
        };
        let ToJudge { wire, inputs, references, network, rules } = given;
        let given = ToVerify { wire, inputs, references, attachments: &attachments, network, rules };
        let verdicts = self.installed.engine().verify_each(given).map_err(|error| local(&error))?;
        let examined = |(contract, verdict): (_, Verdict)| Examined { contract, refused: verdict.refusal(id) };
        Ok(verdicts.into_iter().map(examined).collect())
    }

    fn describe(
        &self,
        state: &TransactionState,
        attachments: &[SecureHash],
    ) -> Result<Result<OutputState, Refused>, Problem> {
        let attached = match self.attached(attachments) {
            Ok(attached) => attached,
            Err(refused) => return Ok(Err(refused)),
        };
        let name = state.contract.name.as_str();
        let holding = attached.iter().find(|one| one.component.descriptor.contract(name).is_some());
        let Some(holding) = holding else {
            let message = format!("no attachment holds the contract {}", state.contract);
            return Ok(Err(Refused::new(Rule::AttachmentMissing, message).detail("contract", name)));
        };
        let described = self.installed.engine().describe(&holding.component, state).map_err(|error| local(&error))?;
        let times = holding.component.descriptor.contract(name).and_then(|one| one.state(state.type_name.as_str()));
        let times = times.map(|of| of.times.clone()).unwrap_or_default();
        Ok(match described {
            Ok(description) => output(state, &description, &times),
            Err(fault) => {
                let message = format!("the contract {name} does not describe its state: {}", fault.message);
                Err(Refused::new(Rule::ContractRejected, message).detail("fault", fault.code))
            }
        })
    }

    fn rescan(&self) {
        self.installed.rescan();
    }
}

/// What a vault keeps of a state that is described so.
fn output(
    state: &TransactionState,
    description: &StateDescription,
    times: &BTreeSet<String>,
) -> Result<OutputState, Refused> {
    let mut participants = BTreeSet::new();
    for participant in description.participants.iter().chain(&description.owner) {
        participants.insert(participant.key.fingerprint().to_string());
        participants.extend(participant.name.as_ref().map(ToString::to_string));
    }
    let mut found = fields(&state.data, times)?;
    found.extend(description.attributes.iter().map(|(name, value)| (name.clone(), value.clone())));
    found.retain(|_, value| *value != Value::Null);
    // What can only be spent together with another state is no money to pay with.
    let amount = description.amount.as_ref().filter(|_| state.encumbrance.is_none()).map(|amount| TokenAmount {
        token: amount.token.clone(),
        issuer: amount.issuer.as_ref().map(|issuer| match &issuer.name {
            Some(name) => name.to_string(),
            None => issuer.key.fingerprint().to_string(),
        }),
        quantity: amount.quantity,
    });
    Ok(OutputState {
        described: description.for_recording(),
        content: StateContent {
            type_name: state.qualified_type(),
            state: codec::encode("state", state)?.into(),
            notary: state.notary.name.to_string(),
            constraint: state.constraint.kind().to_owned(),
            participants,
            fields: found,
            amount,
            linear_id: description.linear_id.map(hex::encode),
        },
    })
}
