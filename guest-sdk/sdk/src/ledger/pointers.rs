//! Pointers of states, which the contract SDK has as `LinearPointer` and `StaticPointer`.

use maxhost_contract::{StatePointer, Target};

use super::StateAndRef;
use crate::bindings::maxhost::cordapp::ledger as wit;
use crate::error::Result;
use crate::host;

/// The state that a pointer leads to, as this identity's ledger has it. A linear pointer leads to the newest unconsumed state
/// of the vault, whether it is one's own or not; a static one to its state even if that is consumed. A state that is made with
/// a resolved pointer needs no such call: what it points to becomes a reference of the transaction by itself.
///
/// ```no_run
/// # use maxhost_contract::{LinearId, LinearPointer};
/// # use maxhost_sdk::prelude::*;
/// # use maxhost_sdk::ledger::resolve;
/// # #[maxhost_contract::state(contract = "shares", version = 1)] struct Share { #[linear_id] id: LinearId }
/// # fn newest(id: LinearId) -> Result<()> {
/// let share = resolve(&LinearPointer::<Share>::new(id))?;
/// info!("the newest is {}", share.reference);
/// # Ok(()) }
/// ```
///
/// # Errors
/// `IllegalState` if there is no such state, or the linear one has come to its end.
pub fn resolve<P: StatePointer>(pointer: &P) -> Result<StateAndRef<P::State>> {
    let found = match pointer.target() {
        Target::Static(state) => host::resolve(wit::PointerTarget::OneState(&state.to_string())),
        Target::Linear { id, state_type } => {
            let target = wit::LinearTarget { id: id.as_bytes(), state_type: &state_type };
            host::resolve(wit::PointerTarget::Newest(target))
        }
    };
    StateAndRef::read(found?)
}
