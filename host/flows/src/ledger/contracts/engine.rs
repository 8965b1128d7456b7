//! Contracts as the catalogue has them, run by the engine of the sandbox.

use std::collections::BTreeSet;
use std::sync::Arc;

use maxhost_cordapps::{DataFiles, InstalledContracts, SharedCode};
use maxhost_ledger::attachment::SignedCode;
use maxhost_ledger::codec;
use maxhost_ledger::tx::builder::Pointer;
use maxhost_ledger::tx::constraint::is_published_by;
use maxhost_ledger::tx::{ContractAttachment, ContractId, Data, LedgerRules, SchemaId, TransactionState};
use maxhost_ledger::vault::description::StateDescription;
use maxhost_ledger::vault::query::{EXTERNAL_ID, Value, fields};
use maxhost_ledger::{Refused, Rule};
use maxhost_model::{Code, Problem, PublicKey, SecureHash};
use maxhost_sandbox::contract::{Attached, ContractComponent, LocalError, StateType, ToVerify, Verdict};
use maxhost_sandbox::is_contract;
use maxhost_store::StoreError;
use maxhost_store::ledger::query::KEY_EXTERNAL_IDS;
use maxhost_store::ledger::{OutputState, StateContent, TokenAmount};
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use super::{Contracts, Examined, ToJudge, Trusting, is_code};

/// Bytes, about, of what is kept of what code says of states.
const DESCRIBED: u64 = 4 << 20;
/// How many states that are about; the table begins with room for them.
const ENTRIES: usize = 1_024;
/// What is kept of a state takes so many bytes for each of its own, and so many beside.
const KNOWN: usize = 4;
const BESIDE: usize = 512;

/// How many bytes an entry takes.
#[derive(Clone)]
struct Weight;

impl Weighter<SecureHash, Arc<OutputState>> for Weight {
    fn weight(&self, _: &SecureHash, output: &Arc<OutputState>) -> u64 {
        (output.content.state.len().saturating_mul(KNOWN) + BESIDE) as u64
    }
}

/// The contracts that are installed on a host.
pub(crate) struct EngineContracts {
    installed: Arc<InstalledContracts>,
    /// What the hosts of this database have in common.
    shared: Option<Arc<dyn SharedCode>>,
    /// Files of this host that are no code.
    data: DataFiles,
    /// What code says of states, by the hash of both: it always says the same. A state that one transaction makes is asked about
    /// again when the next one consumes it, and by each identity that it concerns.
    described: Cache<SecureHash, Arc<OutputState>, Weight>,
}

impl EngineContracts {
    /// Puts what is installed where other hosts find it. Blocking.
    pub fn new(
        installed: Arc<InstalledContracts>,
        shared: Option<Arc<dyn SharedCode>>,
        data: DataFiles,
    ) -> EngineContracts {
        let described = Cache::with_weighter(ENTRIES, DESCRIBED, Weight);
        let contracts = EngineContracts { installed, shared, data, described };
        contracts.offer();
        contracts
    }

    /// The newest code that holds a contract.
    fn newest(&self, contract: &ContractId, rules: &LedgerRules) -> Option<Arc<ContractComponent>> {
        let holds = |component: &Arc<ContractComponent>| {
            is_published_by(&component.signers, contract, rules)
                && component.descriptor.contract(contract.name.as_str()).is_some()
        };
        let found = self.installed.all().into_iter().filter(holds);
        found.max_by_key(|component| (component.descriptor.code_version, component.id))
    }

    /// Hosts of one database find each other's contracts there. Whatever is installed is put there; it stays as long as a
    /// host says that it uses it.
    fn offer(&self) {
        let Some(shared) = &self.shared else { return };
        for component in self.installed.all() {
            let offered = self.installed.file(&component.id);
            let offered = offered.and_then(|file| shared.offer(component.id.as_bytes(), &file));
            if let Err(problem) = offered {
                let name = &component.descriptor.name;
                tracing::warn!(contract = %name, %problem, "other hosts cannot find a contract that is installed here");
            }
        }
    }

    /// A file that another host of this database has installed.
    fn fetch(&self, id: &SecureHash) -> Result<Option<Vec<u8>>, Problem> {
        let Some(shared) = &self.shared else { return Ok(None) };
        Ok(shared.fetch(id.as_bytes())?.filter(|file| SecureHash::of(file) == *id))
    }

    /// Whether something vouches for code that came from a peer.
    fn is_vouched_for(&self, signed: &SignedCode, Trusting { named, in_force }: Trusting<'_>) -> bool {
        let installed = self.installed.all();
        let is_same = |one: &PublicKey, other: &PublicKey| {
            one == other || in_force.equivalent(one, other) || named.equivalent(one, other)
        };
        let vouches = |one: &Arc<ContractComponent>| {
            let has_signed = |key: &PublicKey| signed.signers.iter().any(|signer| is_same(key, signer));
            one.code_hash == signed.code_hash || one.signers.iter().any(has_signed)
        };
        installed.iter().any(vouches) || named.whitelist.values().any(|listed| listed.contains(&signed.id))
    }
}

