//! What a CorDapp says of itself, and the rules it must keep.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::argument_schema;
use crate::bindings::types;
use crate::error::SandboxError;

const MAX_NAME: usize = 64;
const MAX_VERSION: usize = 64;
const MAX_VENDOR: usize = 256;
const MAX_DOC: usize = 16 << 10;
const MAX_SCHEMA: usize = 256 << 10;
const MAX_FLOWS: usize = 256;
/// Of a refused value, so much is shown.
const SHOWN: usize = 80;
/// So many flows are named to somebody who named one that is not there.
const NAMES_SHOWN: usize = 8;

/// A CorDapp's own description.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Descriptor {
    /// Name: lower-case letters, digits, `-` and `_`, at most 64.
    pub name: String,
    /// Version: `1.2` or `1.2.3`, with suffixes as in semantic versioning.
    pub version: String,
    /// Who made it.
    pub vendor: String,
    /// Its flows, in the order the author gave them.
    pub flows: Vec<FlowDescriptor>,
}

/// One flow of a CorDapp.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FlowDescriptor {
    /// Name, unique in the CorDapp; written like the CorDapp's.
    pub name: String,
    /// Documentation, one paragraph.
    pub doc: String,
    /// May be started by RPC.
    pub startable: bool,
    /// May open sessions under its own name.
    pub initiating: bool,
    /// The protocol it answers: `flow` of the same CorDapp, or `cordapp/flow`.
    pub responds_to: Option<String>,
    /// Version of its protocol, at least 1.
    pub version: u32,
    /// JSON Schema of the arguments; unless it says otherwise, fields that it does not know are refused.
    pub arguments: Option<Value>,
    /// JSON Schema of the result.
    pub result: Option<Value>,
}

impl TryFrom<types::Descriptor> for Descriptor {
    type Error = SandboxError;

    /// Checks every field.
    ///
    /// # Errors
    /// [`SandboxError::DescriptorInvalid`] with the path of the first field that breaks a rule.
    fn try_from(given: types::Descriptor) -> Result<Descriptor, SandboxError> {
        check_name("name", &given.name)?;
        check_version("version", &given.version)?;
        check_text("vendor", &given.vendor, MAX_VENDOR)?;
        if given.flows.is_empty() {
            return Err(refused("flows", "[]", "a CorDapp has at least one flow"));
        }
        if given.flows.len() > MAX_FLOWS {
            return Err(refused("flows", &format!("{} flows", given.flows.len()), "at most 256 flows"));
        }
        let mut names = HashSet::new();
        let mut flows = Vec::with_capacity(given.flows.len());
        for (index, flow) in given.flows.into_iter().enumerate() {
            let flow = flow_descriptor(&format!("flows[{index}]"), flow)?;
            if !names.insert(flow.name.clone()) {
                return Err(refused(&format!("flows[{index}].name"), &flow.name, "another flow has this name"));
            }
            flows.push(flow);
        }
        Ok(Descriptor { name: given.name, version: given.version, vendor: given.vendor, flows })
    }
}

impl Descriptor {
    /// Whether every name that a flow gives leads somewhere. A component that breaks this runs all the same, for the first
    /// release let it be installed: whoever builds, looks at or installs one is told.
    ///
    /// # Errors
    /// [`SandboxError::DescriptorInvalid`] for a protocol of this CorDapp that no flow of it speaks, and for a protocol that
    /// two of its flows answer.
    pub fn check_references(&self) -> Result<(), SandboxError> {
        let mut answered = HashMap::new();
        for (index, flow) in self.flows.iter().enumerate() {
            let Some(protocol) = &flow.responds_to else { continue };
            let path = || format!("flows[{index}].responds-to");
            let (cordapp, name) = protocol.split_once('/').unwrap_or((&self.name, protocol));
            if let Some(other) = answered.insert((cordapp, name), &flow.name) {
                return Err(refused(&path(), protocol, format!("flow {other} answers it already")));
            }
            if cordapp != self.name {
                continue;
            }
            match self.flows.iter().find(|flow| flow.name == name) {
                Some(flow) if flow.initiating => {}
                Some(_) => return Err(refused(&path(), protocol, "this flow is not initiating: it opens no sessions")),
                None => return Err(refused(&path(), protocol, self.no_such_flow(name))),
            }
        }
        Ok(())
    }

