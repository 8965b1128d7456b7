//! Loading components: each is compiled once, described once, and shared by all who run it.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use wasmtime::component::{Component, HasSelf, Linker};

use crate::bindings::{flow, keys, ledger, ledger_waits};
use crate::code_cache::CodeCache;
use crate::component::FlowComponent;
use crate::component_shape::ComponentShape;
use crate::descriptor::Descriptor;
use crate::engine::{Linked, SandboxOptions, Shared};
use crate::error::{SandboxError, chain};
use crate::machine_code::{Origin, machine_code};
use crate::state::RunState;
use crate::wasi;

/// So many components stay loaded when nobody uses them.
const KEPT: usize = 64;
/// From so many remembered hashes on, those of no use are forgotten.
const REMEMBERED: usize = 512;

/// The place where CorDapps run. Clones are one and the same sandbox.
#[derive(Clone)]
pub struct Sandbox {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    cache: Option<CodeCache>,
    loaded: Mutex<Loaded>,
    compiled: AtomicU64,
    from_cache: AtomicU64,
}

/// Lock order: an entry's lock first, the lock of this table second; with the table's lock held an entry is only tried.
#[derive(Default)]
struct Loaded {
    entries: HashMap<[u8; 32], Arc<Mutex<Entry>>>,
    /// The most recent last. Components are dropped from memory when they are in here no more and nobody runs them.
    recent: VecDeque<Arc<FlowComponent>>,
}

#[derive(Default)]
enum Entry {
    #[default]
    Unknown,
    Ready(Weak<FlowComponent>),
    Refused(SandboxError),
}

/// How components came into memory, counted since the sandbox was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoadStatistics {
    /// Compiled here.
    pub compiled: u64,
    /// Taken from the folder of compiled code.
    pub from_cache: u64,
}

impl Sandbox {
    /// Sets up the engine and the folder for compiled code. Blocks for some milliseconds.
    ///
    /// # Errors
    /// [`SandboxError::CacheFolder`] when the folder cannot be made, [`SandboxError::Engine`] when the engine cannot
    /// be set up; a system that refuses a pool of instances only gets a warning in the log.
    pub fn new(options: SandboxOptions) -> Result<Sandbox, SandboxError> {
        let shared = Shared::pooled(&options)?;
        let cache = CodeCache::open(&options.cache_dir, &shared.engine)?;
        Ok(Sandbox::assemble(shared, Some(cache)))
    }

    fn assemble(shared: Arc<Shared>, cache: Option<CodeCache>) -> Sandbox {
        Sandbox {
            inner: Arc::new(Inner {
                shared,
                cache,
                loaded: Mutex::default(),
                compiled: AtomicU64::new(0),
                from_cache: AtomicU64::new(0),
            }),
        }
    }

    /// How many runs can have an instance at once.
    #[must_use]
    pub fn slots(&self) -> u32 {
        self.inner.shared.slots
    }

    /// Removes compiled code of components that are not wanted from its folder. Gives how many files went; code that runs
    /// is not touched, because it is mapped. Blocking.
    ///
    /// # Errors
    /// The folder cannot be read, or a file not removed.
    pub fn retain_code(&self, is_wanted: impl Fn(&[u8; 32]) -> bool) -> std::io::Result<usize> {
        self.inner.cache.as_ref().map_or(Ok(0), |cache| cache.retain(is_wanted))
    }

    /// What loading has cost so far.
    #[must_use]
    pub fn statistics(&self) -> LoadStatistics {
        LoadStatistics {
            compiled: self.inner.compiled.load(Ordering::Relaxed),
            from_cache: self.inner.from_cache.load(Ordering::Relaxed),
        }
    }

    /// Makes a component ready to run: from memory, else from the folder of compiled code, else by compiling it.
    ///
    /// Blocks, for as long as compiling takes (a tenth of a second and more): call it from a thread that may. Callers
    /// with the same bytes wait for one another, and only one of them compiles. A final refusal is remembered.
    ///
    /// # Errors
    /// [`SandboxError`]; see there which are final.
    pub fn load(&self, wasm: &[u8]) -> Result<Arc<FlowComponent>, SandboxError> {
        let hash: [u8; 32] = Sha256::digest(wasm).into();
        let entry = self.inner.loaded.lock().entry(hash);
        let mut entry = entry.lock();
        match &*entry {
            Entry::Ready(component) => {
                if let Some(component) = component.upgrade() {
                    self.inner.loaded.lock().touch(&component);
                    return Ok(component);
                }
            }
            Entry::Refused(error) => return Err(error.clone()),
            Entry::Unknown => {}
        }
        match self.make(hash, wasm) {
            Ok(component) => {
                let component = Arc::new(component);
                *entry = Entry::Ready(Arc::downgrade(&component));
                self.inner.loaded.lock().touch(&component);
                Ok(component)
            }
            Err(error) => {
                if !error.is_retriable() {
                    *entry = Entry::Refused(error.clone());
                }
                Err(error)
            }
        }
    }

