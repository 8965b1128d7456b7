//! The parties of a network, as a host sees them: names and keys in memory, everything else in signed files, read and
//! verified when somebody first asks, and again after an hour, so that a certificate that has ended meanwhile is noticed.
//!
//! Nobody gets a key that was not verified: what stands in a node info is a claim until its certificates say so.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use maxhost_model::network::PLATFORM_VERSION;
use maxhost_model::{NameQuery, NetworkParameters, NodeInfo, Party, SecureHash, Signed, X500Name, from_cbor};
use parking_lot::RwLock;

use crate::chain::TrustRoot;
use crate::error::{PkiError, Result};
use crate::files;
use crate::layout::{NODE_INFO_PREFIX, name_hash, node_info_file, node_infos};
use crate::node_info::verify_node_info;
use crate::parameters::{PARAMETERS_FILE, ProvenParameters, read_parameters};
use crate::party_index::{self, Line, Stamp};

/// Larger node infos are refused unread.
const MAX_NODE_INFO_SIZE: u64 = 1024 * 1024;
/// How long a party counts as verified. Its certificates may end in that time.
const VERIFIED_FOR: Duration = Duration::from_secs(3600);
/// A folder that changed this shortly before it was listed may change again without a new time.
const TIME_GRAIN: Duration = Duration::from_secs(2);

/// A party whose node info has been verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedParty {
    /// Name and key.
    pub party: Party,
    /// What its node implements.
    pub platform_version: u32,
    /// The serial of its node info.
    pub serial: u64,
    /// Whether the network parameters name it as a notary.
    pub notary: bool,
}

/// What a refresh found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// Parties that are new.
    pub added: Vec<X500Name>,
    /// Parties whose node info was replaced.
    pub modified: Vec<X500Name>,
    /// Parties that are gone.
    pub removed: Vec<X500Name>,
}

impl Changes {
    /// Whether nothing changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.modified.is_empty() && self.removed.is_empty()
    }
}

/// The parties and the parameters of one network. Files are read on the calling thread, a few kilobytes at a time.
#[derive(Debug)]
pub struct NetworkMap {
    folder: PathBuf,
    trust: TrustRoot,
    parameters: RwLock<Arc<ProvenParameters>>,
    state: RwLock<State>,
}

#[derive(Debug, Default)]
struct State {
    /// By the hash of the name, as the files are.
    parties: HashMap<SecureHash, Entry>,
    /// Files that are no node infos, with the reason.
    rejected: BTreeMap<String, (Stamp, String)>,
    /// The time of the folder when it was last listed, if it can tell whether the folder has changed since.
    listed: Option<SystemTime>,
    /// Hashes of names by the fingerprints of keys, once somebody has asked for one. Empty again when parties change.
    by_key: OnceLock<HashMap<SecureHash, SecureHash>>,
}

impl State {
    /// Whether a file has to be read: it is not the one that was read or rejected before.
    fn is_new(&self, hash: &SecureHash, stamp: Stamp) -> bool {
        match self.parties.get(hash) {
            Some(entry) => entry.line.stamp != stamp,
            None => self.rejected.get(&node_info_file(hash)).is_none_or(|(rejected, _)| *rejected != stamp),
        }
    }

    /// The name of the party whose key has this fingerprint, as the files claim it. A transaction may have many keys, so
    /// each is looked up and not looked for.
    fn named_by_key(&self, fingerprint: &SecureHash) -> Option<X500Name> {
        let by_key = self
            .by_key
            .get_or_init(|| self.parties.iter().map(|(name, entry)| (entry.line.key.fingerprint(), *name)).collect());
        Some(self.parties.get(by_key.get(fingerprint)?)?.line.name.clone())
    }
}

#[derive(Debug)]
struct Entry {
    line: Line,
    verified: Option<Verified>,
}

/// What verifying a file has shown.
#[derive(Debug, Clone, Copy)]
struct Verified {
    platform_version: u32,
    serial: u64,
    at: Instant,
}

impl NetworkMap {
    /// Reads a network folder: verifies root and parameters, lists the parties.
    ///
    /// # Errors
    /// If root or parameters are missing or do not verify. A bad node info is no error: see [`NetworkMap::rejected`].
    pub fn load(folder: &Path) -> Result<NetworkMap> {
        let trust = TrustRoot::from_pem_file(&folder.join("root.pem"))?;
        let parameters = read_parameters(folder, &trust, SystemTime::now())?;
        check_platform(folder, parameters.parameters())?;
        let parameters = RwLock::new(Arc::new(parameters));
        let map = NetworkMap { folder: folder.to_owned(), trust, parameters, state: RwLock::default() };
        let index = party_index::read(folder);
        let listing = Listing::read(folder)?;
        let found = listing.found.len();
        let mut state = State::default();
        let read = map.apply(&mut state, listing, &index)?.1;
        if read > 0 || index.len() > found {
            // The index only saves time: a network folder that we may not write to serves as well.
            let _ = party_index::write(folder, state.parties.values().map(|entry| &entry.line));
        }
        *map.state.write() = state;
        Ok(map)
    }

