//! Verifying a transaction again, for people: all that is wrong with it, and with what (behaviour.md 10.7, 10.13).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use maxhost_ledger::notary::check_final;
use maxhost_ledger::tx::verify::check_epochs;
use maxhost_ledger::tx::{
    Core as TxCore, LedgerRules, NotaryChange, StateAndRef, StateRef, TransactionSignature, WireTransaction,
};
use maxhost_ledger::vault::recording::TransactionStatus;
use maxhost_ledger::{Refused, Rule};
use maxhost_model::{Code, IdentityRow, Problem, PublicKey, SecureHash};
use maxhost_sandbox::contract::Attached;

use crate::api::ApiResult;
use crate::api::ledger::CheckView;
use crate::base::trouble::Trouble;
use crate::calls::{Traced, Transactions, kind_of, trace};
use crate::host::parts::Parts;
use crate::ledger::contracts::{Examined, ToJudge, Trusting, is_code};
use crate::ledger::parameters::KnownParameters;

/// A transaction of an identity, with its signatures.
pub(super) struct Examining<'a> {
    pub parts: &'a Parts,
    pub identity: IdentityRow,
    pub core: TxCore,
    pub signatures: Vec<TransactionSignature>,
}

/// The ledger of an identity, as the database has it.
pub(super) struct LedgerOf<'a> {
    pub parts: &'a Parts,
    pub identity: IdentityRow,
}

impl Transactions for LedgerOf<'_> {
    type Error = Problem;

    async fn core(&self, id: &SecureHash) -> ApiResult<Option<TxCore>> {
        let found = self.parts.store.ledger_transaction(self.identity, id).await.map_err(Problem::from)?;
        let Some(found) = found.filter(|found| found.status == TransactionStatus::Verified) else { return Ok(None) };
        // What cannot be read is not there.
        Ok(found.body.and_then(|body| TxCore::decode(kind_of(found.kind), &body).ok()))
    }
}

