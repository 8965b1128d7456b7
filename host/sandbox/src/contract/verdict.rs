//! What is decided about a transaction, and what only went wrong here (behaviour.md 10.20).

use maxhost_ledger::tx::ContractId;
use maxhost_ledger::{Refused, Rule};
use maxhost_model::SecureHash;

/// What is decided about a transaction: the same on every host, so it may be stored and told to others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Every rule of the ledger holds, and every contract accepts it.
    Accepted,
    /// A rule of the ledger is broken.
    Refused(Refused),
    /// A contract does not accept it.
    Rejected {
        /// The contract.
        contract: ContractId,
        /// What it says.
        fault: ContractFault,
    },
    /// A contract computes more than the network allows.
    OutOfFuel {
        /// The contract.
        contract: ContractId,
        /// The units it had.
        limit: u64,
    },
    /// A contract asks for more memory than the network allows.
    OverMemory {
        /// The contract.
        contract: ContractId,
        /// The bytes it could have.
        limit: u64,
    },
}

impl Verdict {
    /// Whether the transaction may be signed and recorded.
    #[must_use]
    pub fn is_accepted(&self) -> bool {
        matches!(self, Verdict::Accepted)
    }

    /// The refusal, in the words of the ledger; `None` if it is accepted.
    #[must_use]
    pub fn refusal(&self, transaction: SecureHash) -> Option<Refused> {
        let of = |rule, contract: &ContractId, message: String| {
            Refused::new(rule, message).of(transaction).detail("contract", &contract.name)
        };
        match self {
            Verdict::Accepted => None,
            Verdict::Refused(refused) => Some(refused.clone()),
            Verdict::Rejected { contract, fault } => {
                let message = format!("the contract {contract} does not accept it: {}", fault.message);
                Some(of(Rule::ContractRejected, contract, message).detail("fault", &fault.code))
            }
            Verdict::OutOfFuel { contract, limit } => {
                let message = format!("the contract {contract} computes more than {limit} units of fuel allow");
                Some(of(Rule::ContractFuel, contract, message).detail("limit", limit))
            }
            Verdict::OverMemory { contract, limit } => {
                let message = format!("the contract {contract} asks for more than {limit} bytes of memory");
                Some(of(Rule::ContractMemory, contract, message).detail("limit", limit))
            }
        }
    }
}

/// Why a contract does not accept something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContractFault {
    /// The stable word: the author's own, or with a slash one of the SDK (`tx/missing-signer`) or of the host
    /// (`trap/unreachable`).
    pub code: String,
    /// What is wrong, for people.
    pub message: String,
}

/// What a contract used. It depends on the engine, so it never enters a verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usage {
    /// The contract.
    pub contract: ContractId,
    /// Units of fuel that `verify` burnt, with the price of its input.
    pub fuel: u64,
    /// Bytes of linear memory at its largest.
    pub memory: u64,
}

/// A verdict with what it took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verification {
    /// What is decided.
    pub verdict: Verdict,
    /// What each contract used that has run, in the order in which they ran.
    pub usage: Vec<Usage>,
}

/// Trouble of this host. It says nothing about the transaction: nothing is recorded, and the same may be tried again.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum LocalError {
    /// All instances were in use for too long.
    #[error("no instance became free for {waited_ms} ms")]
    Busy {
        /// How long it was waited for.
        waited_ms: u64,
    },
    /// The native stack was full, though the profile bounds how much of it a contract takes.
    #[error("the native stack was full while the contract {contract} ran")]
    Stack {
        /// The contract.
        contract: String,
    },
    /// It ran for longer than this host waits, whatever its fuel.
    #[error("the contract {contract} ran for more than {limit_ms} ms")]
    Time {
        /// The contract.
        contract: String,
        /// The bound.
        limit_ms: u64,
    },
    /// No instance could be made.
    #[error("the engine of contracts cannot run {contract}: {reason}")]
    Engine {
        /// The contract.
        contract: String,
        /// What failed.
        reason: String,
    },
    /// The code of an attachment was not given.
    #[error("the code of attachment {attachment} is not loaded")]
    NotLoaded {
        /// Its id.
        attachment: SecureHash,
    },
}
