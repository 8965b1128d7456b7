//! X.500 names of legal identities, by Corda's rules (docs/behaviour.md 7).

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use unicode_general_category::{GeneralCategory, get_general_category};
use unicode_normalization::UnicodeNormalization;

use crate::countries::is_country;
use crate::invalid::{Invalid, excerpt};

/// Longest name that a network operator registers, characters.
const MAX_REGISTERED: usize = 255;

/// An attribute that a name may have. The order is that of the canonical text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Attribute {
    /// `CN`, optional.
    CommonName,
    /// `OU`, optional.
    OrganisationUnit,
    /// `O`, mandatory.
    Organisation,
    /// `L`, mandatory.
    Locality,
    /// `ST`, optional.
    State,
    /// `C`, mandatory.
    Country,
}

impl Attribute {
    /// All of them, in canonical order.
    pub const ALL: [Attribute; 6] = [
        Attribute::CommonName,
        Attribute::OrganisationUnit,
        Attribute::Organisation,
        Attribute::Locality,
        Attribute::State,
        Attribute::Country,
    ];

    /// The keyword in the text of a name.
    #[must_use]
    pub fn keyword(self) -> &'static str {
        match self {
            Attribute::CommonName => "CN",
            Attribute::OrganisationUnit => "OU",
            Attribute::Organisation => "O",
            Attribute::Locality => "L",
            Attribute::State => "ST",
            Attribute::Country => "C",
        }
    }

    /// The attribute with this keyword, whatever its case.
    #[must_use]
    pub fn from_keyword(keyword: &str) -> Option<Attribute> {
        Attribute::ALL.into_iter().find(|attribute| attribute.keyword().eq_ignore_ascii_case(keyword))
    }

    fn is_mandatory(self) -> bool {
        matches!(self, Attribute::Organisation | Attribute::Locality | Attribute::Country)
    }
}

/// The name of a legal identity, such as `O=Alice, L=London, C=GB`.
///
/// A value of this type has passed every rule of docs/behaviour.md 7.1 and 7.2. It is held as its canonical text, shared by all clones.
///
/// ```
/// use maxhost_model::X500Name;
/// let name: X500Name = "C=GB,L=London , O = Alice".parse()?;
/// assert_eq!(name.to_string(), "O=Alice, L=London, C=GB");
/// assert_eq!(name.organisation(), "Alice");
/// # Ok::<(), maxhost_model::Invalid>(())
/// ```
// Invariant: the text is `KEY=value` in the order of `Attribute::ALL`, joined by ", ". No value holds a comma or begins
// with a space, so splitting at commas gives the attributes back, and equal texts are equal names.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct X500Name(Arc<str>);

impl X500Name {
    /// Reads the text form: attributes in any order, spaces around `,` and `=` ignored, keywords in any case.
    ///
    /// # Errors
    /// [`Invalid::Name`] with the attribute and the rule it breaks.
    pub fn parse(text: &str) -> Result<X500Name, Invalid> {
        let mut pairs = Vec::with_capacity(6);
        for part in text.split(',') {
            let part = part.trim_matches(' ');
            let Some((keyword, value)) = part.split_once('=') else {
                let reason = if part.is_empty() {
                    "an attribute is empty: expected attributes such as O=Alice, L=London, C=GB".to_owned()
                } else {
                    format!("'{}' has no '=' (a value cannot hold a comma)", excerpt(part))
                };
                return Err(refuse(text, None, reason));
            };
            let keyword = keyword.trim_matches(' ');
            let Some(attribute) = Attribute::from_keyword(keyword) else {
                let reason =
                    format!("unknown attribute '{}': a name has O, L, C and may have CN, OU, ST", excerpt(keyword));
                return Err(refuse(text, None, reason));
            };
            pairs.push((attribute, value.trim_matches(' ')));
        }
        X500Name::build(text, &pairs)
    }

