//! X.500 names in DER, and the DNS names that stand for them in TLS.

use maxhost_model::{Attribute, SecureHash, X500Name};
use rcgen::{DistinguishedName, DnType, DnValue};
use x509_parser::prelude::FromDer;
use x509_parser::x509::X509Name;

use crate::error::{PkiError, Result};

/// The order in DER, from the country down to the common name.
const DER_ORDER: [Attribute; 6] = [
    Attribute::Country,
    Attribute::State,
    Attribute::Locality,
    Attribute::Organisation,
    Attribute::OrganisationUnit,
    Attribute::CommonName,
];

/// The DNS name of an identity in TLS: the first 16 bytes of the SHA-256 of its canonical name in hexadecimal, and
/// `.corda.net` (Corda's SNI form).
#[must_use]
pub fn tls_host_name(name: &X500Name) -> String {
    let hash = SecureHash::of(name.as_str().as_bytes()).to_string();
    format!("{}.corda.net", hash.get(..32).unwrap_or_default())
}

/// The name as certificates are built with.
pub(crate) fn to_distinguished_name(name: &X500Name) -> DistinguishedName {
    let mut dn = DistinguishedName::new();
    for attribute in DER_ORDER {
        let Some(value) = name.get(attribute) else { continue };
        let kind = match attribute {
            Attribute::CommonName => DnType::CommonName,
            Attribute::OrganisationUnit => DnType::OrganizationalUnitName,
            Attribute::Organisation => DnType::OrganizationName,
            Attribute::Locality => DnType::LocalityName,
            Attribute::State => DnType::StateOrProvinceName,
            Attribute::Country => DnType::CountryName,
        };
        let value = match rcgen::string::PrintableString::try_from(value) {
            Ok(printable) => DnValue::PrintableString(printable),
            Err(_) => DnValue::Utf8String(value.to_owned()),
        };
        dn.push(kind, value);
    }
    dn
}

/// The name as a DER `RDNSequence`: printable strings where they suffice, UTF-8 strings otherwise.
#[must_use]
pub fn to_der(name: &X500Name) -> Vec<u8> {
    let mut sequence = Vec::new();
    for attribute in DER_ORDER {
        let Some(value) = name.get(attribute) else { continue };
        let string_tag = if value.bytes().all(is_printable) { 0x13 } else { 0x0c };
        // 2.5.4.n, as object identifiers are encoded: 2 * 40 + 5, 4, n.
        let kind = [0x06, 0x03, 0x55, 0x04, attribute_number(attribute)];
        let pair = [&kind[..], &tagged(string_tag, value.as_bytes())].concat();
        sequence.extend(tagged(0x31, &tagged(0x30, &pair)));
    }
    tagged(0x30, &sequence)
}

/// Reads a DER `RDNSequence`, by the rules of docs/behaviour.md 7.
///
/// # Errors
/// [`PkiError::Certificate`] if it is malformed or has several values in one RDN; [`PkiError::Invalid`] if the name
/// breaks a rule.
pub fn from_der(der: &[u8]) -> Result<X500Name> {
    match X509Name::from_der(der) {
        Ok(([], name)) => from_x509(&name),
        _ => Err(refuse("the name is malformed DER")),
    }
}

pub(crate) fn from_x509(name: &X509Name<'_>) -> Result<X500Name> {
    let mut pairs = Vec::with_capacity(6);
    for rdn in name.iter() {
        let mut values = rdn.iter();
        let (Some(pair), None) = (values.next(), values.next()) else {
            return Err(refuse("the name has several attributes in one part"));
        };
        let oid = pair.attr_type().as_bytes();
        let attribute = Attribute::ALL.into_iter().find(|a| oid == [0x55, 0x04, attribute_number(*a)]);
        let Some(attribute) = attribute else {
            return Err(refuse(&format!("the name has an unknown attribute, OID {}", pair.attr_type())));
        };
        let value = pair.as_str().map_err(|_| refuse("an attribute of the name is not a text in ASCII or UTF-8"))?;
        pairs.push((attribute, value));
    }
    Ok(X500Name::from_attributes(&pairs)?)
}

fn refuse(reason: &str) -> PkiError {
    PkiError::certificate("the certificate", reason)
}

fn attribute_number(attribute: Attribute) -> u8 {
    match attribute {
        Attribute::CommonName => 3,
        Attribute::Country => 6,
        Attribute::Locality => 7,
        Attribute::State => 8,
        Attribute::Organisation => 10,
        Attribute::OrganisationUnit => 11,
    }
}

/// The alphabet of a `PrintableString` (X.680 §41.4).
fn is_printable(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b" '()+,-./:=?".contains(&byte)
}

/// One DER element; names are short, so two bytes of length always suffice.
fn tagged(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let mut element = vec![tag];
    match u8::try_from(length) {
        Ok(short) if short < 0x80 => element.push(short),
        Ok(byte) => element.extend([0x81, byte]),
        Err(_) => element.extend([0x82, (length >> 8) as u8, (length & 0xff) as u8]),
    }
    element.extend_from_slice(content);
    element
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_host_name_is_that_of_corda() {
        let name = X500Name::parse("O=Corda B, L=London, C=GB").unwrap();
        assert_eq!(tls_host_name(&name), "3c6dd991936308edb210555103ffc1bb.corda.net");
    }

    #[test]
    fn names_round_trip_through_der() {
        let long = format!("O={}, L={}, OU={}, C=JP", "銀行".repeat(60), "é".repeat(60), "x".repeat(63));
        for text in [
            "O=Alice, L=London, C=GB",
            "CN=Node, OU=Desk, O=B=ank $ O'Neil, L=, ST=Île, C=ZZ",
            "O=Nul, L=a\0b, C=GB",
            &long,
        ] {
            let name = X500Name::parse(text).unwrap();
            assert_eq!(from_der(&to_der(&name)).unwrap(), name);
        }
    }

    #[test]
    fn other_der_is_refused() {
        let name = X500Name::parse("O=Alice, L=London, C=GB").unwrap();
        let mut der = to_der(&name);
        assert!(from_der(&der[..der.len() - 1]).is_err());
        der.push(0);
        assert!(from_der(&der).is_err());
        // 2.5.4.4 is the surname.
        let mut surname = to_der(&name);
        let at = surname.windows(3).position(|w| w == [0x55, 0x04, 10]).unwrap();
        surname[at + 2] = 4;
        assert!(from_der(&surname).unwrap_err().to_string().contains("2.5.4.4"));
        let lacking = tagged(0x30, &[]);
        assert!(matches!(from_der(&lacking), Err(PkiError::Invalid(_))));
    }
}
