//! From the exports of the component to the author's functions and back.

use std::cell::Cell;

use schemars::{JsonSchema, SchemaGenerator, generate::SchemaSettings};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::bindings::maxhost::cordapp::types::{Descriptor, Failure, FlowDescriptor, Invocation};
use crate::cbor;
use crate::error::{Error, Result};
use crate::session::Session;

/// One flow of a CorDapp: what `#[flow]` makes of a function.
#[derive(Debug, Clone, Copy)]
pub struct FlowEntry {
    /// Its name, which is its protocol's name too.
    pub name: &'static str,
    /// First paragraph of its documentation.
    pub doc: &'static str,
    /// The protocol it answers.
    pub responds_to: Option<&'static str>,
    /// May open sessions under its own name.
    pub initiating: bool,
    /// Version of its protocol.
    pub version: u32,
    /// How it starts.
    pub start: Start,
}

/// How a flow starts.
#[derive(Debug, Clone, Copy)]
pub enum Start {
    /// By a client, with arguments (CBOR).
    Startable {
        /// JSON Schemas of arguments and result.
        schemas: fn() -> (String, String),
        /// Decodes, runs, encodes.
        run: fn(&[u8]) -> Result<Vec<u8>>,
    },
    /// By a peer's initiation.
    Responder(fn(Session) -> Result<Vec<u8>>),
    /// By another flow of its CorDapp only, as a function call.
    SubFlow,
}

thread_local! {
    /// Protocol name of the nearest initiating flow on the stack of flows that call each other.
    static PROTOCOL: Cell<Option<&'static str>> = const { Cell::new(None) };
}

/// The protocol in which sessions are opened now.
pub(crate) fn current_protocol() -> Option<&'static str> {
    PROTOCOL.get()
}

/// Makes a flow's protocol the current one for as long as the flow's function runs.
#[derive(Debug)]
pub struct ProtocolScope {
    outer: Option<&'static str>,
}

impl ProtocolScope {
    /// From here to the drop of the scope.
    #[must_use]
    pub fn enter(protocol: &'static str) -> ProtocolScope {
        ProtocolScope { outer: PROTOCOL.replace(Some(protocol)) }
    }
}

impl Drop for ProtocolScope {
    fn drop(&mut self) {
        PROTOCOL.set(self.outer);
    }
}

/// JSON Schemas of a flow's arguments and result.
#[must_use]
pub fn schemas<A: JsonSchema, T: JsonSchema, E>(_flow: fn(A) -> Result<T, E>) -> (String, String) {
    (schema::<A>(), schema::<T>())
}

/// The same for a flow without arguments: it takes an empty object.
#[must_use]
pub fn schemas_without_arguments<T: JsonSchema, E>(_flow: fn() -> Result<T, E>) -> (String, String) {
    (r#"{"type":"object","additionalProperties":false}"#.to_owned(), schema::<T>())
}

fn schema<T: JsonSchema>() -> String {
    SchemaGenerator::new(SchemaSettings::draft2020_12()).into_root_schema_for::<T>().as_value().to_string()
}

/// Runs a flow that takes arguments.
///
/// # Errors
/// `IllegalArgument` when the arguments are not an `A`; then the flow's own.
pub fn call<A: DeserializeOwned, T: Serialize, E: Into<Error>>(
    arguments: &[u8],
    flow: fn(A) -> Result<T, E>,
) -> Result<Vec<u8>> {
    let arguments =
        cbor::from_slice(arguments).map_err(|error| Error::IllegalArgument(format!("arguments: {error}")))?;
    finish(flow(arguments))
}

/// Runs a flow that takes none.
///
/// # Errors
/// The flow's own.
pub fn call_without_arguments<T: Serialize, E: Into<Error>>(flow: fn() -> Result<T, E>) -> Result<Vec<u8>> {
    finish(flow())
}

/// Runs a responder.
///
/// # Errors
/// The flow's own.
pub fn respond<T: Serialize, E: Into<Error>>(session: Session, flow: fn(Session) -> Result<T, E>) -> Result<Vec<u8>> {
    finish(flow(session))
}

fn finish<T: Serialize, E: Into<Error>>(result: Result<T, E>) -> Result<Vec<u8>> {
    Ok(cbor::to_vec(&result.map_err(Into::into)?)?)
}

/// What is in a CorDapp.
#[must_use]
pub fn describe(name: &str, version: &str, vendor: &str, flows: &[FlowEntry]) -> Descriptor {
    Descriptor {
        name: name.to_owned(),
        version: version.to_owned(),
        vendor: vendor.to_owned(),
        flows: flows.iter().map(describe_flow).collect(),
    }
}

fn describe_flow(flow: &FlowEntry) -> FlowDescriptor {
    let schemas = match flow.start {
        Start::Startable { schemas, .. } => Some(schemas()),
        Start::Responder(_) | Start::SubFlow => None,
    };
    let (arguments, result_schema) = schemas.unzip();
    FlowDescriptor {
        name: flow.name.to_owned(),
        doc: flow.doc.to_owned(),
        startable: matches!(flow.start, Start::Startable { .. }),
        initiating: flow.initiating,
        responds_to: flow.responds_to.map(str::to_owned),
        version: flow.version,
        arguments,
        result_schema,
    }
}

/// Runs the flow that the invocation names.
///
/// # Errors
/// The flow's own, or `illegal-state` for a flow that cannot be started so.
pub fn run(flows: &[FlowEntry], invocation: &Invocation) -> Result<Vec<u8>, Failure> {
    // Natively, in an author's unit test, the test's own hook shows a panic better.
    #[cfg(target_arch = "wasm32")]
    std::panic::set_hook(Box::new(log_panic));
    start(flows, invocation).map_err(Failure::from)
}

fn start(flows: &[FlowEntry], invocation: &Invocation) -> Result<Vec<u8>> {
    let Some(flow) = flows.iter().find(|flow| flow.name == invocation.flow) else {
        return Err(illegal_start(&invocation.flow, "this CorDapp has no such flow"));
    };
    match (flow.start, invocation.session) {
        (Start::Startable { run, .. }, None) => run(&invocation.arguments),
        (Start::Responder(respond), Some(session)) => respond(Session(session)),
        (Start::Startable { .. }, Some(_)) => Err(illegal_start(flow.name, "it answers no peer")),
        (Start::Responder(_), None) => Err(illegal_start(flow.name, "it starts when a peer opens a session")),
        (Start::SubFlow, _) => Err(illegal_start(flow.name, "it is called by other flows only")),
    }
}

#[cold]
fn illegal_start(flow: &str, why: &str) -> Error {
    Error::IllegalState(format!("cannot start {flow}: {why}"))
}

/// The text of a panic reaches the operator's log and nobody else; then the instance traps.
#[cfg(target_arch = "wasm32")]
#[cold]
fn log_panic(info: &std::panic::PanicHookInfo<'_>) {
    crate::host::log(crate::host::LogLevel::Error, &info.to_string());
}