    /// Looks for node infos that were added, replaced or removed. Cheap if nothing was: files are to be moved into the
    /// folder, not written in place.
    ///
    /// # Errors
    /// If the folder cannot be listed.
    pub fn refresh(&self) -> Result<Changes> {
        let now = folder_time(&node_infos(&self.folder));
        if now.is_some() && self.state.read().listed == now {
            return Ok(Changes::default());
        }
        let listing = Listing::read(&self.folder)?;
        // Files are read before the lock is taken: look-ups go on while a thousand new parties are read.
        let changed: Vec<(SecureHash, Stamp)> = {
            let state = self.state.read();
            listing.found.iter().filter(|(hash, stamp)| state.is_new(hash, **stamp)).map(|(h, s)| (*h, *s)).collect()
        };
        let read = |(hash, stamp)| {
            let path = node_infos(&self.folder).join(node_info_file(&hash));
            read_line(&path, &hash, stamp).ok().map(|line| (hash, line))
        };
        let lines = changed.into_iter().filter_map(read).collect();
        Ok(self.apply(&mut self.state.write(), listing, &lines)?.0)
    }

    /// Brings the state up to what a listing shows; files that the index knows are not read. Returns what changed, and
    /// how many files were read.
    fn apply(
        &self,
        state: &mut State,
        listing: Listing,
        index: &HashMap<SecureHash, Line>,
    ) -> Result<(Changes, usize)> {
        let mut changes = Changes::default();
        let mut read = 0;
        for (hash, stamp) in &listing.found {
            if !state.is_new(hash, *stamp) {
                continue;
            }
            let file = node_info_file(hash);
            let line = match index.get(hash) {
                Some(line) if line.stamp == *stamp => line.clone(),
                _ => {
                    read += 1;
                    match read_line(&node_infos(&self.folder).join(&file), hash, *stamp) {
                        Ok(line) => line,
                        Err(PkiError::File { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => continue,
                        Err(error) if error.is_retriable() => return Err(error),
                        Err(error) => {
                            state.rejected.insert(file, (*stamp, error.to_string()));
                            continue;
                        }
                    }
                }
            };
            state.rejected.remove(&file);
            let name = line.name.clone();
            match state.parties.insert(*hash, Entry { line, verified: None }) {
                Some(_) => changes.modified.push(name),
                None => changes.added.push(name),
            }
        }
        state.parties.retain(|hash, entry| {
            let stays = listing.found.contains_key(hash);
            if !stays {
                changes.removed.push(entry.line.name.clone());
            }
            stays
        });
        state.by_key = OnceLock::new();
        state.rejected.retain(|file, _| hash_of_file(file).is_some_and(|hash| listing.found.contains_key(&hash)));
        state.rejected.extend(listing.foreign);
        state.listed = listing.time;
        Ok((changes, read))
    }

    /// The parties whose name fits, verified, sorted by name; those that do not verify are left out, as if they were not
    /// on the map, and told to `left_out` with the reason. Blocking: a party that was not asked for in the last hour is read
    /// and verified, which takes some 200 µs. `between` is called before each, while nothing is locked.
    pub fn matching(
        &self,
        fits: impl Fn(&X500Name) -> bool,
        mut left_out: impl FnMut(&X500Name, PkiError),
        mut between: impl FnMut(),
    ) -> Vec<VerifiedParty> {
        let mut names: Vec<X500Name> = {
            let state = self.state.read();
            state.parties.values().map(|entry| &entry.line.name).filter(|name| fits(name)).cloned().collect()
        };
        names.sort();
        let verified = names.iter().filter_map(|name| {
            between();
            match self.party(name) {
                Ok(party) => party,
                Err(error) => {
                    left_out(name, error);
                    None
                }
            }
        });
        verified.collect()
    }

    /// How many parties there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.state.read().parties.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether a party of this name is on the map.
    #[must_use]
    pub fn contains(&self, name: &X500Name) -> bool {
        self.state.read().parties.contains_key(&name_hash(name))
    }

    /// The names that a query fits, in order. That there is a node info of a name says nothing about whether it verifies.
    #[must_use]
    pub fn find(&self, query: &NameQuery) -> Vec<X500Name> {
        if let Some(name) = query.whole() {
            return if self.contains(name) { vec![name.clone()] } else { Vec::new() };
        }
        let state = self.state.read();
        let names = state.parties.values().map(|entry| &entry.line.name);
        let mut found: Vec<X500Name> = names.filter(|name| query.matches(name)).cloned().collect();
        found.sort();
        found
    }

    /// The party of this name, verified; the first call for a name in an hour reads and verifies its file.
    ///
    /// # Errors
    /// If the node info cannot be read or does not verify.
    pub fn party(&self, name: &X500Name) -> Result<Option<VerifiedParty>> {
        let hash = name_hash(name);
        let (party, known, stamp) = match self.state.read().parties.get(&hash) {
            None => return Ok(None),
            Some(entry) => {
                (Party::new(entry.line.name.clone(), entry.line.key.clone()), entry.verified, entry.line.stamp)
            }
        };
        if let Some(Verified { platform_version, serial, .. }) = known.filter(|known| known.at.elapsed() < VERIFIED_FOR)
        {
            let notary = self.parameters().parameters().is_notary(&party);
            return Ok(Some(VerifiedParty { party, platform_version, serial, notary }));
        }

        let Some(info) = self.read_verified(&hash)? else { return Ok(None) };
        let Some(verified) = info.default_identity().cloned() else { return Ok(None) };
        let state = &mut *self.state.write();
        if let Some(entry) = state.parties.get_mut(&hash) {
            // The key in the index may be wrong, or the file newer than the entry: what was verified counts.
            if entry.line.key != verified.owning_key {
                entry.line.key = verified.owning_key.clone();
                state.by_key = OnceLock::new();
            }
            if entry.line.stamp == stamp {
                let (platform_version, serial) = (info.platform_version, info.serial);
                entry.verified = Some(Verified { platform_version, serial, at: Instant::now() });
            }
        }
        let notary = self.parameters().parameters().is_notary(&verified);
        Ok(Some(VerifiedParty {
            party: verified,
            platform_version: info.platform_version,
            serial: info.serial,
            notary,
        }))
    }

    /// The party whose key has this fingerprint, verified.
    ///
    /// # Errors
    /// As [`NetworkMap::party`].
    pub fn by_fingerprint(&self, fingerprint: &SecureHash) -> Result<Option<VerifiedParty>> {
        let Some(name) = self.state.read().named_by_key(fingerprint) else { return Ok(None) };
        // What verifying shows counts, not what the file claimed.
        Ok(self.party(&name)?.filter(|verified| verified.party.owning_key.fingerprint() == *fingerprint))
    }

    /// Fingerprints of keys by name, as the node infos claim them: not verified, and no keys. They tell a host which of its
    /// own identities to ask the ownership service for; whoever opens one of these holds its key and its certificates.
    #[must_use]
    pub fn fingerprints(&self) -> HashMap<X500Name, SecureHash> {
        let state = self.state.read();
        state.parties.values().map(|entry| (entry.line.name.clone(), entry.line.key.fingerprint())).collect()
    }

    /// The whole node info of a party, read and verified anew.
    ///
    /// # Errors
    /// As [`NetworkMap::party`].
    pub fn node_info(&self, name: &X500Name) -> Result<Option<NodeInfo>> {
        if self.contains(name) { self.read_verified(&name_hash(name)) } else { Ok(None) }
    }

    fn read_verified(&self, hash: &SecureHash) -> Result<Option<NodeInfo>> {
        let path = node_infos(&self.folder).join(node_info_file(hash));
        let Some(bytes) = files::read_if_there(&path)? else { return Ok(None) };
        let signed: Signed<NodeInfo> =
            from_cbor(&bytes).map_err(|error| PkiError::network(&path, error.to_string()))?;
        let info = verify_node_info(&signed, &self.trust, SystemTime::now())
            .map_err(|error| PkiError::network(&path, error.to_string()))?;
        match info.default_identity() {
            Some(party) if name_hash(&party.name) == *hash => Ok(Some(info)),
            _ => Err(PkiError::network(&path, "the node info is that of another name than the file's")),
        }
    }

    /// The network's parameters that are in force, verified when they were read.
    #[must_use]
    pub fn parameters(&self) -> Arc<ProvenParameters> {
        Arc::clone(&self.parameters.read())
    }

    /// Parameters in the folder that may take the place of those in force; `None` if it has no others. See
    /// [`NetworkMap::put_in_force`].
    ///
    /// # Errors
    /// They cannot be read, do not verify, are of no later epoch, or change what a host can only begin with: the largest
    /// message. Those in force stay.
    pub fn newer_parameters(&self) -> Result<Option<ProvenParameters>> {
        let found = read_parameters(&self.folder, &self.trust, SystemTime::now())?;
        let present = self.parameters();
        if found.hash() == present.hash() {
            return Ok(None);
        }
        check_platform(&self.folder, found.parameters())?;
        let path = self.folder.join(PARAMETERS_FILE);
        let (new, old) = (found.parameters(), present.parameters());
        if new.epoch <= old.epoch {
            let reason = format!("they are of epoch {}, and those in force of {}", new.epoch, old.epoch);
            return Err(PkiError::network(&path, reason));
        }
        if new.max_message_size != old.max_message_size {
            let reason = "they change the largest message, which a host takes only when it starts: start it again";
            return Err(PkiError::network(&path, reason));
        }
        Ok(Some(found))
    }

    /// Makes these the parameters in force, unless those that are in force are of the same or a later epoch.
    pub fn put_in_force(&self, parameters: ProvenParameters) {
        let mut present = self.parameters.write();
        if parameters.parameters().epoch > present.parameters().epoch {
            *present = Arc::new(parameters);
        }
    }

    /// The network's root.
    #[must_use]
    pub fn trust_root(&self) -> &TrustRoot {
        &self.trust
    }

    /// Files among the node infos that are none, with the reason.
    #[must_use]
    pub fn rejected(&self) -> Vec<(String, String)> {
        self.state.read().rejected.iter().map(|(file, (_, reason))| (file.clone(), reason.clone())).collect()
    }
}

/// Refuses parameters of a network that this host is too old for.
fn check_platform(folder: &Path, parameters: &NetworkParameters) -> Result<()> {
    let least = parameters.minimum_platform_version;
    if least > PLATFORM_VERSION {
        let reason = format!("the network needs platform version {least}, and this host has {PLATFORM_VERSION}");
        return Err(PkiError::network(&folder.join(PARAMETERS_FILE), reason));
    }
    Ok(())
}

/// What lies in the folder of node infos.
struct Listing {
    found: HashMap<SecureHash, Stamp>,
    foreign: Vec<(String, (Stamp, String))>,
    time: Option<SystemTime>,
}

impl Listing {
    fn read(network: &Path) -> Result<Listing> {
        let folder = node_infos(network);
        // Taken before listing: a change while we list makes the next refresh list again.
        let time = folder_time(&folder);
        let mut listing = Listing { found: HashMap::new(), foreign: Vec::new(), time };
        for file in files::list(&folder)? {
            // Hidden files are those that somebody is still writing.
            if file.starts_with('.') {
                continue;
            }
            let Ok(metadata) = std::fs::metadata(folder.join(&file)) else { continue };
            let stamp = Stamp::of(&metadata);
            match hash_of_file(&file) {
                Some(hash) if metadata.is_file() && stamp.size <= MAX_NODE_INFO_SIZE => {
                    listing.found.insert(hash, stamp);
                }
                Some(_) => listing.foreign.push((file, (stamp, "is no file, or larger than 1 MiB".to_owned()))),
                None => {
                    let reason = "is not named nodeInfo-, followed by the SHA-256 of the canonical name".to_owned();
                    listing.foreign.push((file, (stamp, reason)));
                }
            }
        }
        Ok(listing)
    }
}

fn hash_of_file(file: &str) -> Option<SecureHash> {
    let hash = file.strip_prefix(NODE_INFO_PREFIX)?.parse().ok()?;
    // In lower case only: otherwise two files could claim one name.
    (node_info_file(&hash) == file).then_some(hash)
}

/// The time of the folder's last change, unless it is so recent that another change could bear the same time.
fn folder_time(folder: &Path) -> Option<SystemTime> {
    let changed = std::fs::metadata(folder).ok()?.modified().ok()?;
    let age = SystemTime::now().duration_since(changed).ok()?;
    (age >= TIME_GRAIN && changed > UNIX_EPOCH).then_some(changed)
}

/// Reads name and key out of a node info, verifying nothing but that the file is named after it.
fn read_line(path: &Path, hash: &SecureHash, stamp: Stamp) -> Result<Line> {
    let malformed = |error: maxhost_model::Invalid| PkiError::network(path, error.to_string());
    let signed: Signed<NodeInfo> = from_cbor(&files::read(path)?).map_err(malformed)?;
    let info = signed.decode_unverified().map_err(malformed)?;
    match info.default_identity() {
        Some(party) if name_hash(&party.name) == *hash => {
            Ok(Line { stamp, key: party.owning_key.clone(), name: party.name.clone() })
        }
        Some(party) => {
            Err(PkiError::network(path, format!("is the node info of {}: its file has another name", party.name)))
        }
        None => Err(PkiError::network(path, "has no identity")),
    }
}
