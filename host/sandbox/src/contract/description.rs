//! From what a contract says of a state to what the vault keeps.

use std::collections::BTreeMap;

use maxhost_ledger::time::Timestamp;
use maxhost_ledger::tx::builder::{MAX_POINTED, Pointer};
use maxhost_ledger::vault::description::{Activity, FungibleAmount, Participant, StateDescription};
use maxhost_ledger::vault::query::{MAX_FIELD_BYTES, Value};
use maxhost_model::PublicKey;
use maxhost_model::text::is_storable;

use super::bindings;
use super::bindings::pointers::PointerTarget;
use super::descriptor::{AttributeKind, StateType};
use super::verdict::ContractFault;

/// The longest external id, token or name of a flow, bytes.
const MAX_TEXT: usize = 512;
/// Quantities fit 63 bits, so that every database can hold them.
const MAX_QUANTITY: u64 = i64::MAX as u64;

/// Checks a description against its type.
///
/// # Errors
/// The fault `describe/malformed`, with what is wrong.
pub(super) fn description(given: bindings::Description, of: &StateType) -> Result<StateDescription, ContractFault> {
    let amount = given.amount.map(amount).transpose()?;
    let linear_id = given.linear_id.map(<[u8; 16]>::try_from).transpose();
    Ok(StateDescription {
        participants: given.participants.into_iter().map(participant).collect::<Result<_, _>>()?,
        owner: given.owner.map(participant).transpose()?,
        linear_id: linear_id.map_err(|_| malformed("a linear id has 16 bytes"))?,
        external_id: given.external_id.map(|id| text("an external id", id)).transpose()?,
        amount,
        next_activity: given.next_activity.map(activity).transpose()?,
        attributes: attributes(given.attributes, of)?,
    })
}

/// Checks what pointers lead to.
///
/// # Errors
/// The fault `describe/malformed`, with what is wrong.
pub(super) fn pointers(given: Vec<PointerTarget>) -> Result<Vec<Pointer>, ContractFault> {
    if given.len() > MAX_POINTED {
        return Err(malformed(format!("a state points to more than {MAX_POINTED} others")));
    }
    let pointer = |target: PointerTarget| match target {
        PointerTarget::OneState(reference) => {
            reference.parse().map(Pointer::Static).map_err(|refused| malformed(refused.message()))
        }
        PointerTarget::Newest(linear) => Ok(Pointer::Linear {
            id: linear.id.try_into().map_err(|_| malformed("a linear id has 16 bytes"))?,
            qualified_type: text("a type of states", linear.state_type)?,
        }),
    };
    given.into_iter().map(pointer).collect()
}

fn malformed(what: impl Into<String>) -> ContractFault {
    ContractFault { code: "describe/malformed".to_owned(), message: what.into() }
}

fn text(what: &str, text: String) -> Result<String, ContractFault> {
    if !is_storable(&text) {
        return Err(malformed(format!("{what} has a NUL character")));
    }
    match text.len() <= MAX_TEXT {
        true => Ok(text),
        false => Err(malformed(format!("{what} has more than {MAX_TEXT} bytes"))),
    }
}

fn participant(given: bindings::Participant) -> Result<Participant, ContractFault> {
    let key = PublicKey::from_spki(&given.key).map_err(|error| malformed(format!("a participant: {error}")))?;
    let name = given.name.map(|name| name.parse()).transpose();
    Ok(Participant { key, name: name.map_err(|error| malformed(format!("a participant: {error}")))? })
}

fn amount(given: bindings::FungibleAmount) -> Result<FungibleAmount, ContractFault> {
    if given.quantity > MAX_QUANTITY {
        return Err(malformed("a quantity fits 63 bits"));
    }
    Ok(FungibleAmount {
        quantity: given.quantity,
        token: text("a token", given.token)?,
        issuer: given.issuer.map(participant).transpose()?,
    })
}

