//! What every other module uses and that uses none of them.
//!
//! Some of it stands for the system, so that a simulation can put its own in place: time ([`clock`]), chance
//! ([`random`]), tasks ([`spawner`]) and the primitives of the protocols between threads ([`sync`]). [`rules`] names
//! the rules that a simulation breaks. The others are problems that several places tell ([`error`]), trouble that is
//! not the fault of a flow ([`trouble`]), numbers that are counted ([`counters`]) and a queue whose users take turns
//! ([`fair_queue`]).

pub(crate) mod clock;
pub(crate) mod counters;
pub(crate) mod error;
pub(crate) mod fair_queue;
pub(crate) mod random;
pub(crate) mod rules;
pub(crate) mod spawner;
pub(crate) mod sync;
pub(crate) mod trouble;