    /// Makes a name of attributes in any order.
    ///
    /// # Errors
    /// [`Invalid::Name`] with the attribute and the rule it breaks.
    pub fn from_attributes(pairs: &[(Attribute, &str)]) -> Result<X500Name, Invalid> {
        let text: Vec<String> =
            pairs.iter().map(|(attribute, value)| format!("{}={value}", attribute.keyword())).collect();
        X500Name::build(&text.join(", "), pairs)
    }

    fn build(text: &str, pairs: &[(Attribute, &str)]) -> Result<X500Name, Invalid> {
        let mut canonical = String::with_capacity(text.len());
        for attribute in Attribute::ALL {
            let mut values = pairs.iter().filter(|(given, _)| *given == attribute).map(|(_, value)| *value);
            let Some(value) = values.next() else {
                if attribute.is_mandatory() {
                    return Err(refuse(text, Some(attribute), "is missing: O, L and C are mandatory"));
                }
                continue;
            };
            if values.next().is_some() {
                return Err(refuse(text, Some(attribute), "is given twice"));
            }
            check_value(attribute, value).map_err(|reason| refuse(text, Some(attribute), reason))?;
            if !canonical.is_empty() {
                canonical.push_str(", ");
            }
            canonical.push_str(attribute.keyword());
            canonical.push('=');
            canonical.push_str(value);
        }
        Ok(X500Name(canonical.into()))
    }

    /// The canonical text: `CN, OU, O, L, ST, C`, absent ones left out.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The attributes that the name has, in canonical order.
    pub fn attributes(&self) -> impl Iterator<Item = (Attribute, &str)> {
        self.0.split(',').filter_map(|part| {
            let (keyword, value) = part.trim_start_matches(' ').split_once('=')?;
            Some((Attribute::from_keyword(keyword)?, value))
        })
    }

    /// The value of this attribute.
    #[must_use]
    pub fn get(&self, attribute: Attribute) -> Option<&str> {
        self.attributes().find(|(present, _)| *present == attribute).map(|(_, value)| value)
    }

    /// The organisation, `O`.
    #[must_use]
    pub fn organisation(&self) -> &str {
        self.get(Attribute::Organisation).unwrap_or_default()
    }

    /// The locality, `L`.
    #[must_use]
    pub fn locality(&self) -> &str {
        self.get(Attribute::Locality).unwrap_or_default()
    }

    /// Why a network operator would not register the name, if so: the rule of docs/behaviour.md 7.3, which is stricter than that
    /// of names in use.
    #[must_use]
    pub fn registration_obstacle(&self) -> Option<String> {
        for (attribute, value) in self.attributes() {
            if let Some(c) = value.chars().find(|c| "=$'".contains(*c)) {
                return Some(format!("{} holds the character {c}", attribute.keyword()));
            }
            if value.chars().any(|c| !(' '..='~').contains(&c)) {
                return Some(format!("{} holds characters that are not Basic Latin", attribute.keyword()));
            }
        }
        if self.organisation().starts_with(|c: char| c.is_ascii_lowercase()) {
            return Some("O does not begin with a capital letter".to_owned());
        }
        (self.0.len() > MAX_REGISTERED).then(|| format!("it is longer than {MAX_REGISTERED} characters"))
    }

    /// The country, `C`.
    #[must_use]
    pub fn country(&self) -> &str {
        self.get(Attribute::Country).unwrap_or_default()
    }
}

fn refuse(text: &str, attribute: Option<Attribute>, reason: impl Into<String>) -> Invalid {
    Invalid::Name { text: excerpt(text), attribute: attribute.map(Attribute::keyword), reason: reason.into() }
}

/// Lengths are counted as Corda counts them, in UTF-16 units.
fn check_length(value: &str, limit: usize) -> Result<(), String> {
    let length = value.encode_utf16().count();
    if length < limit {
        return Ok(());
    }
    Err(format!("has {length} characters; fewer than {limit} are allowed"))
}