    fn make(&self, hash: [u8; 32], wasm: &[u8]) -> Result<FlowComponent, SandboxError> {
        let shape = ComponentShape::read(wasm)?;
        shape.check()?;
        let code = self.code(&hash, wasm)?;
        self.inner.shared.check_size(&code)?;
        let linked = link(&code)?;
        FlowComponent::new(hash, wasm.len(), shape.imports, linked, Arc::clone(&self.inner.shared))
    }

    fn code(&self, hash: &[u8; 32], wasm: &[u8]) -> Result<Component, SandboxError> {
        let cache = self.inner.cache.as_ref();
        let Shared { engine, compiler, .. } = &*self.inner.shared;
        let (component, origin) = machine_code(engine, compiler, cache, hash, || Ok(wasm.into()))?;
        let count = match origin {
            Origin::Cache => &self.inner.from_cache,
            Origin::Compiler => &self.inner.compiled,
        };
        count.fetch_add(1, Ordering::Relaxed);
        Ok(component)
    }
}

impl fmt::Debug for Sandbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sandbox").field("slots", &self.slots()).finish_non_exhaustive()
    }
}

impl Loaded {
    fn entry(&mut self, hash: [u8; 32]) -> Arc<Mutex<Entry>> {
        if self.entries.len() >= REMEMBERED {
            self.entries.retain(|_, entry| Loaded::is_of_use(entry));
        }
        Arc::clone(self.entries.entry(hash).or_default())
    }

    /// Being loaded just now, or in use. A refusal is of no use in this sense: it can be found again.
    fn is_of_use(entry: &Arc<Mutex<Entry>>) -> bool {
        if Arc::strong_count(entry) > 1 {
            return true;
        }
        match entry.try_lock().as_deref() {
            Some(Entry::Ready(component)) => component.strong_count() > 0,
            Some(Entry::Unknown | Entry::Refused(_)) => false,
            None => true,
        }
    }

    fn touch(&mut self, component: &Arc<FlowComponent>) {
        if self.recent.back().is_some_and(|last| Arc::ptr_eq(last, component)) {
            return;
        }
        self.recent.retain(|other| !Arc::ptr_eq(other, component));
        self.recent.push_back(Arc::clone(component));
        if self.recent.len() > KEPT {
            self.recent.pop_front();
        }
    }
}

/// Connects what the component imports with what the host has.
fn link(component: &Component) -> Result<Linked, SandboxError> {
    let mut linker = Linker::<RunState>::new(component.engine());
    flow::add_to_linker::<RunState, HasSelf<RunState>>(&mut linker, |state| state)
        .and_then(|()| ledger::add_to_linker::<RunState, HasSelf<RunState>>(&mut linker, |state| state))
        .and_then(|()| keys::add_to_linker::<RunState, HasSelf<RunState>>(&mut linker, |state| state))
        .and_then(|()| ledger_waits::add_to_linker::<RunState, HasSelf<RunState>>(&mut linker, |state| state))
        .and_then(|()| wasi::add_to_linker(&mut linker))
        .map_err(|error| SandboxError::engine("cannot link", error))?;
    let wrong = |error| SandboxError::WrongWorld { world: "flows", reason: chain(&error) };
    linker.instantiate_pre(component).map_err(wrong)
}

/// What a component is, without running any of its flows.
#[derive(Debug, Clone, PartialEq)]
pub struct Inspection {
    /// `flows`: other worlds are refused for now.
    pub world: &'static str,
    /// What it says of itself.
    pub descriptor: Descriptor,
    /// Full names of what it imports.
    pub imports: Vec<String>,
    /// Size of the component.
    pub bytes: usize,
    /// SHA-256 of the component's bytes.
    pub hash: [u8; 32],
}

/// Looks at a component with all the checks of [`Sandbox::load`] and whether its names lead somewhere
/// ([`Descriptor::check_references`]), keeping nothing on disk. Blocks while it compiles.
///
/// # Errors
/// As [`Sandbox::load`]; [`SandboxError::DescriptorInvalid`] for a name that names nothing.
pub fn inspect(wasm: &[u8]) -> Result<Inspection, SandboxError> {
    look(wasm, None)
}

/// As [`inspect`], and compiled code is taken from this folder and kept there, so that a host which loads the component
/// from there need not compile it. A folder that cannot be used makes no difference but time.
///
/// # Errors
/// As [`inspect`].
pub fn inspect_keeping_code(wasm: &[u8], folder: &Path) -> Result<Inspection, SandboxError> {
    look(wasm, Some(folder))
}

fn look(wasm: &[u8], code: Option<&Path>) -> Result<Inspection, SandboxError> {
    let defaults = SandboxOptions::new("");
    let shared = Shared::on_demand(defaults.max_memory, defaults.tick)?;
    let cache = code.and_then(|folder| CodeCache::open(folder, &shared.engine).ok());
    let component = Sandbox::assemble(shared, cache).load(wasm)?;
    component.descriptor.check_references()?;
    Ok(Inspection {
        world: "flows",
        descriptor: component.descriptor.clone(),
        imports: component.imports.clone(),
        bytes: component.bytes,
        hash: component.hash,
    })
}
