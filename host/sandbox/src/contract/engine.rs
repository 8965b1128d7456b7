//! The engine that contracts run on: loading code, judging transactions, describing states.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use maxhost_ledger::attachment::SignedCode;
use maxhost_ledger::tx::builder::Pointer;
use maxhost_ledger::tx::verify::{Resolved, ToRun, verify as verify_by_rules};
use maxhost_ledger::tx::{ContractId, ContractLimits, Data, LedgerTransaction, TransactionState};
use maxhost_ledger::vault::description::StateDescription;
use maxhost_ledger::{Refused, Rule};
use maxhost_model::SecureHash;
use parking_lot::Mutex;
use wasmtime::component::Linker;
use wasmtime::{Engine, Store};

use super::bindings::{self, ContractPre};
use super::component::ContractComponent;
use super::depth::count_calls;
use super::description::{description, pointers};
use super::descriptor::ContractDescriptor;
use super::fuel::PER_INPUT_BYTE;
use super::instance::{Budget, CallEnd, Instance, TICK, bounded, end_of, not_made};
use super::profile::check_profile;
use super::settings::{EngineSettings, make_engine};
use super::slots::Slots;
use super::to_verify::{Attached, ToVerify};
use super::verdict::{ContractFault, LocalError, Usage, Verdict, Verification};
use crate::code_cache::CodeCache;
use crate::error::{SandboxError, chain};
use crate::machine_code::{Compiler, machine_code};
use crate::ticker::Ticker;

/// Names how code is changed before it is compiled; another way needs another name.
const PROFILE: &str = "profile 1: calls counted";
/// What describing may use: it is no matter of the network, because it decides nothing on the ledger.
const DESCRIBE_FUEL: u64 = 50_000_000;
const DESCRIBE_MEMORY: u64 = 16 << 20;
/// So many components stay loaded that were used last.
const KEPT: usize = 256;
/// Slots for each thread of the machine.
const SLOTS_PER_THREAD: u32 = 4;

/// The place where contracts run. Clones are one and the same engine. All calls block: a few hundred microseconds, seconds
/// at the worst, and longer while code is compiled.
#[derive(Clone)]
pub struct ContractEngine {
    inner: Arc<Inner>,
}

struct Inner {
    engine: Engine,
    compiler: Compiler,
    slots: Slots,
    cache: Option<CodeCache>,
    loaded: Mutex<Loaded>,
    /// Held while code is compiled, so that nobody compiles what another is compiling.
    compiling: Mutex<()>,
    ticker: Ticker,
}

#[derive(Default)]
struct Loaded {
    components: HashMap<SecureHash, Arc<ContractComponent>>,
    /// The most recent last.
    recent: VecDeque<SecureHash>,
}

impl ContractEngine {
    /// An engine that keeps compiled code in a folder of its own, which is made when it is absent; without a folder
    /// nothing is kept.
    ///
    /// # Errors
    /// [`SandboxError::CacheFolder`], [`SandboxError::Engine`].
    pub fn new(cache_dir: Option<&Path>) -> Result<ContractEngine, SandboxError> {
        ContractEngine::with(cache_dir, ContractEngine::usual_slots(), &EngineSettings::default())
    }

    /// How many contracts an engine runs at once, unless it is told otherwise. Whoever wants more to run waits.
    #[must_use]
    pub fn usual_slots() -> u32 {
        let threads = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        u32::try_from(threads).unwrap_or(16).saturating_mul(SLOTS_PER_THREAD).clamp(8, 64)
    }

    /// With settings that must make no difference to any verdict.
    ///
    /// # Errors
    /// As [`ContractEngine::new`].
    pub fn with(
        cache_dir: Option<&Path>,
        slots: u32,
        settings: &EngineSettings,
    ) -> Result<ContractEngine, SandboxError> {
        let (engine, compiler) = make_engine(slots, settings)?;
        let cache = match cache_dir {
            Some(folder) => Some(CodeCache::open(&PathBuf::from(folder), &engine)?),
            None => None,
        };
        let ticker = Ticker::start(engine.clone(), TICK)?;
        let inner = Inner {
            engine,
            compiler,
            slots: Slots::new(slots),
            cache,
            loaded: Mutex::default(),
            compiling: Mutex::new(()),
            ticker,
        };
        Ok(ContractEngine { inner: Arc::new(inner) })
    }

