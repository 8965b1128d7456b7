//! Pointers: fields of a state that say which other state it goes with.
//!
//! When a transaction is built that makes a state with a resolved pointer, the state that it points to becomes a reference of
//! the transaction, and so do those that that one points to. A contract reads them with [`Tx::resolve`](crate::Tx::resolve).

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::marker::PhantomData;

use serde::{Deserialize, Serialize};

use crate::{DataType, LinearId, State, StateRef};

/// What a pointer leads to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// This state and no other, whether it is consumed or not.
    Static(StateRef),
    /// The newest state of this linear id that is not consumed.
    Linear {
        /// The linear id.
        id: LinearId,
        /// The contract and type, as `iou/Iou`.
        state_type: String,
    },
}

/// A pointer to a state of a type.
pub trait StatePointer {
    /// The type of the state.
    type State: State;

    /// What it leads to.
    fn target(&self) -> Target;

    /// Whether it points to this state.
    fn points_to(&self, reference: &StateRef, state: &Self::State) -> bool;
}

/// Points to one state, whether it is consumed or not.
#[derive(Serialize, Deserialize)]
#[serde(bound = "", deny_unknown_fields)]
pub struct StaticPointer<S> {
    #[serde(rename = "ref")]
    reference: StateRef,
    resolved: bool,
    #[serde(skip)]
    state: PhantomData<fn() -> S>,
}

/// Points to the newest unconsumed state of a linear id.
///
/// ```
/// # use maxhost_contract::prelude::*;
/// /// What instalments are paid by.
/// #[state(contract = "plan", version = 1)]
/// pub struct Terms {
///     #[linear_id]
///     pub id: LinearId,
///     pub most: u64,
/// }
///
/// #[state(contract = "plan", version = 1)]
/// pub struct Instalment {
///     #[owner]
///     pub payer: Party,
///     pub quantity: u64,
///     pub terms: LinearPointer<Terms>,
/// }
/// # #[commands] pub enum Command { Pay }
/// # #[faults] pub enum Fault { /** More than the terms allow. */ TooMuch }
/// # pub struct PlanContract;
///
/// #[contract(name = "plan", states = [Terms, Instalment], commands = Command, faults = Fault)]
/// impl PlanContract {
///     #[on(Command::Pay)]
///     fn pay(tx: &Tx<'_>) -> Verdict {
///         let instalment = tx.outputs::<Instalment>()?.only()?;
///         let terms = tx.resolve(&instalment.terms)?;
///         ensure!(instalment.quantity <= terms.most, Fault::TooMuch);
///         tx.signed_by([&instalment.payer])
///     }
/// }
/// ```
#[derive(Serialize, Deserialize)]
#[serde(bound = "", deny_unknown_fields)]
pub struct LinearPointer<S> {
    id: LinearId,
    resolved: bool,
    #[serde(skip)]
    state: PhantomData<fn() -> S>,
}

impl<S: State> StaticPointer<S> {
    /// A pointer that transactions do not follow.
    #[must_use]
    pub const fn new(reference: StateRef) -> StaticPointer<S> {
        StaticPointer { reference, resolved: false, state: PhantomData }
    }

    /// A pointer to what must be a reference of every transaction that makes a state with it.
    #[must_use]
    pub const fn resolved(reference: StateRef) -> StaticPointer<S> {
        StaticPointer { reference, resolved: true, state: PhantomData }
    }

    /// Where the state was made.
    #[must_use]
    pub const fn reference(&self) -> StateRef {
        self.reference
    }
}

impl<S: State> LinearPointer<S> {
    /// A pointer to what must be a reference of every transaction that makes a state with it.
    #[must_use]
    pub const fn new(id: LinearId) -> LinearPointer<S> {
        LinearPointer { id, resolved: true, state: PhantomData }
    }

    /// A pointer that transactions do not follow.
    #[must_use]
    pub const fn unresolved(id: LinearId) -> LinearPointer<S> {
        LinearPointer { id, resolved: false, state: PhantomData }
    }

    /// The linear id.
    #[must_use]
    pub const fn id(&self) -> LinearId {
        self.id
    }
}

impl<S: State> StatePointer for StaticPointer<S> {
    type State = S;

    fn target(&self) -> Target {
        Target::Static(self.reference)
    }

    fn points_to(&self, reference: &StateRef, _: &S) -> bool {
        self.reference == *reference
    }
}

impl<S: State> StatePointer for LinearPointer<S> {
    type State = S;

    fn target(&self) -> Target {
        Target::Linear { id: self.id, state_type: format!("{}/{}", S::CONTRACT, S::NAME) }
    }

    fn points_to(&self, _: &StateRef, state: &S) -> bool {
        state.linear_id() == Some(self.id)
    }
}

/// What both kinds have in common. The host asks for the pointers of a state if its schema has `-pointer to `.
macro_rules! pointers {
    ($($pointer:ident by $field:ident = $words:literal;)*) => { $(
        impl<S: State> DataType for $pointer<S> {
            fn type_words(out: &mut String) {
                out.push_str($words);
                out.push_str(S::CONTRACT);
                out.push('/');
                out.push_str(S::NAME);
            }

            fn pointers(&self, out: &mut Vec<Target>) {
                if self.resolved {
                    out.push(self.target());
                }
            }
        }

        // Derived, these would ask the same of the type of the state.
        impl<S> Clone for $pointer<S> {
            fn clone(&self) -> $pointer<S> {
                *self
            }
        }

        impl<S> Copy for $pointer<S> {}

        impl<S> PartialEq for $pointer<S> {
            fn eq(&self, other: &$pointer<S>) -> bool {
                self.$field == other.$field && self.resolved == other.resolved
            }
        }

        impl<S> Eq for $pointer<S> {}

        impl<S> fmt::Debug for $pointer<S> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($pointer))
                    .field(stringify!($field), &self.$field)
                    .field("resolved", &self.resolved)
                    .finish()
            }
        }
    )* };
}

pointers! {
    StaticPointer by reference = "static-pointer to ";
    LinearPointer by id = "linear-pointer to ";
}
