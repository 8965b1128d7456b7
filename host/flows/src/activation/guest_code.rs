//! The one place where a flow's code is run.

use maxhost_journal::{Origin, StartRecord};
use maxhost_sandbox::{Invocation, Outcome, RunParameters};

use crate::calls::FlowCalls;
use crate::placement::FlowDef;

/// What runs the code of flows: their components, or, in a simulation, scripts in their place.
#[derive(Clone, Default)]
pub(crate) enum GuestCode {
    /// Each flow by its own component, in an instance of its own.
    #[default]
    Component,
    #[cfg(test)]
    Scripted(std::sync::Arc<crate::simulation::Guests>),
}

impl GuestCode {
    /// Runs one flow to its end, or until one of its calls stops it. Gives back the host's side of the run.
    pub async fn run(
        &self,
        def: &FlowDef,
        calls: FlowCalls,
        start: &StartRecord,
        parameters: &RunParameters,
    ) -> (FlowCalls, Outcome) {
        match self {
            GuestCode::Component => {
                let end = def.component.run(calls, invocation(start), parameters).await;
                (end.host, end.outcome)
            }
            #[cfg(test)]
            GuestCode::Scripted(guests) => guests.run(calls, start).await,
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