fn check_value(attribute: Attribute, value: &str) -> Result<(), String> {
    match attribute {
        Attribute::Country => {
            if is_country(value) {
                return Ok(());
            }
            return Err(format!("'{}' is no ISO 3166 country code in two capitals, nor ZZ", excerpt(value)));
        }
        Attribute::Organisation => check_length(value, 128)?,
        _ => check_length(value, 64)?,
    }
    check_directory_string(value)?;
    if attribute == Attribute::Organisation { check_organisation(value) } else { Ok(()) }
}

/// What the text form cannot carry without escapes, which names do not have (docs/behaviour.md 7.2).
fn check_directory_string(value: &str) -> Result<(), String> {
    if let Some(c) = value.chars().find(|c| ",\"\\+;<>".contains(*c)) {
        return Err(format!("must not hold the character {c}"));
    }
    if value.starts_with('#') {
        return Err("must not begin with #".to_owned());
    }
    if value.starts_with(' ') || value.ends_with(' ') {
        return Err("must not begin or end with a space".to_owned());
    }
    Ok(())
}

fn check_organisation(value: &str) -> Result<(), String> {
    if value.contains('\0') {
        return Err("must not hold the NUL character".to_owned());
    }
    if value.contains(['\t', '\n', '\r', '\u{b}', '\u{c}']) {
        return Err("must not hold tabs or line breaks".to_owned());
    }
    if value.contains("  ") {
        return Err("must hold single spaces only".to_owned());
    }
    // ASCII is normal as it is, and other characters are looked up in tables.
    let normal: Cow<'_, str> = if value.is_ascii() { value.into() } else { value.nfkc().collect() };
    if normal.trim() != value {
        return Err(format!("is not normalised (Unicode NFKC, trimmed): write '{}'", excerpt(normal.trim())));
    }
    if value.chars().filter(|c| is_letter(*c)).count() < 2 {
        return Err("needs at least two letters".to_owned());
    }
    Ok(())
}

fn is_letter(c: char) -> bool {
    use GeneralCategory as G;
    if c.is_ascii() {
        return c.is_ascii_alphabetic();
    }
    matches!(
        get_general_category(c),
        G::UppercaseLetter | G::LowercaseLetter | G::TitlecaseLetter | G::ModifierLetter | G::OtherLetter
    )
}

/// For people: by organisation, locality, country, then the rest.
impl Ord for X500Name {
    fn cmp(&self, other: &X500Name) -> Ordering {
        const ORDER: [Attribute; 6] = [
            Attribute::Organisation,
            Attribute::Locality,
            Attribute::Country,
            Attribute::State,
            Attribute::OrganisationUnit,
            Attribute::CommonName,
        ];
        ORDER
            .into_iter()
            .map(|attribute| self.get(attribute).cmp(&other.get(attribute)))
            .find(|order| order.is_ne())
            .unwrap_or(Ordering::Equal)
    }
}

impl PartialOrd for X500Name {
    fn partial_cmp(&self, other: &X500Name) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for X500Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for X500Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl FromStr for X500Name {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<X500Name, Invalid> {
        X500Name::parse(text)
    }
}

impl Serialize for X500Name {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for X500Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<X500Name, D::Error> {
        struct NameText;
        impl de::Visitor<'_> for NameText {
            type Value = X500Name;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an X.500 name such as O=Alice, L=London, C=GB")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<X500Name, E> {
                X500Name::parse(text).map_err(E::custom)
            }
        }
        deserializer.deserialize_str(NameText)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use proptest::prelude::*;

    use super::*;

    fn reason(text: &str) -> String {
        X500Name::parse(text).expect_err(text).to_string()
    }

