//! Tests of whole transactions: structure, encoding, signatures, changes of notary.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::sync::Arc;

use proptest::prelude::*;

use super::component::{Component, ComponentGroup, Group};
use super::*;
use crate::fixtures::{
    NOTARY_KEY, command, contents, key, network, notary, parameters_hash, party, reference, salt, signing_key, state,
    wire,
};
use crate::rules::Rule;
use crate::time::{TimeWindow, Timestamp};

fn rule(change: impl FnOnce(&mut Contents)) -> Rule {
    let mut contents = contents();
    change(&mut contents);
    WireTransaction::new(&contents, salt()).unwrap_err().rule()
}

#[test]
fn each_rule_of_structure_has_its_own_code() {
    wire(&contents());
    let window = TimeWindow::until_only(Timestamp::from_nanos(5));
    assert_eq!(
        rule(|c| {
            c.inputs.clear();
            c.outputs.clear();
        }),
        Rule::NothingDone
    );
    assert_eq!(rule(|c| c.commands.clear()), Rule::CommandMissing);
    assert_eq!(rule(|c| c.commands.push(command(&[]))), Rule::SignerMissing);
    assert_eq!(rule(|c| c.notary = None), Rule::NotaryMissing);
    assert_eq!(
        rule(|c| {
            c.inputs.clear();
            c.notary = None;
            c.references = vec![reference(1)];
        }),
        Rule::NotaryMissing
    );
    assert_eq!(
        rule(|c| {
            c.inputs.clear();
            c.notary = None;
            c.time_window = Some(window);
        }),
        Rule::NotaryMissing
    );
    assert_eq!(rule(|c| c.parameters = None), Rule::ParametersMissing);
    assert_eq!(rule(|c| c.inputs = vec![reference(1), reference(2), reference(1)]), Rule::InputDuplicate);
    assert_eq!(rule(|c| c.references = vec![reference(2), reference(2)]), Rule::ReferenceDuplicate);
    assert_eq!(rule(|c| c.references = vec![reference(1)]), Rule::ReferenceIsInput);
    assert_eq!(rule(|c| c.attachments = vec![network(), network()]), Rule::AttachmentDuplicate);
    assert_eq!(rule(|c| c.header.ledger = 2), Rule::HeaderUnsupported);
    assert_eq!(rule(|c| c.header.digest = "MD5".to_owned()), Rule::HashUnsupported);
}

#[test]
fn what_was_read_before_is_read_again_by_its_id() {
    let mut contents = contents();
    contents.references = vec![reference(7)];
    contents.time_window = Some(TimeWindow::until_only(Timestamp::from_nanos(9)));
    let wire = wire(&contents);
    let bytes = wire.encode().unwrap();
    let again = WireTransaction::decode_known(&wire.id(), &bytes).unwrap();
    assert_eq!((again.id(), again.contents(), again.groups()), (wire.id(), wire.contents(), wire.groups()));
    assert_eq!((again.encode().unwrap(), again.group_roots()), (bytes.clone(), wire.group_roots()));
    let other = WireTransaction::decode_known(&network(), &bytes).unwrap_err();
    assert_eq!((other.rule(), other.transaction()), (Rule::MerkleMismatch, Some(network())));
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        if let Ok(read) = WireTransaction::decode_known(&wire.id(), &changed) {
            assert_eq!((at, read.contents()), (at, wire.contents()), "whatever has the id says the same");
        }
    }
    assert!(WireTransaction::decode_known(&wire.id(), &bytes[1..]).is_err());
}

#[test]
fn a_transaction_has_the_same_bytes_however_often_and_in_whichever_way_it_got_them() {
    let wire = wire(&contents());
    let bytes = wire.encode().unwrap();
    let read = WireTransaction::decode(&bytes).unwrap();
    let built = WireTransaction::from_groups(read.groups().to_vec(), salt()).unwrap();
    for one in [&wire, &read, &read.clone(), &built] {
        assert_eq!((one.encode().unwrap(), one.encode().unwrap()), (bytes.clone(), bytes.clone()));
    }
}

