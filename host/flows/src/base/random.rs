//! What the system's random generator gives.

use maxhost_model::{Code, ErrorId, FlowId, FlowRow, Problem};

/// Random bytes.
///
/// # Errors
/// The system gives none.
pub(crate) fn random_bytes<const N: usize>() -> Result<[u8; N], Problem> {
    let mut bytes = [0; N];
    #[cfg(test)]
    if drawn::fill(&mut bytes) {
        return Ok(bytes);
    }
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

/// Random bytes that are drawn from a seed, for simulations: the same again whenever the seed is.
#[cfg(test)]
pub(crate) mod drawn {
    use std::cell::RefCell;

    type Source = Box<dyn Fn() -> u64>;

    thread_local! {
        static SOURCE: RefCell<Option<Source>> = const { RefCell::new(None) };
    }

    /// From now on this thread draws from here; `None`: from the system.
    pub fn from(source: Option<Source>) {
        SOURCE.replace(source);
    }

    /// False if this thread draws from the system.
    pub fn fill(bytes: &mut [u8]) -> bool {
        SOURCE.with_borrow(|source| {
            let Some(source) = source else { return false };
            for part in bytes.chunks_mut(8) {
                part.copy_from_slice(&source().to_be_bytes()[..part.len()]);
            }
            true
        })
    }
}
