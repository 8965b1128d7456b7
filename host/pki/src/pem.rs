//! Certificates as PEM text (RFC 7468).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use x509_parser::pem::Pem;

use crate::error::{PkiError, Result};

const LABEL: &str = "CERTIFICATE";
const LINE: usize = 64;

/// Writes DER certificates one after the other.
#[must_use]
pub fn encode<C: AsRef<[u8]>>(certificates: &[C]) -> String {
    let mut text = String::new();
    for der in certificates {
        text.push_str("-----BEGIN CERTIFICATE-----\n");
        let mut base64 = STANDARD.encode(der);
        while !base64.is_empty() {
            // Base64 is ASCII: every index is a boundary of characters.
            let rest = base64.split_off(base64.len().min(LINE));
            text.push_str(&base64);
            text.push('\n');
            base64 = rest;
        }
        text.push_str("-----END CERTIFICATE-----\n");
    }
    text
}

/// Reads all certificates of a PEM text; `of` names the text in errors.
///
/// # Errors
/// [`PkiError::Certificate`] if the text is malformed, holds something else, or holds nothing.
pub fn decode(text: &[u8], of: &str) -> Result<Vec<Vec<u8>>> {
    let mut certificates = Vec::new();
    for block in Pem::iter_from_buffer(text) {
        let block = block.map_err(|error| PkiError::certificate(of, format!("malformed PEM: {error}")))?;
        if block.label != LABEL {
            return Err(PkiError::certificate(of, format!("holds a '{}' where only certificates belong", block.label)));
        }
        certificates.push(block.contents);
    }
    if certificates.is_empty() {
        return Err(PkiError::certificate(of, "holds no certificate in PEM"));
    }
    Ok(certificates)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn certificates_round_trip() {
        let certificates: Vec<Vec<u8>> = vec![vec![7; 1], vec![8; 47], vec![9; 48], vec![10; 500]];
        let text = encode(&certificates);
        assert!(text.lines().all(|line| line.len() <= LINE));
        assert_eq!(decode(text.as_bytes(), "x").unwrap(), certificates);
        for bad in ["", "text", "-----BEGIN CERTIFICATE-----\nAA", "-----BEGIN KEY-----\nAAAA\n-----END KEY-----\n"] {
            assert!(decode(bad.as_bytes(), "x").is_err(), "{bad}");
        }
    }
}
