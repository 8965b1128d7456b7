//! Transactions that nobody should accept. Whoever makes them speaks the protocol of finality by hand; the other side runs
//! the platform's, as every CorDapp does.

use std::sync::Arc;

use cash_contract::{Cash, Command as CashCommand};
use cash_wallet::{PartyName, command, find, notary, on_ledger, outputs, payment_of, spend};
use hostile_contract::{Command as WorkCommand, Work};
use maxhost_contract::{AnyParty, CommandSet, Hash, PublicKey as KeyOnLedger, State};
use maxhost_ledger::codec;
use maxhost_ledger::keys::{Scheme, SigningKey};
use maxhost_ledger::time::{TimeWindow, Timestamp};
use maxhost_ledger::tx::signature::sign;
use maxhost_ledger::tx::{
    Contents, Core, Data, Name, Salt, SignedTransaction, Signer, StateRef, TransactionSignature, WireTransaction,
};
use maxhost_model::network::PLATFORM_VERSION;
use maxhost_model::{PublicKey, SecureHash, X500Name};
use maxhost_sdk::ledger::{Draft, Query, Transaction, our_key};
use maxhost_sdk::prelude::*;

/// What is issued on paper, in the smallest unit.
const LITTLE: u64 = 1;
/// What it is made into.
const MUCH: u64 = 1_000_000;
/// Bytes of salts and seeds.
const SEED: u32 = 32;

/// What is wrong with a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum How {
    /// Nobody has signed it.
    NoSignature,
    /// It is signed in a name with another's key.
    ForgedSignature,
    /// It is made for another network.
    WrongNetwork,
    /// It spends an output that was changed after it was signed.
    TamperedOutput,
    /// Its contract computes without end.
    LoopingContract,
    /// It pays out what nobody has paid in.
    MoneyFromNothing,
    /// It spends a state that nobody knows.
    UnknownInput,
    /// Its bytes are another form of what they say.
    NotCanonical,
    /// It names a notary that is none.
    WrongNotary,
    /// It spends one of two states that can only be spent together.
    EncumberedAlone,
    /// A part of what it pays belongs to a key that is none, so nobody can say whose it is.
    NoKey,
}

/// A bad transaction for somebody.
#[derive(Serialize, Deserialize, JsonSchema)]
pub struct BadTransaction {
    /// Who gets it.
    pub peer: PartyName,
    /// What is wrong with it.
    pub how: How,
}

/// What the other side says.
#[derive(Serialize, Deserialize, JsonSchema)]
pub struct Refusal {
    /// The code of its refusal.
    pub refused: String,
}

/// Bytes that are the encoding of something. Messages of flows have forms for people, such as hexadecimal text; the
/// platform's have not.
#[derive(Clone)]
pub(crate) struct Encoded(pub Vec<u8>);

impl Serialize for Encoded {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

/// What is sent, in the protocol of finality.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Said {
    Transaction(Encoded),
    Fetched(Vec<Encoded>),
}

/// What is answered.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Heard {
    FetchChain(Wanted),
    Done,
}

/// What is asked for.
#[derive(Deserialize)]
#[allow(dead_code)]
pub(crate) struct Wanted {
    here: Vec<Hash>,
    ids: Vec<Hash>,
    ahead: u32,
}

/// The data of the platform's exceptions, as far as they are of interest.
#[derive(Deserialize)]
struct Facts {
    code: String,
}

/// A transaction without signatures, in the form in which transactions travel.
#[derive(Serialize)]
struct Unsigned {
    kind: &'static str,
    transaction: Encoded,
    signatures: [(); 0],
}

/// A bad transaction, and what is given for the one that it comes from.
struct Forged {
    bytes: Vec<u8>,
    ancestor: Option<(Hash, Vec<u8>)>,
}

impl Forged {
    fn alone(bytes: Vec<u8>) -> Forged {
        Forged { bytes, ancestor: None }
    }

