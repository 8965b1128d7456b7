//! A development network in a folder: its authorities, and the identities they issue.
//!
//! Everything can be interrupted at any moment and done again: what is complete is kept, what is half done is made
//! anew. An identity is complete when its folder stands under its final name, because it is moved there as a whole,
//! after its files are durable.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::fs::{File, TryLockError};
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use maxhost_model::{
    Encoded, KeyAlgorithm, NetworkParameters, NodeInfo, NotaryInfo, Party, PublicKey, Signed, X500Name, from_cbor,
    to_cbor,
};

use zeroize::Zeroizing;

use crate::authority::CertificateAuthority;
use crate::chain::TrustRoot;
use crate::error::{PkiError, Result};
use crate::files;
use crate::identity::{CERTIFICATES_FILE, NAME_FILE, OpenIdentity, node_identity, read_party};
use crate::keys::PrivateKey;
use crate::layout::{Layout, node_info, node_infos};
use crate::node_info::sign_node_info;
use crate::parameters::{PARAMETERS_CERTIFICATE_FILE, PARAMETERS_FILE, read_parameters, write_parameters};
use crate::party_index::{self, Line, Stamp};
use crate::pem;
use crate::roles::CertRole;
use crate::seal::{KeyVault, Passphrase, Purpose};
use crate::slug;

const ROOT_CERTIFICATE: &str = "root.pem";
const DOORMAN_CERTIFICATE: &str = "doorman.pem";
const ROOT_NAME: &str = "CN=Root CA, O=Maxhost Development Network, L=London, C=GB";
const DOORMAN_NAME: &str = "CN=Doorman CA, O=Maxhost Development Network, L=London, C=GB";
const PARAMETERS_NAME: &str = "CN=Network Parameters, O=Maxhost Development Network, L=London, C=GB";
/// Where identities grow before they are moved into place; whatever is found here was interrupted.
const STAGING: &str = ".new";
const LOCK: &str = ".lock";
/// How many identities become durable together.
const BATCH: usize = 64;

/// What a network, or an addition to one, is made with.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where peers reach the nodes, `host:port`: written into the node infos.
    pub addresses: Vec<String>,
    /// Instead of the generated passphrase in `keys/passphrase`.
    pub passphrase: Option<Passphrase>,
}

impl Default for Options {
    fn default() -> Options {
        Options { addresses: vec!["localhost:10002".to_owned()], passphrase: None }
    }
}

/// An identity with keys in this network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// Its X.500 name.
    pub name: X500Name,
    /// The name of its folder under `keys/`.
    pub slug: String,
    /// That folder.
    pub folder: PathBuf,
    /// The key it signs with.
    pub key: PublicKey,
    /// Whether it was made just now; otherwise it was there already.
    pub created: bool,
}

/// A development network, opened to be extended. One process at a time may do that; hosts may run meanwhile.
pub struct DevNetwork {
    layout: Layout,
    addresses: Vec<String>,
    vault: KeyVault,
    trust: TrustRoot,
    doorman: CertificateAuthority,
    parameters_key: PrivateKey,
    /// Names of folders under `keys/` that were looked at; `None` if the folder is no identity's.
    slugs: HashMap<String, Option<X500Name>>,
    // Held, not used: the lock lasts as long as the file is open.
    _lock: File,
}

impl fmt::Debug for DevNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DevNetwork({})", self.layout.dir().display())
    }
}

/// An identity with the node info to publish for it.
type Publication = (Issued, Signed<NodeInfo>);

/// An identity in the staging folder.
struct Staged {
    issued: Issued,
    staging: PathBuf,
    node_info: Signed<NodeInfo>,
}

impl DevNetwork {
    /// Makes a network in a folder, or goes on where making it was interrupted; an existing one is opened.
    ///
    /// # Errors
    /// [`PkiError::FolderInUse`] if `network/` or `keys/` hold something else; [`PkiError::Busy`] if another process is
    /// at it; if a file cannot be written.
    pub fn create(dir: &Path, options: &Options) -> Result<DevNetwork> {
        let layout = Layout::new(dir);
        refuse_foreign_files(&layout)?;
        files::create_folder(&layout.network(), false)?;
        files::create_folder(&layout.keys(), true)?;
        let lock = lock(&layout)?;
        let passphrase = match &options.passphrase {
            Some(passphrase) => passphrase.clone(),
            None => generated_passphrase(&layout)?,
        };
        let vault = if KeyVault::exists(&layout.keys()) {
            KeyVault::unlock(&layout.keys(), &passphrase)?
        } else {
            KeyVault::create(&layout.keys(), &passphrase)?
        };
        clear_staging(&layout)?;
        if !layout.authority().exists() {
            create_authority(&layout, &vault)?;
        }
        DevNetwork::with_vault(layout, options, vault, lock)
    }

