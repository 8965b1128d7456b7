//! A transaction with the states that it names, as its contracts see it (behaviour.md 10.20).

use maxhost_model::{Party, PublicKey, SecureHash};
use serde::{Deserialize, Serialize};

use super::constraint::LedgerRules;
use super::state::{CommandValue, StateAndRef, StateRef, TransactionState};
use super::wire::WireTransaction;
use crate::codec;
use crate::refused::Result;
use crate::time::TimeWindow;

/// All that a contract sees. Nothing of it depends on who verifies, when or where.
///
/// Contracts read it as a map and pass over what they do not know, so that fields can be added: a contract is never
/// replaced because a field came.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerTransaction {
    /// The id of the transaction.
    pub id: SecureHash,
    /// The states that it consumes, in order.
    pub inputs: Vec<LedgerState>,
    /// The states that it looks at, in order.
    pub references: Vec<LedgerState>,
    /// The states that it makes, in order.
    pub outputs: Vec<TransactionState>,
    /// What is done, with who must sign.
    pub commands: Vec<LedgerCommand>,
    /// The ids of its attachments.
    pub attachments: Vec<SecureHash>,
    /// The notary.
    pub notary: Option<Party>,
    /// When it may be notarised; all that a contract knows of time.
    pub time_window: Option<TimeWindow>,
    /// The hash of the network parameters that it is judged by.
    pub parameters: Option<SecureHash>,
}

/// A state, and where it was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerState {
    /// Where it was made.
    #[serde(rename = "ref")]
    pub reference: StateRef,
    /// The state.
    pub state: TransactionState,
}

/// What is done, and who must sign for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerCommand {
    /// What is done.
    pub command: CommandValue,
    /// The keys that must sign, in the order given.
    pub signers: Vec<PublicKey>,
}

impl LedgerTransaction {
    /// A transaction with its resolved states, which must be those that it names, in that order. Contracts are named as
    /// [`LedgerRules::canonical`] has it: code tells its own states by their publisher, and need not know of successors.
    #[must_use]
    pub fn new(
        wire: &WireTransaction,
        inputs: &[StateAndRef],
        references: &[StateAndRef],
        rules: &LedgerRules,
    ) -> LedgerTransaction {
        let contents = wire.contents();
        let canonical =
            |state: &TransactionState| TransactionState { contract: rules.canonical(&state.contract), ..state.clone() };
        let with_ref = |state: &StateAndRef| LedgerState { reference: state.reference, state: canonical(&state.state) };
        let command_of =
            |command: &CommandValue| CommandValue { contract: rules.canonical(&command.contract), ..command.clone() };
        let commands = contents.commands.iter();
        LedgerTransaction {
            id: wire.id(),
            inputs: inputs.iter().map(with_ref).collect(),
            references: references.iter().map(with_ref).collect(),
            outputs: contents.outputs.iter().map(canonical).collect(),
            commands: commands
                .map(|one| LedgerCommand { command: command_of(&one.value), signers: one.signers.clone() })
                .collect(),
            attachments: contents.attachments.clone(),
            notary: contents.notary.clone(),
            time_window: contents.time_window,
            parameters: contents.parameters,
        }
    }

    /// The bytes that its contracts get.
    ///
    /// # Errors
    /// As [`codec::encode`].
    pub fn encode(&self) -> Result<Vec<u8>> {
        codec::encode("ledger transaction", self)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::fixtures::{contents, ledger_rules, reference, state, wire};

    #[test]
    fn contracts_see_what_the_transaction_says_and_what_it_names() {
        let wire = wire(&contents());
        let input = StateAndRef { state: state(1), reference: reference(1) };
        let seen = LedgerTransaction::new(&wire, std::slice::from_ref(&input), &[], &ledger_rules());
        assert_eq!((seen.id, seen.inputs.len(), seen.outputs.len()), (wire.id(), 1, 1));
        assert_eq!(seen.inputs[0].state, input.state);
        assert_eq!(seen.commands[0].signers, wire.contents().commands[0].signers);
        let bytes = seen.encode().unwrap();
        assert_eq!(codec::decode::<LedgerTransaction>("seen", &bytes).unwrap(), seen);
    }
}
