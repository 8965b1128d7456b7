//! Private keys at rest: each in a file of its own, sealed under a master key, which is sealed with a passphrase.
//!
//! The passphrase is stretched once when the vault is unlocked: Argon2id with 19 MiB and 2 passes, the least that OWASP
//! recommends, some 20 to 40 ms. Opening a sealed key after that costs microseconds. The master key is random, so that
//! the passphrase can be changed without touching the keys.

use std::fmt;
use std::path::{Path, PathBuf};

use maxhost_model::{KeyAlgorithm, X500Name};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::error::{PkiError, Result};
use crate::files;
use crate::keys::PrivateKey;

const VAULT_FILE: &str = "vault.toml";
const VAULT_VERSION: u32 = 1;
const KDF: &str = "argon2id";
const MASTER_AAD: &[u8] = b"maxhost master key v1";
const KEY_AAD: &[u8] = b"maxhost sealed key v1\0";
/// What a sealed file begins with; a random nonce, the sealed bytes and their tag follow.
const MAGIC: &[u8] = b"MXSK\x01";
const KEY_LENGTH: usize = 32;

/// The OWASP minimum for Argon2id.
const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LANES: u32 = 1;
/// What a vault's file may ask of us: more is refused instead of tried.
const MOST_MEMORY_KIB: u32 = 1024 * 1024;
const MOST_PASSES: u32 = 64;
const MOST_LANES: u32 = 16;

/// A passphrase. Wiped from memory when dropped, never shown.
#[derive(Clone)]
pub struct Passphrase(Zeroizing<String>);

impl Passphrase {
    /// Takes a passphrase.
    ///
    /// # Errors
    /// [`PkiError::NoPassphrase`] if it is empty.
    pub fn new(text: impl Into<String>) -> Result<Passphrase> {
        let text = Zeroizing::new(text.into());
        if text.is_empty() { Err(PkiError::NoPassphrase { file: None }) } else { Ok(Passphrase(text)) }
    }

    /// Reads a passphrase from a file; line breaks at its end are no part of it.
    ///
    /// # Errors
    /// If the file cannot be read, is not UTF-8, or holds nothing.
    pub fn from_file(path: &Path) -> Result<Passphrase> {
        let bytes = Zeroizing::new(files::read(path)?);
        let not_text = |error| PkiError::read(path, std::io::Error::new(std::io::ErrorKind::InvalidData, error));
        let text = std::str::from_utf8(&bytes).map_err(not_text)?;
        Passphrase::new(text.trim_end_matches(['\r', '\n']))
            .map_err(|_| PkiError::NoPassphrase { file: Some(path.to_owned()) })
    }

    /// A random passphrase of 256 bits, as hexadecimal text.
    pub(crate) fn generate() -> Result<Passphrase> {
        let mut bytes = Zeroizing::new([0u8; KEY_LENGTH]);
        random(bytes.as_mut())?;
        Passphrase::new(hex::encode(*bytes))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passphrase(hidden)")
    }
}

/// What a sealed key is for: part of what the seal is bound to, so that no key can stand in for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// Signs for a legal identity.
    Identity,
    /// Authenticates in TLS.
    Tls,
    /// Issues a node's certificates.
    NodeCa,
    /// The root of a development network.
    RootCa,
    /// The doorman of a development network.
    DoormanCa,
    /// Signs the parameters of a development network.
    NetworkParameters,
}

impl Purpose {
    /// The name of the key's file.
    #[must_use]
    pub fn file_name(self) -> &'static str {
        match self {
            Purpose::Identity => "identity.key",
            Purpose::Tls => "tls.key",
            Purpose::NodeCa => "node-ca.key",
            Purpose::RootCa => "root.key",
            Purpose::DoormanCa => "doorman.key",
            Purpose::NetworkParameters => "parameters.key",
        }
    }

    /// The signature scheme of such keys.
    #[must_use]
    pub fn algorithm(self) -> KeyAlgorithm {
        match self {
            Purpose::Identity => KeyAlgorithm::Ed25519,
            _ => KeyAlgorithm::P256,
        }
    }

    fn associated_data(self, name: &X500Name) -> Vec<u8> {
        [KEY_AAD, self.file_name().as_bytes(), b"\0", name.as_str().as_bytes()].concat()
    }
}

/// The file of a vault.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct VaultFile {
    version: u32,
    kdf: String,
    memory_kib: u32,
    passes: u32,
    lanes: u32,
    salt: String,
    master_key: String,
}

