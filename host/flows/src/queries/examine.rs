//! Verifying a transaction again, for people: all that is wrong with it, and with what (behaviour.md 10.7, 10.13).

use std::collections::BTreeMap;
use std::sync::Arc;

use maxhost_ledger::tx::{LedgerRules, StateAndRef, StateRef, TransactionSignature, WireTransaction};
use maxhost_ledger::vault::recording::TransactionStatus;
use maxhost_ledger::{Refused, Rule};
use maxhost_model::{Code, IdentityRow, Problem, PublicKey, SecureHash};
use maxhost_sandbox::contract::Attached;

use crate::api::ApiResult;
use crate::api::ledger::CheckView;
use crate::contracts::{Examined, ToJudge, is_code};
use crate::parts::Parts;

/// A transaction of an identity, with its signatures.
pub(super) struct Examining<'a> {
    pub parts: &'a Parts,
    pub identity: IdentityRow,
    pub wire: WireTransaction,
    pub signatures: Vec<TransactionSignature>,
}

fn check(what: &'static str, subject: impl ToString, outcome: Result<(), Refused>) -> CheckView {
    let (wrong, details) = match outcome {
        Ok(()) => (None, BTreeMap::new()),
        Err(refused) => (
            Some((refused.code().to_owned(), refused.message().to_owned())),
            refused.details().iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect(),
        ),
    };
    CheckView { what, subject: subject.to_string(), wrong, details }
}

