//! The exports of a component, and what a component without a language runtime needs: an allocator, a panic handler, and
//! room for arguments.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::alloc::Layout;

use crate::heap::Heap;
use crate::{
    Attribute, AttributeKind, AttributeValue, CodeDescription, ContractCode, ContractDescription, ContractId, HasKey,
    PublicKey, StateTypeDescription, Target,
};

/// The world `contract-with-pointers` as Rust: written by wit-bindgen.
#[allow(missing_docs, clippy::all)]
pub mod bindings {
    wit_bindgen::generate!({
        path: "../../wit",
        world: "maxhost:cordapp/contract-with-pointers",
        ownership: Borrowing { duplicate_if_necessary: false },
        pub_export_macro: true,
        export_macro_name: "export_contract",
        default_bindings_module: "maxhost_contract::__private::bindings",
    });
}

pub use bindings::{Guest, export_contract};

#[global_allocator]
static ALLOCATOR: Heap = Heap::new();

/// A panic is a trap. There is nobody to tell its text to: a native test of the contract shows it.
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    core::arch::wasm32::unreachable()
}

// The compiler calls `memcmp`, and on this target it is the C library that has it.
#[link(name = "c")]
unsafe extern "C" {}

/// Where the host puts arguments.
///
/// # Safety
/// As the canonical ABI says: `old` is null, or was given by this function with this alignment for `old_length` bytes.
#[unsafe(export_name = "cabi_realloc")]
unsafe extern "C" fn cabi_realloc(old: *mut u8, old_length: usize, alignment: usize, length: usize) -> *mut u8 {
    if length == 0 {
        return core::ptr::without_provenance_mut(alignment);
    }
    // SAFETY: the host gives an alignment that is a power of two and a length within the memory, and hands back only what
    // it was given.
    let place = unsafe {
        if old_length == 0 {
            alloc::alloc::alloc(Layout::from_size_align_unchecked(length, alignment))
        } else {
            alloc::alloc::realloc(old, Layout::from_size_align_unchecked(old_length, alignment), length)
        }
    };
    if place.is_null() {
        core::arch::wasm32::unreachable()
    }
    place
}

/// What is in the code.
#[must_use]
pub fn describe_contract<C: ContractCode>() -> bindings::ContractDescriptor {
    let CodeDescription { name, version, vendor, code_version, no_propagation, contracts } = C::description();
    bindings::ContractDescriptor {
        name: name.to_string(),
        version: version.to_string(),
        vendor: vendor.to_string(),
        code_version,
        no_propagation,
        contracts: contracts.into_iter().map(contract_type).collect(),
    }
}

fn contract_type(given: ContractDescription) -> bindings::ContractType {
    let fault = |word: &crate::FaultWord| bindings::FaultType { code: word.code.into(), about: word.about.into() };
    bindings::ContractType {
        name: given.name.to_string(),
        states: given.states.into_iter().map(state_type).collect(),
        commands: strings(given.commands),
        faults: given.faults.iter().map(fault).collect(),
    }
}

fn state_type(given: StateTypeDescription) -> bindings::StateType {
    let attribute = |given: &Attribute| bindings::AttributeType {
        name: given.name.to_string(),
        kind: match given.kind {
            AttributeKind::Truth => bindings::AttributeKind::Truth,
            AttributeKind::Number => bindings::AttributeKind::Number,
            AttributeKind::Text => bindings::AttributeKind::Text,
            AttributeKind::Bytes => bindings::AttributeKind::Bytes,
            AttributeKind::Time => bindings::AttributeKind::Time,
        },
    };
    bindings::StateType {
        name: given.name.to_string(),
        version: given.version,
        schema: given.schema,
        attributes: given.attributes.iter().map(attribute).collect(),
        times: strings(given.times),
    }
}

fn strings(given: &[&str]) -> Vec<String> {
    given.iter().map(ToString::to_string).collect()
}

fn fault(rejection: &crate::Rejection) -> bindings::Fault {
    bindings::Fault { code: rejection.code().into(), message: rejection.message().into() }
}

/// Judges a transaction.
///
/// # Errors
/// Why it is refused.
pub fn verify<C: ContractCode>(contract: bindings::ContractId, transaction: &[u8]) -> Result<(), bindings::Fault> {
    let contract = ContractId { publisher: contract.publisher.map(PublicKey::from_spki), name: contract.name };
    C::verify(&contract, transaction).map_err(|rejection| fault(&rejection))
}

/// Says what a state is.
///
/// # Errors
/// Why it cannot.
pub fn describe<C: ContractCode>(
    contract: &str,
    state_type: &str,
    state: &[u8],
) -> Result<bindings::Description, bindings::Fault> {
    let given = C::describe(contract, state_type, state).map_err(|rejection| fault(&rejection))?;
    let attribute = |(name, value): (&str, AttributeValue)| bindings::Attribute {
        name: name.to_string(),
        value: match value {
            AttributeValue::Truth(value) => bindings::AttributeValue::Truth(value),
            AttributeValue::Unsigned(value) => bindings::AttributeValue::Unsigned(value),
            AttributeValue::Signed(value) => bindings::AttributeValue::Signed(value),
            AttributeValue::Text(value) => bindings::AttributeValue::Text(value),
            AttributeValue::Bytes(value) => bindings::AttributeValue::Bytes(value),
            AttributeValue::Time(value) => bindings::AttributeValue::Time(value.as_unix_nanos()),
        },
    };
    Ok(bindings::Description {
        participants: given.participants.iter().map(participant).collect(),
        owner: given.owner.as_ref().map(participant),
        linear_id: given.linear_id.map(|id| id.as_bytes().to_vec()),
        external_id: given.external_id,
        amount: given.amount.map(|amount| bindings::FungibleAmount {
            quantity: amount.quantity,
            token: amount.token,
            issuer: amount.issuer.as_ref().map(participant),
        }),
        next_activity: given
            .next_activity
            .map(|activity| bindings::Activity { at: activity.at.as_unix_nanos(), flow: activity.flow }),
        attributes: given.attributes.into_iter().map(attribute).collect(),
    })
}

/// Says what the resolved pointers of a state lead to.
///
/// # Errors
/// Why it cannot.
pub fn pointers<C: ContractCode>(
    contract: &str,
    state_type: &str,
    state: &[u8],
) -> Result<Vec<bindings::PointerTarget>, String> {
    let target = |target: Target| match target {
        Target::Static(state) => bindings::PointerTarget::OneState(state.to_string()),
        Target::Linear { id, state_type } => {
            bindings::PointerTarget::Newest(bindings::LinearTarget { id: id.as_bytes().to_vec(), state_type })
        }
    };
    match C::pointers(contract, state_type, state) {
        Ok(targets) => Ok(targets.into_iter().map(target).collect()),
        Err(rejection) => Err(rejection.message().into()),
    }
}

fn participant(party: &crate::AnyParty) -> bindings::Participant {
    bindings::Participant { key: party.key().spki().to_vec(), name: party.name.clone() }
}