    /// Opens a network that is there.
    ///
    /// # Errors
    /// [`PkiError::WrongPassphrase`]; [`PkiError::Busy`]; if files are missing or were altered.
    pub fn open(dir: &Path, options: &Options) -> Result<DevNetwork> {
        let layout = Layout::new(dir);
        if !layout.authority().is_dir() {
            return Err(PkiError::network(dir, "holds no development network: keys/authority is missing"));
        }
        let lock = lock(&layout)?;
        let passphrase = match &options.passphrase {
            Some(passphrase) => passphrase.clone(),
            None => Passphrase::from_file(&layout.passphrase())?,
        };
        let vault = KeyVault::unlock(&layout.keys(), &passphrase)?;
        clear_staging(&layout)?;
        DevNetwork::with_vault(layout, options, vault, lock)
    }

    fn with_vault(layout: Layout, options: &Options, vault: KeyVault, lock: File) -> Result<DevNetwork> {
        let authority = layout.authority();
        files::create_folder(&node_infos(&layout.network()), false)?;
        for file in [ROOT_CERTIFICATE, DOORMAN_CERTIFICATE, PARAMETERS_CERTIFICATE_FILE] {
            let public = layout.network().join(file);
            if !public.exists() {
                files::replace_durably(&public, &files::read(&authority.join(file))?, files::PUBLIC)?;
            }
        }
        let trust = TrustRoot::from_pem_file(&layout.network().join(ROOT_CERTIFICATE))?;
        let doorman_key = vault.open_key(&authority, Purpose::DoormanCa, &DOORMAN_NAME.parse()?)?;
        let doorman =
            CertificateAuthority::restore(read_certificate(&authority.join(DOORMAN_CERTIFICATE))?, doorman_key)?;
        let parameters_key = vault.open_key(&authority, Purpose::NetworkParameters, &PARAMETERS_NAME.parse()?)?;
        let addresses = options.addresses.clone();
        Ok(DevNetwork { layout, addresses, vault, trust, doorman, parameters_key, slugs: HashMap::new(), _lock: lock })
    }

    /// Where its files lie.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The network's root.
    #[must_use]
    pub fn trust_root(&self) -> &TrustRoot {
        &self.trust
    }

    /// The unlocked vault.
    #[must_use]
    pub fn vault(&self) -> &KeyVault {
        &self.vault
    }

    /// Issues one identity; one that is there already is left as it is.
    ///
    /// # Errors
    /// As [`DevNetwork::issue_all`].
    pub fn issue(&mut self, name: &X500Name) -> Result<Issued> {
        let mut issued = self.issue_all(std::slice::from_ref(name), &mut |_| {})?;
        issued.pop().ok_or_else(|| PkiError::Crypto("nothing was issued".to_owned()))
    }

    /// Issues many identities, in order; those that are there already are left as they are, and published again if
    /// their node info is missing. `progress` is called once an identity, when it is durable.
    ///
    /// # Errors
    /// If a file cannot be written; what was reported as done stays.
    pub fn issue_all(&mut self, names: &[X500Name], progress: &mut dyn FnMut(&Issued)) -> Result<Vec<Issued>> {
        let mut seen = HashSet::new();
        let unique: Vec<&X500Name> = names.iter().filter(|name| seen.insert(*name)).collect();
        let mut all = Vec::with_capacity(unique.len());
        for batch in unique.chunks(BATCH) {
            let result = self.issue_batch(batch);
            if result.is_err() {
                self.forget_unfinished();
            }
            for issued in result? {
                progress(&issued);
                all.push(issued);
            }
        }
        Ok(all)
    }

    /// After a failure, so that the next attempt looks at what is there.
    fn forget_unfinished(&mut self) {
        self.slugs.clear();
        // What cannot be removed now is removed when the network is opened again.
        let _ = clear_staging(&self.layout);
    }

