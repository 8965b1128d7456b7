//! `maxhost cordapp check FILE --against OLD`: whether a component can take the place of an older one.

use std::path::Path;

use maxhost_model::{Code, Problem};
use maxhost_sandbox::contract::{ContractComponent, ContractType, StateType};
use maxhost_sandbox::{Descriptor, FlowDescriptor};
use serde_json::json;

use super::cordapp::{Inspected, inspect_any};
use crate::context::{Context, Outcome};

/// What differs in a way that breaks something, with the place where it does.
#[derive(Debug, PartialEq, Eq)]
struct Difference {
    at: String,
    what: String,
}

/// Compares two components.
pub fn execute(context: &Context, file: &Path, against: &Path) -> Outcome {
    let (_, new) = inspect_any(file, None)?;
    let (_, old) = inspect_any(against, None)?;
    let differences = match (&new, &old) {
        (Inspected::Contract(new), Inspected::Contract(old)) => contracts(new, old),
        (Inspected::Flows(new), Inspected::Flows(old)) => flows(&new.descriptor, &old.descriptor),
        _ => vec![difference("world", "one holds flows and the other contracts")],
    };
    if differences.is_empty() {
        let object = json!({"compatible": true, "new": new.title(), "old": old.title()});
        context.out.object(&object, || format!("{} can take the place of {}", new.title(), old.title()));
        return Ok(0);
    }
    let listed: Vec<String> = differences.iter().map(|one| format!("{}: {}", one.at, one.what)).collect();
    let message = format!("{} cannot take the place of {}:\n  {}", new.title(), old.title(), listed.join("\n  "));
    let problem = Problem::new(Code::CordappIncompatible, message);
    Err(differences.into_iter().fold(problem, |problem, one| problem.detail(&one.at, one.what)))
}

fn difference(at: impl Into<String>, what: impl Into<String>) -> Difference {
    Difference { at: at.into(), what: what.into() }
}

fn contracts(new: &ContractComponent, old: &ContractComponent) -> Vec<Difference> {
    let mut found = Vec::new();
    let (now, before) = (&new.descriptor, &old.descriptor);
    if now.name != before.name {
        found.push(difference("name", format!("it was {} and is {}", before.name, now.name)));
    }
    if new.code_hash != old.code_hash && now.code_version <= before.code_version {
        let what =
            format!("other code needs a higher version than {}, and has {}", before.code_version, now.code_version);
        found.push(difference("code_version", what));
    }
    // Their signatures are what the states of the old code ask for.
    for signer in old.signers.difference(&new.signers) {
        found.push(difference("signers", format!("{signer} has signed the old code and not the new")));
    }
    for contract in &before.contracts {
        let name = contract.name.as_str();
        match now.contract(name) {
            Some(kept) => contract_differences(contract, kept, &mut found),
            None => found.push(difference(name, "the contract is gone, and its states with it")),
        }
    }
    found
}

fn contract_differences(old: &ContractType, new: &ContractType, found: &mut Vec<Difference>) {
    for state in &old.states {
        let at = format!("{}/{}", old.name, state.name);
        match new.state(state.name.as_str()) {
            Some(kept) => state_differences(&at, state, kept, found),
            None => found.push(difference(at, "the type is gone, and its states with it")),
        }
    }
    for command in old.commands.iter().filter(|command| !new.commands.contains(command)) {
        let what = "the command is gone: flows that use it are refused";
        found.push(difference(format!("{} command {command}", old.name), what));
    }
}