fn with_groups(change: impl FnOnce(&mut Vec<ComponentGroup>)) -> crate::Result<WireTransaction> {
    let mut groups = wire(&contents()).groups().to_vec();
    change(&mut groups);
    WireTransaction::from_groups(groups, salt())
}

fn group_mut(groups: &mut [ComponentGroup], group: Group) -> &mut ComponentGroup {
    groups.iter_mut().find(|present| present.index == group.index()).unwrap()
}

#[test]
fn groups_are_read_strictly() {
    let rule = |change: fn(&mut Vec<ComponentGroup>)| with_groups(change).unwrap_err().rule();
    assert_eq!(rule(|g| g.retain(|group| group.index != Group::Header.index())), Rule::HeaderMissing);
    assert_eq!(rule(|g| group_mut(g, Group::Signers).components.clear()), Rule::GroupEmpty);
    assert_eq!(rule(|g| g.retain(|group| group.index != Group::Signers.index())), Rule::SignersMismatch);
    let double = |group: Group| {
        with_groups(|g| {
            let group = group_mut(g, group);
            let first = group.components[0].clone();
            group.components.push(first);
        })
        .unwrap_err()
        .rule()
    };
    assert_eq!(double(Group::Header), Rule::HeaderMissing);
    assert_eq!(double(Group::Notary), Rule::NotaryDuplicate);
    assert_eq!(double(Group::Parameters), Rule::ParametersDuplicate);
    assert_eq!(double(Group::Commands), Rule::SignersMismatch);
    assert_eq!(double(Group::Inputs), Rule::InputDuplicate);
    // An index written in two bytes instead of one: the same reference, but not its only form.
    let loose = with_groups(|g| {
        let input = group_mut(g, Group::Inputs);
        let mut bytes = input.components[0].bytes().to_vec();
        assert_eq!(bytes.pop(), Some(0));
        bytes.extend([0x18, 0]);
        input.components[0] = Component::new(bytes);
    });
    let refused = loose.unwrap_err();
    assert_eq!(refused.rule(), Rule::NotCanonical);
    assert_eq!(refused.details().get("index").map(String::as_str), Some("0"));
    assert!(refused.transaction().is_some());
    let wrong = with_groups(|g| group_mut(g, Group::Inputs).components[0] = Component::new(vec![1]));
    assert_eq!(wrong.unwrap_err().rule(), Rule::ComponentInvalid);
}

#[test]
fn an_unknown_group_is_kept_and_hashed() {
    let base = wire(&contents());
    let extended = with_groups(|g| g.push(ComponentGroup { index: 40, components: vec![Component::new(vec![0xff])] }));
    let extended = extended.unwrap();
    assert_ne!(extended.id(), base.id());
    let back = WireTransaction::decode(&extended.encode().unwrap()).unwrap();
    assert_eq!(back.id(), extended.id());
    assert_eq!(back.groups(), extended.groups());
    // The order of groups in the message changes nothing.
    assert_eq!(with_groups(|g| g.reverse()).unwrap().id(), base.id());
}

#[test]
fn parties_sign_for_commands_and_a_notary_is_needed_besides() {
    let mut issue = contents();
    issue.inputs.clear();
    assert_eq!(wire(&issue).party_keys(), [key(1)].into());
    assert!(!wire(&issue).needs_notary());
    issue.time_window = Some(TimeWindow::until_only(Timestamp::from_nanos(5)));
    assert_eq!(wire(&issue).party_keys(), [key(1)].into());
    assert!(wire(&issue).needs_notary());
}

#[test]
fn a_header_tells_networks_apart() {
    let transaction = wire(&contents());
    transaction.contents().header.check_network(&network()).unwrap();
    let refused = transaction.contents().header.check_network(&parameters_hash()).unwrap_err();
    assert_eq!(refused.rule(), Rule::NetworkWrong);
}

