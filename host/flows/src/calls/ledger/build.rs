//! From an author's draft to a transaction with the identity's signature.

use maxhost_ledger::time::{TimeWindow, Timestamp};
use maxhost_ledger::tx::builder::{BuildWith, OutputDraft, TransactionBuilder};
use maxhost_ledger::tx::{
    CommandValue, ContractAttachment, ContractId, Data, LedgerRules, Name, Salt, StateAndRef, StateRef,
};
use maxhost_ledger::{Refused, Result as LedgerResult, Rule};
use maxhost_model::{FlowError, Party, PublicKey, X500Name};
use maxhost_sandbox::{CallResult, DraftCommand, DraftOutput, TransactionDraft};
use maxhost_store::ledger::LedgerOp;

use super::attachments::attachment_id;
use super::environment::LedgerEnvironment;
use super::pointers::Pointed;
use super::protocol::Encoded;
use super::refusal;
use super::transactions::{Fresh, Signed};
use crate::base::trouble::Trouble;
use crate::calls::FlowCalls;

/// How long after it was built, or after its window begins, a transaction may be notarised, unless its author says otherwise.
/// Decided at the notary.
pub(super) const UNTIL: std::time::Duration = std::time::Duration::from_secs(24 * 3600);
/// Bytes of a salt.
const SALT: usize = 32;

impl FlowCalls {
    /// Builds a transaction, verifies it and signs it.
    pub(crate) async fn build(&mut self, draft: TransactionDraft) -> CallResult<Signed> {
        let salt = self.machine.random(SALT);
        let environment = self.environment();
        let until = Timestamp::from_nanos(self.machine.now()).plus(UNTIL);
        let built: Encoded = self
            .step("build", async move {
                let signed = match built(&environment, &draft, salt, until).await? {
                    Ok(signed) => signed,
                    Err(error) => return Ok(Err(error)),
                };
                let judged = match signed.ordinary() {
                    Ok(wire) => environment.judge_contents(wire, &Fresh::new()).await?.map(|_| ()),
                    Err(refused) => Err(refused),
                };
                if let Err(refused) = judged {
                    return Ok(Err(refusal::refused(&refused)));
                }
                // What lies in a folder of this host is found in the ledger by whichever host runs the identity next.
                let mut ops = match environment.kept(&draft.attachments).await? {
                    Ok(ops) => ops,
                    Err(error) => return Ok(Err(error)),
                };
                // Others may be in force before it is recorded.
                let parameters = environment.parameters_to_keep(signed.core().parameters()).await?;
                ops.extend(parameters.map(|parameters| LedgerOp::KeepParameters(Box::new(parameters))));
                let bytes = signed.encode().map_err(|refused| refusal::refused(&refused));
                Ok(bytes.map(|bytes| {
                    environment.services.findings.encoded(&bytes, &signed);
                    (Encoded(bytes), ops)
                }))
            })
            .await?;
        Ok(self.given(&built.0)?)
    }
}

async fn built(
    environment: &LedgerEnvironment,
    draft: &TransactionDraft,
    salt: Vec<u8>,
    until: Timestamp,
) -> Result<Result<Signed, FlowError>, Trouble> {
    let (inputs, references) =
        match (known(environment, &draft.inputs).await?, known(environment, &draft.references).await?) {
            (Ok(inputs), Ok(references)) => (inputs, references),
            (Err(error), _) | (_, Err(error)) => return Ok(Err(error)),
        };
    let parameters = environment.in_force()?;
    let installed = environment.services.contracts.installed();
    let drafted = Drafted { environment, installed: &installed, inputs: &inputs, rules: &parameters.rules };
    let mut outputs = match drafted.outputs(draft) {
        Ok(outputs) => outputs,
        Err(error) => return Ok(Err(error)),
    };
    let pointed = match environment.pointed(&mut outputs, parameters.rules.max_transaction_size).await? {
        Ok(pointed) => pointed,
        Err(refused) => return Ok(Err(refusal::refused(&refused))),
    };
    let built = drafted.builder(draft, outputs, &references, &pointed, until).and_then(|builder| {
        let with = BuildWith {
            network: environment.network(),
            parameters: parameters.hash,
            rules: &parameters.rules,
            installed: &installed,
        };
        let salt = Salt::new(salt).map_err(|refused| refusal::refused(&refused))?;
        builder.build(with, &pointed, salt).map_err(|refused| refusal::refused(&refused))
    });
    match built {
        Ok(wire) => Ok(environment.sign_new(wire).await?.map_err(|refused| refusal::refused(&refused))),
        Err(error) => Ok(Err(error)),
    }
}

