//! Whose a key is: what an identity signs when it gives a key of its own to somebody (behaviour.md 12.10).

use maxhost_model::{Party, PublicKey, SecureHash, X500Name, octets};
use serde::{Deserialize, Serialize};

use super::{check_key, verify};
use crate::codec;
use crate::refused::{Refused, Result};
use crate::rules::Rule;
use crate::tx::Signer;

const WHAT: &str = "statement about a key";
const PURPOSE: &str = "maxhost key of a party, version 1";

/// Bytes that whoever asks draws at random, so that no answer to an earlier question fits.
pub type Challenge = [u8; 32];

/// What an identity states about a key: that it is its own, to one who has asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyStatement {
    /// SHA-256 of the root certificate of the network.
    pub network: SecureHash,
    /// The key.
    pub key: PublicKey,
    /// Whose it is: the legal identity.
    pub party: Party,
    /// Who has asked.
    pub requester: X500Name,
    /// What the requester has drawn.
    #[serde(with = "octets")]
    pub challenge: Challenge,
}

/// A statement with the two signatures that make it good: that of the key, and that of the legal identity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedKeyStatement {
    /// What is stated.
    pub statement: KeyStatement,
    /// The signature of the key.
    #[serde(with = "octets")]
    pub by_key: Vec<u8>,
    /// The signature of the legal identity.
    #[serde(with = "octets")]
    pub by_party: Vec<u8>,
}

/// What a statement must answer.
#[derive(Debug, Clone, Copy)]
pub struct KeyQuestion<'a> {
    /// SHA-256 of the root certificate of the network.
    pub network: &'a SecureHash,
    /// Who was asked, as the network knows it.
    pub party: &'a Party,
    /// Who has asked.
    pub requester: &'a X500Name,
    /// What was drawn for this question.
    pub challenge: &'a Challenge,
}

/// What is signed.
#[derive(Serialize)]
struct Signable<'a> {
    purpose: &'static str,
    statement: &'a KeyStatement,
}

impl KeyStatement {
    fn message(&self) -> Result<Vec<u8>> {
        codec::encode(WHAT, &Signable { purpose: PURPOSE, statement: self })
    }

    /// Signs the statement with the key and with that of the legal identity.
    ///
    /// # Errors
    /// Those of the signers.
    pub fn sign(self, key: &impl Signer, party: &impl Signer) -> Result<SignedKeyStatement> {
        let message = self.message()?;
        let (by_key, by_party) = (key.sign(&message)?, party.sign(&message)?);
        Ok(SignedKeyStatement { statement: self, by_key, by_party })
    }
}

impl SignedKeyStatement {
    /// The bytes in which it travels.
    ///
    /// # Errors
    /// As [`codec::encode`].
    pub fn encode(&self) -> Result<Vec<u8>> {
        codec::encode(WHAT, self)
    }

    /// Reads the bytes in which it travels.
    ///
    /// # Errors
    /// As [`codec::decode`].
    pub fn decode(bytes: &[u8]) -> Result<SignedKeyStatement> {
        codec::decode(WHAT, bytes)
    }

