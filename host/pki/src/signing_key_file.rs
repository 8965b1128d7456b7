//! A publisher's key in a file: PEM of PKCS #8 (RFC 5958, RFC 7468), as `openssl genpkey -algorithm ed25519` writes it. It
//! signs code, so it belongs to a person or a build, not to an identity, and no vault holds it.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use maxhost_model::{KeyAlgorithm, PublicKey};
use zeroize::Zeroizing;

use crate::error::{PkiError, Result};
use crate::files;
use crate::keys::PrivateKey;

const BEGIN: &str = "-----BEGIN PRIVATE KEY-----";
const END: &str = "-----END PRIVATE KEY-----";
const BEGIN_PUBLIC: &str = "-----BEGIN PUBLIC KEY-----";
const END_PUBLIC: &str = "-----END PUBLIC KEY-----";
/// What a key of the first version begins with: a sequence of 46 bytes, version 0.
const FIRST_VERSION: &[u8] = &[0x30, 0x2e, 0x02, 0x01, 0x00];
/// The algorithm Ed25519, and the heads of the octet strings with the seed.
const SEED: &[u8] = &[0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
const SEED_LENGTH: usize = 32;

/// Makes a new Ed25519 key in a file that only the user may read. A key that is there is read instead.
///
/// # Errors
/// The file cannot be written; the system gives no randomness; and those of [`read`].
pub fn create(path: &Path) -> Result<PrivateKey> {
    if path.exists() {
        return read(path);
    }
    let key = PrivateKey::generate(KeyAlgorithm::Ed25519)?;
    let der = plain_form(key.pkcs8());
    let base64 = Zeroizing::new(STANDARD.encode(der.as_slice()));
    let mut text = Zeroizing::new(format!("{BEGIN}\n"));
    for line in base64.as_bytes().chunks(64) {
        text.extend(line.iter().map(|byte| char::from(*byte)));
        text.push('\n');
    }
    text.push_str(END);
    text.push('\n');
    files::replace_durably(path, text.as_bytes(), files::PRIVATE)?;
    Ok(key)
}

/// The key in the first version of PKCS #8, without the public half, as OpenSSL writes it: other programs read no other.
fn plain_form(pkcs8: &[u8]) -> Zeroizing<Vec<u8>> {
    // The algorithm is followed by the seed, an octet string in an octet string (RFC 8410, section 7).
    let seed = pkcs8.windows(SEED.len()).position(|window| window == SEED).and_then(|at| {
        let from = at + SEED.len();
        pkcs8.get(from..from + SEED_LENGTH)
    });
    Zeroizing::new(match seed {
        Some(seed) => [FIRST_VERSION, SEED, seed].concat(),
        None => pkcs8.to_vec(),
    })
}

/// Reads a key.
///
/// # Errors
/// [`PkiError::Key`] if others than the user may read the file, or it holds no Ed25519 key in PKCS #8; if it cannot be read.
pub fn read(path: &Path) -> Result<PrivateKey> {
    let refuse = |reason: &str| PkiError::Key { path: path.to_owned(), reason: reason.to_owned() };
    let text = Zeroizing::new(files::read(path)?);
    if std::fs::metadata(path).is_ok_and(|found| found.mode() & 0o077 != 0) {
        return Err(refuse("others than its owner may read or write it: chmod 600 it"));
    }
    let text = std::str::from_utf8(&text).map_err(|_| refuse("it is no PEM text"))?;
    let inner = text.split_once(BEGIN).and_then(|(_, rest)| rest.split_once(END)).map(|(inner, _)| inner);
    let inner = inner.ok_or_else(|| refuse("it holds no unencrypted private key in PKCS #8"))?;
    let base64: Zeroizing<String> = Zeroizing::new(inner.split_whitespace().collect());
    let der = STANDARD.decode(base64.as_bytes()).map_err(|_| refuse("its base 64 is malformed"))?;
    PrivateKey::from_pkcs8(KeyAlgorithm::Ed25519, Zeroizing::new(der)).ok_or_else(|| refuse("it is no Ed25519 key"))
}

/// Reads the public half of a key: from a file as [`read`] takes it, or from one that holds nothing else, PEM of
/// `SubjectPublicKeyInfo` (RFC 7468, section 13), as `openssl pkey -pubout` writes it.
///
/// # Errors
/// [`PkiError::Key`] if it holds neither; those of [`read`]; if it cannot be read.
pub fn read_public(path: &Path) -> Result<PublicKey> {
    let refuse = |reason: &str| PkiError::Key { path: path.to_owned(), reason: reason.to_owned() };
    let text = Zeroizing::new(files::read(path)?);
    let inner = std::str::from_utf8(&text)
        .ok()
        .and_then(|text| text.split_once(BEGIN_PUBLIC))
        .and_then(|(_, rest)| rest.split_once(END_PUBLIC))
        .map(|(inner, _)| inner);
    let Some(inner) = inner else { return Ok(read(path)?.public().clone()) };
    let base64: String = inner.split_whitespace().collect();
    let der = STANDARD.decode(base64).map_err(|_| refuse("its base 64 is malformed"))?;
    PublicKey::from_spki(&der).map_err(|error| refuse(&error.to_string()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// What OpenSSL 3 writes for the key of RFC 8032, 7.1, test 1: without the public half.
    const OPENSSL: &str = "-----BEGIN PRIVATE KEY-----\n\
        MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n-----END PRIVATE KEY-----\n";

    #[test]
    fn a_key_is_made_once_and_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("developer.pem");
        let made = create(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(create(&path).unwrap().public(), made.public());
        // It has the form of the one that OpenSSL has made.
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!((text.len(), &text[..49]), (OPENSSL.len(), &OPENSSL[..49]));
        let signature = read(&path).unwrap().sign(b"code").unwrap();
        assert!(crate::keys::verify(made.public(), b"code", &signature));
    }

    #[test]
    fn keys_of_other_programs_are_read_and_careless_files_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key.pem");
        let write = |text: &str, mode: u32| {
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        write(OPENSSL, 0o600);
        let raw = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
        assert_eq!(hex::encode(read(&path).unwrap().public().raw()), raw);
        write(OPENSSL, 0o644);
        assert!(read(&path).unwrap_err().to_string().contains("chmod"));
        for bad in ["", "-----BEGIN PRIVATE KEY-----\n!\n-----END PRIVATE KEY-----\n", &OPENSSL.replace("MC4C", "MC4D")]
        {
            write(bad, 0o600);
            assert!(matches!(read(&path), Err(PkiError::Key { .. })), "{bad}");
        }
    }

    #[test]
    fn the_public_half_is_read_from_either_file() {
        let folder = tempfile::tempdir().unwrap();
        let (private, public) = (folder.path().join("developer.pem"), folder.path().join("public.pem"));
        let key = create(&private).unwrap();
        assert_eq!(read_public(&private).unwrap(), *key.public());
        let text = format!("{BEGIN_PUBLIC}\n{}\n{END_PUBLIC}\n", STANDARD.encode(key.public().spki()));
        std::fs::write(&public, &text).unwrap();
        // It is no secret: whoever may read it may.
        std::fs::set_permissions(&public, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(read_public(&public).unwrap(), *key.public());
        for damaged in [text.replace("MC", "!!"), text.replace("MC", "AA"), "a key".to_owned(), String::new()] {
            std::fs::write(&public, damaged).unwrap();
            assert!(matches!(read_public(&public), Err(PkiError::Key { .. })));
        }
        assert!(read_public(&folder.path().join("none")).is_err());
    }
}