    fn given_for(&self, asked: &[Hash]) -> Vec<Encoded> {
        match &self.ancestor {
            Some((id, bytes)) if asked == [*id] => vec![Encoded(bytes.clone())],
            _ => Vec::new(),
        }
    }
}

/// Sends somebody a transaction that breaks a rule, and returns the code with which it is refused.
#[flow(startable)]
pub fn bad_transaction(input: BadTransaction) -> Result<Refusal> {
    let peer = find(&input.peer)?;
    let forged = forged(input.how, &peer)?;
    let session = initiate(&peer)?;
    let mut said = Said::Transaction(Encoded(forged.bytes.clone()));
    loop {
        match session.send_and_receive::<Heard>(&said) {
            Ok(Heard::FetchChain(asked)) => said = Said::Fetched(forged.given_for(&asked.ids)),
            Ok(Heard::Done) => bail!("{peer} accepts a transaction that breaks a rule"),
            Err(error) => return refusal(error),
        }
    }
}

/// Takes a transaction as anybody does.
#[flow(responds_to = "bad-transaction")]
pub fn takes_bad_transaction(session: Session) -> Result<()> {
    session.receive_finality().map(drop)
}

pub(crate) fn refusal(error: Error) -> Result<Refusal> {
    Ok(Refusal { refused: code_of(error)? })
}

/// The code of an exception of the platform; any other error stays what it is.
pub(crate) fn code_of(error: Error) -> Result<String> {
    let facts = match error.flow_exception() {
        Some(exception) => exception.data::<Facts>()?,
        None => None,
    };
    facts.map(|facts| facts.code).ok_or(error)
}

fn forged(how: How, peer: &Party) -> Result<Forged> {
    let forger = Forger::new()?;
    let payee: AnyParty = on_ledger(peer)?.into();
    Ok(Forged::alone(match how {
        How::NoSignature => unsigned(&paid(&payee)?)?,
        How::ForgedSignature => forger.in_our_name(&paid(&payee)?)?,
        How::NotCanonical => with_a_longer_head(paid(&payee)?.bytes()),
        How::NoKey => forger.signed(&issued(&payee)?, |contents| {
            let name = our_identity().name().to_owned();
            let issuer = maxhost_contract::Party { name, owning_key: KeyOnLedger::from_spki(forger.0.public().spki()) };
            let money = |owner| Cash { owner, quantity: LITTLE, currency: "GBP".to_owned(), issuer: issuer.clone() };
            let mut unowned = contents.outputs.clone();
            let nobody = AnyParty::anonymous(KeyOnLedger::from_spki(b"no key"));
            let data_of_nobody = data(&money(nobody))?;
            unowned.iter_mut().for_each(|output| output.data = data_of_nobody.clone());
            replace_output(contents, &money(payee.clone()))?;
            contents.outputs.extend(unowned);
            // So that a notary is needed.
            contents.notary = contents.outputs.first().map(|output| output.notary.clone());
            contents.time_window = Some(TimeWindow::until_only(Timestamp::from_nanos(u64::MAX / 2)));
            Ok(())
        })?,
        How::TamperedOutput => return forger.tampered(&payee),
        How::EncumberedAlone => return forger.loosened(&payee),
        How::WrongNetwork => forger.signed(&issued(&payee)?, |contents| {
            contents.header.network = SecureHash::of(b"another network");
            Ok(())
        })?,
        How::LoopingContract => forger.signed(&worked()?, |contents| {
            let endless = Work { whose: on_ledger(&our_identity())?, turns: u64::MAX };
            replace_output(contents, &endless)
        })?,
        How::MoneyFromNothing => forger.signed(&issued(&payee)?, becomes_payment)?,
        How::UnknownInput => forger.signed(&issued(&payee)?, |contents| {
            contents.inputs = vec![StateRef::new(SecureHash::of(&random(SEED)?), 0)];
            becomes_payment(contents)
        })?,
        How::WrongNotary => forger.signed(&issued(&payee)?, |contents| {
            let name = X500Name::parse(our_identity().name())?;
            let us = maxhost_model::Party::new(name, PublicKey::from_spki(&our_key())?);
            contents.outputs.iter_mut().for_each(|output| output.notary = us.clone());
            contents.notary = Some(us);
            contents.time_window = Some(TimeWindow::until_only(Timestamp::from_nanos(u64::MAX / 2)));
            Ok(())
        })?,
    }))
}

