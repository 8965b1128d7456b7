//! The users of a host: a file of names, hashes of passwords, permissions and identities, and of their tokens.

use std::collections::HashMap;
use std::sync::Arc;

use argon2::password_hash::{PasswordHash, PasswordHasher, SaltString};
use argon2::{Argon2, Params};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use maxhost_flows::{Permission, Rights};
use maxhost_model::{KeyAlgorithm, PublicKey};
use serde::Deserialize;

use crate::tokens::{Token, TokenEntry};

/// What hashing costs: RFC 9106 §4 recommends 64 MiB, three passes and four lanes where memory is scarce; a host hashes beside
/// its work and remembers, 19 MiB and two passes are the least that OWASP names.
const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
/// Longest password, bytes.
pub(crate) const LONGEST_PASSWORD: usize = 1_024;
/// Longest name, characters.
const LONGEST_NAME: usize = 64;
/// What a key in the file begins with.
const KEY_SCHEME: &str = "ed25519:";

/// One user.
#[derive(Clone)]
pub struct User {
    /// The name he logs in with.
    pub name: String,
    /// The hash of his password in PHC form; without one only a certificate of his name lets him in.
    pub(crate) hash: Option<String>,
    /// The key that signs his messages; without one he can send none.
    pub(crate) key: Option<PublicKey>,
    pub(crate) rights: Arc<Rights>,
}

/// All users of a host, and their tokens.
#[derive(Clone, Default)]
pub struct Users {
    users: HashMap<String, User>,
    tokens: HashMap<String, Token>,
}

/// Why a file of users cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsersFault {
    /// Where in the text, bytes from its beginning, if that is known.
    pub at: Option<usize>,
    /// What is wrong.
    pub message: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    user: Vec<Entry>,
    #[serde(default)]
    token: Vec<TokenEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    password: Option<String>,
    key: Option<String>,
    permissions: Vec<String>,
    identities: Vec<String>,
}

/// Whether a user may be called so.
///
/// # Errors
/// The rule that is broken.
pub fn check_name(name: &str) -> Result<(), String> {
    let fits = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '@');
    match name.chars().count() {
        1..=LONGEST_NAME if name.chars().all(fits) => Ok(()),
        _ => Err(format!("a user's name has 1 to {LONGEST_NAME} letters, digits, '_', '-', '.' and '@'")),
    }
}

/// Whether a user of this name may have a key: his name is part of the names of his queues for answers.
///
/// # Errors
/// The rule that is broken.
pub fn check_name_for_key(name: &str) -> Result<(), String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    match name.chars().all(fits) {
        true => check_name(name),
        false => Err("the name of a user who sends messages has only letters of ASCII, digits, '_' and '-'".to_owned()),
    }
}

/// A key as it stands in the file: `ed25519:` and the base 64 of its 32 bytes.
#[must_use]
pub fn key_text(key: &PublicKey) -> String {
    format!("{KEY_SCHEME}{}", STANDARD.encode(key.raw()))
}

fn read_key(text: &str) -> Option<PublicKey> {
    let raw = STANDARD.decode(text.strip_prefix(KEY_SCHEME)?).ok()?;
    PublicKey::from_raw(KeyAlgorithm::Ed25519, &raw).ok()
}

/// The hash of a password, in PHC form.
///
/// # Errors
/// The password is empty or too long.
pub fn hash_password(password: &str) -> Result<String, String> {
    if password.is_empty() || password.len() > LONGEST_PASSWORD {
        return Err(format!("a password has 1 to {LONGEST_PASSWORD} bytes"));
    }
    let mut salt = [0; 16];
    rand::fill(&mut salt);
    let salt = SaltString::encode_b64(&salt).map_err(|error| error.to_string())?;
    Ok(hasher()?.hash_password(password.as_bytes(), &salt).map_err(|error| error.to_string())?.to_string())
}

pub(crate) fn hasher() -> Result<Argon2<'static>, String> {
    let params = Params::new(MEMORY_KIB, PASSES, 1, None).map_err(|error| error.to_string())?;
    Ok(Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params))
}