fn problem_of(trouble: Trouble) -> Problem {
    trouble.problem().clone()
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
        let parameters = self.parameters().await?;
        let named = self.core.parameters().map_or_else(|| "none".to_owned(), |hash| hash.to_string());
        let of_parameters = match &parameters {
            Ok(known) => self.epochs(known).await?,
            Err(refused) => Err(refused.clone()),
        };
        let mut checks = vec![
            check("network", self.core.header().network, self.core.header().check_network(&network)),
            check("parameters", named, of_parameters),
        ];
        checks.extend(self.signatures(name));
        let inputs = self.states("input", self.core.inputs(), &mut checks).await?;
        self.spent(&mut checks).await?;
        let wire = match &self.core {
            TxCore::Wire(wire) => wire.clone(),
            TxCore::NotaryChange(change) => {
                if let (Ok(known), Some(inputs)) = (parameters, inputs) {
                    checks.extend(self.judged_change(change, &known.rules, &inputs, name).await?);
                }
                return Ok(checks);
            }
        };
        let references = self.states("reference", self.core.references(), &mut checks).await?;
        let attachments = self.attachments(self.core.attachments(), &mut checks).await?;
        let only = |states: Vec<(StateAndRef, Traced)>| states.into_iter().map(|(state, _)| state).collect::<Vec<_>>();
        let (inputs, references) = (inputs.map(only), references.map(only));
        if let (Ok(known), Some(inputs), Some(references), Some(attachments)) =
            (parameters, inputs, references, attachments)
        {
            checks.extend(self.judged(wire, network, known, inputs, references, attachments).await?);
        }
        Ok(checks)
    }

    /// The parameters that it names, if the identity knows them.
    async fn parameters(&self) -> ApiResult<Result<Arc<KnownParameters>, Refused>> {
        self.parts.parameters.named(self.identity, self.core.parameters()).await.map_err(problem_of)
    }

    async fn known(&self, hash: &SecureHash) -> ApiResult<Option<Arc<KnownParameters>>> {
        self.parts.parameters.of(self.identity, hash).await.map_err(problem_of)
    }

    /// Whether the parameters that it names are no older than those of the transactions whose states it names.
    async fn epochs(&self, own: &KnownParameters) -> ApiResult<Result<(), Refused>> {
        let ledger = LedgerOf { parts: self.parts, identity: self.identity };
        let mut epochs = Vec::new();
        for reference in self.core.inputs().iter().chain(self.core.references()) {
            let Some(parent) = ledger.core(&reference.tx).await? else { continue };
            if let Some(hash) = parent.parameters()
                && let Some(theirs) = self.known(hash).await?
            {
                epochs.push((*reference, theirs.epoch));
            }
        }
        Ok(check_epochs(self.core.id(), own.epoch, epochs))
    }

    /// Each signature that is there, then each party that must sign and has not, and the notary if it has not notarised it.
    fn signatures(&self, name: impl Fn(&PublicKey) -> String) -> Vec<CheckView> {
        let id = self.core.id();
        let mut checks: Vec<CheckView> = self
            .signatures
            .iter()
            .map(|signature| check("signature", name(signature.by()), signature.verify(&id)))
            .collect();
        checks.extend(self.missing(self.core.party_keys(), &name));
        if let (Some(notary), Err(refused)) = (self.core.notary(), check_final(&self.core, &self.signatures)) {
            checks.push(check("signer", name(&notary.owning_key), Err(refused)));
        }
        checks
    }

    /// Those of these keys that have not signed as parties.
    fn missing(&self, required: BTreeSet<PublicKey>, name: impl Fn(&PublicKey) -> String) -> Vec<CheckView> {
        let of_parties = self.signatures.iter().filter(|signature| signature.notary_statement().is_none());
        let signers = of_parties.map(TransactionSignature::by).collect();
        let missing = required.into_iter().filter(|key| !maxhost_ledger::keys::is_fulfilled_by(key, &signers));
        let refused = |key: PublicKey| {
            let refused = Refused::new(Rule::SignatureMissing, "this key must sign, and has not");
            check("signer", name(&key), Err(refused.detail("keys", &key)))
        };
        missing.map(refused).collect()
    }

    /// The states of references; `None` unless all of them are here and verified.
    async fn states(
        &self,
        what: &'static str,
        references: &[StateRef],
        checks: &mut Vec<CheckView>,
    ) -> ApiResult<Option<Vec<(StateAndRef, Traced)>>> {
        let mut found = Vec::with_capacity(references.len());
        for reference in references {
            let state = self.state(reference).await?;
            let outcome = state.map(|state| found.push(state));
            checks.push(check(what, reference, outcome));
        }
        Ok((found.len() == references.len()).then_some(found))
    }

    async fn state(&self, reference: &StateRef) -> ApiResult<Result<(StateAndRef, Traced), Refused>> {
        let unknown = |message: &str| Err(Refused::new(Rule::StateUnknown, message).detail("state", reference));
        let found = self.parts.store.ledger_transaction(self.identity, &reference.tx).await.map_err(Problem::from)?;
        let Some(found) = found else { return Ok(unknown("the transaction that made it is not here")) };
        if found.status != TransactionStatus::Verified {
            return Ok(unknown("the transaction that made it is not verified"));
        }
        if found.body.is_none() {
            return Ok(unknown("the transaction that made it cannot be read here"));
        }
        let ledger = LedgerOf { parts: self.parts, identity: self.identity };
        Ok(match trace(&ledger, reference).await? {
            Some(traced) => Ok((StateAndRef { state: traced.state.clone(), reference: *reference }, traced)),
            None => unknown("the transaction that should have made it makes no such state"),
        })
    }

    /// What is wrong with what a change of notary says, and who has not signed of those who take part in its states.
    async fn judged_change(
        &self,
        change: &NotaryChange,
        rules: &LedgerRules,
        inputs: &[(StateAndRef, Traced)],
        name: impl Fn(&PublicKey) -> String,
    ) -> ApiResult<Vec<CheckView>> {
        let mut checks = Vec::new();
        let mut participants = BTreeSet::new();
        for (_, Traced { state, attachments, parameters }) in inputs {
            let Some(attachments) = self.attachments(attachments, &mut checks).await? else { continue };
            let (contracts, contract, state) = (self.parts.contracts.clone(), state.contract.clone(), state.clone());
            // By the parameters under which it was made.
            let made_under = match parameters {
                Some(hash) => self.known(hash).await?,
                None => None,
            };
            let rules = made_under.map_or_else(|| rules.clone(), |known| known.rules.clone());
            let described = tokio::task::spawn_blocking(move || contracts.describe(&state, &attachments, &rules));
            let described = described.await.map_err(|error| Problem::new(Code::Internal, error.to_string()))??;
            let described = described.map(|output| participants.extend(output.described.participants));
            if described.is_err() {
                checks.push(check("contract", contract.name, described));
            }
        }
        checks.extend(self.missing(participants, name));
        let states: Vec<StateAndRef> = inputs.iter().map(|(state, _)| state.clone()).collect();
        let outcome = change
            .check_new_notary(&rules.notaries)
            .and_then(|()| change.check_old_notary(&states, &rules.notaries))
            .and_then(|()| change.outputs(&states).map(drop));
        checks.push(check("rules", "of the ledger", outcome));
        Ok(checks)
    }

    /// Inputs that another transaction has consumed.
    async fn spent(&self, checks: &mut Vec<CheckView>) -> ApiResult<()> {
        let inputs = self.core.inputs();
        let spent = self.parts.store.spent_by(self.identity, inputs).await.map_err(Problem::from)?;
        for (state, by) in spent.into_iter().filter(|(_, by)| *by != self.core.id()) {
            let refused = Refused::new(Rule::RecordingInvalid, format!("the transaction {by} has consumed it"));
            checks.push(check("input", state, Err(refused.detail("consumed_by", by))));
        }
        Ok(())
    }

    /// The attachments; `None` unless all of them are here, and those that are code may be run.
    async fn attachments(&self, ids: &[SecureHash], checks: &mut Vec<CheckView>) -> ApiResult<Option<Vec<Attached>>> {
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
        let named = match self.core.parameters() {
            Some(hash) => self.known(hash).await?,
            None => None,
        };
        let in_force = self.parts.parameters.in_force().map_err(problem_of)?;
        let named = named.unwrap_or_else(|| in_force.clone());
        let contracts = self.parts.contracts.clone();
        let admitted = tokio::task::spawn_blocking(move || {
            contracts.admit(&kept.body, Trusting { named: &named.rules, in_force: &in_force.rules })
        });
        admitted.await.map_err(|error| Problem::new(Code::Internal, error.to_string()))?
    }

    async fn judged(
        &self,
        wire: Arc<WireTransaction>,
        network: SecureHash,
        parameters: Arc<KnownParameters>,
        inputs: Vec<StateAndRef>,
        references: Vec<StateAndRef>,
        attachments: Vec<Attached>,
    ) -> ApiResult<Vec<CheckView>> {
        let contracts = self.parts.contracts.clone();
        let examined = tokio::task::spawn_blocking(move || {
            let (inputs, references, attachments) = (&inputs, &references, &attachments[..]);
            contracts.examine(ToJudge {
                wire: &wire,
                inputs,
                references,
                attachments,
                network: &network,
                rules: &parameters.rules,
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
