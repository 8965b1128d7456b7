//! What is written together, and what becomes visible once it is written.
//!
//! A flow's work of one moment is a [`unit`]. It is handed to the [`committer`], which has the store write it, and
//! routes, answers and tells what it brought. [`outcomes`] is what stays of a flow that has ended. Responders that the
//! end of their initiator has overtaken are told by units of the host ([`late_confirm`]).

pub(crate) mod committer;
pub(crate) mod late_confirm;
pub(crate) mod outcomes;
pub(crate) mod unit;
