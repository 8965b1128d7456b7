//! The price of each operator, in units of fuel: part of profile 1 (behaviour.md 10.20).

use maxhost_model::SecureHash;
use wasmtime::OperatorCost;

use crate::error::SandboxError;

/// What one byte of a transaction costs: it is copied and decoded.
pub(super) const PER_INPUT_BYTE: u64 = 4;

/// The table of profile 1: one unit an operator, nothing for what generates no code, and more for what takes longer. A
/// test pins all of it, so that no engine changes it unnoticed.
pub(super) fn operator_costs() -> OperatorCost {
    let mut costs = OperatorCost::new();
    for cost in [&mut costs.Call, &mut costs.CallIndirect] {
        *cost = 8;
    }
    for cost in [
        &mut costs.I32DivS,
        &mut costs.I32DivU,
        &mut costs.I32RemS,
        &mut costs.I32RemU,
        &mut costs.I64DivS,
        &mut costs.I64DivU,
        &mut costs.I64RemS,
        &mut costs.I64RemU,
        &mut costs.F32Div,
        &mut costs.F64Div,
        &mut costs.F32Sqrt,
        &mut costs.F64Sqrt,
    ] {
        *cost = 8;
    }
    costs.MemoryGrow = 100;
    costs.variable.memory_copy_per_byte = 1;
    costs.variable.memory_fill_per_byte = 1;
    costs.variable.memory_init_per_byte = 1;
    costs.variable.memory_grow_per_page = 255;
    costs.variable.table_copy_per_element = 1;
    costs.variable.table_fill_per_element = 1;
    costs.variable.table_init_per_element = 1;
    costs.variable.table_grow_per_element = 1;
    costs
}

/// What identifies the prices of all operators: the SHA-256 of their table.
///
/// # Errors
/// The table cannot be written down, which would be a defect.
pub fn operator_cost_hash() -> Result<SecureHash, SandboxError> {
    let table = serde_json::to_string(&operator_costs())
        .map_err(|error| SandboxError::Engine { reason: format!("the prices of operators: {error}"), source: None })?;
    Ok(SecureHash::of(table.as_bytes()))
}
