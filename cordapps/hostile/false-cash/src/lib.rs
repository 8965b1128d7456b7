//! A CorDapp that is called `cash` and is not the sample of that name: whoever runs it pays with money of which somebody else is said
//! to be the issuer.

use cash_contract::{Cash, Command};
use cash_wallet::{PartyName, command, find, notary, payment_of, show_cash, us_on_ledger};
use maxhost_contract::{Party as LedgerParty, State};
use maxhost_sdk::ledger::{Draft, StateAndRef, Transaction, our_key};
use maxhost_sdk::prelude::*;

/// A payment.
#[derive(Serialize, Deserialize, JsonSchema)]
pub struct Pay {
    /// Who is paid.
    pub to: PartyName,
    /// Who is said to owe the money.
    pub issuer: PartyName,
    /// Whether the payee is shown another payment, in money that this identity owes.
    pub behind_another: bool,
}

/// What the other side says.
#[derive(Serialize, Deserialize, JsonSchema)]
pub struct Refusal {
    /// The type of its exception, if it says why.
    pub refused: Option<String>,
}

/// A payment in money that was made for it.
fn payment(to: &LedgerParty, issuer: LedgerParty) -> Result<Transaction> {
    let notary = notary(None)?;
    let cash = Cash { owner: us_on_ledger().into(), quantity: 10, currency: "GBP".to_owned(), issuer };
    let made = Draft::new(&notary).output(Cash::CONTRACT, Cash::NAME, &cash)?;
    let made = command(made, &Command::Issue, [our_key()])?.sign()?.finalise(&[] as &[Session])?;
    let spent = [StateAndRef { reference: format!("{}:0", made.id()), state: cash, notary }];
    payment_of(&spent, &to.into(), 10)?.sign()
}

/// Pays with money of which somebody else is said to be the issuer.
#[flow(startable)]
fn pay(input: Pay) -> Result<Refusal> {
    let (us, peer) = (us_on_ledger(), find(&input.to)?);
    let to = cash_wallet::on_ledger(&peer)?;
    let bad = payment(&to, LedgerParty { name: find(&input.issuer)?.name().to_owned(), ..us.clone() })?;
    let session = initiate(&peer)?;
    match input.behind_another {
        true => show_cash(&session, &payment(&to, us)?)?,
        false => show_cash(&session, &bad)?,
    }
    match bad.finalise(&[session]) {
        Ok(_) => bail!("{peer} takes money that nobody owes"),
        Err(Error::FlowException(refusal)) => Ok(Refusal { refused: refusal.exception_type().map(str::to_owned) }),
        Err(Error::UnexpectedEnd(_)) => Ok(Refusal { refused: None }),
        Err(other) => Err(other),
    }
}

cordapp! {
    name: "cash",
    version: "6.0.0",
    flows: [pay],
}
