//! Network parameters of the past that nobody should believe. Whoever gives them speaks the protocol of finality by hand; the
//! other side runs the platform's, as every CorDapp does.

use cash_contract::{Cash, Command as CashCommand};
use cash_wallet::{PartyName, command, find, notary, on_ledger};
use maxhost_contract::State;
use maxhost_model::SecureHash;
use maxhost_sdk::ledger::{Draft, our_key};
use maxhost_sdk::prelude::*;

use crate::attachments::{Piece, Wanted};
use crate::forgery::{Encoded, Forger, Refusal, refusal};

/// Parameters for somebody.
#[derive(Serialize, Deserialize, JsonSchema)]
pub struct BadParameters {
    /// Who gets a transaction that names them.
    pub peer: PartyName,
    /// The hash that the transaction names.
    pub hash: String,
    /// What is given for them.
    pub given: Vec<u8>,
    /// How many bytes that is said to have, if not so many as it has.
    pub bytes: Option<u64>,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
enum Said {
    Transaction(Encoded),
    Piece(Piece),
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Heard {
    FetchParameters(Wanted),
    Done,
}

/// Sends somebody a transaction under these parameters, and returns the code with which it is refused.
#[flow(startable)]
pub fn bad_parameters(input: BadParameters) -> Result<Refusal> {
    let peer = find(&input.peer)?;
    let hash: SecureHash = input.hash.parse().map_err(|_| Error::unexpected("that is no hash"))?;
    let issuer = on_ledger(&our_identity())?;
    let cash = Cash { owner: on_ledger(&peer)?.into(), quantity: 1, currency: "GBP".to_owned(), issuer };
    let draft = Draft::new(&notary(None)?).output(Cash::CONTRACT, Cash::NAME, &cash)?;
    let good = command(draft, &CashCommand::Issue, [our_key()])?.sign()?;
    let bytes = Forger::new()?.signed(&good, |contents| {
        contents.parameters = Some(hash);
        Ok(())
    })?;
    let session = initiate(&peer)?;
    let mut said = Said::Transaction(Encoded(bytes));
    loop {
        match session.send_and_receive::<Heard>(&said) {
            Ok(Heard::FetchParameters(wanted)) => {
                if wanted.id.0 != *hash.as_bytes() {
                    bail!("other parameters are asked for");
                }
                let size = input.bytes.unwrap_or(input.given.len() as u64);
                said = Said::Piece(Piece { size, bytes: Encoded(input.given.clone()) });
            }
            Ok(Heard::Done) => bail!("{peer} believes parameters that break a rule"),
            Err(error) => return refusal(error),
        }
    }
}

/// Takes a transaction as anybody does.
#[flow(responds_to = "bad-parameters")]
pub fn takes_bad_parameters(session: Session) -> Result<()> {
    session.receive_finality().map(drop)
}
