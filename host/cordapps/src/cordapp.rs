//! A loaded CorDapp and its flows.

use std::sync::Arc;

use maxhost_model::{Code, Problem};
use maxhost_sandbox::{FlowComponent, FlowDescriptor};
use serde_json::Value;

use crate::reference::CordappRef;
use crate::schema::ArgumentSchema;

/// A flow of a CorDapp.
///
/// `N` is what the layer above wants to remember of a flow for as long as its component is loaded; it begins with its
/// default.
pub struct FlowDef<N> {
    /// The flow's full name, `cordapp/flow`.
    pub name: Arc<str>,
    /// What the component says of the flow.
    pub descriptor: FlowDescriptor,
    /// The component that runs it.
    pub component: Arc<FlowComponent>,
    /// What the layer above remembers of it.
    pub profile: N,
    schema: Option<ArgumentSchema>,
}

impl<N: Default> FlowDef<N> {
    fn new(component: &Arc<FlowComponent>, descriptor: &FlowDescriptor) -> Result<FlowDef<N>, Problem> {
        let name: Arc<str> = format!("{}/{}", component.descriptor.name, descriptor.name).into();
        let schema = match &descriptor.arguments {
            None => None,
            Some(schema) => Some(ArgumentSchema::new(schema).map_err(|error| {
                Problem::new(
                    Code::ComponentDescribeFailed,
                    format!("the argument schema of flow {name} is no valid JSON Schema: {error}"),
                )
            })?),
        };
        Ok(FlowDef {
            name,
            descriptor: descriptor.clone(),
            component: component.clone(),
            profile: N::default(),
            schema,
        })
    }
}

impl<N> FlowDef<N> {
    /// Checks arguments that came as JSON against the flow's JSON Schema. A float is no integer that was only rounded to it.
    ///
    /// # Errors
    /// `arguments-invalid`, with the first place that does not fit and what was expected there.
    pub fn check_json(&self, arguments: &Value) -> Result<(), Problem> {
        match &self.schema {
            Some(schema) => schema.check_json(arguments, &self.name),
            None => Ok(()),
        }
    }

    /// As [`FlowDef::check_json`], of arguments that came as CBOR: a float that readers take for no integer is none. They are given as
    /// [`maxhost_model::cbor_for_schema`] has them, and, if that is needed, as [`maxhost_model::cbor_for_exact_integers`] does.
    ///
    /// # Errors
    /// `arguments-invalid`, with the first place that does not fit and what was expected there; those of `exact`.
    pub fn check_cbor(&self, arguments: &Value, exact: impl FnOnce() -> Result<Value, Problem>) -> Result<(), Problem> {
        match &self.schema {
            Some(schema) => schema.check_cbor(arguments, exact, &self.name),
            None => Ok(()),
        }
    }

    /// The protocol that the flow answers, as `cordapp/flow`; `None` if it is no responder.
    #[must_use]
    pub fn responds_to(&self) -> Option<String> {
        let protocol = self.descriptor.responds_to.as_ref()?;
        Some(match protocol.contains('/') {
            true => protocol.clone(),
            false => format!("{}/{protocol}", self.component.descriptor.name),
        })
    }
}

/// A loaded CorDapp.
pub struct Cordapp<N> {
    /// The component, compiled and linked.
    pub component: Arc<FlowComponent>,
    /// SHA-256 of the component's bytes, lower-case hexadecimal.
    pub hash: String,
    /// Its flows, in the order of its descriptor.
    pub flows: Vec<Arc<FlowDef<N>>>,
}

impl<N: Default> Cordapp<N> {
    pub(crate) fn new(component: Arc<FlowComponent>) -> Result<Cordapp<N>, Problem> {
        let flows = component.descriptor.flows.iter();
        let flows = flows.map(|flow| FlowDef::new(&component, flow).map(Arc::new)).collect::<Result<_, _>>()?;
        let hash = hex::encode(component.hash);
        Ok(Cordapp { component, hash, flows })
    }
}

impl<N> Cordapp<N> {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.component.descriptor.name
    }

    /// Its version.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.component.descriptor.version
    }

    /// Whether a manifest's reference means this CorDapp.
    #[must_use]
    pub fn fits(&self, wanted: &CordappRef) -> bool {
        let version = wanted.version.as_ref().is_none_or(|version| {
            // `1.2` means any 1.2.x.
            self.version() == version
                || self.version().strip_prefix(version.as_str()).is_some_and(|rest| rest.starts_with('.'))
        });
        self.name() == wanted.name
            && version
            && wanted.hash.as_ref().is_none_or(|hash| self.hash.starts_with(&hash.to_lowercase()))
    }

    /// A flow by its name without the CorDapp's.
    #[must_use]
    pub fn flow(&self, name: &str) -> Option<&Arc<FlowDef<N>>> {
        self.flows.iter().find(|flow| flow.descriptor.name == name)
    }
}
