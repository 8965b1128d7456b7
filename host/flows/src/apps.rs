//! The installed CorDapps, and what an identity's choice of them can run.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use maxhost_model::{Code, Problem};
use maxhost_sandbox::{FlowComponent, FlowDescriptor, Sandbox};
use parking_lot::{Mutex, RwLock};
use serde_json::Value;

use crate::api::{CordappView, FlowType};
use crate::options::CordappRef;
use crate::placement::CpuProfile;
use crate::schema::ArgumentSchema;

/// Flows that are named to somebody who asked for one that is not there.
const NAMES_SHOWN: usize = 8;

/// Bytes in lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    ::hex::encode(bytes)
}

/// A flow of an installed CorDapp.
pub(crate) struct FlowDef {
    /// `cordapp/flow`.
    pub name: Arc<str>,
    pub descriptor: FlowDescriptor,
    pub component: Arc<FlowComponent>,
    schema: Option<ArgumentSchema>,
    pub habit: CpuProfile,
}

impl FlowDef {
    fn new(component: &Arc<FlowComponent>, descriptor: &FlowDescriptor) -> Result<FlowDef, Problem> {
        let name: Arc<str> = format!("{}/{}", component.descriptor.name, descriptor.name).into();
        let schema = match &descriptor.arguments {
            None => None,
            Some(schema) => Some(ArgumentSchema::new(schema).map_err(|error| {
                Problem::new(
                    Code::ComponentDescribeFailed,
                    format!("the argument schema of flow {name} is no valid JSON Schema: {error}"),
                )
            })?),
        };
        Ok(FlowDef {
            name,
            descriptor: descriptor.clone(),
            component: component.clone(),
            schema,
            habit: CpuProfile::default(),
        })
    }

    /// Checks arguments and says where they do not fit.
    pub fn check(&self, arguments: &Value) -> Result<(), Problem> {
        match &self.schema {
            Some(schema) => schema.check(arguments, &self.name),
            None => Ok(()),
        }
    }

    /// The protocol it answers, in full.
    pub fn responds_to(&self) -> Option<String> {
        let protocol = self.descriptor.responds_to.as_ref()?;
        Some(match protocol.contains('/') {
            true => protocol.clone(),
            false => format!("{}/{protocol}", self.component.descriptor.name),
        })
    }

    pub fn to_type(&self) -> FlowType {
        FlowType {
            name: self.name.to_string(),
            doc: self.descriptor.doc.clone(),
            version: self.descriptor.version,
            startable: self.descriptor.startable,
            responds_to: self.responds_to(),
            arguments: self.descriptor.arguments.clone(),
            result: self.descriptor.result.clone(),
        }
    }
}

/// An installed CorDapp.
pub(crate) struct App {
    pub component: Arc<FlowComponent>,
    pub hash: String,
    pub flows: Vec<Arc<FlowDef>>,
}

impl App {
    fn new(component: Arc<FlowComponent>) -> Result<App, Problem> {
        let flows = component.descriptor.flows.iter();
        let flows = flows.map(|flow| FlowDef::new(&component, flow).map(Arc::new)).collect::<Result<_, _>>()?;
        let hash = hex(&component.hash);
        Ok(App { component, hash, flows })
    }

    pub fn name(&self) -> &str {
        &self.component.descriptor.name
    }

    pub fn version(&self) -> &str {
        &self.component.descriptor.version
    }

    fn fits(&self, wanted: &CordappRef) -> bool {
        let version = wanted.version.as_ref().is_none_or(|version| {
            // `1.2` means any 1.2.x.
            self.version() == version
                || self.version().strip_prefix(version.as_str()).is_some_and(|r| r.starts_with('.'))
        });
        self.name() == wanted.name
            && version
            && wanted.hash.as_ref().is_none_or(|hash| self.hash.starts_with(&hash.to_lowercase()))
    }

    pub fn flow(&self, name: &str) -> Option<&Arc<FlowDef>> {
        self.flows.iter().find(|flow| flow.descriptor.name == name)
    }
}

/// What the CorDapps of one identity can do. Identities that name the same CorDapps share one.
#[derive(Default)]
pub(crate) struct AppSet {
    pub apps: Vec<Arc<App>>,
    /// By full name.
    pub flows: BTreeMap<Arc<str>, Arc<FlowDef>>,
    /// By protocol.
    pub responders: HashMap<String, Arc<FlowDef>>,
}

