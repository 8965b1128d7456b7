//! Signed code: a component with its signatures behind it, in one file (behaviour.md 10.15).
//!
//! The signatures are in a custom section of WebAssembly at the end, so a signed component is still a plain component.
//! Its code is all that stands before that section: signing never changes the hash of the code, and always changes the id
//! of the file.

use std::collections::BTreeSet;

use maxhost_model::{PublicKey, SecureHash, octets};
use serde::{Deserialize, Serialize};

use crate::codec;
use crate::keys::{self, SigningKey};
use crate::refused::{Refused, Result};
use crate::rules::Rule;

/// The name of the section that holds the signatures.
pub const SIGNATURES_SECTION: &str = "signatures";

/// The most signatures over one file: as many as a signature constraint may ask for.
pub const MAX_CODE_SIGNATURES: usize = 20;

/// The first eight bytes of a component or module: magic number, version and layer.
const PREAMBLE: usize = 8;

/// What stands before the hash of the code in what is signed, so that the signature is good for nothing else.
const PURPOSE: &str = "maxhost contract code";

/// A file that was read: its code, and who has signed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedCode {
    /// SHA-256 of the file: what transactions name it by.
    pub id: SecureHash,
    /// SHA-256 of the code: what hash constraints name, and the same whoever signs.
    pub code_hash: SecureHash,
    /// The keys whose signatures over the code verify; all of them do.
    pub signers: BTreeSet<PublicKey>,
    /// How many bytes of the file are code; the rest are signatures.
    pub code_length: usize,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CodeSignature {
    by: PublicKey,
    #[serde(with = "octets")]
    signature: Vec<u8>,
}

fn refuse(message: impl Into<String>) -> Refused {
    Refused::new(Rule::AttachmentInvalid, message)
}

impl SignedCode {
    /// Reads a file and checks its signatures. Whether its code is any good is another matter.
    ///
    /// # Errors
    /// [`Rule::AttachmentInvalid`] if it is cut off, has signatures elsewhere than at the end, too many, none in a section
    /// that is there, or two of one key; [`Rule::SignatureInvalid`] if one does not verify.
    pub fn read(file: &[u8]) -> Result<SignedCode> {
        let (code, section) = split(file)?;
        let code_hash = SecureHash::of(code);
        let mut signers = BTreeSet::new();
        for signed in section.map(signatures).transpose()?.unwrap_or_default() {
            if !keys::verify(&signed.by, &statement(&code_hash)?, &signed.signature) {
                let message = format!("the signature of the key {} over the code does not verify", signed.by);
                return Err(Refused::new(Rule::SignatureInvalid, message).detail("key", &signed.by));
            }
            if signers.last().is_some_and(|last| *last >= signed.by) {
                return Err(refuse("the signatures over the code are not in the order of their keys, each once"));
            }
            signers.insert(signed.by);
        }
        Ok(SignedCode { id: SecureHash::of(file), code_hash, signers, code_length: code.len() })
    }

    /// The code of the file that this was read from.
    #[must_use]
    pub fn code<'a>(&self, file: &'a [u8]) -> &'a [u8] {
        file.get(..self.code_length).unwrap_or(file)
    }
}

/// What is signed: the purpose, and the hash of the code.
///
/// # Errors
/// As [`codec::encode`]; none that could happen.
pub fn statement(code_hash: &SecureHash) -> Result<Vec<u8>> {
    codec::encode("code signature", &(PURPOSE, code_hash))
}

/// Signs a file, besides those who have signed it already. A key that has signed signs anew.
///
/// # Errors
/// As [`SignedCode::read`]; [`Rule::AttachmentInvalid`] beyond [`MAX_CODE_SIGNATURES`].
pub fn sign(file: &[u8], key: &SigningKey) -> Result<Vec<u8>> {
    let code_hash = SignedCode::read(file)?.code_hash;
    add_signature(file, key.public().clone(), key.sign(&statement(&code_hash)?))
}

/// Adds a signature that was made elsewhere over [`statement`].
///
/// # Errors
/// As [`sign`].
pub fn add_signature(file: &[u8], by: PublicKey, signature: Vec<u8>) -> Result<Vec<u8>> {
    let (code, section) = split(file)?;
    let mut all = section.map(signatures).transpose()?.unwrap_or_default();
    all.retain(|one| one.by != by);
    all.push(CodeSignature { by, signature });
    all.sort_by(|one, other| one.by.cmp(&other.by));
    if all.len() > MAX_CODE_SIGNATURES {
        return Err(refuse(format!("code has at most {MAX_CODE_SIGNATURES} signatures")));
    }
    let content = codec::encode("code signatures", &all)?;
    let mut signed = code.to_vec();
    signed.push(0);
    let mut body = Vec::new();
    write_length(SIGNATURES_SECTION.len(), &mut body)?;
    body.extend_from_slice(SIGNATURES_SECTION.as_bytes());
    body.extend_from_slice(&content);
    write_length(body.len(), &mut signed)?;
    signed.extend_from_slice(&body);
    SignedCode::read(&signed)?;
    Ok(signed)
}

