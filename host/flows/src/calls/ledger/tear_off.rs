//! Signatures of those who see a part of a transaction only: an oracle signs for its command and learns nothing else.

use maxhost_ledger::codec;
use maxhost_ledger::refused::Refused;
use maxhost_ledger::time::TimeWindow;
use maxhost_ledger::tx::signature::sign;
use maxhost_ledger::tx::{FilteredTransaction, Shown, StateRef, TransactionSignature, TransactionState};
use maxhost_ledger::{Result as LedgerResult, Rule};
use maxhost_model::network::PLATFORM_VERSION;
use maxhost_model::{Party, PublicKey, SecureHash};
use maxhost_sandbox::{CallResult, GuestTransaction, ShownParts};
use serde::Serialize;

use super::environment::LedgerEnvironment;
use super::protocol::{Encoded, FromVendor, ToVendor};
use super::refusal;
use super::transactions::Signed;
use super::view::CommandView;
use crate::calls::FlowCalls;

/// What a guest sees of a tear-off: the map that it sees of a transaction, with references in place of states that are named.
#[derive(Serialize)]
struct View<'a> {
    id: SecureHash,
    inputs: &'a [StateRef],
    references: &'a [StateRef],
    outputs: &'a [TransactionState],
    commands: Vec<CommandView<'a>>,
    attachments: &'a [SecureHash],
    notary: &'a Option<Party>,
    time_window: Option<TimeWindow>,
    parameters: Option<SecureHash>,
}

fn view(tear_off: &FilteredTransaction) -> LedgerResult<Vec<u8>> {
    let shown = tear_off.contents();
    codec::encode(
        "view of a tear-off",
        &View {
            id: tear_off.id(),
            inputs: &shown.inputs,
            references: &shown.references,
            outputs: &shown.outputs,
            commands: shown.commands.iter().map(|(command, signers)| CommandView { command, signers }).collect(),
            attachments: &shown.attachments,
            notary: &shown.notary,
            time_window: shown.time_window,
            parameters: shown.parameters,
        },
    )
}

/// Whether an author wants to show a component.
fn is_wanted(parts: &ShownParts, keys: &[PublicKey], component: Shown<'_>) -> bool {
    match component {
        Shown::Command(_, signers) => parts.commands || signers.iter().any(|signer| keys.contains(signer)),
        Shown::Input(_) => parts.inputs,
        Shown::Reference(_) => parts.references,
        Shown::Output(_) => parts.outputs,
        Shown::Attachment(_) => parts.attachments,
        Shown::Notary(_) => parts.notary,
        Shown::TimeWindow(_) => parts.time_window,
        Shown::Parameters(_) => parts.parameters,
    }
}

impl LedgerEnvironment {
    /// A tear-off that came from a peer: of this network, and without a command that this identity must sign and does not
    /// see, if it sees any.
    fn tear_off(&self, bytes: &[u8]) -> LedgerResult<FilteredTransaction> {
        let tear_off = FilteredTransaction::decode(bytes)?;
        let shown = tear_off.contents();
        shown.header.check_network(&self.network()).map_err(|refused| refused.of(tear_off.id()))?;
        if !shown.commands.is_empty() {
            tear_off.check_commands_shown(&self.us().owning_key)?;
        }
        Ok(tear_off)
    }

    /// The own signature over a transaction of which a command that needs it is shown.
    fn sign_shown(&self, bytes: &[u8]) -> LedgerResult<TransactionSignature> {
        let tear_off = self.tear_off(bytes)?;
        let us = &self.us().owning_key;
        if !tear_off.contents().commands.iter().any(|(_, signers)| signers.contains(us)) {
            let message = "no command is shown that this identity must sign";
            return Err(Refused::new(Rule::NotVisible, message).of(tear_off.id()).detail("key", us));
        }
        sign(&tear_off.id(), &self.signer(), PLATFORM_VERSION)
    }
}

impl FlowCalls {
    /// Asks the other side of a session for its signature over a transaction of which it sees a tear-off. It must be one that
    /// is missing.
    pub(crate) async fn collect_on_tear_off(
        &mut self,
        session: u32,
        bytes: &[u8],
        parts: &ShownParts,
    ) -> CallResult<Signed> {
        let (signed, wire) = self.given_ordinary(bytes)?;
        let keys = parts.commands_of.iter().map(|spki| {
            PublicKey::from_spki(spki).map_err(|error| refusal::argument(format!("the key of a command: {error}")))
        });
        let keys = keys.collect::<Result<Vec<_>, _>>()?;
        let tear_off = FilteredTransaction::new(&wire, |component| is_wanted(parts, &keys, component));
        let tear_off = tear_off.and_then(|tear_off| tear_off.encode()).map_err(|refused| refusal::refused(&refused))?;
        let answer: ToVendor = self.ask_peer(session, &FromVendor::TearOff(Encoded(tear_off))).await?;
        let ToVendor::Signed(signatures) = answer else {
            return Err(refusal::protocol("a signature was expected").into());
        };
        let more = signed.plus(signatures).map_err(|refused| refusal::refused(&refused))?;
        more.whole.check_signatures().map_err(|refused| refusal::refused(&refused))?;
        let environment = self.environment();
        if environment.missing(&more).len() >= environment.missing(&signed).len() {
            return Err(refusal::protocol("the signature that came is none that is missing").into());
        }
        Ok(more)
    }

    /// Gets a part of a transaction to sign the whole. That it is a part of it is verified; what it says is for the author to
    /// judge.
    pub(crate) async fn receive_tear_off(&mut self, session: u32) -> CallResult<GuestTransaction> {
        let FromVendor::TearOff(Encoded(bytes)) = self.hear(session).await? else {
            return Err(refusal::protocol("a tear-off was expected").into());
        };
        let (environment, came) = (self.environment(), bytes.clone());
        let (id, view): (String, Encoded) = self
            .step("look at a tear-off", async move {
                let shown = environment.tear_off(&came).and_then(|shown| Ok((shown.id(), view(&shown)?)));
                Ok(shown
                    .map(|(id, view)| ((id.to_string(), Encoded(view)), Vec::new()))
                    .map_err(|refused| refusal::refused(&refused)))
            })
            .await?;
        Ok(GuestTransaction { id, bytes, view: view.0 })
    }

    /// Signs a transaction of which a part was got with [`FlowCalls::receive_tear_off`], and gives the signature.
    pub(crate) async fn sign_tear_off(&mut self, session: u32, tear_off: Vec<u8>) -> CallResult<()> {
        let environment = self.environment();
        let signature: TransactionSignature = self
            .step("sign a tear-off", async move {
                let signature = environment.sign_shown(&tear_off);
                Ok(signature.map(|one| (one, Vec::new())).map_err(|refused| refusal::refused(&refused)))
            })
            .await?;
        self.tell(session, &ToVendor::Signed(vec![signature])).await
    }
}