    fn issue_batch(&mut self, names: &[&X500Name]) -> Result<Vec<Issued>> {
        let mut done = Vec::with_capacity(names.len());
        let mut staged = Vec::new();
        let mut published = Vec::new();
        for name in names {
            let (slug, exists) = self.locate(name)?;
            if exists {
                let (issued, info) = self.revisit(name, slug)?;
                published.extend(info);
                done.push(issued);
            } else {
                let new = self.stage(name, slug)?;
                done.push(new.issued.clone());
                staged.push(new);
            }
        }
        if !staged.is_empty() {
            files::sync_file_system(&self.layout.keys())?;
            for new in &staged {
                files::rename(&new.staging, &new.issued.folder)?;
            }
            files::sync(&self.layout.keys())?;
        }
        published.extend(staged.into_iter().map(|new| (new.issued, new.node_info)));
        if !published.is_empty() {
            self.publish(&published)?;
        }
        Ok(done)
    }

    /// The folder of an identity, and whether it is there.
    fn locate(&mut self, name: &X500Name) -> Result<(String, bool)> {
        for slug in slug::candidates(name.organisation()) {
            let owner = match self.slugs.get(&slug) {
                Some(owner) => Some(owner.clone()),
                None => read_owner(&self.layout.identity(&slug))?,
            };
            match owner {
                None => {
                    self.slugs.insert(slug.clone(), Some(name.clone()));
                    return Ok((slug, false));
                }
                Some(owner) => {
                    let ours = owner.as_ref() == Some(name);
                    self.slugs.insert(slug.clone(), owner);
                    if ours {
                        return Ok((slug, true));
                    }
                }
            }
        }
        Err(PkiError::Crypto("no folder name is left".to_owned()))
    }

    /// An identity that is there; with its node info, if that has to be published again.
    fn revisit(&self, name: &X500Name, slug: String) -> Result<(Issued, Option<Publication>)> {
        let folder = self.layout.identity(&slug);
        let party = read_party(&folder)?;
        let issued = Issued { name: name.clone(), slug, folder, key: party.owning_key, created: false };
        let file = node_info(&self.layout.network(), name);
        let intact = files::read_if_there(&file)?.is_some_and(|bytes| from_cbor::<Signed<NodeInfo>>(&bytes).is_ok());
        if intact {
            return Ok((issued, None));
        }
        let open = OpenIdentity::open(&self.vault, &issued.folder, name, &self.trust, SystemTime::now())?;
        let info = sign_node_info(open.node_identity(), open.key(), self.addresses.clone(), serial(SystemTime::now()))?;
        Ok((issued.clone(), Some((issued, info))))
    }

    /// Makes keys and certificates of an identity in the staging folder.
    fn stage(&mut self, name: &X500Name, slug: String) -> Result<Staged> {
        let at = SystemTime::now();
        let node = self.doorman.issue_authority(name, CertRole::NodeCa, at)?;
        let identity_key = PrivateKey::generate(KeyAlgorithm::Ed25519)?;
        let tls_key = PrivateKey::generate(KeyAlgorithm::P256)?;
        let identity = node.issue(name, CertRole::LegalIdentity, identity_key.public(), at)?;
        let tls = node.issue(name, CertRole::Tls, tls_key.public(), at)?;

        let staging = self.layout.identity(STAGING).join(&slug);
        files::create_folder(&staging, true)?;
        for (key, purpose) in
            [(&identity_key, Purpose::Identity), (&tls_key, Purpose::Tls), (node.key(), Purpose::NodeCa)]
        {
            let sealed = self.vault.seal(key, purpose, name)?;
            files::write_new(&staging.join(purpose.file_name()), &sealed, files::PRIVATE)?;
        }
        let upper = [node.certificate(), self.doorman.certificate()];
        let certificates = pem::encode(&[&[&identity[..], &tls[..]], &upper[..]].concat());
        files::write_new(&staging.join(CERTIFICATES_FILE), certificates.as_bytes(), files::PRIVATE)?;
        files::write_new(&staging.join(NAME_FILE), name.as_str().as_bytes(), files::PRIVATE)?;

        let party = Party::new(name.clone(), identity_key.public().clone());
        let chain = [identity, node.certificate().to_vec(), self.doorman.certificate().to_vec()];
        let node_info =
            sign_node_info(node_identity(party, &chain), &identity_key, self.addresses.clone(), serial(at))?;
        let folder = self.layout.identity(&slug);
        let key = identity_key.public().clone();
        Ok(Staged { issued: Issued { name: name.clone(), slug, folder, key, created: true }, staging, node_info })
    }

