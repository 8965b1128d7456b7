//! Short folder names for identities.

use unicode_normalization::UnicodeNormalization;

const LONGEST: usize = 40;

/// A folder name made of an organisation's: lower-case ASCII letters and digits, everything else a single hyphen.
/// `O=Party 00001` gives `party-00001`. Not unique: see [`candidates`].
#[must_use]
pub fn slug_of(organisation: &str) -> String {
    let mut slug = String::new();
    // NFKD parts letters from their accents, which are then dropped.
    for c in organisation.nfkd().filter(|c| !unicode_normalization::char::is_combining_mark(*c)) {
        if slug.len() >= LONGEST {
            break;
        }
        if c.is_ascii_alphanumeric() {
            slug.push(c.to_ascii_lowercase());
        } else if !slug.is_empty() && !slug.ends_with('-') {
            slug.push('-');
        }
    }
    let slug = slug.trim_end_matches('-');
    if slug.is_empty() { "identity".to_owned() } else { slug.to_owned() }
}

/// The folder names to try for an organisation, in this order: `alice`, `alice-2`, `alice-3` …
pub(crate) fn candidates(organisation: &str) -> impl Iterator<Item = String> {
    let base = slug_of(organisation);
    std::iter::once(base.clone()).chain((2u64..).map(move |number| format!("{base}-{number}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slugs_are_short_plain_words() {
        for (organisation, slug) in [
            ("Alice", "alice"),
            ("Party 00001", "party-00001"),
            ("B=ank $ O'Neil.", "b-ank-o-neil"),
            ("Île Crédit", "ile-credit"),
            ("東京銀行", "identity"),
            ("../../etc", "etc"),
        ] {
            assert_eq!(slug_of(organisation), slug);
        }
        assert!(slug_of(&"x".repeat(127)).len() <= LONGEST);
        assert_eq!(candidates("Alice").take(3).collect::<Vec<_>>(), ["alice", "alice-2", "alice-3"]);
    }
}
