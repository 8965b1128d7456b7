//! What a guest asks about the network: its own identity, other parties. The answers lie outside of the flow, so each is
//! noted in the journal; that about the flow's own identity is in the flow's start.

use maxhost_journal::Divergence;
use maxhost_model::{Class, Code, ErrorKind, FlowError, Party, Problem, X500Name, cut_text, from_cbor, to_cbor};
use maxhost_sandbox::{CallResult, GuestParty};
use serde::{Deserialize, Serialize};

use super::{FlowCalls, Stop};
use crate::core::Core;

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

/// Why a question about a party has no answer.
pub(super) enum Unanswered {
    /// What the network says of the party cannot be used, however often it is asked: the guest is told.
    Unusable(String),
    /// The host cannot look now: the flow goes back to its last commit and is tried again.
    Trouble(Problem),
}

/// A party of the network whose certificates are sound.
pub(super) fn known_party(core: &Core, name: &X500Name) -> Result<Option<Party>, Unanswered> {
    core.party(name).map_err(|problem| match problem.class() {
        Class::Unavailable => Unanswered::Trouble(problem),
        _ => Unanswered::Unusable(format!("party {name} cannot be used: {} ({})", problem.message, problem.code)),
    })
}

impl FlowCalls {
    pub(super) fn own_party(&self) -> GuestParty {
        let key = self.owning_key.as_deref().unwrap_or_else(|| self.opened.keys.party().owning_key.spki());
        GuestParty { name: self.opened.entry.text.to_string(), owning_key: key.to_vec() }
    }

    pub(super) fn find_party(&mut self, name: &str) -> CallResult<Option<GuestParty>> {
        let found: Option<NotedParty> = self.note("party", name, |core| {
            let Ok(name) = X500Name::parse(name) else { return Ok(None) };
            match known_party(core, &name) {
                Ok(party) => Ok(party.map(|party| NotedParty::new(&name, party.owning_key.spki()))),
                // To ask again would not help: the flow is told, and the same again whenever it is replayed.
                Err(Unanswered::Unusable(text)) => {
                    Ok(Some(NotedParty { refused: Some(text), ..NotedParty::new(&name, &[]) }))
                }
                Err(Unanswered::Trouble(problem)) => Err(problem),
            }
        })?;
        match found {
            Some(NotedParty { refused: Some(text), .. }) => {
                Err(FlowError::new(ErrorKind::IllegalArgument, text).into())
            }
            found => Ok(found.map(NotedParty::guest)),
        }
    }

    pub(super) fn find_parties(&mut self, query: &str, exact: bool) -> CallResult<Vec<GuestParty>> {
        let found: Vec<NotedParty> = self.note(&format!("parties {exact}"), query, |core| {
            let fits = |name: &X500Name| maxhost_model::name_query::has_component(name, query, exact);
            let noted = |party: Party| NotedParty::new(&party.name, party.owning_key.spki());
            Ok(core.parties(fits).into_iter().map(|verified| noted(verified.party)).collect())
        })?;
        Ok(found.into_iter().map(NotedParty::guest).collect())
    }

    pub(super) fn party_of_session(&mut self, session: u32) -> CallResult<GuestParty> {
        let Some(name) = self.machine.counterparty(session).cloned() else {
            let text = format!("there is no session {session}");
            return Err(FlowError::new(ErrorKind::IllegalArgument, text).into());
        };
        let party: NotedParty = self.note("counterparty", &name, |core| {
            let known = X500Name::parse(&name).ok().and_then(|name| known_party(core, &name).ok().flatten());
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
        answer: impl FnOnce(&Core) -> Result<T, Problem>,
    ) -> CallResult<T> {
        let question = question(kind, about);
        let core = self.core.clone();
        let mut encoded = Vec::new();
        if self.shadow && !self.machine.is_replaying() {
            return self.stop(Stop::Diverged(Divergence {
                position: self.machine.entries(),
                expected: "the end of the flow".to_owned(),
                actual: format!("ask {question}"),
            }));
        } else if !self.machine.is_replaying() {
            let answer = match answer(&core) {
                Ok(answer) => answer,
                Err(problem) => return self.stop(Stop::Trouble(problem)),
            };
            encoded = match to_cbor(&answer) {
                Ok(encoded) => encoded,
                Err(error) => return self.stop(Stop::Trouble(Problem::new(Code::Internal, error.to_string()))),
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
                Err(error) => self.stop(Stop::Trouble(Problem::new(Code::JournalCorrupt, error.to_string()))),
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