/// An unlocked vault: opens and seals the keys of a folder.
pub struct KeyVault {
    master: LessSafeKey,
    master_bytes: Zeroizing<[u8; KEY_LENGTH]>,
    file: PathBuf,
}

impl fmt::Debug for KeyVault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyVault({})", self.file.display())
    }
}

impl KeyVault {
    /// Whether the folder has a vault.
    #[must_use]
    pub fn exists(keys: &Path) -> bool {
        keys.join(VAULT_FILE).exists()
    }

    /// Makes a vault with a new master key in a folder of keys.
    ///
    /// # Errors
    /// [`PkiError::FolderInUse`] if there is one; if the file cannot be written.
    pub fn create(keys: &Path, passphrase: &Passphrase) -> Result<KeyVault> {
        if KeyVault::exists(keys) {
            return Err(PkiError::FolderInUse { path: keys.to_owned() });
        }
        let mut master = Zeroizing::new([0u8; KEY_LENGTH]);
        random(master.as_mut())?;
        let vault = KeyVault { master: aead_key(&master)?, master_bytes: master, file: keys.join(VAULT_FILE) };
        vault.write(passphrase)?;
        Ok(vault)
    }

    /// Opens the vault of a folder. Takes some 20 to 40 ms and 19 MiB, on purpose.
    ///
    /// # Errors
    /// [`PkiError::WrongPassphrase`]; [`PkiError::Vault`] if the file is malformed; if it cannot be read.
    pub fn unlock(keys: &Path, passphrase: &Passphrase) -> Result<KeyVault> {
        let file = keys.join(VAULT_FILE);
        let parsed = read_vault_file(&file)?;
        let malformed = |reason: &str| PkiError::Vault { path: file.clone(), reason: reason.to_owned() };
        let salt = hex::decode(&parsed.salt).map_err(|_| malformed("salt is not hexadecimal"))?;
        let sealed = hex::decode(&parsed.master_key).map_err(|_| malformed("master_key is not hexadecimal"))?;

        let wrapping = stretch(passphrase, &salt, &parsed).map_err(|reason| malformed(&reason))?;
        let opened = open(&aead_key(&wrapping)?, MASTER_AAD, &sealed)
            .ok_or_else(|| PkiError::WrongPassphrase { vault: file.clone() })?;
        let bytes: [u8; KEY_LENGTH] =
            opened.as_slice().try_into().map_err(|_| malformed("master_key has another length"))?;
        let master_bytes = Zeroizing::new(bytes);
        Ok(KeyVault { master: aead_key(&master_bytes)?, master_bytes, file })
    }

    /// Seals the master key with another passphrase; the keys stay as they are.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn change_passphrase(&self, passphrase: &Passphrase) -> Result<()> {
        self.write(passphrase)
    }

    fn write(&self, passphrase: &Passphrase) -> Result<()> {
        let mut salt = [0u8; 16];
        random(&mut salt)?;
        let mut content = VaultFile {
            version: VAULT_VERSION,
            kdf: KDF.to_owned(),
            memory_kib: MEMORY_KIB,
            passes: PASSES,
            lanes: LANES,
            salt: hex::encode(salt),
            master_key: String::new(),
        };
        let wrapping = stretch(passphrase, &salt, &content).map_err(PkiError::Crypto)?;
        content.master_key = hex::encode(seal(&aead_key(&wrapping)?, MASTER_AAD, self.master_bytes.as_ref())?);
        let toml = toml::to_string(&content).map_err(|error| PkiError::Crypto(error.to_string()))?;
        let text = format!("# The key that all keys here are sealed with, itself sealed with the passphrase.\n{toml}");
        files::replace_durably(&self.file, text.as_bytes(), files::PRIVATE)
    }

    /// Seals a private key, to be opened for this name and purpose only.
    ///
    /// # Errors
    /// [`PkiError::Crypto`] if the system gives no randomness.
    pub fn seal(&self, key: &PrivateKey, purpose: Purpose, name: &X500Name) -> Result<Vec<u8>> {
        let sealed = seal(&self.master, &purpose.associated_data(name), key.pkcs8())?;
        Ok([MAGIC, &sealed].concat())
    }

    /// Opens the key with this purpose in a folder.
    ///
    /// # Errors
    /// [`PkiError::Key`] if it is malformed, was altered, or was sealed for another name, purpose or vault; if the file
    /// cannot be read.
    pub fn open_key(&self, folder: &Path, purpose: Purpose, name: &X500Name) -> Result<PrivateKey> {
        let path = folder.join(purpose.file_name());
        let bytes = files::read(&path)?;
        let refuse = |reason: &str| PkiError::Key { path: path.clone(), reason: reason.to_owned() };
        let sealed = bytes.strip_prefix(MAGIC).ok_or_else(|| refuse("it is not a sealed key of this version"))?;
        let pkcs8 = open(&self.master, &purpose.associated_data(name), sealed).ok_or_else(|| {
            refuse(&format!("it was altered, or sealed for another identity than {name} or with another vault"))
        })?;
        PrivateKey::from_pkcs8(purpose.algorithm(), pkcs8).ok_or_else(|| refuse("it holds no key of the right scheme"))
    }
}