async fn known(
    environment: &LedgerEnvironment,
    references: &[String],
) -> Result<Result<Vec<StateAndRef>, FlowError>, Trouble> {
    let mut states = Vec::with_capacity(references.len());
    for text in references {
        let reference: StateRef = match text.parse() {
            Ok(reference) => reference,
            Err(refused) => return Ok(Err(refusal::refused(&refused))),
        };
        match environment.state(&reference, &Fresh::new()).await? {
            Some(state) => states.push(state),
            None => {
                let refused = Refused::new(Rule::StateUnknown, format!("the state {reference} is not known"));
                return Ok(Err(refusal::refused(&refused.detail("state", reference))));
            }
        }
    }
    Ok(Ok(states))
}

/// A draft with what it needs to become a builder.
struct Drafted<'a> {
    environment: &'a LedgerEnvironment,
    installed: &'a [ContractAttachment],
    inputs: &'a [StateAndRef],
    /// What the parameters say under which it is built.
    rules: &'a LedgerRules,
}

type Built<T> = Result<T, FlowError>;

fn or_refused<T>(result: LedgerResult<T>) -> Built<T> {
    result.map_err(|refused| refusal::refused(&refused))
}

/// The time-window of a transaction whose author wants these ends: one that needs a window has an end in any case, `until` or later.
/// Without one it would be in flight for ever at those who have it, if the notary was asked too early and never again.
fn window(
    (from, end): (Option<Timestamp>, Option<Timestamp>),
    until: Timestamp,
    is_needed: bool,
) -> LedgerResult<Option<TimeWindow>> {
    Ok(match (from, end) {
        (Some(from), Some(end)) => Some(TimeWindow::between(from, end)?),
        (Some(from), None) => Some(TimeWindow::between(from, until.max(from.plus(UNTIL)))?),
        (None, Some(end)) => Some(TimeWindow::until_only(end)),
        (None, None) => is_needed.then(|| TimeWindow::until_only(until)),
    })
}

/// The signer of a file after whom its contracts are called. Of several it is always the one of the same succession, whichever
/// key of it has signed this release: otherwise the states of a new release would be those of another contract.
fn publisher<'a>(file: &'a ContractAttachment, rules: &LedgerRules) -> Option<&'a PublicKey> {
    file.signers.iter().min_by_key(|key| (rules.first_of(key).clone(), (*key).clone()))
}