    /// Names the flow that was meant, or all that could be.
    fn no_such_flow(&self, name: &str) -> String {
        let plain = |name: &str| name.replace('_', "-");
        match self.flows.iter().find(|flow| plain(&flow.name) == plain(name)) {
            Some(flow) => format!("this CorDapp has no such flow: it is called {}", flow.name),
            None => {
                let initiating = self.flows.iter().filter(|flow| flow.initiating).map(|flow| flow.name.as_str());
                let known: Vec<&str> = initiating.take(NAMES_SHOWN).collect();
                format!("this CorDapp has no such flow: its initiating flows are {}", known.join(", "))
            }
        }
    }
}

fn flow_descriptor(path: &str, given: types::FlowDescriptor) -> Result<FlowDescriptor, SandboxError> {
    check_name(&format!("{path}.name"), &given.name)?;
    check_text(&format!("{path}.doc"), &given.doc, MAX_DOC)?;
    if given.version == 0 {
        return Err(refused(&format!("{path}.version"), "0", "protocol versions start at 1"));
    }
    if let Some(protocol) = &given.responds_to {
        let path = format!("{path}.responds-to");
        match protocol.split_once('/') {
            Some((cordapp, flow)) => check_name(&path, cordapp).and_then(|()| check_name(&path, flow)),
            None => check_name(&path, protocol),
        }?;
    }
    Ok(FlowDescriptor {
        arguments: schema(&format!("{path}.arguments"), given.arguments)?.map(closed),
        result: schema(&format!("{path}.result-schema"), given.result_schema)?,
        name: given.name,
        doc: given.doc,
        startable: given.startable,
        initiating: given.initiating,
        responds_to: given.responds_to,
        version: given.version,
    })
}

pub(crate) fn check_name(path: &str, name: &str) -> Result<(), SandboxError> {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
    if name.is_empty() || name.len() > MAX_NAME || !name.chars().all(fits) {
        return Err(refused(path, name, "a name has 1 to 64 of a-z, 0-9, `-` and `_`"));
    }
    Ok(())
}

pub(crate) fn check_version(path: &str, version: &str) -> Result<(), SandboxError> {
    let core = version.split(['-', '+']).next().unwrap_or_default();
    let numbers = core.split('.').collect::<Vec<_>>();
    let is_number = |part: &&str| !part.is_empty() && part.len() <= 9 && part.chars().all(|c| c.is_ascii_digit());
    let is_suffix = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '+');
    let fits = (2..=3).contains(&numbers.len())
        && numbers.iter().all(is_number)
        && version.len() <= MAX_VERSION
        && version[core.len()..].chars().all(is_suffix);
    if fits { Ok(()) } else { Err(refused(path, version, "a version is written 1.2 or 1.2.3, or 1.2.3-beta.1")) }
}

pub(crate) fn check_text(path: &str, text: &str, limit: usize) -> Result<(), SandboxError> {
    if text.len() > limit {
        return Err(refused(path, text, "it is too long"));
    }
    if text.chars().any(|c| c.is_control() && c != '\n' && c != '\t') {
        return Err(refused(path, text, "it has control characters in it"));
    }
    Ok(())
}

fn schema(path: &str, text: Option<String>) -> Result<Option<Value>, SandboxError> {
    let Some(text) = text else { return Ok(None) };
    if text.len() > MAX_SCHEMA {
        return Err(refused(path, &text, "a schema has at most 256 KiB"));
    }
    match serde_json::from_str::<Value>(&text) {
        Ok(value) if value.is_object() || value.is_boolean() => Ok(Some(value)),
        Ok(_) => Err(refused(path, &text, "a JSON Schema is an object, or true or false")),
        Err(_) => Err(refused(path, &text, "it is not JSON")),
    }
}

/// Arguments are checked against this: a field that nobody knows is a mistake.
fn closed(mut schema: Value) -> Value {
    argument_schema::close(&mut schema);
    schema
}

