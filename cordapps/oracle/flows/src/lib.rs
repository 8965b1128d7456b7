//! An oracle: it publishes values, tells them, and signs for one in a transaction of which it sees nothing else.

use cash_wallet::{
    Done, PartyName, finalise_cash, find, notary, on_ledger, payment_of, quantity, receive_cash, spend, thrown,
};
use maxhost_contract::{CommandSet, State};
use maxhost_sdk::ledger::{Draft, Query, Show, key_of, our_key, text};
use maxhost_sdk::prelude::*;
use oracle_contract::{Command, Fact, LONGEST, Payment};

/// What an oracle publishes.
#[derive(Serialize, Deserialize, JsonSchema)]
pub struct Publish {
    /// Of what.
    pub name: String,
    /// Of which day.
    pub date: String,
    /// In millionths.
    pub value: u64,
}

/// What an oracle is asked for.
#[derive(Serialize, Deserialize, JsonSchema)]
pub struct Question {
    /// The party that is asked, and that knows values.
    pub oracle: PartyName,
    /// The name of the value that is asked for.
    pub name: String,
    /// Of which day.
    pub date: String,
}

/// What it says.
#[derive(Serialize, Deserialize, JsonSchema)]
pub struct Said {
    /// In millionths.
    pub value: u64,
}

/// Interest that is to be paid.
#[derive(Serialize, Deserialize, JsonSchema)]
pub struct Pay {
    /// Whose value decides.
    pub oracle: PartyName,
    /// Who is paid.
    pub to: PartyName,
    /// The name of the value that is asked for.
    pub name: String,
    /// Of which day.
    pub date: String,
    /// On how much, in the smallest unit of the currency.
    pub notional: i64,
    /// Three capital letters.
    pub currency: String,
    /// What the value is, in millionths; the oracle is asked if nothing is said.
    #[serde(default)]
    pub value: Option<u64>,
    /// What the oracle is shown of the transaction.
    #[serde(default)]
    pub show: Shown,
}

/// What an oracle is shown of a transaction that it is to sign. It signs for nothing but its own command.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Shown {
    /// The commands that it must sign.
    #[default]
    Fix,
    /// None of the commands and no state.
    Nothing,
    /// The commands of all, and the states.
    All,
}

/// What somebody wants of the other side.
#[derive(Serialize, Deserialize)]
enum Asked {
    /// A value.
    Value { name: String, date: String },
    /// Its signature.
    Signature,
    /// To take a payment.
    Payment,
}

/// Publishes a value, once and for all.
#[flow(startable)]
fn publish(input: Publish) -> Result<Done> {
    let Publish { name, date, value } = input;
    for text in [&name, &date] {
        ensure!(
            (1..=LONGEST).contains(&text.chars().count()),
            FlowException::new(format!("a name and a date have 1 to {LONGEST} characters"))
                .of_type("oracle/text-invalid")
        );
    }
    if let Some(known) = known(&name, &date)? {
        let text = format!("{name} of {date} is {known} already");
        bail!(FlowException::new(text).of_type("oracle/published-already").with(&Said { value: known }));
    }
    let fact = Fact { oracle: on_ledger(&our_identity())?, name, date, value };
    let draft = Draft::new(&notary(None)?).output(Fact::CONTRACT, <Fact as State>::NAME, &fact)?;
    let signed = command(draft, &Command::Publish, our_key())?.sign()?;
    Ok(Done::of(&signed.finalise(&[] as &[Session])?))
}

/// Asks an oracle for a value.
#[flow(startable)]
fn query(input: Question) -> Result<Said> {
    Ok(Said { value: ask(&find(&input.oracle)?, input.name, input.date)? })
}

/// Pays interest by a value for which the oracle signs: of the transaction it sees the command that says the value.
#[flow(startable, version = 2)]
fn pay(input: Pay) -> Result<Done> {
    let notional = quantity(input.notional)?;
    let (us, oracle, to) = (our_identity(), find(&input.oracle)?, find(&input.to)?);
    ensure!(to != us, FlowException::new("nobody pays himself").of_type("oracle/to-oneself"));
    ensure!(oracle != us, FlowException::new("nobody is his own oracle").of_type("oracle/own-word"));
    let (name, date) = (input.name, input.date);
    let value = match input.value {
        Some(value) => value,
        None => ask(&oracle, name.clone(), date.clone())?,
    };
    let payment = Payment {
        payer: on_ledger(&us)?,
        payee: on_ledger(&to)?,
        notional,
        currency: input.currency.clone(),
        oracle: on_ledger(&oracle)?,
        name,
        date,
        value,
    };
    let due = i64::try_from(payment.quantity()).unwrap_or(i64::MAX);
    ensure!(due > 0, FlowException::new("nothing is due").of_type("oracle/nothing-due"));
    let signed = drafted(&payment, quantity(due)?, &key_of(&oracle)?)?.sign()?;
    let session = initiate(&oracle)?;
    session.send(&Asked::Signature)?;
    let show = match input.show {
        Shown::Fix => Show::commands_of(&oracle)?,
        Shown::Nothing => Show::nothing(),
        Shown::All => Show::everything(),
    };
    let signed = signed.collect_on_tear_off(&session, &show)?;
    let payee = initiate(&to)?;
    payee.send(&Asked::Payment)?;
    Ok(Done::of(&finalise_cash(&signed, &[payee])?))
}