/// The signatures in a section.
fn signatures(content: &[u8]) -> Result<Vec<CodeSignature>> {
    let all: Vec<CodeSignature> = codec::decode("code signatures", content)?;
    if all.is_empty() || all.len() > MAX_CODE_SIGNATURES {
        return Err(refuse(format!("a section of signatures has 1 to {MAX_CODE_SIGNATURES} of them")));
    }
    Ok(all)
}

/// The code, and the content of the section of signatures if there is one.
fn split(file: &[u8]) -> Result<(&[u8], Option<&[u8]>)> {
    if file.len() < PREAMBLE || !file.starts_with(b"\0asm") {
        return Err(refuse("it is no WebAssembly: it does not begin with the magic bytes"));
    }
    let cut_off = || refuse("it is cut off in the middle of a section");
    let mut rest = file.get(PREAMBLE..).ok_or_else(cut_off)?;
    while let Some((kind, behind)) = rest.split_first() {
        let start = file.len() - rest.len();
        let (length, behind) = read_length(behind)?;
        let (section, behind) = behind.split_at_checked(length).ok_or_else(cut_off)?;
        rest = behind;
        if *kind != 0 {
            continue;
        }
        let (name_length, content) = read_length(section)?;
        let (name, content) = content.split_at_checked(name_length).ok_or_else(cut_off)?;
        if name == SIGNATURES_SECTION.as_bytes() {
            if !rest.is_empty() {
                return Err(refuse("something stands behind its signatures"));
            }
            return Ok((file.get(..start).ok_or_else(cut_off)?, Some(content)));
        }
    }
    Ok((file, None))
}

/// A length in LEB128, as WebAssembly writes it: at most five bytes.
fn read_length(bytes: &[u8]) -> Result<(usize, &[u8])> {
    let mut value = 0_u64;
    for (at, byte) in bytes.iter().take(5).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            let length = u32::try_from(value).map_err(|_| refuse("a section is longer than a file can be"))?;
            return Ok((length as usize, bytes.get(at + 1..).unwrap_or_default()));
        }
    }
    Err(refuse("the length of a section is cut off or too long"))
}

fn write_length(length: usize, out: &mut Vec<u8>) -> Result<()> {
    let mut left = u32::try_from(length).map_err(|_| refuse("a section is longer than a file can be"))?;
    loop {
        let low = left.to_le_bytes()[0] & 0x7f;
        left >>= 7;
        if left == 0 {
            out.push(low);
            return Ok(());
        }
        out.push(low | 0x80);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::fixtures::signing_key;

    /// A module with a custom section of another name.
    fn code() -> Vec<u8> {
        [&b"\0asm\x01\0\0\0"[..], &[0, 5, 4], b"name"].concat()
    }

    fn rule(file: &[u8]) -> Rule {
        SignedCode::read(file).unwrap_err().rule()
    }

    #[test]
    fn signing_changes_the_id_and_never_the_code() {
        let plain = SignedCode::read(&code()).unwrap();
        assert!(plain.signers.is_empty() && plain.id == plain.code_hash);
        let once = sign(&code(), &signing_key(1)).unwrap();
        let twice = sign(&once, &signing_key(2)).unwrap();
        let other_order = sign(&sign(&code(), &signing_key(2)).unwrap(), &signing_key(1)).unwrap();
        assert_eq!(twice, other_order);
        assert_eq!(sign(&twice, &signing_key(1)).unwrap(), twice, "a second signature of a key replaces the first");
        let read = SignedCode::read(&twice).unwrap();
        assert_eq!(read.code_hash, plain.code_hash);
        assert_eq!(read.code(&twice), code());
        assert_ne!(read.id, SignedCode::read(&once).unwrap().id);
        assert_eq!(read.signers, [signing_key(1), signing_key(2)].map(|key| key.public().clone()).into());
    }

    #[test]
    fn what_was_changed_after_it_was_signed_is_refused() {
        let signed = sign(&code(), &signing_key(1)).unwrap();
        let mut changed = signed.clone();
        changed[12] ^= 1;
        assert_eq!(rule(&changed), Rule::SignatureInvalid);
        let mut forged = signed.clone();
        *forged.last_mut().unwrap() ^= 1;
        assert_eq!(rule(&forged), Rule::SignatureInvalid);
        let mut moved = signed;
        moved.extend_from_slice(&[0, 2, 1, b'x']);
        assert_eq!(rule(&moved), Rule::AttachmentInvalid);
    }

    #[test]
    fn every_cut_is_refused_or_unsigned() {
        let signed = sign(&code(), &signing_key(1)).unwrap();
        for length in 0..signed.len() {
            if let Ok(read) = SignedCode::read(&signed[..length]) {
                assert!(read.signers.is_empty(), "{length}");
            }
        }
        let mut long = code();
        long.extend_from_slice(&[0, 0xff, 0xff, 0xff, 0xff, 0xff, 0x0f]);
        assert_eq!(rule(&long), Rule::AttachmentInvalid);
        assert_eq!(rule(b""), Rule::AttachmentInvalid);
    }

    #[test]
    fn signatures_have_a_bound() {
        let mut file = code();
        for byte in 1..=20 {
            file = sign(&file, &signing_key(byte)).unwrap();
        }
        assert_eq!(sign(&file, &signing_key(21)).unwrap_err().rule(), Rule::AttachmentInvalid);
    }
}