pub(crate) fn refused(path: &str, value: &str, reason: impl Into<Cow<'static, str>>) -> SandboxError {
    let mut shown = format!("{:?}", value.chars().take(SHOWN).collect::<String>());
    if value.chars().nth(SHOWN).is_some() {
        shown.push('…');
    }
    SandboxError::DescriptorInvalid { path: path.to_owned(), value: shown, reason: reason.into() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn flow(name: &str) -> types::FlowDescriptor {
        types::FlowDescriptor {
            name: name.to_owned(),
            doc: "Does it.".to_owned(),
            startable: true,
            initiating: true,
            responds_to: None,
            version: 1,
            arguments: Some(r#"{"type":"object"}"#.to_owned()),
            result_schema: None,
        }
    }

    fn cordapp(flows: Vec<types::FlowDescriptor>) -> types::Descriptor {
        types::Descriptor { name: "quotes".to_owned(), version: "1.2".to_owned(), vendor: "Vendor".to_owned(), flows }
    }

    fn refusal(given: types::Descriptor) -> String {
        Descriptor::try_from(given).unwrap_err().to_string()
    }

    #[test]
    fn a_descriptor_by_the_rules_is_taken() {
        let mut answer = flow("answer");
        answer.responds_to = Some("other-app/request_1".to_owned());
        let taken = Descriptor::try_from(cordapp(vec![flow("request"), answer])).unwrap();
        assert_eq!(taken.flows.len(), 2);
        assert_eq!(taken.flows[0].arguments.as_ref().unwrap()["type"], "object");
    }

    #[test]
    fn each_broken_rule_is_named_with_its_place() {
        let with = |change: fn(&mut types::FlowDescriptor)| {
            let mut second = flow("b");
            change(&mut second);
            refusal(cordapp(vec![flow("a"), second]))
        };
        for (got, path) in [
            (with(|flow| flow.name = "a".to_owned()), "flows[1].name"),
            (with(|flow| flow.name = "Upper".to_owned()), "flows[1].name"),
            (with(|flow| flow.name = String::new()), "flows[1].name"),
            (with(|flow| flow.name = "x".repeat(65)), "flows[1].name"),
            (with(|flow| flow.version = 0), "flows[1].version"),
            (with(|flow| flow.responds_to = Some("a/b/c".to_owned())), "flows[1].responds-to"),
            (with(|flow| flow.arguments = Some("{".to_owned())), "flows[1].arguments"),
            (with(|flow| flow.result_schema = Some("7".to_owned())), "flows[1].result-schema"),
            (with(|flow| flow.doc = "\u{1b}[31m".to_owned()), "flows[1].doc"),
            (refusal(cordapp(Vec::new())), "flows"),
        ] {
            assert!(got.contains(path), "{got} does not name {path}");
        }
    }

    #[test]
    fn a_name_that_names_nothing_is_found() {
        let named = |name: &str, initiating: bool, responds_to: Option<&str>| types::FlowDescriptor {
            initiating,
            startable: initiating,
            responds_to: responds_to.map(str::to_owned),
            ..flow(name)
        };
        let check = |flows: Vec<types::FlowDescriptor>| {
            Descriptor::try_from(cordapp(flows)).unwrap().check_references().map_err(|error| error.to_string())
        };
        let fine = [None, Some("request"), Some("quotes/request"), Some("other/request")];
        for responds_to in fine {
            assert_eq!(check(vec![named("request", true, None), named("answer", false, responds_to)]), Ok(()));
        }
        for (flows, words) in [
            (
                vec![named("make-throw", true, None), named("throw", false, Some("make_throw"))],
                "flows[1].responds-to = \"make_throw\": this CorDapp has no such flow: it is called make-throw",
            ),
            (
                vec![named("a", true, None), named("b", true, None), named("c", false, Some("quotes/x"))],
                "no such flow: its initiating flows are a, b",
            ),
            (vec![named("a", false, None), named("b", false, Some("a"))], "not initiating"),
            (
                vec![named("a", true, None), named("b", false, Some("a")), named("c", false, Some("quotes/a"))],
                "flows[2].responds-to = \"quotes/a\": flow b answers it already",
            ),
            (
                vec![named("a", true, None), named("b", false, Some("x/a")), named("c", false, Some("x/a"))],
                "flow b answers it already",
            ),
        ] {
            let error = check(flows).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn versions_are_numbers_with_suffixes() {
        for good in ["1.2", "0.1.0", "10.20.30", "1.2.3-beta.1", "1.0.0+build-7"] {
            assert!(check_version("version", good).is_ok(), "{good}");
        }
        for bad in ["", "1", "1.2.3.4", "a.b", "1..2", "1.2 3", "1.2-b@d", "v1.2"] {
            assert!(check_version("version", bad).is_err(), "{bad}");
        }
    }
}
