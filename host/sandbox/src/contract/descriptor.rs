//! What contract code says of itself, and the rules it must keep.

use std::collections::{BTreeSet, HashSet};

use maxhost_ledger::tx::{Name, SchemaId};
use maxhost_model::SecureHash;
use serde::Serialize;

use super::bindings;
use crate::descriptor::{check_name, check_text, check_version, refused};
use crate::error::SandboxError;

const MAX_VENDOR: usize = 256;
const MAX_CONTRACTS: usize = 64;
const MAX_STATES: usize = 256;
const MAX_WORDS: usize = 1_024;
const MAX_SCHEMA: usize = 64 << 10;
const MAX_ABOUT: usize = 1_024;
/// The longest code of a fault, in characters.
const MAX_CODE: usize = 64;

/// What stands in a schema where a pointer is (`wit/contract.wit`).
const POINTER: &str = "-pointer to ";

/// The description of contract code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ContractDescriptor {
    /// The CorDapp's name, written as that of flows.
    pub name: String,
    /// For people: `1.2` or `1.2.3`.
    pub version: String,
    /// Who made it.
    pub vendor: String,
    /// Counts releases, from 1.
    pub code_version: u32,
    /// Whether its contracts choose the constraints of their outputs themselves.
    pub no_propagation: bool,
    /// Its contracts.
    pub contracts: Vec<ContractType>,
}

/// A contract.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ContractType {
    /// Its name.
    pub name: Name,
    /// The types of states under it.
    pub states: Vec<StateType>,
    /// The commands that it has rules for.
    pub commands: Vec<Name>,
    /// The faults that it gives.
    pub faults: Vec<FaultType>,
}

/// A type of states.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StateType {
    /// Its name.
    pub name: Name,
    /// Counts changes of it, from 1.
    pub version: u32,
    /// Its fields and their types, in the words of the SDK.
    pub schema: String,
    /// SHA-256 of that.
    pub schema_hash: SecureHash,
    /// What is told of each state besides.
    pub attributes: Vec<AttributeType>,
    /// Fields of its data that hold times, as paths joined by points.
    pub times: BTreeSet<String>,
}

impl StateType {
    /// What an output of this type names.
    #[must_use]
    pub fn schema_id(&self) -> SchemaId {
        SchemaId { version: self.version, hash: self.schema_hash }
    }

    /// Whether states of the type may point to others.
    #[must_use]
    pub fn has_pointers(&self) -> bool {
        self.schema.contains(POINTER)
    }
}

/// What can be asked for besides the fields.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AttributeType {
    /// Its name.
    pub name: String,
    /// What its values are.
    pub kind: AttributeKind,
}

/// What values are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum AttributeKind {
    /// True or false.
    Truth,
    /// An integer.
    Number,
    /// Texts of any length.
    Text,
    /// Bytes of any length.
    Bytes,
    /// A point in time.
    Time,
}

/// A fault that a contract may give.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FaultType {
    /// Its stable word.
    pub code: String,
    /// What it means.
    pub about: String,
}

impl ContractDescriptor {
    /// The contract of this name.
    #[must_use]
    pub fn contract(&self, name: &str) -> Option<&ContractType> {
        self.contracts.iter().find(|contract| contract.name.as_str() == name)
    }
}

impl ContractType {
    /// The type of this name.
    #[must_use]
    pub fn state(&self, name: &str) -> Option<&StateType> {
        self.states.iter().find(|state| state.name.as_str() == name)
    }
}

impl TryFrom<bindings::ContractDescriptor> for ContractDescriptor {
    type Error = SandboxError;

    /// Checks every field.
    ///
    /// # Errors
    /// [`SandboxError::DescriptorInvalid`] with the path of the first field that breaks a rule.
    fn try_from(given: bindings::ContractDescriptor) -> Result<ContractDescriptor, SandboxError> {
        check_name("name", &given.name)?;
        check_version("version", &given.version)?;
        check_text("vendor", &given.vendor, MAX_VENDOR)?;
        if given.code_version == 0 {
            return Err(refused("code-version", "0", "versions of code start at 1"));
        }
        check_count("contracts", given.contracts.len(), 1..=MAX_CONTRACTS)?;
        let mut contracts = Vec::with_capacity(given.contracts.len());
        for (index, contract) in given.contracts.into_iter().enumerate() {
            contracts.push(contract_type(&format!("contracts[{index}]"), contract)?);
        }
        check_distinct("contracts", contracts.iter().map(|contract| contract.name.as_str()))?;
        Ok(ContractDescriptor {
            name: given.name,
            version: given.version,
            vendor: given.vendor,
            code_version: given.code_version,
            no_propagation: given.no_propagation,
            contracts,
        })
    }
}