fn activity(given: bindings::Activity) -> Result<Activity, ContractFault> {
    let at = Timestamp::try_from(given.at).map_err(|error| malformed(error.message()))?;
    Ok(Activity { at, flow: text("the name of a flow", given.flow)? })
}

fn attributes(given: Vec<bindings::Attribute>, of: &StateType) -> Result<BTreeMap<String, Value>, ContractFault> {
    let mut found = BTreeMap::new();
    for attribute in given {
        let Some(declared) = of.attributes.iter().find(|declared| declared.name == attribute.name) else {
            return Err(malformed(format!("the type {} declares no attribute '{}'", of.name, attribute.name)));
        };
        let (kind, value) = value(attribute.value)?;
        if kind != declared.kind {
            return Err(malformed(format!("the attribute '{}' is declared as another kind", attribute.name)));
        }
        if found.insert(attribute.name, value).is_some() {
            return Err(malformed(format!("the attribute '{}' is given twice", declared.name)));
        }
    }
    Ok(found)
}

fn value(given: bindings::AttributeValue) -> Result<(AttributeKind, Value), ContractFault> {
    let long = |length: usize| length > MAX_FIELD_BYTES;
    let value = match given {
        bindings::AttributeValue::Truth(value) => (AttributeKind::Truth, Value::Bool(value)),
        bindings::AttributeValue::Unsigned(value) => (AttributeKind::Number, Value::Number(value.into())),
        bindings::AttributeValue::Signed(value) => (AttributeKind::Number, Value::Number(value.into())),
        bindings::AttributeValue::Text(value) if long(value.len()) => (AttributeKind::Text, Value::Null),
        bindings::AttributeValue::Text(value) => (AttributeKind::Text, Value::Text(value)),
        bindings::AttributeValue::Bytes(value) if long(value.len()) => (AttributeKind::Bytes, Value::Null),
        bindings::AttributeValue::Bytes(value) => (AttributeKind::Bytes, Value::Bytes(value)),
        bindings::AttributeValue::Time(value) => {
            let time = Timestamp::try_from(value).map_err(|error| malformed(error.message()))?;
            (AttributeKind::Time, Value::Time(time))
        }
    };
    Ok(value)
}

#[cfg(test)]
mod tests {
    use maxhost_ledger::tx::StateRef;
    use maxhost_model::SecureHash;

    use super::super::bindings::pointers::LinearTarget;
    use super::*;

    #[test]
    fn pointers_lead_to_what_can_be_and_to_not_too_many() {
        let one = |text: &str| PointerTarget::OneState(text.to_owned());
        let newest = |bytes: usize| {
            let id = vec![7; bytes];
            PointerTarget::Newest(LinearTarget { id, state_type: "iou/Iou".to_owned() })
        };
        let reference = format!("{}:3", "ab".repeat(32));
        let linear = Pointer::Linear { id: [7; 16], qualified_type: "iou/Iou".to_owned() };
        let fixed = Pointer::Static(StateRef::new(SecureHash::from_bytes([0xab; 32]), 3));
        assert_eq!(pointers(vec![newest(16), one(&reference)]), Ok(vec![linear, fixed]));
        let many = (0..=MAX_POINTED).map(|_| newest(16)).collect();
        for wrong in [vec![newest(15)], vec![one("abc")], vec![one("")], many] {
            assert_eq!(pointers(wrong).map_err(|fault| fault.code), Err("describe/malformed".to_owned()));
        }
    }

    #[test]
    fn texts_are_short_and_have_no_nul() {
        assert_eq!(text("a token", "x".repeat(MAX_TEXT)).map(|text| text.len()), Ok(MAX_TEXT));
        for wrong in ["x".repeat(MAX_TEXT + 1), "a\0b".to_owned()] {
            assert_eq!(text("a token", wrong).map_err(|fault| fault.code), Err("describe/malformed".to_owned()));
        }
    }
}