    #[test]
    fn order_and_spaces_do_not_matter() {
        let name = X500Name::parse("O=Alice, L=London, C=GB").unwrap();
        for text in ["C=GB,L=London,O=Alice", "  L = London ,O=  Alice  , C =GB ", "o=Alice,l=London,c=GB"] {
            assert_eq!(X500Name::parse(text).unwrap(), name, "{text}");
        }
        let full = X500Name::parse("C=US, ST=New York, L=New York, O=Bank A, OU=Desk 1, CN=Service").unwrap();
        assert_eq!(full.as_str(), "CN=Service, OU=Desk 1, O=Bank A, L=New York, ST=New York, C=US");
        assert_eq!(full.get(Attribute::OrganisationUnit), Some("Desk 1"));
        assert_eq!(name.get(Attribute::State), None);
    }

    #[test]
    fn attributes_are_held_to_the_rules() {
        for (text, attribute, words) in [
            ("L=London, C=GB", "O:", "missing"),
            ("O=Alice, C=GB", "L:", "missing"),
            ("O=Alice, L=London", "C:", "missing"),
            ("O=Alice, O=Bob, L=London, C=GB", "O:", "twice"),
            ("O=Alice, L=London, C=GB, SN=Smith", "SN", "unknown attribute"),
            ("O=Alice, L=London, C=XX", "C:", "country"),
            ("O=Alice, L=London, C=gb", "C:", "country"),
            ("O=A, L=London, C=GB", "O:", "two letters"),
            ("O=1234, L=London, C=GB", "O:", "two letters"),
            ("O=Two  spaces, L=London, C=GB", "O:", "single spaces"),
            ("O=A\tB, L=London, C=GB", "O:", "tabs"),
            ("O=Ali\nce, L=London, C=GB", "O:", "line breaks"),
            ("O=Ali\0ce, L=London, C=GB", "O:", "NUL"),
            ("O=Aliｃe, L=London, C=GB", "O:", "write 'Alice'"),
            ("O=\u{a0}Alice, L=London, C=GB", "O:", "normalised"),
            ("O=Alice, Ltd, L=London, C=GB", "Ltd", "comma"),
            ("O=Ali\"ce, L=London, C=GB", "O:", "character \""),
            ("O=Ali\\ce, L=London, C=GB", "O:", "character \\"),
            ("O=Alice, L=Lon\\don, C=GB", "L:", "character \\"),
            ("O=Alice + OU=Desk, L=London, C=GB", "O:", "character +"),
            ("O=Alice, L=#04024869, C=GB", "L:", "begin with #"),
            ("", "", "empty"),
            ("O=Alice, L=London, C=GB,", "", "empty"),
            ("Alice", "Alice", "no '='"),
        ] {
            let message = reason(text);
            assert!(message.contains(attribute) && message.contains(words), "{text}: {message}");
        }
    }

    #[test]
    fn lengths_have_limits() {
        let (o127, o128) = ("o".repeat(127), "o".repeat(128));
        assert!(X500Name::parse(&format!("O={o127}, L=London, C=GB")).is_ok());
        assert!(reason(&format!("O={o128}, L=London, C=GB")).contains("fewer than 128"));
        for key in ["L", "ST", "OU", "CN"] {
            let with = |n: usize| {
                let rest = if key == "L" { "" } else { ", L=London" };
                format!("O=Alice, C=GB{rest}, {key}={}", "x".repeat(n))
            };
            assert!(X500Name::parse(&with(63)).is_ok());
            assert!(reason(&with(64)).contains(&format!("{key}: has 64")));
        }
        assert!(reason(&"x".repeat(100_000)).len() < 300);
    }

    #[test]
    fn what_corda_allows_is_allowed() {
        for text in [
            "O=B=ank $ O'Neil, L=London, C=ZZ",
            "O=lower case, L=x, C=GB",
            "O=1st Bank, L=, C=GB",
            "O=東京銀行, L=東京, C=JP",
            "O=Банк, L=Two  spaces, C=RU, OU=\0, CN=",
        ] {
            let name = X500Name::parse(text).unwrap();
            assert_eq!(X500Name::parse(name.as_str()).unwrap(), name);
        }
    }

