//! Tokens: what programs show in place of a name and a password, and what a host keeps of them.
//!
//! A token has 256 random bits, and nobody guesses those. So its SHA-256 is kept and no slow hash as of passwords: slowness
//! makes it dear to try the words that people think of, which says nothing about random bits, and a token is looked at with each
//! request. It has an id that is no secret, by which lists, the audit trail and the host find it.

use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use maxhost_flows::{Permission, Rights};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// What every token begins with, so that it is known for one wherever it turns up.
const HEAD: &str = "mht_";
/// Bytes of an id and of a secret. Both are written in hexadecimal, in small letters.
const ID_BYTES: usize = 8;
const SECRET_BYTES: usize = 32;
/// What the hash of a token in the file begins with.
const HASH_SCHEME: &str = "sha256:";
/// Longest note, characters.
const LONGEST_NOTE: usize = 128;

/// A token as its holder has it: `mht_ID_SECRET`. It is wiped when it is dropped.
#[derive(Clone)]
pub struct TokenText(Zeroizing<String>);

impl fmt::Debug for TokenText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenText").field("id", &self.id()).finish_non_exhaustive()
    }
}

impl TokenText {
    /// A new one.
    #[must_use]
    pub fn random() -> TokenText {
        let (mut id, mut secret) = ([0_u8; ID_BYTES], Zeroizing::new([0_u8; SECRET_BYTES]));
        rand::fill(&mut id);
        rand::fill(&mut *secret);
        let secret = Zeroizing::new(hex::encode(secret.as_slice()));
        TokenText(Zeroizing::new(format!("{HEAD}{}_{}", hex::encode(id), *secret)))
    }

    /// The token of this text; `None` if it is none.
    #[must_use]
    pub fn parse(text: &str) -> Option<TokenText> {
        let (id, secret) = text.strip_prefix(HEAD)?.split_once('_')?;
        (is_hex(id, ID_BYTES) && is_hex(secret, SECRET_BYTES)).then(|| TokenText(Zeroizing::new(text.to_owned())))
    }

    /// The part of it that is no secret.
    #[must_use]
    pub fn id(&self) -> &str {
        self.0.get(HEAD.len()..HEAD.len() + 2 * ID_BYTES).unwrap_or_default()
    }

    /// The whole of it, for whoever shows it or gives it to its holder.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// What is kept of it in the file of users.
    #[must_use]
    pub fn hash_text(&self) -> String {
        format!("{HASH_SCHEME}{}", hex::encode(self.digest()))
    }

    pub(crate) fn digest(&self) -> [u8; 32] {
        Sha256::digest(self.0.as_bytes()).into()
    }
}

fn is_hex(text: &str, bytes: usize) -> bool {
    text.len() == 2 * bytes && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Whether a token may have this note.
///
/// # Errors
/// The rule that is broken.
pub fn check_note(note: &str) -> Result<(), String> {
    match note.chars().count() <= LONGEST_NOTE && !note.chars().any(char::is_control) {
        true => Ok(()),
        false => Err(format!("a note has at most {LONGEST_NOTE} characters and no control characters")),
    }
}

/// A token in the file of users.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TokenEntry {
    pub(crate) id: String,
    pub(crate) user: String,
    hash: String,
    created: String,
    expires: String,
    revoked: Option<String>,
    note: Option<String>,
    permissions: Option<Vec<String>>,
    identities: Option<Vec<String>>,
}

/// What a host knows of a token.
#[derive(Clone)]
pub(crate) struct Token {
    /// SHA-256 of its text.
    pub(crate) digest: [u8; 32],
    /// Whose it is.
    pub(crate) user: String,
    /// From then on it counts no more.
    pub(crate) expires: Timestamp,
    pub(crate) is_revoked: bool,
    /// What it lets its holder do: never more than its user may. `None` if he is not there any more.
    pub(crate) rights: Option<Arc<Rights>>,
}

impl Token {
    /// The token of an entry, whose user has these rights, if he is there.
    ///
    /// # Errors
    /// The rule that is broken.
    pub(crate) fn read(entry: &TokenEntry, of_user: Option<&Arc<Rights>>) -> Result<Token, String> {
        if !is_hex(&entry.id, ID_BYTES) {
            return Err("its id is none such as `maxhost token new` writes".to_owned());
        }
        let mut digest = [0; 32];
        let hash = entry.hash.strip_prefix(HASH_SCHEME).filter(|hash| is_hex(hash, digest.len()));
        hash.and_then(|hash| hex::decode_to_slice(hash, &mut digest).ok())
            .ok_or("the hash is none such as `maxhost token new` writes")?;
        let time = |name: &str, text: &str| {
            text.parse::<Timestamp>().map_err(|_| format!("{name}: '{text}' is no time such as 2026-01-31T12:00:00Z"))
        };
        time("created", &entry.created)?;
        let expires = time("expires", &entry.expires)?;
        let is_revoked = entry.revoked.as_deref().map(|at| time("revoked", at)).transpose()?.is_some();
        entry.note.as_deref().map_or(Ok(()), check_note)?;
        let narrow = narrower(entry.permissions.as_deref(), entry.identities.as_deref())?;
        let rights = of_user.map(|rights| match narrow {
            Some(narrow) => Arc::new(narrow.within(Arc::clone(rights))),
            None => Arc::clone(rights),
        });
        Ok(Token { digest, user: entry.user.clone(), expires, is_revoked, rights })
    }
}

/// What an entry says of rights; `None` if it says nothing.
fn narrower(permissions: Option<&[String]>, identities: Option<&[String]>) -> Result<Option<Rights>, String> {
    if permissions.is_none() && identities.is_none() {
        return Ok(None);
    }
    let all = ["*".to_owned()];
    let permissions = permissions.unwrap_or(&all).iter().map(|text| text.parse::<Permission>());
    Ok(Some(Rights::new(permissions.collect::<Result<_, _>>()?, identities.unwrap_or(&all))))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_token_is_read_as_it_was_written_and_nothing_else_is_one() {
        let token = TokenText::random();
        let text = token.expose().to_owned();
        let again = TokenText::parse(&text).unwrap();
        assert_eq!((again.expose(), again.id(), again.hash_text()), (&*text, token.id(), token.hash_text()));
        assert_eq!((text.len(), token.id().len(), &text[4..20]), (85, 16, token.id()));
        assert_ne!(TokenText::random().expose(), text);
        for wrong in [
            "",
            "mht_",
            "mht_0_0",
            &text[1..],
            &text[..84],
            &format!("{text}0"),
            &format!(" {text}"),
            &text.to_uppercase(),
            &text.replace("mht", "ght"),
            &format!("mht_{}\u{e9}{}", &text[4..18], &text[20..]),
        ] {
            assert!(TokenText::parse(wrong).is_none(), "{wrong}");
        }
        // As `printf %s TOKEN | sha256sum` says.
        let known = TokenText::parse(&format!("mht_{}_{}", "0".repeat(16), "0".repeat(64))).unwrap();
        assert_eq!(known.hash_text(), "sha256:9ede3ded22aac64af4cb6350955c11bf33effefc984fb15f22cae0b6bb963583");
    }

    #[test]
    fn a_secret_is_not_shown_by_accident() {
        let token = TokenText::random();
        let shown = format!("{token:?}");
        assert!(shown.contains(token.id()) && !shown.contains(&token.expose()[21..31]), "{shown}");
        assert!(!token.hash_text().contains(&token.expose()[21..31]));
    }
}