impl Examining<'_> {
    /// Everything that can be checked with what is here, in the order of the rules. `known_as` gives the name of a key, if
    /// it has one, and its fingerprint.
    pub async fn checks(&self, known_as: impl Fn(&PublicKey) -> (Option<String>, String)) -> ApiResult<Vec<CheckView>> {
        let name = |key: &PublicKey| {
            let (name, fingerprint) = known_as(key);
            name.unwrap_or(fingerprint)
        };
        let network = SecureHash::of(self.parts.network.trust_root().der());
        let contents = self.wire.contents();
        let rules = self.rules()?;
        let named = contents.parameters.map_or_else(|| "none".to_owned(), |hash| hash.to_string());
        let of_rules = rules.as_ref().map(|_| ()).map_err(Clone::clone);
        let mut checks = vec![
            check("network", contents.header.network, contents.header.check_network(&network)),
            check("parameters", named, of_rules),
        ];
        checks.extend(self.signatures(name));
        let inputs = self.states("input", &contents.inputs, &mut checks).await?;
        self.spent(&mut checks).await?;
        let references = self.states("reference", &contents.references, &mut checks).await?;
        let attachments = self.attachments(&mut checks).await?;
        if let (Ok(rules), Some(inputs), Some(references), Some(attachments)) = (rules, inputs, references, attachments)
        {
            checks.extend(self.judged(network, rules, inputs, references, attachments).await?);
        }
        Ok(checks)
    }

    fn rules(&self) -> ApiResult<Result<LedgerRules, Refused>> {
        let parameters = self.parts.network.parameters();
        match self.wire.contents().parameters {
            Some(hash) if hash == parameters.hash() => {
                let rules = LedgerRules::of(&parameters, Vec::new(), self.parts.development);
                rules.map(Ok).map_err(|refused| Problem::new(Code::NetworkInvalid, refused.to_string()))
            }
            Some(hash) => {
                let message = format!("the network parameters {hash} are not known here");
                Ok(Err(Refused::new(Rule::ParametersUnknown, message).detail("parameters", hash)))
            }
            None => Ok(Err(Refused::new(Rule::ParametersMissing, "no hash of network parameters is given"))),
        }
    }

    /// Each signature that is there, then each key that must sign and has not.
    fn signatures(&self, name: impl Fn(&PublicKey) -> String) -> Vec<CheckView> {
        let id = self.wire.id();
        let mut checks: Vec<CheckView> = self
            .signatures
            .iter()
            .map(|signature| check("signature", name(signature.by()), signature.verify(&id)))
            .collect();
        let signers = self.signatures.iter().map(TransactionSignature::by).collect();
        for key in self.wire.required_keys() {
            if !maxhost_ledger::keys::is_fulfilled_by(&key, &signers) {
                let refused = Refused::new(Rule::SignatureMissing, "this key must sign, and has not");
                checks.push(check("signer", name(&key), Err(refused.detail("keys", &key))));
            }
        }
        checks
    }

    /// The states of references; `None` unless all of them are here and verified.
    async fn states(
        &self,
        what: &'static str,
        references: &[StateRef],
        checks: &mut Vec<CheckView>,
    ) -> ApiResult<Option<Vec<StateAndRef>>> {
        let mut found = Vec::with_capacity(references.len());
        for reference in references {
            let state = self.state(reference).await?;
            let outcome = state.map(|state| found.push(state));
            checks.push(check(what, reference, outcome));
        }
        Ok((found.len() == references.len()).then_some(found))
    }

    async fn state(&self, reference: &StateRef) -> ApiResult<Result<StateAndRef, Refused>> {
        let unknown = |message: &str| Err(Refused::new(Rule::StateUnknown, message).detail("state", reference));
        let found = self.parts.store.ledger_transaction(self.identity, &reference.tx).await.map_err(Problem::from)?;
        let Some(found) = found else { return Ok(unknown("the transaction that made it is not here")) };
        if found.status != TransactionStatus::Verified {
            return Ok(unknown("the transaction that made it is not verified"));
        }
        let Some(Ok(wire)) = found.body.as_ref().map(|body| WireTransaction::decode(body)) else {
            return Ok(unknown("the transaction that made it cannot be read here"));
        };
        Ok(match wire.contents().outputs.get(reference.index as usize) {
            Some(state) => Ok(StateAndRef { state: state.clone(), reference: *reference }),
            None => unknown("the transaction that should have made it makes no such state"),
        })
    }

    /// Inputs that another transaction has consumed.
    async fn spent(&self, checks: &mut Vec<CheckView>) -> ApiResult<()> {
        let inputs = &self.wire.contents().inputs;
        let spent = self.parts.store.spent_by(self.identity, inputs).await.map_err(Problem::from)?;
        for (state, by) in spent.into_iter().filter(|(_, by)| *by != self.wire.id()) {
            let refused = Refused::new(Rule::RecordingInvalid, format!("the transaction {by} has consumed it"));
            checks.push(check("input", state, Err(refused.detail("consumed_by", by))));
        }
        Ok(())
    }

    /// The attachments; `None` unless all of them are here, and those that are code may be run.
    async fn attachments(&self, checks: &mut Vec<CheckView>) -> ApiResult<Option<Vec<Attached>>> {
        let ids = &self.wire.contents().attachments;
        let mut found = Vec::with_capacity(ids.len());
        for id in ids {
            let outcome = self.attachment(id).await?.map(|attached| found.push(attached));
            checks.push(check("attachment", id, outcome));
        }
        Ok((found.len() == ids.len()).then_some(found))
    }

    async fn attachment(&self, id: &SecureHash) -> ApiResult<Result<Attached, Refused>> {
        let (contracts, asked) = (self.parts.contracts.clone(), *id);
        let installed = tokio::task::spawn_blocking(move || match contracts.find(&asked) {
            Some(found) => Ok(Some(found)),
            None => contracts.find_elsewhere(&asked),
        });
        let installed = installed.await.map_err(|error| Problem::new(Code::Internal, error.to_string()))??;
        if let Some(installed) = installed {
            return Ok(Ok(installed));
        }
        let Some(kept) = self.parts.store.attachment(self.identity, id).await.map_err(Problem::from)? else {
            let message = "it is neither installed here nor in the ledger";
            return Ok(Err(Refused::new(Rule::AttachmentMissing, message).detail("attachment", id)));
        };
        if !is_code(&kept.body) {
            return Ok(Ok(Attached::Data { id: *id, size: kept.body.len() as u64 }));
        }
        let rules = LedgerRules::of(&self.parts.network.parameters(), Vec::new(), self.parts.development);
        let whitelist = rules.map(|rules| rules.whitelist).unwrap_or_default();
        let contracts = self.parts.contracts.clone();
        let admitted = tokio::task::spawn_blocking(move || contracts.admit(&kept.body, &whitelist));
        admitted.await.map_err(|error| Problem::new(Code::Internal, error.to_string()))?
    }

    async fn judged(
        &self,
        network: SecureHash,
        rules: LedgerRules,
        inputs: Vec<StateAndRef>,
        references: Vec<StateAndRef>,
        attachments: Vec<Attached>,
    ) -> ApiResult<Vec<CheckView>> {
        let (contracts, wire) = (self.parts.contracts.clone(), Arc::new(self.wire.clone()));
        let examined = tokio::task::spawn_blocking(move || {
            let (inputs, references, attachments) = (&inputs, &references, &attachments[..]);
            contracts.examine(ToJudge {
                wire: &wire,
                inputs,
                references,
                attachments,
                network: &network,
                rules: &rules,
            })
        });
        let examined = examined.await.map_err(|error| Problem::new(Code::Internal, error.to_string()))??;
        let view = |Examined { contract, refused }| match contract {
            None => check("rules", "of the ledger", refused.map_or(Ok(()), Err)),
            Some(contract) => check("contract", contract.name, refused.map_or(Ok(()), Err)),
        };
        Ok(examined.into_iter().map(view).collect())
    }
}