impl AppSet {
    fn new(apps: Vec<Arc<App>>) -> Result<AppSet, Problem> {
        let mut set = AppSet { apps, ..AppSet::default() };
        for flow in set.apps.iter().flat_map(|app| &app.flows) {
            if set.flows.insert(flow.name.clone(), flow.clone()).is_some() {
                let text = format!("flow {} is in two CorDapps of this identity", flow.name);
                return Err(Problem::new(Code::CordappConflict, text));
            }
            let Some(protocol) = flow.responds_to() else { continue };
            if let Some(other) = set.responders.insert(protocol.clone(), flow.clone()) {
                let text = format!("flows {} and {} both answer {protocol}", other.name, flow.name);
                return Err(Problem::new(Code::CordappConflict, text));
            }
        }
        Ok(set)
    }

    /// The flow that `cordapp/flow`, or `flow` where that is unique, names.
    pub fn find(&self, name: &str) -> Result<&Arc<FlowDef>, Problem> {
        if let Some(flow) = self.flows.get(name) {
            return Ok(flow);
        }
        let mut fits = self.flows.values().filter(|flow| flow.descriptor.name == name);
        match (fits.next(), fits.next()) {
            (Some(flow), None) => Ok(flow),
            (Some(one), Some(two)) => {
                let mut names = vec![one.name.to_string(), two.name.to_string()];
                names.extend(fits.map(|flow| flow.name.to_string()));
                Err(Problem::new(Code::FlowTypeAmbiguous, format!("'{name}' fits {}", names.join(", "))))
            }
            (None, _) => Err(Problem::new(
                Code::FlowTypeNotFound,
                format!("this identity has no flow '{name}'; it has {}", self.names_like(name)),
            )),
        }
    }

    /// The names of some flows, those most like this one first.
    fn names_like(&self, name: &str) -> String {
        let likeness = |flow: &FlowDef| {
            strsim::jaro_winkler(&flow.name, name).max(strsim::jaro_winkler(&flow.descriptor.name, name))
        };
        let mut flows: Vec<&Arc<FlowDef>> = self.flows.values().collect();
        flows.sort_by(|one, two| likeness(two).total_cmp(&likeness(one)).then_with(|| one.name.cmp(&two.name)));
        let shown: Vec<&str> = flows.iter().take(NAMES_SHOWN).map(|flow| &*flow.name).collect();
        match (shown.is_empty(), flows.len() - shown.len()) {
            (true, _) => "none".to_owned(),
            (false, 0) => shown.join(", "),
            (false, more) => format!("{} and {more} more", shown.join(", ")),
        }
    }

    pub fn views(&self) -> Vec<CordappView> {
        let view = |app: &Arc<App>| CordappView {
            name: app.name().to_owned(),
            version: app.version().to_owned(),
            hash: app.hash.clone(),
        };
        self.apps.iter().map(view).collect()
    }
}

/// All installed CorDapps. Code that a flow was started with is kept beside the database, so that the flow can end on
/// it when the folder has a newer one.
pub(crate) struct Catalogue {
    sandbox: Sandbox,
    folder: PathBuf,
    kept: PathBuf,
    installed: RwLock<Installed>,
    loaded: RwLock<HashMap<[u8; 32], Arc<App>>>,
    sets: Mutex<HashMap<Vec<CordappRef>, Arc<AppSet>>>,
}

#[derive(Default)]
struct Installed {
    files: HashMap<PathBuf, (std::time::SystemTime, u64, [u8; 32])>,
    broken: BTreeMap<PathBuf, Problem>,
}

impl Catalogue {
    /// Blocking; loads nothing yet.
    pub fn new(sandbox: Sandbox, folder: PathBuf, kept: PathBuf) -> Catalogue {
        Catalogue {
            sandbox,
            folder,
            kept,
            installed: RwLock::default(),
            loaded: RwLock::default(),
            sets: Mutex::default(),
        }
    }

