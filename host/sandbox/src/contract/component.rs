//! Contract code, compiled and linked.

use std::collections::BTreeSet;
use std::fmt;

use maxhost_ledger::attachment::SignedCode;
use maxhost_ledger::tx::ContractAttachment;
use maxhost_model::{PublicKey, SecureHash};

use super::bindings::ContractPre;
use super::bindings::pointers::ContractPointersPre;
use super::descriptor::ContractDescriptor;
use super::instance::Budget;

/// Contract code, ready to be asked. Each call has an instance of its own.
pub struct ContractComponent {
    /// SHA-256 of the signed file: what transactions name.
    pub id: SecureHash,
    /// SHA-256 of the code without its signatures.
    pub code_hash: SecureHash,
    /// The keys that have signed the code.
    pub signers: BTreeSet<PublicKey>,
    /// The size of the signed file, bytes.
    pub size: u64,
    /// What it says of itself.
    pub descriptor: ContractDescriptor,
    pub(super) contract: ContractPre<Budget>,
    /// What answers for pointers; code of before there were any has nothing.
    pub(super) pointers: Option<ContractPointersPre<Budget>>,
}

impl ContractComponent {
    pub(super) fn new(
        signed: SignedCode,
        size: usize,
        descriptor: ContractDescriptor,
        contract: ContractPre<Budget>,
    ) -> ContractComponent {
        ContractComponent {
            id: signed.id,
            code_hash: signed.code_hash,
            signers: signed.signers,
            size: size as u64,
            descriptor,
            pointers: ContractPointersPre::new(contract.instance_pre().clone()).ok(),
            contract,
        }
    }

    /// What the rules of the ledger need to know of it. It is trusted if it was installed here, and not merely sent by a
    /// peer.
    #[must_use]
    pub fn attachment(&self, trusted: bool) -> ContractAttachment {
        ContractAttachment {
            id: self.id,
            code_hash: self.code_hash,
            contracts: self.descriptor.contracts.iter().map(|contract| contract.name.as_str().to_owned()).collect(),
            version: self.descriptor.code_version,
            signers: self.signers.clone(),
            size: self.size,
            trusted,
            no_propagation: self.descriptor.no_propagation,
        }
    }
}

impl fmt::Debug for ContractComponent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ContractComponent")
            .field("name", &self.descriptor.name)
            .field("code_version", &self.descriptor.code_version)
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}