impl Drafted<'_> {
    fn builder(
        &self,
        draft: &TransactionDraft,
        outputs: Vec<OutputDraft>,
        references: &[StateAndRef],
        pointed: &Pointed,
        until: Timestamp,
    ) -> Built<TransactionBuilder> {
        let notary = match &draft.notary {
            Some(name) => Some(self.notary(name)?),
            None => None,
        };
        let mut builder = TransactionBuilder::new(notary);
        for input in self.inputs {
            or_refused(builder.input(input.clone()))?;
        }
        for reference in references {
            or_refused(builder.reference(reference.clone()))?;
        }
        for id in &draft.attachments {
            builder.attachment(attachment_id(id)?);
        }
        for output in outputs {
            or_refused(builder.output(output))?;
        }
        // Now, because a transaction that looks at something has a window.
        or_refused(builder.follow(pointed))?;
        for command in &draft.commands {
            let (value, signers) = self.command(command)?;
            or_refused(builder.command(value, signers))?;
        }
        // What consumes nothing needs no notary, so it gets no window unless its author wants one.
        let is_needed = !builder.inputs().is_empty() || !builder.references().is_empty();
        let at = |nanos: Option<u64>| nanos.map(Timestamp::from_nanos);
        let window = or_refused(window((at(draft.from), at(draft.until)), until, is_needed))?;
        if let Some(window) = window {
            or_refused(builder.time_window(window))?;
        }
        Ok(builder)
    }

    fn notary(&self, name: &str) -> Built<Party> {
        let parsed = X500Name::parse(name).map_err(|error| refusal::argument(error.to_string()))?;
        let notary = self.environment.notaries().into_iter().find(|notary| notary.name == parsed);
        notary.ok_or_else(|| {
            let message = format!("{name} is no notary of the network");
            refusal::refused(&Refused::new(Rule::NotaryUntrusted, message))
        })
    }

    /// The contract of a name: that of an input, else that of the newest installed code.
    fn contract(&self, name: &str) -> Built<ContractId> {
        let of_inputs = self.inputs.iter().map(|input| &input.state.contract);
        if let Some(contract) = of_inputs.into_iter().find(|contract| contract.name.as_str() == name) {
            return Ok(contract.clone());
        }
        let holding = self.installed.iter().filter(|attachment| attachment.contracts.contains(name));
        let newest = holding.max_by_key(|attachment| (attachment.version, attachment.id)).ok_or_else(|| {
            let message = format!("no installed attachment holds a contract '{name}'");
            refusal::refused(&Refused::new(Rule::AttachmentMissing, message).detail("contract", name))
        })?;
        Ok(ContractId { publisher: publisher(newest, self.rules).cloned(), name: or_refused(Name::new(name))? })
    }

    fn outputs(&self, draft: &TransactionDraft) -> Built<Vec<OutputDraft>> {
        draft.outputs.iter().map(|output| self.output(output)).collect()
    }

    fn output(&self, output: &DraftOutput) -> Built<OutputDraft> {
        let contract = self.contract(&output.contract)?;
        let contracts = &self.environment.services.contracts;
        let schema = contracts.schema(&contract, &output.type_name, self.rules).ok_or_else(|| {
            let message = format!("the contract '{}' has no type '{}'", output.contract, output.type_name);
            refusal::argument(message)
        })?;
        let notary = match &output.notary {
            Some(name) => Some(self.notary(name)?),
            None => None,
        };
        Ok(OutputDraft {
            contract,
            type_name: or_refused(Name::new(output.type_name.as_str()))?,
            schema,
            data: or_refused(Data::from_bytes(output.data.clone()))?,
            notary,
            encumbrance: output.encumbrance,
            constraint: None,
            pointers: Vec::new(),
        })
    }

    fn command(&self, command: &DraftCommand) -> Built<(CommandValue, Vec<PublicKey>)> {
        let value = CommandValue {
            contract: self.contract(&command.contract)?,
            name: or_refused(Name::new(command.name.as_str()))?,
            value: or_refused(Data::from_bytes(command.value.clone()))?,
        };
        let key = |spki: &Vec<u8>| {
            PublicKey::from_spki(spki).map_err(|error| refusal::argument(format!("a signer's key: {error}")))
        };
        let signers = command.signers.iter().map(key).collect::<Built<Vec<PublicKey>>>()?;
        Ok((value, signers))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use maxhost_ledger::keys::{Scheme, SigningKey};

    use super::*;

    #[test]
    fn the_contracts_of_a_file_are_called_after_one_succession_whichever_key_of_it_has_signed() {
        let key = |byte| SigningKey::from_seed(Scheme::Ed25519, &[byte; 32]).unwrap().public().clone();
        let by = |keys: &[&PublicKey]| ContractAttachment {
            signers: keys.iter().map(|key| (*key).clone()).collect(),
            ..ContractAttachment::data(maxhost_model::SecureHash::of(b"file"), 1)
        };
        let mut keys: Vec<PublicKey> = (1..=4).map(key).collect();
        keys.sort();
        let [first, other, new, newest] = <[PublicKey; 4]>::try_from(keys).unwrap();
        let rules =
            LedgerRules { rotations: vec![vec![first.clone(), new.clone(), newest.clone()]], ..LedgerRules::default() };
        // The other one's key stands before those of the successors.
        for signer in [&first, &new, &newest] {
            let file = by(&[signer, &other]);
            let named = publisher(&file, &rules);
            assert_eq!(named, Some(signer));
            assert_eq!(named.map(|key| rules.first_of(key)), Some(&first));
        }
        assert_eq!(
            publisher(&by(&[&new, &other]), &LedgerRules::default()),
            Some(&other),
            "without a succession the first"
        );
        assert_eq!(publisher(&by(&[]), &rules), None);
    }

    #[test]
    fn what_a_notary_has_to_decide_comes_to_an_end() {
        let [early, until, late] = [1_000, 2_000, 3_000].map(Timestamp::from_nanos);
        let built = |from, end| window((from, end), until, true).unwrap().unwrap();
        assert_eq!(built(None, None), TimeWindow::until_only(until));
        assert_eq!(built(None, Some(late)), TimeWindow::until_only(late));
        assert_eq!(built(Some(early), Some(late)), TimeWindow::between(early, late).unwrap());
        // A beginning alone: a day after it, whether it is over or ahead.
        assert_eq!(built(Some(early), None), TimeWindow::between(early, early.plus(UNTIL)).unwrap());
        let tomorrow = until.plus(UNTIL);
        assert_eq!(window((Some(early), None), tomorrow, true).unwrap(), TimeWindow::between(early, tomorrow).ok());
        assert_eq!(window((None, None), until, false).unwrap(), None);
        assert!(window((Some(late), Some(early)), until, true).is_err());
        assert!(window((Some(Timestamp::from_nanos(u64::MAX)), None), until, true).is_err(), "there is no later");
    }
}
