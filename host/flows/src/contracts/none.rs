//! A host without contracts, for simulations that have nothing to do with ledgers.

use maxhost_ledger::tx::verify::{Resolved, verify};
use maxhost_ledger::tx::{ContractAttachment, ContractId, SchemaId, TransactionState};
use maxhost_ledger::{Refused, Rule};
use maxhost_model::{Problem, SecureHash};
use maxhost_sandbox::contract::Attached;
use maxhost_store::ledger::OutputState;

use super::{Contracts, Examined, ToJudge, Whitelist};

/// A host that runs no contracts: every transaction is refused.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NoContracts;

fn nothing(what: &ContractId) -> Refused {
    Refused::new(Rule::AttachmentMissing, format!("no code of the contract {what} is installed"))
}

impl Contracts for NoContracts {
    fn installed(&self) -> Vec<ContractAttachment> {
        Vec::new()
    }

    fn find(&self, _: &SecureHash) -> Option<Attached> {
        None
    }

    fn find_elsewhere(&self, _: &SecureHash) -> Result<Option<Attached>, Problem> {
        Ok(None)
    }

    fn file(&self, _: &SecureHash) -> Result<Option<Vec<u8>>, Problem> {
        Ok(None)
    }

    fn admit(&self, _: &[u8], _: &Whitelist) -> Result<Result<Attached, Refused>, Problem> {
        Ok(Err(Refused::new(Rule::AttachmentUntrusted, "this host runs no contracts")))
    }

    fn schema(&self, _: &ContractId, _: &str) -> Option<SchemaId> {
        None
    }

    fn judge(&self, given: ToJudge<'_>) -> Result<Result<(), Refused>, Problem> {
        let resolved = Resolved { inputs: given.inputs, references: given.references, attachments: &[] };
        Ok(verify(given.wire, resolved, given.network, given.rules).map(|_| ()))
    }

    fn examine(&self, given: ToJudge<'_>) -> Result<Vec<Examined>, Problem> {
        let judged = self.judge(given)?;
        Ok(vec![Examined { contract: None, refused: judged.err() }])
    }

    fn describe(&self, state: &TransactionState, _: &[Attached]) -> Result<Result<OutputState, Refused>, Problem> {
        Ok(Err(nothing(&state.contract)))
    }

    fn rescan(&self) {}
}
