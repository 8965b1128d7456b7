//! From the bytes of a transaction to the rule of a command, and what code says of itself.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::{
    Attribute, CommandSet, ContractId, Description, FaultWord, RawState, RawTransaction, Rejection, State, Target, Tx,
    Verdict, data,
};

/// A contract; [`#[contract]`](crate::contract) writes it.
pub trait Contract {
    /// Its name.
    const NAME: &'static str;

    /// What is in it.
    fn description() -> ContractDescription;

    /// Judges a transaction.
    ///
    /// # Errors
    /// Why it is refused.
    fn verify(transaction: &RawTransaction, contract: &ContractId) -> Verdict;

    /// Says what a state is.
    ///
    /// # Errors
    /// The type is not known, or the data are not of it.
    fn describe(state_type: &str, state: &[u8]) -> Result<Description, Rejection>;

    /// What the resolved pointers of a state lead to.
    ///
    /// # Errors
    /// The type is not known, or the data are not of it.
    fn pointers(state_type: &str, state: &[u8]) -> Result<Vec<Target>, Rejection>;
}

/// The contracts of a component; [`contracts!`](crate::contracts) writes it.
pub trait ContractCode {
    /// What is in it.
    fn description() -> CodeDescription;

    /// Judges a transaction, given as the bytes that the host gives.
    ///
    /// # Errors
    /// Why it is refused.
    fn verify(contract: &ContractId, transaction: &[u8]) -> Verdict;

    /// Says what a state is.
    ///
    /// # Errors
    /// The type is not known, or the data are not of it.
    fn describe(contract: &str, state_type: &str, state: &[u8]) -> Result<Description, Rejection>;

    /// What the resolved pointers of a state lead to.
    ///
    /// # Errors
    /// The type is not known, or the data are not of it.
    fn pointers(contract: &str, state_type: &str, state: &[u8]) -> Result<Vec<Target>, Rejection>;
}

/// What is in a component.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CodeDescription {
    /// The name of the CorDapp.
    pub name: &'static str,
    /// For people.
    pub version: &'static str,
    /// Who made it.
    pub vendor: &'static str,
    /// Counts releases, from 1.
    pub code_version: u32,
    /// Its contracts choose the constraints of their outputs themselves.
    pub no_propagation: bool,
    /// Its contracts.
    pub contracts: Vec<ContractDescription>,
}

/// What is in a contract.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContractDescription {
    /// Its name.
    pub name: &'static str,
    /// Its types of states.
    pub states: Vec<StateTypeDescription>,
    /// The names of its commands.
    pub commands: &'static [&'static str],
    /// Its faults.
    pub faults: &'static [FaultWord],
}

/// A type of states.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateTypeDescription {
    /// Its name.
    pub name: &'static str,
    /// Counts changes of it.
    pub version: u32,
    /// Its fields and their types.
    pub schema: String,
    /// What is told of each besides.
    pub attributes: &'static [Attribute],
    /// The fields whose text is a time.
    pub times: &'static [&'static str],
}

impl StateTypeDescription {
    /// Of this type.
    #[must_use]
    pub fn of<S: State>() -> StateTypeDescription {
        StateTypeDescription {
            name: S::NAME,
            version: S::VERSION,
            schema: S::schema(),
            attributes: S::ATTRIBUTES,
            times: S::times(),
        }
    }
}

/// Runs the rules of all commands to a contract. `check` looks at the states under it, `rule` judges one command.
///
/// # Errors
/// `tx/no-command` if states of the contract take part and nothing is said to it, and what checks and rules say.
pub fn run<C: CommandSet>(
    raw: &RawTransaction,
    contract: &ContractId,
    check: impl Fn(&RawState, bool) -> Verdict,
    rule: impl Fn(&Tx<'_>, C) -> Verdict,
) -> Verdict {
    for input in raw.inputs.iter().filter(|input| input.state.contract == *contract) {
        check(&input.state, false)?;
    }
    for output in raw.outputs.iter().filter(|output| output.contract == *contract) {
        check(output, true)?;
    }
    let mut judged = 0;
    for command in raw.commands.iter().filter(|one| one.command.contract == *contract) {
        let tx = Tx::new(raw, contract, &command.signers);
        rule(&tx, C::decode(&command.command.name, &command.command.value)?)?;
        judged += 1;
    }
    if judged == 0 {
        return Err(Rejection::new("tx/no-command", "states of the contract change, and no command says why"));
    }
    Ok(())
}

/// Checks the data of a state: they are of the type, and what is made now has the one form that its value has.
///
/// # Errors
/// `tx/state-malformed`.
pub fn check_state<S: State>(state: &RawState, is_output: bool) -> Verdict {
    let wrong = |what: String| {
        Rejection::with_text("tx/state-malformed", format!("a state of type {}/{}: {what}", S::CONTRACT, S::NAME))
    };
    let value: S = data::decode(&state.data).map_err(|error| wrong(format!("{error}")))?;
    if !is_output {
        return Ok(());
    }
    match data::encode(&value) {
        Ok(bytes) if bytes == state.data => Ok(()),
        Ok(_) => Err(wrong("the data are another form of the value, or leave something out".into())),
        Err(error) => Err(wrong(format!("{error}"))),
    }
}

/// What the vault learns of a state of this type.
///
/// # Errors
/// `tx/state-malformed`.
pub fn describe_state<S: State>(state: &[u8]) -> Result<Description, Rejection> {
    Ok(read_state::<S>(state)?.describe())
}

/// What the resolved pointers of a state of this type lead to.
///
/// # Errors
/// `tx/state-malformed`.
pub fn pointers_of_state<S: State>(state: &[u8]) -> Result<Vec<Target>, Rejection> {
    Ok(read_state::<S>(state)?.pointers())
}

fn read_state<S: State>(state: &[u8]) -> Result<S, Rejection> {
    data::decode(state).map_err(|error| {
        Rejection::with_text("tx/state-malformed", format!("a state of type {}/{}: {error}", S::CONTRACT, S::NAME))
    })
}

/// The refusal of a command that has no rule.
#[must_use]
pub fn no_rule(name: &str) -> Rejection {
    Rejection::with_text("tx/no-rule", format!("the contract has no rule for the command {name}"))
}

/// The refusal of a type or contract that is not in this code.
#[must_use]
pub fn not_ours(what: &str, name: &str) -> Rejection {
    Rejection::with_text("tx/unknown-type", format!("this code has no {what} {name}"))
}

/// The refusal of a command whose data are not of it.
#[must_use]
pub fn malformed_command(name: &str, error: &maxhost_cbor::Error) -> Rejection {
    Rejection::with_text("tx/command-malformed", format!("the data of the command {name}: {error}"))
}

/// Reads the transaction that the host gives.
///
/// # Errors
/// `tx/malformed`; the host gives none that is.
pub fn transaction(bytes: &[u8]) -> Result<RawTransaction, Rejection> {
    data::decode(bytes).map_err(|error| Rejection::with_text("tx/malformed", format!("the transaction: {error}")))
}

/// Whether two texts are the same, at compile time.
#[must_use]
pub const fn same(one: &str, other: &str) -> bool {
    let (one, other) = (one.as_bytes(), other.as_bytes());
    if one.len() != other.len() {
        return false;
    }
    let mut at = 0;
    while at < one.len() {
        if one[at] != other[at] {
            return false;
        }
        at += 1;
    }
    true
}

/// The CorDapp whose contract side this package is.
#[must_use]
pub fn cordapp_name(package: &'static str) -> &'static str {
    package.strip_suffix("-contract").unwrap_or(package)
}