/// Code that was brought by this, and that nothing vouches for.
fn untrusted(signed: &SignedCode, brought_by: &str) -> Refused {
    let message = format!(
        "the contract code {} came from {brought_by}, and nobody who has signed an installed contract has signed it: \
         get the file from whoever publishes it, check it, and import it with `maxhost attachment import`",
        signed.id
    );
    Refused::new(Rule::AttachmentUntrusted, message).detail("attachment", signed.id)
}

/// Trouble of this host passes: another attempt may find an instance.
fn local(error: &LocalError) -> Problem {
    Problem::new(Code::Overloaded, error.to_string())
}

impl Contracts for EngineContracts {
    fn installed(&self) -> Vec<ContractAttachment> {
        self.installed.attachments()
    }

    fn find(&self, id: &SecureHash) -> Option<Attached> {
        let installed = self.installed.by_id(id).map(Attached::installed);
        installed.or_else(|| self.data.size(id).map(|size| Attached::Data { id: *id, size }))
    }

    fn find_elsewhere(&self, id: &SecureHash) -> Result<Option<Attached>, Problem> {
        let Some(file) = self.fetch(id)? else { return Ok(None) };
        match self.installed.engine().load(&file) {
            Ok(component) => Ok(Some(Attached::installed(component))),
            Err(error) if error.is_retriable() => Err(error.into()),
            // Flows are there too, and no contracts.
            Err(_) => Ok(None),
        }
    }

    fn file(&self, id: &SecureHash) -> Result<Option<Vec<u8>>, Problem> {
        match self.installed.by_id(id) {
            Some(_) => self.installed.file(id).map(Some),
            None => match self.data.read(id) {
                Ok(Some(file)) => Ok(Some(file)),
                Ok(None) => self.fetch(id),
                Err(error) => {
                    let message = format!("the attachment {id} cannot be read: {error}");
                    Err(Problem::new(Code::FileUnreadable, message))
                }
            },
        }
    }

    fn admit(&self, file: &[u8], trusting: Trusting<'_>) -> Result<Result<Attached, Refused>, Problem> {
        let signed = match SignedCode::read(file) {
            Ok(signed) => signed,
            Err(refused) => return Ok(Err(refused)),
        };
        if !self.is_vouched_for(&signed, trusting) {
            return Ok(Err(untrusted(&signed, "a peer")));
        }
        let trusted = self.installed.all().iter().any(|one| one.code_hash == signed.code_hash);
        Ok(match self.installed.engine().load(file) {
            Ok(component) => Ok(Attached::Code { component, trusted }),
            Err(error) if error.is_retriable() => return Err(error.into()),
            Err(error) => {
                let message = format!("the contract code {} cannot be used: {error}", signed.id);
                Err(Refused::new(Rule::AttachmentInvalid, message).detail("attachment", signed.id))
            }
        })
    }

    fn check_import(&self, file: &[u8], trusting: Trusting<'_>) -> Result<(), Problem> {
        if !is_code(file) {
            return Ok(());
        }
        if !is_contract(file) {
            let message = "the file begins like WebAssembly and is no contract: flows are not attached to transactions, \
                           and neither is what is damaged";
            return Err(Problem::new(Code::ComponentInvalid, message).remedy(
                "import a file of `maxhost cordapp build` \
                 whose name ends in .contract.wasm",
            ));
        }
        let signed =
            SignedCode::read(file).map_err(|refused| Problem::new(Code::ComponentSignatures, refused.message()))?;
        if !self.is_vouched_for(&signed, trusting) {
            return Err(StoreError::Ledger(untrusted(&signed, "a client")).into());
        }
        self.installed.engine().load(file).map(drop).map_err(Problem::from)
    }

    fn schema(&self, contract: &ContractId, type_name: &str, rules: &LedgerRules) -> Option<SchemaId> {
        let component = self.newest(contract, rules)?;
        let of = component.descriptor.contract(contract.name.as_str())?.state(type_name)?;
        Some(of.schema_id())
    }

    fn has_pointers(&self, contract: &ContractId, type_name: &str, rules: &LedgerRules) -> bool {
        self.newest(contract, rules).is_some_and(|component| {
            let types = component.descriptor.contract(contract.name.as_str());
            types.and_then(|types| types.state(type_name)).is_some_and(StateType::has_pointers)
        })
    }

    fn pointers(
        &self,
        contract: &ContractId,
        type_name: &str,
        data: &Data,
        rules: &LedgerRules,
    ) -> Result<Result<Vec<Pointer>, Refused>, Problem> {
        let Some(component) = self.newest(contract, rules) else { return Ok(Ok(Vec::new())) };
        let name = contract.name.as_str();
        let told =
            self.installed.engine().pointers(&component, name, type_name, data).map_err(|error| local(&error))?;
        Ok(told.map_err(|fault| {
            let message = format!("the contract {name} does not say what its state points to: {}", fault.message);
            Refused::new(Rule::ContractRejected, message).detail("contract", name).detail("fault", fault.code)
        }))
    }

