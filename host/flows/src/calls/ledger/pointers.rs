//! Pointers of states (behaviour.md 10.19): what they lead to in the ledger of an identity.

use std::collections::BTreeMap;

use maxhost_ledger::tx::builder::{MAX_POINTED, OutputDraft, Pointer, Pointers, too_many_pointed};
use maxhost_ledger::tx::{ContractId, Data, Name, StateAndRef, TransactionState};
use maxhost_ledger::{Refused, Result as LedgerResult, Rule};
use maxhost_model::{ErrorKind, FlowError};
use maxhost_sandbox::{CallResult, GuestPointer, GuestState};

use super::environment::LedgerEnvironment;
use super::refusal;
use super::states::Noted;
use super::transactions::{Fresh, failed};
use crate::base::trouble::Trouble;
use crate::calls::FlowCalls;

/// What pointers lead to, with the pointers of each of those states.
pub(super) struct Pointed(BTreeMap<Pointer, LedgerResult<(StateAndRef, Vec<Pointer>)>>);

impl Pointers for Pointed {
    fn resolve(&self, pointer: &Pointer) -> LedgerResult<(StateAndRef, Vec<Pointer>)> {
        // Whatever can be reached was looked for, up to the bound.
        self.0.get(pointer).cloned().unwrap_or_else(|| Err(too_many_pointed()))
    }
}

impl FlowCalls {
    /// The state that a pointer leads to.
    pub(super) async fn resolve_pointer(&mut self, pointer: GuestPointer) -> CallResult<GuestState> {
        let pointer = match pointer {
            GuestPointer::OneState(reference) => {
                Pointer::Static(reference.parse().map_err(|refused| refusal::refused(&refused))?)
            }
            GuestPointer::Newest { id, type_name } => {
                let id = id.try_into().map_err(|_| refusal::argument("a linear id has 16 bytes"))?;
                Pointer::Linear { id, qualified_type: qualified(type_name)? }
            }
        };
        let environment = self.environment();
        let found: Noted = self
            .step(&format!("resolve the pointer to {}", words(&pointer)), async move {
                Ok(match environment.target(&pointer).await? {
                    Some(found) => Ok((Noted::new(&found.reference, &found.state), Vec::new())),
                    None => Err(FlowError::new(ErrorKind::IllegalState, nothing(&pointer))),
                })
            })
            .await?;
        Ok(found.guest())
    }
}

impl LedgerEnvironment {
    /// Notes in outputs what they point to, and finds all that can be reached from there.
    /// References count for the size of a transaction, so states with more bytes than `limit` are of no use to it.
    pub(super) async fn pointed(
        &self,
        outputs: &mut [OutputDraft],
        limit: u64,
    ) -> Result<LedgerResult<Pointed>, Trouble> {
        let mut left = Vec::new();
        for output in outputs {
            match self.pointers_in(&output.contract, output.type_name.as_str(), &output.data).await? {
                Ok(pointers) => output.pointers = pointers,
                Err(refused) => return Ok(Err(refused)),
            }
            left.extend(output.pointers.iter().cloned());
        }
        let (mut found, mut bytes) = (BTreeMap::new(), 0_u64);
        while let Some(pointer) = left.pop()
            && found.len() <= MAX_POINTED
        {
            if found.contains_key(&pointer) {
                continue;
            }
            let reached = match self.target(&pointer).await? {
                Some(state) => {
                    bytes = bytes.saturating_add(state.state.data.bytes().len() as u64);
                    let TransactionState { contract, type_name, data, .. } = &state.state;
                    self.pointers_in(contract, type_name.as_str(), data).await?.map(|further| (state, further))
                }
                None => Err(Refused::new(Rule::StateUnknown, nothing(&pointer)).detail("pointer", words(&pointer))),
            };
            if bytes > limit {
                let message =
                    format!("the states that are pointed to have more than the {limit} bytes of a transaction");
                return Ok(Err(Refused::new(Rule::TooLarge, message).detail("limit", limit)));
            }
            left.extend(reached.iter().flat_map(|(_, further)| further.iter().cloned()));
            found.insert(pointer, reached);
        }
        Ok(Ok(Pointed(found)))
    }

    /// What the resolved pointers of a state lead to.
    async fn pointers_in(
        &self,
        contract: &ContractId,
        type_name: &str,
        data: &Data,
    ) -> Result<LedgerResult<Vec<Pointer>>, Trouble> {
        let (contracts, parameters) = (self.services.contracts.clone(), self.in_force()?);
        if !contracts.has_pointers(contract, type_name, &parameters.rules) {
            return Ok(Ok(Vec::new()));
        }
        let (contract, type_name, data) = (contract.clone(), type_name.to_owned(), data.clone());
        let told = self.work(move || contracts.pointers(&contract, &type_name, &data, &parameters.rules));
        told.await?.map_err(Trouble::Passing)
    }

    /// The state that a pointer leads to.
    async fn target(&self, pointer: &Pointer) -> Result<Option<StateAndRef>, Trouble> {
        let reference = match pointer {
            Pointer::Static(reference) => Some(*reference),
            Pointer::Linear { id, qualified_type } => {
                let store = &self.services.committer.store;
                let newest = store.newest_linear(self.opened.entry.row, qualified_type, &hex::encode(id)).await;
                newest.map_err(failed)?
            }
        };
        match reference {
            Some(reference) => self.state(&reference, &Fresh::new()).await,
            None => Ok(None),
        }
    }
}

/// A type as `contract/type`, of names that a contract can have.
pub(super) fn qualified(type_name: String) -> Result<String, FlowError> {
    let names = type_name.split_once('/').map(|(contract, name)| (Name::new(contract), Name::new(name)));
    match names {
        Some((Ok(_), Ok(_))) => Ok(type_name),
        _ => Err(refusal::argument("a type of states is written as contract/type")),
    }
}

fn words(pointer: &Pointer) -> String {
    match pointer {
        Pointer::Static(reference) => reference.to_string(),
        Pointer::Linear { id, qualified_type } => format!("{qualified_type} {}", hex::encode(id)),
    }
}

fn nothing(pointer: &Pointer) -> String {
    match pointer {
        Pointer::Static(reference) => format!("a pointer leads to the state {reference}, which is not known"),
        Pointer::Linear { .. } => {
            format!("a pointer leads to {}, of which the vault has no unconsumed state", words(pointer))
        }
    }
}