/// Fields may be appended, and such fields may be missing in older states.
fn state_differences(at: &str, old: &StateType, new: &StateType, found: &mut Vec<Difference>) {
    if new.version < old.version {
        found.push(difference(at, format!("its version was {} and is {}", old.version, new.version)));
    }
    let (before, now): (Vec<&str>, Vec<&str>) = (old.schema.lines().collect(), new.schema.lines().collect());
    if before != now && new.version <= old.version {
        found.push(difference(at, format!("its fields have changed, and its version is still {}", new.version)));
    }
    let field = |line: &str| line.split_once(": ").map_or(line, |(name, _)| name).to_owned();
    for (index, line) in before.iter().enumerate() {
        let place = format!("{at}.{}", field(line));
        match now.get(index) {
            Some(kept) if kept == line => {}
            Some(kept) if field(kept) == field(line) => {
                found.push(difference(place, format!("it was '{line}' and is '{kept}'")));
            }
            _ if now.iter().any(|kept| field(kept) == field(line)) => {
                found.push(difference(place, "it stands elsewhere: fields are appended, and keep their order"));
            }
            _ => found.push(difference(place, "the field is gone")),
        }
    }
    let known = |line: &&str| before.iter().any(|other| field(other) == field(line));
    for line in now.iter().filter(|line| !known(line)) {
        let optional = line.split_once(": ").is_some_and(|(_, words)| words.starts_with("optional "));
        if !optional {
            let what = "a new field must be optional: older states do not have it";
            found.push(difference(format!("{at}.{}", field(line)), what));
        }
    }
    for attribute in &old.attributes {
        if !new.attributes.contains(attribute) {
            let what = "the attribute is gone or of another kind: queries that use it find nothing";
            found.push(difference(format!("{at} attribute {}", attribute.name), what));
        }
    }
}

fn flows(new: &Descriptor, old: &Descriptor) -> Vec<Difference> {
    let mut found = Vec::new();
    if new.name != old.name {
        found.push(difference("name", format!("it was {} and is {}", old.name, new.name)));
    }
    for flow in &old.flows {
        let at = format!("flow {}", flow.name);
        match new.flows.iter().find(|kept| kept.name == flow.name) {
            None => found.push(difference(at, "it is gone")),
            Some(kept) => found.extend(flow_difference(flow, kept).map(|what| difference(at, what))),
        }
    }
    found
}

fn flow_difference(old: &FlowDescriptor, new: &FlowDescriptor) -> Option<String> {
    if new.version < old.version {
        return Some(format!("its protocol was version {} and is {}", old.version, new.version));
    }
    if new.responds_to != old.responds_to {
        return Some("it answers another protocol".to_owned());
    }
    (old.startable && !new.startable).then(|| "clients cannot start it any more".to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use maxhost_ledger::tx::Name;
    use maxhost_model::SecureHash;

    use super::*;

    fn state(version: u32, fields: &[&str]) -> StateType {
        let schema: String = fields.iter().map(|field| format!("{field}\n")).collect();
        StateType {
            name: Name::new("Iou").unwrap(),
            version,
            schema_hash: SecureHash::of(schema.as_bytes()),
            schema,
            attributes: vec![],
            times: [].into(),
        }
    }

    fn places(old: &StateType, new: &StateType) -> Vec<String> {
        let mut found = Vec::new();
        state_differences("iou/Iou", old, new, &mut found);
        found.into_iter().map(|one| one.at).collect()
    }

    #[test]
    fn optional_fields_may_be_appended_and_nothing_else() {
        let old = state(1, &["id: uuid", "owed: u64"]);
        let fields = |version, fields: &[&str]| places(&old, &state(version, fields));
        assert_eq!(fields(1, &["id: uuid", "owed: u64"]), Vec::<String>::new());
        assert_eq!(fields(2, &["id: uuid", "owed: u64", "due: optional time"]), Vec::<String>::new());
        assert_eq!(fields(1, &["id: uuid", "owed: u64", "due: optional time"]), ["iou/Iou"]);
        assert_eq!(fields(2, &["id: uuid", "owed: u64", "due: time"]), ["iou/Iou.due"]);
        assert_eq!(fields(2, &["id: uuid"]), ["iou/Iou.owed"]);
        assert_eq!(fields(2, &["id: uuid", "owed: u32"]), ["iou/Iou.owed"]);
        assert_eq!(fields(2, &["owed: u64", "id: uuid"]), ["iou/Iou.id", "iou/Iou.owed"]);
        assert_eq!(fields(2, &["id: uuid", "due: optional time", "owed: u64"]), ["iou/Iou.owed"]);
        assert_eq!(places(&state(3, &["id: uuid"]), &state(2, &["id: uuid"])), ["iou/Iou"]);
    }
}
