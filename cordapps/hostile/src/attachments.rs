//! Files that are attached to transactions. Whoever gives bad ones speaks the protocol of finality by hand; the other side
//! runs the platform's, as every CorDapp does.

use cash_contract::{Cash, Command as CashCommand};
use cash_wallet::{PartyName, command, find, notary, on_ledger};
use maxhost_contract::{Hash, State};
use maxhost_model::SecureHash;
use maxhost_sdk::ledger::{self, Draft, our_key};
use maxhost_sdk::prelude::*;

use crate::forgery::{Encoded, Forger, Refusal, refusal};

/// A file for somebody.
#[derive(Serialize, Deserialize, JsonSchema)]
pub struct Attach {
    /// Who gets it.
    pub peer: PartyName,
    /// How many bytes it has.
    pub bytes: usize,
    /// What it begins with.
    pub text: String,
}

/// What was sent.
#[derive(Serialize, Deserialize, JsonSchema)]
pub struct Attached {
    /// The id of the transaction.
    pub tx: String,
    /// The id of the attachment.
    pub attachment: String,
}

/// Issues money to somebody in a transaction with a file that only this identity has.
#[flow(startable)]
pub fn attach(input: Attach) -> Result<Attached> {
    let peer = find(&input.peer)?;
    let mut file = input.text.into_bytes();
    file.resize(input.bytes.max(file.len()), b'.');
    let attachment = ledger::attach(&file)?;
    let issuer = on_ledger(&our_identity())?;
    let cash = Cash { owner: on_ledger(&peer)?.into(), quantity: 1, currency: "GBP".to_owned(), issuer };
    let draft = Draft::new(&notary(None)?).output(Cash::CONTRACT, Cash::NAME, &cash)?.attachment(attachment.as_str());
    let issue = command(draft, &CashCommand::Issue, [our_key()])?.sign()?;
    let issue = issue.finalise(&[initiate(&peer)?])?;
    Ok(Attached { tx: issue.id().to_owned(), attachment })
}

/// Takes a transaction as anybody does.
#[flow(responds_to = "attach")]
pub fn takes_attachment(session: Session) -> Result<()> {
    session.receive_finality().map(drop)
}

/// A file.
#[derive(Serialize, Deserialize, JsonSchema)]
pub struct Which {
    /// The id of the attachment.
    pub attachment: String,
}

/// What is known of a file.
#[derive(Serialize, Deserialize, JsonSchema)]
pub struct Found {
    /// How many bytes it has; `null` if it is not there.
    pub bytes: Option<usize>,
}

/// Reads an attachment.
#[flow(startable)]
pub fn read_attachment(input: Which) -> Result<Found> {
    Ok(Found { bytes: ledger::attachment(&input.attachment)?.map(|file| file.len()) })
}

/// Keeps an attachment that is installed on the host in the identity's own ledger.
#[flow(startable)]
pub fn keep_attachment(input: Which) -> Result<Found> {
    let file = ledger::attachment(&input.attachment)?;
    if let Some(file) = &file {
        ledger::attach(file)?;
    }
    Ok(Found { bytes: file.map(|file| file.len()) })
}

/// What is wrong with an attachment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Wrong {
    /// It says that it has more bytes than any transaction may have.
    Huge,
    /// Pieces come without end, and nothing is in them.
    Endless,
    /// There are a thousand of them.
    TooMany,
    /// Other bytes come.
    Tampered,
    /// It is code that nobody has signed.
    UntrustedCode,
    /// It begins like code, and is none.
    BrokenCode,
}

/// A bad attachment for somebody.
#[derive(Serialize, Deserialize, JsonSchema)]
pub struct BadAttachment {
    /// Who gets it.
    pub peer: PartyName,
    /// What is wrong with it.
    pub how: Wrong,
}

/// What is sent, in the protocol of finality.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
enum Said {
    Transaction(Encoded),
    Piece(Piece),
}

/// A piece of a file.
#[derive(Serialize)]
pub(crate) struct Piece {
    pub size: u64,
    pub bytes: Encoded,
}

/// What is answered.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Heard {
    FetchAttachment(Wanted),
    Done,
}

/// Which piece is asked for.
#[derive(Deserialize)]
#[allow(dead_code)]
pub(crate) struct Wanted {
    pub of: Hash,
    pub id: Hash,
    pub from: u64,
}

/// An empty component: nothing is in it that could be run.
const EMPTY_COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";

/// Sends somebody a transaction with an attachment that nobody should take, and returns the code with which it is refused.
#[flow(startable)]
pub fn bad_attachment(input: BadAttachment) -> Result<Refusal> {
    let peer = find(&input.peer)?;
    let file: &[u8] = match input.how {
        Wrong::UntrustedCode => EMPTY_COMPONENT,
        Wrong::BrokenCode => b"\0asm",
        _ => b"what was promised",
    };
    let issuer = on_ledger(&our_identity())?;
    let cash = Cash { owner: on_ledger(&peer)?.into(), quantity: 1, currency: "GBP".to_owned(), issuer };
    let draft = Draft::new(&notary(None)?).output(Cash::CONTRACT, Cash::NAME, &cash)?;
    let good = command(draft, &CashCommand::Issue, [our_key()])?.sign()?;
    let bytes = Forger::new()?.signed(&good, |contents| {
        let more = if input.how == Wrong::TooMany { 1000 } else { 0 };
        contents.attachments.push(SecureHash::of(file));
        contents.attachments.extend((0..more).map(|number: u32| SecureHash::of(&number.to_be_bytes())));
        Ok(())
    })?;
    let session = initiate(&peer)?;
    let mut said = Said::Transaction(Encoded(bytes));
    loop {
        let piece =
            |size: usize, bytes: &[u8]| Said::Piece(Piece { size: size as u64, bytes: Encoded(bytes.to_vec()) });
        match session.send_and_receive::<Heard>(&said) {
            Ok(Heard::FetchAttachment(wanted)) => {
                if wanted.id.0 != *SecureHash::of(file).as_bytes() {
                    bail!("another attachment is asked for");
                }
                said = match input.how {
                    Wrong::Huge => piece(usize::MAX >> 1, file),
                    Wrong::Endless => piece(file.len(), b""),
                    Wrong::Tampered => piece(file.len(), b"what was not said"),
                    Wrong::TooMany | Wrong::UntrustedCode | Wrong::BrokenCode => piece(file.len(), file),
                }
            }
            Ok(Heard::Done) => bail!("{peer} accepts an attachment that breaks a rule"),
            Err(error) => return refusal(error),
        }
    }
}

/// Takes a transaction as anybody does.
#[flow(responds_to = "bad-attachment")]
pub fn takes_bad_attachment(session: Session) -> Result<()> {
    session.receive_finality().map(drop)
}
