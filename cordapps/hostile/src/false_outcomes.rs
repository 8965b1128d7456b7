//! What nobody should believe of a notary that only a peer tells. Whoever tells it speaks the protocol of finality by hand; the
//! other side runs the platform's, as every CorDapp does.

use std::fmt;

use cash_contract::{Cash, Command as CashCommand};
use cash_wallet::{PartyName, command, find, notary, on_ledger, payment_of};
use maxhost_contract::{AnyParty, State};
use maxhost_ledger::codec;
use maxhost_ledger::keys::{Scheme, SigningKey};
use maxhost_ledger::tx::SignedTransaction;
use maxhost_ledger::tx::signature::sign;
use maxhost_model::SecureHash;
use maxhost_model::network::PLATFORM_VERSION;
use maxhost_sdk::ledger::{Draft, StateAndRef, Transaction, our_key};
use maxhost_sdk::prelude::*;
use serde::de::{self, MapAccess, SeqAccess};
use serde::ser::{SerializeMap, SerializeSeq};

use crate::forgery::{Encoded, Heard, Refusal, Said, refusal};

/// How much is paid, in the smallest unit.
const QUANTITY: u64 = 5;

/// What is told of a payment that the notary has committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Lie {
    /// The notary's signature, and behind it one that does not verify.
    GarbageBehind,
    /// That the notary has refused it.
    Refused,
}

/// A payment of which something false is told.
#[derive(Serialize, Deserialize, JsonSchema)]
pub struct FalseOutcome {
    /// Who is paid.
    pub peer: PartyName,
    /// What is told.
    pub how: Lie,
}

/// What is told, in the protocol of finality.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
enum Told {
    Notarised(Vec<Form>),
    Refused(Reason),
}

/// Why a notary refuses.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
enum Reason {
    TransactionInvalid { code: &'static str, message: &'static str },
}

/// Pays somebody, has the notary commit the payment, tells something else, and returns the code with which that is refused.
#[flow(startable)]
pub fn false_outcome(input: FalseOutcome) -> Result<Refusal> {
    let peer = find(&input.peer)?;
    let (issue, payment) = paid(&peer)?;
    let session = initiate(&peer)?;
    let mut said = Said::Transaction(Encoded(payment.bytes().to_vec()));
    while let Heard::FetchChain(_) = session.send_and_receive::<Heard>(&said)? {
        said = Said::Fetched(vec![Encoded(issue.bytes().to_vec())]);
    }
    // The peer has it in flight now. It becomes final without another word: whose a key is, this identity does not know.
    let done = payment.finalise(&[] as &[Session])?;
    let told = match input.how {
        Lie::GarbageBehind => Told::Notarised(with_garbage(&done)?),
        Lie::Refused => {
            Told::Refused(Reason::TransactionInvalid { code: "made-up", message: "the notary has not said so" })
        }
    };
    session.send(&told)?;
    match session.receive_or_close::<()>() {
        Ok(_) => bail!("{peer} believes what it is told"),
        Err(error) => refusal(error),
    }
}

/// Takes a payment as anybody does.
#[flow(responds_to = "false-outcome")]
pub fn believes_no_false_outcome(session: Session) -> Result<()> {
    session.receive_finality().map(drop)
}

/// Money that is made for it, and its payment to the key of somebody who is not named.
fn paid(peer: &Party) -> Result<(Transaction, Transaction)> {
    let (us, notary) = (on_ledger(&our_identity())?, notary(None)?);
    let cash = Cash { owner: (&us).into(), quantity: QUANTITY, currency: "GBP".to_owned(), issuer: us };
    let made = Draft::new(&notary).output(Cash::CONTRACT, Cash::NAME, &cash)?;
    let issue = command(made, &CashCommand::Issue, [our_key()])?.sign()?.finalise(&[] as &[Session])?;
    let spent = [StateAndRef { reference: format!("{}:0", issue.id()), state: cash, notary }];
    let payee = AnyParty::anonymous(on_ledger(peer)?.owning_key);
    let payment = payment_of(&spent, &payee, QUANTITY)?.sign()?;
    Ok((issue, payment))
}

/// The signatures of its notary that a transaction has, and one of somebody else that is over something else.
fn with_garbage(done: &Transaction) -> Result<Vec<Form>> {
    let signed = SignedTransaction::decode(done.bytes())?;
    let of_notary = signed.signatures().iter().filter(|signature| signature.notary_statement().is_some());
    let mut all: Vec<_> = of_notary.cloned().collect();
    let somebody = SigningKey::from_seed(Scheme::Ed25519, &random(32)?)?;
    all.push(sign(&SecureHash::of(b"something else"), &somebody, PLATFORM_VERSION)?);
    let mut forms: Vec<Form> = Vec::with_capacity(all.len());
    for signature in &all {
        forms.push(codec::decode("a form", &codec::encode("a signature", signature)?)?);
    }
    Ok(forms)
}

/// Any value in the form of the platform's messages: messages of flows have forms for people, such as hexadecimal text.
enum Form {
    Nothing,
    Flag(bool),
    Number(u64),
    Text(String),
    Octets(Vec<u8>),
    List(Vec<Form>),
    Map(Vec<(String, Form)>),
}

impl Serialize for Form {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        match self {
            Form::Nothing => serializer.serialize_none(),
            Form::Flag(flag) => serializer.serialize_bool(*flag),
            Form::Number(number) => serializer.serialize_u64(*number),
            Form::Text(text) => serializer.serialize_str(text),
            Form::Octets(octets) => serializer.serialize_bytes(octets),
            Form::List(list) => {
                let mut items = serializer.serialize_seq(Some(list.len()))?;
                list.iter().try_for_each(|item| items.serialize_element(item))?;
                items.end()
            }
            Form::Map(map) => {
                let mut entries = serializer.serialize_map(Some(map.len()))?;
                map.iter().try_for_each(|(key, value)| entries.serialize_entry(key, value))?;
                entries.end()
            }
        }
    }
}

impl<'de> Deserialize<'de> for Form {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> std::result::Result<Form, D::Error> {
        deserializer.deserialize_any(AnyForm)
    }
}

struct AnyForm;

impl<'de> de::Visitor<'de> for AnyForm {
    type Value = Form;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_none<E: de::Error>(self) -> std::result::Result<Form, E> {
        Ok(Form::Nothing)
    }

    fn visit_unit<E: de::Error>(self) -> std::result::Result<Form, E> {
        Ok(Form::Nothing)
    }

    fn visit_bool<E: de::Error>(self, flag: bool) -> std::result::Result<Form, E> {
        Ok(Form::Flag(flag))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> std::result::Result<Form, E> {
        Ok(Form::Number(number))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> std::result::Result<Form, E> {
        Ok(Form::Text(text.to_owned()))
    }

    fn visit_bytes<E: de::Error>(self, octets: &[u8]) -> std::result::Result<Form, E> {
        Ok(Form::Octets(octets.to_vec()))
    }

    fn visit_byte_buf<E: de::Error>(self, octets: Vec<u8>) -> std::result::Result<Form, E> {
        Ok(Form::Octets(octets))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> std::result::Result<Form, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Form::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> std::result::Result<Form, A::Error> {
        let mut map = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            map.push(entry);
        }
        Ok(Form::Map(map))
    }
}