    /// Puts node infos onto the network map, durably.
    fn publish(&self, infos: &[Publication]) -> Result<()> {
        let network = self.layout.network();
        let mut lines = Vec::with_capacity(infos.len());
        for (issued, info) in infos {
            let path = node_info(&network, &issued.name);
            files::replace(&path, &to_cbor(info)?, files::PUBLIC)?;
            let metadata = std::fs::metadata(&path).map_err(|error| PkiError::read(&path, error))?;
            lines.push(Line { stamp: Stamp::of(&metadata), key: issued.key.clone(), name: issued.name.clone() });
        }
        party_index::append(&network, &lines)?;
        files::sync_file_system(&network)
    }

    /// The identity of this name, without its keys.
    ///
    /// # Errors
    /// [`PkiError::UnknownIdentity`] if the network has not issued it.
    pub fn find(&mut self, name: &X500Name) -> Result<Issued> {
        match self.locate(name)? {
            (slug, true) => {
                let folder = self.layout.identity(&slug);
                let key = read_party(&folder)?.owning_key;
                Ok(Issued { name: name.clone(), slug, folder, key, created: false })
            }
            (slug, false) => {
                self.slugs.remove(&slug);
                Err(PkiError::UnknownIdentity { name: name.to_string(), keys: self.layout.keys() })
            }
        }
    }

    /// Makes these identities, with `true` for validating ones, the network's notaries: the first parameters, or the
    /// next epoch of them. Parameters that say so already stay as they are.
    ///
    /// # Errors
    /// [`PkiError::UnknownIdentity`] for one that was not issued; [`PkiError::Invalid`] if one is given twice.
    pub fn set_notaries(&mut self, notaries: &[(X500Name, bool)]) -> Result<Encoded<NetworkParameters>> {
        let mut infos = Vec::with_capacity(notaries.len());
        for (name, validating) in notaries {
            let party = Party::new(name.clone(), self.find(name)?.key);
            infos.push(NotaryInfo { party, validating: *validating });
        }
        let now = serial(SystemTime::now());
        match self.parameters()? {
            Some(present) if present.notaries == infos => Ok(present),
            Some(present) => self.next_parameters(NetworkParameters { notaries: infos, ..present.into_value() }),
            None => self.set_parameters(NetworkParameters::initial(infos, now)),
        }
    }

    /// Makes these the network's parameters, as its next epoch, changed now. Parameters that say so already stay as they are.
    ///
    /// # Errors
    /// [`PkiError::Invalid`] if they break a rule of docs/behaviour.md 9.2, or if there is no further epoch.
    pub fn next_parameters(&self, changed: NetworkParameters) -> Result<Encoded<NetworkParameters>> {
        let present = self.parameters()?;
        let epoch = present.as_ref().map_or(0, |present| present.epoch);
        let Some(epoch) = epoch.checked_add(1) else {
            let reason = "there is no number above it".to_owned();
            return Err(PkiError::Invalid(maxhost_model::Invalid::Parameters { field: "epoch", reason }));
        };
        if let Some(present) = present {
            let NetworkParameters { epoch, modified_time_ms, .. } = *present;
            if (NetworkParameters { epoch, modified_time_ms, ..changed.clone() }) == *present {
                return Ok(present);
            }
        }
        self.set_parameters(NetworkParameters { epoch, modified_time_ms: serial(SystemTime::now()), ..changed })
    }

    /// The network's parameters, verified; `None` before the first.
    ///
    /// # Errors
    /// If they cannot be read or do not verify.
    pub fn parameters(&self) -> Result<Option<Encoded<NetworkParameters>>> {
        if !self.layout.network().join(PARAMETERS_FILE).exists() {
            return Ok(None);
        }
        let read = read_parameters(&self.layout.network(), &self.trust, SystemTime::now())?;
        Ok(Some(read.parameters().clone()))
    }

    /// Signs parameters and writes them, durably.
    ///
    /// # Errors
    /// [`PkiError::Invalid`] if they break a rule of docs/behaviour.md 9.
    pub fn set_parameters(&self, parameters: NetworkParameters) -> Result<Encoded<NetworkParameters>> {
        write_parameters(&self.layout.network(), parameters, &self.parameters_key)
    }
}