fn read_vault_file(file: &Path) -> Result<VaultFile> {
    let malformed = |reason: String| PkiError::Vault { path: file.to_owned(), reason };
    let text = String::from_utf8(files::read(file)?).map_err(|_| malformed("it is not text".to_owned()))?;
    let parsed: VaultFile = toml::from_str(&text).map_err(|error| malformed(error.message().to_owned()))?;
    if parsed.version != VAULT_VERSION || parsed.kdf != KDF {
        return Err(malformed(format!("version {} with {} is not known here", parsed.version, parsed.kdf)));
    }
    if parsed.memory_kib > MOST_MEMORY_KIB || parsed.passes > MOST_PASSES || parsed.lanes > MOST_LANES {
        return Err(malformed("it asks for more memory or passes than is reasonable".to_owned()));
    }
    Ok(parsed)
}

/// The key that a passphrase stands for.
fn stretch(
    passphrase: &Passphrase,
    salt: &[u8],
    costs: &VaultFile,
) -> std::result::Result<Zeroizing<[u8; KEY_LENGTH]>, String> {
    let params = argon2::Params::new(costs.memory_kib, costs.passes, costs.lanes, Some(KEY_LENGTH))
        .map_err(|error| format!("bad costs: {error}"))?;
    let argon2 = argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params);
    let mut key = Zeroizing::new([0u8; KEY_LENGTH]);
    argon2
        .hash_password_into(passphrase.as_str().as_bytes(), salt, key.as_mut())
        .map_err(|error| format!("bad salt: {error}"))?;
    Ok(key)
}

fn aead_key(bytes: &[u8; KEY_LENGTH]) -> Result<LessSafeKey> {
    let key = UnboundKey::new(&CHACHA20_POLY1305, bytes).map_err(|_| PkiError::Crypto("bad key length".to_owned()))?;
    Ok(LessSafeKey::new(key))
}

/// Nonce, ciphertext, tag. The nonce is random: with 96 bits and fewer than 2^32 seals under one key, as NIST asks.
fn seal(key: &LessSafeKey, associated_data: &[u8], plain: &[u8]) -> Result<Vec<u8>> {
    let mut nonce = [0u8; NONCE_LEN];
    random(&mut nonce)?;
    let mut body = Zeroizing::new(plain.to_vec());
    let tag = key
        .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(associated_data), body.as_mut())
        .map_err(|_| PkiError::Crypto("sealing failed".to_owned()))?;
    Ok([&nonce[..], &body, tag.as_ref()].concat())
}

fn open(key: &LessSafeKey, associated_data: &[u8], sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let (nonce, body) = sealed.split_at_checked(NONCE_LEN)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
    let mut body = Zeroizing::new(body.to_vec());
    let length = key.open_in_place(nonce, Aad::from(associated_data), body.as_mut()).ok()?.len();
    body.truncate(length);
    Some(body)
}