fn signed(keys: &[u8]) -> SignedTransaction {
    let transaction = wire(&contents());
    let id = transaction.id();
    let sign = |byte: &u8| signature::sign(&id, &signing_key(*byte), 140).unwrap();
    SignedTransaction::new(Core::Wire(Arc::new(transaction)), keys.iter().map(sign).collect()).unwrap()
}

#[test]
fn missing_signatures_are_told_before_invalid_ones() {
    let required: BTreeSet<_> = [key(1), key(2)].into();
    signed(&[1, 2]).verify_signatures(&required).unwrap();
    let refused = signed(&[1]).verify_signatures(&required).unwrap_err();
    assert_eq!(refused.rule(), Rule::SignatureMissing);
    assert_eq!(refused.details()["keys"], key(2).to_string());
    signed(&[1]).verify_signatures(&wire(&contents()).party_keys()).unwrap();

    let mut other = contents();
    other.outputs.push(state(2));
    let foreign = signature::sign(&wire(&other).id(), &signing_key(1), 140).unwrap();
    let forged = SignedTransaction::new(signed(&[1]).core().clone(), vec![foreign]).unwrap();
    assert_eq!(forged.verify_signatures(&required).unwrap_err().rule(), Rule::SignatureMissing);
    assert_eq!(forged.verify_signatures(&[key(1)].into()).unwrap_err().rule(), Rule::SignatureInvalid);
    // A signature that nobody asked for must verify too.
    let more = signed(&[1, 2]).plus(forged.signatures().to_vec()).unwrap();
    assert_eq!(more.verify_signatures(&required).unwrap_err().rule(), Rule::SignatureInvalid);
}

#[test]
fn signed_transactions_travel_and_add_up() {
    let one = signed(&[1]);
    let back = SignedTransaction::decode(&one.encode().unwrap()).unwrap();
    assert_eq!(back, one);
    let both = one.plus(signed(&[1, NOTARY_KEY]).signatures().to_vec()).unwrap();
    assert_eq!(both, signed(&[1, NOTARY_KEY]));
    assert_ne!(both, one);
    let none = SignedTransaction::new(one.core().clone(), vec![]).unwrap_err();
    assert_eq!(none.rule(), Rule::NothingSigned);
    let many = vec![one.signatures()[0].clone(); signed::MAX_SIGNATURES + 1];
    assert_eq!(SignedTransaction::new(one.core().clone(), many).unwrap_err().rule(), Rule::SignaturesTooMany);
}

fn change(inputs: Vec<StateRef>, new_notary: maxhost_model::Party) -> crate::Result<NotaryChange> {
    NotaryChange::new(NotaryChangeContents {
        header: Header::current(network()),
        inputs,
        notary: notary(),
        new_notary,
        parameters: parameters_hash(),
        until: Timestamp::from_nanos(9),
    })
}

#[test]
fn a_change_of_notary_moves_states_and_changes_nothing_else() {
    let other = party("Other Notary", 77);
    let tx = reference(1).tx;
    let input = |index, encumbrance| StateAndRef {
        state: TransactionState { encumbrance, ..state(index) },
        reference: StateRef::new(tx, index),
    };
    // Outputs 3 and 5 encumber each other; as inputs they stand at 1 and 0.
    let inputs = [input(5, Some(3)), input(3, Some(5))];
    let moved = change(inputs.iter().map(|input| input.reference).collect(), other.clone()).unwrap();
    let outputs = moved.outputs(&inputs).unwrap();
    assert_eq!(outputs[0].encumbrance, Some(1));
    assert_eq!(outputs[1].encumbrance, Some(0));
    assert!(outputs.iter().all(|output| output.notary.name == other.name));
    assert_eq!(outputs[0].data, inputs[0].state.data);
    encumbrance::check_outputs(&outputs).unwrap();
    assert_eq!(NotaryChange::decode(&moved.encode().unwrap()).unwrap().id(), moved.id());
    assert_eq!(moved.required_keys([key(1)]), [key(1), key(NOTARY_KEY)].into());
    moved.check_new_notary([&notary(), &other]).unwrap();
    assert_eq!(moved.check_new_notary([&notary()]).unwrap_err().rule(), Rule::NotaryUntrusted);

    moved.check_old_notary(&inputs, [&notary(), &other]).unwrap();
    moved.check_old_notary(&inputs, [&other]).unwrap();

    let half = change(vec![inputs[0].reference], other.clone()).unwrap();
    assert_eq!(half.outputs(&inputs[..1]).unwrap_err().rule(), Rule::EncumbranceInputMissing);
    assert_eq!(moved.outputs(&inputs[..1]).unwrap_err().rule(), Rule::StateUnknown);
    assert_eq!(change(vec![], other.clone()).unwrap_err().rule(), Rule::NotaryChangeInvalid);
    assert_eq!(change(vec![reference(1); 2], other).unwrap_err().rule(), Rule::NotaryChangeInvalid);
    assert_eq!(change(vec![reference(1)], notary()).unwrap_err().rule(), Rule::NotaryUnchanged);
}

