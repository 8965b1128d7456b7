//! What a request is checked for before its states are looked up (behaviour.md 11.2).

use maxhost_model::{Party, PublicKey, SecureHash};

use super::error::NotaryError;
use super::request::{NotaryPayload, NotaryRequest};
use super::uniqueness::UniquenessRequest;
use crate::refused::{Refused, Result};
use crate::rules::Rule;
use crate::time::TimeWindow;
use crate::tx::component::Group;
use crate::tx::{Core, FilteredTransaction, Header, LedgerRules, StateRef, structure};

/// A request names fewer inputs and references than this.
pub const MAX_STATES: usize = 10_000;

/// The network parameters that a notary knows.
pub trait Parameters {
    /// The rules of the parameters with this hash, if they are known.
    fn rules(&self, hash: &SecureHash) -> Option<&LedgerRules>;
}

/// The service that checks.
#[derive(Debug, Clone, Copy)]
pub struct NotaryService<'a> {
    /// Its identity.
    pub identity: &'a Party,
    /// Whether it validates.
    pub validating: bool,
    /// SHA-256 of the root certificate of the network.
    pub network: &'a SecureHash,
}

/// What of a transaction every notary looks at.
struct View<'a> {
    header: &'a Header,
    notary: Option<&'a Party>,
    parameters: Option<&'a SecureHash>,
    inputs: &'a [StateRef],
    references: &'a [StateRef],
    window: Option<TimeWindow>,
}

fn view(payload: &NotaryPayload) -> View<'_> {
    match payload {
        NotaryPayload::Full(signed) => {
            let core = signed.core();
            View {
                header: core.header(),
                notary: core.notary(),
                parameters: core.parameters(),
                inputs: core.inputs(),
                references: core.references(),
                window: core.time_window(),
            }
        }
        NotaryPayload::Filtered(filtered) => {
            let contents = filtered.contents();
            View {
                header: &contents.header,
                notary: contents.notary.as_ref(),
                parameters: contents.parameters.as_ref(),
                inputs: &contents.inputs,
                references: &contents.references,
                window: contents.time_window,
            }
        }
    }
}

/// Checks a request in the order of behaviour.md 11.2, up to what needs the chain of the transaction. A notary that
/// validates calls `validate` for the rest: resolve, verify, all signatures but its own.
///
/// # Errors
/// [`NotaryError::TransactionInvalid`] and [`NotaryError::RequestSignatureInvalid`]; whatever `validate` answers.
pub fn check_request(
    request: &NotaryRequest,
    caller: &PublicKey,
    service: NotaryService<'_>,
    parameters: &impl Parameters,
    validate: impl FnOnce(&NotaryPayload) -> std::result::Result<(), NotaryError>,
) -> std::result::Result<UniquenessRequest, NotaryError> {
    let view = view(&request.payload);
    let rules = check_addressed(&view, service, parameters)?;
    if view.inputs.len() + view.references.len() >= MAX_STATES {
        let message = format!("a request names fewer than {MAX_STATES} inputs and references");
        return Err(Refused::new(Rule::TooManyStates, message).into());
    }
    if let Err(refused) = request.check_signature(caller) {
        return Err(NotaryError::RequestSignatureInvalid { message: refused.message().to_owned() });
    }
    // A change of notary hides nothing, so it comes whole to every notary.
    let change = match &request.payload {
        NotaryPayload::Full(signed) => match signed.core() {
            Core::NotaryChange(change) => Some(change),
            Core::Wire(_) => None,
        },
        NotaryPayload::Filtered(_) => None,
    };
    if let Some(change) = change {
        change.check_new_notary(&rules.notaries)?;
    }
    let ordinary = match &request.payload {
        _ if change.is_some() => false,
        NotaryPayload::Filtered(filtered) if !service.validating => {
            check_shown(filtered)?;
            // Of a whole transaction this holds; a tear-off may be of nothing that anybody could decode.
            structure::check_states(view.inputs, view.references)?;
            true
        }
        NotaryPayload::Full(_) if service.validating => true,
        NotaryPayload::Filtered(_) => {
            return Err(Refused::new(Rule::NotVisible, "a notary that validates needs the whole transaction").into());
        }
        NotaryPayload::Full(_) => {
            let message = "a notary that does not validate takes tear-offs only: it is not to see the rest";
            return Err(Refused::new(Rule::FilteredInvalid, message).into());
        }
    };
    // A notary that was taken off the list still gives its states away, and does nothing else.
    if ordinary && !rules.notaries.contains(service.identity) {
        let message = format!("{} is no notary of the network by these parameters", service.identity);
        return Err(Refused::new(Rule::NotaryUntrusted, message).into());
    }
    if service.validating {
        validate(&request.payload)?;
    }
    Ok(UniquenessRequest {
        id: request.payload.id(),
        inputs: view.inputs.to_vec(),
        references: view.references.to_vec(),
        window: view.window,
    })
}