    /// Makes contract code ready to be asked, from the bytes of its signed file. Blocks while it compiles.
    ///
    /// # Errors
    /// [`SandboxError`]: its signatures, the profile, its world, or what it says of itself.
    pub fn load(&self, file: &[u8]) -> Result<Arc<ContractComponent>, SandboxError> {
        let id = SecureHash::of(file);
        if let Some(component) = self.loaded(&id) {
            return Ok(component);
        }
        let signed = SignedCode::read(file).map_err(|refused| SandboxError::Signatures { refused })?;
        let _turn = self.inner.compiling.lock();
        if let Some(component) = self.loaded(&id) {
            return Ok(component);
        }
        let contract = self.link(&signed, signed.code(file))?;
        let descriptor = self.describe_code(&contract)?;
        let component = Arc::new(ContractComponent::new(signed, file.len(), descriptor, contract));
        self.inner.loaded.lock().keep(&component);
        Ok(component)
    }

    /// Code that is in memory.
    #[must_use]
    pub fn loaded(&self, id: &SecureHash) -> Option<Arc<ContractComponent>> {
        let mut loaded = self.inner.loaded.lock();
        let component = loaded.components.get(id).cloned()?;
        loaded.touch(*id);
        Some(component)
    }

    fn link(&self, signed: &SignedCode, code: &[u8]) -> Result<ContractPre<Budget>, SandboxError> {
        check_profile(code)?;
        // What is compiled depends on the code, and on what the profile makes of it.
        let compiled_as = SecureHash::of(&[signed.code_hash.as_bytes(), PROFILE.as_bytes()].concat());
        let Inner { engine, compiler, cache, .. } = &*self.inner;
        let counted = || Ok(count_calls(code)?.into());
        let (component, _) = machine_code(engine, compiler, cache.as_ref(), compiled_as.as_bytes(), counted)?;
        let linker = Linker::<Budget>::new(&self.inner.engine);
        let wrong = |error: wasmtime::Error| SandboxError::WrongWorld { world: "contract", reason: chain(&error) };
        linker.instantiate_pre(&component).and_then(ContractPre::new).map_err(wrong)
    }

    fn describe_code(&self, contract: &ContractPre<Budget>) -> Result<ContractDescriptor, SandboxError> {
        let failed = |end: CallEnd| SandboxError::DescribeFailed { reason: words(end) };
        let _slot = self.inner.slots.take().map_err(|error| failed(CallEnd::Local(error)))?;
        let name = "the component";
        let _ticking = self.inner.ticker.ticking();
        let make = async |store: &mut _| contract.instantiate_async(store).await;
        let mut instance = Instance::new(&self.inner.engine, make, DESCRIBE_FUEL, DESCRIBE_MEMORY)
            .map_err(|error| failed(not_made(&error, name)))?;
        match instance.call(async |contract, store| contract.call_describe_contract(store).await) {
            Ok(descriptor) => ContractDescriptor::try_from(descriptor),
            Err(error) => Err(failed(end_of(&error, name))),
        }
    }

    /// Judges a transaction: first by the rules of the ledger that need no contract, then by each contract of its inputs
    /// and outputs, in the order of their ids, each in a fresh instance of its code.
    ///
    /// # Errors
    /// [`LocalError`]: trouble of this host, which decides nothing.
    pub fn verify(&self, given: ToVerify<'_>) -> Result<Verification, LocalError> {
        let attachments: Vec<_> = given.attachments.iter().map(Attached::attachment).collect();
        let resolved = Resolved { inputs: given.inputs, references: given.references, attachments: &attachments };
        let refused = |refused: Refused| {
            Ok(Verification { verdict: Verdict::Refused(refused.of(given.wire.id())), usage: Vec::new() })
        };
        let run = match verify_by_rules(given.wire, resolved, given.network, given.rules) {
            Ok(run) => run,
            Err(error) => return refused(error),
        };
        let transaction = LedgerTransaction::new(given.wire, given.inputs, given.references, given.rules);
        let bytes = match transaction.encode() {
            Ok(bytes) => bytes,
            Err(error) => return refused(error),
        };
        let mut usage = Vec::with_capacity(run.len());
        for to_run in run {
            let (verdict, used) = self.verify_one(&to_run, given, &transaction, &bytes)?;
            usage.extend(used);
            if !verdict.is_accepted() {
                return Ok(Verification { verdict, usage });
            }
        }
        Ok(Verification { verdict: Verdict::Accepted, usage })
    }

    /// As [`ContractEngine::verify`], for people: asks every contract, also behind one that does not accept. A rule of the
    /// ledger that is broken comes alone, because contracts run behind the rules.
    ///
    /// # Errors
    /// As there.
    pub fn verify_each(&self, given: ToVerify<'_>) -> Result<Vec<(Option<ContractId>, Verdict)>, LocalError> {
        let attachments: Vec<_> = given.attachments.iter().map(Attached::attachment).collect();
        let resolved = Resolved { inputs: given.inputs, references: given.references, attachments: &attachments };
        let transaction = LedgerTransaction::new(given.wire, given.inputs, given.references, given.rules);
        let ready = verify_by_rules(given.wire, resolved, given.network, given.rules)
            .and_then(|run| transaction.encode().map(|bytes| (run, bytes)));
        let (run, bytes) = match ready {
            Ok(ready) => ready,
            Err(refused) => return Ok(vec![(None, Verdict::Refused(refused.of(given.wire.id())))]),
        };
        let mut verdicts = vec![(None, Verdict::Accepted)];
        for to_run in run {
            let (verdict, _) = self.verify_one(&to_run, given, &transaction, &bytes)?;
            verdicts.push((Some(to_run.contract), verdict));
        }
        Ok(verdicts)
    }

