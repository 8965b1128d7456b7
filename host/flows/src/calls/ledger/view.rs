//! What a guest sees of a transaction: the map that its contracts see.

use maxhost_ledger::codec;
use maxhost_ledger::time::TimeWindow;
use maxhost_ledger::tx::{
    CommandValue, LedgerRules, LedgerTransaction, StateAndRef, StateRef, TransactionState, WireTransaction,
};
use maxhost_ledger::{Refused, Result as LedgerResult};
use maxhost_model::{Party, PublicKey, SecureHash};
use maxhost_sandbox::{CallResult, GuestTransaction};
use serde::Serialize;

use super::protocol::Encoded;
use super::refusal;
use super::transactions::{Fresh, Resolved, Signed};
use crate::calls::FlowCalls;

#[derive(Serialize)]
struct View<'a> {
    id: SecureHash,
    inputs: Vec<StateView<'a>>,
    references: Vec<StateView<'a>>,
    outputs: &'a [TransactionState],
    commands: Vec<CommandView<'a>>,
    attachments: &'a [SecureHash],
    notary: &'a Option<Party>,
    time_window: Option<TimeWindow>,
    parameters: Option<SecureHash>,
}

#[derive(Serialize)]
struct StateView<'a> {
    #[serde(rename = "ref")]
    reference: StateRef,
    state: &'a TransactionState,
}

/// A command with who must sign for it.
#[derive(Serialize)]
pub(super) struct CommandView<'a> {
    pub command: &'a CommandValue,
    pub signers: &'a [PublicKey],
}

/// The bytes of a transaction's view. Without successors of publishers' keys every contract is called as the transaction calls
/// it, and nothing has to be copied.
fn encode(wire: &WireTransaction, resolved: &Resolved, rules: &LedgerRules) -> LedgerResult<Vec<u8>> {
    if !rules.rotations.is_empty() {
        return LedgerTransaction::new(wire, &resolved.inputs, &resolved.references, rules).encode();
    }
    let contents = wire.contents();
    fn view(state: &StateAndRef) -> StateView<'_> {
        StateView { reference: state.reference, state: &state.state }
    }
    let commands = contents.commands.iter();
    codec::encode(
        "view of a transaction",
        &View {
            id: wire.id(),
            inputs: resolved.inputs.iter().map(view).collect(),
            references: resolved.references.iter().map(view).collect(),
            outputs: &contents.outputs,
            commands: commands
                .map(|command| CommandView { command: &command.value, signers: &command.signers })
                .collect(),
            attachments: &contents.attachments,
            notary: &contents.notary,
            time_window: contents.time_window,
            parameters: contents.parameters,
        },
    )
}

impl FlowCalls {
    /// A transaction as the guest gets it. What it names is known here by now.
    pub(super) async fn shown(&mut self, signed: Signed) -> CallResult<GuestTransaction> {
        let wire = signed.ordinary().map_err(|refused| refusal::refused(&refused))?.clone();
        let environment = self.environment();
        let view: Encoded = self
            .step(&format!("show {}", signed.id()), async move {
                let shown = match environment.resolve(&wire, &Fresh::new()).await? {
                    Ok(resolved) => {
                        let parameters = environment.named_or_in_force(wire.contents().parameters.as_ref()).await?;
                        encode(&wire, &resolved, &parameters.rules)
                    }
                    Err(refused) => Err::<Vec<u8>, Refused>(refused),
                };
                Ok(shown.map(|view| (Encoded(view), Vec::new())).map_err(|refused| refusal::refused(&refused)))
            })
            .await?;
        let bytes = signed.encode().map_err(|refused| refusal::refused(&refused))?;
        Ok(GuestTransaction { id: signed.id().to_string(), bytes, view: view.0 })
    }
}
