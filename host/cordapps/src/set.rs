//! What the CorDapps of one identity can do together.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use maxhost_model::{Code, Problem};

use crate::cordapp::{Cordapp, FlowDef};

/// Flows that are named to somebody who asked for one that is not there.
const NAMES_SHOWN: usize = 8;

/// The CorDapps of one identity. Identities that name the same CorDapps share one set.
pub struct CordappSet<N> {
    /// The CorDapps, in the order of the manifest.
    pub cordapps: Vec<Arc<Cordapp<N>>>,
    /// Their flows by full name.
    pub flows: BTreeMap<Arc<str>, Arc<FlowDef<N>>>,
    /// Their responders by protocol.
    pub responders: HashMap<String, Arc<FlowDef<N>>>,
}

impl<N> CordappSet<N> {
    pub(crate) fn new(cordapps: Vec<Arc<Cordapp<N>>>) -> Result<CordappSet<N>, Problem> {
        let mut set = CordappSet { cordapps, flows: BTreeMap::new(), responders: HashMap::new() };
        for flow in set.cordapps.iter().flat_map(|cordapp| &cordapp.flows) {
            if set.flows.insert(flow.name.clone(), flow.clone()).is_some() {
                let text = format!("flow {} is in two CorDapps of this identity", flow.name);
                return Err(Problem::new(Code::CordappConflict, text));
            }
            let Some(protocol) = flow.responds_to() else { continue };
            if let Some(other) = set.responders.insert(protocol.clone(), flow.clone()) {
                let text = format!("flows {} and {} both answer {protocol}", other.name, flow.name);
                return Err(Problem::new(Code::CordappConflict, text));
            }
        }
        Ok(set)
    }

    /// The flow that `cordapp/flow`, or `flow` where that is unique, names.
    ///
    /// # Errors
    /// `flow-type-not-found` with the names most like it, `flow-type-ambiguous` with all that fit.
    pub fn find(&self, name: &str) -> Result<&Arc<FlowDef<N>>, Problem> {
        if let Some(flow) = self.flows.get(name) {
            return Ok(flow);
        }
        let mut fits = self.flows.values().filter(|flow| flow.descriptor.name == name);
        match (fits.next(), fits.next()) {
            (Some(flow), None) => Ok(flow),
            (Some(one), Some(two)) => {
                let mut names = vec![one.name.to_string(), two.name.to_string()];
                names.extend(fits.map(|flow| flow.name.to_string()));
                Err(Problem::new(Code::FlowTypeAmbiguous, format!("'{name}' fits {}", names.join(", "))))
            }
            (None, _) => Err(Problem::new(
                Code::FlowTypeNotFound,
                format!("this identity has no flow '{name}'; it has {}", self.names_like(name)),
            )),
        }
    }

    /// The names of some flows, those most like this one first.
    fn names_like(&self, name: &str) -> String {
        let likeness = |flow: &FlowDef<N>| {
            strsim::jaro_winkler(&flow.name, name).max(strsim::jaro_winkler(&flow.descriptor.name, name))
        };
        let mut flows: Vec<&Arc<FlowDef<N>>> = self.flows.values().collect();
        flows.sort_by(|one, two| likeness(two).total_cmp(&likeness(one)).then_with(|| one.name.cmp(&two.name)));
        let shown: Vec<&str> = flows.iter().take(NAMES_SHOWN).map(|flow| &*flow.name).collect();
        match (shown.is_empty(), flows.len() - shown.len()) {
            (true, _) => "none".to_owned(),
            (false, 0) => shown.join(", "),
            (false, more) => format!("{} and {more} more", shown.join(", ")),
        }
    }
}