/// Milliseconds since the Unix epoch.
fn serial(at: SystemTime) -> u64 {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Folders that are not ours are not touched. Ours begin with a lock and a passphrase or a vault.
fn refuse_foreign_files(layout: &Layout) -> Result<()> {
    let keys = files::list(&layout.keys())?;
    let ours = keys.iter().any(|file| file == LOCK);
    for (folder, used) in
        [(layout.keys(), !keys.is_empty()), (layout.network(), !files::list(&layout.network())?.is_empty())]
    {
        if used && !ours {
            return Err(PkiError::FolderInUse { path: folder });
        }
    }
    Ok(())
}

fn lock(layout: &Layout) -> Result<File> {
    let path = layout.keys().join(LOCK);
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(files::PRIVATE)
        .open(&path)
        .map_err(|error| PkiError::write(&path, error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(PkiError::Busy { path: layout.dir().to_owned() }),
        Err(TryLockError::Error(error)) => Err(PkiError::write(&path, error)),
    }
}

fn generated_passphrase(layout: &Layout) -> Result<Passphrase> {
    let path = layout.passphrase();
    if !path.exists() {
        let passphrase = Passphrase::generate()?;
        let line = Zeroizing::new(format!("{}\n", passphrase.as_str()));
        files::replace_durably(&path, line.as_bytes(), files::PRIVATE)?;
    }
    Passphrase::from_file(&path)
}

fn clear_staging(layout: &Layout) -> Result<()> {
    let path = layout.identity(STAGING);
    match std::fs::remove_dir_all(&path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(PkiError::write(&path, error)),
        _ => Ok(()),
    }
}

/// Makes root, doorman and the signer of the parameters, and moves them into place as a whole.
fn create_authority(layout: &Layout, vault: &KeyVault) -> Result<()> {
    let at = SystemTime::now();
    let (root_name, doorman_name, parameters_name) =
        (ROOT_NAME.parse()?, DOORMAN_NAME.parse()?, PARAMETERS_NAME.parse()?);
    let root = CertificateAuthority::new_root(&root_name, at)?;
    let doorman = root.issue_authority(&doorman_name, CertRole::DoormanCa, at)?;
    let parameters_key = PrivateKey::generate(KeyAlgorithm::P256)?;
    let parameters = root.issue(&parameters_name, CertRole::NetworkParameters, parameters_key.public(), at)?;

    let staging = layout.identity(STAGING).join("authority");
    files::create_folder(&staging, true)?;
    for (key, purpose, name) in [
        (root.key(), Purpose::RootCa, &root_name),
        (doorman.key(), Purpose::DoormanCa, &doorman_name),
        (&parameters_key, Purpose::NetworkParameters, &parameters_name),
    ] {
        files::write_new(&staging.join(purpose.file_name()), &vault.seal(key, purpose, name)?, files::PRIVATE)?;
    }
    for (file, certificate) in [
        (ROOT_CERTIFICATE, root.certificate()),
        (DOORMAN_CERTIFICATE, doorman.certificate()),
        (PARAMETERS_CERTIFICATE_FILE, &parameters[..]),
    ] {
        files::write_new(&staging.join(file), pem::encode(&[certificate]).as_bytes(), files::PRIVATE)?;
    }
    files::sync_file_system(&layout.keys())?;
    files::rename(&staging, &layout.authority())?;
    files::sync(&layout.keys())
}

fn read_certificate(path: &Path) -> Result<Vec<u8>> {
    let of = path.display().to_string();
    let mut certificates = pem::decode(&files::read(path)?, &of)?;
    certificates.pop().ok_or_else(|| PkiError::certificate(of, "holds no certificate"))
}

/// Whose folder this is: nothing if it is free, `Some(None)` if it is no identity's.
fn read_owner(folder: &Path) -> Result<Option<Option<X500Name>>> {
    let path = folder.join(NAME_FILE);
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(Some(X500Name::parse(&text).ok())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(folder.exists().then_some(None)),
        Err(error) if matches!(error.kind(), ErrorKind::NotADirectory | ErrorKind::InvalidData) => Ok(Some(None)),
        Err(error) => Err(PkiError::read(&path, error)),
    }
}

#[cfg(test)]
#[path = "devnet_tests.rs"]
mod tests;