    /// Checks that this answers a question, and gives the key.
    ///
    /// # Errors
    /// [`Rule::KeyStatementForeign`] if it was made for another question, party or network; [`Rule::KeyInvalid`] if its key
    /// could never sign; [`Rule::KeyNotFresh`] if its key is that of a legal identity; [`Rule::KeyNotProved`] if it is not
    /// signed by the key and by the party.
    pub fn check(&self, asked: KeyQuestion<'_>) -> Result<&PublicKey> {
        let KeyStatement { network, key, party, requester, challenge } = &self.statement;
        let refuse = |rule: Rule, message: &str| Err(Refused::new(rule, message).detail("key", key));
        let foreign = |message: &str| refuse(Rule::KeyStatementForeign, message);
        if network != asked.network {
            return foreign("the statement about a key is for another network");
        }
        if party.name != asked.party.name || party.owning_key != asked.party.owning_key {
            return foreign("the statement about a key is that of another party than was asked");
        }
        if requester != asked.requester {
            return foreign("the statement about a key was made for another party");
        }
        if challenge != asked.challenge {
            return foreign("the statement about a key answers another question");
        }
        check_key(key)?;
        if *key == party.owning_key {
            return refuse(Rule::KeyNotFresh, "the key is that of the legal identity itself");
        }
        let message = self.statement.message()?;
        if !verify(key, &message, &self.by_key) {
            return refuse(Rule::KeyNotProved, "the statement about a key is not signed by that key");
        }
        if !verify(&party.owning_key, &message, &self.by_party) {
            return refuse(Rule::KeyNotProved, "the statement about a key is not signed by the party");
        }
        Ok(key)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;
    use crate::fixtures::{key, network, party, signing_key};

    const LEGAL: u8 = 1;
    const FRESH: u8 = 2;

    fn statement() -> KeyStatement {
        KeyStatement {
            network: network(),
            key: key(FRESH),
            party: party("Bob", LEGAL),
            requester: party("Ann", 3).name,
            challenge: [7; 32],
        }
    }

    fn signed(statement: KeyStatement) -> SignedKeyStatement {
        statement.sign(&signing_key(FRESH), &signing_key(LEGAL)).unwrap()
    }

    fn checked(signed: &SignedKeyStatement) -> Result<PublicKey> {
        let (network, bob, ann) = (network(), party("Bob", LEGAL), party("Ann", 3).name);
        let asked = KeyQuestion { network: &network, party: &bob, requester: &ann, challenge: &[7; 32] };
        signed.check(asked).cloned()
    }

    #[test]
    fn a_statement_answers_the_question_that_it_was_made_for() {
        let good = signed(statement());
        assert_eq!(checked(&good).unwrap(), key(FRESH));
        assert_eq!(SignedKeyStatement::decode(&good.encode().unwrap()).unwrap(), good);
        for (other, what) in [
            (KeyStatement { network: SecureHash::of(b"other"), ..statement() }, "network"),
            (KeyStatement { party: party("Eve", LEGAL), ..statement() }, "name"),
            (KeyStatement { party: party("Bob", 9), ..statement() }, "key of the party"),
            (KeyStatement { requester: party("Eve", 3).name, ..statement() }, "requester"),
            (KeyStatement { challenge: [8; 32], ..statement() }, "challenge"),
        ] {
            assert_eq!(checked(&signed(other)).unwrap_err().rule(), Rule::KeyStatementForeign, "{what}");
        }
    }

    #[test]
    fn a_key_that_is_not_ones_own_cannot_be_claimed() {
        let without_key = statement().sign(&signing_key(9), &signing_key(LEGAL)).unwrap();
        assert_eq!(checked(&without_key).unwrap_err().rule(), Rule::KeyNotProved);
        let without_party = statement().sign(&signing_key(FRESH), &signing_key(9)).unwrap();
        assert_eq!(checked(&without_party).unwrap_err().rule(), Rule::KeyNotProved);
        // The signatures of another statement.
        let other = signed(KeyStatement { key: key(5), ..statement() });
        let moved = SignedKeyStatement { statement: statement(), ..other };
        assert_eq!(checked(&moved).unwrap_err().rule(), Rule::KeyNotProved);
        let legal = KeyStatement { key: key(LEGAL), ..statement() };
        let legal = legal.sign(&signing_key(LEGAL), &signing_key(LEGAL)).unwrap();
        assert_eq!(checked(&legal).unwrap_err().rule(), Rule::KeyNotFresh);
    }

    proptest! {
        #[test]
        fn changed_bytes_are_refused(at in any::<proptest::sample::Index>(), bit in 0_u8..8) {
            let mut bytes = signed(statement()).encode().unwrap();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            if let Ok(read) = SignedKeyStatement::decode(&bytes) {
                prop_assert!(checked(&read).is_err());
            }
        }
    }
}