fn check_addressed<'p>(
    view: &View<'_>,
    service: NotaryService<'_>,
    parameters: &'p impl Parameters,
) -> Result<&'p LedgerRules> {
    match view.notary {
        Some(notary) if notary.owning_key == service.identity.owning_key => {}
        Some(other) => {
            let message = format!("the transaction names the notary {other}, and this is {}", service.identity);
            return Err(Refused::new(Rule::NotaryOther, message));
        }
        None => return Err(Refused::new(Rule::NotaryOther, "the transaction names no notary, or hides it")),
    }
    view.header.check_network(service.network)?;
    let hash = view
        .parameters
        .ok_or_else(|| Refused::new(Rule::ParametersMissing, "no hash of network parameters is shown"))?;
    parameters.rules(hash).ok_or_else(|| {
        let message = format!("the network parameters {hash} are not known here");
        Refused::new(Rule::ParametersUnknown, message).detail("parameters", hash)
    })
}

/// What a notary must see, so that nothing that it is to keep can be hidden from it.
fn check_shown(filtered: &FilteredTransaction) -> Result<()> {
    [Group::Inputs, Group::References, Group::TimeWindow, Group::Notary, Group::Parameters]
        .into_iter()
        .try_for_each(|group| filtered.check_all_shown(group))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use super::*;
    use crate::fixtures::{
        NOTARY_KEY, contents, key, ledger_rules, network, notary, parameters_hash, party, reference, signing_key, wire,
    };
    use crate::time::Timestamp;
    use crate::tx::signature::sign;
    use crate::tx::{Component, Contents, NotaryChange, NotaryChangeContents, Shown, SignedTransaction};

    struct Known(LedgerRules);

    impl Parameters for Known {
        fn rules(&self, hash: &SecureHash) -> Option<&LedgerRules> {
            (*hash == parameters_hash()).then_some(&self.0)
        }
    }

    fn needed(shown: Shown<'_>) -> bool {
        !matches!(shown, Shown::Output(_) | Shown::Command(..) | Shown::Attachment(_))
    }

    fn filtered(contents: &Contents) -> NotaryPayload {
        NotaryPayload::Filtered(Box::new(FilteredTransaction::new(&wire(contents), needed).unwrap()))
    }

    fn full(contents: &Contents) -> NotaryPayload {
        let wire = wire(contents);
        let signature = sign(&wire.id(), &signing_key(1), 140).unwrap();
        NotaryPayload::Full(Box::new(SignedTransaction::new(Core::Wire(Arc::new(wire)), vec![signature]).unwrap()))
    }

    fn verdict(payload: NotaryPayload, validating: bool) -> std::result::Result<UniquenessRequest, NotaryError> {
        verdict_with(payload, validating, &ledger_rules())
    }

    fn verdict_with(
        payload: NotaryPayload,
        validating: bool,
        rules: &LedgerRules,
    ) -> std::result::Result<UniquenessRequest, NotaryError> {
        let request = NotaryRequest::sign(payload, &signing_key(1)).unwrap();
        let request = NotaryRequest::decode(&request.encode().unwrap()).unwrap();
        let identity = notary();
        let network = network();
        let service = NotaryService { identity: &identity, validating, network: &network };
        check_request(&request, &key(1), service, &Known(rules.clone()), |_| Ok(()))
    }

    fn code(result: std::result::Result<UniquenessRequest, NotaryError>) -> String {
        match result.unwrap_err() {
            NotaryError::TransactionInvalid { code, .. } => code,
            other => other.exception().to_owned(),
        }
    }

    #[test]
    fn sound_requests_pass() {
        let mut contents = contents();
        contents.references = vec![reference(7)];
        contents.time_window = Some(TimeWindow::until_only(Timestamp::from_nanos(9)));
        for (payload, validating) in [(filtered(&contents), false), (full(&contents), true)] {
            let request = verdict(payload, validating).unwrap();
            assert_eq!(request.inputs, contents.inputs);
            assert_eq!(request.references, contents.references);
            assert_eq!(request.window, contents.time_window);
            assert_eq!(request.id, wire(&contents).id());
        }
    }

    #[test]
    fn each_check_has_its_own_code() {
        let with = |change: fn(&mut Contents)| {
            let mut contents = contents();
            change(&mut contents);
            contents
        };
        let other = with(|c| c.notary = Some(party("Other Notary", 77)));
        assert_eq!(code(verdict(filtered(&other), false)), "notary-other");
        let foreign = with(|c| c.header.network = parameters_hash());
        assert_eq!(code(verdict(filtered(&foreign), false)), "network-wrong");
        let unknown = with(|c| c.parameters = Some(network()));
        assert_eq!(code(verdict(filtered(&unknown), false)), "parameters-unknown");
        let sound = with(|_| ());
        let delisted = LedgerRules { notaries: vec![], ..ledger_rules() };
        assert_eq!(code(verdict_with(filtered(&sound), false, &delisted)), "notary-untrusted");
        assert_eq!(code(verdict(filtered(&sound), true)), "component-not-visible");
        assert_eq!(code(verdict(full(&sound), false)), "tear-off-invalid");
        let hiding = |hidden: fn(&Shown<'_>) -> bool| {
            let mut contents = contents();
            contents.references = vec![reference(7)];
            contents.time_window = Some(TimeWindow::until_only(Timestamp::from_nanos(9)));
            let show = |shown: Shown<'_>| needed(shown) && !hidden(&shown);
            let tear_off = FilteredTransaction::new(&wire(&contents), show).unwrap();
            code(verdict(NotaryPayload::Filtered(Box::new(tear_off)), false))
        };
        assert_eq!(hiding(|shown| matches!(shown, Shown::Input(_))), "component-not-visible");
        assert_eq!(hiding(|shown| matches!(shown, Shown::Reference(_))), "component-not-visible");
        assert_eq!(hiding(|shown| matches!(shown, Shown::TimeWindow(_))), "component-not-visible");
        assert_eq!(hiding(|shown| matches!(shown, Shown::Notary(_))), "notary-other");
        assert_eq!(hiding(|shown| matches!(shown, Shown::Parameters(_))), "parameters-missing");
    }

    /// The hashes of a tear-off can be made by hand, of what no transaction may be.
    #[test]
    fn a_tear_off_names_no_state_twice() {
        let mut contents = contents();
        contents.references = vec![reference(7)];
        let wire = wire(&contents);
        let with = |change: fn(&mut Vec<Component>, &Component), group: Group| {
            let input = wire.group(Group::Inputs)[0].clone();
            let mut groups = wire.groups().to_vec();
            let of_kind = groups.iter_mut().find(|one| one.index == group.index()).unwrap();
            change(&mut of_kind.components, &input);
            let tear_off = FilteredTransaction::of_groups(&groups, wire.salt()).unwrap();
            code(verdict(NotaryPayload::Filtered(Box::new(tear_off)), false))
        };
        let again = |components: &mut Vec<Component>, _: &Component| components.push(components[0].clone());
        assert_eq!(with(again, Group::Inputs), "input-duplicate");
        assert_eq!(with(again, Group::References), "reference-duplicate");
        let the_input = |components: &mut Vec<Component>, input: &Component| components.push(input.clone());
        assert_eq!(with(the_input, Group::References), "reference-is-input");
    }

    #[test]
    fn the_number_of_states_is_bounded() {
        let with = |inputs: u32, references: u32| {
            let mut contents = contents();
            contents.inputs = (0..inputs).map(reference).collect();
            contents.references = (20_000..20_000 + references).map(reference).collect();
            filtered(&contents)
        };
        verdict(with(6000, 3999), false).unwrap();
        assert_eq!(code(verdict(with(6000, 4000), false)), "too-many-states");
    }

    #[test]
    fn a_request_is_its_callers() {
        let identity = notary();
        let network = network();
        let service = NotaryService { identity: &identity, validating: false, network: &network };
        let check = |request: &NotaryRequest, caller: &PublicKey| {
            check_request(request, caller, service, &Known(ledger_rules()), |_| Ok(())).err()
        };
        let request = NotaryRequest::sign(filtered(&contents()), &signing_key(1)).unwrap();
        assert_eq!(check(&request, &key(1)), None);
        let refused = |error| matches!(error, Some(NotaryError::RequestSignatureInvalid { .. }));
        assert!(refused(check(&request, &key(2))));
        let mut other = contents();
        other.inputs = vec![reference(2)];
        let replayed = NotaryRequest { payload: filtered(&other), ..request };
        assert!(refused(check(&replayed, &key(1))));
    }

    #[test]
    fn a_notary_off_the_list_still_gives_its_states_away() {
        let change = NotaryChange::new(NotaryChangeContents {
            header: Header::current(network()),
            inputs: vec![reference(1)],
            notary: notary(),
            new_notary: party("Other Notary", 77),
            parameters: parameters_hash(),
            until: Timestamp::from_nanos(9),
        });
        let core = Core::NotaryChange(Arc::new(change.unwrap()));
        let signature = sign(&core.id(), &signing_key(1), 140).unwrap();
        let payload = NotaryPayload::Full(Box::new(SignedTransaction::new(core, vec![signature]).unwrap()));
        let delisted = LedgerRules { notaries: vec![party("Other Notary", 77)], ..ledger_rules() };
        for validating in [false, true] {
            let request = verdict_with(payload.clone(), validating, &delisted).unwrap();
            assert_eq!(request.window, Some(TimeWindow::until_only(Timestamp::from_nanos(9))));
            let refused = code(verdict_with(payload.clone(), validating, &ledger_rules()));
            assert_eq!(refused, "notary-untrusted", "the new notary is on the list");
        }
        assert_eq!(notary().owning_key, key(NOTARY_KEY));
    }
}
