//! Statements about keys that nobody should believe. Whoever makes them answers by hand; the other side asks as every CorDapp
//! does.

use cash_wallet::{PartyName, find};
use maxhost_ledger::keys::{KeyStatement, Scheme, SignedKeyStatement, SigningKey};
use maxhost_sdk::ledger::{fresh_key, who_is};
use maxhost_sdk::prelude::*;
use serde::de;

use crate::forgery::{Encoded, Refusal, code_of};

/// Bytes of challenges and seeds.
const SEED: usize = 32;

/// What is wrong with a statement about a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Lie {
    /// A true one, made for an earlier question.
    OldStatement,
    /// It is about a key that is not the party's, and is signed by the party only.
    KeyOfAnother,
    /// It is about a new key, which has signed it; the party has not.
    WithoutParty,
    /// It says that the key is that of whoever asks.
    NameOfAnother,
    /// It is about the key of the legal identity.
    LegalKey,
    /// No statement comes.
    Nothing,
}

/// A false statement for somebody.
#[derive(Serialize, Deserialize, JsonSchema)]
pub struct FalseKey {
    /// Who asks for a key.
    pub peer: PartyName,
    /// What is wrong with the answer.
    pub how: Lie,
}

/// Bytes as they come in messages of the platform.
struct Octets(Vec<u8>);

impl<'de> Deserialize<'de> for Octets {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> std::result::Result<Octets, D::Error> {
        struct Bytes;

        impl de::Visitor<'_> for Bytes {
            type Value = Octets;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("bytes")
            }

            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> std::result::Result<Octets, E> {
                Ok(Octets(bytes.to_vec()))
            }

            fn visit_byte_buf<E: de::Error>(self, bytes: Vec<u8>) -> std::result::Result<Octets, E> {
                Ok(Octets(bytes))
            }
        }

        deserializer.deserialize_byte_buf(Bytes)
    }
}

/// What is asked, in the platform's protocol.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
enum Asked {
    NewKey(Encoded),
}

/// What is heard of it.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Question {
    NewKey(Octets),
}

/// Gives somebody who asks for a key a statement that is false, and returns the code with which it is refused.
#[flow(startable)]
pub fn false_key(input: FalseKey) -> Result<Refusal> {
    let session = initiate(&find(&input.peer)?)?;
    // The other side asks by hand first, and gives the true answer away.
    session.provide_key()?;
    let Octets(earlier) = session.receive()?;
    let Question::NewKey(Octets(challenge)) = session.receive()?;
    let given = match answer(input.how, earlier, &challenge)? {
        Some(statement) => vec![Encoded(statement)],
        None => Vec::new(),
    };
    session.send(&given)?;
    match session.receive::<Option<String>>()? {
        Some(refused) => Ok(Refusal { refused }),
        None => bail!("a false statement about a key is believed"),
    }
}

fn answer(how: Lie, earlier: Vec<u8>, challenge: &[u8]) -> Result<Option<Vec<u8>>> {
    let mut statement = SignedKeyStatement::decode(&earlier)?;
    let stated = &mut statement.statement;
    if how != Lie::OldStatement {
        stated.challenge.copy_from_slice(challenge);
    }
    let own = SigningKey::from_seed(Scheme::Ed25519, &random(SEED as u32)?)?;
    match how {
        Lie::OldStatement => {}
        Lie::KeyOfAnother => stated.key = own.public().clone(),
        Lie::WithoutParty => {
            stated.key = own.public().clone();
            return Ok(Some(KeyStatement::sign(stated.clone(), &own, &own)?.encode()?));
        }
        Lie::NameOfAnother => stated.party.name = stated.requester.clone(),
        Lie::LegalKey => stated.key = stated.party.owning_key.clone(),
        Lie::Nothing => return Ok(None),
    }
    Ok(Some(statement.encode()?))
}

/// Asks for a key as anybody does, after it has got the answer to an earlier question by hand.
#[flow(responds_to = "false-key")]
pub fn believes_no_false_key(session: Session) -> Result<()> {
    session.send(&Asked::NewKey(Encoded(vec![7; SEED])))?;
    let mut earlier: Vec<Octets> = session.receive()?;
    let Some(Octets(earlier)) = earlier.pop() else { bail!("no statement came") };
    session.send(&Encoded(earlier))?;
    let refused = match session.request_key() {
        Ok(_) => None,
        Err(error) => Some(code_of(error)?),
    };
    session.send(&refused)
}

/// What is told of keys.
#[derive(Serialize, Deserialize, JsonSchema)]
pub struct ToldKeys {
    /// Whose the key is, before it was told.
    pub before: Option<String>,
    /// Whose it is afterwards.
    pub after: Option<String>,
    /// The code with which it is refused to tell of a key that is not one's own.
    pub refused: String,
}

/// Makes a key, tells somebody of it, and tries to tell of the other side's as if it were its own.
#[flow(startable)]
pub fn tell_keys(input: crate::With) -> Result<ToldKeys> {
    let session = initiate(&input.peer)?;
    let key = fresh_key()?;
    let theirs = session.request_key()?;
    session.send(&key.party())?;
    let before = session.receive()?;
    session.share_keys(&[key])?;
    let after = session.receive()?;
    let refused = match session.share_keys(&[theirs]) {
        Ok(()) => bail!("somebody else's key is told as one's own"),
        Err(error) => code_of(error)?,
    };
    Ok(ToldKeys { before, after, refused })
}

/// Learns of a key, and asks for another, which does not come.
#[flow(responds_to = "tell-keys")]
pub fn is_told_keys(session: Session) -> Result<()> {
    session.provide_key()?;
    let unknown = session.receive()?;
    let name = |party: Option<Party>| party.map(|party| party.name().to_owned());
    session.send(&name(who_is(&unknown)?))?;
    session.receive_keys()?;
    session.send(&name(who_is(&unknown)?))?;
    match session.receive_keys() {
        Ok(_) => bail!("keys came that are not the other side's"),
        Err(_) => Ok(()),
    }
}

/// A wish for a key of an account that the other side does not give.
#[derive(Serialize, Deserialize, JsonSchema)]
pub struct AskForAccount {
    /// Who is asked.
    pub peer: PartyName,
    /// Whether it gives keys for an account of its own choice, and not for none.
    pub of_another: bool,
}

/// Asks for a key of an account, and gets none.
#[flow(startable)]
pub fn ask_for_account(input: AskForAccount) -> Result<()> {
    let session = initiate(&find(&input.peer)?)?;
    session.send(&input.of_another)?;
    session.request_key_for("of-somebody")?;
    bail!("a key came for an account that was not asked for")
}

/// Gives keys for one account, or for none.
#[flow(responds_to = "ask-for-account")]
pub fn gives_no_account(session: Session) -> Result<()> {
    let of_another: bool = session.receive()?;
    match of_another {
        true => session.provide_key_for("of-nobody").map(drop),
        false => session.provide_key().map(drop),
    }
}