    #[test]
    fn what_a_network_operator_registers_is_less() {
        let obstacle = |text: &str| X500Name::parse(text).unwrap().registration_obstacle();
        for sound in ["O=Alice, L=London, C=GB", "CN=Node 1, OU=Desk & Co., O=1st Bank (London), L=x, ST=NY, C=US"] {
            assert_eq!(obstacle(sound), None, "{sound}");
        }
        let long = ["CN", "OU", "L", "ST"].map(|key| format!("{key}={}, ", "x".repeat(63))).concat();
        for (text, words) in [
            ("O=B=ank, L=London, C=GB", "O holds the character ="),
            ("O=Bank, L=Dollar $, C=GB", "L holds the character $"),
            ("O=O'Neil, L=London, C=GB", "O holds the character '"),
            ("O=Bank, L=Zürich, C=CH", "L holds characters that are not Basic Latin"),
            ("O=東京銀行, L=Tokyo, C=JP", "O holds characters"),
            ("O=Bank, OU=a\0b, L=London, C=GB", "OU holds characters"),
            ("O=alice, L=London, C=GB", "capital letter"),
            (&format!("{long}O=Bank, C=GB"), "longer than 255"),
        ] {
            let obstacle = obstacle(text).expect(text);
            assert!(obstacle.contains(words), "{text}: {obstacle}");
        }
    }

    #[test]
    fn serde_is_the_text_and_checks_it() {
        let name = X500Name::parse("O=Alice, L=London, C=GB").unwrap();
        let json = serde_json::to_string(&name).unwrap();
        assert_eq!(json, "\"O=Alice, L=London, C=GB\"");
        assert_eq!(serde_json::from_str::<X500Name>(&json).unwrap(), name);
        assert!(
            serde_json::from_str::<X500Name>("\"O=A, L=London, C=GB\"")
                .unwrap_err()
                .to_string()
                .contains("two letters")
        );
    }

    #[test]
    fn people_find_names_in_order_of_organisation() {
        let mut names: Vec<X500Name> =
            ["CN=Z, O=Alice, L=Oslo, C=NO", "O=Bob, L=Ath, C=GR", "O=Alice A, L=Ath, C=GR", "O=Alice, L=Oslo, C=NO"]
                .map(|text| X500Name::parse(text).unwrap())
                .into();
        names.sort();
        let organisations: Vec<&str> = names.iter().map(X500Name::organisation).collect();
        assert_eq!(organisations, ["Alice", "Alice", "Alice A", "Bob"]);
        assert_eq!(names[0].get(Attribute::CommonName), None);
    }

    proptest! {
        #[test]
        fn any_text_is_refused_or_round_trips(text in "\\PC{0,60}") {
            if let Ok(name) = X500Name::parse(&text) {
                prop_assert_eq!(X500Name::parse(name.as_str()).unwrap(), name);
            }
        }

        #[test]
        fn attributes_come_back(o in "[A-Za-z]{2}[A-Za-z=$'.]{0,20}", l in "[^,\"\\\\+;<># ]{0,20}", cn in proptest::option::of("[a-z]{0,9}")) {
            let mut pairs = vec![(Attribute::Country, "GB"), (Attribute::Locality, l.as_str()), (Attribute::Organisation, o.as_str())];
            if let Some(cn) = &cn {
                pairs.push((Attribute::CommonName, cn));
            }
            let name = X500Name::from_attributes(&pairs).unwrap();
            prop_assert_eq!(name.organisation(), o.as_str());
            prop_assert_eq!(name.locality(), l.as_str());
            prop_assert_eq!(name.get(Attribute::CommonName), cn.as_deref());
            prop_assert_eq!(X500Name::parse(name.as_str()).unwrap(), name);
        }
    }
}
