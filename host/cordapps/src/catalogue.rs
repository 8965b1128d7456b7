//! All installed CorDapps, and the kept ones that flows need.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use maxhost_model::{Code, Problem};
use maxhost_sandbox::Sandbox;
use parking_lot::{Mutex, RwLock};

use crate::ComponentHash;
use crate::cordapp::Cordapp;
use crate::kept::{Kept, read_component};
use crate::reference::CordappRef;
use crate::set::CordappSet;
use crate::shared::SharedCode;

/// The CorDapps of a host.
///
/// `N` is what the layer above remembers of each flow ([`crate::FlowDef::profile`]).
pub struct Catalogue<N> {
    sandbox: Sandbox,
    folder: PathBuf,
    kept: Kept,
    shared: Option<Arc<dyn SharedCode>>,
    installed: RwLock<Installed>,
    /// By hash. [`Catalogue::unload`] forgets those that are not installed and that nobody holds.
    loaded: RwLock<HashMap<ComponentHash, Arc<Cordapp<N>>>>,
    sets: Mutex<HashMap<Vec<CordappRef>, Arc<CordappSet<N>>>>,
}

#[derive(Default)]
struct Installed {
    files: HashMap<PathBuf, (SystemTime, u64, ComponentHash)>,
    broken: BTreeMap<PathBuf, Problem>,
}

/// Whether a file of the folder is a component with flows, by its name.
fn holds_flows(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.ends_with(".wasm") && !name.ends_with(crate::CONTRACT_SUFFIX)
}

impl<N: Default> Catalogue<N> {
    /// A catalogue over the folder of installed components (`*.wasm`) and the folder of kept ones. Loads nothing yet.
    /// `shared`: what hosts that run flows for each other have in common.
    #[must_use]
    pub fn new(sandbox: Sandbox, folder: PathBuf, kept: PathBuf, shared: Option<Arc<dyn SharedCode>>) -> Catalogue<N> {
        let kept = Kept::new(kept);
        kept.clear_partial();
        Catalogue {
            sandbox,
            folder,
            kept,
            shared,
            installed: RwLock::default(),
            loaded: RwLock::default(),
            sets: Mutex::default(),
        }
    }

    /// Reads the folder of installed components again, but for contracts (`*.contract.wasm`), which no flow runs: new files are loaded and kept, files that went are forgotten (but
    /// not their code while flows need it), and a kept copy that has gone is made anew. True if something changed.
    /// This blocks while it reads and compiles.
    pub fn rescan(&self) -> bool {
        let mut found = HashMap::new();
        let mut broken = BTreeMap::new();
        let entries = std::fs::read_dir(&self.folder).into_iter().flatten().flatten();
        for path in entries.map(|entry| entry.path()).filter(|path| holds_flows(path)) {
            let stamp = std::fs::metadata(&path).and_then(|meta| match meta.is_file() {
                true => Ok((meta.modified()?, meta.len())),
                // Whoever opened a FIFO would wait for its writer.
                false => Err(std::io::Error::other("it is no regular file")),
            });
            let known = self.installed.read().files.get(&path).copied();
            match (stamp, known) {
                (Ok((modified, length)), Some(known))
                    if (known.0, known.1) == (modified, length) && self.kept.has(&known.2) =>
                {
                    found.insert(path, known);
                }
                (Ok((modified, length)), _) => match self.load_file(&path) {
                    Ok(hash) => {
                        found.insert(path, (modified, length, hash));
                    }
                    Err(problem) => {
                        broken.insert(path, problem);
                    }
                },
                (Err(error), _) => {
                    let text = format!("{}: {error}", path.display());
                    broken.insert(path, Problem::new(Code::FileUnreadable, text));
                }
            }
        }
        let mut installed = self.installed.write();
        let changed = installed.files != found || !installed.broken.keys().eq(broken.keys());
        for (path, problem) in &broken {
            if changed {
                tracing::warn!(file = %path.display(), %problem, "an installed component cannot be used");
            }
        }
        *installed = Installed { files: found, broken };
        drop(installed);
        if changed {
            self.sets.lock().clear();
        }
        changed
    }

