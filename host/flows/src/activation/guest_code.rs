//! The one place where a flow's code is run.

use maxhost_journal::{Origin, StartRecord};
use maxhost_sandbox::{Invocation, Outcome, RunParameters};

use crate::calls::{FlowCalls, run_native};
use crate::guests::flow_code::FlowCode;

/// What runs the code of flows: their components, or, in a simulation, scripts in their place.
#[derive(Clone, Default)]
pub(crate) enum GuestCode {
    /// Each flow by its own component, in an instance of its own; those of the platform by the host itself.
    #[default]
    Component,
    #[cfg(test)]
    Scripted(std::sync::Arc<crate::simulation::Guests>),
}

impl GuestCode {
    /// Runs one flow to its end, or until one of its calls stops it. Gives back the host's side of the run.
    pub async fn run(
        &self,
        code: &FlowCode,
        mut calls: FlowCalls,
        start: &StartRecord,
        parameters: &RunParameters,
    ) -> (FlowCalls, Outcome) {
        match (self, code) {
            (GuestCode::Component, FlowCode::Guest(def)) => {
                let end = def.component.run(calls, invocation(start), parameters).await;
                (end.host, end.outcome)
            }
            (GuestCode::Component, FlowCode::Native(native)) => {
                // Boxed, because every flow has room for whatever its activation may run, and this is large and rare.
                let outcome = Box::pin(run_native(&mut calls, native.kind, &start.arguments)).await;
                (calls, outcome)
            }
            #[cfg(test)]
            (GuestCode::Scripted(guests), code) => guests.run(code, calls, start).await,
        }
    }
}

fn invocation(start: &StartRecord) -> Invocation {
    Invocation {
        flow: start.flow.clone(),
        arguments: start.arguments.to_vec(),
        session: matches!(start.origin, Origin::Peer(_)).then_some(0),
    }
}