/// A good payment of own money, or of money that is made for it, if there is none. It is not given to anybody.
fn paid(to: &AnyParty) -> Result<Transaction> {
    let Some(own) = Query::of("cash/Cash").limit(1).find::<Cash>()?.pop() else { return issued(to) };
    let spent = spend(&own.state.currency, LITTLE)?;
    payment_of(&spent, to, LITTLE)?.sign()
}

/// A little money that this identity owes.
fn little(owner: &AnyParty) -> Result<Cash> {
    let issuer = on_ledger(&our_identity())?;
    Ok(Cash { owner: owner.clone(), quantity: LITTLE, currency: "GBP".to_owned(), issuer })
}

/// Money on paper: good, and not recorded anywhere.
fn issued(to: &AnyParty) -> Result<Transaction> {
    let draft = Draft::new(&notary(None)?).output(Cash::CONTRACT, Cash::NAME, &little(to)?)?;
    command(draft, &CashCommand::Issue, [our_key()])?.sign()
}

/// Work on paper that is done at once.
fn worked() -> Result<Transaction> {
    let work = Work { whose: on_ledger(&our_identity())?, turns: 0 };
    let draft = Draft::new(&notary(None)?).output(Work::CONTRACT, Work::NAME, &work)?;
    let value = WorkCommand::Compute.encode().map_err(|error| Error::unexpected(error.to_string()))?;
    draft.command(Work::CONTRACT, WorkCommand::Compute.name(), value, [our_key()]).sign()
}

fn wire(transaction: &Transaction) -> Result<(WireTransaction, Vec<TransactionSignature>)> {
    let signed = SignedTransaction::decode(transaction.bytes())?;
    match signed.core() {
        Core::Wire(wire) => Ok(((**wire).clone(), signed.signatures().to_vec())),
        Core::NotaryChange(_) => bail!("the host has built another kind of transaction"),
    }
}

fn unsigned(transaction: &Transaction) -> Result<Vec<u8>> {
    let (wire, _) = wire(transaction)?;
    let unsigned = Unsigned { kind: "ordinary", transaction: Encoded(wire.encode()?), signatures: [] };
    Ok(codec::encode("a transaction without signatures", &unsigned)?)
}

/// The same map with its length in two bytes instead of one: valid CBOR, and not the shortest.
fn with_a_longer_head(bytes: &[u8]) -> Vec<u8> {
    const MAP: u8 = 0xa0;
    const LENGTH_FOLLOWS: u8 = 0xb8;
    match bytes.split_first() {
        Some((head, rest)) => [&[LENGTH_FOLLOWS, head - MAP], rest].concat(),
        None => Vec::new(),
    }
}

fn data<T: Serialize>(value: &T) -> Result<Data> {
    Ok(Data::from_bytes(codec::encode("a state", value)?)?)
}

fn replace_output<T: Serialize>(contents: &mut Contents, state: &T) -> Result<()> {
    let data = data(state)?;
    contents.outputs.iter_mut().for_each(|output| output.data = data.clone());
    Ok(())
}

/// Says that cash is passed on, and not made.
fn becomes_payment(contents: &mut Contents) -> Result<()> {
    let value = CashCommand::Move.encode().map_err(|error| Error::unexpected(error.to_string()))?;
    for command in &mut contents.commands {
        command.value.name = Name::new(CashCommand::Move.name())?;
        command.value.value = Data::from_bytes(value.clone())?;
    }
    Ok(())
}

/// Somebody with a key that the network does not know.
pub(crate) struct Forger(SigningKey);

/// Signs with one key and names another.
struct InOurName<'a> {
    ours: PublicKey,
    with: &'a SigningKey,
}

