//! What a guest asks about the network: its own identity, other parties. The answers lie outside of the flow, so each is
//! noted in the journal; that about the flow's own identity is in the flow's start.

use maxhost_journal::Divergence;
use maxhost_model::{Code, ErrorKind, FlowError, Party, Problem, X500Name, cut_text, from_cbor, to_cbor};
use maxhost_sandbox::{CallResult, GuestParty};
use serde::{Deserialize, Serialize};

use super::{FlowCalls, Stop};
use crate::base::trouble::Trouble;
use crate::ledger::parties::Parties;

/// A longer question is known by its digest: it is compared when the flow is replayed, and never answered from.
const MAX_QUESTION: usize = 1024;

/// A party as it is kept in the journal.
#[derive(Serialize, Deserialize)]
struct NotedParty {
    name: String,
    key: Vec<u8>,
    /// Why it cannot be used, if the network knows it and what is known of it is not valid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    refused: Option<String>,
}

impl NotedParty {
    fn new(name: &X500Name, key: &[u8]) -> NotedParty {
        NotedParty { name: name.to_string(), key: key.to_vec(), refused: None }
    }

    fn guest(self) -> GuestParty {
        GuestParty { name: self.name, owning_key: self.key }
    }
}

/// What a flow is told of a party whose certificates or node info are not valid.
pub(super) fn unusable(name: &X500Name, problem: &Problem) -> String {
    format!("party {name} cannot be used: {} ({})", problem.message, problem.code)
}

impl FlowCalls {
    pub(super) fn own_party(&self) -> GuestParty {
        let key = self.owning_key.as_deref().unwrap_or_else(|| self.opened.keys.party().owning_key.spki());
        GuestParty { name: self.opened.entry.text.to_string(), owning_key: key.to_vec() }
    }

    pub(super) fn find_party(&mut self, name: &str) -> CallResult<Option<GuestParty>> {
        let found: Option<NotedParty> = self.note("party", name, |parties| {
            let Ok(name) = X500Name::parse(name) else { return Ok(None) };
            match parties.party(&name) {
                Ok(party) => Ok(party.map(|party| NotedParty::new(&name, party.owning_key.spki()))),
                // To ask again would not help: the flow is told, and the same again whenever it is replayed.
                Err(Trouble::Permanent(problem)) => {
                    let refused = Some(unusable(&name, &problem));
                    Ok(Some(NotedParty { refused, ..NotedParty::new(&name, &[]) }))
                }
                Err(passing @ Trouble::Passing(_)) => Err(passing),
            }
        })?;
        match found {
            Some(NotedParty { refused: Some(text), .. }) => {
                Err(FlowError::new(ErrorKind::IllegalArgument, text).into())
            }
            found => Ok(found.map(NotedParty::guest)),
        }
    }

    pub(super) async fn find_parties(&mut self, query: String, exact: bool) -> CallResult<Vec<GuestParty>> {
        let found = match self.machine.is_replaying() || self.shadow {
            true => Ok(Vec::new()),
            false => self.verified_parties(query.clone(), exact).await,
        };
        let found: CallResult<Vec<NotedParty>> = self.note(&format!("parties {exact}"), &query, |_| found);
        self.keep_pace().await?;
        Ok(found?.into_iter().map(NotedParty::guest).collect())
    }

    /// Asks the network. To verify the certificates of all that fit may take seconds: it is done in the identity's turns.
    async fn verified_parties(&self, query: String, exact: bool) -> Result<Vec<NotedParty>, Trouble> {
        let parties = self.services.parties.clone();
        let look = move || {
            let fits = |name: &X500Name| maxhost_model::name_query::has_component(name, &query, exact);
            let noted = |party: Party| NotedParty::new(&party.name, party.owning_key.spki());
            parties.matching(fits).into_iter().map(|verified| noted(verified.party)).collect()
        };
        self.services.placement.work(self.opened.entry.row, look).await
    }

    pub(super) fn party_of_session(&mut self, session: u32) -> CallResult<GuestParty> {
        let Some(name) = self.machine.counterparty(session).cloned() else {
            let text = format!("there is no session {session}");
            return Err(FlowError::new(ErrorKind::IllegalArgument, text).into());
        };
        let party: NotedParty = self.note("counterparty", &name, |parties| {
            let known = match X500Name::parse(&name).map(|name| parties.party(&name)) {
                Ok(Ok(found)) => found,
                Ok(Err(passing @ Trouble::Passing(_))) => return Err(passing),
                Ok(Err(Trouble::Permanent(_))) | Err(_) => None,
            };
            let key = known.map(|party| party.owning_key.spki().to_vec()).unwrap_or_default();
            Ok(NotedParty { name: name.to_string(), key, refused: None })
        })?;
        Ok(party.guest())
    }

    /// Asks the host something whose answer is then part of the journal: the same again whenever the flow is replayed.
    fn note<T: Serialize + for<'de> Deserialize<'de>>(
        &mut self,
        kind: &str,
        about: &str,
        answer: impl FnOnce(&Parties) -> Result<T, Trouble>,
    ) -> CallResult<T> {
        let question = question(kind, about);
        let parties = self.services.parties.clone();
        let mut encoded = Vec::new();
        if self.shadow && !self.machine.is_replaying() {
            return self.stop(Stop::Diverged(Divergence {
                position: self.machine.entries(),
                expected: "the end of the flow".to_owned(),
                actual: format!("ask {question}"),
            }));
        } else if !self.machine.is_replaying() {
            let answer = match answer(&parties) {
                Ok(answer) => answer,
                Err(trouble) => return self.stop(Stop::Trouble(trouble)),
            };
            encoded = match to_cbor(&answer) {
                Ok(encoded) => encoded,
                Err(error) => return self.stop(Stop::Trouble(Trouble::defect(error.to_string()))),
            };
        }
        if let Some(error) = self.machine.exceeded() {
            return self.stop(Stop::Over(error));
        }
        let noted = self.machine.note(&question, || encoded.into());
        if self.machine.is_flush_due() {
            self.flush();
        }
        match noted {
            Err(divergence) => self.stop(Stop::Diverged(divergence)),
            Ok(bytes) => match from_cbor(&bytes) {
                Ok(answer) => Ok(answer),
                Err(error) => {
                    let problem = Problem::new(Code::JournalCorrupt, error.to_string());
                    self.stop(Stop::Trouble(Trouble::Permanent(problem)))
                }
            },
        }
    }
}

/// A question as the journal keeps it.
fn question(kind: &str, about: &str) -> String {
    if about.len() <= MAX_QUESTION {
        return format!("{kind} {about}");
    }
    format!("{kind} {} (digest {})", cut_text(about.to_owned(), 128), blake3::hash(about.as_bytes()).to_hex())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_question_is_known_by_its_digest() {
        assert_eq!(question("party", "O=Bob"), "party O=Bob");
        let (one, other) = ("x".repeat(20_000_000), "x".repeat(19_999_999) + "y");
        assert!(question("party", &one).len() < 512);
        assert_ne!(question("party", &one), question("party", &other));
    }
}
