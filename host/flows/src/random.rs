//! What the system's random generator gives.

use maxhost_model::{Code, ErrorId, FlowId, FlowRow, Problem};

/// Random bytes.
///
/// # Errors
/// The system gives none.
pub(crate) fn random_bytes<const N: usize>() -> Result<[u8; N], Problem> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)
        .map_err(|error| Problem::new(Code::Internal, format!("the system gives no random numbers: {error}")))?;
    Ok(bytes)
}

/// A new flow id for a new row.
///
/// # Errors
/// The system gives no random numbers.
pub(crate) fn new_flow_id(row: FlowRow) -> Result<FlowId, Problem> {
    Ok(FlowId::new(row, u128::from_be_bytes(random_bytes()?)))
}

/// A random error id.
pub(crate) fn new_error_id() -> ErrorId {
    ErrorId(random_bytes().map_or(0, u64::from_be_bytes))
}