    fn judge(&self, given: ToJudge<'_>) -> Result<Result<(), Refused>, Problem> {
        let ToJudge { wire, inputs, references, attachments, network, rules } = given;
        let given = ToVerify { wire, inputs, references, attachments, network, rules };
        let verification = self.installed.engine().verify(given).map_err(|error| local(&error))?;
        Ok(verification.verdict.refusal(wire.id()).map_or(Ok(()), Err))
    }

    fn examine(&self, given: ToJudge<'_>) -> Result<Vec<Examined>, Problem> {
        let id = given.wire.id();
        let ToJudge { wire, inputs, references, attachments, network, rules } = given;
        let given = ToVerify { wire, inputs, references, attachments, network, rules };
        let verdicts = self.installed.engine().verify_each(given).map_err(|error| local(&error))?;
        let examined = |(contract, verdict): (_, Verdict)| Examined { contract, refused: verdict.refusal(id) };
        Ok(verdicts.into_iter().map(examined).collect())
    }

    fn describe(
        &self,
        state: &TransactionState,
        attachments: &[Attached],
        rules: &LedgerRules,
    ) -> Result<Result<OutputState, Refused>, Problem> {
        let name = state.contract.name.as_str();
        let mut codes = attachments.iter().filter_map(Attached::component);
        // Several publishers may have a contract of this name in one transaction, and code of another one may say anything: who
        // takes part in the state, above all.
        let holding = codes.find(|code| {
            code.descriptor.contract(name).is_some() && is_published_by(&code.signers, &state.contract, rules)
        });
        let Some(holding) = holding else {
            let message = format!("no attachment holds the contract {}", state.contract);
            return Ok(Err(Refused::new(Rule::AttachmentMissing, message).detail("contract", name)));
        };
        let encoded = match codec::encode("state", state) {
            Ok(encoded) => encoded,
            Err(refused) => return Ok(Err(refused)),
        };
        let known_as = SecureHash::of(&[&holding.id.as_bytes()[..], &encoded[..]].concat());
        if let Some(output) = self.described.get(&known_as) {
            return Ok(Ok(OutputState::clone(&output)));
        }
        let described = self.installed.engine().describe(holding, state).map_err(|error| local(&error))?;
        let times = holding.descriptor.contract(name).and_then(|one| one.state(state.type_name.as_str()));
        let times = times.map(|of| of.times.clone()).unwrap_or_default();
        Ok(match described {
            Ok(description) => output(state, encoded, &description, &times).inspect(|output| {
                self.described.insert(known_as, Arc::new(output.clone()));
            }),
            Err(fault) => {
                let message = format!("the contract {name} does not describe its state: {}", fault.message);
                Err(Refused::new(Rule::ContractRejected, message).detail("fault", fault.code))
            }
        })
    }

    fn rescan(&self) {
        if self.installed.rescan() {
            self.offer();
        }
    }
}

/// What a vault keeps of a state that is described so.
fn output(
    state: &TransactionState,
    encoded: Vec<u8>,
    description: &StateDescription,
    times: &BTreeSet<String>,
) -> Result<OutputState, Refused> {
    let mut participants = BTreeSet::new();
    for participant in description.participants.iter().chain(&description.owner) {
        participants.insert(participant.key.fingerprint().to_string());
        participants.extend(participant.name.as_ref().map(ToString::to_string));
    }
    let mut found = fields(&state.data, times)?;
    found.extend(description.attributes.iter().map(|(name, value)| (name.clone(), value.clone())));
    found.retain(|_, value| *value != Value::Null);
    // No data of the state's own stand in for what its contract says.
    found.remove(EXTERNAL_ID);
    found.remove(KEY_EXTERNAL_IDS);
    found.extend(description.external_id.as_ref().map(|id| (EXTERNAL_ID.to_owned(), Value::text(id))));
    // What can only be spent together with another state is no money to pay with.
    let amount = description.amount.as_ref().filter(|_| state.encumbrance.is_none()).map(|amount| TokenAmount {
        token: amount.token.clone(),
        issuer: amount.issuer.as_ref().map(|issuer| match &issuer.name {
            Some(name) => name.to_string(),
            None => issuer.key.fingerprint().to_string(),
        }),
        quantity: amount.quantity,
    });
    Ok(OutputState {
        described: description.for_recording(),
        content: StateContent {
            type_name: state.qualified_type(),
            state: encoded.into(),
            notary: state.notary.name.to_string(),
            constraint: state.constraint.kind().to_owned(),
            participants,
            fields: found,
            amount,
            linear_id: description.linear_id.map(hex::encode),
        },
    })
}
