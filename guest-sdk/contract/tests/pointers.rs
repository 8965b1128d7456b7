//! Pointers of states.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeMap;

use maxhost_contract::prelude::*;
use maxhost_contract::{Hash, StatePointer, Target, decode, encode};

/// What is pointed to.
#[state(contract = "shares", version = 1)]
struct Share {
    #[linear_id]
    id: LinearId,
}

#[data]
enum Leg {
    Nothing,
    Of(LinearPointer<Share>, u8),
    Both { old: StaticPointer<Share>, new: Option<LinearPointer<Share>> },
}

#[state(contract = "shares", version = 1)]
struct Bundle {
    first: LinearPointer<Share>,
    legs: Vec<Leg>,
    named: BTreeMap<String, StaticPointer<Share>>,
    own: Option<LinearPointer<Bundle>>,
}

fn id(number: u8) -> LinearId {
    LinearId::from_bytes([number; 16])
}

fn at(index: u32) -> StateRef {
    StateRef { tx: Hash([7; 32]), index }
}

#[test]
fn resolved_pointers_are_found_wherever_they_are() {
    let named = [("a", StaticPointer::new(at(6))), ("b", StaticPointer::resolved(at(7)))];
    let bundle = Bundle {
        first: LinearPointer::new(id(1)),
        legs: vec![
            Leg::Nothing,
            Leg::Of(LinearPointer::new(id(2)), 3),
            Leg::Both { old: StaticPointer::resolved(at(4)), new: Some(LinearPointer::unresolved(id(5))) },
        ],
        named: named.map(|(name, pointer)| (name.to_owned(), pointer)).into(),
        own: None,
    };
    let linear = |number| Target::Linear { id: id(number), state_type: "shares/Share".to_owned() };
    assert_eq!(bundle.pointers(), [linear(1), linear(2), Target::Static(at(4)), Target::Static(at(7))]);
    assert!(Bundle::schema().starts_with("first: linear-pointer to shares/Share\n"), "{}", Bundle::schema());
    assert!(Bundle::schema().ends_with("own: optional linear-pointer to shares/Bundle\n"), "{}", Bundle::schema());
    assert!(Share { id: id(1) }.pointers().is_empty());
    assert_eq!(decode::<Bundle>(&encode(&bundle).unwrap()).unwrap(), bundle);
}

#[test]
fn a_pointer_knows_what_it_points_to() {
    let (linear, fixed) = (LinearPointer::<Share>::new(id(1)), StaticPointer::<Share>::new(at(1)));
    assert!(linear.points_to(&at(9), &Share { id: id(1) }) && !linear.points_to(&at(9), &Share { id: id(2) }));
    assert!(fixed.points_to(&at(1), &Share { id: id(9) }) && !fixed.points_to(&at(2), &Share { id: id(9) }));
    assert_eq!((linear.id(), fixed.reference()), (id(1), at(1)));
    assert_ne!(linear, LinearPointer::unresolved(id(1)));
}

#[test]
fn references_have_one_text() {
    let text = at(12).to_string();
    assert_eq!(text.parse(), Ok(at(12)));
    for bad in ["", ":1", &text[1..], &text.replace(":12", ":+12"), &text.replace(":12", ":"), &text.replace('7', "G")]
    {
        assert!(bad.parse::<StateRef>().is_err(), "{bad}");
    }
}