impl Users {
    /// Reads the text of a file of users.
    ///
    /// # Errors
    /// It is no such text, or a name, a hash or a permission in it is none.
    pub fn parse(text: &str) -> Result<Users, UsersFault> {
        let file: File = toml::from_str(text).map_err(|error| UsersFault {
            at: error.span().map(|span| span.start),
            message: error.message().to_owned(),
        })?;
        let mut users: HashMap<String, User> = HashMap::new();
        for entry in file.user {
            let fault = |message: String| UsersFault { at: None, message: format!("user '{}': {message}", entry.name) };
            check_name(&entry.name).map_err(fault)?;
            if let Some(hash) = &entry.password {
                PasswordHash::new(hash)
                    .map_err(|_| fault("the password is no hash such as `maxhost user passwd` writes".to_owned()))?;
            }
            let key = match &entry.key {
                None => None,
                Some(text) => {
                    check_name_for_key(&entry.name).map_err(fault)?;
                    let key = read_key(text);
                    Some(key.ok_or_else(|| fault("the key is none such as `maxhost user key` writes".to_owned()))?)
                }
            };
            let permissions: Result<Vec<Permission>, String> =
                entry.permissions.iter().map(|text| text.parse()).collect();
            let rights = Arc::new(Rights::new(permissions.map_err(fault)?, &entry.identities));
            let user = User { name: entry.name.clone(), hash: entry.password.clone(), key, rights };
            if users.insert(entry.name.clone(), user).is_some() {
                return Err(fault("is there twice".to_owned()));
            }
        }
        let mut tokens = HashMap::new();
        for entry in file.token {
            let fault = |message: String| UsersFault { at: None, message: format!("token '{}': {message}", entry.id) };
            // That its user is gone makes it of no use, and the file of none: or he could go on for as long as it is broken.
            let rights = users.get(&entry.user).map(|user| &user.rights);
            let token = Token::read(&entry, rights).map_err(fault)?;
            if tokens.insert(entry.id.clone(), token).is_some() {
                return Err(fault("is there twice".to_owned()));
            }
        }
        Ok(Users { users, tokens })
    }

    /// The user of this name.
    pub(crate) fn user(&self, name: &str) -> Option<&User> {
        self.users.get(name)
    }

    /// The token with this id.
    pub(crate) fn token(&self, id: &str) -> Option<&Token> {
        self.tokens.get(id)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.users.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.users.is_empty()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_wrong_in_a_file_is_told() {
        let fault = |text: &str| Users::parse(text).err().unwrap();
        assert_eq!(fault("[[user]]\nname = 3\n").at, Some(16));
        assert!(fault("[[user]]\nname = \"a b\"\npermissions = []\nidentities = []\n").message.contains("letters"));
        let user = "[[user]]\nname = \"a\"\npermissions = [\"ALL\"]\nidentities = [\"*\"]\n";
        assert!(fault(&format!("{user}{user}")).message.contains("twice"));
        assert!(fault(&user.replace("ALL", "Fly")).message.contains("Fly"));
        assert!(fault(&user.replace("name", "password = \"plain\"\nname")).message.contains("no hash"));
        assert_eq!(Users::parse(user).unwrap().len(), 1);

        let token = format!(
            "[[token]]\nid = \"0123456789abcdef\"\nuser = \"a\"\nhash = \"sha256:{}\"\ncreated = \"2026-01-01T00:00:00Z\"\n\
             expires = \"2026-04-01T00:00:00Z\"\npermissions = [\"Status\"]\n",
            "0".repeat(64)
        );
        let with = |token: &str| Users::parse(&format!("{user}{token}")).map(|users| users.tokens.len());
        assert_eq!((with(&token), with(&token.replace("\"a\"", "\"gone\""))), (Ok(1), Ok(1)));
        for (was, is, told) in [
            ("0123456789abcdef", "0123", "its id is none"),
            ("sha256:00", "sha256:0", "the hash is none"),
            ("2026-04-01T00:00:00Z", "soon", "expires: 'soon' is no time"),
            ("2026-01-01T00:00:00Z", "", "created: '' is no time"),
            ("Status", "Fly", "Fly"),
            ("permissions", "revoked = \"yes\"\npermissions", "revoked: 'yes' is no time"),
            ("permissions", "secret = \"x\"\npermissions", "secret"),
        ] {
            let fault = with(&token.replacen(was, is, 1)).unwrap_err();
            assert!(fault.message.contains(told), "{is}: {}", fault.message);
        }
        assert!(with(&format!("{token}{token}")).unwrap_err().message.contains("twice"));
    }
}