impl Signer for InOurName<'_> {
    fn key(&self) -> &PublicKey {
        &self.ours
    }

    fn sign(&self, message: &[u8]) -> maxhost_ledger::Result<Vec<u8>> {
        Ok(self.with.sign(message))
    }
}

impl Forger {
    pub(crate) fn new() -> Result<Forger> {
        Ok(Forger(SigningKey::from_seed(Scheme::Ed25519, &random(SEED)?)?))
    }

    /// A transaction with other contents, whose commands the forger's key signs: properly.
    pub(crate) fn signed(
        &self,
        good: &Transaction,
        change: impl FnOnce(&mut Contents) -> Result<()>,
    ) -> Result<Vec<u8>> {
        let mut contents = wire(good)?.0.contents().clone();
        change(&mut contents)?;
        self.sign(contents)
    }

    fn sign(&self, mut contents: Contents) -> Result<Vec<u8>> {
        contents.commands.iter_mut().for_each(|command| command.signers = vec![self.0.public().clone()]);
        let wire = WireTransaction::new(&contents, Salt::new(random(SEED)?)?)?;
        let signature = sign(&wire.id(), &self.0, PLATFORM_VERSION)?;
        Ok(SignedTransaction::new(Core::Wire(Arc::new(wire)), vec![signature])?.encode()?)
    }

    fn in_our_name(&self, good: &Transaction) -> Result<Vec<u8>> {
        let (wire, _) = wire(good)?;
        let forger = InOurName { ours: PublicKey::from_spki(&our_key())?, with: &self.0 };
        let signature = sign(&wire.id(), &forger, PLATFORM_VERSION)?;
        Ok(SignedTransaction::new(Core::Wire(Arc::new(wire)), vec![signature])?.encode()?)
    }

    /// The forger as states name it.
    fn party(&self) -> AnyParty {
        AnyParty::anonymous(KeyOnLedger::from_spki(self.0.public().spki()))
    }

    /// A little is issued to the forger twice, to be spent together; of one the forger pays.
    fn loosened(&self, payee: &AnyParty) -> Result<Forged> {
        let cash = little(&self.party())?;
        let both = Draft::new(&notary(None)?).together(|draft| outputs(draft, &[cash.clone(), cash]))?;
        let issue = command(both, &CashCommand::Issue, [our_key()])?.sign()?;
        let (made, _) = wire(&issue)?;
        let mut payment = made.contents().clone();
        payment.inputs = vec![StateRef::new(made.id(), 0)];
        payment.outputs.truncate(1);
        payment.outputs.iter_mut().for_each(|output| output.encumbrance = None);
        replace_output(&mut payment, &little(payee)?)?;
        becomes_payment(&mut payment)?;
        let ancestor = Some((Hash(*made.id().as_bytes()), issue.bytes().to_vec()));
        Ok(Forged { bytes: self.sign(payment)?, ancestor })
    }

    /// A little is issued to the forger, and signed; then the output is changed to much, of which the forger pays.
    fn tampered(&self, payee: &AnyParty) -> Result<Forged> {
        let forger = self.party();
        let (issue, signatures) = wire(&issued(&forger)?)?;
        let much = |owner: &AnyParty| -> Result<Cash> {
            let issuer = on_ledger(&our_identity())?;
            Ok(Cash { owner: owner.clone(), quantity: MUCH, currency: "GBP".to_owned(), issuer })
        };
        let mut changed = issue.contents().clone();
        replace_output(&mut changed, &much(&forger)?)?;
        let changed = WireTransaction::new(&changed, issue.salt().clone())?;
        let changed = SignedTransaction::new(Core::Wire(Arc::new(changed)), signatures)?.encode()?;
        let mut payment = issue.contents().clone();
        payment.inputs = vec![StateRef::new(issue.id(), 0)];
        replace_output(&mut payment, &much(payee)?)?;
        becomes_payment(&mut payment)?;
        Ok(Forged { bytes: self.sign(payment)?, ancestor: Some((Hash(*issue.id().as_bytes()), changed)) })
    }
}