    fn load_file(&self, path: &Path) -> Result<ComponentHash, Problem> {
        let bytes = read_component(path).map_err(|error| {
            Problem::new(Code::FileUnreadable, format!("component {} cannot be read: {error}", path.display()))
        })?;
        let cordapp = self.load(&bytes).map_err(|mut problem| {
            problem.message = format!("{}: {}", path.display(), problem.message);
            problem
        })?;
        let hash = cordapp.component.hash;
        // Before anybody can start a flow on it, so that each host can go on with the flow.
        if let Some(shared) = &self.shared {
            shared.offer(&hash, &bytes)?;
        }
        if !self.kept.has(&hash)
            && let Err(error) = self.kept.keep(&hash, &bytes)
        {
            tracing::warn!(file = %path.display(), %error, "a component could not be kept for the flows that need it; tried again");
        }
        Ok(hash)
    }

    fn load(&self, bytes: &[u8]) -> Result<Arc<Cordapp<N>>, Problem> {
        let component = self.sandbox.load(bytes).map_err(Problem::from)?;
        let hash = component.hash;
        if let Some(cordapp) = self.loaded.read().get(&hash) {
            return Ok(cordapp.clone());
        }
        let cordapp = Arc::new(Cordapp::new(component)?);
        Ok(self.loaded.write().entry(hash).or_insert(cordapp).clone())
    }

    /// The code a flow was started with, if it is in memory.
    #[must_use]
    pub fn loaded(&self, hash: &ComponentHash) -> Option<Arc<Cordapp<N>>> {
        self.loaded.read().get(hash).cloned()
    }

    /// The code a flow was started with. A kept copy that is damaged or gone is made anew if the same component is
    /// installed. Blocking if it is not loaded yet.
    ///
    /// # Errors
    /// `cordapp-not-found` if neither folder has it, and what loading a component can fail of.
    pub fn by_hash(&self, hash: &ComponentHash) -> Result<Arc<Cordapp<N>>, Problem> {
        if let Some(cordapp) = self.loaded(hash) {
            return Ok(cordapp);
        }
        let bytes = match self.kept.read(hash) {
            Ok(bytes) => bytes,
            Err(error) => match self.repaired(hash) {
                Some(bytes) => bytes,
                None => self.fetched(hash)?.ok_or_else(|| {
                    let text = format!("the component sha256:{} of this flow is gone: {error}", hex::encode(hash));
                    Problem::new(Code::CordappNotFound, text)
                        .remedy("install the version of the CorDapp that the flow was started with, or kill the flow")
                })?,
            },
        };
        self.load(&bytes)
    }

    /// The bytes of a component whose kept copy cannot be used, from the installed file if there is one.
    fn repaired(&self, hash: &ComponentHash) -> Option<Vec<u8>> {
        let path = self.installed.read().files.iter().find(|(_, (_, _, found))| found == hash)?.0.clone();
        let bytes = read_component(&path).ok().filter(|bytes| crate::kept::hash_of(bytes) == *hash)?;
        match self.kept.keep(hash, &bytes) {
            Ok(()) => tracing::warn!(file = %path.display(), "a kept component was damaged or gone; made anew"),
            Err(error) => tracing::warn!(file = %path.display(), %error, "a kept component cannot be made anew"),
        }
        Some(bytes)
    }

    /// The bytes of a component that another host has offered, if they are what they ought to be.
    fn fetched(&self, hash: &ComponentHash) -> Result<Option<Vec<u8>>, Problem> {
        let Some(shared) = &self.shared else { return Ok(None) };
        let Some(bytes) = shared.fetch(hash)?.filter(|bytes| crate::kept::hash_of(bytes) == *hash) else {
            return Ok(None);
        };
        match self.kept.keep(hash, &bytes) {
            Ok(()) => {
                tracing::info!(component = %hex::encode(hash), "took over a component that another host has kept")
            }
            Err(error) => tracing::warn!(%error, "a component that another host has kept cannot be kept here"),
        }
        Ok(Some(bytes))
    }

    /// What these CorDapps can do together.
    ///
    /// # Errors
    /// `cordapp-not-found`, `cordapp-ambiguous`, `cordapp-conflict`, or what is wrong with the file that it seems to be.
    pub fn set(&self, wanted: &[CordappRef]) -> Result<Arc<CordappSet<N>>, Problem> {
        if let Some(set) = self.sets.lock().get(wanted) {
            return Ok(set.clone());
        }
        let cordapps = wanted.iter().map(|wanted| self.resolve(wanted)).collect::<Result<Vec<_>, _>>()?;
        let set = Arc::new(CordappSet::new(cordapps)?);
        Ok(self.sets.lock().entry(wanted.to_vec()).or_insert(set).clone())
    }