/// Whose signature counts as the old notary's is not for the change to say.
#[test]
fn the_old_notary_has_the_key_that_the_network_or_the_states_know() {
    let (other, rotated) = (party("Other Notary", 77), party("Notary", 99));
    let input = StateAndRef { state: state(1), reference: reference(1) };
    let naming = |notary: &maxhost_model::Party| {
        let contents = change(vec![input.reference], other.clone()).unwrap().contents().clone();
        NotaryChange::new(NotaryChangeContents { notary: notary.clone(), ..contents }).unwrap()
    };
    let outcome = |named: &maxhost_model::Party, listed: &[maxhost_model::Party]| {
        naming(named).check_old_notary(std::slice::from_ref(&input), listed).map_err(|refused| refused.rule())
    };
    assert_eq!(outcome(&notary(), &[notary(), other.clone()]), Ok(()));
    assert_eq!(outcome(&notary(), std::slice::from_ref(&other)), Ok(()), "off the list it still gives its states away");
    assert_eq!(outcome(&rotated, &[rotated.clone(), other.clone()]), Ok(()), "its key was rotated");
    let forged = Err(Rule::NotaryMismatch);
    assert_eq!(outcome(&rotated, &[notary(), other.clone()]), forged);
    assert_eq!(outcome(&rotated, std::slice::from_ref(&other)), forged);
    assert_eq!(outcome(&notary(), &[rotated.clone(), other.clone()]), forged, "the key that it had before");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Any byte of a transaction that travels, changed: it is refused, or is another transaction.
    #[test]
    fn a_changed_byte_is_noticed(at in any::<prop::sample::Index>(), bit in 0_u8..8) {
        let transaction = wire(&contents());
        let mut bytes = transaction.encode().unwrap();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        if let Ok(other) = WireTransaction::decode(&bytes) {
            prop_assert_ne!(other.id(), transaction.id());
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = WireTransaction::decode(&bytes);
        let _ = SignedTransaction::decode(&bytes);
        let _ = NotaryChange::decode(&bytes);
    }

    /// Bytes cut off anywhere are refused.
    #[test]
    fn a_beginning_is_refused(at in any::<prop::sample::Index>()) {
        let bytes = signed(&[1]).encode().unwrap();
        prop_assert!(SignedTransaction::decode(&bytes[..at.index(bytes.len())]).is_err());
    }

    /// Whatever decodes encodes to the same bytes.
    #[test]
    fn what_travels_has_one_form(count in 0_usize..4, window in proptest::option::of(1_u64..1000), references in 0_u32..3) {
        let mut contents = contents();
        contents.outputs = (0..count as u32).map(state).collect();
        contents.references = (10..10 + references).map(reference).collect();
        contents.time_window = window.map(|until| TimeWindow::until_only(Timestamp::from_nanos(until)));
        let transaction = wire(&contents);
        prop_assert_eq!(transaction.contents(), &contents);
        let bytes = transaction.encode().unwrap();
        let back = WireTransaction::decode(&bytes).unwrap();
        prop_assert_eq!(back.id(), transaction.id());
        prop_assert_eq!(back.encode().unwrap(), bytes);
    }
}