fn contract_type(path: &str, given: bindings::ContractType) -> Result<ContractType, SandboxError> {
    let parts = [("states", given.states.len(), MAX_STATES), ("commands", given.commands.len(), MAX_WORDS)];
    for (part, count, most) in parts.into_iter().chain([("faults", given.faults.len(), MAX_WORDS)]) {
        check_count(&format!("{path}.{part}"), count, 0..=most)?;
    }
    let mut states = Vec::with_capacity(given.states.len());
    for (index, state) in given.states.into_iter().enumerate() {
        states.push(state_type(&format!("{path}.states[{index}]"), state)?);
    }
    check_distinct(&format!("{path}.states"), states.iter().map(|state| state.name.as_str()))?;
    let commands: Vec<Name> = given
        .commands
        .iter()
        .enumerate()
        .map(|(index, command)| name(&format!("{path}.commands[{index}]"), command))
        .collect::<Result<_, _>>()?;
    check_distinct(&format!("{path}.commands"), commands.iter().map(Name::as_str))?;
    let mut faults = Vec::with_capacity(given.faults.len());
    for (index, fault) in given.faults.into_iter().enumerate() {
        let path = format!("{path}.faults[{index}]");
        if !is_code(&fault.code) {
            return Err(refused(&format!("{path}.code"), &fault.code, "a code has 1 to 64 of a-z, 0-9, `-` and `/`"));
        }
        check_text(&format!("{path}.about"), &fault.about, MAX_ABOUT)?;
        faults.push(FaultType { code: fault.code, about: fault.about });
    }
    Ok(ContractType { name: name(&format!("{path}.name"), &given.name)?, states, commands, faults })
}

fn state_type(path: &str, given: bindings::StateType) -> Result<StateType, SandboxError> {
    if given.version == 0 {
        return Err(refused(&format!("{path}.version"), "0", "versions of a type start at 1"));
    }
    check_text(&format!("{path}.schema"), &given.schema, MAX_SCHEMA)?;
    check_count(&format!("{path}.attributes"), given.attributes.len(), 0..=MAX_STATES)?;
    check_distinct(&format!("{path}.attributes"), given.attributes.iter().map(|one| one.name.as_str()))?;
    let mut attributes = Vec::with_capacity(given.attributes.len());
    for (index, attribute) in given.attributes.into_iter().enumerate() {
        let name = name(&format!("{path}.attributes[{index}]"), &attribute.name)?;
        attributes.push(AttributeType { name: name.into(), kind: attribute.kind.into() });
    }
    Ok(StateType {
        name: name(&format!("{path}.name"), &given.name)?,
        version: given.version,
        schema_hash: SecureHash::of(given.schema.as_bytes()),
        schema: given.schema,
        attributes,
        times: given.times.into_iter().take(MAX_STATES).collect(),
    })
}

impl From<bindings::AttributeKind> for AttributeKind {
    fn from(kind: bindings::AttributeKind) -> AttributeKind {
        match kind {
            bindings::AttributeKind::Truth => AttributeKind::Truth,
            bindings::AttributeKind::Number => AttributeKind::Number,
            bindings::AttributeKind::Text => AttributeKind::Text,
            bindings::AttributeKind::Bytes => AttributeKind::Bytes,
            bindings::AttributeKind::Time => AttributeKind::Time,
        }
    }
}

/// Whether a text can be the code of a fault.
pub(super) fn is_code(code: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'/');
    !code.is_empty() && code.len() <= MAX_CODE && code.bytes().all(fits)
}

fn name(path: &str, name: &str) -> Result<Name, SandboxError> {
    Name::new(name).map_err(|error| refused(path, name, error.message().to_owned()))
}

fn check_count(path: &str, count: usize, fits: std::ops::RangeInclusive<usize>) -> Result<(), SandboxError> {
    if fits.contains(&count) {
        return Ok(());
    }
    Err(refused(path, &format!("{count} of them"), format!("there are {} to {}", fits.start(), fits.end())))
}

fn check_distinct<'a>(path: &str, names: impl Iterator<Item = &'a str>) -> Result<(), SandboxError> {
    let mut seen = HashSet::new();
    for name in names {
        if !seen.insert(name) {
            return Err(refused(path, name, "the name is there twice"));
        }
    }
    Ok(())
}