fn random(bytes: &mut [u8]) -> Result<()> {
    getrandom::fill(bytes).map_err(|error| PkiError::Crypto(format!("no randomness: {error}")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn passphrase(text: &str) -> Passphrase {
        Passphrase::new(text).unwrap()
    }

    fn alice() -> X500Name {
        "O=Alice, L=London, C=GB".parse().unwrap()
    }

    fn with_key(purpose: Purpose) -> (tempfile::TempDir, KeyVault, PrivateKey) {
        let dir = tempfile::tempdir().unwrap();
        let vault = KeyVault::create(dir.path(), &passphrase("secret")).unwrap();
        let key = PrivateKey::generate(purpose.algorithm()).unwrap();
        std::fs::write(dir.path().join(purpose.file_name()), vault.seal(&key, purpose, &alice()).unwrap()).unwrap();
        (dir, vault, key)
    }

    #[test]
    fn a_sealed_key_opens_after_unlocking_again() {
        for purpose in [Purpose::Identity, Purpose::Tls] {
            let (dir, vault, key) = with_key(purpose);
            let again = KeyVault::unlock(dir.path(), &passphrase("secret")).unwrap();
            for vault in [vault, again] {
                assert_eq!(vault.open_key(dir.path(), purpose, &alice()).unwrap().public(), key.public());
            }
            let file = dir.path().join(VAULT_FILE);
            assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
            assert!(matches!(KeyVault::create(dir.path(), &passphrase("x")), Err(PkiError::FolderInUse { .. })));
        }
    }

    #[test]
    fn a_wrong_passphrase_says_so() {
        let (dir, vault, key) = with_key(Purpose::Identity);
        assert!(matches!(KeyVault::unlock(dir.path(), &passphrase("Secret")), Err(PkiError::WrongPassphrase { .. })));
        vault.change_passphrase(&passphrase("other")).unwrap();
        assert!(matches!(KeyVault::unlock(dir.path(), &passphrase("secret")), Err(PkiError::WrongPassphrase { .. })));
        let again = KeyVault::unlock(dir.path(), &passphrase("other")).unwrap();
        assert_eq!(again.open_key(dir.path(), Purpose::Identity, &alice()).unwrap().public(), key.public());
        assert!(Passphrase::new("").is_err());
    }

    #[test]
    fn a_key_opens_for_its_name_purpose_and_vault_only() {
        let (dir, vault, _) = with_key(Purpose::Tls);
        let refused = |vault: &KeyVault, purpose, name: &str| {
            matches!(vault.open_key(dir.path(), purpose, &name.parse().unwrap()), Err(PkiError::Key { .. }))
        };
        assert!(refused(&vault, Purpose::Tls, "O=Bob, L=London, C=GB"));
        std::fs::copy(dir.path().join("tls.key"), dir.path().join("node-ca.key")).unwrap();
        assert!(refused(&vault, Purpose::NodeCa, alice().as_str()));
        let (_dir, stranger, _) = with_key(Purpose::Tls);
        assert!(refused(&stranger, Purpose::Tls, alice().as_str()));
    }

    #[test]
    fn an_altered_key_is_refused_whatever_byte_it_is() {
        let (dir, vault, _) = with_key(Purpose::Identity);
        let path = dir.path().join("identity.key");
        let sealed = std::fs::read(&path).unwrap();
        for at in 0..sealed.len() {
            let mut altered = sealed.clone();
            altered[at] ^= 1;
            std::fs::write(&path, &altered).unwrap();
            assert!(
                matches!(vault.open_key(dir.path(), Purpose::Identity, &alice()), Err(PkiError::Key { .. })),
                "byte {at}"
            );
        }
        for length in [0, 3, 5, 10, 17, sealed.len() - 1] {
            std::fs::write(&path, &sealed[..length]).unwrap();
            assert!(matches!(vault.open_key(dir.path(), Purpose::Identity, &alice()), Err(PkiError::Key { .. })));
        }
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(vault.open_key(dir.path(), Purpose::Identity, &alice()), Err(PkiError::File { .. })));
    }

    #[test]
    fn a_malformed_vault_is_told_apart_from_a_wrong_passphrase() {
        let (dir, _, _) = with_key(Purpose::Identity);
        let file = dir.path().join(VAULT_FILE);
        let text = std::fs::read_to_string(&file).unwrap();
        for (from, to) in [
            ("version = 1", "version = 2"),
            ("argon2id", "md5"),
            ("memory_kib = 19456", "memory_kib = 4000000000"),
            ("memory_kib = 19456", "memory_kib = 0"),
            ("salt = \"", "salt = \"x"),
            ("passes = 2", "passes = 2\nfoo = 1"),
        ] {
            std::fs::write(&file, text.replace(from, to)).unwrap();
            assert!(matches!(KeyVault::unlock(dir.path(), &passphrase("secret")), Err(PkiError::Vault { .. })), "{to}");
        }
        std::fs::write(&file, b"\xff\xfe").unwrap();
        assert!(matches!(KeyVault::unlock(dir.path(), &passphrase("secret")), Err(PkiError::Vault { .. })));
    }

    #[test]
    fn passphrases_come_from_files_and_are_never_shown() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("passphrase");
        std::fs::write(&file, "hunter2 \r\n").unwrap();
        let read = Passphrase::from_file(&file).unwrap();
        assert_eq!(read.as_str(), "hunter2 ");
        assert!(!format!("{read:?}").contains("hunter2"));
        std::fs::write(&file, "\n").unwrap();
        assert!(matches!(Passphrase::from_file(&file), Err(PkiError::NoPassphrase { file: Some(_) })));
        std::fs::write(&file, [0xff]).unwrap();
        assert!(matches!(Passphrase::from_file(&file), Err(PkiError::File { .. })));
    }
}