    /// Asks one contract of a transaction, after the types of its states.
    fn verify_one(
        &self,
        ToRun { contract, attachment }: &ToRun,
        given: ToVerify<'_>,
        transaction: &LedgerTransaction,
        bytes: &[u8],
    ) -> Result<(Verdict, Option<Usage>), LocalError> {
        let mut codes = given.attachments.iter().filter_map(Attached::component);
        let code = codes.find(|code| code.id == *attachment);
        let code = code.ok_or(LocalError::NotLoaded { attachment: *attachment })?;
        if let Err(error) = check_types(contract, code, transaction) {
            return Ok((Verdict::Refused(error.of(given.wire.id())), None));
        }
        let (verdict, used) = self.verify_by_contract(code, contract, bytes, given.rules.limits)?;
        Ok((verdict, Some(used)))
    }

    /// Asks one contract about a transaction, without the rules of the ledger: for tests of contracts. The bytes are those
    /// of [`LedgerTransaction::encode`].
    ///
    /// # Errors
    /// [`LocalError`].
    pub fn verify_by_contract(
        &self,
        code: &ContractComponent,
        contract: &ContractId,
        transaction: &[u8],
        limits: ContractLimits,
    ) -> Result<(Verdict, Usage), LocalError> {
        let name = contract.name.as_str();
        let input = PER_INPUT_BYTE.saturating_mul(transaction.len() as u64);
        let out_of_fuel = || Verdict::OutOfFuel { contract: contract.clone(), limit: limits.fuel };
        let with_usage = |verdict, fuel: u64, memory| (verdict, Usage { contract: contract.clone(), fuel, memory });
        let Some(fuel) = limits.fuel.checked_sub(input) else { return Ok(with_usage(out_of_fuel(), limits.fuel, 0)) };
        let _slot = self.inner.slots.take()?;
        let _ticking = self.inner.ticker.ticking();
        let verdict_of = |end: CallEnd| match end {
            CallEnd::OutOfFuel => Ok(out_of_fuel()),
            CallEnd::OverMemory => Ok(Verdict::OverMemory { contract: contract.clone(), limit: limits.memory }),
            CallEnd::Trap(fault) => Ok(Verdict::Rejected { contract: contract.clone(), fault }),
            CallEnd::Local(error) => Err(error),
        };
        let make = async |store: &mut _| code.contract.instantiate_async(store).await;
        let mut instance = match Instance::new(&self.inner.engine, make, fuel, limits.memory) {
            Ok(instance) => instance,
            Err(error) => return Ok(with_usage(verdict_of(not_made(&error, name))?, 0, 0)),
        };
        let id = bindings::ContractId {
            publisher: contract.publisher.as_ref().map(|key| key.spki().to_vec()),
            name: name.to_owned(),
        };
        let called = instance.call(async |contract, store| contract.call_verify(store, &id, transaction).await);
        let verdict = match called {
            Ok(Ok(())) => Verdict::Accepted,
            Ok(Err(fault)) => {
                Verdict::Rejected { contract: contract.clone(), fault: bounded(fault.code, fault.message) }
            }
            Err(error) => verdict_of(end_of(&error, name))?,
        };
        let used = instance.used();
        Ok(with_usage(verdict, used.fuel.saturating_add(input), used.memory))
    }

    /// What the code of a state's contract says of it. A fault is the contract's, or `describe/…` when what it says breaks a
    /// rule, and `limit/…` when it takes too much.
    ///
    /// # Errors
    /// [`LocalError`].
    pub fn describe(
        &self,
        code: &ContractComponent,
        state: &TransactionState,
    ) -> Result<Result<StateDescription, ContractFault>, LocalError> {
        let (contract, type_name) = (state.contract.name.as_str(), state.type_name.as_str());
        let Some(of) = code.descriptor.contract(contract).and_then(|one| one.state(type_name)) else {
            let message = format!("the code has no type {}", state.qualified_type());
            return Ok(Err(ContractFault { code: "describe/unknown-type".to_owned(), message }));
        };
        let data = state.data.bytes();
        let described = self.ask(
            contract,
            async |store| code.contract.instantiate_async(store).await,
            async |code, store| code.call_describe(store, contract, type_name, data).await,
        )?;
        Ok(match described {
            Ok(Ok(given)) => description(given, of),
            Ok(Err(fault)) => Err(bounded(fault.code, fault.message)),
            Err(fault) => Err(fault),
        })
    }

