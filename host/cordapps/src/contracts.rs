//! The contracts that are installed: a folder of signed files, loaded.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use maxhost_ledger::tx::ContractAttachment;
use maxhost_model::{Code, Problem, SecureHash};
use maxhost_sandbox::contract::{ContractComponent, ContractEngine};
use parking_lot::RwLock;

use crate::CONTRACT_SUFFIX;
use crate::kept::read_component;

/// The contracts of a folder (`*.contract.wasm`). All of them are trusted: somebody has put them there.
pub struct InstalledContracts {
    engine: ContractEngine,
    folder: PathBuf,
    installed: RwLock<Installed>,
}

#[derive(Default)]
struct Installed {
    files: BTreeMap<PathBuf, File>,
    broken: BTreeMap<PathBuf, Problem>,
}

#[derive(Clone)]
struct File {
    modified: SystemTime,
    length: u64,
    component: Arc<ContractComponent>,
}

impl InstalledContracts {
    /// Over this folder. Loads nothing yet.
    #[must_use]
    pub fn new(engine: ContractEngine, folder: PathBuf) -> InstalledContracts {
        InstalledContracts { engine, folder, installed: RwLock::default() }
    }

    /// The engine that they run on.
    #[must_use]
    pub fn engine(&self) -> &ContractEngine {
        &self.engine
    }

    /// Reads the folder again. True if something changed. Blocking; a file that cannot be used is logged, and the others
    /// are used all the same.
    pub fn rescan(&self) -> bool {
        let mut found = Installed::default();
        let entries = std::fs::read_dir(&self.folder).into_iter().flatten().flatten();
        for path in entries.map(|entry| entry.path()) {
            if !path.file_name().is_some_and(|name| name.to_string_lossy().ends_with(CONTRACT_SUFFIX)) {
                continue;
            }
            match self.load(&path) {
                Ok(file) => drop(found.files.insert(path, file)),
                Err(problem) => drop(found.broken.insert(path, problem)),
            }
        }
        let mut installed = self.installed.write();
        let ids = |installed: &Installed| -> Vec<SecureHash> {
            installed.files.values().map(|file| file.component.id).collect()
        };
        let changed = ids(&installed) != ids(&found) || !installed.broken.keys().eq(found.broken.keys());
        if changed {
            for (path, problem) in &found.broken {
                tracing::warn!(file = %path.display(), %problem, "an installed contract cannot be used");
            }
        }
        *installed = found;
        changed
    }

    fn load(&self, path: &Path) -> Result<File, Problem> {
        let unreadable = |error: std::io::Error| {
            Problem::new(Code::FileUnreadable, format!("contract {} cannot be read: {error}", path.display()))
        };
        let found = std::fs::metadata(path).map_err(unreadable)?;
        let (modified, length) = (found.modified().map_err(unreadable)?, found.len());
        let known = self.installed.read().files.get(path).cloned();
        if let Some(known) = known.filter(|known| (known.modified, known.length) == (modified, length)) {
            return Ok(known);
        }
        let component = self.engine.load(&read_component(path).map_err(unreadable)?)?;
        Ok(File { modified, length, component })
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<ContractComponent>> {
        self.installed.read().files.values().map(|file| Arc::clone(&file.component)).collect()
    }

    /// What the rules of the ledger need to know of each: what a transaction is built with.
    #[must_use]
    pub fn attachments(&self) -> Vec<ContractAttachment> {
        self.all().iter().map(|component| component.attachment(true)).collect()
    }

    /// The one with this id.
    #[must_use]
    pub fn by_id(&self, id: &SecureHash) -> Option<Arc<ContractComponent>> {
        let installed = self.installed.read();
        installed.files.values().find(|file| file.component.id == *id).map(|file| Arc::clone(&file.component))
    }

    /// The file of the one with this id.
    ///
    /// # Errors
    /// `attachment-not-found` if none has it; it cannot be read, or was changed.
    pub fn file(&self, id: &SecureHash) -> Result<Vec<u8>, Problem> {
        let path = {
            let installed = self.installed.read();
            installed.files.iter().find(|(_, file)| file.component.id == *id).map(|(path, _)| path.clone())
        };
        let gone = || Problem::new(Code::AttachmentNotFound, format!("no contract with the id {id} is installed"));
        let bytes = read_component(&path.ok_or_else(gone)?).map_err(|error| {
            Problem::new(Code::FileUnreadable, format!("the contract {id} cannot be read: {error}"))
        })?;
        if SecureHash::of(&bytes) == *id { Ok(bytes) } else { Err(gone()) }
    }
}