    /// Reads the folder again: new files are loaded, files that went are forgotten (but not their code while flows need
    /// it). True if something changed. Blocking.
    pub fn rescan(&self) -> bool {
        let mut found = HashMap::new();
        let mut broken = BTreeMap::new();
        let entries = std::fs::read_dir(&self.folder).into_iter().flatten().flatten();
        for path in entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|e| e == "wasm")) {
            // Whoever opened a FIFO would wait for its writer.
            let stamp = std::fs::metadata(&path).and_then(|meta| match meta.is_file() {
                true => Ok((meta.modified()?, meta.len())),
                false => Err(std::io::Error::other("it is no regular file")),
            });
            let known = self.installed.read().files.get(&path).copied();
            match (stamp, known) {
                (Ok((modified, length)), Some(known)) if (known.0, known.1) == (modified, length) => {
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

    fn load_file(&self, path: &Path) -> Result<[u8; 32], Problem> {
        let bytes = std::fs::read(path).map_err(|error| {
            Problem::new(Code::FileUnreadable, format!("component {} cannot be read: {error}", path.display()))
        })?;
        let app = self.load(&bytes).map_err(|mut problem| {
            problem.message = format!("{}: {}", path.display(), problem.message);
            problem
        })?;
        self.keep(&app.component.hash, &bytes);
        Ok(app.component.hash)
    }

    fn load(&self, bytes: &[u8]) -> Result<Arc<App>, Problem> {
        let component = self.sandbox.load(bytes).map_err(Problem::from)?;
        let hash = component.hash;
        if let Some(app) = self.loaded.read().get(&hash) {
            return Ok(app.clone());
        }
        let app = Arc::new(App::new(component)?);
        Ok(self.loaded.write().entry(hash).or_insert(app).clone())
    }

    fn kept_path(&self, hash: &[u8; 32]) -> PathBuf {
        self.kept.join(format!("{}.wasm", hex(hash)))
    }

    fn keep(&self, hash: &[u8; 32], bytes: &[u8]) {
        let path = self.kept_path(hash);
        if path.exists() {
            return;
        }
        let part = path.with_extension("part");
        let kept = std::fs::create_dir_all(&self.kept)
            .and_then(|()| std::fs::write(&part, bytes))
            .and_then(|()| std::fs::rename(&part, &path));
        if let Err(error) = kept {
            tracing::warn!(file = %path.display(), %error, "a component could not be kept for the flows that need it");
        }
    }

    /// The code a flow was started with, if it is in memory.
    pub fn loaded(&self, hash: &[u8; 32]) -> Option<Arc<App>> {
        self.loaded.read().get(hash).cloned()
    }

    /// The code a flow was started with. Blocking if it is not loaded yet.
    pub fn by_hash(&self, hash: &[u8; 32]) -> Result<Arc<App>, Problem> {
        if let Some(app) = self.loaded.read().get(hash) {
            return Ok(app.clone());
        }
        let path = self.kept_path(hash);
        let bytes = std::fs::read(&path).map_err(|error| {
            let text = format!("the component sha256:{} of this flow is gone: {error}", hex(hash));
            Problem::new(Code::CordappNotFound, text)
                .remedy("install the version of the CorDapp that the flow was started with, or kill the flow")
        })?;
        self.load(&bytes)
    }

    /// What these CorDapps can do together.
    pub fn set(&self, wanted: &[CordappRef]) -> Result<Arc<AppSet>, Problem> {
        if let Some(set) = self.sets.lock().get(wanted) {
            return Ok(set.clone());
        }
        let apps = wanted.iter().map(|wanted| self.resolve(wanted)).collect::<Result<Vec<_>, _>>()?;
        let set = Arc::new(AppSet::new(apps)?);
        Ok(self.sets.lock().entry(wanted.to_vec()).or_insert(set).clone())
    }

    fn resolve(&self, wanted: &CordappRef) -> Result<Arc<App>, Problem> {
        let installed = self.installed.read();
        let loaded = self.loaded.read();
        let mut apps: Vec<&Arc<App>> = Vec::new();
        for (_, _, hash) in installed.files.values() {
            if let Some(app) = loaded.get(hash)
                && app.fits(wanted)
                && !apps.iter().any(|other| other.hash == app.hash)
            {
                apps.push(app);
            }
        }
        match apps.as_slice() {
            [app] => Ok((*app).clone()),
            [] => Err(self.not_found(wanted, &installed)),
            several => {
                let names: Vec<_> = several
                    .iter()
                    .map(|app| format!("{}@{}#sha256:{}", app.name(), app.version(), &app.hash[..12]))
                    .collect();
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
}