    /// What a state of this contract and type must be looked at with, by its code: what its resolved pointers lead to. Faults
    /// are those of [`ContractEngine::describe`].
    ///
    /// # Errors
    /// [`LocalError`].
    pub fn pointers(
        &self,
        code: &ContractComponent,
        contract: &str,
        type_name: &str,
        data: &Data,
    ) -> Result<Result<Vec<Pointer>, ContractFault>, LocalError> {
        let Some(exports) = &code.pointers else { return Ok(Ok(Vec::new())) };
        let data = data.bytes();
        let told = self.ask(
            contract,
            async |store| exports.instantiate_async(store).await,
            async |code, store| code.call_pointers(store, contract, type_name, data).await,
        )?;
        Ok(match told {
            Ok(Ok(given)) => pointers(given),
            Ok(Err(message)) => Err(bounded("describe/refused".to_owned(), message)),
            Err(fault) => Err(fault),
        })
    }

    /// Asks code about a state, in a fresh instance with what describing may use.
    fn ask<E, T>(
        &self,
        contract: &str,
        make: impl AsyncFnOnce(&mut Store<Budget>) -> wasmtime::Result<E>,
        call: impl AsyncFnOnce(&E, &mut Store<Budget>) -> wasmtime::Result<T>,
    ) -> Result<Result<T, ContractFault>, LocalError> {
        let _slot = self.inner.slots.take()?;
        let _ticking = self.inner.ticker.ticking();
        let end = match Instance::new(&self.inner.engine, make, DESCRIBE_FUEL, DESCRIBE_MEMORY) {
            Err(error) => not_made(&error, contract),
            Ok(mut instance) => match instance.call(call) {
                Ok(answer) => return Ok(Ok(answer)),
                Err(error) => end_of(&error, contract),
            },
        };
        match end {
            CallEnd::Local(error) => Err(error),
            CallEnd::Trap(fault) => Ok(Err(fault)),
            CallEnd::OutOfFuel => Ok(Err(limit("limit/fuel"))),
            CallEnd::OverMemory => Ok(Err(limit("limit/memory"))),
        }
    }
}

impl fmt::Debug for ContractEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ContractEngine").finish_non_exhaustive()
    }
}

impl Loaded {
    fn keep(&mut self, component: &Arc<ContractComponent>) {
        self.components.insert(component.id, Arc::clone(component));
        self.touch(component.id);
        if self.recent.len() > KEPT
            && let Some(oldest) = self.recent.pop_front()
        {
            self.components.remove(&oldest);
        }
    }

    fn touch(&mut self, id: SecureHash) {
        if self.recent.back() == Some(&id) {
            return;
        }
        self.recent.retain(|other| *other != id);
        self.recent.push_back(id);
    }
}

fn limit(code: &str) -> ContractFault {
    ContractFault { code: code.to_owned(), message: "describing the state takes more than it may".to_owned() }
}

fn words(end: CallEnd) -> String {
    match end {
        CallEnd::OutOfFuel => "it computes for too long".to_owned(),
        CallEnd::OverMemory => "it asks for too much memory".to_owned(),
        CallEnd::Trap(fault) => fault.message,
        CallEnd::Local(error) => error.to_string(),
    }
}

/// The states of a contract are of its types; an output names the schema of its type, unless it is of an older version.
fn check_types(
    contract: &ContractId,
    code: &ContractComponent,
    transaction: &LedgerTransaction,
) -> Result<(), Refused> {
    let types = code.descriptor.contract(contract.name.as_str());
    let inputs = transaction.inputs.iter().map(|input| &input.state);
    for state in inputs.chain(&transaction.outputs).filter(|state| state.contract == *contract) {
        let unknown = |rule, what: String| {
            Refused::new(rule, what).detail("contract", &contract.name).detail("type", state.qualified_type())
        };
        let Some(of) = types.and_then(|types| types.state(state.type_name.as_str())) else {
            let message = format!("the code of the contract {contract} has no type {}", state.type_name);
            return Err(unknown(Rule::StateTypeUnknown, message));
        };
        let newer = state.schema.version > of.version;
        let other = state.schema.version == of.version && state.schema.hash != of.schema_hash;
        if newer || other {
            let message = format!(
                "a state of type {} names version {} of its schema, and the code has version {} or another of that number",
                state.qualified_type(),
                state.schema.version,
                of.version
            );
            return Err(unknown(Rule::SchemaUnknown, message));
        }
    }
    Ok(())
}