fn drafted(payment: &Payment, due: u64, oracle: &[u8]) -> Result<Draft> {
    let spent = spend(&payment.currency, due)?;
    let draft = payment_of(&spent, &(&payment.payee).into(), due)?;
    let draft = command(draft.output(Payment::CONTRACT, <Payment as State>::NAME, payment)?, &Command::Pay, our_key())?;
    let (name, date, value) = (payment.name.clone(), payment.date.clone(), payment.value);
    command(draft, &Command::Fix { name, date, value }, oracle.to_vec())
}

/// Tells a value, if this is an oracle.
#[flow(responds_to = "query")]
fn tells(session: Session) -> Result<()> {
    answer(&session)
}

/// Tells a value, signs for one, or takes a payment.
#[flow(responds_to = "pay", version = 2)]
fn takes_part(session: Session) -> Result<()> {
    answer(&session)
}

fn answer(session: &Session) -> Result<()> {
    match session.receive()? {
        Asked::Value { name, date } => session.send(&of_ours(&name, &date)?),
        Asked::Signature => sign(session),
        Asked::Payment => receive_cash(session).map(drop),
    }
}

/// Signs for what is shown if that is own values and nothing else, and they are right.
fn sign(session: &Session) -> Result<()> {
    let tear_off = session.receive_tear_off()?;
    let shown = tear_off.shown()?;
    let us = our_key();
    let concerns_us = |signers: &[maxhost_contract::PublicKey]| signers.iter().any(|key| key.spki() == us);
    ensure!(
        shown.commands.iter().any(|one| concerns_us(&one.signers)),
        FlowException::new("nothing is shown that this oracle has to sign for").of_type("oracle/not-concerned")
    );
    ensure!(
        shown.has_only_commands() && shown.commands.iter().all(|one| concerns_us(&one.signers)),
        FlowException::new("more is shown than concerns this oracle").of_type("oracle/shown-too-much")
    );
    for one in &shown.commands {
        let Ok(Command::Fix { name, date, value }) = Command::decode(&one.command.name, &one.command.value) else {
            bail!(FlowException::new("an oracle signs for values only").of_type("oracle/not-concerned"));
        };
        ensure!(
            one.command.contract.name == Payment::CONTRACT,
            FlowException::new("the command is another contract's").of_type("oracle/not-concerned")
        );
        let right = of_ours(&name, &date)?;
        ensure!(
            right == value,
            FlowException::new(format!("{name} of {date} is {right}, and not {value}"))
                .of_type("oracle/wrong-value")
                .with(&Said { value: right })
        );
    }
    session.sign_tear_off(&tear_off)
}

fn ask(oracle: &Party, name: String, date: String) -> Result<u64> {
    if *oracle == our_identity() {
        return of_ours(&name, &date);
    }
    initiate(oracle)?.send_and_receive(&Asked::Value { name, date })
}

fn of_ours(name: &str, date: &str) -> Result<u64> {
    let unknown = || thrown("oracle/unknown", &format!("this party knows no {name} of {date}"));
    known(name, date)?.ok_or_else(unknown)
}

/// A value that this identity has published.
fn known(name: &str, date: &str) -> Result<Option<u64>> {
    let (name, date, us) = (text(name), text(date), text(our_identity().name()));
    let ours = format!("name = {name} and date = {date} and oracle = {us}");
    let found = Query::of("oracle/Fact").filter(ours).limit(1).find::<Fact>()?;
    Ok(found.first().map(|fact| fact.state.value))
}

fn command(draft: Draft, command: &Command, signer: Vec<u8>) -> Result<Draft> {
    let value = command.encode().map_err(|error| Error::unexpected(error.to_string()))?;
    Ok(draft.command(Payment::CONTRACT, command.name(), value, [signer]))
}

cordapp! { flows: [publish, query, tells, pay, takes_part] }
