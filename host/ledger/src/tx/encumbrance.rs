//! Encumbrance: states that can only be spent together (behaviour.md 10.14).

use std::collections::{BTreeMap, BTreeSet};

use super::state::{StateAndRef, StateRef, TransactionState};
use crate::refused::{Refused, Result};
use crate::rules::Rule;

/// Checks that each encumbered input is spent together with the input that encumbers it.
///
/// # Errors
/// [`Rule::EncumbranceInputMissing`].
pub fn check_inputs(inputs: &[StateAndRef]) -> Result<()> {
    let spent: BTreeSet<StateRef> = inputs.iter().map(|input| input.reference).collect();
    for input in inputs {
        let Some(index) = input.state.encumbrance else { continue };
        let encumbering = StateRef::new(input.reference.tx, index);
        if !spent.contains(&encumbering) {
            let message = format!("the input {} is encumbered by {encumbering}, which is no input", input.reference);
            return Err(Refused::new(Rule::EncumbranceInputMissing, message)
                .detail("state", input.reference)
                .detail("index", index));
        }
    }
    Ok(())
}

/// Checks that encumbered outputs form closed circles, each with one notary.
///
/// # Errors
/// [`Rule::EncumbranceOutputMissing`], [`Rule::EncumbranceDuplicate`], [`Rule::EncumbranceNotCyclic`],
/// [`Rule::EncumbranceNotary`], in this order.
pub fn check_outputs(outputs: &[TransactionState]) -> Result<()> {
    let links = links(outputs)?;
    let mut encumbering = BTreeSet::new();
    for to in links.values() {
        if !encumbering.insert(*to) {
            let message = format!("output {to} encumbers two others");
            return Err(Refused::new(Rule::EncumbranceDuplicate, message).detail("index", to));
        }
    }
    let encumbered: BTreeSet<u32> = links.keys().copied().collect();
    let loose: Vec<String> = encumbered.symmetric_difference(&encumbering).map(u32::to_string).collect();
    if !loose.is_empty() {
        let message = format!("outputs {} are encumbered or encumber, but not both", loose.join(", "));
        return Err(Refused::new(Rule::EncumbranceNotCyclic, message).detail("indices", loose.join(",")));
    }
    for (from, to) in &links {
        let notary = |index: &u32| outputs.get(*index as usize).map(|output| &output.notary);
        if let (Some(one), Some(other)) = (notary(from), notary(to))
            && one != other
        {
            let message = format!("output {from} is kept by {one}, and output {to}, which encumbers it, by {other}");
            return Err(Refused::new(Rule::EncumbranceNotary, message).detail("index", from).detail("encumbrance", to));
        }
    }
    Ok(())
}

/// Which output is encumbered by which.
fn links(outputs: &[TransactionState]) -> Result<BTreeMap<u32, u32>> {
    let mut links = BTreeMap::new();
    for (from, output) in (0_u32..).zip(outputs) {
        let Some(to) = output.encumbrance else { continue };
        if to == from || to as usize >= outputs.len() {
            let message = format!("output {from} is encumbered by output {to}, which is itself or not there");
            return Err(Refused::new(Rule::EncumbranceOutputMissing, message).detail("index", to));
        }
        links.insert(from, to);
    }
    Ok(links)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;
    use crate::fixtures::{party, reference, state};

    fn outputs(count: u32, links: &[(u32, u32)]) -> Vec<TransactionState> {
        let links: BTreeMap<u32, u32> = links.iter().copied().collect();
        (0..count).map(|i| TransactionState { encumbrance: links.get(&i).copied(), ..state(i) }).collect()
    }

    fn verdict(count: u32, links: &[(u32, u32)]) -> Option<(Rule, String)> {
        let refused = check_outputs(&outputs(count, links)).err()?;
        let details = refused.details();
        Some((refused.rule(), details.get("indices").or(details.get("index")).cloned().unwrap()))
    }

    #[test]
    fn outputs_form_closed_circles() {
        assert_eq!(verdict(2, &[]), None);
        assert_eq!(verdict(2, &[(0, 1), (1, 0)]), None);
        assert_eq!(verdict(4, &[(0, 1), (1, 2), (2, 3), (3, 0)]), None);
        assert_eq!(verdict(6, &[(0, 3), (1, 4), (2, 5), (3, 0), (4, 1), (5, 2)]), None);
        let refused = |rule, indices: &str| Some((rule, indices.to_owned()));
        assert_eq!(verdict(2, &[(0, 1)]), refused(Rule::EncumbranceNotCyclic, "0,1"));
        assert_eq!(verdict(4, &[(0, 1), (1, 3), (2, 3)]), refused(Rule::EncumbranceDuplicate, "3"));
        assert_eq!(verdict(4, &[(0, 1), (1, 3), (2, 0)]), refused(Rule::EncumbranceNotCyclic, "2,3"));
        assert_eq!(verdict(4, &[(0, 2), (2, 0), (1, 3)]), refused(Rule::EncumbranceNotCyclic, "1,3"));
        assert_eq!(verdict(1, &[(0, 0)]), refused(Rule::EncumbranceOutputMissing, "0"));
        assert_eq!(verdict(2, &[(0, 2)]), refused(Rule::EncumbranceOutputMissing, "2"));
    }

    #[test]
    fn a_circle_has_one_notary() {
        let mut outputs = outputs(2, &[(0, 1), (1, 0)]);
        outputs[1].notary = party("Other Notary", 77);
        assert_eq!(check_outputs(&outputs).unwrap_err().rule(), Rule::EncumbranceNotary);
    }

    #[test]
    fn encumbered_inputs_come_with_what_encumbers_them() {
        let input = |index, encumbrance| StateAndRef {
            state: TransactionState { encumbrance, ..state(index) },
            reference: StateRef::new(reference(1).tx, index),
        };
        check_inputs(&[input(0, Some(1)), input(1, Some(0))]).unwrap();
        assert_eq!(check_inputs(&[input(0, Some(1))]).unwrap_err().rule(), Rule::EncumbranceInputMissing);
    }

    proptest! {
        #[test]
        fn permutations_without_fixed_points_are_taken_and_nothing_else(links in proptest::collection::vec(proptest::option::of(0_u32..6), 6)) {
            let pairs: Vec<(u32, u32)> = (0_u32..).zip(&links).filter_map(|(i, to)| Some((i, (*to)?))).collect();
            let from: BTreeSet<u32> = pairs.iter().map(|(from, _)| *from).collect();
            let to: BTreeSet<u32> = pairs.iter().map(|(_, to)| *to).collect();
            let sound = from == to && to.len() == pairs.len() && pairs.iter().all(|(from, to)| from != to);
            prop_assert_eq!(verdict(6, &pairs).is_none(), sound);
        }
    }
}