    fn resolve(&self, wanted: &CordappRef) -> Result<Arc<Cordapp<N>>, Problem> {
        let installed = self.installed.read();
        let loaded = self.loaded.read();
        let mut fitting: Vec<&Arc<Cordapp<N>>> = Vec::new();
        for (_, _, hash) in installed.files.values() {
            if let Some(cordapp) = loaded.get(hash)
                && cordapp.fits(wanted)
                && !fitting.iter().any(|other| other.hash == cordapp.hash)
            {
                fitting.push(cordapp);
            }
        }
        match fitting.as_slice() {
            [cordapp] => Ok((*cordapp).clone()),
            [] => Err(self.not_found(wanted, &installed)),
            several => {
                let name = |cordapp: &&Arc<Cordapp<N>>| {
                    format!("{}@{}#sha256:{}", cordapp.name(), cordapp.version(), &cordapp.hash[..12])
                };
                let names: Vec<_> = several.iter().map(name).collect();
                Err(Problem::new(Code::CordappAmbiguous, format!("CorDapp '{wanted}' fits {}", names.join(", "))))
            }
        }
    }

    fn not_found(&self, wanted: &CordappRef, installed: &Installed) -> Problem {
        let stem = wanted.name.replace('-', "_");
        let broken = installed.broken.iter().find(|(path, _)| {
            path.file_stem().is_some_and(|name| name.to_string_lossy().replace('-', "_").starts_with(&stem))
        });
        if let Some((_, problem)) = broken {
            return problem.clone();
        }
        let text = format!("CorDapp '{wanted}' is not installed in {}", self.folder.display());
        Problem::new(Code::CordappNotFound, text)
    }

    /// Drops from memory the components that are neither installed nor held by anybody. Gives how many.
    ///
    /// Who holds a component, or one of its flows, may start a flow on it or run one. So once this has dropped a component
    /// no flow begins on it before it is installed again.
    pub fn unload(&self) -> usize {
        let installed: HashSet<ComponentHash> = self.installed.read().files.values().map(|file| file.2).collect();
        let is_held = |cordapp: &Arc<Cordapp<N>>| {
            Arc::strong_count(cordapp) > 1 || cordapp.flows.iter().any(|flow| Arc::strong_count(flow) > 1)
        };
        let mut loaded = self.loaded.write();
        let before = loaded.len();
        loaded.retain(|hash, cordapp| installed.contains(hash) || is_held(cordapp));
        before - loaded.len()
    }

    /// The kept components that are neither installed nor in memory, except for the newest [`crate::KEEP_UNNAMED`]:
    /// what [`Catalogue::remove_unnamed`] removes unless a live flow names it. Blocking.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn unnamed(&self) -> std::io::Result<Vec<ComponentHash>> {
        self.kept.unnamed(&self.in_use())
    }

    /// Removes kept components that were given by [`Catalogue::unnamed`], except those in `named`: what live flows name,
    /// read after that call. One that is installed or in memory again stays. Then the compiled code of components that are
    /// neither kept nor in use goes too. Gives how many files went. Blocking.
    ///
    /// # Errors
    /// A file cannot be removed; what was removed before stays removed.
    pub fn remove_unnamed(&self, unnamed: &[ComponentHash], named: &HashSet<ComponentHash>) -> std::io::Result<usize> {
        let in_use = self.in_use();
        let mut removed = 0;
        for hash in unnamed.iter().filter(|hash| !named.contains(*hash) && !in_use.contains(*hash)) {
            self.kept.remove(hash)?;
            removed += 1;
        }
        Ok(removed + self.sandbox.retain_code(|hash| self.kept.has(hash) || in_use.contains(hash))?)
    }

    /// The components that are installed, or in memory.
    #[must_use]
    pub fn in_use(&self) -> HashSet<ComponentHash> {
        let installed = self.installed.read();
        let loaded = self.loaded.read();
        installed.files.values().map(|file| file.2).chain(loaded.keys().copied()).collect()
    }
}
