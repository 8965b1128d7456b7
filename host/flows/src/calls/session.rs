//! Sessions: opening them, and the guards that only the host can know.

use maxhost_journal::{Answer, Call};
use maxhost_model::{ErrorKind, FlowError, Problem, X500Name, cut_text};
use maxhost_sandbox::CallResult;

use super::network::unusable;
use super::{FlowCalls, Stop};
use crate::base::trouble::Trouble;

/// Of a name that is refused, so much is shown. Bytes.
const SHOWN: usize = 512;

/// Why no session is opened.
enum Refusal {
    /// The guest is told.
    Guest(FlowError),
    /// The host cannot look now.
    Host(Problem),
}

impl FlowCalls {
    pub(super) async fn open(&mut self, protocol: String, party: String) -> CallResult<u32> {
        let version = self.code.flows().iter().find(|flow| flow.name == protocol);
        let version = version.map_or(0, |flow| flow.version);
        let full = format!("{}/{protocol}", self.code.cordapp().0);
        let canonical =
            X500Name::parse(&party).map_or_else(|_| cut_text(party.clone(), SHOWN), |name| name.to_string());
        let refused = match self.machine.is_replaying() {
            true => None,
            false => match self.check_session(&protocol, &party) {
                Ok(()) => None,
                Err(Refusal::Guest(error)) => Some(error),
                Err(Refusal::Host(problem)) => return self.stop(Stop::Trouble(Trouble::Passing(problem))),
            },
        };
        let call = match refused {
            Some(error) => Call::RefuseSession { party: canonical, error: Box::new(error) },
            None => Call::OpenSession { protocol: full, version, party: canonical },
        };
        match self.ask_local(call).await? {
            Answer::Session(session) => Ok(session),
            other => self.misanswered(&other),
        }
    }

    /// Whether a session may be opened.
    fn check_session(&self, protocol: &str, party: &str) -> Result<(), Refusal> {
        let refused = |kind, text| Err(Refusal::Guest(FlowError::new(kind, text)));
        let flows = self.code.flows();
        if !flows.iter().any(|flow| flow.initiating && flow.name == protocol) {
            let protocol = cut_text(protocol.to_owned(), SHOWN);
            let text =
                format!("'{protocol}' is no initiating flow of this CorDapp, so no session can be opened in its name");
            return refused(ErrorKind::IllegalState, text);
        }
        let name = match X500Name::parse(party) {
            Ok(name) => name,
            Err(error) => {
                let text = format!("'{}' is no party: {error}", cut_text(party.to_owned(), SHOWN));
                return refused(ErrorKind::IllegalArgument, text);
            }
        };
        match self.services.parties.party(&name) {
            Ok(Some(_)) => Ok(()),
            Ok(None) => refused(ErrorKind::IllegalArgument, format!("there is no party {name} on this network")),
            Err(Trouble::Permanent(problem)) => refused(ErrorKind::IllegalArgument, unusable(&name, &problem)),
            Err(Trouble::Passing(problem)) => Err(Refusal::Host(problem)),
        }
    }
}
