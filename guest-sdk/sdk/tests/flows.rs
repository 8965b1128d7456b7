//! What the macros make of functions, as far as it shows without a host.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use maxhost_sdk::__private::{Invocation, describe, run};
use maxhost_sdk::{cbor, prelude::*};
use serde_json::{Value, json};

#[derive(Serialize, Deserialize, JsonSchema)]
struct Add {
    a: u8,
    b: u8,
}

/// Adds two
/// numbers.
///
/// At length.
#[flow(startable, version = 3)]
fn add_up(input: Add) -> Result<u8> {
    match input.a.checked_add(input.b) {
        Some(sum) => Ok(sum),
        None => bail!(FlowException::new("too large").of_type("sums/too-large").with(&input.a)),
    }
}

#[flow(startable, initiating = false, name = "nothing")]
fn takes_nothing() -> Result<()> {
    Ok(())
}

#[flow(startable)]
fn misbehaves(text: String) -> Result<u8> {
    Ok(text.parse()?)
}

mod inner {
    use super::*;

    #[flow(responds_to = "other-app/flow")]
    pub fn answers(session: Session) -> Result<()> {
        let _ = session;
        Ok(())
    }

    #[flow(initiating)]
    pub fn part(a: &str, b: u8) -> Result<String> {
        Ok(format!("{a}{b}"))
    }
}

cordapp! { flows: [add_up, takes_nothing, inner::answers], vendor: "Somebody", version: "1.2.3" }

fn start(flow: &str, arguments: impl Serialize, session: Option<u32>) -> Result<Value, String> {
    let flows = [__add_up_flow, __takes_nothing_flow, __misbehaves_flow, inner::__answers_flow, inner::__part_flow];
    let invocation = Invocation { flow: flow.to_owned(), arguments: cbor::to_vec(&arguments).unwrap(), session };
    run(&flows, &invocation)
        .map(|result| cbor::from_slice(&result).unwrap())
        .map_err(|failure| format!("{:?}: {}", failure.kind, failure.message))
}

#[test]
fn a_cordapp_describes_its_flows() {
    let descriptor = describe("sums", "1", "v", &[__add_up_flow, __takes_nothing_flow, inner::__answers_flow]);
    let [add, nothing, answers] = descriptor.flows.as_slice() else { panic!("three flows") };

    assert_eq!((add.name.as_str(), add.doc.as_str()), ("add-up", "Adds two numbers."));
    assert_eq!((add.startable, add.initiating, add.version), (true, true, 3));
    let schema: Value = serde_json::from_str(add.arguments.as_deref().unwrap()).unwrap();
    assert_eq!(schema["required"], json!(["a", "b"]));
    assert!(add.result_schema.as_deref().unwrap().contains("integer"));

    assert_eq!((nothing.name.as_str(), nothing.doc.as_str()), ("nothing", ""));
    assert_eq!((nothing.startable, nothing.initiating, nothing.version), (true, false, 1));

    assert_eq!(answers.responds_to.as_deref(), Some("other-app/flow"));
    assert_eq!((answers.startable, answers.initiating), (false, false));
    assert_eq!((&answers.arguments, &answers.result_schema), (&None, &None));
}

#[test]
fn arguments_come_in_and_results_go_out() {
    assert_eq!(start("add-up", json!({"a": 1, "b": 2}), None), Ok(json!(3)));
    assert_eq!(start("nothing", json!({}), None), Ok(Value::Null));
    assert_eq!(start("answers", json!({}), Some(0)), Ok(Value::Null));
    assert_eq!(inner::part("a", 1).unwrap(), "a1");
}

#[test]
fn each_error_keeps_its_kind() {
    let thrown = add_up(Add { a: 255, b: 1 }).unwrap_err();
    let exception = thrown.flow_exception().unwrap();
    assert!(exception.is("sums/too-large"));
    assert_eq!(exception.data::<u8>().unwrap(), Some(255));
    assert_eq!((exception.peer(), exception.error_id()), (None, None));

    assert_eq!(start("add-up", json!({"a": 255, "b": 1}), None).unwrap_err(), "FailureKind::FlowException: too large");
    let not_a_number = start("misbehaves", "x", None).unwrap_err();
    assert_eq!(not_a_number, "FailureKind::Unexpected: invalid digit found in string");
    let wrong = start("add-up", json!({"a": -1, "b": 1}), None).unwrap_err();
    assert!(wrong.starts_with("FailureKind::IllegalArgument: arguments: invalid value: integer `-1`"), "{wrong}");
}

#[test]
fn a_flow_starts_only_as_it_may() {
    for (flow, session) in [("add-up", Some(0)), ("answers", None), ("part", None), ("unknown", None)] {
        let refused = start(flow, json!({}), session).unwrap_err();
        assert!(refused.starts_with("FailureKind::IllegalState: cannot start"), "{refused}");
    }
}

#[test]
fn sessions_need_an_initiating_flow() {
    let refused = initiate(&Party::from_name("O=Bob, L=New York, C=US")).unwrap_err();
    assert_eq!(refused.kind(), "illegal-state");
}

#[test]
fn a_flow_exception_passes_the_question_mark() {
    fn throws() -> Result<()> {
        Err(FlowException::new("no"))?;
        Ok(())
    }
    assert_eq!(throws().unwrap_err().kind(), "flow-exception");
}

#[test]
fn a_party_is_its_name() {
    let party: Party = serde_json::from_value(json!("O=Bob, L=New York, C=US")).unwrap();
    assert_eq!(party.name(), "O=Bob, L=New York, C=US");
    assert_eq!(serde_json::to_value(&party).unwrap(), json!("O=Bob, L=New York, C=US"));
    assert_eq!(schemars::schema_for!(Party).get("format"), Some(&json!("x500-name")));
}
